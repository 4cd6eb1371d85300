"""Big maildrops: listed from the index, and without holding up anybody else."""

import asyncio
import time

import pytest
from bson import ObjectId

from pop3hub.auth import PopUser
from pop3hub_mongo.own import LISTING_INDEX, listing_pipeline

pytestmark = pytest.mark.mongo


def stages(plan):
    """The stages of a plan, from the outside in."""
    while plan:
        yield plan["stage"]
        plan = plan.get("inputStage")


@pytest.mark.parametrize("after", [None, ObjectId("000000000000000000000000")])
async def test_a_listing_reads_the_index_and_no_document(backend, database, after):
    for _ in range(3):
        await backend.store_message("luke", b"x" * 1000, None)
    await backend.store_message("luke", b"x", "kept-uid")

    command = {
        "aggregate": "messages",
        "pipeline": listing_pipeline("luke", after),
        "cursor": {},
        "hint": dict(LISTING_INDEX),
    }
    explained = database.command("explain", command, verbosity="executionStats")
    cursor = explained["stages"][0]["$cursor"] if "stages" in explained else explained

    statistics = cursor["executionStats"]
    plan = cursor["queryPlanner"]["winningPlan"]
    assert (4, 0) == (statistics["totalKeysExamined"], statistics["totalDocsExamined"])
    assert "PROJECTION_COVERED" in stages(plan.get("queryPlan", plan))


async def longest_pause(task):
    """How long the event loop kept another task waiting while this one ran."""
    longest = 0.0
    while not task.done():
        before = time.perf_counter()
        await asyncio.sleep(0)
        longest = max(longest, time.perf_counter() - before)
    return longest


@pytest.mark.slow
async def test_100_000_messages_stall_nobody(backend, log_in, database):
    """At login and at UIDL; the pause is that of this process, so it is tried more than once."""
    count = 100_000
    ids = backend.store._ids
    database.messages.insert_many(
        [{"_id": ids.new(), "user": "luke", "size": 1000, "ascii": True} for _ in range(count)]
    )
    dialogue, _ = await log_in(name="nobody")
    dialogue.server.plugins.hook_timeout = 60
    plugins, session = dialogue.server.plugins, dialogue.session

    pauses = []
    for _ in range(5):
        listing = asyncio.create_task(plugins.receive_messages(PopUser("luke"), session))
        pauses.append(await longest_pause(listing))
        assert count == len(listing.result())

    assert min(pauses) < 0.05, pauses
