"""One Maildir as this process knows it: its messages, listed again only when something has changed.

A Maildir belongs to nobody: delivery agents, IMAP servers and other processes of ours add, rename
and remove files at any time. A message is known by its base name, what comes before the colon; its
place is looked up again where the file has moved. What is known about a file holds as long as its
size, modification time and inode stay the same. All that scans, measures or writes blocks, and runs
in a thread, one piece of work after the other.
"""
# ruff: noqa: PTH208 - names relative to a folder's descriptor; a Path for each of
# 20,000 files would cost more than the work

from __future__ import annotations

import errno
import hashlib
import os
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

import structlog

from pop3hub import Snapshot, TemporaryFailure, is_unique_id
from pop3hub.mailbox_files import delivered, dovecot_uidls
from pop3hub_maildir import removal
from pop3hub_maildir.directories import OpenMaildir
from pop3hub_maildir.failures import told
from pop3hub_maildir.index import INDEX_PATIENCE
from pop3hub_maildir.known import KnownMessages
from pop3hub_maildir.looking import all_places, find
from pop3hub_maildir.measuring import measure
from pop3hub_maildir.messages import UNMEASURED, MaildirMessage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from pop3hub_maildir.directories import MaildirPath
    from pop3hub_maildir.lock import MaildirLock
    from pop3hub_maildir.looking import Places
    from pop3hub_maildir.measuring import Measured

SETTLED = 2_000_000_000
"""Nanoseconds after which no change can hide behind a folder's time: file systems count as coarsely
as two seconds, and a listing that began in the same tick may have missed something."""
MEASURING = 1.0
"""Seconds of measuring messages before they are handed on, and the thread to others."""
PAGE = 5_000
"""Messages that are handed on at once at most, where some of them have to be measured."""
RENAMED = 50
"""How often a file may be renamed under the hands of its measurement."""

_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT}


class Folder:
    """A Maildir and its messages.

    messages: the last listing, oldest first.
    counted: its length when it was last counted, by the keeper of many.
    lock: held by the session that has the maildrop open in this process.
    """

    def __init__(
        self,
        path: MaildirPath,
        *,
        page: int = PAGE,
        measuring: float = MEASURING,
        index_patience: float = INDEX_PATIENCE,
    ) -> None:
        """Take limits: messages of a page, seconds of measuring it and of waiting for the index."""
        self._page = page
        self._measuring = measuring
        self.path = path
        self.messages: Snapshot[MaildirMessage] = Snapshot()
        self.counted = 0
        self.lock: MaildirLock | None = None
        self._known = KnownMessages(self, str(path), index_patience)
        self._twins: frozenset[str] = frozenset()
        self._listed = False
        self._times: tuple[int, int] | None = None
        self._scanned: tuple[int, int] | None = None
        self._log = structlog.get_logger("pop3hub.maildir")

    def __len__(self) -> int:
        """Count what is kept in memory, in messages; the folder itself is worth some."""
        return len(self._known) + 10

    def failures(self) -> AbstractContextManager[None]:
        """Return what turns OSErrors into PopErrors, with a line in the log."""
        return told(str(self.path))

    # Listing

    def is_current(self, maildir: OpenMaildir | None = None) -> bool:
        """Return whether the last listing still holds, for each of its files.

        `maildir` is for callers on the event loop, who have one open.
        """
        if self._times is None:
            return False
        try:
            with nullcontext(maildir) if maildir else OpenMaildir(self.path) as opened:
                return self._times == opened.times() and _are_unchanged(opened, self.messages)
        except FileNotFoundError:
            return False

    def scan(self) -> tuple[list[MaildirMessage], bool]:
        """Return the messages, oldest first, and whether any of them has to be measured first.

        `measure` them then, and `finish` with all. New mail is moved from `new` to `cur`. A Maildir
        that isn't there is made.
        """
        self._times = None
        with OpenMaildir(self.path, create=True) as maildir:
            self._known.refresh(maildir)
            self._move_new(maildir)
            began = time.time_ns()
            times = maildir.times()
            # One that a client misses once it downloads again.
            expected = [m.base for m in self._known if m.place or not self._listed]
            places = all_places(maildir, expected)
            self._listed = True
            self._twins = frozenset(places.twins)
            messages = []
            for message in self._known:
                message.place = places.pop(message.base, "")
                if message.place:
                    messages.append(message)
                    if not _are_unchanged(maildir, (message,)):
                        message.stamp = UNMEASURED
            self._scanned = times if began - max(times) > SETTLED else None
            _make_distinct(messages)
            self._known.tidy(maildir, len(messages))
            new = self._new(maildir, places) if places else []
        return messages + new, bool(new) or any(m.stamp is UNMEASURED for m in messages)

    def finish(self, messages: Iterable[MaildirMessage]) -> None:
        """Keep a whole listing until something changes."""
        self.messages = Snapshot(messages)
        self._times = self._scanned

    def _move_new(self, maildir: OpenMaildir) -> None:
        for name in os.listdir(maildir.new):
            if name.startswith("."):
                continue
            target = name if ":" in name else f"{name}:2,"
            try:
                if _exists(target, maildir.cur):  # never in place of another message
                    continue
                os.rename(name, target, src_dir_fd=maildir.new, dst_dir_fd=maildir.cur)
            except FileNotFoundError:  # another server was faster
                continue
            except OSError as exc:  # a Maildir that we may only read: served from where it is
                self._log.debug("maildir.not_moved", maildir=str(self.path), error=exc.strerror)
                break

    def _new(self, maildir: OpenMaildir, places: Places) -> list[MaildirMessage]:
        """Return messages for files that are seen for the first time."""
        uidls = dovecot_uidls(maildir.top)
        order = {base: number for number, base in enumerate(uidls)}
        taken = self._known.uids()
        new = []
        for base in sorted(places, key=lambda base: (order.get(base, len(order)), delivered(base))):
            uid = uidls.get(base, base)
            if uid in taken or not is_unique_id(uid):
                uid = base
            if uid in taken or not is_unique_id(uid):
                uid = _digest(base)
            taken.add(uid)
            new.append(MaildirMessage(self, base, uid, places[base]))
        return new

    # Measuring

    def measure(self, messages: Iterator[MaildirMessage]) -> list[MaildirMessage]:
        """Return the next messages, their sizes found out and remembered; none at the end.

        A size comes from reading the file: what a name says (`W=`, `S=`) may be wrong.
        """
        ready: list[MaildirMessage] = []
        fresh: list[MaildirMessage] = []
        moved: dict[str, str] = {}
        until = time.monotonic() + self._measuring
        with OpenMaildir(self.path) as maildir:
            for message in messages:
                if message.stamp is UNMEASURED:
                    if not self._measure(maildir, message, moved):
                        continue
                    fresh.append(message)
                ready.append(message)
                if len(ready) >= self._page or time.monotonic() > until:
                    break
            self._known.remember(maildir, fresh)
        for message in fresh:
            self._known.add(message)
        return ready

    def _measure(
        self, maildir: OpenMaildir, message: MaildirMessage, moved: dict[str, str]
    ) -> bool:
        """Measure a message; return False for one that is gone or can't be read.

        What has nothing to do with this file is raised: a message must not be left out for it.
        """
        message.place = moved.get(message.base, message.place)
        for _ in range(RENAMED):
            try:
                fd = maildir.open(message.place)
                try:
                    message.learn(measure(fd))
                finally:
                    os.close(fd)
            except FileNotFoundError:
                moved.update(places := find(maildir, (message.base,)))
                if message.base not in places:
                    return False
                message.place = places[message.base]
            except OSError as exc:
                if exc.errno in _PASSING:
                    raise
                self._log.error(
                    "maildir.unreadable", file=f"{self.path}/{message.place}", error=exc.strerror
                )
                return False
            else:
                return True
        raise TemporaryFailure

    def measure_again(self, message: MaildirMessage) -> bool:
        """Measure a file that has changed in a session; return whether what was listed holds."""
        size, ascii_size = message.size, message.ascii_size
        with OpenMaildir(self.path) as maildir:
            measured = self._measure(maildir, message, {})
            if measured and (message.size, message.ascii_size) == (size, ascii_size):
                self._known.remember(maildir, [message])
                return True
        # It stays as it was listed, and is measured by the next session.
        message.size, message.ascii_size, message.stamp = size, ascii_size, UNMEASURED
        return False

    # Reading

    def open(self, message: MaildirMessage) -> int:
        """Open a message's file where it was last seen; raise OSError."""
        if not message.place:
            raise FileNotFoundError
        if self.lock is not None:
            return self.lock.maildir.open(message.place)
        with OpenMaildir(self.path) as maildir:
            return maildir.open(message.place)

    def relocate(self, message: MaildirMessage) -> bool:
        """Look for a message whose file has moved; return whether it is still there."""
        with OpenMaildir(self.path) as maildir:
            message.place = find(maildir, (message.base,)).get(message.base, "")
        return bool(message.place)

    # Removal

    def remove(self, messages: Sequence[MaildirMessage]) -> int:
        """Remove files for good; return how many are gone now.

        Each goes in one step, and the folders are synced before this returns: what was answered
        with +OK stays removed over a crash, and a crash before leaves whole messages. Raises
        TemporaryFailure, with nothing removed, where the session's lock was lost.
        """
        if not messages:
            return 0
        if self.lock is not None and not self.lock.is_held():
            raise TemporaryFailure
        with OpenMaildir(self.path) as maildir:
            places = {message.base: message.place for message in messages}
            gone = removal.remove(maildir, str(self.path), places, self._twins)
        for base in gone:
            self._known.forget(base)
        return len(gone)

    def expired(self, before: float) -> list[MaildirMessage]:
        """Return what was delivered before a time, in seconds.

        By the time in a message's name: one that has none stays.
        """
        listed = self.messages if self.is_current() else self.scan()[0]
        return [message for message in listed if 0 < delivered(message.base)[0] < before]

    # Delivery

    def deliver(self, tmp: tuple[str, int], base: str, uid: str, measured: Measured) -> None:
        """Make a file, which is synced, the newest message; raise UniqueIdTaken.

        `tmp` is its name and the descriptor of its folder.
        """
        message = MaildirMessage(self, base, uid)
        message.learn(measured)
        with OpenMaildir(self.path) as maildir:
            if uid == base:
                self._known.remember(maildir, [message])
            else:
                self._known.claim(maildir, message)
            os.rename(tmp[0], base, src_dir_fd=tmp[1], dst_dir_fd=maildir.new)
            os.fsync(maildir.new)


def _are_unchanged(maildir: OpenMaildir, messages: Iterable[MaildirMessage]) -> bool:
    """Return whether each message's file is the one that it was measured on."""
    cur = maildir.cur
    for message in messages:
        place = message.place
        folder = cur if place.startswith("cur") else maildir.new
        try:
            status = os.stat(place[4:], dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if (status.st_size, status.st_mtime_ns, status.st_ino) != message.stamp:
            return False
    return True


def _exists(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _make_distinct(messages: Iterable[MaildirMessage]) -> None:
    """Give the later of two messages with one unique-id another: only a damaged index has such."""
    seen = set()
    for message in messages:
        if message.uid in seen:
            message.uid = _digest(message.base)
        seen.add(message.uid)


def _digest(base: str) -> str:
    return hashlib.sha256(os.fsencode(base)).hexdigest()
