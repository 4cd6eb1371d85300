"""The part of the backend contract for the optional store hooks: users and deliveries."""
# ruff: noqa: S101, SIM300, D102 - a suite: it asserts, and names say what

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import bcrypt
import pytest

from pop3hub.auth.users import PopUser
from pop3hub.errors import MaildropNotEmpty, NoSuchUser, PopError, UniqueIdTaken
from pop3hub.testing.contract_base import ContractBase, conversation, store_of
from pop3hub.testing.dialogue import Dialogue
from pop3hub.testing.messages import HARD, SHORT, body, on_the_wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pop3hub.server.server import PopServer


class StoreContract(ContractBase):
    """What `pop3hub user`, `deliver` and `import` rely on."""

    @conversation
    async def test_store_message_takes_a_stream(self, server: PopServer) -> None:
        self._needs(server, "store_message")

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(HARD["1 MiB"]), 65_537):
                yield HARD["1 MiB"][start : start + 65_537]

        uid = await store_of(server).store_message("luke", chunks())

        assert [uid] == await self._uidl(server)
        async with Dialogue(server) as dialogue:
            await dialogue.login("luke", "hello")
            assert on_the_wire(HARD["1 MiB"]) == body(await dialogue.say("RETR 1"))

    @conversation
    async def test_a_stream_that_breaks_stores_nothing(self, server: PopServer) -> None:
        self._needs(server, "store_message")

        async def chunks() -> AsyncIterator[bytes]:
            yield HARD["1 MiB"]
            raise ConnectionResetError

        with pytest.raises(PopError):
            await store_of(server).store_message("luke", chunks())

        assert [] == await self._uidl(server)

    @conversation
    async def test_store_message_keeps_a_unique_id(self, server: PopServer) -> None:
        self._needs(server, "store_message")
        uids = ["000000016b03da81", "!~{}<>&%\\", "x" * 70]

        for uid in uids:
            assert uid == await store_of(server).store_message("luke", SHORT, uid)

        assert uids == await self._uidl(server)

    @conversation
    async def test_store_message_refuses_a_unique_id_that_is_taken(self, server: PopServer) -> None:
        self._needs(server, "store_message")
        await self.add_user(server, "leia", "organa")
        await store_of(server).store_message("luke", SHORT, "uid-1")

        with pytest.raises(UniqueIdTaken):
            await store_of(server).store_message("luke", b"Subject: other\r\n\r\n", "uid-1")

        assert "uid-1" == await store_of(server).store_message("leia", SHORT, "uid-1")
        assert ["uid-1"] == await self._uidl(server)

    @conversation
    async def test_store_message_refuses_an_unknown_user(self, server: PopServer) -> None:
        self._needs(server, "store_message")
        for name in ("nobody", "../luke", ""):
            with pytest.raises(NoSuchUser):
                await store_of(server).store_message(name, SHORT)

    @conversation
    async def test_deliveries_at_the_same_time_are_all_kept(self, server: PopServer) -> None:
        self._needs(server, "store_message")
        stored = await asyncio.gather(
            *(store_of(server).store_message("luke", b"Subject: %d\n\n" % n) for n in range(20))
        )

        assert sorted(stored) == sorted(await self._uidl(server))

    @conversation
    async def test_store_user_overwrites_only_if_asked_to(self, server: PopServer) -> None:
        self._needs(server, "store_user")
        hashed = bcrypt.hashpw(b"other", bcrypt.gensalt(4)).decode("ascii")

        assert not await store_of(server).store_user(PopUser("luke", hashed), replace=False)
        assert not await store_of(server).store_user(PopUser("nobody", hashed), replace=True)
        async with Dialogue(server) as dialogue:
            assert (await dialogue.login("luke", "hello")).startswith(b"+OK")
        assert await store_of(server).store_user(PopUser("luke", hashed), replace=True)
        async with Dialogue(server) as dialogue:
            assert (await dialogue.login("luke", "hello")).startswith(b"-ERR [AUTH]")
            assert (await dialogue.login("luke", "other")).startswith(b"+OK")

    @conversation
    async def test_store_user_keeps_what_it_is_given_or_drops_it_whole(
        self, server: PopServer
    ) -> None:
        """A store may have no place for secrets or SCRAM keys; it must not change them."""
        self._needs(server, "store_user")
        keys = {"SCRAM-SHA-256": "4096:AAAA$AAAA:AAAA"}
        leia = PopUser("leia", "hash", "secret", scram=keys)

        assert await store_of(server).store_user(leia, replace=False)

        async with Dialogue(server) as dialogue:
            user = await server.store.find_user("leia", dialogue.session.view)
        assert user is not None
        assert ("leia", "hash") == (user.name, user.password)
        assert user.secret in {None, "secret"}
        assert dict(user.scram) in ({}, keys)

    @conversation
    async def test_remove_user_refuses_one_with_mail_unless_told(self, server: PopServer) -> None:
        self._needs(server, "remove_user")
        await self.deliver(server, "luke", SHORT)

        assert not await store_of(server).remove_user("nobody", with_mail=True)
        with pytest.raises(MaildropNotEmpty):
            await store_of(server).remove_user("luke", with_mail=False)
        assert 1 == len(await self._uidl(server))
        assert await store_of(server).remove_user("luke", with_mail=True)
        async with Dialogue(server) as dialogue:
            assert (await dialogue.login("luke", "hello")).startswith(b"-ERR [AUTH]")
        await self.add_user(server, "luke", "hello")
        assert [] == await self._uidl(server)

    @conversation
    async def test_list_users_goes_by_name(self, server: PopServer) -> None:
        self._needs(server, "list_users")
        for name in ("zoe", "anna"):
            await self.add_user(server, name, "hello")

        assert ["anna", "luke", "zoe"] == [
            user.name async for user in store_of(server).list_users()
        ]
