"""Reading message files without holding up the event loop, and finding out their size on the wire.

What is in the page cache is read at once: open, read and close of 4 KiB take 4 us, a way through a
thread 50 to 100. What is not is read in a thread (`RWF_NOWAIT` tells which it is).
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from concurrent.futures import Executor, Future

CHUNK = 256 * 1024
"""Octets that are read at a time."""
SMALL = 64 * 1024
"""Octets up to which a file is read at once where the file system can't say what is in memory."""

NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)
"""The flag of `preadv` that waits for no disk; None where the system has none."""
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Survey:
    """What a message comes to on the wire, found out chunk by chunk.

    octets: with CRLF line ends and one at the end, before dot-stuffing (RFC 1939 s11).
    ready: it can be sent as it is.
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


def survey(path: str) -> Survey:
    """Read a whole file, in whatever thread this is called; raise OSError if it is no file."""
    found = Survey()
    fd = open_message(path)
    try:
        while chunk := os.read(fd, CHUNK):
            found.feed(chunk)
    finally:
        os.close(fd)
    found.end()
    return found


def open_message(path: str) -> int:
    """Open a plain file; no link, since a user who has a shell could lead it out of the Maildir."""
    fd = os.open(path, _FLAGS)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "not a plain file", path)


class Reader:
    """Reads files for the sessions of one event loop."""

    def __init__(self, threads: Executor, *, nowait: int | None = NOWAIT) -> None:
        """Read in these threads what can't be had at once; `nowait` is the flag that tells."""
        self._threads = threads
        self._nowait = nowait
        self._scratch = bytearray(CHUNK)
        self._view = memoryview(self._scratch)

    def read(
        self, path: str, surveyed: Callable[[Survey], None] | None = None
    ) -> bytes | FileStream:
        """Return a file's octets if they are few and at hand, otherwise a stream of chunks.

        `surveyed` is called once the whole file has been read. Raises OSError.
        """
        fd = open_message(path)
        size = os.fstat(fd).st_size
        try:
            contents = self.at_hand(fd, 0, size) if size <= CHUNK else None
        except BaseException:
            os.close(fd)
            raise
        if contents is None or len(contents) < size:
            return FileStream(self, fd, surveyed)
        os.close(fd)
        if surveyed is not None:
            found = Survey()
            found.feed(contents)
            found.end()
            surveyed(found)
        return contents

    def at_hand(self, fd: int, offset: int, size: int) -> bytes | None:
        """Return what can be read without waiting for a disk, at most a chunk; None for nothing."""
        size = min(size, CHUNK)
        if self._nowait is None:
            return os.pread(fd, size, offset) if size <= SMALL else None
        try:
            count = os.preadv(fd, [self._view[:size]], offset, self._nowait)
        except BlockingIOError:
            return None
        except OSError as exc:
            if exc.errno not in {errno.EOPNOTSUPP, errno.EINVAL}:
                raise
            return os.pread(fd, size, offset) if size <= SMALL else None
        return self._view[:count].tobytes()

    def submit(self, fd: int, offset: int) -> Future[bytes]:
        """Read a chunk in a thread."""
        return self._threads.submit(os.pread, fd, CHUNK, offset)


class FileStream:
    """An open file as an async iterator of chunks; closed by `aclose`, or when nobody holds it."""

    __slots__ = ("_fd", "_offset", "_reader", "_reading", "_survey", "_surveyed")

    def __init__(self, reader: Reader, fd: int, surveyed: Callable[[Survey], None] | None) -> None:
        self._reader = reader
        self._fd = fd
        self._offset = 0
        self._surveyed = surveyed
        self._survey = Survey() if surveyed is not None else None
        self._reading: Future[bytes] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = self._reader.at_hand(self._fd, self._offset, CHUNK)
        if chunk is None:
            self._reading = self._reader.submit(self._fd, self._offset)
            chunk = await asyncio.wrap_future(self._reading)
            self._reading = None
        if not chunk:
            if self._survey is not None and self._surveyed is not None:
                self._survey.end()
                self._surveyed(self._survey)
                self._surveyed = None
            raise StopAsyncIteration
        self._offset += len(chunk)
        if self._survey is not None:
            self._survey.feed(chunk)
        return chunk

    async def aclose(self) -> None:
        """Close the file, after the read that a thread may still be in."""
        self._close()

    def __del__(self) -> None:
        self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        if self._reading is not None and not self._reading.done():
            self._reading.add_done_callback(lambda _: os.close(fd))
        else:
            os.close(fd)
