"""Bearer tokens that are JWTs, verified by their issuer's public keys (RFC 7519, RFC 8725).

No token is logged, and every refusal looks the same to the client.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import jwt

from pop3hub import prepare
from pop3hub_oauth.keys import ALGORITHMS, KeySet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pop3hub_oauth.keys import Key


class JwtVerifier:
    """Finds the user that a JWT of one issuer names.

    issuer, audience: what `iss` must be, and what `aud` must hold one of.
    jwks: the issuer's key set (RFC 7517 s5): the path of a file, which is read again when it
        changes, or an https URL. http is for loopback only.
    claim: the claim that is the user's name, such as `sub`, `email` or `preferred_username`. An
        e-mail address that the issuer says is not verified is refused.
    leeway: seconds by which clocks may differ.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: Sequence[str],
        jwks: str | Path,
        claim: str = "email",
        leeway: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._audience = list(audience)
        self._claim = claim
        self._leeway = leeway
        self._keys = KeySet(jwks, clock=clock)

    async def start(self) -> None:
        """Read the keys; raise ConfigurationError for a file without any."""
        await self._keys.start()

    async def close(self) -> None:
        """Stop fetching keys."""
        await self._keys.close()

    async def verify(self, name: str, token: str) -> str | None:
        """Return the name of the token's user, None for a token that is not good.

        `name` is the user that the client claims to be, "" to leave it to the token; a token of
        somebody else is refused. The name returned is the token's: only its case may differ from
        `name`. Raises TemporaryFailure while there are no keys.
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
