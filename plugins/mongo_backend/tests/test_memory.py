"""A message of 1 GiB goes in and out in little memory, in a process of its own."""

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.mongo, pytest.mark.slow]

PROGRAM = """
import asyncio, json, resource, sys
from pop3hub import PopUser
from pop3hub_mongo import MongoBackend

PIECE = b"0123456789abcd\\r\\n" * 8192
PIECES = 2**30 // len(PIECE)

def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

async def contents():
    for _ in range(PIECES):
        yield PIECE

async def main():
    backend = MongoBackend()
    backend.configure(json.loads(sys.argv[1]))
    await backend.startup(None)
    await backend.store_user(PopUser("luke"), replace=False)
    await backend.store_message("luke", b"warm" * 1_000_000, None)
    before = memory()
    await backend.store_message("luke", contents(), None)
    delivered = memory() - before
    (page,) = [page async for page in backend.list_messages(PopUser("luke"))]
    octets = 0
    async for chunk in await backend.open_contents(page[1], PopUser("luke")):
        octets += len(chunk)
    await backend.shutdown()
    print(json.dumps([octets, delivered, memory() - before]))

asyncio.run(main())
"""


def test_a_message_of_1_gib_takes_less_than_64_mib(options):
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(options)],
        stdout=subprocess.PIPE,
        timeout=180,
        check=True,
    )

    octets, delivered, read = json.loads(ran.stdout)
    assert 2**30 == octets
    assert max(delivered, read) < 64
