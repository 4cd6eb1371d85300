"""Against password guessing: failed logins counted by address and by user, connections by address.

A counter is a bucket that leaks: it holds one time, at which it will have run dry. It fills with
every failure, and while it fills the answers to failures come later and later; where it runs over,
what it stands for is locked out. A user is never locked out at an address of an earlier login, so
that guessing locks nobody out of their mail. No plugin is called here, and nothing is awaited.
"""

from __future__ import annotations

import mmap
import secrets
import time
from hashlib import blake2b
from typing import TYPE_CHECKING

import structlog

from pop3hub.auth.users import prepare
from pop3hub.peer import network_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pop3hub.peer import Peer
    from pop3hub.settings import Limits, Settings

SLOWEST = 8.0
"""How many times `failure_delay` the answer to a failed login takes where a bucket is full."""
KNOWN_FOR = 30 * 24 * 3600.0
"""Seconds for which the address of a login is known to be its user's."""
MINUTE = 60.0
SHOWN_LOCKOUTS = 1000
"""Lockouts that can be listed; the tables hold no names, only hashes of them."""
ROWS = 8192
WAYS = 8
"""Places for keys: so many rows of so many, 16 octets each."""


class Table:
    """A time for each of a bounded number of keys, in memory that forked processes share.

    A key has one row of places; where they are taken, the earliest time makes room. There is no
    lock that a killed process could leave behind: a place is two words, and where two processes
    write one at once, one of them is lost: a failure less is counted. Keys are hashed under a key
    of the table's own, so that nobody can choose whose place they take.
    """

    def __init__(self, rows: int = ROWS) -> None:
        places = rows * WAYS
        memory = memoryview(mmap.mmap(-1, 16 * places + 8))
        self._keys = memory[: 8 * places].cast("Q")
        self._times = memory[8 * places : 16 * places].cast("d")
        self._mark = memory[16 * places :].cast("d")
        self._rows = rows
        self._salt = secrets.token_bytes(16)

    @property
    def mark(self) -> float:
        """One more time, without a key."""
        return self._mark[0]

    @mark.setter
    def mark(self, value: float) -> None:
        self._mark[0] = value

    def get(self, key: str) -> float:
        """Return the time of a key, 0.0 where it has none."""
        number, row = self._find(key)
        for place in row:
            if self._keys[place] == number:
                return self._times[place]
        return 0.0

    def put(self, key: str, value: float) -> None:
        """Set the time of a key."""
        number, row = self._find(key)
        keys, times = self._keys, self._times
        place = next((place for place in row if keys[place] == number), None)
        if place is None:
            place = min(row, key=times.__getitem__)
            times[place] = 0.0  # before the key: nobody shall see it with another one's time
            keys[place] = number
        times[place] = value

    def _find(self, key: str) -> tuple[int, range]:
        digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, key=self._salt)
        number = int.from_bytes(digest.digest(), "big")
        first = number % self._rows * WAYS
        return number or 1, range(first, first + WAYS)  # 0 is an empty place


class Guard:
    """The counters of a server; made before its workers are forked, they are all workers' own.

    clock: seconds that only rise, the same in all processes.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, rows: int = ROWS) -> None:
        self._clock = clock
        self._failures = Table(rows)  # its mark: when the last lockout ends, and the bucket is dry
        self._connections = Table(rows)
        self._known = Table(rows)
        self._lockouts: dict[str, float] = {}
        self._log = structlog.get_logger("pop3hub.abuse")

    def refusal(self, peer: Peer, settings: Settings) -> str | None:
        """Count a connection; return the text id of why it is refused, or None."""
        address = peer.counted_as(settings.exempt)
        if not address:
            return None
        limits = settings.limits
        now = self._clock()
        if self._failures.mark > now and self._is_full(_of_address(address), limits, now):
            return "too-many-failed-logins"
        if rate := limits.connections_per_minute:
            dry = max(now, self._connections.get(address)) + MINUTE / rate
            if dry > now + MINUTE:
                return "connections-too-many-from-address"
            self._connections.put(address, dry)
        return None

    def is_locked_out(self, name: str, peer: Peer, settings: Settings) -> bool:
        """Return whether this user can't log in from there now, whatever the password."""
        limits = settings.limits
        now = self._clock()
        if self._failures.mark <= now:
            return False  # nobody is
        address = peer.counted_as(settings.exempt)
        if address and self._is_full(_of_address(address), limits, now):
            return True
        user = counted_name(name)
        return self._is_full(_of_user(user), limits, now) and (
            self._known.get(_pair(user, peer)) <= now
        )

    def record_login(self, name: str, peer: Peer, settings: Settings) -> None:
        """Remember that this user logs in from there."""
        if settings.limits.failed_logins_per_user:
            self._known.put(_pair(counted_name(name), peer), self._clock() + KNOWN_FOR)

    def record_failure(
        self, name: str, peer: Peer, settings: Settings, counts: tuple[int, int] = (0, 0)
    ) -> float:
        """Count a failed login; return by how many times its answer is to be delayed.

        `counts` is what all nodes together have counted, for the name and from the address.
        """
        limits = settings.limits
        now = self._clock()
        window = limits.failed_logins_window
        fullest = 0.0
        for key, limit, facts, count in self._buckets(name, peer, settings, counts):
            dry = max(now, self._failures.get(key))
            if dry <= now + window:  # what is tried in a lockout doesn't make it longer
                dry = max(dry + window / limit, now + count * window / limit)
                if dry >= now + window * (1 - 0.5 / limit):
                    dry = self._failures.mark = now + window + limits.lockout
                    self._log.warning("lockout.begun", **facts, seconds=limits.lockout)
                    self._note_lockout(next(iter(facts.values())), now + limits.lockout)
                self._failures.put(key, dry)
            fullest = max(fullest, (dry - now) / window)
        return 1 + (SLOWEST - 1) * min(1.0, fullest)

    def _buckets(
        self, name: str, peer: Peer, settings: Settings, counts: tuple[int, int]
    ) -> Iterator[tuple[str, int, dict[str, str], int]]:
        limits = settings.limits
        user, address = counted_name(name), peer.counted_as(settings.exempt)
        if user and limits.failed_logins_per_user:
            yield _of_user(user), limits.failed_logins_per_user, {"user": name}, counts[0]
        if address and limits.failed_logins_per_address:
            facts = {"address": address}
            yield _of_address(address), limits.failed_logins_per_address, facts, counts[1]

    def _note_lockout(self, whom: str, end: float) -> None:
        self._lockouts.pop(whom, None)
        self._lockouts[whom] = end
        if len(self._lockouts) > SHOWN_LOCKOUTS:
            del self._lockouts[next(iter(self._lockouts))]

    def lockouts(self) -> dict[str, float]:
        """Return the users and addresses that this process locked out, and the seconds left."""
        now = self._clock()
        return {whom: end - now for whom, end in self._lockouts.items() if end > now}

    def lift(self, whom: str) -> bool:
        """End the lockout of a user or an address, begun by whichever process; False: none was."""
        now = self._clock()
        self._lockouts.pop(whom, None)
        keys = [_of_user(counted_name(whom)), _of_address(network_of(whom.partition("/")[0]))]
        full = [key for key in keys if self._failures.get(key) > now]
        for key in full:
            self._failures.put(key, 0.0)
        return bool(full)

    def _is_full(self, key: str, limits: Limits, now: float) -> bool:
        return self._failures.get(key) > now + limits.failed_logins_window


def counted_name(name: str) -> str:
    """Return a user's name in the form in which failures are counted, whoever it is."""
    try:
        return prepare(name).casefold()
    except ValueError:
        return name


def _of_user(name: str) -> str:
    return f"user\0{name}"


def _of_address(address: str) -> str:
    return f"address\0{address}"


def _pair(name: str, peer: Peer) -> str:
    return f"{name}\0{network_of(peer.host)}"
