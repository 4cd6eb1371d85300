"""Another program in the Maildirs of a soak: it marks mail as read and unread until it is ended.

Argument: the folder that holds the Maildirs. A file that is renamed while its session says QUIT is
what `doveadm flags add` or an IMAP client makes of it.
"""

# ruff: noqa: PTH104, PTH208 - plain names: it has to be quick

from __future__ import annotations

import os
import random
import sys
import time
from contextlib import suppress

PAUSE = 0.002
"""Seconds between two Maildirs, so that the server gets its share of the processors."""


def rename_all(cur: str, dice: random.Random) -> None:
    """Give every second message of a Maildir's `cur` other flags."""
    for name in os.listdir(cur):
        base, _, flags = name.partition(":2,")
        if dice.random() < 0.5:
            flags = "".join(sorted(set(flags) ^ {dice.choice("FRS")}))
            with suppress(FileNotFoundError):  # removed in the moment between
                os.rename(f"{cur}/{name}", f"{cur}/{base}:2,{flags}")


def main() -> None:
    """Go from Maildir to Maildir."""
    root = sys.argv[1]
    dice = random.Random()  # noqa: S311 - flags
    while True:
        for user in os.listdir(root):
            with suppress(FileNotFoundError):
                rename_all(f"{root}/{user}/cur", dice)
            time.sleep(PAUSE)


if __name__ == "__main__":
    main()
