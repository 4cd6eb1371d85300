"""What is remembered about a Maildir's messages: one small file, appended to and rewritten whole.

`pop3hub-index` in the Maildir has a line for each message, with tabs in between: base name,
unique-id (empty: the base name), octets on the wire, octets of the surrogate (empty: unknown), `r`
if it can be sent as it is or `n`, and what that holds for: the file's size, modification time and
inode. The last line for a base name counts. Damaged lines are ignored. Without the file all is
found out again, but unique-ids from elsewhere are then lost.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from pop3hub_maildir.measuring import Measured, Stamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pop3hub_maildir.directories import OpenMaildir

NAME = "pop3hub-index"
LOCK = f"{NAME}.lock"
NEW = f"{NAME}.new"
HEADER = "pop3hub-maildir 2\n"
SPARE_LINES = 1000
"""Lines of removed messages that are kept before the file is rewritten."""
SIZE_LIMIT = 256 << 20
"""Octets of an index: more than two million messages. A larger file isn't read."""
INDEX_PATIENCE = 5.0
"""Seconds for which another process may hold the file's lock; it needs some milliseconds."""
LOCK_PAUSE = 0.005

_LINE = re.compile(
    r"^([^\t\n]+)\t([!-~]{0,70})\t([0-9]{1,15})\t([0-9]{0,15})\t([rn])"
    r"\t([0-9]{1,15})\t(-?[0-9]{1,20})\t([0-9]{1,20})$",
    re.MULTILINE,
)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


class Record(NamedTuple):
    """One line."""

    base: str
    uid: str
    measured: Measured

    @property
    def line(self) -> str:
        """The record as it is written; empty for a name that would break the format."""
        if _CONTROLS.search(self.base):
            return ""
        uid = "" if self.uid == self.base else self.uid
        octets, ready, ascii_size, stamp = self.measured
        facts = (octets, "" if ascii_size is None else ascii_size, "r" if ready else "n", *stamp)
        return "\t".join([self.base, uid, *map(str, facts)]) + "\n"


class Index:
    """The index file of one Maildir.

    Its functions block, and are called by one thread at a time.
    lines: how many there are in the file, those that don't count any more included.
    """

    def __init__(self, patience: float = INDEX_PATIENCE) -> None:
        self._patience = patience
        self._inode = 0
        self._position = 0
        self.lines = 0

    @contextmanager
    def locked(self, maildir: OpenMaildir) -> Iterator[None]:
        """Keep other processes from writing; raise OSError where that takes too long."""
        lock = maildir.open_at_top(LOCK, os.O_RDWR | os.O_CREAT)
        try:
            until = time.monotonic() + self._patience
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise OSError(errno.EAGAIN, "locked by another process", LOCK) from None
                    time.sleep(LOCK_PAUSE)
                else:
                    break
            yield
        finally:
            os.close(lock)

    def news(self, maildir: OpenMaildir) -> list[Record]:
        """Return the records written since the last call, by any process; raise OSError."""
        try:
            fd = maildir.open_at_top(NAME, os.O_RDONLY)
        except FileNotFoundError:
            self._inode = self._position = self.lines = 0
            return []
        try:
            status = os.fstat(fd)
            if status.st_size > SIZE_LIMIT:
                raise OSError(errno.EFBIG, f"larger than {SIZE_LIMIT} octets", NAME)
            if status.st_ino != self._inode or status.st_size < self._position:
                self._inode = status.st_ino
                self._position = self.lines = 0
            if status.st_size == self._position:
                return []
            data = _read(fd, self._position, status.st_size)
        finally:
            os.close(fd)
        whole = data.rfind(b"\n") + 1  # another process may be writing the rest
        self._position += whole
        text = data[:whole].decode("utf-8", "surrogateescape")
        self.lines += text.count("\n")
        return [
            Record(
                base,
                uid or base,
                Measured(
                    int(octets),
                    ready == "r",
                    int(ascii_size) if ascii_size else None,
                    Stamp(int(size), int(mtime), int(inode)),
                ),
            )
            for base, uid, octets, ascii_size, ready, size, mtime, inode in _LINE.findall(text)
        ]

    def append(
        self, maildir: OpenMaildir, records: Iterable[Record], *, durable: bool = False
    ) -> None:
        """Write records; the caller holds the lock."""
        data = _encode(records)
        fd = maildir.open_at_top(NAME, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            size = os.fstat(fd).st_size
            if size == 0:
                data = HEADER.encode("ascii") + data
            elif os.pread(fd, 1, size - 1) != b"\n":  # a crash or a full disk cut the last line
                data = b"\n" + data
            _write(fd, data)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)

    def rewrite(self, maildir: OpenMaildir, records: Iterable[Record]) -> None:
        """Replace the file by one with these records alone; the caller holds the lock."""
        data = HEADER.encode("ascii") + _encode(records)
        with suppress(FileNotFoundError):  # of a process that ended here
            os.unlink(NEW, dir_fd=maildir.top)
        fd = maildir.open_at_top(NEW, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            _write(fd, data)
            os.fsync(fd)
            inode = os.fstat(fd).st_ino
            os.rename(NEW, NAME, src_dir_fd=maildir.top, dst_dir_fd=maildir.top)
        except BaseException:
            os.unlink(NEW, dir_fd=maildir.top)
            raise
        finally:
            os.close(fd)
        self._inode = inode
        self._position = len(data)
        self.lines = data.count(b"\n")


def _read(fd: int, start: int, end: int) -> bytes:
    chunks = []
    while start < end and (chunk := os.pread(fd, end - start, start)):
        chunks.append(chunk)
        start += len(chunk)
    return b"".join(chunks)


def _encode(records: Iterable[Record]) -> bytes:
    return "".join([record.line for record in records]).encode("utf-8", "surrogateescape")


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
