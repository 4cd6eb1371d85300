"""Users and the comparison of what they prove themselves with.

Secrets are compared in constant time and hashed off the event loop; neither a password, a digest
nor a token is ever logged or put into an exception's text. Nothing here awaits a socket.

A password is handed on as the client gave it, to plugins too. Where pop3hub compares it itself, the
form that SASLprep makes of it comes first (RFC 4616 s2, RFC 6856 s2.2), and then, where the two
differ, the octets as given: other programs made their hashes of those. ASCII has only one form.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import re
import secrets
import stringprep
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from unicodedata import ucd_3_2_0  # the Unicode that stringprep is defined on (RFC 3454 s2.2)

import bcrypt

from pop3hub.errors import AuthenticationFailed, TemporaryFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_PASSWORD = 72
"""Octets that bcrypt looks at; a longer password is refused, not cut."""
MAX_PREPARED = 1024
"""Characters that `prepare` takes: PLAIN must allow 255 octets (RFC 4616 s2)."""
BCRYPT_COST = 12
"""Cost of new hashes, and of the comparison for unknown users until a real one was seen."""
WAITING_PER_THREAD = 64
"""Jobs that may wait for each hash thread: 18 s at 0.28 s for one, within the limit of a hook."""
SCRAM_HASHES: Mapping[str, str] = {"SCRAM-SHA-1": "sha1", "SCRAM-SHA-256": "sha256"}
"""The SCRAM mechanisms and their hash functions (RFC 5802, RFC 7677)."""
SCRAM_ITERATIONS = 2**15
"""Rounds of new SCRAM keys, which clients compute; RFC 7677 s4 wants 15,000 or more."""
SCRAM_SALT = 16
"""Octets of salt in new SCRAM keys, and in the answer for an unknown user."""

_MIN_ITERATIONS = 4096  # RFC 5802 s5.1
_BCRYPT = re.compile(r"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")
_SCRAM = re.compile(r"([1-9][0-9]{0,9}):([A-Za-z0-9+/]+=*)\$([A-Za-z0-9+/]+=*):([A-Za-z0-9+/]+=*)")
_PROHIBITED = (  # RFC 4013 s2.3
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class PopUser:
    """A user as `get_user` returns one.

    name: the canonical name; lock, log and store go by it.
    password: the hash that `compare_password` is given, or None for a user without one.
    secret: the shared secret of APOP and CRAM-MD5, which need it in clear (RFC 1939 s7), or None.
    data: whatever the plugin wants to find again in `session.user.data`.
    scram: SCRAM keys by mechanism name, each `iterations:salt$StoredKey:ServerKey` in base64 (the
        authentication value of RFC 5803 behind its scheme); no password can be read from them.
    """

    name: str
    password: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    data: Any = None
    scram: Mapping[str, str] = field(default_factory=dict, repr=False)


class UnknownHash(ValueError):
    """A stored hash or key is in no form that pop3hub reads: a failed login, and an error to log.

    The text doesn't show it. bcrypt is read as `$2a$`, `$2b$` or `$2y$`, without a prefix such as
    `{BLF-CRYPT}`, which a plugin takes off or compares itself.
    """


# Text


def prepare(text: str, *, stored: bool = False) -> str:
    """Return the form in which names and passwords are compared: SASLprep (RFC 4013).

    What a client sends is a query string, in which code points that Unicode 3.2 didn't have pass as
    they are; `stored` refuses those too. The result may be empty.
    Raises ValueError, without showing the text, for what RFC 4013 s2.3 prohibits.
    """
    if len(text) > MAX_PREPARED:
        raise ValueError(f"the text is longer than {MAX_PREPARED} characters")
    if text.isascii() and text.isprintable():
        return text
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in text
        if not stringprep.in_table_b1(character)
    )
    prepared = ucd_3_2_0.normalize("NFKC", mapped)
    characters = set(prepared)
    if any(prohibited(character) for character in characters for prohibited in _PROHIBITED):
        raise ValueError("the text has a character that SASLprep prohibits (RFC 4013 s2.3)")
    if stored and any(map(stringprep.in_table_a1, characters)):
        raise ValueError("the text has a character that Unicode 3.2 doesn't know (RFC 4013 s2.5)")
    if any(map(stringprep.in_table_d1, characters)) and (
        any(map(stringprep.in_table_d2, characters))
        or not stringprep.in_table_d1(prepared[0])
        or not stringprep.in_table_d1(prepared[-1])
    ):
        raise ValueError("the text mixes directions of writing (RFC 3454 s6)")
    return prepared


def prepare_name(text: str) -> str:
    """Return a user name as `prepare` makes it; AuthenticationFailed where it makes none of it."""
    try:
        name = prepare(text)
    except ValueError:
        raise AuthenticationFailed from None
    if not name:
        raise AuthenticationFailed
    return name


# Shared secrets


def new_stamp(name: str) -> str:
    """Return a time stamp `<hex.hex@name>` that no greeting had before (RFC 1939 s7).

    Plain atoms only, whatever the name: mpop passes over a stamp with `=` or an address literal.
    """
    host = re.sub(r"[^A-Za-z0-9-]+", ".", name).strip(".") or "pop3hub"
    return f"<{secrets.token_hex(8)}.{time.time_ns():x}@{host}>"


def shared_secret(user: PopUser | None) -> str:
    """Return the user's `secret` as `prepare` makes it, or "", which nothing may be right about.

    By the rules for stored strings (RFC 6856 s2.2): a secret that they prohibit fits nobody.
    """
    try:
        return prepare(user.secret or "", stored=True) if user else ""
    except ValueError:
        return ""


def apop_digest(stamp: str, secret: str) -> str:
    """Return the digest with which a client proves that it knows the secret (RFC 1939 s7)."""
    return hashlib.md5((stamp + secret).encode(), usedforsecurity=False).hexdigest()


def check_apop(stamp: str, digest: str, user: PopUser | None) -> bool:
    """Return whether the digest is that of the user's secret; None takes the time of a user."""
    secret = shared_secret(user)
    expected = apop_digest(stamp, secret)
    same = hmac.compare_digest(expected.encode(), digest.lower().encode())
    return same and bool(secret)


# Passwords


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


# SCRAM keys


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """What a server keeps for one user and SCRAM mechanism (RFC 5802 s3)."""

    iterations: int
    salt: bytes
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str, mechanism: str) -> ScramKeys:
        """Read the form of `PopUser.scram`; raise UnknownHash for anything else."""
        match = _SCRAM.fullmatch(text)
        if match is None:
            raise UnknownHash(f"stored {mechanism} keys are in no form that is known")
        try:
            salt, *keys = (base64.b64decode(part, validate=True) for part in match.groups()[1:])
        except ValueError:
            raise UnknownHash(f"stored {mechanism} keys are no base64") from None
        size = hashlib.new(SCRAM_HASHES[mechanism]).digest_size
        iterations = int(match[1])
        if iterations < _MIN_ITERATIONS or {len(key) for key in keys} != {size}:
            raise UnknownHash(f"stored {mechanism} keys have too few rounds or a wrong length")
        return cls(iterations, salt, *keys)

    def __str__(self) -> str:
        salt, stored_key, server_key = (
            base64.b64encode(part).decode("ascii")
            for part in (self.salt, self.stored_key, self.server_key)
        )
        return f"{self.iterations}:{salt}${stored_key}:{server_key}"


def scram_keys(
    password: str,
    mechanism: str,
    iterations: int = SCRAM_ITERATIONS,
    salt: bytes | None = None,
) -> str:
    """Return new keys of a password for `PopUser.scram[mechanism]`.

    Takes some milliseconds of processor time. Raises ValueError for a password that SASLprep can't
    store (RFC 5802 s2.2), and for an empty one.
    """
    octets = prepare(password, stored=True).encode()
    if not octets:
        raise ValueError("the password is empty")
    algorithm = SCRAM_HASHES[mechanism]
    salt = salt or secrets.token_bytes(SCRAM_SALT)
    salted = hashlib.pbkdf2_hmac(algorithm, octets, salt, iterations)
    stored_key = hashlib.new(algorithm, hmac.digest(salted, b"Client Key", algorithm)).digest()
    server_key = hmac.digest(salted, b"Server Key", algorithm)
    return str(ScramKeys(iterations, salt, stored_key, server_key))
