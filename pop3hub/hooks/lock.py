"""A maildrop lock as `lock_maildrop` returned it, to be entered and left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from pop3hub.errors import PopError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager


class MaildropLock:
    """A lock that a plugin has returned; what fails in it is that plugin's.

    plugin: its name.
    call: calls a function, and awaits it within the limit of a hook, in the plugin's name.
    """

    __slots__ = ("_call", "_manager", "_plugin")

    def __init__(
        self,
        plugin: str,
        call: Callable[..., Awaitable[Any]],
        manager: AbstractAsyncContextManager[Any],
    ) -> None:
        self._plugin = plugin
        self._call = call
        self._manager = manager

    async def enter(self) -> Any:
        """Take the lock; return what is kept as `session.fence`."""
        return await self._call(lambda: self._manager.__aenter__())  # noqa: PLW0108

    async def leave(self) -> None:
        """Release the lock; what goes wrong is logged, since the session ends all the same."""
        try:  # looked up inside: an object that is not a lock is its plugin's defect
            await self._call(lambda: self._manager.__aexit__(None, None, None))
        except PopError as exc:
            log = structlog.get_logger("pop3hub.plugins")
            log.error("lock.release_failed", plugin=self._plugin, error=str(exc))
