"""Removal: all of it, once, whoever has to finish it."""

import asyncio
from datetime import timedelta

import pytest
from bson import ObjectId
from pymongo.errors import PyMongoError

from pop3hub import MaildropInUse, TemporaryFailure
from pop3hub_mongo.lease import LAPSED
from pop3hub_mongo.purge import BATCH
from pop3hub_mongo.sweep import Sweeper

pytestmark = pytest.mark.mongo


@pytest.fixture
def interrupted(backend, database, account):
    """A removal that was broken off: its intent stands, its session is gone."""

    async def interrupted(removed=1, bodies=b"x"):
        uids = [await backend.store_message("luke", bodies, None) for _ in range(4)]
        ids = [ObjectId(uid) for uid in uids[:3]]
        intent = {"id": "7", "of": account, "ids": ids}
        lease = {"_id": account, "user": "luke", "owner": "gone", "fence": 7, "exp": LAPSED}
        database.leases.insert_one(lease | {"purge": intent})
        database.messages.delete_many({"_id": {"$in": ids[:removed]}})
        return uids

    return interrupted


def sweeper_of(backend, **limits):
    """A sweeper like the backend's own, with these limits."""
    turns = backend.leases.collection.database["turns"]
    return Sweeper(backend.leases, backend.purge, turns=turns, native=backend.store, **limits)


@pytest.mark.parametrize("removed", [0, 1, 3])
async def test_the_next_login_finishes_a_removal(interrupted, log_in, database, removed):
    uids = await interrupted(removed, b"x" * 300_000)

    dialogue, _ = await log_in()

    assert f"+OK 1 {uids[3]}\r\n".encode() == await dialogue.say("UIDL 1")
    assert b"+OK 1 300002\r\n" == await dialogue.say("STAT")
    assert 2 == database["bodies.chunks"].count_documents({})
    assert "purge" not in database.leases.find_one()


async def test_the_sweeper_finishes_a_removal(interrupted, backend, database):
    await interrupted()

    swept = await backend.sweep(0)

    assert 1 == swept.removals
    assert 1 == database.messages.count_documents({})
    lease = database.leases.find_one()
    assert (None, False, True) == (lease["owner"], "purge" in lease, "gc" in lease)


async def test_removals_are_finished_in_the_background(interrupted, backend, database):
    await interrupted()
    sweeper = sweeper_of(backend, removals_every=0.01)
    sweeper.start()

    async with asyncio.timeout(5):
        while "purge" in database.leases.find_one():  # noqa: ASYNC110 - a server's state
            await asyncio.sleep(0.01)

    await sweeper.stop()
    assert 1 == database.messages.count_documents({})


async def test_the_sweeper_leaves_a_session_alone_that_is_removing(interrupted, backend, database):
    await interrupted()
    in_time = backend.leases._claim("holder", {})
    database.leases.update_one({}, in_time)

    swept = await backend.sweep(0)

    assert 0 == swept.removals
    assert "purge" in database.leases.find_one()


async def test_a_lease_with_an_intent_is_never_collected(interrupted, backend, database, account):
    await interrupted()

    await backend.leases.acquire(account, "luke", lambda: None)

    assert "gc" not in database.leases.find_one()


async def test_more_than_a_batch_goes_at_quit(backend, log_in, database, account):
    count = BATCH + 1
    database.messages.insert_many(
        {"_id": backend.store._ids.new(0), "account": account, "size": 1, "body": b""}
        for _ in range(count)
    )
    dialogue, _ = await log_in()
    for number in range(1, count):
        await dialogue.say(f"DELE {number}")

    assert (await dialogue.say("QUIT")).startswith(b"+OK")

    assert 1 == database.messages.count_documents({})
    assert count - 1 == dialogue.session.stats.deleted


async def test_quit_says_err_for_what_is_not_removed_and_it_goes_later(
    backend, log_in, database, fail_point
):
    for _ in range(2):
        await backend.store_message("luke", b"x", None)
    dialogue, _ = await log_in()
    await dialogue.say("DELE 1")
    fail_point(failCommands=["delete"], errorCode=50)

    answer = await dialogue.say("QUIT")
    there = database.messages.count_documents({})
    fail_point(mode="off")
    dialogue, _ = await log_in()

    assert answer.startswith(b"-ERR [SYS/TEMP]")
    assert 2 == there
    assert b"+OK 1 3\r\n" == await dialogue.say("STAT")


async def test_an_unfinished_intent_is_never_overwritten(backend, database, fail_point, account):
    """What the first removal has promised, the next login or the sweeper finishes."""
    first, second = [ObjectId(await backend.store_message("luke", b"x", None)) for _ in range(2)]
    lease = await backend.leases.acquire(account, "luke", lambda: None)
    fail_point(failCommands=["delete"], errorCode=50)
    with pytest.raises(PyMongoError):
        await backend.purge.remove(lease, account, [first])
    fail_point(mode="off")

    with pytest.raises(TemporaryFailure):
        await backend.purge.remove(lease, account, [second])

    assert [first] == database.leases.find_one()["purge"]["ids"]
    assert 2 == database.messages.count_documents({})


async def test_a_removal_outlives_a_connection_that_breaks(backend, log_in, database, fail_point):
    await backend.store_message("luke", b"x", None)
    dialogue, _ = await log_in()
    await dialogue.say("DELE 1")
    fail_point(mode={"times": 2}, failCommands=["delete"], closeConnection=True)

    assert (await dialogue.say("QUIT")).startswith(b"+OK")

    assert 0 == database.messages.count_documents({})


async def test_a_sweep_removes_old_bodies_without_a_message_and_no_others(
    backend, database, account
):
    chunks = database["bodies.chunks"]
    await backend.store_message("luke", b"kept" * 100_000, None)
    old = ObjectId("5f0000000000000000000000")
    for orphan in (old, ObjectId()):
        chunks.insert_one({"account": account, "files_id": orphan, "n": 1, "data": b"x"})

    swept = await backend.sweep(86_400)

    assert 1 == swept.bodies
    assert 0 == chunks.count_documents({"files_id": old})
    assert 2 + 1 == chunks.count_documents({})


async def test_a_sweep_counts_and_removes_each_body_once_however_many_there_are(
    backend, database, account
):
    chunks = database["bodies.chunks"]
    orphans = [ObjectId(f"5f000000000000000000000{n}") for n in range(5)]
    chunks.insert_many(
        {"account": account, "files_id": orphan, "n": n, "data": b"x"}
        for orphan in orphans
        for n in (1, 2)
    )

    swept = await sweeper_of(backend, batch=2).sweep(0)

    assert (5, 0) == (swept.bodies, chunks.count_documents({}))


async def test_one_node_sweeps_in_an_interval(backend, start):
    other = await start()

    nodes = (backend, other, backend)

    turns = [await node.sweeper._is_our_turn("removals", 60) for node in nodes]

    assert [True, False, False] == turns


async def test_removing_a_user_finishes_what_an_earlier_session_left(
    interrupted, backend, database
):
    await interrupted()

    assert await backend.remove_user("luke", with_mail=True)

    assert 0 == database.messages.count_documents({}) + database.users.count_documents({})
    assert "purge" not in database.leases.find_one()


async def test_a_removed_user_is_locked_meanwhile(backend, log_in, database):
    await backend.store_message("luke", b"x", None)
    dialogue, _ = await log_in()

    with pytest.raises(MaildropInUse):
        await backend.remove_user("luke", with_mail=True)
    await dialogue.hang_up()

    assert await backend.remove_user("luke", with_mail=True)
    assert 0 == database.messages.count_documents({}) + database.users.count_documents({})


async def test_whose_turn_it_is_to_sweep_goes_by_the_servers_clock(backend, database):
    """A node a year ahead would keep all others from sweeping for a year."""
    before = database.client.admin.command("hello")["localTime"]
    assert await backend.sweeper._is_our_turn("removals", 60)

    after = database.turns.find_one({"_id": "removals"})["next"] - before

    assert timedelta(seconds=59) < after < timedelta(seconds=120)
