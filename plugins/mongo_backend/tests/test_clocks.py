"""Nodes whose clocks are off: what is kept, removed and listed goes by the server's clock alone."""

import asyncio
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from pop3hub import PopUser
from pop3hub_mongo.message_bodies import CHUNK

pytestmark = [pytest.mark.mongo, pytest.mark.slow]

BEHIND, AHEAD = "-25h", "+49h"
PIECE = b"0123456789abcd\r\n" * (4 * CHUNK // 16)


# With faketime 0.9.10, a sleep by a clock that isn't shifted is refused, and PyMongo's threads end.
PROGRAM = """
import runpy, select, time
time.sleep = lambda seconds: select.select([], [], [], seconds)
runpy.run_module("pop3hub", run_name="__main__")
"""


@pytest.fixture
def faketime():
    """Return the environment in which a program's clock is off."""
    if not shutil.which("faketime"):
        reason = "no faketime: apt-get install faketime"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return shifted


def shifted(clock):
    # The command itself would be one more process, which doesn't end its child with it.
    told = subprocess.check_output(["faketime", "-f", clock, "env"], text=True).splitlines()
    preload = [line.partition("=")[2] for line in told if line.startswith("LD_PRELOAD=")]
    # Only what tells the date is off: time that is measured goes on as everywhere.
    return {"LD_PRELOAD": preload[0], "FAKETIME": clock, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@pytest.fixture
async def off(options, faketime):
    """Start a pop3hub command on a node whose clock is off; return its process."""
    settings = {f"POP3HUB_{name.upper()}": value for name, value in options.items()}
    environment = {**os.environ, **settings}
    processes = []

    async def off(clock, *arguments):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, "--backend", "mongo", *arguments),
            env={**environment, **faketime(clock)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        processes.append(process)
        return process

    yield off
    for process in processes:
        if process.returncode is None:
            process.kill()
            await process.communicate(b"")


async def bodies(backend):
    page = [m for page in [p async for p in backend.list_messages(PopUser("luke"))] for m in page]
    contents = [await backend.open_contents(message, PopUser("luke")) for message in page]
    return [
        each if isinstance(each, bytes) else b"".join([chunk async for chunk in each])
        for each in contents
    ]


async def begin_to_deliver(off, clock, database):
    """Deliver all but the end of a long message."""
    process = await off(clock, "deliver", "luke")
    process.stdin.write(PIECE * 2)
    await process.stdin.drain()
    async with asyncio.timeout(20):
        while not database["bodies.chunks"].count_documents({}):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    return process


def test_a_clock_is_really_off(faketime):
    told = subprocess.check_output(
        [sys.executable, "-c", "import time; print(time.time())"],
        env={**os.environ, **faketime(BEHIND)},
    )

    off_by = datetime.now(UTC) - datetime.fromtimestamp(float(told), UTC)
    assert timedelta(hours=24.9) < off_by < timedelta(hours=25.1)


@pytest.mark.parametrize("clock", [BEHIND, AHEAD])
async def test_a_delivery_outlives_a_sweep_whatever_its_nodes_clock_says(
    off, backend, database, clock
):
    process = await begin_to_deliver(off, clock, database)

    swept = await backend.sweep(86_400)
    await process.communicate(b"")

    assert 0 == swept.bodies
    assert 0 == process.returncode
    assert [PIECE * 2] == await bodies(backend)


@pytest.mark.parametrize("clock", [BEHIND, AHEAD])
async def test_a_sweep_spares_a_delivery_whatever_the_sweepers_clock_says(
    off, backend, database, clock
):
    """Its own clock would call each delivery a day old, or none."""
    process = await begin_to_deliver(off, "+0", database)

    sweep = await off(clock, "sweep")
    told, _ = await sweep.communicate(b"")
    await process.communicate(b"")

    assert b" 0 bodies " in told
    assert 0 == process.returncode
    assert [PIECE * 2] == await bodies(backend)


async def test_messages_are_in_the_order_of_arrival_whatever_the_clocks_say(off, backend):
    for clock in (AHEAD, BEHIND, "+0"):
        process = await off(clock, "deliver", "luke")
        await process.communicate(clock.encode())

    assert [f"{clock}\r\n".encode() for clock in (AHEAD, BEHIND, "+0")] == await bodies(backend)


async def test_mail_expires_by_the_servers_clock(off, backend, log_in):
    """RFC 2449 s6.7: the node that took it was a day and an hour behind."""
    process = await off(BEHIND, "deliver", "luke")
    await process.communicate(b"new")

    dialogue, _ = await log_in(expire=1)

    assert b"+OK 1 5\r\n" == await dialogue.say("STAT")
