"""Bearer tokens that are JWTs, verified by their issuer's public keys (RFC 7519, RFC 8725).

Needs PyJWT with cryptography, the extra `pop3hub[oauth]`; so this module is imported only where a
verifier is configured, and its import raises ConfigurationError where they are missing. No token is
logged, and none is told apart from another refused one.
"""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import json
import time
import urllib.parse
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from pop3hub.auth import prepare
from pop3hub.errors import ConfigurationError, TemporaryFailure

try:
    import cryptography  # noqa: F401 - PyJWT without it knows no public keys
    import jwt
except ImportError as exc:
    raise ConfigurationError("verifying tokens needs PyJWT: pip install 'pop3hub[oauth]'") from exc

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
FETCH_TIMEOUT = 10.0
"""Seconds that an issuer may keep a fetch waiting for octets."""
MAX_DOCUMENT = 1024 * 1024
"""Octets of a key set."""
MAX_KEYS = 64
"""Keys of a key set that are looked at."""
MIN_RSA_BITS = 2048
"""Shorter RSA keys are passed over (RFC 7518 s3.3)."""


class JwtVerifier:
    """Finds the user whom a JWT of one issuer stands for.

    issuer, audience: what `iss` must be, and what `aud` must hold one of.
    jwks: the issuer's key set (RFC 7517 s5): the path of a file, which is read again when it
        changes, or an https URL. http is for loopback only.
    claim: the claim that is the user's name, such as `sub`, `email` or `preferred_username`. An
        e-mail address that the issuer says is not verified is nobody's.
    leeway: seconds by which clocks may differ.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str | Sequence[str],
        jwks: str | Path,
        claim: str = "email",
        leeway: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for setting, value in (("issuer", issuer), ("audience", audience), ("claim", claim)):
            if not value:
                raise ConfigurationError(f"verifying tokens needs the {setting} of the tokens")
        self._issuer = issuer
        self._audience = [audience] if isinstance(audience, str) else list(audience)
        self._claim = claim
        self._leeway = leeway
        self._keys = KeySet(jwks, clock=clock)

    async def start(self) -> None:
        """Read the keys; raise ConfigurationError for a file without any.

        A URL that can't be reached is only logged: mail is served while the issuer is away.
        """
        await self._keys.start()

    async def verify(self, name: str, token: str) -> str | None:
        """Return the name of the token's user, None for a token that is not good.

        `name` is who the client says it is, "" for whoever the token says; a token of somebody else
        is not good. The result goes by the token: only case may differ from `name`.
        Raises TemporaryFailure while there are no keys.
        """
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):  # the last by PyJWT 2.10's JSON
            return None
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS:
            return None
        for key in await self._keys.find(kid):
            if algorithm in key.algorithms and (user := self._user_of(token, key, algorithm)):
                return user if not name or name.casefold() == user.casefold() else None
        return None

    def _user_of(self, token: str, key: Key, algorithm: str) -> str | None:
        try:
            claims = jwt.decode(
                token,
                key.public,
                algorithms=[algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=self._leeway,
                options={"require": ["exp", "iss", "aud", self._claim]},
            )
            user = claims[self._claim]
            if self._claim == "email" and claims.get("email_verified", True) not in {True, "true"}:
                return None
            return prepare(user) if isinstance(user, str) else None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            return None


@dataclass(frozen=True, slots=True)
class Key:
    """A public key, its id if it has one, and the algorithms that it may be used with."""

    kid: str | None
    algorithms: tuple[str, ...]
    public: Any


class KeySet:
    """An issuer's public keys, read again when a file changes, or from a URL now and then.

    Keys stay in use while a newer set can't be read, those from a URL for `KEEP` seconds.
    """

    def __init__(self, source: str | Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = str(source)
        self._url = _checked(self._source) if "://" in self._source else None
        self._clock = clock
        self._lock = asyncio.Lock()
        self._keys: list[Key] = []
        self._loaded = self._attempted = float("-inf")
        self._stamp: tuple[int, ...] | None = None
        self._log = structlog.get_logger("pop3hub.tokens")

    async def start(self) -> None:
        """Read the keys once; raise ConfigurationError for a file that has none."""
        async with self._lock:
            error = await self._load()
        if error and self._url is None:
            raise ConfigurationError(f"the key set {self._source} can't be used: {error}")

    async def find(self, kid: str | None) -> list[Key]:
        """Return the keys of this id, or all for None.

        Raises TemporaryFailure while there are no keys at all.
        """
        if self._is_due(kid) or not self._known(kid):
            async with self._lock:  # what another login is fetching may be this key
                if self._is_due(kid):
                    await self._load()
        if not self._keys or (self._url and self._clock() - self._loaded >= KEEP):
            raise TemporaryFailure
        return self._known(kid)

    def _known(self, kid: str | None) -> list[Key]:
        return [key for key in self._keys if kid in {None, key.kid}]

    def _is_due(self, kid: str | None) -> bool:
        if self._url is None:
            return self._file_stamp() != self._stamp
        now = self._clock()
        if now - self._attempted < PAUSE:
            return False
        return now - self._loaded >= REFRESH or not self._known(kid)

    def _file_stamp(self) -> tuple[int, ...] | None:
        try:
            facts = Path(self._source).stat()
        except OSError:
            return None
        return facts.st_mtime_ns, facts.st_size, facts.st_ino

    async def _load(self) -> Exception | None:
        """Read the keys; keep the old ones, log and return the error where that fails."""
        self._attempted = self._clock()
        self._stamp = self._file_stamp() if self._url is None else None
        try:
            self._keys = parse_keys(await asyncio.to_thread(self._read))
        except (OSError, ValueError, RecursionError, http.client.HTTPException) as exc:
            self._log.error("keys.unreadable", source=self._source, error=str(exc))
            return exc
        self._loaded = self._clock()
        return None

    def _read(self) -> bytes:
        if self._url is None:
            with Path(self._source).open("rb") as file:
                document = file.read(MAX_DOCUMENT + 1)
        else:
            # An issuer on this machine is not behind a proxy.
            proxies: dict[str, str] | None = {} if self._url.startswith("http:") else None
            opener = urllib.request.build_opener(
                _NoRedirects(), urllib.request.ProxyHandler(proxies)
            )
            with opener.open(self._url, timeout=FETCH_TIMEOUT) as answer:
                document = answer.read(MAX_DOCUMENT + 1)
        if len(document) > MAX_DOCUMENT:
            raise ValueError(f"it is longer than {MAX_DOCUMENT} octets")
        return bytes(document)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: it could leave https, or the issuer."""

    def redirect_request(self, *_: Any) -> None:
        """Let the redirection stand as an error."""


def _checked(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    local = host == "localhost"
    with suppress(ValueError):
        local = local or ipaddress.ip_address(host).is_loopback
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise ConfigurationError(f"a key set must come from a file or an https URL, not {url}")
    return url


def parse_keys(document: bytes) -> list[Key]:
    """Return the keys of a JWK set that can verify a signature (RFC 7517 s5).

    Others are passed over. Raises ValueError for what is no JWK set, or one without such keys.
    """
    key_set = json.loads(document)
    entries = key_set.get("keys") if isinstance(key_set, dict) else None
    if not isinstance(entries, list):
        raise ValueError("it is no JWK set")  # noqa: TRY004 - a wrong document is a wrong value
    keys = [key for entry in entries[:MAX_KEYS] if (key := _key_of(entry))]
    if not keys:
        raise ValueError("it has no key that could verify a token")
    return keys


def _key_of(entry: Any) -> Key | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    # The public members alone: a private key that lies here by mistake is not loaded.
    public = {name: entry[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in entry}
    try:
        jwk = jwt.PyJWK(public)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    rsa = public["kty"] == "RSA"
    if rsa and jwk.key.key_size < MIN_RSA_BITS:
        return None
    able = _RSA if rsa else (jwk.algorithm_name,)
    wanted = (entry["alg"],) if "alg" in entry else able
    algorithms = tuple(name for name in able if name in wanted and name in ALGORITHMS)
    kid = entry.get("kid")
    return Key(kid if isinstance(kid, str) else None, algorithms, jwk.key) if algorithms else None
