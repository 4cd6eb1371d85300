"""Removal of message files while other programs rename them: what is answered must be true."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import structlog

from pop3hub_maildir.looking import ABSENT, looks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pop3hub_maildir.directories import OpenMaildir

_log = structlog.get_logger("pop3hub.maildir")


def remove(
    maildir: OpenMaildir, path: str, places: Mapping[str, str], twins: Iterable[str]
) -> set[str]:
    """Remove files for good, given by base name and last known place; return who is gone now.

    A message whose file isn't at its place is looked for by its base name, and removed where it is,
    until it was seen to be absent. `twins` have several files, all of which go. What was gone
    before counts as gone. The folders are synced before this returns.
    """
    failed: set[str] = set()

    def unlink(base: str, place: str) -> bool:
        """Remove one file; return whether it was there, and note where it can't be removed."""
        try:
            maildir.remove(place)
        except FileNotFoundError:
            return False
        except IsADirectoryError:  # whatever it is, the message isn't there any more
            return True
        except OSError as exc:
            _log.error("maildir.not_removed", file=f"{path}/{place}", error=exc.strerror)
            failed.add(base)
        return True

    several = set(twins)
    missing = {
        base: 0
        for base, place in places.items()
        if not (place and unlink(base, place)) or base in several
    }
    for base in failed:
        missing.pop(base, None)
    if missing:
        _hunt(maildir, missing, unlink)
    if missing:
        _log.error("maildir.renamed", maildir=path, messages=len(missing))
    for folder in (maildir.cur, maildir.new):
        os.fsync(folder)
    return set(places) - failed - missing.keys()


def _hunt(
    maildir: OpenMaildir, missing: dict[str, int], unlink: Callable[[str, str], bool]
) -> None:
    """Look for messages and remove them; leave in `missing` those that may still be there.

    `missing` counts in how many looks in a row each was absent.
    """
    for places, is_sure in looks(maildir):
        for base, absent in list(missing.items()):
            found = places.all(base)
            removed = sum(unlink(base, place) for place in found)
            if removed == len(found) == 1 or (not found and (is_sure or absent + 1 >= ABSENT)):
                del missing[base]
            else:  # renamed since, or one of several: until it is seen to be absent
                missing[base] = 0 if found else absent + 1
        if not missing:
            return
