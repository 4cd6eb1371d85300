"""Memory of a session that is logged in, with an empty maildrop, and says nothing.

PSS of the server's whole process tree, before and after the sessions came, over their number.
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import TYPE_CHECKING

import measure
import servers
from load import Wire
from mail import KIB, QUICK, Scale

if TYPE_CHECKING:
    from servers import Server

SETTLE = 0.5
"""Seconds for what a server does after a login."""
SPARE = 100
"""File descriptors that are not sessions'."""


def idle_pss(server: Server, count: int) -> float:
    """Return the octets of one of so many idle sessions, of users idle0, idle1 and so on."""
    with_one = Wire(server.plain)
    with_one.log_in("poll0")  # what the first session loads is no session's
    before = measure.pss_of(server.pid)
    wires = []
    for n in range(count):
        wire = Wire(server.plain)
        wire.log_in(f"idle{n}")
        wires.append(wire)
    time.sleep(SETTLE)
    after = measure.pss_of(server.pid)
    for wire in (with_one, *wires):
        wire.close()
    return (after - before) / count


def most_sessions() -> int:
    """Return how many sessions this process can hold open; each is a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(soft, hard) - SPARE


def main() -> None:
    """Print a line for each server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few sessions")
    parser.add_argument("--sessions", type=int, default=1_000, help="default: 1000")
    names = servers.available()
    parser.add_argument("--server", action="append", choices=names, help="default: all of them")
    args = parser.parse_args()
    scale = QUICK if args.quick else Scale(idle=min(args.sessions, most_sessions()), listed=10)
    measure.pin(measure.LOAD_CORE)
    chosen = args.server or names
    with servers.Site.make(scale, chosen) as site:
        for name in chosen:
            with servers.running(name, site) as server:
                pss = idle_pss(server, scale.idle)
            print(f"{name:10} {pss / KIB:8.1f} KiB for each of {scale.idle} idle sessions")


if __name__ == "__main__":
    main()
