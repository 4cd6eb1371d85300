"""Reading message files without holding up the event loop, as they were when they were measured.

What is in the page cache is read at once: open, read and close of 4 KiB take 4 us, a way through a
thread 50 to 100. What is not is read in a thread (`RWF_NOWAIT` tells which it is).
"""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING

from pop3hub import TemporaryFailure
from pop3hub_maildir.measuring import CHUNK, stamp_of
from pop3hub_maildir.threads import LIMIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from concurrent.futures import Future

    from pop3hub_maildir.measuring import Stamp
    from pop3hub_maildir.threads import FileThreads

SMALL = 64 * 1024
"""Octets up to which a file is read at once where the file system can't say what is in memory."""

NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)


class FileChanged(Exception):
    """A file is not the one that was measured: what is known about it does not hold."""


class Reader:
    """Reads files for the sessions of one event loop."""

    def __init__(self, threads: FileThreads, *, nowait: int | None = NOWAIT) -> None:
        self._nowait = nowait
        self._threads = threads
        self._scratch = bytearray(CHUNK)
        self._view = memoryview(self._scratch)

    def read(self, fd: int, stamp: Stamp) -> bytes | FileStream:
        """Return a file's octets if they are few and at hand, otherwise a stream of chunks.

        The file is closed. Raises FileChanged, and OSError.
        """
        try:
            status = os.fstat(fd)
            if (status.st_size, status.st_mtime_ns, status.st_ino) != stamp:
                raise FileChanged
            contents = self.at_hand(fd, 0, stamp.size) if stamp.size <= CHUNK else None
            if contents is None or len(contents) < stamp.size:
                stream = FileStream(self, fd, stamp)
                fd = -1
                return stream
            return contents
        finally:
            if fd >= 0:
                os.close(fd)

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

    def submit(self, fd: int, offset: int, size: int) -> Future[bytes]:
        """Read a chunk in a thread."""
        return self._threads.submit(os.pread, fd, min(CHUNK, size), offset)


class FileStream:
    """An open file as an async iterator of chunks; closed by `aclose`, or when nobody holds it.

    A file that changes meanwhile raises TemporaryFailure instead of its end: half of one message
    and half of another must not look whole.
    """

    __slots__ = ("_fd", "_offset", "_reader", "_reading", "_stamp")

    def __init__(self, reader: Reader, fd: int, stamp: Stamp) -> None:
        self._reader = reader
        self._fd = fd
        self._stamp = stamp
        self._offset = 0
        self._reading: Future[bytes] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        left = self._stamp.size - self._offset
        chunk = self._reader.at_hand(self._fd, self._offset, left) if left else b""
        if chunk is None:
            self._reading = self._reader.submit(self._fd, self._offset, left)
            try:
                async with asyncio.timeout(LIMIT):
                    chunk = await asyncio.wrap_future(self._reading)
            except TimeoutError as exc:
                raise TemporaryFailure from exc
            self._reading = None
        if not chunk:
            if left or stamp_of(os.fstat(self._fd)) != self._stamp:
                raise TemporaryFailure
            raise StopAsyncIteration
        self._offset += len(chunk)
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
