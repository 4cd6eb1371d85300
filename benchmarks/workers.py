"""One worker and two: polling sessions a second, and what each costs; bcrypt, remembered or not.

Over Maildirs. Workers may use all processors, which they share with the load: the cost of a session
is what tells how well they scale.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import bcrypt
import measure
import servers
from load import Poll
from mail import PASSWORD, QUICK, Scale

COST = 12
"""The cost of the bcrypt hashes; pop3hub's default for new ones."""
FEW = 8
"""Users with such hashes: each takes a quarter of a second until it is remembered."""


def polled(site: servers.Site, *options: str, cores: list[int]) -> tuple[float, float]:
    """Return sessions a second, and microseconds of CPU for each; all users polled before."""
    scale = site.scale
    with servers.running("maildir", site, *options, cores=cores) as server:
        users = [f"poll{n}" for n in range(scale.pollers)]
        Poll(server.plain, users).run(scale.at_once, scale.seconds / 2)
        poll = Poll(server.plain, users)
        with measure.cost_of(server.pid) as cost:
            took = poll.run(scale.at_once, scale.seconds)
    return len(took) / cost.wall, cost.cpu / len(took) * 1e6


def main() -> None:
    """Print a line for each way to serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a moment each")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each; default: 4")
    args = parser.parse_args()
    scale = QUICK if args.quick else Scale(seconds=args.seconds, idle=0, listed=10, large=1)
    with servers.Site.make(scale, ()) as site:
        for workers in (1, 2):
            rate, cost = polled(site, "--workers", str(workers), cores=measure.CORES)
            print(f"{workers} workers: {rate:7.0f} sessions/s, {cost:7.0f} us of CPU each")
    scale = replace(scale, pollers=min(FEW, scale.pollers), at_once=min(FEW, scale.at_once))
    with servers.Site.make(scale, ()) as site:
        hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4 if args.quick else COST))
        site.passwd.write_text(
            "".join(f"poll{n}:{{BLF-CRYPT}}{hashed.decode()}\n" for n in range(scale.pollers))
        )
        for seconds, title in ((0, "each time"), (300, "remembered")):
            options = ("--password-cache", str(seconds))
            rate, cost = polled(site, *options, cores=measure.CORES)
            print(f"bcrypt {title}: {rate:7.1f} sessions/s, {cost:7.0f} us of CPU each")


if __name__ == "__main__":
    main()
