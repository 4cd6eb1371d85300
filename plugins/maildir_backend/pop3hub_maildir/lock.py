"""The lock on a maildrop: `flock` on the Maildir's folder and on a file in it (RFC 1939 s4).

The kernel gives both back however a process ends. They belong to the open file, unlike POSIX locks,
which a process loses when anything in it closes the same file. Dovecot's own lock, a dotlock on
`dovecot-uidlist`, is not taken: held for a session it would stop IMAP and deliveries.

The folder's lock needs no room on a full disk, and nobody can remove what it is on; NFS doesn't
have it. The file's lock is passed on to an NFS server, since Linux 2.6.12. A session holds its
maildrop only while the file of that name is the one that it locked.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import structlog

from pop3hub import MaildropInUse, TemporaryFailure
from pop3hub_maildir.directories import OpenMaildir

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from pop3hub_maildir.directories import MaildirPath


NAME = "pop3hub.lock"
TRIES = 5
"""How often the file may vanish between its opening and its locking."""
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}
"""Errors by which a file can't be made, and the folder's lock has to do."""


class Lockable(Protocol):
    """A folder that can be locked."""

    path: MaildirPath
    lock: MaildirLock | None

    def failures(self) -> AbstractContextManager[None]:
        """Return what turns OSErrors into PopErrors."""


class MaildirLock:
    """An async context manager; taking it makes some quick system calls on the event loop."""

    __slots__ = ("_fd", "_folder", "_leaving", "_log", "maildir")

    def __init__(self, folder: Lockable, leaving: Callable[[], None]) -> None:
        """Lock this folder; `leaving` is called at the session's end, before the lock goes.

        maildir: open for as long as the lock is held, for the event loop alone.
        """
        self._folder = folder
        self._leaving = leaving
        self._fd = -1
        self._log = structlog.get_logger("pop3hub.maildir")

    async def __aenter__(self) -> None:
        with self._folder.failures():
            self.maildir = OpenMaildir(self._folder.path, create=True)
            try:
                folder_locked = self._lock_folder()
                self._fd = self._lock_file(needed=not folder_locked)
            except BaseException:
                self._close()
                raise
        self._folder.lock = self

    async def __aexit__(self, *_: object) -> None:
        if self._folder.lock is not self:
            return
        self._folder.lock = None
        try:
            self._leaving()
        finally:
            self._close()

    def is_held(self) -> bool:
        """Return whether nobody else can have the maildrop now; log it if somebody can."""
        if self._fd < 0 or self._is_current(self._fd):
            return True
        self._log.error("maildir.lock_lost", maildir=str(self._folder.path), file=NAME)
        return False

    def _lock_folder(self) -> bool:
        """Lock the folder itself; return False where the file system can't."""
        try:
            fcntl.flock(self.maildir.top, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MaildropInUse from None
        except OSError:
            return False
        return True

    def _lock_file(self, *, needed: bool) -> int:
        for _ in range(TRIES):
            try:
                fd = self.maildir.open_at_top(NAME, os.O_RDWR | os.O_CREAT)
            except OSError as exc:
                if needed or exc.errno not in NO_ROOM:
                    raise
                return -1
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_current(fd):
                    return fd
            except BlockingIOError:
                os.close(fd)
                raise MaildropInUse from None
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
        raise TemporaryFailure

    def _is_current(self, fd: int) -> bool:
        try:
            there = os.stat(NAME, dir_fd=self.maildir.top, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(fd))

    def _close(self) -> None:
        """Give both locks back, explicitly: a forked process may hold the files open."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)
        with suppress(OSError):  # where folders can't be locked
            fcntl.flock(self.maildir.top, fcntl.LOCK_UN)
        self.maildir.close()
