"""Removal that the next one finishes where it was broken off.

First the intent is written into the lease's document, which only the holder of the lease can; then
messages and bodies go; then the intent. Every step can be repeated: ids are never used again, so a
late or a doubled removal takes nothing but what its session had marked.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from pymongo.errors import AutoReconnect

from pop3hub import TemporaryFailure
from pop3hub_mongo.lease import KEPT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from pop3hub_mongo.lease import Lease

    Remove = Callable[[Any, Sequence[Any]], Awaitable[int]]

INTENT = 100_000
"""Messages in one intent: far below the 16 MiB of a document."""
BATCH = 1_000
"""Messages that are removed by one command."""
ATTEMPTS = 3
"""Tries for one batch, where the primary goes away in between."""


class Purge:
    """The removals of one backend; `remove` does one batch and returns how many are gone now."""

    def __init__(self, leases: Any, remove: Remove) -> None:
        self._leases = leases
        self._remove = remove

    async def remove(self, lease: Lease, owner: Any, ids: Sequence[Any]) -> int:
        """Remove an owner's messages as the holder of a lease; return how many of them are gone.

        Raises TemporaryFailure, with nothing removed, if the lease isn't held any more.
        """
        gone = 0
        for start in range(0, len(ids), INTENT):
            intent = {
                "id": secrets.token_hex(8),
                "of": owner,
                "ids": list(ids[start : start + INTENT]),
            }
            written = await self._leases.update_one(
                lease.held | {"purge": None}, {"$set": {"purge": intent}, "$unset": {"gc": 1}}
            )
            if not written.matched_count:
                raise TemporaryFailure
            gone += await self.finish(lease.key, intent)
        return gone

    async def finish(self, key: Any, intent: Mapping[str, Any]) -> int:
        """Do what an intent says, then drop it; return how many messages are gone."""
        ids = intent["ids"]
        gone = 0
        for start in range(0, len(ids), BATCH):
            gone += await self._persistently(intent["of"], ids[start : start + BATCH])
        if gone == len(ids):
            await self._leases.update_one(
                {"_id": key, "purge.id": intent["id"]},
                [{"$set": {"gc": {"$add": ["$$NOW", KEPT * 1000]}}}, {"$unset": "purge"}],
            )
        return gone

    async def _persistently(self, owner: Any, ids: Sequence[Any]) -> int:
        for _ in range(ATTEMPTS - 1):
            try:
                return await self._remove(owner, ids)
            except AutoReconnect:  # the next try waits for a primary first
                continue
        return await self._remove(owner, ids)
