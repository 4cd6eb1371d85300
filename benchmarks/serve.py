"""pop3hub through its library, over mail that is made up as it is asked for.

For what no stored mail shows: messages of any size that are streamed, maildrops of any length. Any
name is a user's, the password is `pw`, and the name says what the maildrop is: `5x4096` holds five
messages of 4 KiB, `5x4096~7` is another one like it, `1x4096r` needs repair and stuffing, `1x4096s`
is read in chunks instead of being at hand, `1x4096rs` is both.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import re
import signal
from typing import TYPE_CHECKING

import uvloop
from mail import KIB, PASSWORD, message

from pop3hub import Limits, PopMessage, PopServer, PopUser, hookimpl
from pop3hub.cli import logs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

CHUNK = 64 * KIB
_NAME = re.compile(r"(\d+)x(\d+)(r?)(s?)(?:~\d+)?")


class Streamed(PopMessage):
    """A message that is read in chunks, as from a file or a database."""

    __slots__ = ()

    async def load_contents(self) -> AsyncIterator[bytes]:
        """Return chunks that end with a line."""
        chunk, octets = _chunk(ready=self.wire_ready)
        return _repeated(chunk, self.size // octets)


async def _repeated(chunk: bytes, times: int) -> AsyncIterator[bytes]:
    for _ in range(times):
        yield chunk


@functools.cache
def _chunk(*, ready: bool, octets: int = CHUNK) -> tuple[bytes, int]:
    """Return a message, and its octets in wire form."""
    contents = message(0, octets, ready=ready)
    return contents, len(contents) + (0 if ready else contents.count(b"\n"))


class MadeUp:
    """A backend for any number of users, whose maildrops are what their names say."""

    @hookimpl
    def get_user(self, name: str) -> PopUser | None:
        """Know every name that describes a maildrop."""
        return PopUser(name, PASSWORD) if _NAME.fullmatch(name) else None

    @hookimpl
    def compare_password(self, raw: str, hash: str) -> bool:  # noqa: A002 - the hook's name
        """Compare clear passwords, as the other servers do here."""
        return raw == hash

    @hookimpl
    def receive_messages(self, user: PopUser) -> Sequence[PopMessage]:
        """Make the messages, or remember them."""
        return _messages(user.name.partition("~")[0])

    @hookimpl
    def delete_messages(self, messages: Sequence[PopMessage]) -> int:
        """Delete nothing, and say that it is done."""
        return len(messages)


@functools.lru_cache(8)
def _messages(shape: str) -> Sequence[PopMessage]:
    match = _NAME.fullmatch(shape)
    assert match is not None, "get_user looked"
    count, octets, ready, streamed = int(match[1]), int(match[2]), not match[3], bool(match[4])
    numbers = range(count)
    if streamed:
        size = max(1, octets // CHUNK) * _chunk(ready=ready)[1]
        return [Streamed(f"{n:08x}", size, wire_ready=ready, ascii_size=size) for n in numbers]
    contents, size = _chunk(ready=ready, octets=octets)
    return [
        PopMessage(f"{n:08x}", size, contents, wire_ready=ready, ascii_size=size) for n in numbers
    ]


async def _serve(port: int) -> None:
    listen = f"pop3://127.0.0.1:{port}"
    async with PopServer(backend=MadeUp(), listen=listen, limits=Limits(sessions=0)) as server:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()
        await server.stop()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("port", type=int, help="on loopback")
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    args = parser.parse_args()
    logs.configure(style="json")
    run = uvloop.run if args.loop == "uvloop" else asyncio.run
    run(_serve(args.port))


if __name__ == "__main__":
    main()
