"""Listeners behind proxies: connections that begin with a PROXY header, which comes before TLS.

The header is read from the socket itself, to its last octet, so that what follows it is whole when
the event loop takes the socket over: octets that a protocol was given already can't go into TLS.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog

from pop3hub.peer import Peer, Tls
from pop3hub.protocol.proxy import Header, ProxyError, missing, parse
from pop3hub.server.connection import Connection, peer_of

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from pop3hub.server.listeners import Listener
    from pop3hub.server.state import OpenListener, ServerState

HEADERS_AT_ONCE = 1024
"""Connections whose headers are waited for; with so many, no more are accepted."""
PAUSE = 1.0
"""Seconds until the next try where a connection couldn't be accepted, as asyncio has them."""


async def bind(listener: Listener) -> list[socket.socket]:
    """Return sockets that are bound to every address of the listener's host. Raises OSError."""
    places = await asyncio.get_running_loop().getaddrinfo(
        listener.host, listener.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    found: list[socket.socket] = []
    try:
        for family, address in sorted({(place[0], place[4]) for place in places}):
            found.append(socket.create_server(address, family=family))
    except OSError:
        for bound in found:
            bound.close()
        raise
    return found


class ProxiedServer:
    """Accepts connections from proxies; stands where a listener without them has an asyncio.Server.

    Only from the listener's `proxies`: whoever else could connect would choose an address freely.
    """

    def __init__(
        self,
        state: ServerState,
        listener: OpenListener,
        sockets: Sequence[socket.socket],
        *,
        backlog: int,
        inherited: bool,
        pause: float = PAUSE,
    ) -> None:
        """Accept from bound sockets; `inherited` ones go on living in another process."""
        self.pause = pause
        self.sockets = tuple(sockets)
        self._inherited = inherited
        self._state = state
        self._listener = listener
        self._room = asyncio.Semaphore(HEADERS_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("pop3hub.proxy")
        self._accepting = []
        for bound in sockets:
            bound.setblocking(False)
            bound.listen(backlog)
            self._accepting.append(self._run(self._accept(bound)))

    def close(self) -> None:
        """Accept no more; those whose header is on its way come in yet."""
        for bound in self.sockets:
            self._state.loop.remove_reader(bound)
            with suppress(OSError):
                while not self._inherited:  # what waits in the socket would be reset
                    self._take(*bound.accept())
            bound.close()
        self.sockets = ()
        for task in self._accepting:
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until the sockets are closed; whoever is not in by now is cut off."""
        await asyncio.sleep(0)  # a task that is cancelled before its first step closes nothing
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._state.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self, bound: socket.socket) -> None:
        loop = self._state.loop
        while True:
            await self._room.acquire()
            try:
                accepted, address = await loop.sock_accept(bound)
            except OSError as exc:
                self._room.release()
                loop.call_exception_handler({"message": "can't accept", "exception": exc})
                await asyncio.sleep(self.pause)
                continue
            self._take(accepted, address)

    def _take(self, accepted: socket.socket, address: tuple[Any, ...]) -> None:
        accepted.setblocking(False)
        connection = Connection(self._state, self._listener)  # now, so that a stop knows of it
        self._run(self._open(connection, accepted, peer_of(address)))

    async def _open(self, connection: Connection, accepted: socket.socket, proxy: Peer) -> None:
        """Read the header and hand the socket to a connection."""
        try:
            header = await self._header(accepted, proxy)
        except BaseException as exc:
            accepted.close()
            if not isinstance(exc, OSError | ProxyError):
                raise
            self._refuse(proxy, exc)
            return
        finally:
            self._room.release()
        connection.peer = _client(header, proxy)
        if header.tls_version is not None:
            connection.tls = Tls(header.tls_version, header.tls_cipher)
        implicit = self._listener.config.implicit_tls
        try:
            await self._state.loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._listener.context if implicit else None,
                ssl_handshake_timeout=self._state.settings.limits.handshake if implicit else None,
            )
        except OSError as exc:
            self._log.info("connection.failed", peer=connection.peer.host, error=str(exc))

    def _refuse(self, proxy: Peer, error: OSError | ProxyError) -> None:
        self._state.stats.refused += 1
        if isinstance(error, ConnectionError):  # a health check that only looks
            self._log.debug("proxy.left", peer=proxy.host)
        else:
            reason = "no header in time" if isinstance(error, TimeoutError) else str(error)
            self._log.warning("proxy.refused", peer=proxy.host, reason=reason)

    async def _header(self, accepted: socket.socket, proxy: Peer) -> Header:
        address = ipaddress.ip_address(proxy.host)
        if not any(address in network for network in self._listener.config.proxies):
            raise ProxyError("it is none of the proxies")
        head = b""
        async with asyncio.timeout(self._state.settings.limits.proxy_header):
            while more := missing(head):
                octets = await self._state.loop.sock_recv(accepted, more)
                if not octets:
                    raise ConnectionResetError
                head += octets
        return parse(head)


def _client(header: Header, proxy: Peer) -> Peer:
    """Return whom the proxy speaks for; another machine's loopback is no address here."""
    client = Peer(header.host or "", header.port)
    if header.host is None or (client.is_local and not proxy.is_local):
        return Peer(proxy.host, proxy.port, known=False)
    return client
