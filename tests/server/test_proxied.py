"""Listeners behind proxies: whose header is believed, and what a session knows by it."""

import asyncio
import errno
import os
import resource
import socket
import ssl
import struct
from urllib.parse import urlsplit

import pytest
import structlog

from pop3hub import ConfigurationError, PopServer
from pop3hub.peer import Peer
from pop3hub.protocol.proxy import SIGNATURE
from pop3hub.settings import Limits
from tests.support.authority import Authority
from tests.support.serving import TIMEOUT, Client

V1 = b"PROXY TCP4 192.0.2.7 127.0.0.1 5000 110\r\n"
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
TCP4 = bytes([192, 0, 2, 7, 127, 0, 0, 1]) + struct.pack("!HH", 5000, 110)
TLS = b"\x01\0\0\0\0\x21\0\x07TLSv1.3\x23\0\x04SOME"
BEHIND_TLS = b"".join(
    (SIGNATURE, b"\x21\x11", struct.pack("!H", 15 + len(TLS)), TCP4, b"\x20\0", bytes([len(TLS)]))
)
BEHIND_TLS += TLS
ON_BOTH_LOOPS = True
BY_PROXIES = "?proxy=127.0.0.1/32"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def log():
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
def proxied(serve, authority):
    """Return a function that starts a server behind proxies."""

    async def proxied(query=BY_PROXIES, scheme="pop3", **settings):
        cert = authority.issue("localhost")
        return await serve(f"{scheme}://127.0.0.1:0{query}", tls_cert=cert, **settings)

    return proxied


@pytest.fixture
def connect(stack):
    """Return a function that connects as a proxy does, and has sent these octets."""

    async def connect(server, octets=b"", port=0):
        client = await Client.connect(server.addresses[port])
        stack.push_async_callback(client.close)
        client.send(octets)
        return client

    return connect


def socket_name(server):
    url = urlsplit(server.addresses[0])
    return url.hostname, url.port


def events(log, name):
    return [line for line in log if line["event"] == name]


# Who the client is


async def test_the_header_tells_the_greeting_the_log_and_the_session(proxied, connect, log):
    server = await proxied(allow_plaintext=True)
    client = await connect(server, V1 + b"USER luke\r\nPASS hello\r\nQUIT\r\n")

    assert b"192.0.2.7:5000" in await client.line()
    assert [b"+OK"] * 3 == [line[:3] for line in (await client.rest()).splitlines()]
    assert ["192.0.2.7"] == [line["peer"] for line in events(log, "session.login")]


async def test_every_octet_of_the_header_may_come_alone(proxied, connect):
    server = await proxied()
    client = await connect(server)
    for octet in BEHIND_TLS + b"QUIT\r\n":
        client.send(bytes([octet]))
        await asyncio.sleep(0)

    assert b"192.0.2.7:5000" in await client.line()
    assert b"+OK" in await client.line()


async def test_limits_are_those_of_the_client_and_not_of_the_proxy(proxied, connect):
    server = await proxied(limits=Limits(sessions_per_address=1))
    first = await connect(server, V1)
    assert b"+OK" in await first.line()

    second, third = await connect(server, V1), await connect(server, V1.replace(b".7", b".8"))

    assert b"-ERR [SYS/TEMP] too many connections from your address" in await second.rest()
    assert b"+OK" in await third.line()


async def test_a_proxy_that_speaks_for_nobody_has_no_limit(proxied, connect):
    """Its health checks must not make it think that the node is down."""
    server = await proxied(limits=Limits(sessions_per_address=1, connections_per_minute=1))
    for _ in range(3):
        assert b"+OK" in await (await connect(server, LOCAL)).line()
        assert b"+OK" in await (await connect(server, b"PROXY UNKNOWN\r\n")).line()


# Passwords in clear


@pytest.mark.parametrize(
    ("header", "answer"),
    [
        (V1, b"-ERR"),
        (LOCAL, b"-ERR"),
        (b"PROXY UNKNOWN\r\n", b"-ERR"),
        (BEHIND_TLS, b"+OK"),
        (V1.replace(b"192.0.2.7", b"127.0.0.2"), b"+OK"),
    ],
)
async def test_a_password_may_come_in_clear_as_the_header_tells(proxied, connect, header, answer):
    """The proxy's own connection comes over loopback in all of them."""
    client = await connect(await proxied(), header + b"USER luke\r\n")
    await client.line()

    assert answer == (await client.line()).split()[0]


async def test_another_machine_s_loopback_is_no_address(proxied, connect, monkeypatch):
    monkeypatch.setattr("pop3hub.server.proxied.peer_of", lambda _: Peer("192.0.2.200", 5000))
    server = await proxied("?proxy=192.0.2.0/24")
    client = await connect(server, V1.replace(b"192.0.2.7", b"127.0.0.2") + b"USER luke\r\n")

    assert b"192.0.2.200" in await client.line()
    assert b"-ERR" in await client.line()


async def test_tls_that_ended_at_the_proxy_is_the_session_s(proxied, connect, log):
    client = await connect(await proxied(), BEHIND_TLS + b"CAPA\r\n")
    await client.line()

    capabilities = await client.many()

    assert b"STLS" not in capabilities
    assert b"\r\nUSER\r\n" in capabilities
    assert b"-ERR" in await client.say(b"STLS")
    await client.say(b"USER luke")
    assert b"+OK" in await client.say(b"PASS hello")
    assert ["TLSv1.3"] == [line["tls"] for line in events(log, "session.login")]


# TLS behind the header


async def test_implicit_tls_follows_the_header(proxied, connect, authority):
    server = await proxied(scheme="pop3s")
    client = await connect(server, V1)
    await client.start_tls(authority.client())

    assert b"192.0.2.7:5000" in await client.line()
    await client.say(b"USER luke")
    assert b"+OK" in await client.say(b"PASS hello")


async def test_header_and_clienthello_may_come_in_one_segment(proxied, authority):
    server = await proxied(scheme="pop3s")

    def talk():
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = authority.client().wrap_bio(incoming, outgoing, server_hostname="localhost")
        pending = V1
        with socket.create_connection(socket_name(server), timeout=TIMEOUT) as raw:
            while True:
                try:
                    return tls.read(512)
                except ssl.SSLWantReadError:
                    raw.sendall(pending + outgoing.read())
                    pending = b""
                    incoming.write(raw.recv(65536))

    assert b"192.0.2.7:5000" in await asyncio.to_thread(talk)


async def test_stls_behind_a_proxy(proxied, connect, authority):
    client = await connect(await proxied(), V1)
    await client.line()
    assert b"+OK" in await client.say(b"STLS")
    await client.start_tls(authority.client())

    await client.say(b"USER luke")
    assert b"+OK" in await client.say(b"PASS hello")


async def test_a_handshake_that_fails_is_logged_under_the_client_s_address(proxied, connect, log):
    client = await connect(await proxied(scheme="pop3s"), V1 + b"USER luke\r\n")

    await client.rest()

    assert ["192.0.2.7"] == [line["peer"] for line in events(log, "connection.failed")]


# Who is refused


async def test_only_proxies_may_send_a_header(proxied, connect, log):
    server = await proxied("?proxy=192.0.2.0/24,2001:db8::/32")
    client = await connect(server, V1)

    assert b"" == await client.rest()
    assert ["127.0.0.1"] == [line["peer"] for line in events(log, "proxy.refused")]
    assert 0 == server.stats.connections


@pytest.mark.parametrize(
    "octets", [b"USER luke\r\nPASS hello\r\n", b"\x16\x03\x01" + bytes(60), V1[:-6] + b"x\r\n"]
)
async def test_without_a_header_nothing_is_answered(proxied, connect, octets, log):
    client = await connect(await proxied(), octets)

    assert b"" == await client.rest()
    assert 1 == len(events(log, "proxy.refused"))


@pytest.mark.parametrize("octets", [b"", V1[:9], SIGNATURE])
async def test_half_a_header_is_waited_for_so_long_and_not_longer(proxied, connect, octets, log):
    server = await proxied(limits=Limits(proxy_header=0.05))
    client = await connect(server, octets)

    assert b"" == await client.rest()
    assert ["no header in time"] == [line["reason"] for line in events(log, "proxy.refused")]


async def test_a_proxy_that_looks_and_leaves_is_no_news(proxied, connect, log):
    """What a health check does that only connects."""
    server = await proxied()
    client = await connect(server)
    client.writer.write_eof()

    assert b"" == await client.rest()
    assert [] == events(log, "proxy.refused")


# ServerProcess


async def test_a_server_that_stops_takes_in_whose_header_is_on_its_way(proxied, connect):
    server = await proxied()
    client = await connect(server, V1[:10])
    while not server.state.opening:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)
    stopping = asyncio.create_task(server.stop(grace=5))
    await asyncio.sleep(0)
    client.send(V1[10:] + b"QUIT\r\n")

    assert b"192.0.2.7" in await client.line()
    assert b"+OK" in await client.line()
    await stopping


async def test_a_server_that_stops_takes_in_who_waits_in_the_socket(proxied, connect):
    """The system has told the proxy already that its connection is made."""
    server = await proxied()
    first = await connect(server, V1)
    await first.line()
    with socket.create_connection(socket_name(server)) as waiting:  # the loop has no turn here
        stopping = asyncio.create_task(server.stop(grace=5))
        waiting.setblocking(False)
        await server.state.loop.sock_sendall(waiting, V1 + b"QUIT\r\n")
        async with asyncio.timeout(TIMEOUT):
            assert b"192.0.2.7" in await server.state.loop.sock_recv(waiting, 512)
    await first.close()
    await stopping


async def test_a_server_that_stops_at_once_waits_for_no_header(proxied, connect):
    server = await proxied()
    client = await connect(server, V1[:10])
    while not server.state.opening:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)

    await server.stop()

    assert b"" == await client.rest()


async def test_a_server_that_is_stopped_at_its_start_leaves_no_socket(serve):
    server = await serve(f"pop3://127.0.0.1:0{BY_PROXIES}")
    place = socket_name(server)

    await server.stop()

    assert [] == server.addresses
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*place)


async def test_accepting_goes_on_after_a_lack_of_descriptors(proxied):
    server = await proxied()
    server.open_listeners[0].server.pause = 0.01
    told = asyncio.Event()
    server.state.loop.set_exception_handler(
        lambda _, context: told.set() if context["exception"].errno == errno.EMFILE else None
    )
    place = socket_name(server)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as client:
        client.setblocking(False)
        free = os.dup(client.fileno())
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            await server.state.loop.sock_connect(client, place)
            async with asyncio.timeout(TIMEOUT):
                await told.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await server.state.loop.sock_sendall(client, V1)
        async with asyncio.timeout(TIMEOUT):
            assert b"192.0.2.7" in await server.state.loop.sock_recv(client, 512)


async def test_a_port_that_is_taken_is_told(serve):
    server = await serve(f"pop3://127.0.0.1:0{BY_PROXIES}")
    _, port = socket_name(server)

    with pytest.raises(ConfigurationError, match="can't listen"):
        await serve(f"pop3://127.0.0.1:{port}{BY_PROXIES}")


async def test_sockets_that_are_bound_already_are_taken(store, connect):
    """By a service manager, or by the parent of workers, which doesn't let them listen."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    server = PopServer(backend=store, listen=f"pop3://127.0.0.1:110{BY_PROXIES}")
    await server.start([[bound]])
    client = await connect(server, V1)

    assert b"192.0.2.7" in await client.line()
    await client.close()
    await server.stop()
