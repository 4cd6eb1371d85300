"""A message in the database, as a session knows it."""

from __future__ import annotations

from typing import Any

from bson import ObjectId

from pop3hub import PopMessage, surrogate_size

EXAMINED = 256 * 1024
"""Octets up to which a message that isn't ASCII is searched for headers that aren't."""

_IS_UID = object()
"""Instead of a key: it is the unique-id. None is a key that a document may have."""


class MongoMessage(PopMessage):
    """A message whose contents are in the database, under the key `id`."""

    __slots__ = ("_id",)

    def __init__(
        self,
        message_id: Any,
        size: int,
        uid: str | None = None,
        ascii_headers: bool | None = None,  # noqa: FBT001 - made by the column, 100,000 at a time
    ) -> None:
        """Without a unique-id of its own, a message goes by its key."""
        # An ObjectId is made again when it is wanted: kept, it would be one more object for each
        # message that the garbage collector walks through while all sessions wait.
        kept = uid or not isinstance(message_id, ObjectId)
        self._id = message_id if kept else _IS_UID
        ascii_size = size if ascii_headers else None
        super().__init__(uid or str(message_id), size, ascii_size=ascii_size)

    @property
    def id(self) -> Any:
        """The _id of its document."""
        if self._id is _IS_UID:
            return ObjectId(self.uid)
        return self._id


def has_ascii_headers(contents: bytes) -> bool:
    """Return whether no header of a message in wire form needs a surrogate (RFC 6858).

    False for what takes long to tell.
    """
    if contents.isascii():
        return True
    if len(contents) > EXAMINED:
        return False
    return surrogate_size((contents,)) == len(contents)
