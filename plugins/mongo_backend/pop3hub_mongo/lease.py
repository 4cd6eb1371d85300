"""Leases: the exclusive hold on a maildrop, across all nodes (RFC 1939 s4).

A lease is on the server's time. Its owner is a session, its fence rises with every owner. Whoever
holds one renews it while the session lasts; who can't do so in time ends the session.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog
from pymongo import IndexModel, ReturnDocument, WriteConcern
from pymongo.errors import DuplicateKeyError, PyMongoError

from pop3hub import MaildropInUse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

TTL = 30.0
"""Seconds for which a lease holds: longer than the election of a new primary takes."""
RENEWAL = 10.0
"""Seconds between renewals."""
TICK = 1.0
"""Seconds between two looks at what is held."""
BATCH = 1_000
"""Leases that are renewed by one command."""
KEPT = 31 * 86_400
"""Seconds after which the document of a lease that nobody holds is collected."""
ATTEMPTS = 3
"""Tries to make a lease's document, if others make it at the same moment."""

PURGE_INDEX = [("exp", 1)]
"""Of those leases alone in which a removal stands."""
LAPSED = datetime.fromtimestamp(0, UTC)


@dataclass(slots=True, eq=False)
class Lease:
    """One session's hold on a maildrop.

    deadline: the monotonic time after which the holder doesn't trust it any more.
    lost: what to call, once, when it is gone.
    purge: what an earlier session meant to remove and did not finish, or None.
    """

    name: str
    owner: str
    fence: int
    deadline: float
    lost: Callable[[], None]
    purge: Mapping[str, Any] | None = None


class Leases:
    """The leases of one process, and the task that renews them."""

    def __init__(self, collection: Any, *, ttl: float = TTL, renewal: float = RENEWAL) -> None:
        self.collection = collection
        self.ttl = ttl
        self.renewal = renewal
        self._held: dict[str, Lease] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._loose: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("pop3hub.mongo")

    async def create_indexes(self) -> None:
        """Let the server collect what nobody has held for long, and find what is left to remove."""
        left = {"purge": {"$exists": True}}
        await self.collection.create_indexes(
            [
                IndexModel([("gc", 1)], expireAfterSeconds=0),
                IndexModel(PURGE_INDEX, partialFilterExpression=left),
            ]
        )

    async def acquire(self, name: str, owner: str, lost: Callable[[], None], **facts: str) -> Lease:
        """Return the lease on a maildrop; `facts` are for the operator who lists leases.

        Raises MaildropInUse and PyMongoError.
        """
        claim = self._claim(owner, facts)
        wanted = {"owner": 1, "fence": 1, "purge": 1}
        for _ in range(ATTEMPTS):
            began = time.monotonic()
            try:
                found = await self.collection.find_one_and_update(
                    {"_id": name}, claim, wanted, upsert=True, return_document=ReturnDocument.AFTER
                )
            except DuplicateKeyError:  # another one made the document just now: look again
                continue
            except BaseException:  # it may have been granted all the same, and shan't lie about
                self._release_later(name, owner)
                raise
            if found is not None and found.get("owner") == owner:
                lease = Lease(
                    name, owner, found["fence"], began + self.ttl, lost, found.get("purge")
                )
                self._hold(lease)
                return lease
            if found is not None:
                raise MaildropInUse
        raise MaildropInUse

    def _claim(self, owner: str, facts: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return the update that gives an owner the lease, if it is free or the owner's already."""
        lapsed = {"$lte": [{"$ifNull": ["$exp", LAPSED]}, "$$NOW"]}
        mine = {"$eq": ["$owner", owner]}
        # At least the clock's milliseconds: the fence rises over a document that was collected, and
        # over one that was rolled back.
        higher = {"$max": [{"$add": [{"$ifNull": ["$fence", 0]}, 1]}, {"$toLong": "$$NOW"}]}
        granted = {
            "fence": {"$cond": [mine, "$fence", higher]},
            "owner": owner,
            "since": "$$NOW",
            "exp": _in_seconds(self.ttl),
            "gc": {"$cond": [_NO_PURGE, _in_seconds(KEPT), "$$REMOVE"]},
            **{fact: {"$literal": value} for fact, value in facts.items()},
        }
        free = {"_free": {"$or": [lapsed, mine]}}
        taken = {key: {"$cond": ["$_free", value, f"${key}"]} for key, value in granted.items()}
        return [{"$set": free}, {"$set": taken}, {"$unset": "_free"}]

    async def release(self, lease: Lease) -> None:
        """Give a lease back; its document stays, for the fence to rise on. Raises PyMongoError."""
        self._held.pop(lease.owner, None)
        if lease.deadline > time.monotonic():
            await self._free(lease.name, lease.owner)

    async def _free(self, name: str, owner: str) -> None:
        # Not waiting for the majority: a release that is rolled back lapses all the same.
        leases = self.collection.with_options(write_concern=WriteConcern(1))
        await leases.update_one(
            {"_id": name, "owner": owner}, {"$set": {"owner": None, "exp": LAPSED}}
        )

    def _release_later(self, name: str, owner: str) -> None:
        async def release() -> None:
            with suppress(PyMongoError):
                await self._free(name, owner)

        task = asyncio.get_running_loop().create_task(release())
        self._loose.add(task)
        task.add_done_callback(self._loose.discard)

    # Keeping

    def start(self) -> None:
        """Begin to renew what is held."""
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def stop(self) -> None:
        """Stop renewing; what is held lapses by itself."""
        tasks = [task for task in (self._keeper, self._renewing, *self._loose) if task]
        self._keeper = self._renewing = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _hold(self, lease: Lease) -> None:
        self._held[lease.owner] = lease

    async def _keep(self) -> None:
        renew_at = 0.0
        while True:
            await asyncio.sleep(min(TICK, self.renewal))
            now = time.monotonic()
            for lease in [lease for lease in self._held.values() if lease.deadline <= now]:
                self._lose(lease)
            busy = self._renewing is not None and not self._renewing.done()
            if self._held and now >= renew_at and not busy:
                renew_at = now + self.renewal
                self._renewing = asyncio.get_running_loop().create_task(self._renew_all())

    async def _renew_all(self) -> None:
        leases = list(self._held.values())
        for start in range(0, len(leases), BATCH):
            batch = leases[start : start + BATCH]
            try:
                await self.renew(batch)
            except PyMongoError as exc:  # the deadline decides; the next round tries again
                self._log.warning("lease.not_renewed", leases=len(batch), error=str(exc)[:200])

    async def renew(self, leases: Sequence[Lease]) -> None:
        """Prolong leases; those that are somebody else's by now are lost. Raises PyMongoError."""
        began = time.monotonic()
        held = {
            "_id": {"$in": [lease.name for lease in leases]},
            "owner": {"$in": [lease.owner for lease in leases]},
            "$expr": {"$gt": ["$exp", "$$NOW"]},
        }
        renewed = await self.collection.update_many(
            held, [{"$set": {"exp": _in_seconds(self.ttl)}}]
        )
        kept = {lease.owner for lease in leases}
        if renewed.matched_count < len(leases):
            kept = {found["owner"] async for found in self.collection.find(held, {"owner": 1})}
        for lease in leases:
            if lease.owner in kept:
                lease.deadline = began + self.ttl
            elif lease.owner in self._held:  # else it was released meanwhile
                self._lose(lease)

    def _lose(self, lease: Lease) -> None:
        del self._held[lease.owner]
        lease.deadline = 0.0
        self._log.warning("lease.lost", user=lease.name, fence=lease.fence)
        lease.lost()

    # What else is kept in a lease's document

    async def since_last_login(self, name: str, owner: str, delay: float) -> float:
        """Return the seconds since the holder's last login, or inf; note it now, after `delay`."""
        delay *= 1000
        too_soon = {"$lt": [{"$ifNull": ["$since_login", delay]}, delay]}
        found = await self.collection.find_one_and_update(
            {"_id": name, "owner": owner},
            [
                {"$set": {"since_login": {"$subtract": ["$$NOW", "$login"]}}},
                {"$set": {"login": {"$cond": [too_soon, "$login", "$$NOW"]}}},
            ],
            {"since_login": 1},
            return_document=ReturnDocument.AFTER,
        )
        if found is None or found["since_login"] is None:
            return float("inf")
        return float(found["since_login"]) / 1000

    async def listed(self) -> list[dict[str, Any]]:
        """Return the documents of the leases that are held now, in the order of their users."""
        held = {"$expr": {"$gt": ["$exp", "$$NOW"]}, "owner": {"$ne": None}}
        return [found async for found in self.collection.find(held, {"purge": 0}).sort("_id", 1)]

    async def break_off(self, name: str) -> bool:
        """Take a lease from whoever holds it: that session can't delete any more, and ends."""
        broken = await self.collection.update_one(
            {"_id": name, "owner": {"$ne": None}}, {"$set": {"owner": None, "exp": LAPSED}}
        )
        return bool(broken.matched_count)


_NO_PURGE = {"$eq": [{"$type": "$purge"}, "missing"]}


def _in_seconds(seconds: float) -> dict[str, Any]:
    return {"$add": ["$$NOW", round(seconds * 1000)]}
