"""The server as plugins see it: the members of `hooks.interfaces.Server`, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from pop3hub.auth.throttle import Guard
    from pop3hub.errors import PopError
    from pop3hub.hooks.interfaces import Calls, Lockouts, Server, ServerStats, Session, Store
    from pop3hub.server.state import ServerState
    from pop3hub.settings import Settings


class OpenSessions:
    """The sessions that are open now, as plugins see them; nothing is copied."""

    __slots__ = ("_state",)

    def __init__(self, state: ServerState) -> None:
        self._state = state

    def __len__(self) -> int:
        return len(self._state.connections)

    def __iter__(self) -> Iterator[Session]:
        connections = list(self._state.connections)
        return iter([each.session.view for each in connections if each.session is not None])

    def __contains__(self, session: object) -> bool:
        return any(session is each for each in self)


class LockoutView:
    """The lockouts of a guard (`hooks.interfaces.Lockouts` has the contract)."""

    __slots__ = ("_guard",)

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def current(self) -> Mapping[str, float]:
        """Return who is locked out, with the seconds that are left."""
        return self._guard.lockouts()

    def lift(self, name_or_address: str) -> bool:
        """End a lockout; return whether there was one."""
        return self._guard.lift(name_or_address)


class ServerView:
    """What hooks are handed of a server (`hooks.interfaces.Server` has the contract)."""

    __slots__ = ("__weakref__", "_server")

    def __init__(self, server: Server) -> None:
        self._server = server

    @property
    def settings(self) -> Settings:
        """The policy of the server."""
        return self._server.settings

    @property
    def addresses(self) -> Sequence[str]:
        """The URLs that it listens on."""
        return self._server.addresses

    @property
    def is_accepting(self) -> bool:
        """Whether it has started and no stop has begun."""
        return self._server.is_accepting

    @property
    def stats(self) -> ServerStats:
        """What it has done since its start."""
        return self._server.stats

    @property
    def sessions(self) -> Collection[Session]:
        """The sessions that are open now."""
        return self._server.sessions

    @property
    def lockouts(self) -> Lockouts:
        """Who is locked out."""
        return self._server.lockouts

    @property
    def store(self) -> Store:
        """What the backend can do beside serving."""
        return self._server.store

    @property
    def calls(self) -> Mapping[tuple[str, str], Calls]:
        """What the calls of hooks came to."""
        return self._server.calls

    async def ready(self) -> None:
        """Return if a login could be served now; otherwise raise the reason."""
        await self._server.ready()

    def text(self, error: PopError) -> str:
        """Return the text of an error in the server's own language, as ASCII."""
        return self._server.text(error)
