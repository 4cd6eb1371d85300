"""The work that servers are measured by: each a function from a server to units done and seconds.

A unit is what its cost is told for: a session, a message, a megabyte, a listing, a command.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from load import LIST_END, Poll, Wire, repeat
from mail import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mail import Scale
    from servers import Server

BATCH = 100
"""Commands that a pipelining client sends at once."""


@dataclass(slots=True)
class Done:
    """How much work was done, and how long each step of it took as the client saw it."""

    units: float
    took: list[float]

    @property
    def median(self) -> float:
        """The middle one of the steps, in seconds."""
        return statistics.median(self.took)


@dataclass(frozen=True, slots=True)
class Work:
    """Something to do; the goals are the processor's microseconds a unit, by server."""

    name: str
    title: str
    unit: str
    prepare: Callable[[Server, Scale], Callable[[], Done]]
    goals: Mapping[str, float] = field(default_factory=dict)


def polling(*, tls: bool = False) -> Callable[[Server, Scale], Callable[[], Done]]:
    """Poll: connect, USER, PASS, STAT, UIDL, QUIT, many at once."""

    def prepare(server: Server, scale: Scale) -> Callable[[], Done]:
        users = [f"poll{n}" for n in range(scale.pollers)]
        poll = Poll(server.address(tls=tls), users, tls=tls)

        def run() -> Done:
            took = poll.run(scale.at_once, scale.seconds)
            return Done(len(took), took)

        return run

    return prepare


def retrieving(
    user: str, *, pipelined: bool = False, megabytes: bool = False, tls: bool = False
) -> Callable[[Server, Scale], Callable[[], Done]]:
    """RETR every message of a maildrop, once in each session, as clients do."""

    def prepare(server: Server, scale: Scale) -> Callable[[], Done]:
        count = scale.large if megabytes else scale.small
        lines = [b"RETR %d\r\n" % n for n in range(1, count + 1)]
        wire = _logged_in(server, user, tls=tls)
        sizes = [len(wire.say(line.rstrip(), LIST_END)) for line in lines]
        wire.quit()
        batch = BATCH if pipelined else 1
        requests = [
            (b"".join(lines[n : n + batch]), sum(sizes[n : n + batch]))
            for n in range(0, count, batch)
        ]
        units = sum(sizes) / MIB if megabytes else count

        def session() -> None:
            wire = _logged_in(server, user, tls=tls)
            for request, size in requests:
                wire.count(request, size)
            wire.quit()

        def run() -> Done:
            took = repeat(session, scale.seconds)
            return Done(len(took) * units, [each / units for each in took])

        return run

    return prepare


def _logged_in(server: Server, user: str, *, tls: bool = False) -> Wire:
    wire = Wire(server.address(tls=tls), tls=tls)
    wire.log_in(user)
    return wire


def listing(verb: bytes, *, again: bool) -> Callable[[Server, Scale], Callable[[], Done]]:
    """List a long maildrop: once in each of many sessions, or over and over in one.

    The processor's time of the first kind is that of the whole session, the seconds are those of
    the command.
    """

    def prepare(server: Server, scale: Scale) -> Callable[[], Done]:
        wire = _logged_in(server, "many")
        reply = wire.say(verb, LIST_END)
        assert reply.count(b"\n") == scale.listed + 2, "the listing is not as long as its maildrop"
        line = verb + b"\r\n"
        if again:

            def run() -> Done:
                took = repeat(lambda: wire.count(line, len(reply)), scale.seconds / 2)
                wire.quit()
                return Done(len(took), took)

            return run
        wire.quit()
        took: list[float] = []

        def session() -> None:
            wire = _logged_in(server, "many")
            took.extend(repeat(lambda: wire.count(line, len(reply)), 0))
            wire.quit()

        return lambda: Done(len(repeat(session, scale.seconds)), took)

    return prepare


def nothing(server: Server, scale: Scale) -> Callable[[], Done]:
    """NOOP, pipelined."""
    wire = _logged_in(server, "poll0")
    size = len(wire.say(b"NOOP")) * BATCH
    batch = b"NOOP\r\n" * BATCH

    def run() -> Done:
        took = repeat(lambda: wire.count(batch, size), scale.seconds / 2)
        wire.quit()
        return Done(len(took) * BATCH, [each / BATCH for each in took])

    return run


SMALL = {"memory": 45, "maildir": 110}
PIPELINED = {"memory": 35, "maildir": 90}
LONG = "a long maildrop"

WORKS = [
    Work("poll", "polling session", "session", polling(), {"memory": 300, "maildir": 500}),
    Work("small", "4 KiB messages", "message", retrieving("small"), SMALL),
    Work(
        "small-pipelined",
        "4 KiB messages, pipelined",
        "message",
        retrieving("small", pipelined=True),
        PIPELINED,
    ),
    Work(
        "ready",
        "1 MiB messages, wire-ready",
        "MiB",
        retrieving("ready", megabytes=True),
        {"memory": 600, "maildir": 1_200},
    ),
    Work(
        "repair",
        "1 MiB messages to repair",
        "MiB",
        retrieving("repair", megabytes=True),
        {"memory": 3_200, "maildir": 3_200},
    ),
    Work("uidl", f"UIDL of {LONG}, new session", "session", listing(b"UIDL", again=False)),
    Work("uidl-again", f"UIDL of {LONG}, again", "listing", listing(b"UIDL", again=True)),
    Work("list", f"LIST of {LONG}, new session", "session", listing(b"LIST", again=False)),
    Work("list-again", f"LIST of {LONG}, again", "listing", listing(b"LIST", again=True)),
    Work("noop", "NOOP, pipelined", "command", nothing, {"memory": 5}),
    Work(
        "poll-tls",
        "polling session, TLS",
        "session",
        polling(tls=True),
        {"memory": 2_500, "maildir": 2_700},
    ),
    Work("small-tls", "4 KiB messages, TLS", "message", retrieving("small", tls=True)),
    Work(
        "small-pipelined-tls",
        "4 KiB messages, pipelined, TLS",
        "message",
        retrieving("small", pipelined=True, tls=True),
    ),
    Work(
        "ready-tls",
        "1 MiB messages, TLS",
        "MiB",
        retrieving("ready", megabytes=True, tls=True),
        {"memory": 1_600, "maildir": 3_000},
    ),
]
