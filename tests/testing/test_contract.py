"""BackendContract: a sound backend passes, and each test finds the defect that it is there for."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager

import pytest

from pop3hub.hooks.specs import hookimpl
from pop3hub.maildrop import PopMessage
from pop3hub.testing import BackendContract
from tests.support.sqlite_store import SqliteBackend


class TestSqliteStore(BackendContract):
    """The store that the broken ones below are made of."""

    @pytest.fixture
    def backend(self):
        return SqliteBackend(":memory:")


class CountsLinesAsTheyLie(SqliteBackend):
    @hookimpl
    def receive_messages(self, user):
        rows = self.db.execute("SELECT id, uid, contents FROM messages ORDER BY id").fetchall()
        listed = super().receive_messages(user)
        sizes = {row: len(contents.replace(b"\r\n", b"\n")) for row, _, contents in rows}
        for message in listed:
            message.size = sizes[message.row]
        return listed


class NumbersUniqueIds(SqliteBackend):
    @hookimpl
    def receive_messages(self, user):
        listed = super().receive_messages(user)
        for number, message in enumerate(listed, 1):
            message.uid = str(number)
        return listed


class MakesUniqueIdsAnew(SqliteBackend):
    numbers = itertools.count()

    @hookimpl
    def receive_messages(self, user):
        listed = super().receive_messages(user)
        for message in listed:
            message.uid = str(next(self.numbers))
        return listed


class ListsNewestFirst(SqliteBackend):
    @hookimpl
    def receive_messages(self, user):
        return super().receive_messages(user)[::-1]


class ListsEverybodysMail(SqliteBackend):
    @hookimpl
    def receive_messages(self, user):
        return [
            PopMessage(uid, size, bytes(contents))
            for uid, size, contents in self.db.execute("SELECT uid, size, contents FROM messages")
        ]

    @hookimpl
    def load_contents(self, message):
        return message.contents


class DeletesOnlyInItsReport(SqliteBackend):
    @hookimpl
    def delete_messages(self, messages):
        return len(messages)


class DeletesAll(SqliteBackend):
    @hookimpl
    def delete_messages(self, messages):
        self.db.execute("DELETE FROM messages")
        return len(messages)


class ReportsNoDeletion(SqliteBackend):
    @hookimpl
    def delete_messages(self, messages):
        super().delete_messages(messages)
        return 0


class SaysThatLockedIsFree(SqliteBackend):
    @hookimpl
    def lock_maildrop(self):
        return FreeForAll()


class FreeForAll:
    async def __aenter__(self):
        return None

    async def __aexit__(self, *_):
        return None


class KeepsItsLock(SqliteBackend):
    locked = False

    @hookimpl
    def is_in_use(self):
        was, self.locked = self.locked, True
        return was


class LogsInAnybody(SqliteBackend):
    @hookimpl
    def compare_password(self):
        return True


class TakesNamesForOthers(SqliteBackend):
    @hookimpl
    def get_user(self, name):
        user = super().get_user(name.lower())
        return type(user)(name, user.password) if user else None


class OverwritesUsers(SqliteBackend):
    @hookimpl
    def store_user(self, user):
        query = "INSERT OR REPLACE INTO users VALUES (?, ?)"
        return self.db.execute(query, [user.name, user.password]).rowcount == 1


class StoresHalfAMessage(SqliteBackend):
    @hookimpl
    async def store_message(self, name, contents, uid=None):
        if isinstance(contents, bytes):
            return await super().store_message(name, contents, uid)
        whole = b""
        try:
            async for chunk in contents:
                whole += chunk
        finally:
            uid = await super().store_message(name, whole, uid)
        return uid


class StoresForAnybody(SqliteBackend):
    @hookimpl
    async def store_message(self, name, contents, uid=None):
        if self.get_user(name) is None:
            self.db.execute("INSERT INTO users (name) VALUES (?)", [name])
        return await super().store_message(name, contents, uid)


class ReadsNothingOfAGoneMessage(SqliteBackend):
    @hookimpl
    def load_contents(self, message):
        row = self.db.execute(
            "SELECT contents FROM messages WHERE id = ?", [message.row]
        ).fetchone()
        return bytes(row[0]) if row else b""


class KeepsAConnection(SqliteBackend):
    """Each session has one of a pool's connections for as long as it lasts."""

    def __init__(self, path):
        super().__init__(path)
        self.pool = asyncio.Semaphore(10)

    @hookimpl
    @asynccontextmanager
    async def lock_maildrop(self):
        async with self.pool:
            yield


class DeletesWithoutItsLock(SqliteBackend):
    """Its lock can be taken over, and nobody asks whether it was."""

    @hookimpl
    @asynccontextmanager
    async def lock_maildrop(self):
        yield


async def nothing_to_lose(server, name):
    """The lock of these is free for anybody already."""


@pytest.mark.parametrize(
    ("backend", "test"),
    [
        (CountsLinesAsTheyLie, "sizes_are_the_octets_that_retr_sends"),
        (NumbersUniqueIds, "unique_ids_are_not_used_again"),
        (NumbersUniqueIds, "store_message_keeps_a_unique_id"),
        (MakesUniqueIdsAnew, "unique_ids_are_legal_distinct_and_stay"),
        (ListsNewestFirst, "messages_come_oldest_first"),
        (ListsEverybodysMail, "each_user_has_a_maildrop_of_their_own"),
        (DeletesOnlyInItsReport, "quit_removes_the_marked_messages_and_no_others"),
        (DeletesAll, "quit_removes_the_marked_messages_and_no_others"),
        (DeletesAll, "what_is_delivered_during_a_session_is_seen_by_the_next"),
        (ReportsNoDeletion, "quit_removes_the_marked_messages_and_no_others"),
        (SaysThatLockedIsFree, "a_second_session_is_refused_while_the_first_is_open"),
        (SaysThatLockedIsFree, "of_logins_at_the_same_time_one_succeeds"),
        (KeepsItsLock, "the_lock_is_released_however_a_session_ends"),
        (LogsInAnybody, "unknown_users_and_wrong_passwords_are_told_the_same"),
        (TakesNamesForOthers, "another_case_of_a_name_is_no_second_maildrop"),
        (OverwritesUsers, "store_user_overwrites_only_if_asked_to"),
        (StoresHalfAMessage, "a_stream_that_breaks_stores_nothing"),
        (StoresForAnybody, "store_message_refuses_an_unknown_user"),
        (KeepsAConnection, "open_sessions_keep_nothing_that_others_wait_for"),
        (DeletesWithoutItsLock, "a_session_that_lost_its_lock_removes_nothing"),
        (ReadsNothingOfAGoneMessage, "a_message_that_goes_during_a_session_is_refused_or_whole"),
    ],
)
def test_the_contract_finds(backend, test):
    made = backend(":memory:")
    suite = TestSqliteStore()
    suite.lose_lock = nothing_to_lose
    run = getattr(suite, f"test_{test}")

    with pytest.raises((AssertionError, pytest.fail.Exception)):
        run(made, {})
