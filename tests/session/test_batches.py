"""Replies to commands that came together: as few writes as can be, and none held back."""

import asyncio
from urllib.parse import urlsplit

import pytest

from pop3hub import PermanentFailure, PopMessage, PopServer, PopUser, hookimpl
from pop3hub.server import connection
from pop3hub.testing.dialogue import Dialogue

MAIL = b"A: b\r\n\r\nc\r\n"
ANSWER = b"+OK 11 octets\r\n" + MAIL + b".\r\n"


class Awaited:
    """A store whose messages are awaited; `gate` is what they wait for."""

    def __init__(self):
        self.gate = asyncio.Event()

    @hookimpl
    def get_user(self, name):
        return PopUser(name, "hello")

    @hookimpl
    def compare_password(self, raw, hash):
        return raw == hash

    @hookimpl
    def receive_messages(self):
        return [PopMessage("one", len(MAIL), wire_ready=True, ascii_size=len(MAIL))]

    @hookimpl
    async def load_contents(self, message):
        await self.gate.wait()
        return MAIL

    @hookimpl
    def delete_messages(self, messages):
        return len(messages)


@pytest.fixture
async def store():
    return Awaited()


@pytest.fixture
async def wire(store):
    async with PopServer(backend=store, listen="pop3://127.0.0.1:0") as server:
        port = urlsplit(server.addresses[0]).port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"USER luke\r\nPASS hello\r\nNOOP\r\n")
        for _ in range(4):
            await reader.readline()
        yield reader, writer
        writer.close()


async def test_what_is_answered_is_not_held_back_by_a_command_that_waits(store, wire):
    reader, writer = wire

    writer.write(b"STAT\r\nRETR 1\r\n")

    assert b"+OK 1 11\r\n" == await asyncio.wait_for(reader.readline(), 5)
    store.gate.set()
    assert ANSWER == await asyncio.wait_for(reader.readexactly(len(ANSWER)), 5)


async def test_commands_that_are_done_at_once_share_a_write(store, wire, monkeypatch):
    reader, writer = wire
    store.gate.set()
    flushed = []
    flush = connection.Connection._flush

    def counted(self):
        if self._out:
            flushed.append(b"".join(self._out))
        flush(self)

    monkeypatch.setattr(connection.Connection, "_flush", counted)

    writer.write(b"RETR 1\r\n" * 20)

    assert ANSWER * 20 == await asyncio.wait_for(reader.readexactly(len(ANSWER) * 20), 5)
    assert [ANSWER * 20] == flushed


class Plain(Awaited):
    """A store whose `load_contents` is plain code that returns, or raises, what a test says."""

    def __init__(self, *answers):
        super().__init__()
        self.answers = list(answers)

    @hookimpl
    def load_contents(self, message):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer()


async def later():
    return MAIL


async def several():
    yield MAIL[:3]
    yield MAIL[3:]


@pytest.mark.parametrize(
    "answers",
    [[lambda: MAIL], [later], [several]],
    ids=["octets", "a coroutine", "chunks"],
)
async def test_plain_code_may_return_octets_or_what_is_awaited_for_them(answers):
    async with Dialogue(Plain(*answers)) as dialogue:
        await dialogue.login("luke", "hello")

        assert ANSWER == await dialogue.say("RETR 1")


async def test_an_error_of_plain_code_is_told_once():
    async with Dialogue(Plain(PermanentFailure())) as dialogue:
        await dialogue.login("luke", "hello")

        assert (await dialogue.say("RETR 1")).startswith(b"-ERR [SYS/PERM]")
        assert (await dialogue.say("STAT")).startswith(b"+OK")


async def test_contents_that_are_had_at_once_are_counted_as_a_call():
    async with Dialogue(Plain(lambda: MAIL, lambda: MAIL)) as dialogue:
        await dialogue.login("luke", "hello")
        calls = dialogue.server.plugins.calls["load_contents", "Plain"]
        for number in (1, 2):
            await dialogue.say("RETR 1")

            assert (number, number, 0) == (calls.number, sum(calls.spans), calls.failures)
    assert calls.seconds > 0
