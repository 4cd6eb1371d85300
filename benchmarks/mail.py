"""The mail that the benchmarks serve: Maildirs that every server reads, and users for them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - a field of a dataclass

PASSWORD = "pw"
HEADER = "From: a@example.org\nTo: b@example.org\nSubject: message {}\n\n"
LINE = "The quick brown fox jumps over the lazy dog, and the dog does not mind it.\n"
DOT_EVERY = 50
"""Lines; one of so many begins with a dot where a message has to be stuffed."""
KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of everything there is; messages and sessions counted, seconds of a measurement."""

    pollers: int = 100
    polled: int = 10
    at_once: int = 50
    small: int = 500
    large: int = 16
    listed: int = 20_000
    idle: int = 6_000
    stream: int = 256 * MIB
    seconds: float = 2.0


QUICK = Scale(
    pollers=4,
    polled=2,
    at_once=2,
    small=10,
    large=1,
    listed=50,
    idle=20,
    stream=2 * MIB,
    seconds=0.05,
)


def message(number: int, octets: int, *, ready: bool = True) -> bytes:
    """Return a message of about so many octets.

    `ready` is wire-ready: CRLF, no line that begins with a dot. Otherwise it is as Unix stores it:
    LF, and dots at some line starts.
    """
    lines = [LINE] * (max(0, octets - 150) // (len(LINE) + ready))
    if not ready:
        lines[::DOT_EVERY] = ["." + LINE] * len(lines[::DOT_EVERY])
    text = HEADER.format(number) + "".join(lines)
    return (text.replace("\n", "\r\n") if ready else text).encode("ascii")


def write_maildirs(root: Path, scale: Scale) -> None:
    """Fill a folder with a Maildir for each user."""
    for user in users(scale):
        for part in ("cur", "new", "tmp"):
            (root / user / part).mkdir(parents=True)
    for user, count, octets, ready in maildrops(scale):
        _fill(root / user, count, octets, ready=ready)


def maildrops(scale: Scale) -> list[tuple[str, int, int, bool]]:
    """Return what lies where: user, number of messages, octets of each, whether wire-ready."""
    return [
        *((f"poll{n}", scale.polled, 4 * KIB, True) for n in range(scale.pollers)),
        ("small", scale.small, 4 * KIB, True),
        ("ready", scale.large, MIB, True),
        ("repair", scale.large, MIB, False),
        ("many", scale.listed, 200, True),
    ]


def users(scale: Scale) -> list[str]:
    """Return the names of all users."""
    return [
        *(f"poll{n}" for n in range(scale.pollers)),
        *("small", "ready", "repair", "many"),
        *(f"idle{n}" for n in range(scale.idle)),
    ]


def write_users(root: Path, scale: Scale) -> tuple[Path, Path]:
    """Write `name:password` lines, and a passwd-file as Dovecot reads it; return both."""
    plain, passwd = root / "users", root / "passwd"
    names = users(scale)
    plain.write_text("".join(f"{name}:{PASSWORD}\n" for name in names))
    passwd.write_text("".join(f"{name}:{{PLAIN}}{PASSWORD}\n" for name in names))
    return plain, passwd


def _fill(maildir: Path, count: int, octets: int, *, ready: bool = True) -> None:
    for n in range(count):
        contents = message(n, octets, ready=ready)
        wire = len(contents) + (0 if ready else contents.count(b"\n"))
        name = f"{1_700_000_000 + n}.M{n}P1.bench,S={len(contents)},W={wire}:2,S"
        descriptor = os.open(maildir / "cur" / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(descriptor, contents)
        os.close(descriptor)
