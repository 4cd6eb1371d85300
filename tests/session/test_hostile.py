"""Clients that mean harm, or have lost their way: each limit of `settings.Limits` by its name.

Lockouts are in test_abuse.py, the PROXY header's time in test_accepting.py.
"""

import asyncio
import base64
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pop3hub.maildrop import PAGE
from pop3hub.settings import Limits
from tests.support.serving import TIMEOUT, Wire

TOO_LONG = b"-ERR line too long\r\n"
UNKNOWN = b"-ERR unknown command\r\n"
LOG_IN_FIRST = b"-ERR log in first\r\n"
WRONG = b"-ERR [AUTH] wrong user name or password\r\n"
LOGIN = b"USER luke\r\nPASS hello\r\n"
LOGGED_IN = b"+OK user 'luke' accepted, proceed with PASS\r\n+OK pass accepted, welcome 'luke'.\r\n"


@pytest.fixture
def wire(serve):
    """Return a function that connects without a socket, and has read the greeting."""

    async def wire(peer="127.0.0.1", *, reads=True, server=None, **limits):
        server = server or await serve(listen=(), limits=replace(Limits(), **limits))
        made = Wire(server, peer, reads=reads)
        made.greeting = await made.settle() if reads else b""
        return made

    return wire


@pytest.mark.parametrize("limit", [field.name for field in fields(Limits)])
def test_each_limit_has_a_test_that_names_it(limit):
    files = ("session/test_hostile.py", "auth/test_throttle.py", "server/test_proxied.py")
    rfcs = ("session/test_rfc2595.py", "session/test_rfc3206.py")

    texts = [(Path(__file__).parents[1] / name).read_text() for name in (*files, *rfcs)]

    assert [text for text in texts if re.search(rf"\b{limit}\b *[=:]|limits\.{limit}\b", text)]


# Lines (RFC 2449 s4)


async def test_a_command_of_255_octets_is_taken_and_one_of_256_is_not(wire):
    client = await wire()

    client.feed(b"USER " + b"a" * 248 + b"\r\n")
    assert b"+OK user '" == (await client.settle())[:10]
    client.feed(b"USER " + b"a" * 249 + b"\r\n")
    assert TOO_LONG == await client.settle()


@pytest.mark.parametrize("size", [256, 257, 1000, 65_000])
@pytest.mark.parametrize("piece", [1, 255, 256, 100_000])
async def test_a_line_too_long_is_one_error_and_what_follows_is_in_step(wire, size, piece):
    client = await wire()
    octets = b"x" * (size - 2) + b"\r\nSTAT\r\nFOO\r\n"

    for start in range(0, len(octets), piece):
        client.feed(octets[start : start + piece])

    assert TOO_LONG + LOG_IN_FIRST + UNKNOWN == await client.settle()


async def test_a_line_that_never_ends_is_refused_and_the_connection_closed(wire):
    client = await wire(swallowed_line=10_000)
    most = 0

    for _ in range(1000):
        client.feed(b"x" * 1000)
        most = max(most, len(client.connection.framer))

    assert TOO_LONG == await client.settle()
    assert client.is_closing()
    assert most <= 1000 + 255


async def test_an_auth_line_has_a_limit_of_its_own(wire):
    client = await wire(auth_line=1000)
    fits = b"AUTH PLAIN " + b"A" * (1000 - 13) + b"\r\n"

    client.feed(fits)
    assert TOO_LONG != await client.settle()
    client.feed(fits.replace(b" A", b" AA"))
    assert TOO_LONG == await client.settle()
    client.feed(b"USER " + b"a" * 900 + b"\r\nSTAT\r\n")
    assert TOO_LONG + LOG_IN_FIRST == await client.settle()


async def test_a_response_has_a_limit_and_the_session_goes_on(wire):
    client = await wire(sasl_response=1000, swallowed_line=5000)
    client.feed(b"AUTH PLAIN\r\n")
    assert b"+ \r\n" == await client.settle()

    client.feed(b"A" * 999 + b"\r\nSTAT\r\n")

    assert TOO_LONG + LOG_IN_FIRST == await client.settle()


async def test_a_response_that_never_ends_closes_the_connection(wire):
    client = await wire(sasl_response=1000, swallowed_line=5000)
    client.feed(b"AUTH PLAIN\r\n")
    await client.settle()

    for _ in range(100):
        client.feed(b"A" * 100)

    assert TOO_LONG == await client.settle()
    assert client.is_closing()


@pytest.mark.parametrize(
    "octets", [b"\0", b"\0" * 100, b"\xff\xfe", b"\x1b]0;x\x07", b"\r", b"a\rb"]
)
async def test_octets_that_are_no_command_are_one_error(wire, octets):
    client = await wire()

    client.feed(octets + b"\r\n")

    assert 1 == (await client.settle()).count(b"-ERR")


async def test_http_on_this_port_is_refused_and_closed(wire):
    """A browser that was led here: nothing it sends may run for long."""
    client = await wire(bad_commands=5)

    client.feed(b"POST / HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n" + b"DELE 1\r\n" * 10)

    expected = UNKNOWN * 4 + b"-ERR too many bad commands\r\n"
    assert expected == await client.settle()
    assert client.is_closing()


# Commands and logins


async def test_bad_commands_in_a_row_close_the_connection(wire):
    client = await wire(bad_commands=3)

    client.feed(b"FOO\r\nFOO\r\nCAPA\r\nFOO\r\nSTAT\r\n\r\nCAPA\r\n")
    said = await client.settle()

    assert said.startswith(UNKNOWN * 2 + b"+OK")
    assert said.endswith(b".\r\n" + UNKNOWN + LOG_IN_FIRST + b"-ERR too many bad commands\r\n")
    assert client.is_closing()


async def test_one_bad_command_does_not_close_the_connection(wire):
    """Others close at the first one, and clients that probe can't log in there."""
    client = await wire()

    client.feed(b"XTND XLST\r\nAUTH\r\nLAST\r\n" + LOGIN)

    assert (await client.settle()).endswith(LOGGED_IN)


async def test_failed_logins_close_the_connection(wire):
    client = await wire(failed_logins=3)
    plain = b"AUTH PLAIN " + base64.b64encode(b"\0luke\0wrong") + b"\r\n"

    client.feed(b"USER luke\r\nPASS x\r\nCAPA\r\n" + plain + b"USER luke\r\nPASS y\r\n" + LOGIN)
    said = await client.settle()

    assert 2 == said.count(WRONG)
    assert said.endswith(b"\r\n-ERR [AUTH] too many failed logins\r\n")
    assert client.is_closing()


async def test_the_delay_of_a_failed_login_blocks_nobody_else(serve, wire, connect):
    server = await serve(failure_delay=3600)
    slow = await wire(server=server)
    slow.feed(b"USER luke\r\nPASS wrong\r\nNOOP\r\n")
    other = await connect(server)

    other.send(LOGIN)

    assert LOGGED_IN.splitlines(keepends=True) == await other.lines(2)
    assert b"+OK user 'luke' accepted, proceed with PASS\r\n" == bytes(slow.written)


async def test_a_client_that_leaves_during_the_delay_is_forgotten_at_once(serve, wire):
    server = await serve(listen=(), failure_delay=3600)
    client = await wire(server=server)
    client.feed(b"USER luke\r\nPASS wrong\r\n")
    await asyncio.sleep(0)

    client.hang_up()

    await ended(client)


# Time (RFC 1939 s3)


async def ended(client):
    """Wait until a session is over, with all that it held."""
    state = client.connection.state
    async with asyncio.timeout(5):
        while client.connection in state.connections:
            await state.wait_for_change()


def look(client, seconds):
    """Let the server look at a connection now, and as if so many seconds had gone by."""
    now = client.connection.state.loop.time()
    client.connection.check_timeouts(now)
    client.connection.check_timeouts(now + seconds)


async def test_silence_ends_a_session_without_a_word_and_without_update(wire, store):
    """s3: no response, nothing is removed; others say -ERR, or do so after a minute."""
    store.put(b"a\n")
    client = await wire(idle=600, login=9e9)
    client.feed(LOGIN + b"DELE 1\r\n")
    await client.settle()

    look(client, 590)
    assert not client.is_closing()
    look(client, 601)

    assert client.is_closing()
    assert b"" == await client.settle()
    assert {"uid-1": b"a\n"} == store.mail["luke"]
    assert "delete_messages" not in store.calls


async def test_silence_before_the_login_ends_a_session_too(wire):
    client = await wire(idle=600, login=9e9)

    look(client, 601)

    assert client.is_closing()
    assert b"" == await client.settle()


async def test_any_command_begins_the_silence_anew(wire):
    client = await wire(idle=600)
    look(client, 0)
    client.connection.last_activity -= 599

    client.feed(b"NOOP\r\n")
    look(client, 599)

    assert not client.is_closing()


def test_the_default_silence_is_the_shortest_that_the_rfc_allows():
    assert Limits().idle >= 600


async def test_a_session_that_never_logs_in_has_a_time_of_its_own(wire):
    """However much it says meanwhile."""
    client = await wire(login=60)
    client.connection.opened -= 59
    client.feed(b"CAPA\r\n")
    await client.settle()
    look(client, 0)
    assert not client.is_closing()

    client.feed(b"CAPA\r\n")
    await client.settle()
    look(client, 2)

    assert client.is_closing()


async def test_the_time_to_log_in_is_none_of_a_session_that_did(wire):
    client = await wire(login=60)
    client.feed(LOGIN)
    await client.settle()

    look(client, 599)

    assert not client.is_closing()


async def test_silence_in_an_exchange_ends_the_session(wire):
    client = await wire(idle=600, login=9e9)
    client.feed(b"AUTH PLAIN\r\n")
    assert b"+ \r\n" == await client.settle()

    look(client, 601)

    assert client.is_closing()


async def test_a_silent_maildrop_is_free_again(serve, wire):
    server = await serve(listen=())
    first, second = await wire(server=server), await wire(server=server)
    first.feed(LOGIN)
    await first.settle()
    look(first, 601)
    await ended(first)

    second.feed(LOGIN)

    assert LOGGED_IN == await second.settle()


# Output that is not read


async def test_unread_output_is_bounded_however_much_is_asked_for(wire, store):
    store.put(b"x" * 50_000)
    client = await wire(reads=False, write_buffer=100_000)

    client.feed(LOGIN + b"RETR 1\r\n" * 2000)
    await client.settled()

    assert client.paused
    assert client.most <= 100_000 + 2 * 64 * 1024
    assert len(client.connection.framer) <= 2000 * 8


@pytest.mark.parametrize("wanted", [b"LIST\r\n", b"UIDL\r\n", b"CAPA\r\n", b"LANG\r\n"])
async def test_unread_listings_are_bounded_too(wire, store, wanted):
    store.put(*[b"a\n"] * 12_000)
    client = await wire(reads=False, write_buffer=10_000)

    client.feed(LOGIN + wanted * 200)
    await client.settled()

    assert client.paused
    assert client.most <= 10_000 + 2 * 5000 * 16


async def test_a_streamed_message_waits_for_its_reader(wire, store):
    store.chunk = 10_000
    store.put(b"x" * 9_999_998)
    client = await wire(reads=False, write_buffer=100_000)
    client.feed(b"UTF8\r\n" + LOGIN + b"RETR 1\r\n")

    received = bytearray()
    while not received.endswith(b"\r\n.\r\n"):
        await client.settled()
        received += client.take()

    assert received.endswith(b"+OK 10000000 octets\r\n" + b"x" * 9_999_998 + b"\r\n.\r\n")
    assert client.most <= 100_000 + 64 * 1024 + 10_000


async def test_a_reader_without_progress_is_cut(wire, store):
    store.put(b"x" * 500_000)
    client = await wire(reads=False, write_buffer=100_000, stall=300)
    client.feed(LOGIN + b"RETR 1\r\n")
    await client.settled()

    look(client, 299)
    assert not client.is_closing()
    look(client, 301)

    assert client.is_closing()


async def test_a_slow_reader_is_not_cut(wire, store):
    """The time of silence does not count while a long message is being read."""
    store.put(b"x" * 500_000)
    client = await wire(reads=False, write_buffer=100_000, stall=300, idle=600)
    client.feed(LOGIN + b"RETR 1\r\n")
    await client.settled()

    now = client.connection.state.loop.time()
    for seconds in range(200, 2000, 200):
        del client.written[:1000]
        client.connection.check_timeouts(now + seconds)

    assert not client.is_closing()


async def test_a_goodbye_that_nobody_reads_keeps_no_session(wire, store):
    store.put(b"x" * 50_000)
    client = await wire(reads=False, stall=300)
    client.feed(LOGIN + b"RETR 1\r\nQUIT\r\n")
    await client.settled()

    look(client, 301)

    await ended(client)


async def test_a_stop_waits_for_no_client_that_reads_nothing(wire, store):
    store.put(b"x" * 50_000)
    for commands in (b"RETR 1\r\n", b"RETR 1\r\nQUIT\r\n", b"RETR 1\r\n" * 100):
        client = await wire(reads=False)
        client.feed(LOGIN + commands)
        await client.settled()

        async with asyncio.timeout(5):
            await client.server.stop()


async def test_input_is_not_read_while_an_answer_is_owed(wire, store):
    """Bounded the other way round: a client that sends and sends."""
    store.put(b"x" * 500_000)
    client = await wire(reads=False, write_buffer=1000)
    client.feed(LOGIN + b"RETR 1\r\n")
    await client.settled()

    for _ in range(100):
        client.feed(b"NOOP\r\n" * 1000)

    assert client.paused
    assert len(client.connection.framer) <= 6000


# How many


async def test_sessions_beyond_the_limit_are_refused_with_a_reason(serve, wire, connect):
    server = await serve(limits=Limits(sessions=2))
    first, second = await connect(server), await connect(server)
    with capture_logs() as logs:
        third = await connect(server)

    assert b"-ERR [SYS/TEMP] too many connections, try again later\r\n" == third.greeting
    assert b"" == await third.rest()
    assert ["connection.refused"] == [line["event"] for line in logs]
    await first.say(b"QUIT")
    await first.rest()
    fourth = await connect(server)
    assert b"+OK" == fourth.greeting[:3]
    assert LOG_IN_FIRST == await second.say(b"STAT")


@pytest.mark.parametrize(
    ("peers", "greeted"),
    [
        (["192.0.2.7", "192.0.2.7", "192.0.2.7", "192.0.2.8"], [True, True, False, True]),
        (
            ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1"],
            [True, True, False, True],
        ),
        (["127.0.0.1"] * 4, [True] * 4),
        (["::1"] * 4, [True] * 4),
    ],
)
async def test_sessions_of_one_address_are_limited(serve, wire, peers, greeted):
    """IPv6 by its /64, which one customer has; loopback is exempt."""
    server = await serve(listen=(), limits=Limits(sessions_per_address=2))

    clients = [await wire(peer, server=server) for peer in peers]

    assert greeted == [client.greeting.startswith(b"+OK") for client in clients]
    refused = b"-ERR [SYS/TEMP] too many connections from your address, try again later\r\n"
    assert {refused} >= {client.greeting for client in clients if client.is_closing()}


async def test_a_session_that_ended_makes_room_for_one_of_its_address(serve, wire):
    server = await serve(listen=(), limits=Limits(sessions_per_address=1))
    first = await wire("192.0.2.7", server=server)
    first.feed(b"QUIT\r\n")
    await first.settle()
    await ended(first)

    second = await wire("192.0.2.7", server=server)

    assert b"+OK" == second.greeting[:3]


async def test_a_refused_connection_is_heard_no_more(serve, wire):
    server = await serve(listen=(), limits=Limits(sessions=1))
    await wire(server=server)
    refused = await wire(server=server)

    refused.connection.data_received(b"CAPA\r\n")

    assert b"" == await refused.settle()


# Turns


@pytest.mark.parametrize("wire_ready", [True, False])
async def test_others_get_their_turn_while_a_fast_reader_is_sent_a_message(
    wire, store, serve, wire_ready
):
    """Neither the store nor the client makes the sender wait."""
    store.chunk = 64 * 1024
    store.put(b"a\r\n" * 1_000_000)
    reader, other = await pair_of(wire, serve)
    reader.connection.session.maildrop[1].wire_ready = wire_ready

    await check_turns(reader, other, b"RETR 1\r\n")


@pytest.mark.parametrize("wanted", [b"LIST\r\n", b"UIDL\r\n"])
async def test_others_get_their_turn_while_a_fast_reader_is_sent_a_long_listing(
    wire, store, serve, wanted
):
    store.put(*[b"a\n"] * (3 * PAGE))
    reader, other = await pair_of(wire, serve)

    await check_turns(reader, other, wanted)


async def pair_of(wire, serve):
    """Log luke in, and return his wire and another's, who has only been greeted."""
    server = await serve(listen=(), internationalized="raw")
    reader, other = await wire(server=server), await wire(server=server)
    reader.feed(LOGIN)
    assert LOGGED_IN == await reader.settle()
    return reader, other


async def check_turns(reader, other, wanted):
    """Another session is answered before an answer that takes long is whole."""
    reader.feed(wanted)
    async with asyncio.timeout(TIMEOUT):
        while not reader.written:  # noqa: ASYNC110 - it has no event for that
            await asyncio.sleep(0)
    other.feed(b"CAPA\r\n")

    assert (await other.settle()).startswith(b"+OK")
    assert not reader.written.endswith(b"\r\n.\r\n")
    assert (await reader.settle()).endswith(b"\r\n.\r\n")
