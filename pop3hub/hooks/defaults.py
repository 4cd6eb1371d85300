"""pop3hub's own hookimpls: what happens where neither an extension nor the backend answers."""

from __future__ import annotations

import inspect
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from pop3hub.auth.users import UnknownHash
from pop3hub.errors import MaildropInUse
from pop3hub.hooks.specs import hookimpl

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from pop3hub.auth.passwords import Hasher, PasswordCache
    from pop3hub.auth.users import PopUser
    from pop3hub.hooks.interfaces import Session
    from pop3hub.maildrop import PopMessage

REMEMBERED_LOGINS = 100_000
"""Users whose last login is remembered for LOGIN-DELAY; the oldest is forgotten first."""


class Defaults:
    """The last to be asked, one instance per server: bcrypt, locks and logins of this process."""

    def __init__(
        self, hasher: Hasher, cache: PasswordCache, *, remembered: int = REMEMBERED_LOGINS
    ) -> None:
        self._hasher = hasher
        self._cache = cache
        self._remembered = remembered
        self._locked: set[str] = set()
        self._logins: dict[str, float] = {}
        self._log = structlog.get_logger("pop3hub.auth")

    @hookimpl(trylast=True)
    async def compare_password(
        self,
        raw: str,
        hash: str,  # noqa: A002 - the hook's name
        user: PopUser,
    ) -> bool:
        """Compare bcrypt in a thread; a password that was right is remembered for a while."""
        if self._cache.knows(user.name, hash, raw):
            return True
        try:
            right = await self._hasher.check(raw, hash)
        except UnknownHash as exc:
            self._log.error("password.unknown_hash", user=user.name, error=str(exc))
            return False
        if right:
            self._cache.remember(user.name, hash, raw)
        return right

    @hookimpl(trylast=True)
    def lock_maildrop(self, user: PopUser) -> AbstractAsyncContextManager[None]:
        """Lock by name, among the sessions of this server."""
        return self._lock(user.name)

    @asynccontextmanager
    async def _lock(self, name: str) -> AsyncIterator[None]:
        if name in self._locked:
            raise MaildropInUse
        self._locked.add(name)
        try:
            yield
        finally:
            self._locked.discard(name)

    @hookimpl(trylast=True)
    def since_last_login(self, user: PopUser, session: Session) -> float:
        """Remember the login in this process."""
        now = time.monotonic()
        since = now - self._logins.get(user.name, -float("inf"))
        if since >= session.settings.login_delay:
            self._logins.pop(user.name, None)
            self._logins[user.name] = now
            if len(self._logins) > self._remembered:
                del self._logins[next(iter(self._logins))]
        return since

    @hookimpl(trylast=True)
    async def load_contents(self, message: PopMessage) -> object:
        """Ask the message itself."""
        contents = message.load_contents()
        return await contents if inspect.isawaitable(contents) else contents
