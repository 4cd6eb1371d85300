"""RETR of 256 MiB in one message: octets a second, and the memory at its highest.

The message comes in chunks from the backend, as from a file or a database. For comparison: as many
octets in messages of 1 MiB, which the backend has at hand.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import measure
import servers
from load import Wire
from mail import MIB, QUICK, Scale

KINDS = {
    "streamed, wire-ready": "1x{}s",
    "streamed, to repair and stuff": "1x{}rs",
    "at hand, wire-ready": "1x{}",
    "at hand, to repair and stuff": "1x{}r",
}


@dataclass(frozen=True, slots=True)
class Streamed:
    """Octets for a second of CPU, for one of wall clock, and octets of memory at the highest."""

    cpu: float
    wall: float
    peak: int


def streamed(octets: int, user: str) -> Streamed:
    """Have a server send that many octets to a user, in one message or in as many as it takes."""
    message = octets if "s" in user else MIB
    with (
        servers.Site.make(QUICK, ()) as site,
        servers.running("made-up", site) as server,
    ):
        wire = Wire(server.plain)
        wire.log_in(user.format(message))
        with measure.cost_of(server.pid) as cost:
            sent = sum(wire.drop(b"RETR 1") for _ in range(max(1, octets // message)))
        wire.close()
        peak = measure.peak_of(server.pid)
    return Streamed(sent / (cost.cpu or cost.wall), sent / cost.wall, peak)


def main() -> None:
    """Print a line for each kind of message."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few megabytes")
    args = parser.parse_args()
    scale = QUICK if args.quick else Scale()
    measure.pin(measure.LOAD_CORE)
    for title, user in KINDS.items():
        found = streamed(scale.stream, user)
        print(
            f"{title:30} {found.cpu / 1e6:6.0f} MB for a second of CPU, "
            f"{found.wall / 1e6:6.0f} MB/s on the wall clock, "
            f"{found.peak / MIB:5.1f} MiB at the highest"
        )


if __name__ == "__main__":
    main()
