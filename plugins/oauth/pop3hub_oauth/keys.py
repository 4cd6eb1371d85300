"""An issuer's public keys (RFC 7517), kept up to date while logins go on."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jwt
import structlog

from pop3hub import ConfigurationError, TemporaryFailure
from pop3hub_oauth import source as sources

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Asymmetric ones only: with HS256 the issuer's public key would be a secret (RFC 8725 s2.1).
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
ALGORITHMS = (*_RSA, "ES256", "ES384", "ES512", "EdDSA")
"""The signatures that are verified."""
REFRESH = 600.0
"""Seconds after which keys from a URL are fetched again."""
PAUSE = 60.0
"""Seconds between two fetches at least, whatever keys the tokens name and however they fail."""
KEEP = 24 * 3600.0
"""Seconds for which keys are used whose URL can't be reached."""
PATIENCE = 1.0
"""Seconds that the start, or a login that has a key, waits for a newer set from a URL."""
MAX_KEYS = 64
"""Keys of a key set that are looked at."""
MIN_RSA_BITS = 2048
"""Shorter RSA keys are ignored (RFC 7518 s3.3)."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key, its id if it has one, and the algorithms that it may be used with."""

    kid: str | None
    algorithms: tuple[str, ...]
    public: Any


class KeySet:
    """An issuer's public keys, read again when a file changes, or from a URL now and then.

    Keys stay in use while a newer set can't be read, those from a URL for `KEEP` seconds. Logins
    share one read at a time, and none of them cancels it. `fetch_time` is how many seconds a fetch
    may take in all.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        fetch_time: float = sources.FETCH_TIME,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = str(source)
        self._is_url = sources.is_url(self._source)
        self._fetch_time = fetch_time
        self._clock = clock
        self._reading: asyncio.Task[Exception | None] | None = None
        self._keys: list[Key] = []
        self._loaded = self._attempted = float("-inf")
        self._stamp: tuple[int, ...] | None = None
        self._log = structlog.get_logger("pop3hub.oauth")

    async def start(self) -> None:
        """Read the keys; raise ConfigurationError for a file that has none.

        A URL that doesn't answer is logged: mail is served while the issuer is away. A slow one is
        left to answer in the background after `PATIENCE` seconds.
        """
        reading = self._read()
        if self._is_url:
            await asyncio.wait([reading], timeout=PATIENCE)
        elif error := await asyncio.shield(reading):
            raise ConfigurationError(f"the key set {self._source} can't be used: {error}")

    async def close(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    async def find(self, kid: str | None) -> list[Key]:
        """Return the keys of this id, or all for None.

        Raises TemporaryFailure while there are no keys at all.
        """
        if self._is_due(kid):
            reading = self._read()
            has_key = self._is_url and self._known(kid) and not self._is_too_old()
            await asyncio.wait([reading], timeout=PATIENCE if has_key else None)
        if not self._keys or self._is_too_old():
            raise TemporaryFailure
        return self._known(kid)

    def _known(self, kid: str | None) -> list[Key]:
        return [key for key in self._keys if kid in {None, key.kid}]

    def _is_too_old(self) -> bool:
        return self._is_url and self._clock() - self._loaded >= KEEP

    def _is_due(self, kid: str | None) -> bool:
        """Return whether to wait for a read: one that is needed, or one under way."""
        if not self._is_url:
            return self._is_reading() or sources.file_stamp(self._source) != self._stamp
        now = self._clock()
        if not self._is_reading() and now - self._attempted < PAUSE:
            return False
        return now - self._loaded >= REFRESH or not self._known(kid)

    def _is_reading(self) -> bool:
        return self._reading is not None and not self._reading.done()

    def _read(self) -> asyncio.Task[Exception | None]:
        """Return the read that is under way, or begin one."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._load())
        return self._reading

    async def _load(self) -> Exception | None:
        """Read the keys; keep the old ones, log and return the error where that fails."""
        self._attempted = self._clock()
        try:
            if self._is_url:
                document = await sources.fetch(self._source, self._fetch_time)
            else:
                self._stamp = sources.file_stamp(self._source)
                document = await asyncio.to_thread(sources.read_file, self._source)
            self._keys = parse_keys(document)
        except (OSError, ValueError, RecursionError, http.client.HTTPException) as exc:
            self._log.error("keys.unreadable", source=self._source, error=str(exc))
            return exc
        self._loaded = self._clock()
        return None


def parse_keys(document: bytes) -> list[Key]:
    """Return the keys of a JWK set that can verify a signature (RFC 7517 s5); ignore the others.

    Raises ValueError for a document that is not a JWK set, and for a set without such keys.
    """
    key_set = json.loads(document)
    entries = key_set.get("keys") if isinstance(key_set, dict) else None
    if not isinstance(entries, list):
        raise ValueError("it is not a JWK set")  # noqa: TRY004 - a wrong document is a wrong value
    keys = [key for entry in entries[:MAX_KEYS] if (key := _key_of(entry))]
    if not keys:
        raise ValueError("it has no key that could verify a token")
    return keys


def _key_of(entry: Any) -> Key | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    # The public members alone: a private key that is there by mistake is not loaded.
    public = {name: entry[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in entry}
    try:
        jwk = jwt.PyJWK(public)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    rsa = public["kty"] == "RSA"
    if rsa and jwk.key.key_size < MIN_RSA_BITS:
        return None
    able = _RSA if rsa else (jwk.algorithm_name,)
    allowed = (entry["alg"],) if "alg" in entry else able
    algorithms = tuple(name for name in able if name in allowed and name in ALGORITHMS)
    kid = entry.get("kid")
    return Key(kid if isinstance(kid, str) else None, algorithms, jwk.key) if algorithms else None
