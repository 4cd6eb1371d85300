"""Logins with OAuth 2.0 bearer tokens: OAUTHBEARER (RFC 7628) and XOAUTH2.

An extension of pop3hub. Installed but not configured, it does nothing, and neither mechanism is
offered for its sake. PyJWT and cryptography are imported only where it is configured and serves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pop3hub import ConfigurationError, hookimpl
from pop3hub_oauth.source import is_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from pop3hub import PopUser, Server, Session
    from pop3hub_oauth.tokens import JwtVerifier

__all__ = ["BearerTokens"]


class BearerTokens:
    """Verifies JWTs of one issuer, and logs in the users that the backend knows by their names.

    One instance is for one server. The installed plugin takes its settings from options such as
    `--oauth-issuer`; a program passes them here. Either all of `issuer`, `audience` and `jwks` are
    set, or none, and then it does nothing.

    issuer: what the token's `iss` must be, exactly.
    audience: what `aud` must hold one of.
    jwks: the issuer's public keys, a JWK set: the path of a file, or an https URL.
    claim: the claim that holds the user's name.
    leeway: seconds by which the issuer's clock may differ from ours.
    """

    def __init__(
        self,
        *,
        issuer: str = "",
        audience: str | Sequence[str] = (),
        jwks: str | Path = "",
        claim: str = "email",
        leeway: float = 60.0,
    ) -> None:
        self._settings = _checked(
            {"issuer": issuer, "audience": audience, "jwks": jwks, "claim": claim, "leeway": leeway}
        )
        self._verifier: JwtVerifier | None = None
        self._find_user: Callable[[str, Session], Awaitable[PopUser | None]]

    @property
    def verifies_tokens(self) -> bool:
        """Whether it is configured. pop3hub asks before it offers mechanisms for tokens."""
        return bool(self._settings["issuer"])

    @hookimpl
    def register_options(self) -> list[click.Option]:
        """Offer --oauth-issuer and the other settings."""
        return [
            click.Option(
                ["--oauth-issuer"],
                metavar="URL",
                help="Accept bearer tokens of this issuer (`iss`, compared exactly).",
            ),
            click.Option(
                ["--oauth-audience"],
                multiple=True,
                metavar="NAME",
                help="Accept tokens for this audience (`aud`); repeatable.",
            ),
            click.Option(
                ["--oauth-jwks"],
                metavar="FILE|URL",
                help="The issuer's public keys, a JWK set: a file, or an https URL.",
            ),
            click.Option(
                ["--oauth-claim"],
                default="email",
                show_default=True,
                metavar="NAME",
                help="Claim that holds the user's name.",
            ),
        ]

    @hookimpl
    def configure(self, options: Mapping[str, Any]) -> None:
        """Take the options; those that are not set leave what the constructor was given."""
        names = ("issuer", "audience", "jwks")
        given = {name: value for name in names if (value := options.get(f"oauth_{name}"))}
        if given:
            claim = options.get("oauth_claim", self._settings["claim"])
            self._settings = _checked({**self._settings, **given, "claim": claim})

    @hookimpl
    async def startup(self, server: Server | None) -> None:
        """Read the issuer's keys, unless nothing is served."""
        if server is None or not self.verifies_tokens:
            return
        if self._verifier is not None:
            raise ConfigurationError("one instance of BearerTokens can't serve two servers")
        from pop3hub_oauth.tokens import JwtVerifier  # noqa: PLC0415 - see the module's docstring

        self._find_user = server.store.find_user
        verifier = JwtVerifier(**self._settings)
        await verifier.start()
        self._verifier = verifier

    @hookimpl
    async def shutdown(self) -> None:
        """Stop fetching keys."""
        if self._verifier is not None:
            await self._verifier.close()
            self._verifier = None

    @hookimpl
    async def verify_token(self, name: str, token: str, session: Session) -> PopUser | None:
        """Return the user that a good token names, as the backend knows them."""
        found = await self._verifier.verify(name, token) if self._verifier is not None else None
        return None if found is None else await self._find_user(found, session)


def _checked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings, each of its one type. Raises ConfigurationError.

    Those without issuer, audience and jwks are good: the plugin is not configured.
    """
    audience = settings["audience"]
    several = [audience] if isinstance(audience, str) else audience
    checked = {
        **settings,
        "audience": tuple(name for name in several if name),
        "jwks": str(settings["jwks"]),
    }
    if any(checked[name] for name in ("issuer", "audience", "jwks")):
        for name in ("issuer", "audience", "jwks", "claim"):
            if not checked[name]:
                raise ConfigurationError(f"bearer tokens need a value for --oauth-{name} too")
        is_url(checked["jwks"])
    return checked
