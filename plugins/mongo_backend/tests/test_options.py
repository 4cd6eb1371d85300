"""Settings that can't work are one line for the operator, without secrets in it."""

import io

import pytest

from pop3hub import ConfigurationError
from pop3hub_mongo import MongoBackend

pytestmark = pytest.mark.usefixtures("lost_sockets")

NOBODY = "mongodb://luke:s3cret@127.0.0.1:1/?serverSelectionTimeoutMS=50"


def configured(**options):
    backend = MongoBackend()
    backend.configure({f"mongo_{name}": value for name, value in options.items()})
    return backend


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_a_server_that_cannot_be_reached_is_one_line(driver):
    backend = configured(uri=NOBODY, driver=driver)

    with pytest.raises(ConfigurationError) as caught:
        await backend.startup(None)

    message = str(caught.value)
    assert message.startswith("MongoDB at 127.0.0.1:1 can't be reached: 127.0.0.1:1: [Errno 111]")
    assert "s3cret" not in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "uri",
    [
        "http://luke:s3cret@localhost",
        "mongodb://luke:s3:cret@localhost",
        "mongodb://luke:s3/cret@localhost",
        "mongodb://luke:s3cret@localhost:0",
        "mongodb://luke:s3cret@localhost/?tlsCAFile=/nowhere",
        "s3cret",
    ],
)
async def test_a_uri_that_cannot_be_used_is_not_quoted(uri):
    with pytest.raises(ConfigurationError, match=r"^the MongoDB URI can't be ") as caught:
        await configured(uri=uri, driver="pymongo").startup(None)

    assert "cret" not in str(caught.value)


async def test_the_uri_is_read_from_a_file(tmp_path):
    (tmp_path / "uri").write_text(NOBODY + "\n")

    with pytest.raises(ConfigurationError, match=r"MongoDB at 127\.0\.0\.1:1 can't"):
        await configured(uri_file=str(tmp_path / "uri"), driver="pymongo").startup(None)


async def test_the_uri_is_read_from_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(NOBODY))

    with pytest.raises(ConfigurationError, match=r"MongoDB at 127\.0\.0\.1:1 can't"):
        await configured(uri_file="-", driver="pymongo").startup(None)


async def test_standard_input_is_read_once_for_all_workers(monkeypatch):
    """The parent has the backend configured before it forks, and each worker once more."""
    monkeypatch.setattr("sys.stdin", io.StringIO(NOBODY))
    backend = configured(uri_file="-")

    backend.configure({"mongo_uri_file": "-"})

    assert NOBODY == backend.options.uri


async def test_a_file_without_a_uri_is_told(tmp_path):
    (tmp_path / "empty").write_text("\n")

    for name, reason in (("empty", "there is nothing in it"), ("none", "No such file")):
        with pytest.raises(ConfigurationError, match=f"--mongo-uri-file .*{name}: {reason}"):
            await configured(uri_file=str(tmp_path / name)).startup(None)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"user": "x"}, "has no key 'user'"),
        ({"users": ""}, "users must not be empty"),
        ({"users": 5}, "users must be a string"),
        ({"filter": "x"}, "filter must be a table"),
        ({"delete": "hide"}, 'delete must be "remove" or "flag:NAME"'),
        ({"delete": "flag:"}, 'delete must be "remove" or "flag:NAME"'),
    ],
)
def test_a_schema_that_cannot_be_right_is_told(table, message):
    with pytest.raises(ConfigurationError, match=message):
        configured(schema=table)


def test_an_unknown_driver_is_told():
    with pytest.raises(ConfigurationError, match="--mongo-driver is one of motor, pymongo"):
        configured(driver="psycopg")


@pytest.mark.mongo
async def test_a_schema_needs_a_database(options):
    backend = MongoBackend()
    backend.configure({**options, "mongo_schema": {"users": "x"}})

    with pytest.raises(ConfigurationError, match="needs the name of the database"):
        await backend.startup(None)


@pytest.mark.mongo
async def test_a_program_may_bring_its_own_client(options, database):
    from pymongo import AsyncMongoClient  # noqa: PLC0415 - the test of it

    async with AsyncMongoClient(options["mongo_uri"]) as client:
        backend = MongoBackend(client)
        backend.configure({"mongo_database": options["mongo_database"]})
        await backend.startup(None)
        await backend.ready()
        await backend.shutdown()
        assert await client.admin.command("ping")
