"""What a message comes to on the wire, found out by reading it, and what that was found out on."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from pop3hub.protocol.downgrade import surrogate_size

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 256 * 1024
"""Octets that are read at a time."""
MESSAGE_LIMIT = 1 << 30
"""Octets of a message file. A larger one is not listed: it would keep a thread for long."""
TRIES = 3
"""How often a file is measured that changes meanwhile."""


class Stamp(NamedTuple):
    """A file's size, modification time in nanoseconds and inode: what is known holds for these."""

    size: int
    mtime: int
    inode: int


def stamp_of(status: os.stat_result) -> Stamp:
    """Return the stamp of a file."""
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ino)


class Measured(NamedTuple):
    """What is known about a message file.

    octets: with CRLF line ends and one at the end, before dot-stuffing (RFC 1939 s11).
    ready: it can be sent as it is.
    ascii_size: octets of its surrogate, as `PopMessage` has it.
    """

    octets: int
    ready: bool
    ascii_size: int | None
    stamp: Stamp


class Survey:
    """What octets come to on the wire, found out chunk by chunk.

    octets, ready: as in `Measured`.
    ascii: it is all ASCII, so that RFC 6858 has nothing to do.
    """

    __slots__ = ("_last", "ascii", "octets", "ready")

    def __init__(self) -> None:
        self._last = b"\n"
        self.octets = 0
        self.ready = True
        self.ascii = True

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk."""
        if not chunk:
            return
        bare = chunk.count(b"\n")
        if b"\r" in chunk:  # looking for one octet is much faster than counting pairs
            bare -= chunk.count(b"\r\n")
        if self._last == b"\r" and chunk.startswith(b"\n"):
            bare -= 1
        if self.ready:
            dotted = b"\n." in chunk or (self._last == b"\n" and chunk.startswith(b"."))
            self.ready = not (bare or dotted)
        if self.ascii:
            self.ascii = chunk.isascii()
        self._last = chunk[-1:]
        self.octets += len(chunk) + bare

    def end(self) -> None:
        """Take in that there are no more chunks."""
        if self._last != b"\n":
            self.ready = False
            self.octets += 2


def measure(fd: int) -> Measured:
    """Read a whole file in whatever thread this is called in; raise OSError.

    A message outside ASCII is read twice: whether it has a surrogate, its header tells.
    """
    for _ in range(TRIES):
        stamp = stamp_of(os.fstat(fd))
        if stamp.size > MESSAGE_LIMIT:
            raise OSError(errno.EFBIG, f"larger than {MESSAGE_LIMIT} octets")
        survey = Survey()
        for chunk in _chunks(fd, stamp.size):
            survey.feed(chunk)
        survey.end()
        ascii_size = survey.octets if survey.ascii else surrogate_size(_chunks(fd, stamp.size))
        if stamp == stamp_of(os.fstat(fd)):
            return Measured(survey.octets, survey.ready, ascii_size, stamp)
    raise OSError(errno.EAGAIN, "changes while it is read")


def _chunks(fd: int, size: int) -> Iterator[bytes]:
    offset = 0
    while offset < size and (chunk := os.pread(fd, min(CHUNK, size - offset), offset)):
        yield chunk
        offset += len(chunk)
