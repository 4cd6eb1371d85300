"""What a session costs as things grow: users, messages, the size of one, open sessions.

One plot each. A line that stays level, or rises with what has to be sent, is as it should be.
"""

from __future__ import annotations

import argparse
import functools
import time
from contextlib import ExitStack
from pathlib import Path

import measure
import plot
import servers
from idle import SETTLE, most_sessions
from load import LIST_END, Poll, Wire, repeat
from mail import KIB, MIB, PASSWORD, QUICK, Scale

Curve = list[tuple[float, float]]

FULL = {
    "users": [10, 100, 1_000, 10_000, 100_000],
    "messages": [0, 10, 100, 1_000, 10_000, 100_000],
    "octets": [KIB, 16 * KIB, 256 * KIB, 4 * MIB, 64 * MIB, 1024 * MIB],
    "sessions": [1, 10, 100, 1_000, 10_000],
}
TINY = {"users": [2, 4], "messages": [0, 10], "octets": [KIB, MIB], "sessions": [1, 5]}
SMALLEST_STREAM = 256 * KIB
UNREAD_WAIT = 1.0
"""Seconds for which a client leaves a message of a gibibyte unread."""


def users(counts: list[int], scale: Scale) -> dict[str, Curve]:
    """Poll as ever more users of the memory backend, their maildrops empty."""
    curve: Curve = []
    for count in counts:
        with servers.Site.make(QUICK, ()) as site:
            names = [f"u{n}" for n in range(count)]
            site.users.write_text("".join(f"{name}:{PASSWORD}\n" for name in names))
            with servers.running("memory", site) as server:
                poll = Poll(server.plain, names)
                with measure.cost_of(server.pid) as cost:
                    took = poll.run(min(scale.at_once, count), scale.seconds)
        curve.append((count, cost.cpu / len(took) * 1e6))
    return {"polling session": curve}


def messages(counts: list[int], scale: Scale) -> dict[str, Curve]:
    """Poll one maildrop of ever more messages: log in, STAT, UIDL, LIST, QUIT."""
    curve: Curve = []
    with servers.Site.make(QUICK, ()) as site, servers.running("made-up", site) as server:
        for count in counts:

            def session(count: int = count) -> None:
                wire = Wire(server.plain)
                wire.log_in(f"{count}x1000")
                wire.say(b"STAT")
                wire.drop(b"UIDL")
                wire.drop(b"LIST")
                wire.quit()

            session()
            with measure.cost_of(server.pid) as cost:
                took = repeat(session, scale.seconds)
            curve.append((count, cost.cpu / len(took) * 1e6))
    return {"polling session": curve}


def octets(sizes: list[int], scale: Scale) -> dict[str, Curve]:
    """RETR one message of ever more octets, streamed from a quarter of a mebibyte on."""
    cost_curve: Curve = []
    peak_curve: Curve = []
    for size in sizes:
        with servers.Site.make(QUICK, ()) as site, servers.running("made-up", site) as server:
            wire = Wire(server.plain)
            wire.log_in(f"1x{size}" + ("s" if size >= SMALLEST_STREAM else ""))
            with measure.cost_of(server.pid) as cost:
                took = repeat(functools.partial(wire.drop, b"RETR 1"), scale.seconds)
            wire.quit()
            cost_curve.append((size, cost.cpu / len(took) * 1e6))
            peak_curve.append((size, measure.peak_of(server.pid) / MIB))
    return {"RETR, us": cost_curve, "memory at the highest, MiB": peak_curve}


def sessions(counts: list[int], scale: Scale) -> dict[str, Curve]:
    """Poll while ever more sessions are open and silent; and what memory each of them takes."""
    cost_curve: Curve = []
    pss_curve: Curve = []
    for wanted in counts:
        count = min(wanted, most_sessions())
        with servers.Site.make(QUICK, ()) as site, servers.running("made-up", site) as server:
            before = measure.pss_of(server.pid)
            with ExitStack() as stack:
                for n in range(count):
                    wire = Wire(server.plain)
                    stack.callback(wire.close)
                    wire.log_in(f"0x0~{n}")
                time.sleep(SETTLE)
                pss_curve.append((count, (measure.pss_of(server.pid) - before) / count / KIB))
                poll = Poll(server.plain, [f"10x4096~{n}" for n in range(scale.at_once * 2)])
                with measure.cost_of(server.pid) as cost:
                    took = poll.run(scale.at_once, scale.seconds)
                cost_curve.append((count, cost.cpu / len(took) * 1e6))
    return {"polling session, us": cost_curve, "memory of each, KiB": pss_curve}


def unread(size: int) -> int:
    """Return by how many octets the server grows for a client that asks and doesn't read."""
    with servers.Site.make(QUICK, ()) as site, servers.running("made-up", site) as server:
        wire = Wire(server.plain)
        wire.log_in(f"1x{size}s")
        wire.say(b"TOP 1 0", LIST_END)
        before = measure.pss_of(server.pid)
        wire.ask(b"RETR 1")
        time.sleep(UNREAD_WAIT)
        grown = measure.pss_of(server.pid) - before
        wire.close()
    return grown


CURVES = {"users": users, "messages": messages, "octets": octets, "sessions": sessions}


def main() -> None:
    """Print the curves, and save each of them where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two points, at a tiny size")
    parser.add_argument("--curve", action="append", choices=CURVES, help="default: all of them")
    parser.add_argument("--save", type=Path, metavar="DIR", help="write growth-*.svg there")
    args = parser.parse_args()
    measure.pin(measure.LOAD_CORE)
    scale = QUICK if args.quick else Scale()
    for name in args.curve or CURVES:
        found = CURVES[name]((TINY if args.quick else FULL)[name], scale)
        for title, curve in found.items():
            print(f"{name}: {title}: " + ", ".join(f"{x:,.0f}: {y:,.1f}" for x, y in curve))
        if args.save:
            drawn = plot.lines(f"Growth of {name}", name, found, "CPU in us; memory as told")
            (args.save / f"growth-{name}.svg").write_text(drawn)
    grown = unread(MIB if args.quick else 1024 * MIB)
    print(f"a client that asks for a message and reads nothing: {grown / KIB:,.0f} KiB")


if __name__ == "__main__":
    main()
