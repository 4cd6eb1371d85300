"""What interrupted work left behind: intents, chunks and sizes without a message, lost deliveries.

Run by `pop3hub --backend mongo sweep`, and in the background by one node at a time. Whatever it
removes for its age is as old by the server's clock, which also dates the ids of messages.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from bson import ObjectId
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError, PyMongoError

from pop3hub import MaildropInUse, PopError
from pop3hub_mongo.lease import KEPT, LAPSED, PURGE_INDEX, REMOVED_INDEX
from pop3hub_mongo.message_bodies import CHUNK_INDEX
from pop3hub_mongo.native_store import LISTING_INDEX, first_id
from pop3hub_mongo.options import YOUNG

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pop3hub_mongo.lease import Lease, Leases
    from pop3hub_mongo.mapped import MappedStore
    from pop3hub_mongo.native_store import NativeStore
    from pop3hub_mongo.purge import Purge

REMOVALS_EVERY = 600.0
"""Seconds between two looks for removals in the background, by whichever node."""
LEAVINGS_EVERY = 86_400.0
"""Seconds between two walks through bodies or sizes in the background, by whichever node."""
LONGEST = 3_600.0
"""Seconds that a sweep in the background may take."""
BATCH = 1_000
LOWEST = ObjectId(bytes(12))
"""No account is lower: a bound that lets the server read the chunks' index and not the chunks."""


@dataclass(slots=True)
class Swept:
    """What a sweep found and did away with."""

    removals: int = 0
    bodies: int = 0
    sizes: int = 0


class Sweeper:
    """Sweeps one database: chunks and lost deliveries of our schema, or sizes of another one."""

    def __init__(
        self,
        leases: Leases,
        purge: Purge,
        *,
        turns: Any,
        native: NativeStore | None = None,
        mapped: MappedStore | None = None,
        batch: int = BATCH,
        removals_every: float = REMOVALS_EVERY,
    ) -> None:
        """Sweep what these parts share; in the collection `turns` nodes see whose turn it is.

        `batch`: how many messages are looked up at a time; `removals_every` in seconds.
        """
        self._leases = leases
        self._purge = purge
        self._turns = turns
        self._native = native
        self._mapped = mapped
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
        token = secrets.token_hex(8)
        due = {"$lte": [{"$ifNull": ["$next", LAPSED]}, "$$NOW"]}
        after = {"$add": ["$$NOW", round(interval * 1000)]}
        try:
            turn = await self._turns.find_one_and_update(
                {"_id": work},
                [
                    {"$set": {"due": due}},
                    {"$set": {"by": {"$cond": ["$due", token, "$by"]}}},
                    {"$set": {"next": {"$cond": ["$due", after, "$next"]}}},
                    {"$unset": "due"},
                ],
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
        except DuplicateKeyError:
            return False
        return bool(turn) and turn["by"] == token

    async def _removals(self, swept: Swept) -> None:
        """Finish the removals of sessions that are gone."""
        left = {"purge": {"$exists": True}, "$expr": {"$lte": ["$exp", "$$NOW"]}}
        found = self._leases.collection.find(left, {"user": 1}).hint(PURGE_INDEX)
        for document in [document async for document in found]:
            try:
                lease = await self._acquire(document)
            except MaildropInUse:  # its holder has finished the removal
                continue
            try:
                if lease.purge:
                    await self._purge.finish(lease.key, lease.purge)
                    swept.removals += 1
            finally:
                await self._leases.release(lease)

    async def _acquire(self, document: dict[str, Any]) -> Lease:
        return await self._leases.acquire(
            document["_id"], document.get("user", ""), lambda: None, node="sweep"
        )

    async def _leavings(self, swept: Swept, young: float) -> None:
        if self._native is not None:
            await self._bodies(self._native, swept, young)
            await self._lost_deliveries(self._native, swept, young)
        if self._mapped is not None:
            swept.sizes += await self._mapped.forget_sizes(self._batch)

    async def _bodies(self, native: NativeStore, swept: Swept, young: float) -> None:
        """Remove the chunks of deliveries and removals that were broken off."""
        oldest = first_id(await native.server_time() - round(young * 1000))
        old = {"account": {"$gte": LOWEST}, "files_id": {"$lt": oldest}}
        fields = {"_id": 0, "account": 1, "files_id": 1, "n": 1}
        cursor = native.bodies.chunks.find(old, fields).hint(CHUNK_INDEX)
        async for batch in _batches(cursor, self._batch):
            there = await self._messages_of(native, batch)
            for message_id, account in batch.items():
                if message_id not in there:
                    swept.bodies += await self._remove_body(native, account, message_id)

    async def _messages_of(self, native: NativeStore, batch: dict[Any, Any]) -> set[Any]:
        """Return those of a batch's message ids that there are messages of."""
        accounts = list(set(batch.values()))
        query = {"account": {"$in": accounts}, "_id": {"$in": list(batch)}}
        found = native.messages.find(query, {"_id": 1}).hint(LISTING_INDEX)
        return {message["_id"] async for message in found}

    async def _remove_body(self, native: NativeStore, account: Any, message_id: Any) -> bool:
        """Remove chunks, unless the delivery that wrote them has committed meanwhile."""
        await native.bodies.condemn(account, message_id)
        if await self._messages_of(native, {message_id: account}):
            await native.bodies.spare(account, message_id)
            return False
        await native.bodies.remove(account, message_id)
        return True

    async def _lost_deliveries(self, native: NativeStore, swept: Swept, young: float) -> None:
        """Remove what was delivered to an account while it was removed, and never acknowledged."""
        age = {"$lte": ["$removed", {"$subtract": ["$$NOW", round(young * 1000)]}]}
        left = {"removed": {"$exists": True}, "$expr": age}
        leases = self._leases.collection
        found = leases.find(left, {"user": 1}).hint(REMOVED_INDEX)
        for lease in [lease async for lease in found]:
            account = lease["_id"]
            still_there = await native.has_account(lease["user"], account)
            if not still_there and (ids := await native.all_ids(account)):
                await native.remove_messages(account, ids)
                swept.removals += 1
            gc = {"$add": ["$$NOW", KEPT * 1000]}
            await leases.update_one({"_id": account}, [{"$set": {"gc": gc}}, {"$unset": "removed"}])


async def _batches(cursor: Any, size: int) -> AsyncIterator[dict[Any, Any]]:
    """Yield the accounts of messages that chunks belong to, by message, so many at a time."""
    batch: dict[Any, Any] = {}
    async for found in cursor:
        # Not before the next message comes: the chunks of one body are all in one batch.
        if len(batch) == size and found["files_id"] not in batch:
            yield batch
            batch = {}
        batch[found["files_id"]] = found["account"]
    if batch:
        yield batch
