"""The lock on a maildrop: `flock` on a file in the Maildir (RFC 1939 s4).

Other sessions, processes and machines respect it: NFS hands `flock` on to its server since Linux
2.6.12. The kernel gives it back however a process ends. It belongs to the open file, unlike POSIX
locks, which a process loses when anything in it closes the same file. Dovecot's own lock, a dotlock
on `dovecot-uidlist`, was not taken: held for a session it would stop IMAP and deliveries.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from pop3hub.errors import MaildropInUse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pop3hub_maildir.folder import Folder

NAME = "pop3hub.lock"
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class MaildirLock:
    """An async context manager; taking it makes three quick system calls on the event loop."""

    __slots__ = ("_fd", "_folder", "_leaving")

    def __init__(self, folder: Folder, leaving: Callable[[Folder], Awaitable[None]]) -> None:
        """Lock this folder; `leaving` is called at the session's end, before the lock goes."""
        self._folder = folder
        self._leaving = leaving
        self._fd = -1

    async def __aenter__(self) -> None:
        path = f"{self._folder.path}/{NAME}"
        try:
            fd = os.open(path, _FLAGS, 0o600)
        except FileNotFoundError:
            self._folder.create()
            fd = os.open(path, _FLAGS, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException as exc:
            os.close(fd)
            if isinstance(exc, BlockingIOError):
                raise MaildropInUse from None
            raise
        self._fd = fd

    async def __aexit__(self, *_: object) -> None:
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            await self._leaving(self._folder)
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)  # a forked process may hold the file open
            os.close(fd)
