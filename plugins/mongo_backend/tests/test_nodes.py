"""pop3hub itself, as processes: nodes that share one set of mailboxes, and one that is killed."""
# ruff: noqa: S311 - chance makes the load, no secrets

import asyncio
import collections
import contextlib
import json
import os
import random
import signal
import socket
import sys
import time

import pytest
from bson import ObjectId

from pop3hub_mongo import MongoBackend

pytestmark = [pytest.mark.mongo, pytest.mark.slow]

SECONDS = 60 if os.environ.get("CI") == "true" else 15
USERS = [f"user{n}" for n in range(200)]


@contextlib.asynccontextmanager
async def node(options, *arguments):
    """A serving pop3hub; yields its process and its port."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    command = ["-m", "pop3hub", "--backend", "mongo", *given, "--failure-delay", "0"]
    command += ["--listen", f"pop3://127.0.0.1:{port}", "--log-level", "error", *arguments]
    process = await asyncio.create_subprocess_exec(sys.executable, *command)
    try:
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.05)
        yield process, port
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def test_workers_share_a_uri_that_was_piped_to_them(mongo_uri, database_name):
    """The first one has read it all; the one that replaces a dead worker has to know it too."""
    command = ["-m", "pop3hub", "--backend=mongo", "--mongo-uri-file=-", "--workers=2"]
    command += [f"--mongo-database={database_name}", "--listen=pop3://127.0.0.1:0"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *command, "--log-format=json"),
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )

    async def ready():
        while line := await process.stderr.readline():
            event = json.loads(line)
            if event["event"] == "worker.ready":
                return event["pid"]
        raise EOFError

    try:
        process.stdin.write(mongo_uri.encode())
        process.stdin.close()
        async with asyncio.timeout(20):
            pids = {await ready(), await ready()}
            os.kill(max(pids), signal.SIGKILL)
            assert await ready() not in pids
    finally:
        process.terminate()
        await process.communicate()


class Client:
    """A POP3 client: each command returns the whole answer."""

    def __init__(self, reader, writer):
        self._reader = reader
        self._writer = writer

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(cls, port):
        client = cls(*await asyncio.open_connection("127.0.0.1", port, limit=1024 * 1024))
        try:
            assert (await client._reader.readline()).startswith(b"+OK")
            yield client
        finally:
            client._writer.close()

    async def send(self, line):
        self._writer.write(line.encode() + b"\r\n")
        await self._writer.drain()

    async def say(self, line, *, lines=False):
        async with asyncio.timeout(40):
            await self.send(line)
            answer = await self._reader.readline()
            if lines and answer.startswith(b"+OK"):
                while not answer.endswith(b"\r\n.\r\n"):
                    answer += await self._reader.readline()
        return answer

    async def log_in(self, name):
        await self.say(f"USER {name}")
        return await self.say("PASS hello")


async def test_a_node_that_is_killed_within_quit_loses_nothing_that_was_not_marked(
    backend, options, database, fail_point
):
    """The intent is written, nothing is removed yet; the login after the lapse does it."""
    uids = [await backend.store_message("luke", b"x", None) for _ in range(4)]
    async with node(options) as (process, port), Client.connected(port) as client:
        assert (await client.log_in("luke")).startswith(b"+OK")
        for number in (1, 2, 3):
            await client.say(f"DELE {number}")
        fail_point(failCommands=["delete"], blockConnection=True, blockTimeMS=5_000)
        await client.send("QUIT")
        async with asyncio.timeout(10):
            while "purge" not in database.leases.find_one():  # noqa: ASYNC110 - a server's state
                await asyncio.sleep(0.01)
        process.kill()
        assert b"" == await client._reader.readline()
    fail_point(mode="off")

    async with node(options) as (_, port):
        async with Client.connected(port) as client:
            assert (await client.log_in("luke")).startswith(b"-ERR [IN-USE]")
        async with asyncio.timeout(40):  # the lease lapses half a minute after its renewal
            while True:
                async with Client.connected(port) as client:
                    answer = await client.log_in("luke")
                    if answer.startswith(b"+OK"):
                        listed = await client.say("UIDL", lines=True)
                        break
                await asyncio.sleep(0.5)

    assert f"1 {uids[3]}\r\n.\r\n".encode() == listed.partition(b"\r\n")[2]
    assert "purge" not in database.leases.find_one()


class Mailboxes:
    """What 200 users were sent, and what they have fetched."""

    def __init__(self, ports):
        self.ports = ports
        self.holders = collections.Counter()
        self.fetched = collections.defaultdict(list)
        self.sent = collections.defaultdict(set)
        self.sessions = collections.Counter()

    async def session(self, name):
        """Fetch and remove all mail of a user, over one node or the other; sometimes break off."""
        async with Client.connected(random.choice(self.ports)) as client:
            answer = await client.log_in(name)
            if not answer.startswith(b"+OK"):
                assert answer.startswith(b"-ERR [IN-USE]"), answer
                self.sessions["in use"] += 1
                return
            self.holders[name] += 1
            assert 1 == self.holders[name], f"two sessions hold the maildrop of {name}"
            fetched = []
            uids = (await client.say("UIDL", lines=True)).splitlines()[1:-1]
            for number in range(1, len(uids) + 1):
                body = await client.say(f"RETR {number}", lines=True)
                fetched.append(body.splitlines()[1])
                assert (await client.say(f"DELE {number}")).startswith(b"+OK")
            self.holders[name] -= 1
            if random.random() < 0.1:
                self.sessions["lost"] += 1
                return
            assert (await client.say("QUIT")).startswith(b"+OK")
            self.sessions["quit"] += 1
            self.fetched[name] += fetched

    async def fetch(self, name, until):
        while time.monotonic() < until:
            await self.session(name)
            await asyncio.sleep(random.uniform(0, 2))

    async def deliver(self, backend, until):
        number = 0
        while time.monotonic() < until:
            number += 1
            name = random.choice(USERS)
            line = f"{name}-{number}".encode()
            body = line + b"\r\n" + b"x" * random.choice((10, 10_000, 300_000)) + b"\r\n"
            await backend.store_message(name, body, None)
            self.sent[name].add(line)


@pytest.fixture
async def delivering(mongo_uri, database_name, database, password_hash):
    """A backend that delivers, to users who have nothing yet."""
    backend = MongoBackend()
    options = {"mongo_uri": mongo_uri, "mongo_database": database_name}
    backend.configure(options | {"mongo_driver": "pymongo"})
    await backend.startup(None)
    database.users.insert_many(
        {"_id": name, "account": ObjectId(), "password": password_hash} for name in USERS
    )
    yield backend, options
    await backend.shutdown()


async def test_two_nodes_serve_one_set_of_mailboxes(delivering):
    """Nothing lost, nothing twice, never two holders; each user has two clients that poll."""
    backend, options = delivering
    async with (
        node(options | {"mongo_driver": "motor"}, "--workers=2") as (_, first),
        node(options | {"mongo_driver": "pymongo"}, "--workers=2") as (_, second),
    ):
        mailboxes = Mailboxes([first, second])
        until = time.monotonic() + SECONDS
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(mailboxes.deliver(backend, until))
            for name in USERS * 2:
                tasks.create_task(mailboxes.fetch(name, until))
        for name in USERS:
            while set(mailboxes.fetched[name]) != mailboxes.sent[name]:
                await mailboxes.session(name)
                assert time.monotonic() < until + 60, f"mail of {name} is lost"

    for name in USERS:
        assert sorted(mailboxes.sent[name]) == sorted(mailboxes.fetched[name])
    assert mailboxes.sessions["quit"] > len(USERS)
    assert mailboxes.sessions["in use"] > 0
