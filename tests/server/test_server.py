"""The server over real sockets: addresses, clients, back-pressure, leaving, stopping."""

import asyncio
import gc
import poplib
import socket
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pop3hub import ConfigurationError, PermanentFailure, PopMessage, PopServer, PopUser, hookimpl

MAIL = b"Subject: one\r\n\r\n.dot\r\n"


class Store:
    """A store for one user, luke, whose mail may be anything."""

    def __init__(self, *messages):
        self.messages = list(messages) or [PopMessage("one", len(MAIL), MAIL)]
        self.locked = self.released = 0

    @hookimpl
    def get_user(self, name):
        return PopUser(name, "hello") if name == "luke" else None

    @hookimpl
    def compare_password(self, raw, hash):
        return raw == hash

    @hookimpl
    @asynccontextmanager
    async def lock_maildrop(self):
        self.locked += 1
        try:
            yield self.locked
        finally:
            self.released += 1

    @hookimpl
    def receive_messages(self):
        return list(self.messages)

    @hookimpl
    def delete_messages(self, messages):
        self.messages = [each for each in self.messages if each not in messages]
        return len(messages)


class Streamed(PopMessage):
    """A message whose chunks a test hands out."""

    __slots__ = ("chunks", "closed")

    def __init__(self, uid, size, chunks, **facts):
        super().__init__(uid, size, **facts)
        self.chunks = chunks
        self.closed = asyncio.Event()

    async def load_contents(self):
        return self._stream()

    async def _stream(self):
        try:
            async for chunk in self.chunks():
                yield chunk
        finally:
            self.closed.set()


@asynccontextmanager
async def serving(store=None, **settings):
    settings.setdefault("listen", "pop3://127.0.0.1:0")
    async with PopServer(backend=store or Store(), failure_delay=0, **settings) as server:
        yield server


class Client:
    """A strict client: octets out, whole replies in."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def line(self):
        return await self.reader.readuntil(b"\r\n")

    async def say(self, text):
        self.writer.write(text.encode() + b"\r\n")
        return await self.line()

    async def login(self):
        assert b"+OK" in await self.line()
        await self.say("USER luke")
        assert b"+OK" in await self.say("PASS hello")

    def leave(self):
        self.writer.transport.abort()


@asynccontextmanager
async def connected(server, at=0, limit=2**16):
    url = urlsplit(server.addresses[at])
    reader, writer = await asyncio.open_connection(url.hostname, url.port, limit=limit)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


def port_of(server):
    return urlsplit(server.addresses[0]).port


# Addresses


async def test_port_0_is_told_and_two_servers_live_in_one_process():
    async with serving() as first, serving() as second:
        assert first.addresses != second.addresses
        for server in (first, second):
            async with connected(server) as client:
                assert b"+OK pop3hub at your service" in await client.line()


async def test_a_server_listens_on_ipv6_and_on_several_addresses():
    async with serving(listen=["pop3://127.0.0.1:0", "pop3://[::1]:0"]) as server:
        schemes = [url.rpartition(":")[0] for url in server.addresses]
        assert ["pop3://127.0.0.1", "pop3://[::1]"] == schemes
        async with connected(server, 1) as client:
            assert b"IPv6 [::1]:" in await client.line()


async def test_a_port_in_use_is_an_error_that_names_it_and_leaves_nothing_open():
    async with serving() as server:
        url = server.addresses[0]
        second = PopServer(backend=Store(), listen=["pop3://127.0.0.1:0", url])

        with pytest.raises(ConfigurationError, match=f"can't listen on {url}: .*in use"):
            await second.start()

        assert [] == second.addresses


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"listen": "pop3://0.0.0.0:0"}, "nobody could log in on pop3://0.0.0.0:0"),
        ({"listen": "pop3s://127.0.0.1:0"}, "needs a certificate"),
        ({"listen": "imap://127.0.0.1:0"}, "pop3://HOST:PORT"),
        ({"listen": "pop3://127.0.0.1:99999"}, "out of range"),
        ({"listen": "pop3://127.0.0.1?colour=red"}, "unknown key 'colour'"),
        ({"name": "a<b"}, "the name 'a<b'"),
        ({"name": "Münster"}, "printable ASCII"),
        ({"name": ""}, "printable ASCII"),
        ({"name": "x" * 65}, "1 to 64"),
        ({"default_language": "xx"}, "xx"),
        ({"backend": None}, "give either callbacks, or a backend"),
        ({"backend": "nothere"}, "install the plugin that has it"),
    ],
)
def test_what_cannot_work_is_one_clear_error_at_the_start(settings, words):
    with pytest.raises(ConfigurationError, match=words):
        PopServer(**({"backend": Store()} | settings))


# Clients


async def test_poplib_lists_reads_and_deletes():
    def fetch(port):
        client = poplib.POP3("127.0.0.1", port, timeout=10)
        client.user("luke")
        client.pass_("hello")
        found = client.stat(), client.list()[1], client.uidl()[1], client.retr(1)[1]
        client.dele(1)
        client.quit()
        return found

    store = Store()
    async with serving(store) as server:
        found = await asyncio.to_thread(fetch, port_of(server))

    assert (
        (1, 22),
        [b"1 22"],
        [b"1 one"],
        [b"Subject: one", b"", b".dot"],
    ) == found
    assert ([], 1) == (store.messages, store.released)


async def test_commands_in_one_segment_are_answered_in_order():
    """RFC 2449 s6.6."""
    async with serving() as server, connected(server) as client:
        client.writer.write(
            b"USER luke\r\nPASS hello\r\nSTAT\r\nRETR 1\r\nDELE 1\r\nNOOP\r\nQUIT\r\n"
        )
        replies = (await client.reader.read()).split(b"\r\n")[1:]

    assert [
        b"+OK user 'luke' accepted, proceed with PASS",
        b"+OK pass accepted, welcome 'luke'.",
        b"+OK 1 22",
        b"+OK 22 octets",
        b"Subject: one",
        b"",
        b"..dot",
        b".",
        b"+OK message 1 deleted.",
        b"+OK nothing done",
        b"+OK pop3hub signing off.",
        b"",
    ] == replies


async def test_ten_thousand_pipelined_commands_are_all_answered():
    async with serving() as server, connected(server) as client:
        await client.login()

        async def send():
            for _ in range(100):
                client.writer.write(b"NOOP\r\n" * 100)
                await client.writer.drain()

        sending = asyncio.create_task(send())
        for _ in range(10_000):
            assert b"+OK nothing done\r\n" == await client.line()
        await sending


async def test_a_client_that_stops_sending_still_hears_its_answers():
    async with serving() as server, connected(server) as client:
        client.writer.write(b"USER luke\r\nPASS hello\r\nSTAT\r\n")
        client.writer.write_eof()

        assert b"+OK 1 22\r\n" in await client.reader.read()


# Leaving


async def test_a_lost_connection_deletes_nothing_and_releases_the_lock():
    """RFC 1939 s6."""
    store = Store()
    async with serving(store) as server, connected(server) as client:
        await client.login()
        await client.say("DELE 1")
        client.leave()
        await server.stop()

    assert (1, 1, 1) == (len(store.messages), store.locked, store.released)


async def test_a_response_may_come_in_pieces_or_before_its_challenge():
    async with serving() as server, connected(server) as client:
        await client.line()
        client.writer.write(b"AUTH PLAIN\r\nAGx1a2UA")
        assert b"+ \r\n" == await client.line()
        client.writer.write(b"aGVsbG8=\r\nSTAT\r\n")

        assert b"+OK pass accepted, welcome 'luke'.\r\n" == await client.line()
        assert b"+OK 1 22\r\n" == await client.line()
    async with serving() as server, connected(server) as client:
        await client.line()
        client.writer.write(b"AUTH PLAIN\r\nAGx1a2UAaGVsbG8=\r\nSTAT\r\n")

        assert b"+ \r\n" == await client.line()
        assert b"+OK pass accepted, welcome 'luke'.\r\n" == await client.line()
        assert b"+OK 1 22\r\n" == await client.line()


@pytest.mark.parametrize("leave", ["half-close", "abort"])
async def test_a_client_that_leaves_in_the_middle_of_auth_is_noticed(leave):
    async with serving() as server, connected(server) as client:
        await client.line()
        assert b"+ \r\n" == await client.say("AUTH PLAIN")
        if leave == "abort":
            client.leave()
        else:
            client.writer.write_eof()
            assert b"" == await client.reader.read()
        await asyncio.wait_for(server.state.wait_until_empty(), 10)


async def test_a_client_that_leaves_during_retr_closes_the_stores_stream():
    async def endless():
        while True:
            yield b"x" * 65_536

    message = Streamed("big", 2**40, endless)
    store = Store(message)
    async with serving(store) as server, connected(server) as client:
        await client.login()
        await client.say("RETR 1")
        await client.reader.readexactly(200_000)
        client.leave()

        await asyncio.wait_for(message.closed.wait(), 10)

    assert (1, 1) == (store.locked, store.released)


async def test_an_update_goes_on_when_its_client_has_left():
    begun, go_on, done = asyncio.Event(), asyncio.Event(), []

    class Slow(Store):
        @hookimpl
        async def delete_messages(self, messages):
            begun.set()
            await go_on.wait()
            done.extend(messages)
            assert 0 == self.released
            return len(messages)

    store = Slow()
    async with serving(store) as server, connected(server) as client:
        await client.login()
        await client.say("DELE 1")
        client.writer.write(b"QUIT\r\n")
        await begun.wait()
        client.leave()
        stopping = asyncio.create_task(server.stop())
        go_on.set()
        await stopping

    assert (1, 1) == (len(done), store.released)


async def test_a_store_that_fails_midway_cuts_the_connection_without_the_final_dot():
    async def broken():
        yield b"Subject: x\r\n\r\nfirst half\r\n"
        raise OSError("disk on fire")

    async with serving(Store(Streamed("x", 100, broken))) as server, connected(server) as client:
        await client.login()
        client.writer.write(b"RETR 1\r\n")

        received = b""
        with suppress(ConnectionResetError):
            received = await client.reader.read()

    assert not received.endswith(b".\r\n")


async def test_a_message_that_is_gone_is_an_error_and_the_session_goes_on():
    async def gone():
        raise PermanentFailure(text_id="message-gone")
        yield b""

    async with serving(Store(Streamed("x", 100, gone))) as server, connected(server) as client:
        await client.login()

        assert b"-ERR [SYS/PERM] " == (await client.say("RETR 1"))[:16]
        assert b"+OK nothing done\r\n" == await client.say("NOOP")


async def test_a_reader_that_does_not_read_stops_the_stores_stream():
    """Memory stays bounded: what the client does not take is not fetched."""
    sent = 0
    enough = asyncio.Event()

    async def endless():
        nonlocal sent
        while True:
            sent += 65_536
            if sent > 2**20:
                enough.set()
            yield b"x" * 65_536

    async with serving(Store(Streamed("big", 2**40, endless))) as server:
        url = urlsplit(server.addresses[0])
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            client.connect((url.hostname, url.port))
            client.sendall(b"USER luke\r\nPASS hello\r\nRETR 1\r\n")
            await enough.wait()
            before = -1
            while before != sent:  # it comes to rest once the buffers are full
                before = sent
                for _ in range(1000):
                    await asyncio.sleep(0)
            assert sent < 64 * 2**20
            connection = next(iter(server.state.connections))
            assert connection.transport.get_write_buffer_size() < 2**20


class Clockwork:
    """A server's clock that a test can put forward."""

    def __init__(self, server):
        self.server = server

    def pass_(self, seconds):
        now = self.server.state.loop.time()
        for connection in list(self.server.state.connections):
            connection.check_timeouts(now + seconds)


async def test_silence_is_counted_from_the_end_of_a_long_answer():
    """RFC 1939 s3: the timer is the client's, not that of a message under way."""
    go_on = asyncio.Event()

    async def slow():
        yield b"first\r\n"
        await go_on.wait()
        yield b"second\r\n"

    async with serving(Store(Streamed("x", 15, slow))) as server, connected(server) as client:
        await client.login()
        assert b"+OK 15 octets\r\n" == await client.say("RETR 1")
        connection = next(iter(server.state.connections))
        connection.last_activity -= 599
        go_on.set()
        assert b"first\r\nsecond\r\n.\r\n" == await client.reader.readuntil(b".\r\n")
        Clockwork(server).pass_(2)

        assert b"+OK nothing done\r\n" == await client.say("NOOP")
        Clockwork(server).pass_(1)
        Clockwork(server).pass_(602)
        assert b"" == await client.reader.read()


async def test_a_store_that_hangs_in_the_middle_of_a_message_ends_the_session():
    async def hang():
        yield b"first\r\n"
        await asyncio.Event().wait()

    message = Streamed("x", 15, hang, ascii_size=15)
    async with serving(Store(message)) as server, connected(server) as client:
        await client.login()
        await client.say("RETR 1")
        assert b"first\r\n" == await client.line()
        Clockwork(server).pass_(1)
        Clockwork(server).pass_(302)

        with suppress(ConnectionResetError):
            assert b"" == await client.reader.read()
        await asyncio.wait_for(message.closed.wait(), 10)


async def test_a_client_that_says_quit_and_reads_nothing_is_cut():
    begun = asyncio.Event()

    class Seen(Store):
        @hookimpl
        def load_contents(self):
            begun.set()
            return b"x" * 7_999_998 + b"\r\n"

    big = PopMessage("big", 8_000_000, wire_ready=True, ascii_size=8_000_000)
    async with serving(Seen(big)) as server:
        url = urlsplit(server.addresses[0])
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((url.hostname, url.port))
            client.sendall(b"USER luke\r\nPASS hello\r\n" + b"RETR 1\r\n" * 200 + b"QUIT\r\n")
            await asyncio.wait_for(begun.wait(), 10)
            Clockwork(server).pass_(1)
            Clockwork(server).pass_(302)

            await asyncio.wait_for(server.state.wait_until_empty(), 10)


# Stopping


async def test_stopping_gives_open_sessions_their_grace_and_removes_nothing():
    store = Store()
    async with serving(store) as server, connected(server) as client:
        await client.login()
        await client.say("DELE 1")
        stopping = asyncio.create_task(server.stop(grace=0.2))
        await asyncio.sleep(0)

        assert b"+OK 0 0\r\n" == await client.say("STAT")
        await stopping

    assert (1, 1) == (len(store.messages), store.released)


async def test_a_session_that_ends_within_the_grace_ends_the_wait():
    async with serving() as server, connected(server) as client:
        await client.login()
        stopping = asyncio.create_task(server.stop(grace=600))
        await client.say("QUIT")

        await asyncio.wait_for(stopping, 10)


async def test_a_client_that_leaves_in_the_turn_of_its_command_leaves_nothing_behind():
    """A task that is cancelled before it began leaves a coroutine that Python warns of."""

    async def hang():
        await asyncio.Event().wait()
        yield b""

    store = Store(Streamed("x", 15, hang))
    async with serving(store) as server, connected(server) as client:
        await client.login()
        connection = next(iter(server.state.connections))

        connection.transport.abort()
        connection.data_received(b"RETR 1\r\n")

        while server.sessions:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
        gc.collect()  # a warning is an error
    assert 1 == store.released


async def test_a_stopped_server_refuses_connections():
    async with serving() as server:
        address = urlsplit(server.addresses[0])
        await server.stop()

        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(address.hostname, address.port)


# Memory


@pytest.mark.slow
@pytest.mark.parametrize("wire_ready", [True, False])
async def test_a_message_of_a_gibibyte_takes_no_more_memory_than_a_small_one(wire_ready):
    size = 2**30
    line = b"x" * 998 + b"\r\n"
    chunk = line * 262  # just below 256 KiB

    async def stream():
        left = size
        while left:
            part = chunk[-left:] if left < len(chunk) else chunk
            left -= len(part)
            yield part

    def resident():
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        return pages * 4096

    message = Streamed("big", size, stream, wire_ready=wire_ready, ascii_size=size)
    async with serving(Store(message)) as server, connected(server, limit=2**20) as client:
        await client.login()
        assert b"+OK %d octets\r\n" % size == await client.say("RETR 1")
        before = resident()
        received = 0
        while received < size + 3:
            received += len(await client.reader.read(2**20))

        assert resident() - before < 40 * 2**20
    assert size + 3 == received


async def test_ipv4_on_a_socket_of_both_families_is_ipv4():
    """What systemd hands over often is one: its clients are local, and counted one by one."""
    both = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    server = PopServer(backend=Store(), listen="pop3://[::1]:0", failure_delay=0)
    await server.start(sockets=[[both]])
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", both.getsockname()[1])
        assert b"IPv4 127.0.0.1:" in await reader.readuntil(b"\r\n")
        writer.write(b"USER luke\r\n")
        assert b"+OK" in await reader.readuntil(b"\r\n")
        writer.close()
    finally:
        await server.stop()
