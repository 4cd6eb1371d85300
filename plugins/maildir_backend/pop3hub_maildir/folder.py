"""One Maildir: its messages, listed again only when a folder has changed, and their removal.

A Maildir belongs to nobody: delivery agents, IMAP servers and other processes of ours add, rename
and remove files at any time. A message is known by its base name, what stands before the colon; its
place is looked up again where the file has moved. All that scans, measures or writes blocks, and
runs in a thread; `unchanged` and `path_of` don't.
"""
# ruff: noqa: PTH103, PTH104, PTH108, PTH112, PTH116, PTH208 - the paths are text: a Path for each
# of 20,000 files would cost more than the work

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from pop3hub.errors import UniqueIdTaken
from pop3hub.listing import Snapshot
from pop3hub.maildrop import PopMessage
from pop3hub.sources import delivered, dovecot_uidls
from pop3hub_maildir.index import SPARE_LINES, Index, Record
from pop3hub_maildir.reading import survey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pop3hub_maildir.reading import Survey

FOLDERS = ("tmp", "new", "cur")
SETTLED = 2_000_000_000
"""Nanoseconds after which no change can hide behind a folder's time: file systems count as coarsely
as two seconds, and a listing that began in the same tick may have missed something."""
MEASURING = 1.0
"""Seconds of measuring new messages before they are handed on, and the thread to others."""
PAGE = 5_000
"""New messages that are handed on at once at most."""

_UNIQUE_ID = re.compile(r"[!-~]{1,70}")  # RFC 1939 s7
_WIRE_SIZE = re.compile(r",W=([0-9]{1,15})(?:,|$)")


class MaildirMessage(PopMessage):
    """A message file.

    place: where it was last seen, from the Maildir: `cur/name:2,S`; "" if it wasn't.
    surveyed: its octets were read once: `wire_ready` and `ascii_size` are known.
    """

    __slots__ = ("base", "folder", "place", "surveyed")

    def __init__(self, folder: Folder, base: str, uid: str, size: int, place: str = "") -> None:
        super().__init__(uid, size)
        self.folder = folder
        self.base = base
        self.place = place
        self.surveyed = False

    def learn(self, size: int, letters: str) -> None:
        """Take in what a survey found, now or in the past."""
        self.size = size
        self.surveyed = "r" in letters or "n" in letters
        self.wire_ready = "r" in letters
        self.ascii_size = size if "a" in letters else None

    @property
    def record(self) -> Record:
        """What the index keeps of it."""
        letters = ("r" if self.wire_ready else "n") if self.surveyed else ""
        if self.ascii_size == self.size:
            letters += "a"
        return Record(self.base, self.uid, self.size, letters)


class Folder:
    """A Maildir as this process knows it.

    messages: the last listing, oldest first.
    counted: its length when it was last counted, for whoever keeps many.
    """

    def __init__(self, path: str, *, page: int = PAGE, measuring: float = MEASURING) -> None:
        """Take the limits of one page of new messages: how many, and how many seconds' work."""
        self.path = path
        self._page = page
        self._measuring = measuring
        self.messages: Snapshot[MaildirMessage] = Snapshot()
        self.counted = 0
        self._known: dict[str, MaildirMessage] = {}
        self._uids: dict[str, str] = {}
        self._index = Index(path)
        self._learned: dict[str, Record] = {}
        self._listed = False
        self._times: tuple[int, int] | None = None
        self._scanned: tuple[int, int] | None = None
        self._mutex = threading.RLock()
        self._log = structlog.get_logger("pop3hub.maildir")

    def __len__(self) -> int:
        """Count what is kept in memory, in messages; the folder itself is worth some."""
        return len(self._known) + 10

    # Listing

    @property
    def unchanged(self) -> bool:
        """Whether the last listing still holds."""
        try:
            return self._times is not None and self._times == self._mtimes()
        except FileNotFoundError:
            return False

    def _mtimes(self) -> tuple[int, int]:
        cur, new = (os.stat(f"{self.path}/{name}").st_mtime_ns for name in ("cur", "new"))
        return cur, new

    def create(self) -> None:
        """Make the Maildir, or what is missing of it."""
        for name in FOLDERS:
            os.makedirs(f"{self.path}/{name}", mode=0o700, exist_ok=True)

    def scan(self) -> tuple[list[MaildirMessage], list[MaildirMessage]]:
        """Return the messages that are known and those that are new, each oldest first.

        New mail is moved from `new` to `cur`. The new ones have no size yet: `measure` them, and
        `finish` with all. A Maildir that isn't there is made.
        """
        with self._mutex:
            self._times = None
            if not os.path.isdir(f"{self.path}/cur"):
                self.create()
            self._refresh()
            self._move_new()
            began = time.time_ns()
            times = self._mtimes()
            places = self._places()
            if any(b not in places for b, m in self._known.items() if m.place or not self._listed):
                # One listing can miss a file that is renamed meanwhile, and a client that misses a
                # message once forgets that it has it.
                places |= self._places()
            self._listed = True
            known = []
            for base, message in self._known.items():
                message.place = places.pop(base, "")
                if message.place:
                    known.append(message)
            self._scanned = times if began - max(times) > SETTLED else None
            _make_distinct(known)
            self._tidy(len(known))
            return known, self._new(places) if places else []

    def finish(self, messages: Iterable[MaildirMessage]) -> None:
        """Keep a whole listing until something changes."""
        self.messages = Snapshot(messages)
        self._times = self._scanned

    def _refresh(self) -> None:
        """Take in what other processes wrote into the index."""
        for base, uid, size, letters in self._index.news():
            message = self._known.get(base)
            if message is None:
                message = MaildirMessage(self, base, uid, size)
                self._add(message)
            message.learn(size, letters)

    def _add(self, message: MaildirMessage) -> None:
        self._known[message.base] = message
        self._uids[message.uid] = message.base

    def _forget(self, base: str) -> None:
        message = self._known.pop(base, None)
        if message is not None and self._uids.get(message.uid) == base:
            del self._uids[message.uid]

    def _move_new(self) -> None:
        for name in os.listdir(f"{self.path}/new"):
            if name.startswith("."):
                continue
            info = "" if ":" in name else ":2,"
            try:
                os.rename(f"{self.path}/new/{name}", f"{self.path}/cur/{name}{info}")
            except FileNotFoundError:  # another server was faster
                continue
            except OSError as exc:  # a Maildir that we may only read: served where it lies
                self._log.debug("maildir.not_moved", maildir=self.path, error=exc.strerror)
                break

    def _places(self) -> dict[str, str]:
        """Return where each message lies, by base name."""
        places = {}
        for folder in ("new", "cur"):
            for name in os.listdir(f"{self.path}/{folder}"):
                if not name.startswith("."):
                    places[name.partition(":")[0]] = f"{folder}/{name}"
        return places

    def _new(self, places: dict[str, str]) -> list[MaildirMessage]:
        """Return messages for files that are seen for the first time."""
        uidls = dovecot_uidls(Path(self.path))
        order = {base: number for number, base in enumerate(uidls)}
        taken = set(self._uids)
        new = []
        for base in sorted(places, key=lambda base: (order.get(base, len(order)), delivered(base))):
            uid = uidls.get(base, base)
            if uid in taken or not _UNIQUE_ID.fullmatch(uid):
                uid = base
            if uid in taken or not _UNIQUE_ID.fullmatch(uid):
                uid = _digest(base)
            taken.add(uid)
            new.append(MaildirMessage(self, base, uid, -1, places[base]))
        return new

    def measure(self, new: Iterator[MaildirMessage]) -> list[MaildirMessage]:
        """Return the next messages with their size found out and remembered; none at the end.

        A size comes from `W=` in the name, or else from reading the file: `S=` counts what lies on
        disk, where a line end is one octet.
        """
        measured = []
        until = time.monotonic() + self._measuring
        for message in new:
            if match := _WIRE_SIZE.search(message.base):
                message.size = int(match[1])
                measured.append(message)
            elif self._survey(message):
                measured.append(message)
            if measured and (len(measured) >= self._page or time.monotonic() > until):
                break
        with self._mutex:
            self._remember(measured)
            for message in measured:
                self._add(message)
        return measured

    def _survey(self, message: MaildirMessage) -> bool:
        try:
            found = survey(self.path_of(message))
        except FileNotFoundError:  # gone already: it was never listed
            return False
        except OSError as exc:
            self._log.error("maildir.unreadable", file=self.path_of(message), error=exc.strerror)
            return False
        message.learn(found.octets, _letters(found))
        return True

    def _remember(self, messages: Sequence[MaildirMessage]) -> None:
        """Write what was found out into the index; a Maildir that we may only read has none."""
        if not messages:
            return
        try:
            with self._index.locked():
                self._index.append(message.record for message in messages)
        except OSError as exc:
            if exc.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
                raise
            self._log.debug("maildir.no_index", maildir=self.path, error=exc.strerror)

    def _tidy(self, living: int) -> None:
        """Rewrite the index once most of its lines are of messages that are gone."""
        if self._index.lines < 2 * living + SPARE_LINES:
            return
        with self._index.locked():
            self._refresh()
            # Listed once more: a file that is renamed meanwhile can be missed by one listing.
            places = self._places()
            for base in [b for b, m in self._known.items() if not (m.place or b in places)]:
                self._forget(base)
            self._index.rewrite(message.record for message in self._known.values())

    # Reading

    def path_of(self, message: MaildirMessage) -> str:
        """Return where the message was last seen."""
        return f"{self.path}/{message.place}"

    def relocate(self, message: MaildirMessage) -> bool:
        """Look for a message whose file has moved; return whether it is still there."""
        with self._mutex:
            message.place = self._places().get(message.base, "")
        return bool(message.place)

    def learned(self, message: MaildirMessage, found: Survey) -> None:
        """Note what a first RETR found out; the size counts from the next session on."""
        letters = _letters(found)
        message.surveyed = True
        if found.octets == message.size:
            message.learn(found.octets, letters)
        self._learned[message.base] = Record(message.base, message.uid, found.octets, letters)

    @property
    def has_learned(self) -> bool:
        """Whether there is something to `keep`."""
        return bool(self._learned)

    def keep(self) -> None:
        """Write what sessions have found out into the index."""
        with self._mutex:
            learned, self._learned = self._learned, {}
            records = [record for record in list(learned.values()) if record.base in self._known]
            for record in records:
                self._known[record.base].learn(record.size, record.letters)
            self._remember([self._known[record.base] for record in records])

    # Removal

    def remove(self, messages: Sequence[MaildirMessage]) -> int:
        """Remove files for good; return how many are gone now.

        Each goes in one step, and the folders are synced before this returns: what was answered
        with +OK stays removed over a crash, and a crash before leaves whole messages.
        """
        if not messages:
            return 0
        with self._mutex:
            gone = self._unlink(messages)
            for name in ("cur", "new"):
                sync_folder(f"{self.path}/{name}")
        return gone

    def _unlink(self, messages: Sequence[MaildirMessage]) -> int:
        gone = 0
        places: dict[str, str] | None = None
        for message in messages:
            try:
                try:
                    os.unlink(self.path_of(message))
                except (FileNotFoundError, IsADirectoryError):
                    if places is None:
                        places = self._places()
                    if place := places.get(message.base):
                        os.unlink(f"{self.path}/{place}")
            except FileNotFoundError:
                pass
            except OSError as exc:
                self._log.error(
                    "maildir.not_removed", file=self.path_of(message), error=exc.strerror
                )
                continue
            gone += 1
            self._forget(message.base)
        return gone

    def expire(self, before: float) -> int:
        """Remove what was delivered before a time, in seconds; return how many there were.

        By the time in a message's name: one that has none stays.
        """
        with self._mutex:
            listed = self.messages if self.unchanged else itertools.chain(*self.scan())
            return self.remove([m for m in listed if 0 < delivered(m.base)[0] < before])

    # Delivery

    def deliver(self, tmp: str, base: str, uid: str, found: Survey) -> None:
        """Make a file below `tmp`, which is synced, the newest message; raise UniqueIdTaken."""
        message = MaildirMessage(self, base, uid, found.octets)
        message.learn(found.octets, _letters(found))
        with self._mutex, self._index.locked():
            self._refresh()
            holder = self._uids.get(uid)
            if holder is not None and holder in self._places():
                raise UniqueIdTaken(uid=uid)
            self._index.append([message.record], durable=uid != base)
            os.rename(tmp, f"{self.path}/new/{base}")
            sync_folder(f"{self.path}/new")


def sync_folder(path: str) -> None:
    """Make sure that what was renamed or removed in a folder survives a crash."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _make_distinct(messages: Iterable[MaildirMessage]) -> None:
    """Give the later of two messages with one unique-id another: only a damaged index has such."""
    seen = set()
    for message in messages:
        if message.uid in seen:
            message.uid = _digest(message.base)
        seen.add(message.uid)


def _digest(base: str) -> str:
    return hashlib.sha256(os.fsencode(base)).hexdigest()


def _letters(found: Survey) -> str:
    return ("r" if found.ready else "n") + ("a" if found.ascii else "")
