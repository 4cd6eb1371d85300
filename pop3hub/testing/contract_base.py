"""What the parts of the backend contract share: a started server, and what a backend overrides."""
# ruff: noqa: S101 - a suite: it asserts, and names say what

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import bcrypt
import pytest

from pop3hub.auth.users import PopUser
from pop3hub.server.server import PopServer
from pop3hub.testing.dialogue import Dialogue
from pop3hub.testing.messages import listing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping


def store_of(server: PopServer) -> Any:
    """Return what the backend can do; a test has asked `_needs` whether it can."""
    return server.store


def conversation(
    test: Callable[[Any, PopServer], Awaitable[None]],
) -> Callable[[Any, object, Mapping[str, Any]], None]:
    """Make a test out of a coroutine: it gets a server that was started with the backend."""

    def run(self: ContractBase, backend: object, options: Mapping[str, Any]) -> None:
        async def within() -> None:
            made = PopServer(
                backend=backend, options=options, listen=(), failure_delay=0, bcrypt_cost=4
            )
            async with made as server:
                await self.add_user(server, "luke", "hello")
                await test(self, server)

        asyncio.run(within())

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


class ContractBase:
    """What a backend's own suite gives.

    Subclasses give a `backend` fixture, and `options` if it needs some. `add_user` and `deliver` go
    through `store_user` and `store_message`: for a backend without these, override them.
    """

    @pytest.fixture
    def backend(self) -> object:
        """Return a new backend with nothing in it, as its class makes it."""
        raise NotImplementedError("give a `backend` fixture")

    @pytest.fixture
    def options(self) -> Mapping[str, Any]:
        """Return what the backend's `configure` is to be given."""
        return {}

    async def add_user(self, server: PopServer, name: str, password: str) -> None:
        """Put a user into the store."""
        if server.store.store_user is None:
            pytest.skip("no store_user: override add_user")
        hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode("ascii")
        assert await store_of(server).store_user(PopUser(name, hashed), replace=False)

    async def deliver(self, server: PopServer, name: str, contents: bytes) -> None:
        """Put a message into the store, as the newest of the maildrop."""
        self._needs(server, "store_message")
        await store_of(server).store_message(name, contents)

    async def lose_lock(self, server: PopServer, name: str) -> None:  # noqa: ARG002
        """Take a maildrop's lock from the session that has it, as if it had lapsed.

        The maildrop is free then. For a backend whose lock is in its store, where another node can
        take over: override it. The default skips, by name.
        """
        pytest.skip("lose_lock is not overridden: this backend's lock can't lapse")

    @staticmethod
    def _needs(server: PopServer, hook: str) -> None:
        if getattr(server.store, hook) is None:
            pytest.skip(f"the backend has no {hook}")

    async def _uidl(self, server: PopServer) -> list[str]:
        async with Dialogue(server) as dialogue:
            assert (await dialogue.login("luke", "hello")).startswith(b"+OK")
            return listing(await dialogue.say("UIDL"))
