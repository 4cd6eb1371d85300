"""The suite that every backend passes: subclass `BackendContract` and give it your backend.

    class TestMyBackend(BackendContract):
        @pytest.fixture
        def backend(self):
            return MyBackend()

Real sessions on a real server that listens nowhere; pytest is all it needs. What a backend leaves
to pop3hub is tested too, as it works together with the backend. Tests of hooks that a backend
doesn't implement are skipped by name.
"""
# ruff: noqa: S101, PLR2004, SIM300, D102 - a suite: it asserts, and names say what

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from pop3hub.testing.contract_base import conversation
from pop3hub.testing.contract_store import StoreContract
from pop3hub.testing.dialogue import Dialogue
from pop3hub.testing.messages import HARD, SHORT, body, listing, on_the_wire

if TYPE_CHECKING:
    from pop3hub.server.server import PopServer

AT_ONCE = 40
"""Sessions that are open at once: more than a pool of connections has."""
PATIENCE = 5.0
"""Seconds that a login may take meanwhile."""


class BackendContract(StoreContract):
    """What pop3hub asks of a backend; `ContractBase` says what a suite gives and may override."""

    # Users

    @conversation
    async def test_the_right_password_logs_in(self, server: PopServer) -> None:
        async with Dialogue(server) as dialogue:
            assert (await dialogue.login("luke", "hello")).startswith(b"+OK")
            assert b"+OK 0 0\r\n" == await dialogue.say("STAT")

    @conversation
    async def test_unknown_users_and_wrong_passwords_are_told_the_same(
        self, server: PopServer
    ) -> None:
        async with Dialogue(server) as dialogue:
            unknown = await dialogue.login("nobody", "hello")
            wrong = await dialogue.login("luke", "Hello")

        assert unknown.startswith(b"-ERR [AUTH]")
        assert unknown == wrong

    @conversation
    async def test_names_that_hold_anything_are_only_unknown(self, server: PopServer) -> None:
        for name in (
            "../luke",
            "luke/..",
            "/",
            "..",
            ".",
            "{user}",
            "$where",
            "' or ''='",
            "ł" * 60,
        ):
            async with Dialogue(server) as dialogue:
                assert (await dialogue.login(name, "hello")).startswith(b"-ERR [AUTH]"), name

    @conversation
    async def test_another_case_of_a_name_is_no_second_maildrop(self, server: PopServer) -> None:
        async with Dialogue(server) as first, Dialogue(server) as second:
            await first.login("luke", "hello")

            assert (await second.login("LUKE", "hello")).startswith(
                (b"-ERR [AUTH]", b"-ERR [IN-USE]")
            )

    @conversation
    async def test_each_user_has_a_maildrop_of_their_own(self, server: PopServer) -> None:
        await self.add_user(server, "leia", "organa")
        await self.deliver(server, "luke", SHORT)

        async with Dialogue(server) as luke, Dialogue(server) as leia:
            await luke.login("luke", "hello")
            await leia.login("leia", "organa")

            assert b"+OK 1 %d\r\n" % len(SHORT) == await luke.say("STAT")
            assert b"+OK 0 0\r\n" == await leia.say("STAT")

    # The lock

    @conversation
    async def test_a_second_session_is_refused_while_the_first_is_open(
        self, server: PopServer
    ) -> None:
        """RFC 1939 s4, RFC 2449 s8.1.2."""
        async with Dialogue(server) as first, Dialogue(server) as second:
            await first.login("luke", "hello")

            assert (await second.login("luke", "hello")).startswith(b"-ERR [IN-USE]")
            assert b"+OK 0 0\r\n" == await first.say("STAT")

    @conversation
    async def test_a_refused_session_does_not_release_the_lock_of_another(
        self, server: PopServer
    ) -> None:
        async with Dialogue(server) as first:
            await first.login("luke", "hello")
            for _ in range(2):
                async with Dialogue(server) as other:
                    assert (await other.login("luke", "hello")).startswith(b"-ERR [IN-USE]")

    @conversation
    async def test_of_logins_at_the_same_time_one_succeeds(self, server: PopServer) -> None:
        async with Dialogue(server) as one, Dialogue(server) as two, Dialogue(server) as three:
            replies = await asyncio.gather(
                *(dialogue.login("luke", "hello") for dialogue in (one, two, three))
            )

        assert [b"+OK", b"-ERR [IN-USE]", b"-ERR [IN-USE]"] == sorted(
            b" ".join(reply.split(b" ")[: 2 if reply.startswith(b"-ERR") else 1])
            for reply in replies
        )

    @conversation
    async def test_the_lock_is_released_however_a_session_ends(self, server: PopServer) -> None:
        async def quits(dialogue: Dialogue) -> None:
            await dialogue.say("QUIT")

        async def is_aborted(dialogue: Dialogue) -> None:
            dialogue.session.abort("test")

        async def is_lost(dialogue: Dialogue) -> None:
            await dialogue.hang_up()

        for end in (quits, is_aborted, is_lost, is_lost):
            async with Dialogue(server) as dialogue:
                assert (await dialogue.login("luke", "hello")).startswith(b"+OK"), end.__name__
                await end(dialogue)

    # Listing

    @conversation
    async def test_unique_ids_are_legal_distinct_and_stay(self, server: PopServer) -> None:
        """RFC 1939 s7; equal messages are two messages, and an abnormal end changes nothing."""
        for contents in (SHORT, SHORT, b"Subject: other\r\n\r\n"):
            await self.deliver(server, "luke", contents)

        first = await self._uidl(server)
        await self.deliver(server, "luke", SHORT)
        second = await self._uidl(server)

        assert all(1 <= len(uid) <= 70 and all("!" <= c <= "~" for c in uid) for uid in second)
        assert 4 == len(set(second))
        assert first == second[:3]

    @conversation
    async def test_open_sessions_keep_nothing_that_others_wait_for(self, server: PopServer) -> None:
        """A connection of a pool that is kept for each session stalls the server under load."""
        names = [f"user{number}" for number in range(AT_ONCE)]
        for name in names:
            await self.add_user(server, name, "hello")

        async with AsyncExitStack() as stack:
            for name in names:
                dialogue = await stack.enter_async_context(Dialogue(server))
                try:
                    async with asyncio.timeout(PATIENCE):
                        reply = await dialogue.login(name, "hello")
                except TimeoutError:
                    pytest.fail(f"{name} waits for something that open sessions have")
                assert reply.startswith(b"+OK"), name

    @conversation
    async def test_a_session_that_lost_its_lock_removes_nothing(self, server: PopServer) -> None:
        """Who has the maildrop now may have told its client of the message already."""
        await self.deliver(server, "luke", SHORT)
        async with Dialogue(server) as dialogue:
            await dialogue.login("luke", "hello")
            await dialogue.say("DELE 1")
            await self.lose_lock(server, "luke")
            if not dialogue.closed:
                assert (await dialogue.say("QUIT")).startswith(b"-ERR")

        async with Dialogue(server) as dialogue:
            assert (await dialogue.login("luke", "hello")).startswith(b"+OK")
            assert 1 == len(listing(await dialogue.say("LIST")))

    @conversation
    async def test_messages_come_oldest_first(self, server: PopServer) -> None:
        expected = [b"Subject: %d\r\n\r\n" % number for number in range(12)]
        for contents in expected:
            await self.deliver(server, "luke", contents)

        async with Dialogue(server) as dialogue:
            await dialogue.login("luke", "hello")
            replies = [await dialogue.say(f"RETR {n}") for n in range(1, 13)]

        assert expected == [body(reply) for reply in replies]

    @conversation
    async def test_sizes_are_the_octets_that_retr_sends(self, server: PopServer) -> None:
        """RFC 1939 s11: with CRLF line ends, before dot-stuffing; twice, for what is remembered."""
        for contents in HARD.values():
            await self.deliver(server, "luke", contents)

        for _ in range(2):
            async with Dialogue(server) as dialogue:
                await dialogue.login("luke", "hello")
                sizes = listing(await dialogue.say("LIST"))
                for number, (name, contents) in enumerate(HARD.items(), 1):
                    sent = body(await dialogue.say(f"RETR {number}"))
                    assert on_the_wire(contents) == sent, name
                    assert sizes[number - 1] == str(len(sent)), name

    @conversation
    async def test_top_sends_the_beginning_of_a_message(self, server: PopServer) -> None:
        await self.deliver(server, "luke", b"Subject: x\n\n.1\n2\n3\n")

        async with Dialogue(server) as dialogue:
            await dialogue.login("luke", "hello")

            assert b"Subject: x\r\n\r\n.1\r\n2\r\n" == body(await dialogue.say("TOP 1 2"))
            assert b"Subject: x\r\n\r\n" == body(await dialogue.say("TOP 1 0"))

    @conversation
    async def test_what_is_delivered_during_a_session_is_seen_by_the_next(
        self, server: PopServer
    ) -> None:
        """RFC 1939 s4: a maildrop is fixed when TRANSACTION begins."""
        await self.deliver(server, "luke", SHORT)
        async with Dialogue(server) as dialogue:
            await dialogue.login("luke", "hello")
            await self.deliver(server, "luke", SHORT)

            assert b"+OK 1 %d\r\n" % len(SHORT) == await dialogue.say("STAT")
            assert (await dialogue.say("RSET")).startswith(b"+OK")
            assert 1 == len(listing(await dialogue.say("LIST")))
            await dialogue.say("DELE 1")
            assert (await dialogue.say("QUIT")).startswith(b"+OK")

        assert 1 == len(await self._uidl(server))

    @conversation
    async def test_a_client_that_leaves_within_a_message_leaves_nothing_behind(
        self, server: PopServer
    ) -> None:
        await self.deliver(server, "luke", HARD["1 MiB"])
        async with Dialogue(server) as dialogue:
            await dialogue.login("luke", "hello")
            retrieving = asyncio.create_task(dialogue.say("RETR 1"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await dialogue.hang_up()
            retrieving.cancel()
            await asyncio.wait([retrieving])

        async with Dialogue(server) as dialogue:
            assert (await dialogue.login("luke", "hello")).startswith(b"+OK")
            assert on_the_wire(HARD["1 MiB"]) == body(await dialogue.say("RETR 1"))

    # Deletion

    @conversation
    async def test_quit_removes_the_marked_messages_and_no_others(self, server: PopServer) -> None:
        """RFC 1939 s6."""
        for number in range(5):
            await self.deliver(server, "luke", b"Subject: %d\r\n\r\n" % number)
        before = await self._uidl(server)

        async with Dialogue(server) as dialogue:
            await dialogue.login("luke", "hello")
            for number in (2, 4, 5):
                await dialogue.say(f"DELE {number}")
            assert (await dialogue.say("QUIT")).startswith(b"+OK")
            assert 3 == dialogue.session.stats.deleted

        assert [before[0], before[2]] == await self._uidl(server)

    @conversation
    async def test_rset_keeps_what_was_marked(self, server: PopServer) -> None:
        await self.deliver(server, "luke", SHORT)
        async with Dialogue(server) as dialogue:
            await dialogue.login("luke", "hello")
            await dialogue.say("DELE 1")
            await dialogue.say("RSET")
            await dialogue.say("QUIT")

        assert 1 == len(await self._uidl(server))

    @conversation
    async def test_a_session_that_ends_without_quit_removes_nothing(
        self, server: PopServer
    ) -> None:
        """RFC 1939 s6."""
        await self.deliver(server, "luke", SHORT)
        for lose in (Dialogue.hang_up, lambda dialogue: dialogue.session.abort("test")):
            async with Dialogue(server) as dialogue:
                await dialogue.login("luke", "hello")
                await dialogue.say("DELE 1")
                if (ended := lose(dialogue)) is not None:
                    await ended

            assert 1 == len(await self._uidl(server))

    @conversation
    async def test_unique_ids_are_not_used_again(self, server: PopServer) -> None:
        """RFC 1939 s7: a client would take the new message for one that it has."""
        await self.deliver(server, "luke", SHORT)
        before = await self._uidl(server)
        async with Dialogue(server) as dialogue:
            await dialogue.login("luke", "hello")
            await dialogue.say("DELE 1")
            await dialogue.say("QUIT")
        await self.deliver(server, "luke", SHORT)

        assert before != await self._uidl(server)

    @conversation
    async def test_a_message_that_goes_during_a_session_is_refused_or_whole(
        self, server: PopServer
    ) -> None:
        """Removed past the lock, as an administrator does it; QUIT counts it as gone."""
        await self.deliver(server, "luke", SHORT)
        async with Dialogue(server) as dialogue:
            await dialogue.login("luke", "hello")
            message = dialogue.session.maildrop[1]
            assert 1 == await server.plugins.delete_messages([message], dialogue.session.view)

            reply = await dialogue.say("RETR 1")

            assert reply.startswith(b"-ERR") or SHORT == body(reply)
            await dialogue.say("DELE 1")
            assert (await dialogue.say("QUIT")).startswith(b"+OK")
