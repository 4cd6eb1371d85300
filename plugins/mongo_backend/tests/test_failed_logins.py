"""Failed logins are counted over all nodes, on the server's time, and are forgotten."""

import asyncio
from datetime import timedelta

import pytest

from pop3hub import Limits, PopServer
from pop3hub.peer import Peer
from pop3hub.testing import Dialogue
from pop3hub_mongo import MongoBackend
from pop3hub_mongo.failed_logins import PARTS

pytestmark = pytest.mark.mongo

WINDOW = 600.0
HOME = Peer("198.51.100.1", 5000)
ADDRESS = "192.0.2.7"
WRONG = b"-ERR [AUTH] wrong user name or password\r\n"


def pass_time(database, seconds):
    """What time does to all that was counted."""
    back = {"$subtract": ["$$this.at", seconds * 1000]}
    aged = {"$map": {"input": "$parts", "in": {"at": back, "n": "$$this.n"}}}
    database.failed_logins.update_many({}, [{"$set": {"parts": aged}}])


async def test_two_nodes_count_together(start):
    first, second = await start(), await start()
    await first.count_failed_login("luke", ADDRESS, WINDOW)

    assert (2, 1) == await second.count_failed_login("luke", "192.0.2.8", WINDOW)
    assert (1, 2) == await second.count_failed_login("leia", ADDRESS, WINDOW)
    assert (3, 3) == await first.count_failed_login("luke", ADDRESS, WINDOW)


async def test_failures_at_one_moment_are_all_counted(start):
    """The first ones make the document, all at once."""
    nodes = [await start(), await start()]

    counted = await asyncio.gather(
        *(node.count_failed_login("luke", ADDRESS, WINDOW) for node in nodes * 20)
    )

    by_name, by_address = zip(*counted, strict=True)
    assert list(range(1, 41)) == sorted(by_name) == sorted(by_address)


async def test_what_is_older_than_the_window_is_forgotten(start, database):
    node = await start()
    for _ in range(3):
        await node.count_failed_login("luke", ADDRESS, WINDOW)
    pass_time(database, WINDOW * 0.6)
    assert (4, 4) == await node.count_failed_login("luke", ADDRESS, WINDOW)
    pass_time(database, WINDOW * 0.6)

    assert (2, 2) == await node.count_failed_login("luke", ADDRESS, WINDOW)


async def test_failures_that_go_on_are_counted_in_a_bounded_document(start, database):
    """Three in each part, for two windows: one window of them counts."""
    node = await start()
    for _ in range(2 * 3 * PARTS):
        counted, _ = await node.count_failed_login("luke", "", WINDOW)
        pass_time(database, WINDOW / PARTS / 3)

    (document,) = database.failed_logins.find()
    assert len(document["parts"]) <= PARTS
    assert 3 * (PARTS - 1) <= counted <= 3 * PARTS


async def test_the_server_collects_what_is_forgotten(start, database):
    node = await start()
    await node.count_failed_login("luke", ADDRESS, WINDOW)

    indexes = database.failed_logins.index_information().values()
    assert [0] == [index["expireAfterSeconds"] for index in indexes if index["key"] == [("gc", 1)]]
    for document in database.failed_logins.find():
        assert document["parts"][-1]["at"] + timedelta(seconds=WINDOW) == document["gc"]


async def test_what_is_empty_does_not_count(start, database):
    node = await start()

    assert (0, 0) == await node.count_failed_login("", "", WINDOW)
    assert (0, 1) == await node.count_failed_login("", ADDRESS, WINDOW)
    assert 1 == database.failed_logins.count_documents({})


@pytest.mark.parametrize(
    "name",
    ["$where", "a.b", "\0", "\0user\0", "\ud800", "$$NOW", "x" * 100_000, ADDRESS],
    ids=ascii,
)
async def test_a_name_may_be_anything(start, database, name):
    """It is a digest in the store: an address is nobody's name, and a password isn't kept."""
    node = await start()
    await node.count_failed_login("luke", ADDRESS, WINDOW)

    assert (1, 2) == await node.count_failed_login(name, ADDRESS, WINDOW)
    assert (2, 3) == await node.count_failed_login(name, ADDRESS, WINDOW)
    assert {16} == {len(document["_id"]) for document in database.failed_logins.find()}


@pytest.mark.usefixtures("backend")
async def test_a_login_that_succeeds_counts_for_nothing(log_in, database):
    _, answer = await log_in()

    assert answer.startswith(b"+OK")
    assert 0 == database.failed_logins.count_documents({})


async def attempt(server, password):
    async with Dialogue(server, peer=HOME) as dialogue:
        return await dialogue.login("luke", password)


@pytest.mark.usefixtures("backend")
async def test_each_node_locks_out_at_its_first_failure_after_the_limit(options):
    def node():
        return PopServer(
            backend=MongoBackend(),
            options=options,
            listen=(),
            failure_delay=0,
            allow_plaintext=True,
            limits=Limits(failed_logins_per_user=3),
        )

    async with node() as first, node() as second:
        for server in (first, first, second):
            assert WRONG == await attempt(server, "wrong")
        assert WRONG == await attempt(second, "hello")
        assert not first.context.guard.is_locked_out("luke", HOME, first.settings)
        assert WRONG == await attempt(first, "wrong")
        assert WRONG == await attempt(first, "hello")


async def test_a_server_that_fails_leaves_a_node_its_own_counters(log_in, fail_point):
    fail_point(failCommands=["findAndModify"], errorCode=50)
    limits = Limits(failed_logins_per_user=2)

    dialogue, first = await log_in(password="wrong", limits=limits)
    second = await dialogue.login("luke", "wrong")

    assert [WRONG, WRONG] == [first, second]
    server = dialogue.server
    assert server.context.guard.is_locked_out("luke", HOME, server.settings)
