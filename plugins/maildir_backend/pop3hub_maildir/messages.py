"""A message of a Maildir, and what is known about its file."""

from __future__ import annotations

from typing import Any

from pop3hub import PopMessage
from pop3hub_maildir.index import Record
from pop3hub_maildir.measuring import Measured, Stamp

UNMEASURED = Stamp(0, 0, 0)
"""The stamp of a message whose file has to be measured: no file has inode 0."""


class MaildirMessage(PopMessage):
    """A message file.

    folder: the `Folder` that it is in, which made it.
    place: where it was last seen, from the Maildir: `cur/name:2,S`; "" if it wasn't.
    stamp: the file that size, `wire_ready` and `ascii_size` hold for.
    """

    __slots__ = ("base", "folder", "place", "stamp")

    def __init__(self, folder: Any, base: str, uid: str, place: str = "") -> None:
        super().__init__(uid, -1)
        self.folder = folder
        self.base = base
        self.place = place
        self.stamp = UNMEASURED

    def learn(self, measured: Measured) -> None:
        """Take in what was measured, now or in the past."""
        self.size, self.wire_ready, self.ascii_size, self.stamp = measured

    @property
    def record(self) -> Record:
        """What the index keeps of it."""
        measured = Measured(max(0, self.size), self.wire_ready, self.ascii_size, self.stamp)
        return Record(self.base, self.uid, measured)
