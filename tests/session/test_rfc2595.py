"""RFC 2595: STLS over real sockets with a real certificate; RFC 8314: TLS from the first octet."""

import asyncio
import ssl
import struct
from contextlib import suppress
from socket import SO_LINGER, SOL_SOCKET

import pytest
from structlog.testing import capture_logs

from pop3hub.settings import Limits
from tests.support.authority import Authority

BEGIN = b"+OK begin TLS negotiation\r\n"
LOG_IN_FIRST = b"-ERR log in first\r\n"
WELCOME = b"+OK pass accepted, welcome 'luke'.\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def cert(authority):
    return authority.issue("localhost")


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLSv1.2", "TLSv1.3"])
def context(authority, request):
    context = authority.client()
    context.maximum_version = request.param
    return context


@pytest.fixture
async def client(serve, connect, cert):
    """A client in clear, at a server that offers STLS."""
    return await connect(await serve(tls_cert=cert))


async def ended(server):
    """Wait until the server has no session left."""
    async with asyncio.timeout(5):
        await server.state.wait_until_empty()


# s4, STLS


async def test_after_stls_the_session_is_in_authorization_and_greets_no_more(client, context):
    assert BEGIN == await client.say(b"STLS")
    await client.start_tls(context)

    assert LOG_IN_FIRST == await client.say(b"STAT")
    await client.say(b"USER luke")
    assert WELCOME == await client.say(b"PASS hello")


async def test_stls_may_come_in_any_case_and_takes_no_argument(client):
    assert b"-ERR the form is: STLS\r\n" == await client.say(b"STLS now")
    assert BEGIN == await client.say(b"stls")


async def test_what_was_said_in_clear_is_forgotten(client, context):
    """What a man in the middle has said counts no more: name and language."""
    await client.say(b"LANG nl")
    await client.say(b"USER luke")
    await client.say(b"STLS")
    await client.start_tls(context)

    assert b"-ERR PASS must follow USER\r\n" == await client.say(b"PASS hello")


async def test_a_second_stls_is_refused(client, context):
    await client.say(b"STLS")
    await client.start_tls(context)

    assert b"-ERR TLS is active already\r\n" == await client.say(b"STLS")
    client.send(b"CAPA\r\n")
    assert b"\r\nSTLS\r\n" not in await client.many()


async def test_stls_after_the_login_is_refused(client):
    await client.say(b"USER luke")
    await client.say(b"PASS hello")

    assert b"-ERR not after the login\r\n" == await client.say(b"STLS")


async def test_stls_without_a_certificate_is_neither_announced_nor_taken(serve, connect):
    client = await connect(await serve())
    client.send(b"CAPA\r\n")

    assert b"STLS" not in await client.many()
    assert b"-ERR TLS is not available here\r\n" == await client.say(b"STLS")


@pytest.mark.parametrize(
    "behind", [b"CAPA\r\n", b"USER luke\r\nPASS hello\r\n", b"NOO", b"\r\n", b"A" * 70_000]
)
async def test_what_came_in_clear_behind_stls_is_never_run(client, context, behind):
    """CVE-2011-0411: one segment with STLS and commands of somebody in between."""
    client.send(b"STLS\r\n" + behind)

    assert BEGIN == await client.line()
    with suppress(ssl.SSLError, ConnectionError):  # it is cut off, or what was behind is dropped
        await client.start_tls(context)
        client.send(b"STAT\r\nQUIT\r\n")
        assert LOG_IN_FIRST + b"+OK pop3hub signing off.\r\n" == await client.rest()


async def test_an_injection_behind_stls_is_logged(client, context):
    with capture_logs() as logs:
        client.send(b"STLS\r\nCAPA\r\n")
        await client.line()
        await client.start_tls(context)

    assert [6] == [line["octets"] for line in logs if line["event"] == "stls.injection"]


async def test_what_comes_with_the_end_of_the_handshake_is_answered(client, context):
    """A pipelining client sends its first commands together with Finished; so does this one."""
    await client.say(b"STLS")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    finished = False
    while not finished:
        try:
            tls.do_handshake()
            finished = True
        except ssl.SSLWantReadError:
            client.send(outgoing.read())
            incoming.write(await asyncio.wait_for(client.reader.read(65536), 5))

    async def talk(octets, lines):
        tls.write(octets)
        client.send(outgoing.read())
        received = b""
        while received.count(b"\n") < lines:
            try:
                received += tls.read(65536)
            except ssl.SSLWantReadError:
                incoming.write(await asyncio.wait_for(client.reader.read(65536), 5))
        return received

    first = await talk(b"STAT\r\nNOOP\r\nUSER lu", 2)
    second = await talk(b"ke\r\nPASS hello\r\n", 2)

    assert LOG_IN_FIRST * 2 == first
    assert b"+OK user 'luke' accepted, proceed with PASS\r\n" + WELCOME == second


@pytest.mark.parametrize("way", ["garbage", "close", "reset", "silence", "stop"])
async def test_a_handshake_that_fails_ends_the_session_once(serve, connect, cert, way):
    server = await serve(tls_cert=cert, limits=Limits(handshake=0.05))
    with capture_logs() as logs:
        client = await connect(server)
        await client.say(b"STLS")
        if way == "garbage":
            client.send(b"this is no ClientHello\r\n" * 9)
        elif way == "close":
            client.writer.write_eof()
        elif way == "reset":
            sock = client.writer.get_extra_info("socket")
            sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            await client.close()
        elif way == "stop":
            await server.stop()
        await ended(server)
        await asyncio.sleep(0)

    closed = [line for line in logs if line["event"] == "session.closed"]
    assert (1, 0) == (len(closed), len(server.sessions))


async def test_stopping_does_not_wait_for_a_handshake(serve, connect, cert):
    server = await serve(tls_cert=cert)
    client = await connect(server)
    await client.say(b"STLS")

    async with asyncio.timeout(3):
        await server.stop()


# RFC 8314


@pytest.fixture
async def secure_client(serve, connect, cert, context):
    server = await serve("pop3s://127.0.0.1:0", tls_cert=cert)
    return await connect(server, tls=context)


async def test_pop3s_greets_in_authorization_and_has_no_stls(secure_client):
    """s3.1."""
    assert b"+OK pop3hub at your service, IPv4 127.0.0.1:" == secure_client.greeting[:44]
    secure_client.send(b"CAPA\r\n")

    assert b"STLS" not in await secure_client.many()
    assert LOG_IN_FIRST == await secure_client.say(b"STAT")
    assert b"-ERR TLS is active already\r\n" == await secure_client.say(b"STLS")


async def test_a_large_message_comes_whole_under_tls(secure_client, store):
    store.put(b"x" * 998 + b"\r\n" + b".line\r\n" * 300_000)
    secure_client.send(b"USER luke\r\nPASS hello\r\nRETR 1\r\n")
    await secure_client.lines(3)

    async with asyncio.timeout(20):
        whole = await secure_client.reader.readexactly(1000 + 8 * 300_000 + 3)

    assert b"x" * 998 + b"\r\n" + b"..line\r\n" * 300_000 + b".\r\n" == whole


async def test_quit_is_answered_before_the_connection_is_closed_under_tls(secure_client):
    secure_client.send(b"QUIT\r\n")

    assert b"+OK pop3hub signing off.\r\n" == await secure_client.rest()


async def test_a_session_log_tells_of_tls(secure_client):
    """s3.4 and 4: which version a login came over."""
    with capture_logs() as logs:
        secure_client.send(b"USER luke\r\nPASS hello\r\n")
        await secure_client.lines(2)

    version = secure_client.writer.get_extra_info("ssl_object").version()
    assert [version] == [line["tls"] for line in logs if line["event"] == "session.login"]
