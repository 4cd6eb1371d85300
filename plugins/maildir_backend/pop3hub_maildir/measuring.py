"""What a message comes to on the wire, found out by reading it, and what that was found out on."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from pop3hub import WireForm, surrogate_size

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


def measure(fd: int) -> Measured:
    """Read a whole file in whatever thread this is called in; raise OSError.

    A message outside ASCII is read twice: whether it has a surrogate, its header tells.
    """
    for _ in range(TRIES):
        stamp = stamp_of(os.fstat(fd))
        if stamp.size > MESSAGE_LIMIT:
            raise OSError(errno.EFBIG, f"larger than {MESSAGE_LIMIT} octets")
        form = WireForm()
        for chunk in _chunks(fd, stamp.size):
            form.feed(chunk)
        form.end()
        ascii_size = form.octets if form.ascii else surrogate_size(_chunks(fd, stamp.size))
        if stamp == stamp_of(os.fstat(fd)):
            ready = form.wire_ready and not form.changed
            return Measured(form.octets, ready, ascii_size, stamp)
    raise OSError(errno.EAGAIN, "changes while it is read")


def _chunks(fd: int, size: int) -> Iterator[bytes]:
    offset = 0
    while offset < size and (chunk := os.pread(fd, min(CHUNK, size - offset), offset)):
        yield chunk
        offset += len(chunk)
