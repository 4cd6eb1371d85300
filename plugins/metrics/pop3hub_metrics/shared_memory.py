"""The counts of several processes in memory that they share, so that any of them can add them up.

The memory is a file without a name, made before the workers are forked; it disappears with the last
of them. No process waits for another: each writes its own place and reads the others'.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import tempfile
import weakref
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pop3hub_metrics.samples import Samples

PLACES = 1024
"""Processes at once."""
HALF = 512 * 1024
"""Octets of one record. Pages that were never written take no memory."""
PLACE = 2 * HALF
RECORD = struct.Struct(">QII")
"""Before a record: its number, its length, its CRC-32."""


class SharedMemory:
    """Places for the counts of the processes that are forked from the one that made it.

    A place belongs to the process that holds a lock on its first octet. The system releases the
    lock when the process ends, however it ends. The counts stay, and are added up, until the next
    process takes the place and continues from them. The two halves are written in turn, so one of
    them always holds a complete record.
    """

    def __init__(self) -> None:
        """Make the memory; no process has a place yet."""
        if hasattr(os, "memfd_create"):
            self._fd = os.memfd_create("pop3hub-metrics")
        else:
            with tempfile.TemporaryFile() as file:
                self._fd = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._fd)
        self._place: int | None = None
        self._number = 0

    def take(self) -> Samples:
        """Take a place for this process; return what the process before it left there."""
        for place in range(PLACES):
            try:
                self._lock(place, fcntl.LOCK_EX)
            except OSError:
                continue
            self._place = place
            self._number, samples = self._read(place)
            return samples
        raise OSError(f"{PLACES} processes already have a place")

    def leave(self) -> None:
        """Give up the place; what was written stays."""
        if self._place is not None:
            self._unlock(self._place)
            self._place = None

    def write(self, samples: Samples) -> None:
        """Write the counts of this process in place of those it wrote before."""
        assert self._place is not None  # noqa: S101 - written between take and leave
        payload = json.dumps([[*key, values] for key, values in samples.items()]).encode()
        if RECORD.size + len(payload) > HALF:
            raise OverflowError(f"{len(samples)} samples do not fit into a place")
        self._number += 1
        head = RECORD.pack(self._number, len(payload), zlib.crc32(payload))
        os.pwrite(self._fd, head + payload, self._place * PLACE + self._number % 2 * HALF)

    def others(self) -> Iterator[tuple[Samples, bool]]:
        """Yield what each other place holds, and whether a process has that place."""
        end = os.fstat(self._fd).st_size
        for place in range(-(-end // PLACE)):
            if place != self._place:
                yield self._read(place)[1], self._is_taken(place)

    def _is_taken(self, place: int) -> bool:
        try:
            self._lock(place, fcntl.LOCK_SH)
        except OSError:
            return True
        self._unlock(place)
        return False

    def _lock(self, place: int, kind: int) -> None:
        fcntl.lockf(self._fd, kind | fcntl.LOCK_NB, 1, place * PLACE)

    def _unlock(self, place: int) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, place * PLACE)

    def _read(self, place: int) -> tuple[int, Samples]:
        """Return the newest complete record: its number and its samples."""
        newest, found = 0, b"[]"
        for start in (place * PLACE, place * PLACE + HALF):
            head = os.pread(self._fd, RECORD.size, start)
            if len(head) < RECORD.size:
                continue
            number, length, checksum = RECORD.unpack(head)
            payload = os.pread(self._fd, length, start + RECORD.size)
            if number > newest and zlib.crc32(payload) == checksum:
                newest, found = number, payload
        return newest, {tuple(key): values for *key, values in json.loads(found)}
