"""Every acquisition of a lease is an owner of its own, also one that its session gave up."""

import asyncio

import pytest

from pop3hub.testing import Dialogue

pytestmark = [pytest.mark.mongo, pytest.mark.usefixtures("backend")]

SLOW = 400
"""Milliseconds for which the server sits on a claim."""


def serving(dialogue):
    return dialogue.server.plugins.backend.instance


async def is_answered(leases):
    """Wait until no claim or release is on its way any more."""
    async with asyncio.timeout(10):
        while leases._loose:  # noqa: ASYNC110 - what runs in the background tells nobody
            await asyncio.sleep(0.01)


async def test_a_late_release_does_not_free_the_next_login_of_the_session(
    log_in, fail_point, monkeypatch
):
    """The first PASS failed after its lease was written; the second one of the session got it."""
    dialogue, _ = await log_in(name="nobody")
    leases = serving(dialogue).leases
    free = leases._free

    async def late(*arguments):
        await asyncio.sleep(0.3)
        return await free(*arguments)

    monkeypatch.setattr(leases, "_free", late)
    unconfirmed = {"code": 64, "errmsg": "waiting timed out"}
    fail_point(mode={"times": 1}, failCommands=["findAndModify"], writeConcernError=unconfirmed)
    first = await dialogue.login("luke", "hello")
    async with asyncio.timeout(5):
        while not (second := await dialogue.login("luke", "hello")).startswith(b"+OK"):
            assert second.startswith(b"-ERR [IN-USE]")  # until the late release is there
    await is_answered(leases)

    async with Dialogue(dialogue.server) as rival:
        answer = await rival.login("luke", "hello")

    assert first.startswith(b"-ERR [SYS/TEMP]")
    assert answer.startswith(b"-ERR [IN-USE]")


async def test_a_claim_that_comes_late_does_not_take_over_from_the_same_session(
    log_in, fail_point, database
):
    dialogue, _ = await log_in(name="nobody")
    fail_point(
        mode={"times": 1}, failCommands=["findAndModify"], blockConnection=True, blockTimeMS=SLOW
    )
    first = asyncio.create_task(dialogue.login("luke", "hello"))
    await asyncio.sleep(SLOW / 2000)
    dialogue._task.cancel()  # as the time limit of hooks does it
    await asyncio.wait([first])
    second = await dialogue.login("luke", "hello")
    holder = database.leases.find_one()

    await is_answered(serving(dialogue).leases)

    assert first.cancelled()
    assert second.startswith(b"+OK")
    after = database.leases.find_one()
    assert (holder["owner"], holder["fence"]) == (after["owner"], after["fence"])
    async with Dialogue(dialogue.server) as rival:
        assert (await rival.login("luke", "hello")).startswith(b"-ERR [IN-USE]")


async def test_a_client_that_leaves_while_its_claim_is_slow_locks_nobody_out(
    log_in, fail_point, database
):
    dialogue, _ = await log_in(name="nobody")
    fail_point(
        mode={"times": 1}, failCommands=["findAndModify"], blockConnection=True, blockTimeMS=SLOW
    )
    login = asyncio.create_task(dialogue.login("luke", "hello"))
    await asyncio.sleep(SLOW / 2000)
    leaving = asyncio.create_task(dialogue.hang_up())
    await asyncio.wait([leaving, login])

    async with asyncio.timeout(5):
        while database.leases.find_one() is None:  # noqa: ASYNC110 - the late claim is there
            await asyncio.sleep(0.01)
        while True:
            async with Dialogue(dialogue.server) as other:
                if (await other.login("luke", "hello")).startswith(b"+OK"):
                    break
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("closed", [1, 2])
async def test_a_claim_that_got_no_answer_is_released(log_in, fail_point, closed):
    """The connection breaks, once or at the driver's second try too; the lease may be granted."""
    dialogue, _ = await log_in(name="nobody")
    fail_point(mode={"times": closed}, failCommands=["findAndModify"], closeConnection=True)

    await dialogue.login("luke", "hello")
    await dialogue.hang_up()
    await is_answered(serving(dialogue).leases) if closed == 1 else None

    async with Dialogue(dialogue.server) as other:
        assert (await other.login("luke", "hello")).startswith(b"+OK")


async def test_a_server_that_stops_releases_what_its_clients_left(log_in, fail_point, database):
    """Its claim is on the way while the client goes and the server stops."""
    dialogue, _ = await log_in(name="nobody")
    fail_point(
        mode={"times": 1}, failCommands=["findAndModify"], blockConnection=True, blockTimeMS=SLOW
    )
    login = asyncio.create_task(dialogue.login("luke", "hello"))
    await asyncio.sleep(SLOW / 2000)
    await dialogue.hang_up()
    await asyncio.wait([login])

    await dialogue.server.stop()

    assert database.leases.find_one()["owner"] is None


async def test_a_release_goes_on_when_its_session_is_cancelled(log_in, fail_point, database):
    dialogue, _ = await log_in()
    fail_point(mode={"times": 1}, failCommands=["update"], blockConnection=True, blockTimeMS=SLOW)
    leaving = asyncio.create_task(dialogue.session.release())
    await asyncio.sleep(SLOW / 2000)
    leaving.cancel()
    await asyncio.wait([leaving])

    await is_answered(serving(dialogue).leases)

    assert leaving.cancelled()
    assert database.leases.find_one()["owner"] is None


async def test_a_release_that_the_server_fails_is_tried_again(log_in, fail_point, database):
    dialogue, _ = await log_in()
    fail_point(mode={"times": 1}, failCommands=["update"], errorCode=50)

    answer = await dialogue.say("QUIT")
    await is_answered(serving(dialogue).leases)

    assert answer.startswith(b"+OK")
    assert database.leases.find_one()["owner"] is None
