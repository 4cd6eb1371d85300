"""A small mail store, and a client that sends octets as they are: what the protocol tests share."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import bcrypt

from pop3hub.auth.scram import scram_keys
from pop3hub.auth.users import PopUser
from pop3hub.errors import PermanentFailure
from pop3hub.hooks.specs import hookimpl
from pop3hub.maildrop import PopMessage
from pop3hub.protocol.message import wire_form
from pop3hub.server import listeners
from pop3hub.server.connection import Connection
from pop3hub.server.state import OpenListener

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from pop3hub.server.server import PopServer
    from pop3hub.session.session import Session

TIMEOUT = 10.0
"""Seconds after which a test that waits for the server has failed."""


def new_user(name: str, password: str, **facts: Any) -> PopUser:
    """Return a user whose bcrypt hash is the cheapest there is."""
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
    return PopUser(name, hashed, **facts)


LUKE = new_user("luke", "hello", secret="tanstaaf")
PENCIL = {name: scram_keys("pencil", name, 4096) for name in ("SCRAM-SHA-1", "SCRAM-SHA-256")}
USER = new_user("user", "pencil", scram=PENCIL)


class Gate:
    """A place where a hook waits until the test lets it go on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def pass_through(self) -> None:
        """Tell that somebody is here, and wait."""
        self.reached.set()
        async with asyncio.timeout(TIMEOUT):
            await self.opened.wait()


class Streamed(PopMessage):
    """A message that its store sends in chunks."""

    __slots__ = ("store", "user")

    def __init__(self, store: Store, user: str, uid: str, size: int) -> None:
        super().__init__(uid, size)
        self.store = store
        self.user = user

    async def load_contents(self) -> AsyncIterator[bytes]:
        await self.store.called("load_contents")
        contents = self.store.mail[self.user].get(self.uid)
        if contents is None:
            raise PermanentFailure(text_id="message-gone")
        return self._chunks(contents)

    async def _chunks(self, contents: bytes) -> AsyncIterator[bytes]:
        size = self.store.chunk or len(contents)
        end = self.store.broken.get(self.uid, len(contents))
        try:
            for start in range(0, end, size):
                yield contents[start : min(start + size, end)]
            if self.uid in self.store.broken:
                raise OSError("the disk is gone")
        finally:
            self.store.closed.append(self.uid)


class Store:
    """Users and mail in dictionaries, the tests' backend; a test changes its attributes.

    tokens: the user whom a bearer token stands for.
    chunk: octets that a message is streamed in; None hands messages over whole.
    failures: by hook, what it raises from now on; gates: by hook, what it waits for.
    broken: unique-ids of streamed messages that fail, each after so many octets.
    used, serves: what `is_in_use` answers, and whether `receive_messages` does.
    deaf: unique-ids that `delete_messages` leaves where they are.
    calls, closed: the hooks that were called, the streams that were closed.
    """

    keeps_scram_keys = True

    def __init__(self) -> None:
        self.users = {user.name: user for user in (LUKE, USER)}
        self.mail: dict[str, dict[str, bytes]] = {"luke": {}, "user": {}}
        self.tokens: dict[str, str] = {}
        self.failures: dict[str, BaseException] = {}
        self.broken: dict[str, int] = {}
        self.serves = True
        self.used: bool | None = None
        self.deaf: set[str] = set()
        self.chunk: int | None = None
        self.calls: list[str] = []
        self.closed: list[str] = []
        self.gates: dict[str, Gate] = {}

    def put(self, *messages: bytes, name: str = "luke") -> None:
        """Add messages; their unique-ids are uid-1, uid-2, ..."""
        drop = self.mail.setdefault(name, {})
        for contents in messages:
            drop[f"uid-{len(drop) + 1}"] = contents

    async def called(self, hook: str) -> None:
        """Note a call; wait, or fail, where the test wants that."""
        self.calls.append(hook)
        if hook in self.gates:
            await self.gates[hook].pass_through()
        if hook in self.failures:
            raise self.failures[hook]

    @hookimpl
    async def get_user(self, name: str) -> PopUser | None:
        """Look the name up."""
        await self.called("get_user")
        return self.users.get(name)

    @hookimpl
    async def verify_token(self, token: str) -> PopUser | None:
        """Look the token up."""
        await self.called("verify_token")
        return self.users.get(self.tokens.get(token, ""))

    @hookimpl
    async def is_in_use(self) -> bool | None:
        """Leave that to the lock, unless `used` says it."""
        await self.called("is_in_use")
        return self.used

    @hookimpl
    async def receive_messages(self, user: PopUser) -> list[PopMessage] | None:
        """List the mail, with the sizes that RFC 1939 s11 wants; None if it `serves` nobody."""
        await self.called("receive_messages")
        if not self.serves:
            return None
        drop = self.mail[user.name]
        if self.chunk is None:
            return [PopMessage(uid, len(wire_form(each)), each) for uid, each in drop.items()]
        return [Streamed(self, user.name, uid, len(wire_form(each))) for uid, each in drop.items()]

    @hookimpl
    async def delete_messages(self, messages: list[PopMessage], session: Session) -> int:
        """Remove the messages but for the deaf ones; count each once."""
        await self.called("delete_messages")
        drop = self.mail[session.user.name]
        wanted = {message.uid for message in messages} - self.deaf
        for uid in wanted:
            drop.pop(uid, None)
        return len(wanted)


class Client:
    """A connection to a server, which sends and receives octets as they are."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, url: str, tls: ssl.SSLContext | None = None) -> Self:
        """Connect to a URL of `PopServer.addresses`."""
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(
            parts.hostname, parts.port, ssl=tls, server_hostname="localhost" if tls else None
        )
        return cls(reader, writer)

    def send(self, octets: bytes) -> None:
        """Send octets, as many in one segment as the system takes."""
        self.writer.write(octets)

    async def line(self) -> bytes:
        """Return the next line; b"" at the end of the connection."""
        async with asyncio.timeout(TIMEOUT):
            return await self.reader.readline()

    async def lines(self, number: int) -> list[bytes]:
        """Return so many lines."""
        return [await self.line() for _ in range(number)]

    async def many(self) -> bytes:
        """Return a multi-line reply."""
        async with asyncio.timeout(TIMEOUT):
            return await self.reader.readuntil(b"\r\n.\r\n")

    async def rest(self) -> bytes:
        """Return what comes until the server closes, or resets the connection."""
        received = b""
        with suppress(ConnectionError):
            async with asyncio.timeout(TIMEOUT):
                while octets := await self.reader.read(65_536):
                    received += octets
        return received

    async def say(self, line: bytes) -> bytes:
        """Send a command without its CRLF; return the first line of the answer."""
        self.send(line + b"\r\n")
        return await self.line()

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Do the handshake; the certificate must be for localhost."""
        async with asyncio.timeout(TIMEOUT):
            await self.writer.start_tls(context, server_hostname="localhost")

    async def close(self) -> None:
        """Close, whatever the server thinks of it."""
        self.writer.transport.abort()


class Wire(asyncio.Transport):
    """A transport without a socket: what a `Connection` writes is kept until the test reads it.

    peer: the client's address and port.
    reads: whether the client takes what is written; if not, it stays in the write buffer.
    most: the most octets that were ever in that buffer.
    """

    def __init__(self, server: PopServer, peer: str = "127.0.0.1", *, reads: bool = True) -> None:
        super().__init__({"peername": (peer, 50_000)})
        self.reads = reads
        self.written = bytearray()
        self.most = 0
        self.paused = False
        self._high = 0
        self._closing = False
        self._waiting = b""
        self.server = server
        self.connection = Connection(
            server.state, OpenListener(listeners.parse("pop3://127.0.0.1:0"))
        )
        self.connection.connection_made(self)

    def feed(self, octets: bytes) -> None:
        """Send octets to the server, which may not take them now."""
        if self.paused or self._waiting:
            self._waiting += octets
        elif not self._closing:
            self.connection.data_received(octets)

    def take(self) -> bytes:
        """Take what was written, and let the server go on."""
        written = bytes(self.written)
        self.written.clear()
        self.connection.resume_writing()
        return written

    def hang_up(self) -> None:
        """Lose the connection."""
        self.abort()

    async def settled(self) -> None:
        """Let the server work until it waits for the client."""
        async with asyncio.timeout(TIMEOUT):
            await asyncio.sleep(0)
            while self.is_busy and not self._closing:  # noqa: ASYNC110 - it has no event for that
                await asyncio.sleep(0)

    async def settle(self) -> bytes:
        """Let the server work until it waits for the client; return what it wrote, once."""
        await self.settled()
        written = bytes(self.written)
        self.written.clear()
        return written

    @property
    def is_busy(self) -> bool:
        """Whether the server has something to do that doesn't wait for the client."""
        connection = self.connection
        session = connection.session
        if session is None or connection._stalled:
            return False
        if connection._task is not None and not session.wants_response:
            return True
        framer = connection.framer
        return bool(self._waiting) or framer._buffer.find(b"\n", framer._position) >= 0

    # asyncio's transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep what is written; tell the connection when there is too much."""
        self.written += data
        self.most = max(self.most, self.get_write_buffer_size())
        if self.get_write_buffer_size() > self._high:
            self.connection.pause_writing()

    def get_write_buffer_size(self) -> int:
        """Count what the client has not taken."""
        return 0 if self.reads else len(self.written)

    def set_write_buffer_limits(
        self,
        high: int | None = None,
        low: int | None = None,
    ) -> None:
        """Note how much is too much."""
        self._high = high or 0

    def pause_reading(self) -> None:
        """Keep back what the client sends."""
        self.paused = True

    def resume_reading(self) -> None:
        """Hand over what was kept back."""
        self.paused = False
        asyncio.get_running_loop().call_soon(self._hand_over)

    def _hand_over(self) -> None:
        waiting = self._waiting
        if waiting and not self.paused:
            self._waiting = b""
            self.connection.data_received(waiting)

    def is_closing(self) -> bool:
        """Tell whether the server has closed."""
        return self._closing

    def close(self) -> None:
        """Close, as soon as the client has taken everything."""
        self._closing = True
        if self.reads:
            self.abort()

    def abort(self) -> None:
        """Close now."""
        self._closing = True
        asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)
