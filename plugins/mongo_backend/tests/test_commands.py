"""The operator's commands, as they are typed, and what an import of the plugin costs."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pop3hub_mongo

PACKAGE = Path(pop3hub_mongo.__file__).parent


@pytest.fixture
def options(mongo_uri, database_name):
    """With one driver: a process takes long to start."""
    return {"mongo_uri": mongo_uri, "mongo_database": database_name, "mongo_driver": "pymongo"}


@pytest.fixture
def pop3hub(options):
    def run(*arguments):
        settings = {f"POP3HUB_{name.upper()}": value for name, value in options.items()}
        ran = subprocess.run(
            [sys.executable, "-m", "pop3hub", "--backend", "mongo", *arguments],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return ran.returncode, ran.stdout, ran.stderr

    return run


@pytest.mark.mongo
async def test_an_operator_lists_and_breaks_a_lock(backend, log_in, pop3hub):
    _, held = await log_in()

    listed = pop3hub("lock", "list")
    released = pop3hub("lock", "release", "Luke")
    again = pop3hub("lock", "release", "luke")

    assert held.startswith(b"+OK")
    name, _, peer, _ = listed[1].split("\t")
    assert (0, "luke", "127.0.0.1:50000") == (listed[0], name, peer)
    assert (0, "the maildrop of 'Luke' is free\n") == released[:2]
    assert (1, "pop3hub: nobody holds the maildrop of 'luke'\n") == again[::2]


@pytest.mark.mongo
async def test_an_operator_sweeps(backend, database, pop3hub):
    await backend.store_message("luke", b"x" * 300_000, None)
    database.messages.delete_many({})

    assert " 0 bodies " in pop3hub("sweep")[1]
    assert " 1 bodies " in pop3hub("sweep", "--older-than", "0")[1]


def test_the_plugin_is_imported_without_the_client_libraries():
    """A command line that only wants help shall not wait for them."""
    program = "import sys, pop3hub_mongo; print({'motor', 'pymongo'} & set(sys.modules))"

    assert "set()\n" == subprocess.check_output([sys.executable, "-c", program], text=True)


def test_one_module_knows_the_client_libraries_apart():
    knowing = {
        path.stem
        for path in PACKAGE.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom)
        and (
            (node.module or "").startswith("motor")
            or {"AsyncMongoClient"} & {a.name for a in node.names}
        )
    }

    assert {"driver"} == knowing
