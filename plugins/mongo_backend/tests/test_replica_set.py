"""Three members, kill -9 of the primary: what a client was told is true afterwards."""

import asyncio
import time

import bcrypt
import pymongo
import pytest

from pop3hub import PopError, PopUser
from pop3hub.testing import Dialogue
from pop3hub_mongo import MongoBackend
from pop3hub_mongo.lease import LAPSED

pytestmark = [pytest.mark.mongo, pytest.mark.slow, pytest.mark.usefixtures("lost_sockets")]

USERS = [f"user{n}" for n in range(12)]
KEPT = 5
BIG = b"0123456789abcd\r\n" * (40 * 255 * 1024 // 16)


class ReplicaSet:
    """Three members, one of which can be killed at a time."""

    def __init__(self, members):
        self.members = members

    @property
    def uri(self):
        hosts = ",".join(member.address for member in self.members)
        return f"mongodb://{hosts}/?replicaSet=rs0&heartbeatFrequencyMS=500&serverSelectionTimeoutMS=5000"

    def kill_primary(self):
        primary = self.members[0].primary_of(self.members)
        primary.kill()
        return primary

    def heal(self):
        for member in self.members:
            if member.process is None:
                member.start()
        self.members[0].primary_of(self.members)
        for member in self.members:
            member.wait_until_in_sync()


@pytest.fixture(scope="module")
def members(tmp_path_factory, mongod_class):
    members = [mongod_class(tmp_path_factory.mktemp(f"member{n}")) for n in range(3)]
    try:
        for member in members:
            member.start()
        members[0].initiate(members[1:], electionTimeoutMillis=1000, heartbeatIntervalMillis=200)
        yield members
    finally:
        for member in members:
            member.kill()


@pytest.fixture
def replica_set(members):
    replica_set = ReplicaSet(members)
    replica_set.heal()
    return replica_set


@pytest.fixture(params=["motor", "pymongo"])
async def node(request, replica_set):
    """A backend with users and mail, and the options for others."""
    options = {
        "mongo_uri": replica_set.uri,
        "mongo_driver": request.param,
        "mongo_database": f"test_{request.param}",
    }
    backend = MongoBackend()
    backend.configure(options)
    await backend.startup(None)
    backend.test_options = options
    password = bcrypt.hashpw(b"hello", bcrypt.gensalt(4)).decode()
    for name in USERS:
        await backend.store_user(PopUser(name, password), replace=False)
    yield backend
    replica_set.heal()
    with pymongo.MongoClient(replica_set.uri) as client:
        client.drop_database(options["mongo_database"])
    await backend.shutdown()


@pytest.fixture
async def server(node):
    """A server over another backend on the same database."""
    async with Dialogue(MongoBackend(), options=node.test_options) as dialogue:
        yield dialogue.server


async def listed(node, name):
    return [m.uid async for page in node.list_messages(PopUser(name)) for m in page]


async def logged_in(server, name):
    dialogue = await Dialogue(server).__aenter__()
    return dialogue, await dialogue.login(name, "hello")


async def test_logins_during_an_election_succeed_or_may_be_tried_again(node, server, replica_set):
    uids = {name: await node.store_message(name, b"x", None) for name in USERS}
    logins = [asyncio.create_task(logged_in(server, name)) for name in USERS[:6]]
    replica_set.kill_primary()
    logins += [asyncio.create_task(logged_in(server, name)) for name in USERS[6:]]

    for name, login in zip(USERS, logins, strict=True):
        dialogue, answer = await login
        if answer.startswith(b"+OK"):
            assert f"+OK 1 {uids[name]}\r\n".encode() == await dialogue.say("UIDL 1")
        else:
            assert answer.startswith((b"-ERR [SYS/TEMP]", b"-ERR [IN-USE]"))
        await dialogue.hang_up()

    dialogue, answer = await logged_in(server, "user0")
    assert answer.startswith(b"+OK")
    await dialogue.hang_up()


async def test_a_message_goes_out_whole_while_its_primary_dies(node, server, replica_set):
    await node.store_message("user0", BIG, None)
    dialogue, _ = await logged_in(server, "user0")
    loading = await server.plugins.load_contents(dialogue.session.maildrop[1], dialogue.session)
    received = [await anext(loading) for _ in range(3)]

    replica_set.kill_primary()
    received += [chunk async for chunk in loading]

    assert BIG == b"".join(received)
    await dialogue.hang_up()


async def test_quit_says_ok_only_for_what_is_gone(node, server, replica_set):
    """Afterwards what was answered +OK is gone, and what nobody marked is there."""
    marked, kept = {}, {}
    sessions = {}
    for name in USERS:
        uids = [await node.store_message(name, b"x", None) for _ in range(2 * KEPT)]
        marked[name], kept[name] = uids[:KEPT], uids[KEPT:]
        sessions[name], _ = await logged_in(server, name)
        for number in range(1, KEPT + 1):
            await sessions[name].say(f"DELE {number}")

    async def quit_(name, delay):
        await asyncio.sleep(delay)
        return await sessions[name].say("QUIT")

    # Some before, some while and some after the primary goes.
    quits = [asyncio.create_task(quit_(name, index / 100)) for index, name in enumerate(USERS)]
    await asyncio.sleep(len(USERS) / 200)
    replica_set.kill_primary()
    answers = dict(zip(USERS, await asyncio.gather(*quits), strict=True))

    for name, answer in answers.items():
        there = await listed(node, name)
        assert kept[name] == [uid for uid in there if uid in kept[name]]
        if answer.startswith(b"+OK"):
            assert kept[name] == there
        else:
            assert answer.startswith(b"-ERR")
    replica_set.heal()
    await node.leases.collection.update_many({}, {"$set": {"exp": LAPSED}})
    await node.sweep(0)
    assert 0 == await node.leases.collection.count_documents({"purge": {"$exists": True}})
    for name in USERS:
        assert await listed(node, name) in (kept[name], marked[name] + kept[name])


async def test_acknowledged_deliveries_outlive_the_primary(node, replica_set):
    acknowledged = {name: [] for name in USERS}
    stop = time.monotonic() + 6

    async def deliver(name):
        count = 0
        while time.monotonic() < stop:
            count += 1
            # Long ones and short ones: chunks and a document, or a document alone.
            contents = f"{name} {count}\r\n".encode() * (1 if count % 5 else 60_000)
            try:
                uid = await node.store_message(name, contents, None)
            except PopError:
                continue
            acknowledged[name].append((uid, contents))

    deliveries = [asyncio.create_task(deliver(name)) for name in USERS]
    await asyncio.sleep(1)
    replica_set.kill_primary()
    await asyncio.gather(*deliveries)

    replica_set.heal()
    for name in USERS:
        pages = [page async for page in node.list_messages(PopUser(name))]
        messages = {message.uid: message for page in pages for message in page}
        assert set(messages) >= {uid for uid, _ in acknowledged[name]}
        for uid, contents in acknowledged[name]:
            found = await node.open_contents(messages[uid], PopUser(name))
            if not isinstance(found, bytes):
                found = b"".join([chunk async for chunk in found])
            assert contents == found
    await node.sweep(0)
    chunks = await node.store.bodies.chunks.distinct("files_id")
    long = {m["_id"] async for m in node.store.messages.find({"chunks": {"$gt": 0}})}
    assert long == set(chunks)


async def test_without_a_majority_nobody_gets_a_lease(node, server, replica_set):
    """Writes of a lone primary time out: nothing is granted that could be lost."""
    for member in replica_set.members[1:]:
        member.stop()
    try:
        began = time.monotonic()
        dialogue, answer = await logged_in(server, "user0")
    finally:
        for member in replica_set.members[1:]:
            member.go_on()

    assert answer.startswith(b"-ERR [SYS/TEMP]")
    assert time.monotonic() - began < 31
    await dialogue.hang_up()


async def test_a_server_that_was_restarted_is_found_again(node, server, replica_set):
    await node.store_message("user0", b"x", None)
    for member in replica_set.members:
        member.kill()

    dialogue, refused = await logged_in(server, "user0")
    replica_set.heal()
    accepted = await dialogue.login("user0", "hello")

    assert refused.startswith(b"-ERR [SYS/TEMP]")
    assert accepted.startswith(b"+OK")
    assert b"+OK 1 3\r\n" == await dialogue.say("STAT")
    await dialogue.hang_up()
