"""Faults of a server: what was promised holds, and it works again by itself."""

import asyncio

import pytest

from pop3hub import TemporaryFailure

pytestmark = pytest.mark.mongo

CHUNKS = 12
BIG = b"0123456789abcd\r\n" * (CHUNKS * 255 * 1024 // 16)


def with_settings(options, settings):
    joint = "&" if "?" in options["mongo_uri"] else "/?"
    return {"mongo_uri": f"{options['mongo_uri']}{joint}{settings}"}


async def test_a_dropped_connection_is_not_noticed(backend, log_in, fail_point):
    fail_point(mode={"times": 1}, failCommands=["find", "insert"], closeConnection=True)
    await backend.store_message("luke", b"x", None)
    fail_point(mode={"times": 1}, failCommands=["findAndModify"], closeConnection=True)

    dialogue, _ = await log_in()

    assert b"+OK 1 3\r\n" == await dialogue.say("STAT")


@pytest.mark.parametrize("command", ["find", "findAndModify", "aggregate"])
async def test_a_login_that_the_server_fails_may_be_tried_again(
    backend, log_in, fail_point, command
):
    await backend.store_message("luke", b"x", None)
    dialogue, _ = await log_in(name="nobody")
    fail_point(failCommands=[command], errorCode=50)

    refused = await dialogue.login("luke", "hello")
    fail_point(mode="off")
    accepted = await dialogue.login("luke", "hello")

    assert refused.startswith(b"-ERR [SYS/TEMP]")
    assert accepted.startswith(b"+OK")


async def test_a_slow_server_is_a_temporary_failure(start, options, fail_point):
    backend = await start(**with_settings(options, "socketTimeoutMS=100"))
    fail_point(failCommands=["find"], blockConnection=True, blockTimeMS=400)

    with pytest.raises(TemporaryFailure):
        await backend.get_user("luke")
    fail_point(mode="off")

    assert await backend.get_user("luke") is None


async def test_a_full_pool_is_a_temporary_failure_for_who_waits(start, options, fail_point):
    settings = "maxPoolSize=1&waitQueueTimeoutMS=100"
    backend = await start(**with_settings(options, settings))
    fail_point(failCommands=["find"], blockConnection=True, blockTimeMS=400)

    first, second = await asyncio.gather(
        backend.get_user("luke"), backend.get_user("luke"), return_exceptions=True
    )
    fail_point(mode="off")

    assert [None, TemporaryFailure] == [first, type(second)]
    assert await backend.get_user("luke") is None


@pytest.mark.parametrize("fault", [{"errorCode": 43}, {"closeConnection": True}])
async def test_a_stream_whose_cursor_is_gone_is_taken_up_again(backend, log_in, fail_point, fault):
    """43 is CursorNotFound: the server closes those that nobody reads for ten minutes."""
    await backend.store_message("luke", BIG, None)
    dialogue, _ = await log_in()
    fail_point(mode={"times": 1}, failCommands=["getMore"], **fault)

    answer = await dialogue.say("RETR 1")

    assert BIG + b".\r\n" == answer.partition(b"\r\n")[2]


async def test_a_message_that_cannot_be_read_to_its_end_has_no_final_dot(backend, log_in, database):
    await backend.store_message("luke", BIG, None)
    dialogue, _ = await log_in()
    database["bodies.chunks"].delete_one({"n": 7})

    answer = await dialogue.say("RETR 1")

    assert dialogue.closed
    assert BIG.startswith(answer.partition(b"\r\n")[2])


async def test_a_message_that_is_gone_is_told(backend, log_in, database):
    await backend.store_message("luke", BIG, None)
    dialogue, _ = await log_in()
    database.messages.delete_many({})

    assert (await dialogue.say("RETR 1")).startswith(b"-ERR [SYS/PERM]")


async def test_a_removal_whose_intent_is_not_written_removes_nothing(
    backend, log_in, database, fail_point
):
    await backend.store_message("luke", b"x", None)
    dialogue, _ = await log_in()
    await dialogue.say("DELE 1")
    fail_point(mode={"times": 1}, failCommands=["update"], errorCode=50)

    answer = await dialogue.say("QUIT")

    assert answer.startswith(b"-ERR [SYS/TEMP]")
    assert 1 == database.messages.count_documents({})


async def test_not_ready_while_the_server_answers_nobody(backend, fail_point):
    fail_point(failCommands=["ping"], errorCode=50)

    with pytest.raises(TemporaryFailure):
        await backend.ready()
