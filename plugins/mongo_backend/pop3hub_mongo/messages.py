"""A message in the database, as a session knows it."""

from __future__ import annotations

from typing import Any

from pop3hub.maildrop import PopMessage


class MongoMessage(PopMessage):
    """A message whose contents are in the database, under the key `id`."""

    __slots__ = ("id",)

    def __init__(
        self, message_id: Any, size: int, uid: str | None = None, ascii_size: int | None = None
    ) -> None:
        """Without a unique-id of its own, a message goes by its key."""
        self.id = message_id
        super().__init__(uid or str(message_id), size, ascii_size=ascii_size)
