"""A session that a test speaks to line by line, without a socket."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from pop3hub.hooks.interfaces import State
from pop3hub.peer import Peer, Tls
from pop3hub.server.server import PopServer
from pop3hub.session.commands import handle
from pop3hub.session.session import Session

if TYPE_CHECKING:
    from collections.abc import Mapping

LOCAL = Peer("127.0.0.1", 50_000)


class Dialogue:
    """One session, spoken to line by line.

    `server` is a PopServer that was started, for several sessions on one store; or a backend, for
    which one is made with these settings, listening nowhere, started and stopped by the context.
    """

    def __init__(
        self,
        server: PopServer | object,
        *,
        peer: Peer = LOCAL,
        tls: Tls | None = None,
        starts_tls: bool = False,
        **settings: Any,
    ) -> None:
        self._own = None
        if not isinstance(server, PopServer):
            settings.setdefault("failure_delay", 0)
            server = self._own = PopServer(backend=server, listen=(), **settings)
        self.server: PopServer = server
        self.peer = peer
        self.closed = False
        self._ended = False
        self._facts: Mapping[str, Any] = {"tls": tls, "starts_tls": starts_tls}
        self._out: list[bytes] = []
        self._task: asyncio.Task[None] | None = None
        self.session: Session
        self.greeting = b""

    async def __aenter__(self) -> Self:
        if self._own is not None:
            await self._own.start()
        self.session = Session(self.server.context, self, self.peer, **self._facts)
        await self.session.plugins.session_opened(self.session.view)
        self.session.greet()
        self.greeting = self._said()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.hang_up()
        if self._own is not None:
            await self._own.stop()

    async def say(self, line: str | bytes) -> bytes:
        """Send a line without its CRLF; return all octets of the answer."""
        octets = line.encode() if isinstance(line, str) else line
        if self.session.state is State.CLOSED:
            raise ConnectionError("the session is closed")
        if self.session.wants_response:
            self.session.respond(octets)
        else:
            waiting = handle(self.session, octets)
            if waiting is not None:
                self._task = asyncio.create_task(waiting)
        while self._task is not None and not self._task.done():
            await asyncio.sleep(0)
            if self.session.wants_response:
                return self._said()
            await asyncio.wait([self._task], timeout=0.001)
        if self._task is not None:
            task, self._task = self._task, None
            await task
        if self.closed:
            await self.hang_up()
        return self._said()

    async def login(self, name: str, password: str) -> bytes:
        """Log in with USER and PASS; return the answer to PASS."""
        await self.say(f"USER {name}")
        return await self.say(f"PASS {password}")

    async def hang_up(self) -> None:
        """Lose the connection: whatever runs is cancelled, but for UPDATE."""
        self.closed = True
        if self._task is not None:
            if not self.session.finishing:
                self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        if not self._ended:
            self._ended = True
            await self.session.close()

    def _said(self) -> bytes:
        said = b"".join(self._out)
        self._out.clear()
        return said

    # The session's channel

    def send(self, data: bytes) -> None:
        """Keep what the session says."""
        self._out.append(data)

    async def drain(self) -> None:
        """Give others their turn: whoever reads a dialogue reads at once."""
        await asyncio.sleep(0)

    async def start_tls(self) -> Tls:
        """Say that a handshake was done."""
        return Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384")

    def close(self) -> None:
        """Note that the session closed the connection."""
        self.closed = True

    def abort(self) -> None:
        """Note that the session cut the connection."""
        self.closed = True
