"""The extension that lets bearer tokens log users in, where an issuer is configured.

What a token says is found out in tokens.py; whether there is such a user, the other plugins know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pop3hub.hookspecs import hookimpl
from pop3hub.tokens import JwtVerifier

if TYPE_CHECKING:
    from pop3hub.auth import PopUser
    from pop3hub.session import Session


class BearerTokens:
    """Answers `verify_token` by the JWTs of one issuer; the settings are JwtVerifier's."""

    def __init__(self, **settings: Any) -> None:
        self._verifier = JwtVerifier(**settings)

    @hookimpl
    async def startup(self) -> None:
        """Read the issuer's keys."""
        await self._verifier.start()

    @hookimpl
    async def verify_token(self, name: str, token: str, session: Session) -> PopUser | None:
        """Return the user whom a good token names, as the backend knows them."""
        found = await self._verifier.verify(name, token)
        return None if found is None else await session.plugins.get_user(found, session)
