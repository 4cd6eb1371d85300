"""Failed logins, counted over all nodes: one small document for a name, one for an address.

On the server's time, in one update each, and only when a login has failed. A TTL index collects
what is forgotten. Errors of the client pass.
"""

from __future__ import annotations

import asyncio
from hashlib import blake2b
from typing import Any

from pymongo import IndexModel, ReturnDocument, WriteConcern
from pymongo.errors import DuplicateKeyError

PARTS = 20
"""Parts that a window is counted in: what failed within one part is forgotten together, so that a
document has no more entries than this, however many the failures."""


class FailedLogins:
    """The failed logins that all nodes have seen."""

    def __init__(self, collection: Any) -> None:
        # Not waiting for the majority: counts that are rolled back are no mail.
        self.collection = collection.with_options(write_concern=WriteConcern(1))

    async def create_indexes(self) -> None:
        """Let the server collect what is forgotten."""
        await self.collection.create_indexes([IndexModel([("gc", 1)], expireAfterSeconds=0)])

    async def count(self, name: str, address: str, window: float) -> tuple[int, int]:
        """Note a failure; return how many there were in the window for the name and the address.

        An empty name or address isn't counted. Raises PyMongoError.
        """
        by_name, by_address = await asyncio.gather(
            self._note(b"user", name, window), self._note(b"address", address, window)
        )
        return by_name, by_address

    async def _note(self, kind: bytes, text: str, window: float) -> int:
        if not text:
            return 0
        # What is typed for a name may be anything, of any length, and a password by mistake.
        octets = text.encode("utf-8", "surrogatepass")
        key = {"_id": blake2b(octets, digest_size=16, person=kind).digest()}
        try:
            return await self._add(key, window)
        except DuplicateKeyError:  # others made the document at the same moment: now it is there
            return await self._add(key, window)

    async def _add(self, key: dict[str, bytes], window: float) -> int:
        found = await self.collection.find_one_and_update(
            key,
            _noted(round(window * 1000)),
            {"parts": 1},
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        return sum(part["n"] for part in found["parts"])


def _noted(window: int) -> list[dict[str, Any]]:
    """Return the update that forgets what is older than `window` milliseconds, and adds one.

    The newest part takes it while that began less than a part's time ago; else a new part begins.
    Parts begin at least that time apart, so only the newest can have begun so late.
    """
    is_current = {"$gt": ["$$this.at", _ago(window // PARTS)]}
    recent = {
        "$filter": {
            "input": {"$ifNull": ["$parts", []]},
            "cond": {"$gt": ["$$this.at", _ago(window)]},
        }
    }
    joined = {
        "$map": {
            "input": "$parts",
            "in": {"at": "$$this.at", "n": {"$add": ["$$this.n", {"$toInt": is_current}]}},
        }
    }
    begun = {"$concatArrays": ["$parts", [{"at": "$$NOW", "n": 1}]]}
    has_current = {"$gt": [{"$last": "$parts.at"}, _ago(window // PARTS)]}
    return [
        {"$set": {"parts": recent, "gc": {"$add": ["$$NOW", window]}}},
        {"$set": {"parts": {"$cond": [has_current, joined, begun]}}},
    ]


def _ago(milliseconds: int) -> dict[str, Any]:
    return {"$subtract": ["$$NOW", milliseconds]}
