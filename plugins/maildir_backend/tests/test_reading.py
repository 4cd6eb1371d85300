"""Message files are read whole, without waiting for a disk, and nothing stays open."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from pathlib import Path

import pytest

from pop3hub import WireForm
from pop3hub.protocol.message import MessageEncoder
from pop3hub.testing import Dialogue


async def ask(server, *lines) -> list[bytes]:
    """Log in, say the lines, and return the answers."""
    async with Dialogue(server) as dialogue:
        assert (await dialogue.login("luke", "hello")).startswith(b"+OK")
        return [await dialogue.say(line) for line in lines]


async def uidl(server) -> list[str]:
    reply = (await ask(server, "UIDL"))[0]
    return [line.split(" ")[1] for line in reply.decode().splitlines()[1:-1]]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_the_wire_form_foretells_what_the_encoder_sends(size):
    """All messages of up to six octets of these kinds, in chunks of every small size."""
    for length in range(7):
        for octets in itertools.product(b"\r\n.a", repeat=length):
            contents = bytes(octets)
            form, encoder = WireForm(), MessageEncoder()
            chunks = [contents[at : at + size] for at in range(0, length, size)]
            for chunk in chunks:
                form.feed(chunk)
            form.end()
            sent = b"".join([encoder.feed(chunk) for chunk in chunks]) + encoder.end()

            assert encoder.octets == form.octets, contents
            assert (sent == contents + b".\r\n") is (form.wire_ready and not form.changed), contents


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_nothing_is_left_open(mailbox):
    async def within():
        async with mailbox.serve() as server:
            mailbox.put("1.M1P1.host", b"x" * 2_000_000)
            mailbox.put("2.M1P1.host", b"x" * 2_000)
            before = open_files()
            await ask(server, "RETR 1", "RETR 2", "TOP 1 0", "DELE 2")
            for _ in range(3):
                async with Dialogue(server) as dialogue:
                    await dialogue.login("luke", "hello")
                    stream = await server.plugins.load_contents(
                        dialogue.session.maildrop[1], dialogue.session
                    )
                    await anext(stream)
                    await stream.aclose()
            del stream
            assert before == open_files()
        assert not [t for t in threading.enumerate() if t.name.startswith("pop3hub-maildir")]

    asyncio.run(within())


@pytest.mark.parametrize("nowait", [None, os.RWF_NOWAIT])
@pytest.mark.parametrize("octets", [0, 1, 65_536, 65_537, 262_144, 262_145, 600_000])
async def test_contents_are_whole_whatever_the_system_can_do(server, mailbox, octets, nowait):
    backend = server.plugins.backend.instance
    backend._reader._nowait = nowait
    contents = (b"0123456789abcd\r\n" * (octets // 16 + 1))[:octets]
    mailbox.put("1.M1P1.host", contents)

    for _ in range(2):
        (reply,) = await ask(server, "RETR 1")
        sent = reply.partition(b"\r\n")[2]
        assert contents == sent[: len(contents)]
        assert sent[len(contents) :] in {b".\r\n", b"\r\n.\r\n", b"\n.\r\n"}


async def test_what_is_not_in_memory_is_read_in_a_thread(server, mailbox, monkeypatch):
    def not_cached(*_):
        raise BlockingIOError

    monkeypatch.setattr("pop3hub_maildir.reading.os.preadv", not_cached)
    contents = b"0123456789abcd\r\n" * 40_000
    mailbox.put("1.M1P1.host", contents)

    (reply,) = await ask(server, "RETR 1")

    assert contents + b".\r\n" == reply.partition(b"\r\n")[2]


async def test_what_is_found_out_by_the_first_listing_is_remembered(server, mailbox):
    mailbox.put("1.M1P1.host,W=14", b"Subject: x\r\n\r\n")
    mailbox.put("2.M1P1.host,W=17", b"Subject: x\n\n.")
    mailbox.put("3.M1P1.host,W=600000", b"0123456789abcd\r\n" * 37_500)
    await ask(server, "QUIT")
    mailbox.settle()

    async with mailbox.serve() as another, Dialogue(another) as dialogue:
        await dialogue.login("luke", "hello")
        maildrop = dialogue.session.maildrop

        assert [True, False, True] == [maildrop[n].wire_ready for n in (1, 2, 3)]
        assert [14, 17, 600_000] == [maildrop[n].ascii_size for n in (1, 2, 3)]
