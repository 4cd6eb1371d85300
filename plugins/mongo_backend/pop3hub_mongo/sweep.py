"""What interrupted work left behind: intents, chunks without a message, sizes without one.

Run by `pop3hub --backend mongo sweep`, and in the background by one node at a time.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import structlog
from bson import ObjectId
from pymongo.errors import DuplicateKeyError, PyMongoError

from pop3hub import MaildropInUse, PopError
from pop3hub_mongo.lease import PURGE_INDEX
from pop3hub_mongo.message_bodies import CHUNK_INDEX
from pop3hub_mongo.options import YOUNG

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pop3hub_mongo.lease import Leases
    from pop3hub_mongo.purge import Purge

REMOVALS_EVERY = 600.0
"""Seconds between two looks for removals in the background, by whichever node."""
LEAVINGS_EVERY = 86_400.0
"""Seconds between two walks through bodies or sizes in the background, by whichever node."""
LONGEST = 3_600.0
"""Seconds that a sweep in the background may take."""
BATCH = 1_000


@dataclass(slots=True)
class Swept:
    """What a sweep found and did away with."""

    removals: int = 0
    bodies: int = 0
    sizes: int = 0


class Sweeper:
    """Sweeps one database; `chunks` and `sizes` are None where the schema doesn't have them."""

    def __init__(
        self,
        leases: Leases,
        purge: Purge,
        messages: Any,
        *,
        turns: Any,
        chunks: Any = None,
        sizes: Any = None,
        batch: int = BATCH,
        removals_every: float = REMOVALS_EVERY,
    ) -> None:
        """Sweep what these parts share; in the collection `turns` nodes see whose turn it is.

        `batch`: how many messages are looked up at a time; `removals_every` in seconds.
        """
        self._leases = leases
        self._purge = purge
        self._messages = messages
        self._turns = turns
        self._chunks = chunks
        self._sizes = sizes
        self._batch = batch
        self._removals_every = removals_every
        self._task: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("pop3hub.mongo")

    async def sweep(self, min_age: float = YOUNG) -> Swept:
        """Do all there is to do; `min_age` in seconds. Raises PyMongoError."""
        swept = Swept()
        await self._removals(swept)
        await self._leavings(swept, min_age)
        return swept

    def start(self) -> None:
        """Sweep in the background from now on."""
        self._task = asyncio.get_running_loop().create_task(self._sweep_for_ever())

    async def stop(self) -> None:
        """Stop sweeping in the background."""
        task, self._task = self._task, None
        if task:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _sweep_for_ever(self) -> None:
        while True:
            spread = random.uniform(0.5, 1.0)  # noqa: S311 - the nodes apart
            await asyncio.sleep(self._removals_every * spread)
            swept = Swept()
            try:
                async with asyncio.timeout(LONGEST):
                    if await self._is_our_turn("removals", self._removals_every):
                        await self._removals(swept)
                    if await self._is_our_turn("leavings", LEAVINGS_EVERY):
                        await self._leavings(swept, YOUNG)
            except (PyMongoError, PopError, TimeoutError) as exc:
                self._log.warning("mongo.sweep_failed", error=str(exc)[:200])
            if swept != Swept():
                self._log.info(
                    "mongo.swept", removals=swept.removals, bodies=swept.bodies, sizes=swept.sizes
                )

    async def _is_our_turn(self, work: str, interval: float) -> bool:
        """Return whether no node has done a work for an interval, and take the turn."""
        now = datetime.now(UTC)
        try:
            await self._turns.update_one(
                {"_id": work, "next": {"$lte": now}},
                {"$set": {"next": now + timedelta(seconds=interval)}},
                upsert=True,
            )
        except DuplicateKeyError:
            return False
        return True

    async def _removals(self, swept: Swept) -> None:
        """Finish the removals of sessions that are gone."""
        left = {"purge": {"$exists": True}, "$expr": {"$lte": ["$exp", "$$NOW"]}}
        found = self._leases.collection.find(left, {"_id": 1}).hint(PURGE_INDEX)
        for name in [lease["_id"] async for lease in found]:
            try:
                lease = await self._leases.acquire(
                    name, f"sweep-{secrets.token_hex(8)}", lambda: None
                )
            except MaildropInUse:  # who holds it now has finished the removal
                continue
            try:
                if lease.purge:
                    await self._purge.finish(name, lease.purge)
                    swept.removals += 1
            finally:
                await self._leases.release(lease)

    async def _leavings(self, swept: Swept, min_age: float) -> None:
        if self._chunks is not None:
            await self._bodies(swept, min_age)
        if self._sizes is not None:
            await self._old_sizes(swept)

    async def _bodies(self, swept: Swept, min_age: float) -> None:
        """Remove the chunks of deliveries and removals that were broken off."""
        # An ObjectId of a date sorts before all others of its second.
        oldest = ObjectId.from_datetime(datetime.now(UTC) - timedelta(seconds=min_age - 1))
        fields = {"_id": 0, "user": 1, "files_id": 1, "n": 1}
        cursor = self._chunks.find({"files_id": {"$lt": oldest}}, fields).hint(CHUNK_INDEX)
        async for batch in _batches(cursor, "files_id", self._batch):
            for message_id in await self._without_message(list(batch)):
                await self._chunks.delete_many({"user": batch[message_id], "files_id": message_id})
                swept.bodies += 1

    async def _old_sizes(self, swept: Swept) -> None:
        """Forget the sizes of messages that their own program has removed."""
        cursor = self._sizes.find({}, {"_id": 1})
        async for batch in _batches(cursor, "_id", self._batch):
            gone = await self._without_message(list(batch))
            await self._sizes.delete_many({"_id": {"$in": gone}})
            swept.sizes += len(gone)

    async def _without_message(self, ids: list[Any]) -> list[Any]:
        found = self._messages.find({"_id": {"$in": ids}}, {"_id": 1})
        there = {message["_id"] async for message in found}
        return [message_id for message_id in ids if message_id not in there]


async def _batches(cursor: Any, field: str, size: int) -> AsyncIterator[dict[Any, Any]]:
    """Yield the distinct values of a field with their users, so many at a time."""
    batch: dict[Any, Any] = {}
    async for found in cursor:
        # Not before the next value comes: the chunks of one body are all in one batch.
        if len(batch) == size and found[field] not in batch:
            yield batch
            batch = {}
        batch[found[field]] = found.get("user")
    if batch:
        yield batch
