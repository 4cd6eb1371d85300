"""One TCP connection: octets to command lines, replies to octets, TLS, back-pressure.

The only place, with server.py, that touches a transport. Command lines are handled one after the
other, as they come; replies to a batch of them go out in one write, which is where the speed is
(`noop` of benchmarks/run.py).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from pop3hub import protocol
from pop3hub.errors import CommandError
from pop3hub.hooks.interfaces import State
from pop3hub.peer import Peer, Tls
from pop3hub.session.commands import handle
from pop3hub.session.session import Session

if TYPE_CHECKING:
    import ssl
    from collections.abc import Coroutine

    from pop3hub.server.state import OpenListener, ServerState

BATCH = 64
"""Commands that are handled before other connections get their turn."""
WRITE_AT = 64 * 1024
"""Octets of replies that are written without waiting for the end of the batch."""


class Connection(asyncio.Protocol):
    """The transport of one session; the session's `Channel`.

    peer, tls: what a proxy says of the client, set before the connection is made; else None.
    """

    __slots__ = (
        "__weakref__",
        "_drained",
        "_eof",
        "_out",
        "_out_size",
        "_progress",
        "_reading",
        "_sent",
        "_stalled",
        "_task",
        "framer",
        "last_activity",
        "listener",
        "opened",
        "peer",
        "session",
        "state",
        "tls",
        "transport",
    )

    def __init__(self, state: ServerState, listener: OpenListener) -> None:
        """Belong to a server and one of its listeners."""
        state.stats.accepted += 1
        state.opening.add(self)  # until the handshake is over
        self.state = state
        self.listener = listener
        self.peer: Peer | None = None
        self.tls: Tls | None = None
        self.session: Session | None = None
        self.transport: asyncio.Transport | None = None
        limits = state.settings.limits
        self.framer = protocol.Framer(
            auth_limit=limits.auth_line, swallow_limit=limits.swallowed_line
        )
        self.opened = self.last_activity = state.loop.time()
        self._out: list[bytes] = []
        self._out_size = 0
        self._sent = self._progress = 0
        self._task: asyncio.Task[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._stalled = False
        self._reading = True
        self._eof = False

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the client, or refuse it where there are too many."""
        self.transport = cast("asyncio.Transport", transport)
        peer = self.peer or peer_of(transport.get_extra_info("peername"))
        self.transport.set_write_buffer_limits(high=self.state.settings.limits.write_buffer)
        refusal = self.state.admit(self, peer)
        if refusal is not None:
            self.transport.write(refusal)
            self.transport.close()
            return
        plaintext = self.listener.config.plaintext
        session = Session(
            self.state.context,
            self,
            peer,
            tls=_tls_of(self.transport) or self.tls,
            starts_tls=self.listener.starts_tls,
            plaintext_ok=None if plaintext is None else plaintext or peer.is_local,
        )
        self.session = session
        if session.plugins.observes("session_opened"):
            self._run(self._open(session))
            return
        session.greet()
        self._flush()

    async def _open(self, session: Session) -> None:
        await session.plugins.session_opened(session.view)
        session.greet()

    def data_received(self, data: bytes) -> None:
        """Take octets and handle the commands that are whole."""
        self.framer.feed(data)
        self.last_activity = self.state.loop.time()
        self._pump()

    def eof_received(self) -> bool:
        """Answer what was asked before the client stopped sending, then close."""
        self._eof = True
        self._pump()
        return self.session is not None and self.session.tls is None

    def pause_writing(self) -> None:
        """Handle nothing more until the client has read."""
        self._stalled = True

    def resume_writing(self) -> None:
        """Go on: the client has read enough."""
        self._stalled = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        """End the session without UPDATE, unless it is inside UPDATE: then that is finished."""
        if self.transport is None:
            return  # a handshake failed, and that has ended the session already
        self.transport = None
        self._out.clear()
        session = self.session
        if session is None:
            self.state.forget(self)
            return
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        if self._task is None:
            self._close(session)
        else:  # after its first step: a task that never began leaves a coroutine unawaited
            self.state.loop.call_soon(self._cancel, self._task)

    def _cancel(self, task: asyncio.Task[None]) -> None:
        if not cast("Session", self.session).finishing:
            task.cancel()

    # Commands

    def _pump(self) -> None:
        """Handle the lines that are whole, until one has to be awaited or the client must read."""
        session = self.session
        if session is None or self.transport is None:
            return
        framer = self.framer
        budget = BATCH
        try:
            while not self._stalled and session.state in _OPEN:
                if self._task is not None:
                    if session.wants_response:
                        self._take_response(session)
                    break
                taken = framer.take(protocol.COMMAND_LIMIT)
                if taken is None:
                    break
                waiting = handle(session, taken[0])
                if waiting is not None:
                    self._run(waiting)
                    break
                budget -= 1
                if not budget:
                    self.state.loop.call_soon(self._pump)
                    break
        except protocol.LineNeverEnds:
            session.refuse(CommandError("line-too-long"))
            session.end("endless line")
        except Exception:  # noqa: BLE001 - a defect of ours ends one session, never the server
            self._fail(session)
        self._reply()
        self._regulate(session, at_rest=budget > 0)

    def _reply(self) -> None:
        """Write the replies of a batch, together with that of a task which is done at once."""
        if self._task is None:
            self._flush()
        elif self._out:
            self.state.loop.call_soon(self._flush_meanwhile)

    def _flush_meanwhile(self) -> None:
        """Write the replies to earlier commands, if there is something to be waited for."""
        if self._task is not None and not self._task.done():
            self._flush()

    def _take_response(self, session: Session) -> None:
        taken = self.framer.take(session.settings.limits.sasl_response)
        if taken is not None:
            session.respond(CommandError("line-too-long") if taken[0] is None else taken[0])

    def _run(self, waiting: Coroutine[Any, Any, None]) -> None:
        self._task = self.state.loop.create_task(waiting)
        self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        self.last_activity = self.state.loop.time()
        session = cast("Session", self.session)
        if not task.cancelled() and (error := task.exception()) is not None:
            if isinstance(error, OSError):  # a TLS handshake that failed, mostly
                session.log.info("connection.failed", error=str(error))
                session.abort("connection failed")
            else:
                self._fail(session, error)
        if self.transport is None:
            self._close(session)
        else:
            self._pump()

    def _fail(self, session: Session, error: BaseException | None = None) -> None:
        session.log.error("session.failed", exc_info=error or True)
        session.abort("defect")

    def _close(self, session: Session) -> None:
        if session.must_wait_to_close:
            self.state.run_in_background(self._closed(session))
        else:  # mostly: no task for what is done at once
            session.finish()
            self.state.forget(self)

    async def _closed(self, session: Session) -> None:
        try:
            await session.close()
        finally:
            self.state.forget(self)

    def _regulate(self, session: Session, *, at_rest: bool) -> None:
        """Read on only while what was read can be handled; close after the last reply."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        owed = self._task is not None and not session.wants_response
        blocked = self._stalled or not at_rest or (owed and len(self.framer) > 0)
        if self._eof and not owed and not self._stalled and at_rest:
            session.end("half-closed")
        elif blocked and self._reading:
            self._reading = False
            transport.pause_reading()
        elif not blocked and not self._reading:
            self._reading = True
            transport.resume_reading()

    # The session's channel

    def send(self, data: bytes) -> None:
        """Queue octets; written at the end of the batch, or now that there are many."""
        self._out.append(data)
        self._out_size += len(data)
        if self._out_size >= WRITE_AT:
            self._flush()

    def _flush(self) -> None:
        out = self._out
        if not out:
            return
        if self.transport is not None:
            self.transport.write(out[0] if len(out) == 1 else b"".join(out))
        out.clear()
        self._sent += self._out_size
        self._out_size = 0

    async def drain(self) -> None:
        """Write what is queued; wait while the client does not read."""
        self._flush()
        if len(self.framer) and cast("Session", self.session).wants_response:  # it came early
            self.state.loop.call_soon(self._pump)
        while self._stalled and self.transport is not None:
            self._drained = self.state.loop.create_future()
            try:
                await self._drained
            finally:
                self._drained = None

    async def start_tls(self) -> Tls:
        """Do the handshake; what came in clear behind STLS is dropped unread (RFC 2595 s4)."""
        transport = cast("asyncio.Transport", self.transport)
        transport.pause_reading()
        self._reading = False
        if len(self.framer):
            cast("Session", self.session).log.warning("stls.injection", octets=len(self.framer))
            self.framer.clear()
        self._flush()
        limits = self.state.settings.limits
        secured = None
        try:
            secured = await self.state.loop.start_tls(
                transport,
                self,
                cast("ssl.SSLContext", self.listener.context),
                server_side=True,
                ssl_handshake_timeout=limits.handshake,
            )
            if secured is not None and secured.get_extra_info("ssl_object") is None:
                secured = None  # uvloop's way to tell what asyncio tells with None
        finally:
            # asyncio does not always tell a protocol of a connection that is lost in the handshake.
            if secured is None:
                transport.abort()
                self.transport = None
        if secured is None:
            raise ConnectionAbortedError("the connection was lost in the handshake")
        self.transport = secured
        self._reading = True
        secured.set_write_buffer_limits(high=limits.write_buffer)
        return cast("Tls", _tls_of(secured))

    def close(self) -> None:
        """Write what is queued and close."""
        self._flush()
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close now; what is queued is dropped."""
        self._out.clear()
        if self.transport is not None:
            self.transport.abort()

    # Time

    def check_timeouts(self, now: float) -> None:
        """End the session if it was silent or stuck for too long (RFC 1939 s3: without a word)."""
        session = self.session
        transport = self.transport
        if session is None or transport is None:
            return
        if session.finishing:
            return  # the limit of a hook watches over UPDATE
        limits = session.settings.limits
        left = transport.get_write_buffer_size()
        progress = self._sent - left
        if progress != self._progress:
            self._progress = progress
            self.last_activity = now  # a long message is no silence
        silent = now - self.last_activity
        owed = self._task is not None and not session.wants_response
        if owed or left:
            if silent >= limits.stall:
                self.cut("stalled")
        elif silent >= limits.idle:
            self.cut("idle")
        elif session.state is State.AUTHORIZATION and now - self.opened >= limits.login:
            self.cut("no login")

    def cut(self, reason: str) -> None:
        """Close now, without UPDATE; a session that is inside UPDATE finishes it first.

        What is closing already goes too, and waits no more for a client that doesn't read.
        """
        session = self.session
        if session is not None:
            session.abort(reason)
        if session is None or session.state is not State.UPDATE:
            self.abort()


_OPEN = (State.AUTHORIZATION, State.TRANSACTION)  # compared by identity; a set would call __hash__


def peer_of(name: tuple[Any, ...] | None) -> Peer:
    """Return the peer of a socket whose peer's name this is."""
    if not name:
        return Peer("unknown", 0)
    host: str = name[0]
    if host.startswith("::ffff:") and "." in host:  # IPv4 on a socket of both families
        host = host.removeprefix("::ffff:")
    return Peer(host, name[1])


def _tls_of(transport: asyncio.BaseTransport) -> Tls | None:
    connection: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    if connection is None:
        return None
    cipher = connection.cipher()
    return Tls(connection.version() or "", cipher[0] if cipher else "", connection.getpeercert())
