"""Compare pop3hub with Dovecot on the same mail, in rounds: what `make bench` runs.

Each server runs on one processor and the load on another, one server after the other. The price of
a unit of work is the processor time, user and system, of the server's whole process tree (for the
mongo backend without mongod's). The floor answers from a can: no POP3 server, but what Python on
uvloop costs at least.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import measure
import report
import servers
from idle import idle_pss
from mail import QUICK, Scale
from report import Results
from work import WORKS, Work


def main() -> None:
    """Measure, print the table, and save it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = servers.available()
    parser.add_argument("--quick", action="store_true", help="everything once, at a tiny size")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each; default: 2")
    parser.add_argument("--idle", type=int, default=6_000, help="idle sessions; default: 6000")
    parser.add_argument("--server", action="append", choices=names, help="default: all of them")
    parser.add_argument("--work", action="append", choices=[work.name for work in WORKS])
    parser.add_argument("--save", type=Path, metavar="DIR", help="write performance.* there")
    args = parser.parse_args()
    scale = QUICK if args.quick else Scale(seconds=args.seconds, idle=args.idle)
    works = [work for work in WORKS if not args.work or work.name in args.work]
    results = measured(scale, args.server or names, works, 1 if args.quick else args.rounds)
    print(report.table(results))
    if args.save:
        report.save(results, args.save)


def measured(scale: Scale, names: list[str], works: list[Work], rounds: int) -> Results:
    """Return what each work cost on each server, and the memory of idle sessions."""
    measure.pin(measure.LOAD_CORE)
    results = Results(
        machine=measure.machine(),
        versions=servers.versions(),
        date=time.strftime("%Y-%m-%d"),
        listed=scale.listed,
        idle=scale.idle,
    )
    with servers.Site.make(scale, names) as site:
        if scale.idle:
            for name in names:
                with servers.running(name, site) as server:
                    results.pss[name] = idle_pss(server, scale.idle)
                _say(f"{scale.idle} idle sessions on {name}")
        with ExitStack() as stack:
            running = [stack.enter_context(servers.running(name, site)) for name in names]
            for number in range(rounds):
                for work in works:
                    for server in running:
                        run = work.prepare(server, scale)
                        with measure.cost_of(server.pid) as cost:
                            done = run()
                        results.add(work, server.name, cost, done)
                _say(f"round {number + 1} of {rounds}")
    return results


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
