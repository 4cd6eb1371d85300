"""What the connections of one server share: who is connected, and what was counted.

Handed to each connection, which needs nothing else of its server.
"""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet

import structlog

from pop3hub import protocol

if TYPE_CHECKING:
    import ssl
    from collections.abc import Coroutine, Sequence

    from pop3hub.peer import Peer
    from pop3hub.server.listeners import Listener
    from pop3hub.server.tls import Certificates
    from pop3hub.session.session import ServerContext, Session
    from pop3hub.settings import Settings


class OpenConnection(Protocol):
    """A connection, as its server needs it (`server.connection.Connection`)."""

    session: Session | None

    def check_timeouts(self, now: float) -> None:
        """End the session if it was silent or stuck for too long."""

    def cut(self, reason: str) -> None:
        """Close now, without UPDATE."""


class AcceptingServer(Protocol):
    """What accepts connections from sockets: asyncio's server, or one that waits for a header."""

    @property
    def sockets(self) -> Sequence[Any]:
        """The listening sockets."""

    def close(self) -> None:
        """Accept no more."""

    async def wait_closed(self) -> None:
        """Wait until the sockets are closed."""


@dataclass(slots=True)
class OpenListener:
    """A listener that is open: its sockets and its TLS context."""

    config: Listener
    certificates: Certificates | None = None
    server: AcceptingServer | None = None

    @property
    def context(self) -> ssl.SSLContext | None:
        """The TLS context of this listener, if it has a certificate."""
        return self.certificates.context if self.certificates else None

    @property
    def starts_tls(self) -> bool:
        """Whether STLS can be had here."""
        return self.certificates is not None and not self.config.implicit_tls


class ServerState:
    """The connections of one server, from its start to its end, and their limits.

    loop: set when the server starts.
    opening: connections whose TLS handshake or PROXY header is not over.
    end: the loop's time at which open sessions are closed; None while the server is not stopping.
    """

    def __init__(self, context: ServerContext) -> None:
        self.context = context
        self.loop: asyncio.AbstractEventLoop
        self.stats = context.stats
        self.log = structlog.get_logger("pop3hub.server")
        self.opening: WeakSet[OpenConnection] = WeakSet()
        self.connections: set[OpenConnection] = set()
        self.end: float | None = None
        self._by_address: dict[str, int] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()

    @property
    def settings(self) -> Settings:
        """The policy of the server as it is now; `PopServer.reload` may change it."""
        return self.context.settings

    def admit(self, connection: OpenConnection, peer: Peer) -> bytes | None:
        """Count a connection in, or return the line that refuses it."""
        self.opening.discard(connection)
        self.stats.connections += 1
        limits = self.settings.limits
        address = peer.counted_as(self.settings.exempt)
        count = self._by_address.get(address, 0)
        refusal: str | None
        if limits.sessions and len(self.connections) >= limits.sessions:
            refusal = "connections-too-many"
        elif address and 0 < limits.sessions_per_address <= count:
            refusal = "connections-too-many-from-address"
        else:
            refusal = self.context.guard.refusal(peer, self.settings)
        if refusal is not None:
            self.stats.refused += 1
            self.log.warning("connection.refused", peer=peer.host, reason=refusal)
            text = self.context.catalogue.default.text(refusal, ascii=True)
            return protocol.err(text, "SYS/TEMP")
        self.connections.add(connection)
        if address:
            self._by_address[address] = count + 1
        return None

    def forget(self, connection: OpenConnection) -> None:
        """Count a connection out, and its session's counts in."""
        if connection not in self.connections:
            return
        self.connections.discard(connection)
        self._changed.set()
        session = connection.session
        if session is None:
            return
        if address := session.peer.counted_as(self.settings.exempt):
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]
        session.add_to(self.stats)

    def run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work that no longer belongs to a connection; a stop waits for it."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log.error("session.close_failed", exc_info=error)

    # Time

    @property
    def is_accepting(self) -> bool:
        """Whether the server has started and no stop has begun."""
        return self._timer is not None and self.end is None

    def check_timeouts(self) -> None:
        """End silent sessions, now and from now on.

        One timer for all of them costs less than one for each.
        """
        limits = self.settings.limits
        now = self.loop.time()
        for connection in list(self.connections):
            connection.check_timeouts(now)
        if self.opening and self.end is not None:
            gc.collect()  # asyncio leaves handshakes that failed to it
            self._changed.set()
        shortest = min(limits.idle, limits.login, limits.stall)
        self._timer = self.loop.call_later(min(1.0, shortest / 4), self.check_timeouts)

    def shorten(self, end: float) -> None:
        """Close open sessions earlier than `end` says, if `end` is later."""
        if self.end is None or end < self.end:
            self.end = end
            self._changed.set()

    async def wait_for_grace(self) -> None:
        """Wait for the sessions, handshakes and background work that go on, or until `end`."""
        with suppress(TimeoutError):
            while self.connections or self._tasks or self.opening:
                async with asyncio.timeout_at(self.end):
                    await self.wait_for_change()

    async def wait_until_empty(self) -> None:
        """Wait until no session is open and no background work is left."""
        while self.connections or self._tasks:
            await self.wait_for_change()

    async def wait_for_change(self) -> None:
        """Wait until a session or a piece of background work has ended, or a stop is shortened."""
        self._changed.clear()
        await self._changed.wait()

    def cut_all(self) -> None:
        """Close all sessions without UPDATE; those inside UPDATE finish it first."""
        for connection in list(self.connections):
            connection.cut("shutdown")

    def close(self) -> None:
        """Check no more timeouts."""
        if self._timer is not None:
            self._timer.cancel()
