"""What is remembered about a Maildir's messages: one small file, appended to and rewritten whole.

`pop3hub-index` in the Maildir has a line for each message: base name, unique-id (empty: the base
name), size in octets, letters; tabs in between. The last line for a base name counts. `r` says that
the message is wire-ready, `n` that it isn't, `a` that it is all ASCII. Damaged lines are passed
over; without the file all is found out again, but unique-ids from elsewhere are then lost.
"""
# ruff: noqa: PTH104, PTH123 - the paths are text

from __future__ import annotations

import fcntl
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NAME = "pop3hub-index"
HEADER = "pop3hub-maildir 1\n"
SPARE_LINES = 1000
"""Lines of removed messages that are kept before the file is rewritten."""

_LINE = re.compile(r"^([^\t\n]+)\t([!-~]{0,70})\t([0-9]{1,15})\t([a-z]*)$", re.MULTILINE)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


class Record(NamedTuple):
    """One line."""

    base: str
    uid: str
    size: int
    letters: str

    @property
    def line(self) -> str:
        """The record as it is written; empty for a name that would break the format."""
        if _CONTROLS.search(self.base):
            return ""
        uid = "" if self.uid == self.base else self.uid
        return f"{self.base}\t{uid}\t{self.size}\t{self.letters}\n"


class Index:
    """The index file of one Maildir. Its functions block, and are called by one thread at a time.

    lines: how many there are in the file, those that don't count any more included.
    """

    def __init__(self, maildir: str) -> None:
        self._path = f"{maildir}/{NAME}"
        self._inode = 0
        self._position = 0
        self.lines = 0

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing; a kernel lock, which no crash leaves behind."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        lock = os.open(f"{self._path}.lock", flags, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def news(self) -> list[Record]:
        """Return the records that were written since the last call, by whomever."""
        try:
            file = open(self._path, "rb")  # noqa: SIM115 - closed below
        except FileNotFoundError:
            self._inode = self._position = self.lines = 0
            return []
        with file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._inode or status.st_size < self._position:
                self._inode = status.st_ino
                self._position = self.lines = 0
            if status.st_size == self._position:
                return []
            file.seek(self._position)
            data = file.read()
        whole = data.rfind(b"\n") + 1  # another process may be writing the rest
        self._position += whole
        text = data[:whole].decode("utf-8", "surrogateescape")
        self.lines += text.count("\n")
        return [
            Record(base, uid or base, int(size), letters)
            for base, uid, size, letters in _LINE.findall(text)
        ]

    def append(self, records: Iterable[Record], *, durable: bool = False) -> None:
        """Write records; the caller holds the lock."""
        data = _encode(records)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self._path, flags, 0o600)
        try:
            size = os.fstat(fd).st_size
            if size == 0:
                data = HEADER.encode("ascii") + data
            elif os.pread(fd, 1, size - 1) != b"\n":  # a crash cut the last line
                data = b"\n" + data
            _write(fd, data)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)

    def rewrite(self, records: Iterable[Record]) -> None:
        """Replace the file by one with these records alone; the caller holds the lock."""
        data = HEADER.encode("ascii") + _encode(records)
        new = f"{self._path}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(new, flags, 0o600)
        try:
            _write(fd, data)
            os.fsync(fd)
            self._inode = os.fstat(fd).st_ino
        finally:
            os.close(fd)
        os.rename(new, self._path)
        self._position = len(data)
        self.lines = data.count(b"\n")


def _encode(records: Iterable[Record]) -> bytes:
    return "".join([record.line for record in records]).encode("utf-8", "surrogateescape")


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
