"""Where the messages of a Maildir are, while other programs rename them.

A name that is gone is not a message that is gone: marking mail as read renames its file. Even a
whole listing can miss a file that is renamed while it is made. So a message counts as gone only
once a listing lacks it during which no name changed, or many listings in a row.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pop3hub_maildir.directories import OpenMaildir

LISTINGS = 8
"""How often a Maildir is listed whose names go on changing; each listing adds what it finds."""
LOOKS = 200
"""How often what is missing is looked for, at most."""
PATIENCE = 10.0
"""Seconds in which it is looked for, at most."""
ABSENT = 10
"""Looks in a row after which it is gone though other names go on changing."""
PAUSE = 0.02
"""Seconds between two looks: more than a local file system's clock takes from tick to tick, so that
no change within a tick can hide behind an unchanged time."""


class Places(dict[str, str]):
    """A place, `cur/NAME` or `new/NAME`, for each base name.

    twins: further places of base names that have several.
    """

    def __init__(self) -> None:
        super().__init__()
        self.twins: dict[str, list[str]] = {}

    def all(self, base: str) -> list[str]:
        """Return every place of a base name."""
        return [self[base], *self.twins.get(base, ())] if base in self else []


def listed(maildir: OpenMaildir) -> Places:
    """List a Maildir once."""
    places = Places()
    for folder, fd in (("new", maildir.new), ("cur", maildir.cur)):
        for name in os.listdir(fd):  # noqa: PTH208
            if name.startswith("."):
                continue
            base = name.partition(":")[0]
            if base in places:
                places.twins.setdefault(base, []).append(places[base])
            places[base] = f"{folder}/{name}"
    return places


def looks(maildir: OpenMaildir) -> Iterator[tuple[Places, bool]]:
    """List again and again; tell of each listing whether it can't have missed anything."""
    until = time.monotonic() + PATIENCE
    before = maildir.times()
    for number in range(LOOKS):
        if number:
            time.sleep(PAUSE)
        times = maildir.times()
        places = listed(maildir)
        yield places, number > 0 and before == times == maildir.times()
        if time.monotonic() > until:
            return
        before = times


def all_places(maildir: OpenMaildir, expected: Iterable[str]) -> Places:
    """Return where each message is, none of them missed; those expected are looked for again."""
    places = Places()
    for number in range(LISTINGS):
        times = maildir.times()
        found = listed(maildir)
        places.update(found)
        places.twins.update(found.twins)
        recent = abs(time.time_ns() - max(times)) < PAUSE * 1e9
        if times == maildir.times() and (number or not recent):
            break
    missing = [base for base in expected if base not in places]
    if missing:
        places.update(find(maildir, missing))
    return places


def find(maildir: OpenMaildir, bases: Iterable[str]) -> Places:
    """Return where messages are; those of the base names that it lacks are gone."""
    missing = set(bases)
    seen = Places()
    for number, (places, is_sure) in enumerate(looks(maildir), 1):
        seen.update(places)
        missing -= places.keys()
        if not missing or is_sure or number >= ABSENT:
            break
    return seen
