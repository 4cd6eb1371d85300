"""Whatever a client says, in any order and at any split: one answer each, no defect, no growth.

POP3HUB_FUZZ=20 in the environment makes the run twenty times as long.
"""

import asyncio
import base64
import gc
import os
import random
import re
import tracemalloc
import weakref
from contextlib import AsyncExitStack, suppress

import pytest
from hypothesis import HealthCheck, example, given, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from structlog.testing import capture_logs

from pop3hub.hooks.interfaces import State
from pop3hub.i18n.catalogue import Catalogue
from pop3hub.server.server import PopServer
from pop3hub.settings import Limits
from pop3hub.testing.dialogue import Dialogue
from tests.conftest import READ
from tests.support.serving import Client, Store, Wire

MESSAGES = (
    b"Subject: one\n\n.\n..\n.dots\nlast",
    b"",
    "Subject: gr\u00fc\u00df\nFrom: j\u00f6 <j\u00f6@example.com>\n\n\u00fc\n".encode(),
    b"x" * 3000 + b"\r\n.\r\n",
)
LIMITS = Limits(failed_logins_per_user=0, sessions=50)
MULTI = {b"CAPA": 0, b"LANG": 0, b"AUTH": 0, b"LIST": 0, b"UIDL": 0, b"RETR": 1, b"TOP": 2}

VERBS = st.sampled_from(
    [
        *("USER", "PASS", "APOP", "AUTH", "STLS", "UTF8", "STAT", "LIST", "UIDL", "RETR", "TOP"),
        *("DELE", "NOOP", "RSET", "CAPA", "LANG", "LAST", "XTND"),
    ]
)
ARGUMENTS = st.one_of(
    st.integers(-1, 6).map(str),
    st.sampled_from(
        [
            "luke",
            "hello",
            "PLAIN",
            "LOGIN",
            "XOAUTH2",
            "*",
            "=",
            "AAAA",
            "nl",
            "MUL",
            "",
            "99999999999",
        ]
    ),
    st.text(max_size=20),
)
ORDINARY = st.builds(lambda verb, *rest: " ".join((verb, *rest)), VERBS) | st.builds(
    lambda verb, rest: " ".join((verb, *rest)), VERBS, st.lists(ARGUMENTS, max_size=3)
)
PLAIN = "AUTH PLAIN " + base64.b64encode(b"\0luke\0hello").decode()
SENSIBLE = st.sampled_from(
    [
        *(
            "USER luke",
            "PASS hello",
            PLAIN,
            "STAT",
            "LIST",
            "UIDL",
            "RSET",
            "NOOP",
            "CAPA",
            "LANG nl",
        ),
        *("RETR 1", "RETR 2", "RETR 3", "RETR 4", "TOP 1 1", "TOP 4 0", "DELE 1", "DELE 3", "UTF8"),
        *("AUTH PLAIN", "AUTH LOGIN", "*", "bHVrZQ==", "aGVsbG8=", "LANG", "AUTH"),
    ]
)


def bounded(examples):
    """Return settings for so many examples, times what POP3HUB_FUZZ says."""
    return settings(
        max_examples=examples * int(os.environ.get("POP3HUB_FUZZ", "1")),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


def sendable(line):
    octets = line if isinstance(line, bytes) else line.encode("utf-8", "replace")
    return octets.replace(b"\n", b"").removesuffix(b"\r")[:253]


LINES = (SENSIBLE | ORDINARY | st.binary(max_size=60) | st.text(max_size=40)).map(sendable)


@pytest.fixture(scope="module", autouse=True)
def _languages_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Catalogue, "load", lambda _directories=(), *, default: READ(default=default))
        yield


def new_store(*, streamed=False):
    store = Store()
    store.put(*MESSAGES)
    store.chunk = 7 if streamed else None
    return store


def new_server(store, listen=()):
    return PopServer(backend=store, listen=listen, failure_delay=0, bcrypt_cost=4, limits=LIMITS)


def check_reply(line, reply):
    """Fail unless this is one whole reply to the command (RFC 1939 s3)."""
    first, crlf, rest = reply.partition(b"\r\n")
    assert crlf
    assert re.match(rb"\+OK( |$)|-ERR |\+ ", first), first
    assert len(first) <= 510
    assert not re.search(rb"[\x00-\x1f\x7f]", first)
    assert not re.match(rb"\+OK \[|-ERR \[(?!AUTH\]|IN-USE\]|UTF8\]|SYS/(TEMP|PERM)\])", first)
    verb, _, arguments = line.upper().partition(b" ")
    multi = first.startswith(b"+OK") and MULTI.get(verb.strip(), -1) == len(arguments.split())
    if not multi:
        assert b"" == rest
        return
    assert rest.endswith(b".\r\n")
    body = rest.removesuffix(b".\r\n")
    assert not body or body.endswith(b"\r\n")
    assert b"." not in body.split(b"\r\n")


def defects(logs):
    return [
        line for line in logs if line["log_level"] in {"error", "critical"} or "exc_info" in line
    ]


class Sessions(RuleBasedStateMachine):
    """Sessions one after the other on one maildrop, beside a model of what they may see."""

    def __init__(self):
        super().__init__()
        self.stack = AsyncExitStack()
        self.runner = asyncio.Runner()
        self.logs = self.stack.enter_context(capture_logs())
        self.store = new_store(streamed=False)
        self.server = new_server(self.store)
        self.run(self.server.start())
        self.dialogue = None
        self.marks = set()
        self.uids = []
        self.connect()

    def run(self, coroutine):
        return self.runner.run(asyncio.wait_for(coroutine, 10))

    def connect(self):
        self.dialogue = Dialogue(self.server)
        self.run(self.dialogue.__aenter__())
        self.marks = set()

    def say(self, line):
        note(line)
        asked = self.dialogue.session.wants_response
        before = self.dialogue.session.state
        reply = self.run(self.dialogue.say(line))
        check_reply(b"" if asked else line, reply)
        if before is not State.TRANSACTION and self.in_transaction:
            self.uids = list(self.store.mail["luke"])
        return reply

    @property
    def in_transaction(self):
        return self.dialogue.session.state is State.TRANSACTION

    @rule(line=LINES.filter(lambda line: line.strip().upper() != b"QUIT"))
    def command(self, line):
        before = self.in_transaction
        reply = self.say(line)
        if before and reply.startswith(b"+OK"):
            verb, *arguments = line.split()
            if verb.upper() == b"DELE":
                self.marks.add(int(arguments[0]))
            elif verb.upper() == b"RSET":
                self.marks.clear()
        if self.dialogue.closed:
            self.connect()

    @precondition(lambda self: not self.in_transaction)
    @rule()
    def log_in(self):
        if self.dialogue.session.wants_response:
            self.say(b"*")
        if not self.dialogue.closed:
            self.say(b"USER luke")
            assert b"+OK" == self.say(b"PASS hello")[:3]
        if self.dialogue.closed:
            self.connect()

    @rule()
    def hang_up(self):
        before = dict(self.store.mail["luke"])
        self.run(self.dialogue.hang_up())
        assert before == self.store.mail["luke"]
        self.connect()

    @precondition(lambda self: self.in_transaction)
    @rule()
    def quit(self):
        expected = [uid for n, uid in enumerate(self.uids, 1) if n not in self.marks]
        assert b"+OK" == self.say(b"QUIT")[:3]
        assert expected == list(self.store.mail["luke"])
        if not expected:
            self.store.put(*MESSAGES)
        self.connect()

    @precondition(lambda self: self.in_transaction)
    @rule()
    def figures_are_those_of_the_model(self):
        left = [(n, uid) for n, uid in enumerate(self.uids, 1) if n not in self.marks]
        lines = self.say(b"UIDL").split(b"\r\n")[1:-2]
        assert [f"{n} {uid}".encode() for n, uid in left] == lines
        sizes = [line.split() for line in self.say(b"LIST").split(b"\r\n")[1:-2]]
        assert [str(n).encode() for n, _ in left] == [n for n, _ in sizes]
        octets = sum(int(size) for _, size in sizes)
        assert b"+OK %d %d\r\n" % (len(left), octets) == self.say(b"STAT")

    @invariant()
    def nothing_is_left_unsaid_and_no_defect_was_logged(self):
        if self.dialogue is not None:
            assert [] == self.dialogue._out
        assert [] == defects(self.logs)

    def teardown(self):
        self.run(self.dialogue.hang_up())
        self.run(self.server.stop())
        self.run(self.stack.aclose())
        self.runner.close()


TestSessions = Sessions.TestCase
TestSessions.settings = settings(bounded(60), stateful_step_count=40)


async def said_line_by_line(lines, *, streamed):
    said = []
    async with (
        new_server(new_store(streamed=streamed)) as server,
        Dialogue(server) as dialogue,
    ):
        said.append(dialogue.greeting)
        for line in lines:
            if dialogue.session.state is State.CLOSED:
                break
            said.append(await dialogue.say(line))
    return b"".join(said)


async def said_at_once(octets, cuts, *, streamed):
    places = sorted({cut % (len(octets) + 1) for cut in cuts})
    async with new_server(new_store(streamed=streamed)) as server:
        wire = Wire(server)
        for start, end in zip([0, *places], [*places, len(octets)], strict=True):
            wire.feed(octets[start:end])
            await asyncio.sleep(0)
        said = await wire.settle()
        wire.hang_up()
        await server.state.wait_until_empty()
    return said


@given(
    st.lists(LINES, max_size=25),
    st.lists(st.integers(0, 2000), max_size=30),
    st.booleans(),
    st.sampled_from([b"\r\n", b"\n"]),
)
@example([b"\r"], [], False, b"\n")
@bounded(60)
def test_a_session_is_answered_alike_at_every_split_of_its_input(lines, cuts, streamed, end):
    """Through a real Connection; pipelined, or an octet at a time."""
    lines = [line.rstrip(b"\r") for line in lines]  # a CR before a bare LF is of the line end
    lines = [b"USER luke", b"PASS hello", *lines] if streamed else lines
    octets = b"".join(line + end for line in lines)
    with capture_logs() as logs:
        expected = asyncio.run(said_line_by_line(lines, streamed=streamed))
        assert expected == asyncio.run(said_at_once(octets, cuts, streamed=streamed))
    assert [] == defects(logs)


@given(st.lists(st.binary(min_size=1, max_size=3000), max_size=8), st.booleans())
@bounded(40)
def test_random_octets_over_a_socket_are_answered_or_refused(segments, logged_in):
    async def talk():
        async with new_server(new_store(), listen="pop3://127.0.0.1:0") as server:
            client = await Client.connect(server.addresses[0])
            if logged_in:
                client.send(b"USER luke\r\nPASS hello\r\n")
            for segment in segments:
                client.send(segment)
                await asyncio.sleep(0)
            with suppress(OSError):
                client.writer.write_eof()
            said = await client.rest()
            async with asyncio.timeout(10):
                await server.state.wait_until_empty()
            await client.close()
            return said

    with capture_logs() as logs:
        said = asyncio.run(talk())

    assert [] == defects(logs)
    # A server that closes while octets are on their way resets the connection; nothing may come.
    assert not said or re.match(rb"\+OK [ -~]*\r\n(.*\r\n)*\Z", said)


async def test_sessions_that_have_ended_leave_nothing(serve):
    """No growth: neither sessions nor octets stay, whatever was said and however it ended."""
    server = await serve(listen=(), limits=LIMITS)
    chance = random.Random(7)  # noqa: S311 - a test that runs alike each time
    words = [
        b"USER luke",
        b"PASS hello",
        b"CAPA",
        b"RETR 1",
        b"AUTH PLAIN",
        b"x" * 400,
        b"\0",
        b"STAT",
    ]
    sessions = []

    async def one():
        wire = Wire(server)
        sessions.append(weakref.ref(wire.connection.session))
        wire.feed(b"\r\n".join(chance.choices(words, k=12)) + b"\r\n")
        if chance.random() < 0.5:
            await wire.settle()
        wire.hang_up()
        await server.state.wait_until_empty()

    for _ in range(50):
        await one()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(300):
            await one()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

    assert [] == [session() for session in sessions if session() is not None]
    assert grown < 100_000
    assert set() == server.state._tasks
