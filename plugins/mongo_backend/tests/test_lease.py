"""The lease on a maildrop: one holder, a fence that rises, an end that comes by itself."""

import asyncio
from datetime import UTC, datetime

import pytest
from bson import ObjectId

from pop3hub import MaildropInUse, TemporaryFailure
from pop3hub_mongo.lease import Leases

pytestmark = pytest.mark.mongo

PAST = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.fixture
def leases(backend):
    return backend.leases


def lapse(database):
    """What time does to a lease that nobody renews."""
    database.leases.update_many({}, {"$set": {"exp": PAST}})


def nothing():
    pass


async def test_of_fifty_who_want_a_lease_one_gets_it(leases):
    results = await asyncio.gather(
        *(leases.acquire("key", "luke", nothing) for n in range(50)),
        return_exceptions=True,
    )

    assert 49 == sum(isinstance(result, MaildropInUse) for result in results)


async def test_a_released_lease_is_free(leases):
    first = await leases.acquire("key", "luke", nothing)
    await leases.release(first)

    second = await leases.acquire("key", "luke", nothing)

    assert second.fence > first.fence


async def test_a_lapsed_lease_is_taken_over_and_its_release_does_no_harm(leases, database):
    first = await leases.acquire("key", "luke", nothing)
    lapse(database)
    second = await leases.acquire("key", "luke", nothing)

    await leases.release(first)

    assert second.fence > first.fence
    with pytest.raises(MaildropInUse):
        await leases.acquire("key", "luke", nothing)


async def test_the_fence_rises_over_a_document_that_was_collected(leases, database):
    first = await leases.acquire("key", "luke", nothing)
    database.leases.delete_many({})

    second = await leases.acquire("key", "luke", nothing)

    assert second.fence > first.fence


async def test_renewal_prolongs_what_is_held_and_tells_what_is_lost(leases, database):
    lost = []
    held = [
        await leases.acquire(name, name, lambda name=name: lost.append(name))
        for name in ("han", "leia", "luke")
    ]
    database.leases.update_one({"_id": "leia"}, {"$set": {"owner": "somebody else"}})
    database.leases.update_one({"_id": "luke"}, {"$set": {"exp": PAST}})
    before = database.leases.find_one({"_id": "han"})["exp"]

    await leases.renew(held)

    assert ["leia", "luke"] == lost
    assert before < database.leases.find_one({"_id": "han"})["exp"]


async def test_a_lease_that_is_released_during_a_renewal_is_not_lost(leases, database):
    """The keeper has listed it already, and finds it gone."""
    lost = []
    held = [
        await leases.acquire(name, name, lambda name=name: lost.append(name))
        for name in ("han", "leia", "luke")
    ]
    database.leases.update_one({"_id": "leia"}, {"$set": {"owner": "somebody else"}})
    await leases.release(held[0])

    await leases.renew(held)

    assert ["leia"] == lost
    assert [0.0] == [lease.deadline for lease in held if lease.key == "leia"]


async def test_a_holder_who_cannot_renew_gives_up_in_time(backend, database, fail_point):
    """By its own clock, counted from before the request: earlier than the server's."""
    lost = asyncio.Event()
    leases = Leases(backend.leases.collection, ttl=0.3, renewal=0.05)
    leases.start()
    try:
        lease = await leases.acquire("key", "luke", lost.set)
        fail_point(failCommands=["update", "find"], errorCode=11600)

        await asyncio.wait_for(lost.wait(), 5)
    finally:
        await leases.stop()

    assert database.leases.find_one()["owner"] == lease.owner


async def test_a_lease_is_renewed_while_its_session_lasts(backend, database):
    leases = Leases(backend.leases.collection, ttl=0.3, renewal=0.05)
    leases.start()
    try:
        lease = await leases.acquire("key", "luke", nothing)
        granted = lease.deadline

        async with asyncio.timeout(5):
            while lease.deadline < granted + 0.6:  # noqa: ASYNC110 - nothing tells of a renewal
                await asyncio.sleep(0.01)
    finally:
        await leases.stop()

    assert lease.owner == database.leases.find_one()["owner"]


async def test_an_acquisition_that_fails_half_way_locks_nobody_out(leases, database, fail_point):
    """w:majority timed out: the lease was written, and its holder must not believe in it."""
    fail_point(
        mode={"times": 1},
        failCommands=["findAndModify"],
        writeConcernError={"code": 64, "errmsg": "waiting timed out"},
    )

    with pytest.raises(Exception, match="waiting timed out"):
        await leases.acquire("key", "luke", nothing)

    await asyncio.gather(*leases._loose)
    assert await leases.acquire("key", "luke", nothing)


async def test_a_session_whose_lease_is_broken_ends_without_update(backend, log_in, database):
    await backend.store_message("luke", b"kept", None)
    dialogue, _ = await log_in()
    await dialogue.say("DELE 1")

    assert await backend.break_lock("LUKE")
    serving = dialogue.server.plugins.backend.instance
    await serving.leases.renew(list(serving.leases._held.values()))

    assert dialogue.closed
    assert "lease lost" == dialogue.session.reason
    assert 1 == database.messages.count_documents({})
    assert not await backend.break_lock("luke")


async def test_a_session_without_its_lease_cannot_delete(backend, log_in, database):
    """QUIT comes before the holder knows: the server knows."""
    await backend.store_message("luke", b"kept", None)
    dialogue, _ = await log_in()
    await dialogue.say("DELE 1")
    lapse(database)
    other, _ = await log_in()

    answer = await dialogue.say("QUIT")

    assert answer.startswith(b"-ERR [SYS/TEMP]")
    assert 1 == database.messages.count_documents({})
    assert b"+OK 1 6\r\n" == await other.say("STAT")


async def test_a_stale_fence_is_refused(backend, leases, database, account):
    uid = await backend.store_message("luke", b"kept", None)
    lease = await leases.acquire(account, "luke", nothing)
    lease.fence -= 1

    with pytest.raises(TemporaryFailure):
        await backend.purge.remove(lease, account, [ObjectId(uid)])

    assert "purge" not in database.leases.find_one()


async def test_an_operator_sees_who_holds_what(backend, log_in):
    await log_in()

    (held,) = await backend.list_locks()

    assert ("luke", "127.0.0.1:50000") == (held["user"], held["peer"])
    assert held["node"].rpartition(":")[2].isdigit()
