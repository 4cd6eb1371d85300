"""Snapshots: what a backend returns unchanged is checked once and put together once."""

from __future__ import annotations

import pytest

from pop3hub import PopMessage, PopUser, Snapshot, hookimpl
from pop3hub.maildrop import PAGE
from pop3hub.testing.dialogue import Dialogue


class Keeps:
    """A backend that returns the same snapshot until something is deleted."""

    def __init__(self, count, ascii_size=9):
        self.snapshot = Snapshot(
            PopMessage(f"u{n}", 9, b"A: b\r\n\r\n\r\n", ascii_size=ascii_size) for n in range(count)
        )

    @hookimpl
    def get_user(self, name):
        return PopUser(name, "hello")

    @hookimpl
    def compare_password(self, raw, hash):
        return raw == hash

    @hookimpl
    def receive_messages(self):
        return self.snapshot

    @hookimpl
    def delete_messages(self, messages):
        self.snapshot = Snapshot(each for each in self.snapshot if each not in messages)
        return len(messages)


async def said(backend, *lines):
    async with Dialogue(backend) as dialogue:
        await dialogue.login("luke", "hello")
        return [await dialogue.say(line) for line in lines]


@pytest.mark.parametrize("count", [0, 3, PAGE + 3])
@pytest.mark.parametrize("command", ["UIDL", "LIST"])
async def test_a_kept_listing_is_the_one_that_was_made(count, command):
    backend = Keeps(count)

    first, again = await said(backend, command, command)
    (other_session,) = await said(backend, command)

    assert count + 2 == first.count(b"\r\n")
    assert first == again == other_session
    assert backend.snapshot.listing.answers


async def test_a_snapshot_is_checked_once():
    backend = Keeps(3)

    await said(backend, "STAT")
    listing = backend.snapshot.listing
    await said(backend, "STAT")

    assert listing is backend.snapshot.listing


async def test_marks_of_one_session_are_not_seen_by_another_or_in_what_is_kept():
    backend = Keeps(2)

    async with Dialogue(backend) as dialogue:
        await dialogue.login("luke", "hello")
        await dialogue.say("DELE 1")
        marked = await dialogue.say("UIDL")
        await dialogue.hang_up()
    (whole,) = await said(backend, "UIDL")

    assert b"2 u1\r\n.\r\n" == marked.partition(b"\r\n")[2]
    assert b"1 u0\r\n2 u1\r\n.\r\n" == whole.partition(b"\r\n")[2]


async def test_rset_brings_the_kept_listing_back():
    whole, _, marked, _, again = await said(Keeps(2), "UIDL", "DELE 2", "UIDL", "RSET", "UIDL")

    assert whole == again != marked


async def test_a_new_snapshot_is_listed_anew():
    backend = Keeps(2)

    await said(backend, "UIDL", "LIST", "DELE 1", "QUIT")
    uidl, count = await said(backend, "UIDL", "STAT")

    assert b"1 u1\r\n.\r\n" == uidl.partition(b"\r\n")[2]
    assert b"+OK 1 9\r\n" == count


async def test_sizes_of_surrogates_are_never_those_that_are_kept():
    backend = Keeps(1)
    await said(backend, "LIST")
    backend.snapshot.listing.surrogates[1] = 5

    utf8, downgraded = (await said(backend, "UTF8", "LIST"))[1], (await said(backend, "LIST"))[0]

    assert b"1 14\r\n.\r\n" == downgraded.partition(b"\r\n")[2]
    assert utf8 != b""


async def test_no_more_sizes_are_remembered_than_there_is_room_for():
    async with Dialogue(Keeps(1)) as dialogue:
        context = dialogue.session.context
        context.remembered_sizes = 2
        for number in (1, 2, 3):
            context.remember_size("luke", f"uid-{number}", number)

        assert {("luke", "uid-2"): 2, ("luke", "uid-3"): 3} == context.measured


async def test_what_one_session_found_out_of_a_message_the_next_one_knows():
    backend = Keeps(2, ascii_size=None)

    (first,) = await said(backend, "LIST")
    backend.snapshot[0].ascii_size = 14
    (later,) = await said(backend, "LIST")

    assert b"1 9\r\n2 9\r\n.\r\n" == first.partition(b"\r\n")[2]
    assert b"1 14\r\n2 9\r\n.\r\n" == later.partition(b"\r\n")[2]
