"""Fixtures of the protocol tests: dialogues without sockets, and servers with them."""

import asyncio
import importlib.util
import logging
import sys
from contextlib import AsyncExitStack
from functools import cache

import pytest
import structlog

from pop3hub.cli.main import main
from pop3hub.i18n.catalogue import Catalogue
from pop3hub.server.server import PopServer
from pop3hub.testing.dialogue import Dialogue
from tests.support.program import Filed, Outcome, Stdin, install_filed_store
from tests.support.serving import Client, Store

# Twenty languages are read and checked for each server; once is enough for these tests.
READ = cache(Catalogue.load)


@pytest.fixture
def languages_once(monkeypatch):
    """Servers of this test share the languages that pop3hub brings."""
    load = Catalogue.load

    def load_once(directories=(), *, default="en"):
        return load(directories, default=default) if directories else READ(default=default)

    monkeypatch.setattr(Catalogue, "load", load_once)


def pytest_asyncio_loop_factories(item):
    """Run the tests of modules that say `ON_BOTH_LOOPS` on uvloop too, where it is installed."""
    loops = {"asyncio": asyncio.new_event_loop}
    if getattr(item.module, "ON_BOTH_LOOPS", False) and importlib.util.find_spec("uvloop"):
        loops["uvloop"] = importlib.import_module("uvloop").new_event_loop
    return loops


@pytest.fixture
def store():
    """The mail store behind all dialogues and servers of a test."""
    return Store()


@pytest.fixture
async def stack():
    """What a test opened, closed in the end."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def open_dialogue(store, stack, languages_once):
    """Return a function that opens a dialogue in AUTHORIZATION, on a server of its own."""

    async def open_dialogue(server=None, **settings):
        if server is None:
            settings = {"bcrypt_cost": 4} | settings
        return await stack.enter_async_context(Dialogue(server or store, **settings))

    return open_dialogue


@pytest.fixture
async def dialogue(open_dialogue):
    """A dialogue in AUTHORIZATION."""
    return await open_dialogue()


@pytest.fixture
def open_maildrop(store, open_dialogue):
    """Return a function that puts messages into luke's maildrop and opens it in a dialogue."""

    async def open_maildrop(*messages, utf8=False, **settings):
        store.put(*messages)
        dialogue = await open_dialogue(**settings)
        if utf8:
            await dialogue.say("UTF8")
        await dialogue.login("luke", "hello")
        return dialogue

    return open_maildrop


@pytest.fixture
def serve(store, stack, languages_once):
    """Return a function that starts a server on loopback, with as many listeners as asked for."""

    async def serve(listen="pop3://127.0.0.1:0", **settings):
        settings = {"failure_delay": 0, "bcrypt_cost": 4} | settings
        return await stack.enter_async_context(PopServer(backend=store, listen=listen, **settings))

    return serve


@pytest.fixture
def connect(stack):
    """Return a function that connects to a server and reads the greeting."""

    async def connect(server, port=0, tls=None):
        client = await Client.connect(server.addresses[port], tls)
        stack.push_async_callback(client.close)
        client.greeting = await client.line()
        return client

    return connect


@pytest.fixture
def pop3hub(monkeypatch, capfd):
    """Return a function that runs the command line in this process."""

    def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", Stdin(stdin))
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return Outcome(ended.value.code, *capfd.readouterr())

    yield run
    structlog.reset_defaults()
    logging.basicConfig(force=True, handlers=[])


@pytest.fixture
def filed(tmp_path, monkeypatch):
    """The options of a store in a file, installed for this test; and the file."""
    monkeypatch.syspath_prepend(install_filed_store(tmp_path / "site"))
    return Filed(tmp_path / "filed.pickle")
