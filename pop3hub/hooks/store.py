"""What a backend can do without a session, for commands, deliveries and scripts."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from pop3hub.errors import PermanentFailure
from pop3hub.hooks.caller import REMOVAL_PATIENCE
from pop3hub.hooks.discovery import load_backend
from pop3hub.hooks.plugins import Plugins

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from pop3hub.auth import PopUser
    from pop3hub.hooks.interfaces import Session


class BackendStore:
    """The store hooks of the plugins; a member is None where no plugin has its hook."""

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins

        def if_any(hook: str, method: Any) -> Any:
            return method if plugins.observes(hook) else None

        self.store_user: Callable[..., Awaitable[bool]] | None
        self.store_user = if_any("store_user", self._store_user)
        self.remove_user: Callable[..., Awaitable[bool]] | None
        self.remove_user = if_any("remove_user", self._remove_user)
        self.list_users: Callable[[], AsyncIterator[PopUser]] | None
        self.list_users = if_any("list_users", self._list_users)
        self.store_message: Callable[..., Awaitable[str]] | None
        self.store_message = if_any("store_message", self._store_message)

    async def find_user(self, name: str, session: Session | None = None) -> PopUser | None:
        """Return the user whom `get_user` finds, or None."""
        return await self._plugins.get_user(name, cast("Session", session))

    async def _store_user(self, user: PopUser, *, replace: bool = False) -> bool:
        return bool(await self._plugins.first("store_user", user, replace))

    async def _remove_user(self, name: str, *, with_mail: bool = False) -> bool:
        patience = self._plugins.hook_timeout * REMOVAL_PATIENCE
        removed = await self._plugins.first("remove_user", name, with_mail, patience=patience)
        return bool(removed)

    async def _list_users(self) -> AsyncIterator[PopUser]:
        found = await self._plugins.first("list_users")
        if hasattr(found, "__aiter__"):
            async with aclosing(found) as pages:
                async for page in pages:
                    for user in page:
                        yield user
        else:
            for user in found or ():
                yield user

    async def _store_message(
        self, name: str, contents: bytes | AsyncIterator[bytes], uid: str | None = None
    ) -> str:
        patience = self._plugins.hook_timeout * REMOVAL_PATIENCE
        stored = await self._plugins.first("store_message", name, contents, uid, patience=patience)
        if stored is None:
            raise PermanentFailure
        return str(stored)


@asynccontextmanager
async def open_store(
    backend: str | object, options: Mapping[str, Any] | None = None
) -> AsyncIterator[BackendStore]:
    """Open a mail store for a script: the name of an installed backend, or a backend object.

    `options` are the backend's, by parameter name, such as `{"mongo_uri": ...}`. Raises
    ConfigurationError where it can't be opened.
    """
    plugins = Plugins(load_backend(backend) if isinstance(backend, str) else backend)
    plugins.configure(options or {})
    await plugins.startup(None)
    try:
        yield BackendStore(plugins)
    finally:
        await plugins.shutdown(None)
