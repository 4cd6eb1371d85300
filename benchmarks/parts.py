"""The parts that a session is made of, each alone and without sockets: what a call costs.

Best of several runs, in one process: for comparing two ways of doing a thing, not for adding up.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import timeit
from typing import TYPE_CHECKING, Any

import structlog
from mail import KIB, MIB, message
from serve import MadeUp

from pop3hub import PopUser, hookimpl, protocol
from pop3hub.cli import logs
from pop3hub.hooks.plugins import Plugins
from pop3hub.i18n.catalogue import Catalogue

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 5


class Awaited:
    """An extension whose hookimpl is a coroutine that knows nobody, so that the next is asked."""

    @hookimpl
    async def get_user(self, name: str) -> PopUser | None:  # noqa: ARG002 - the hook's argument
        """Know nobody."""
        return None


def best(call: Callable[[], object], number: int) -> float:
    """Return the microseconds of a call, the least of several runs."""
    return min(timeit.repeat(call, number=number, repeat=RUNS)) / number * 1e6


async def best_awaited(call: Callable[[], Any], number: int) -> float:
    """Return the microseconds of an awaited call."""
    least = float("inf")
    for _ in range(RUNS):
        began = timeit.default_timer()
        for _ in range(number):
            await call()
        least = min(least, timeit.default_timer() - began)
    return least / number * 1e6


def octets(number: int) -> dict[str, float]:
    """Encode 64 KiB of each kind of message, told for a mebibyte; take lines from a buffer."""
    found = {}
    for title, chunk in (
        ("wire-ready", message(0, 64 * KIB)),
        ("with dots", protocol.wire_form(message(0, 64 * KIB, ready=False))),
        ("with LF and dots", message(0, 64 * KIB, ready=False)),
    ):

        def encode(chunk: bytes = chunk) -> bytes:
            return protocol.MessageEncoder().feed(chunk)

        found[f"encode 1 MiB {title}"] = best(encode, number) * MIB / len(chunk)
    lines = b"RETR 1\r\n" * 100

    def take() -> None:
        framer = protocol.Framer(auth_limit=KIB, swallow_limit=KIB)
        framer.feed(lines)
        while framer.take(protocol.COMMAND_LIMIT):
            pass

    found["take a command line"] = best(take, number) / 100
    return found


def texts(number: int) -> dict[str, float]:
    """Look up a text that is ready, and one that is filled in."""
    english = Catalogue.load().default
    return {
        "text, ready": best(lambda: english.text("nothing-done", ascii=True), number * 10),
        "text, filled in": best(
            lambda: english.text("octets-follow", ascii=True, octets=4096), number * 10
        ),
    }


def lines(number: int) -> dict[str, float]:
    """Log a line, as JSON and below the level."""
    logs.configure(style="json")
    log = structlog.get_logger("pop3hub.session").bind(session="1", peer="127.0.0.1")
    told = {"user": "luke", "mechanism": "USER", "tls": None, "messages": 10, "octets": 40_960}
    return {
        "log line, JSON": best(lambda: log.info("session.login", **told), number),
        "log line, filtered": best(lambda: log.debug("session.login", **told), number * 10),
    }


async def hooks(number: int) -> dict[str, float]:
    """Call a hook with one hookimpl, and with two of which the first is a coroutine."""
    session: Any = None
    alone, two = Plugins(MadeUp()), Plugins(MadeUp(), [Awaited()])
    return {
        "hook, 1 plain": await best_awaited(lambda: alone.get_user("1x1", session), number),
        "hook, 1 awaited and 1 plain": await best_awaited(
            lambda: two.get_user("1x1", session), number
        ),
    }


def main() -> None:
    """Print microseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a call or two")
    number = 2 if parser.parse_args().quick else 1_000
    found = octets(number) | texts(number) | asyncio.run(hooks(number))
    kept = os.dup(sys.stderr.fileno())
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - no path
        os.dup2(nowhere.fileno(), sys.stderr.fileno())
    found |= lines(number)
    os.dup2(kept, sys.stderr.fileno())
    for title, microseconds in found.items():
        print(f"{title:30} {microseconds:9.2f} us")


if __name__ == "__main__":
    main()
