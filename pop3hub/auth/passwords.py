"""The comparison of passwords: bcrypt in threads, and what was right a short time ago.

Secrets are compared in constant time and hashed off the event loop; neither a password, a digest
nor a token is ever logged or put into an exception's text. Nothing here awaits a socket.

A password is handed on as the client gave it, to plugins too. Where pop3hub compares it itself, the
form that SASLprep makes of it comes first (RFC 4616 s2, RFC 6856 s2.2), and then, where the two
differ, the octets as given: other programs made their hashes of those. ASCII has only one form.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import bcrypt

from pop3hub.auth.users import UnknownHash, prepare
from pop3hub.errors import TemporaryFailure

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_PASSWORD = 72
"""Octets that bcrypt looks at; a longer password is refused, not cut."""
BCRYPT_COST = 12
"""Cost of new hashes, and of the comparison for unknown users until a real one was seen."""
WAITING_PER_THREAD = 64
"""Jobs that may wait for each hash thread: 18 s at 0.28 s for one, within the limit of a hook."""

_BCRYPT = re.compile(r"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")

_T = TypeVar("_T")


# Passwords


def is_bcrypt(stored: str) -> bool:
    """Return whether a stored password is a bcrypt hash."""
    return _BCRYPT.fullmatch(stored) is not None


class Hasher:
    """The threads in which one server hashes; bcrypt lets go of the interpreter lock meanwhile.

    threads: how many at most; None for one per processor. They start when they are needed.
    cost: the cost of the first comparison for an unknown user.
    waiting: how many jobs may wait for each thread. More raises TemporaryFailure: a flood of
        passwords then costs its senders an answer, not everybody's memory.
    """

    def __init__(
        self,
        *,
        threads: int | None = None,
        cost: int = BCRYPT_COST,
        waiting: int = WAITING_PER_THREAD,
    ) -> None:
        threads = threads or os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="pop3hub-hash")
        self._room = threading.BoundedSemaphore(threads * (1 + waiting))
        self._cost = cost

    async def run(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Call a function that takes its time, such as a plugin's comparison, in a hash thread."""
        if not self._room.acquire(blocking=False):
            raise TemporaryFailure
        try:
            job = self._threads.submit(_call, function, arguments)
        except RuntimeError:  # closed: the server is going down
            self._room.release()
            raise TemporaryFailure from None
        # Not when the waiting ends: a session that gave up leaves its thread busy.
        job.add_done_callback(lambda _: self._room.release())
        return await asyncio.wrap_future(job)

    async def check(self, raw: str, hashed: str) -> bool:
        """Return whether a bcrypt hash was made of this password, prepared or as given.

        More than 72 octets, an empty password and prohibited characters are False at once, whoever
        the user is. Raises UnknownHash.
        """
        match = _BCRYPT.fullmatch(hashed)
        if match is None:
            raise UnknownHash("a stored password is no bcrypt hash")
        self._cost = int(match[1])
        return await self._compare(raw, hashed)

    async def check_dummy(self, raw: str) -> bool:
        """Take the time of a comparison, for a user who doesn't exist, and return False.

        Its cost is that of the last real one. Where users' costs differ, timing can still tell some
        of them; that failed logins are answered at a fixed time is what hides it.
        """
        await self._compare(raw, f"$2b${self._cost:02}${'.' * 53}")
        return False

    async def hash(self, raw: str, cost: int = BCRYPT_COST) -> str:
        """Return a new bcrypt hash of the password as `prepare` makes it.

        Raises ValueError, with a text for the operator, for a password that could never log in.
        """
        octets = prepare(raw).encode()
        if not octets:
            raise ValueError("the password is empty")
        if len(octets) > MAX_PASSWORD:
            raise ValueError(
                f"the password is longer than {MAX_PASSWORD} octets, more than bcrypt can hash"
            )
        hashed = await self.run(lambda: bcrypt.hashpw(octets, bcrypt.gensalt(cost)))
        return hashed.decode("ascii")

    def close(self) -> None:
        """Drop the waiting jobs and let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _compare(self, raw: str, hashed: str) -> bool:
        forms = _forms(raw)
        return bool(forms) and await self.run(_matches, forms, hashed.encode("ascii"))


def _call(function: Callable[..., _T], arguments: tuple[Any, ...]) -> _T:
    try:
        return function(*arguments)
    except StopIteration as exc:  # no future takes it: whoever awaits would wait for ever
        raise RuntimeError("StopIteration left a function") from exc


def _forms(raw: str) -> list[bytes]:
    try:
        prepared = prepare(raw)
    except ValueError:
        return []
    if not prepared:
        return []
    octets = [form.encode() for form in dict.fromkeys((prepared, raw))]
    return [form for form in octets if len(form) <= MAX_PASSWORD]


def _matches(forms: list[bytes], hashed: bytes) -> bool:
    try:
        return any(bcrypt.checkpw(form, hashed) for form in forms)
    except ValueError:
        raise UnknownHash("a stored bcrypt hash is damaged") from None


class PasswordCache:
    """Passwords that were found right a short time ago, so that polling costs no bcrypt each time.

    seconds: how long one is remembered, counted from its last real comparison; 0 for never.
    limit: how many; the oldest goes first.
    Kept are BLAKE2b digests under a key that this process alone has, over the name, the stored hash
    and the password: a changed hash misses, and the entries tell nothing without the key.
    """

    def __init__(
        self, seconds: float, limit: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._limit = limit
        self._clock = clock
        self._key = secrets.token_bytes(hashlib.blake2b.MAX_KEY_SIZE)
        self._ends: dict[bytes, float] = {}  # in the order in which they end

    def __len__(self) -> int:
        return len(self._ends)

    def knows(self, name: str, hashed: str, raw: str) -> bool:
        """Return whether this password was found right for this user and hash, not too long ago."""
        self._forget_old()
        return self._digest(name, hashed, raw) in self._ends

    def remember(self, name: str, hashed: str, raw: str) -> None:
        """Note that a comparison found this password right."""
        if self._seconds <= 0:
            return
        digest = self._digest(name, hashed, raw)
        self._ends.pop(digest, None)
        self._ends[digest] = self._clock() + self._seconds
        if len(self._ends) > self._limit:
            del self._ends[next(iter(self._ends))]

    def _forget_old(self) -> None:
        now = self._clock()
        while self._ends and self._ends[oldest := next(iter(self._ends))] <= now:
            del self._ends[oldest]

    def _digest(self, *parts: str) -> bytes:
        digest = hashlib.blake2b(key=self._key, digest_size=32)
        for part in parts:
            octets = part.encode()
            digest.update(len(octets).to_bytes(8, "big") + octets)
        return digest.digest()
