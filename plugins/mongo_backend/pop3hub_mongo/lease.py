"""Leases: the exclusive hold on a maildrop, across all nodes (RFC 1939 s4).

A lease runs on the server's clock. Every acquisition is an owner of its own, also when a session
tries twice, and the fence rises with every owner. The holder renews the lease while the session
lasts; a session whose lease can't be renewed in time ends.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog
from pymongo import IndexModel, ReturnDocument, WriteConcern
from pymongo.errors import (
    AutoReconnect,
    DuplicateKeyError,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from pop3hub import MaildropInUse, TemporaryFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

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

RELEASE_AFTER = (0.0, 1.0, 3.0, 8.0, 16.0)
"""Seconds between tries to release a claim that got no answer: the server may be late with it."""
STOPPING = 5.0
"""Seconds for which `stop` waits for the release of claims that nobody waits for any more."""

PURGE_INDEX = [("exp", 1)]
"""Of those leases alone that hold an unfinished removal."""
REMOVED_INDEX = [("removed", 1)]
"""Of the leases of removed accounts alone."""
LAPSED = datetime.fromtimestamp(0, UTC)


@dataclass(slots=True, eq=False)
class Lease:
    """One acquisition of a maildrop.

    key: the `_id` of the lease's document, one for each account.
    user: the name, for people.
    owner: a token that no other acquisition has.
    deadline: the monotonic time after which the holder doesn't trust it any more.
    lost: called once when the lease is gone.
    purge: what an earlier session meant to remove and did not finish, or None.
    """

    key: Any
    user: str
    owner: str
    fence: int
    deadline: float
    lost: Callable[[], None]
    purge: Mapping[str, Any] | None = None

    @property
    def held(self) -> dict[str, Any]:
        """The query that finds the lease's document as long as the server says it is held."""
        return self.mine | {"$expr": {"$gt": ["$exp", "$$NOW"]}}

    @property
    def mine(self) -> dict[str, Any]:
        """The query that finds the lease's document unless another acquisition has it."""
        return {"_id": self.key, "owner": self.owner, "fence": self.fence}


class Leases:
    """The leases of one process, and the task that renews them."""

    def __init__(self, collection: Any, *, ttl: float = TTL, renewal: float = RENEWAL) -> None:
        self.collection = collection
        self.ttl = ttl
        self.renewal = renewal
        self._held: dict[str, Lease] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._loose: set[asyncio.Task[Any]] = set()
        self._stopping = asyncio.Event()
        self._log = structlog.get_logger("pop3hub.mongo")

    async def create_indexes(self) -> None:
        """Let the server collect what nobody has held for long, and find what is left to remove."""
        left = {"purge": {"$exists": True}}
        removed = {"removed": {"$exists": True}}
        await self.collection.create_indexes(
            [
                IndexModel([("gc", 1)], expireAfterSeconds=0),
                IndexModel(PURGE_INDEX, partialFilterExpression=left),
                IndexModel(REMOVED_INDEX, partialFilterExpression=removed),
            ]
        )

    async def acquire(self, key: Any, user: str, lost: Callable[[], None], **facts: str) -> Lease:
        """Return the lease on a maildrop; `facts` are for the operator who lists leases.

        Raises MaildropInUse and PyMongoError. If the caller is cancelled, the claim goes on, since
        the server may grant it all the same, and is released once its answer is there.
        """
        owner = secrets.token_hex(12)
        asking = self._in_background(self._ask(key, owner, {"user": user, **facts}))
        try:
            began, found = await asyncio.shield(asking)
        except BaseException:
            self._in_background(self._give_back(asking, key, owner))
            raise
        if found is None or found.get("owner") != owner:
            raise MaildropInUse
        deadline = began + self.ttl
        lease = Lease(key, user, owner, found["fence"], deadline, lost, found.get("purge"))
        self._held[owner] = lease
        return lease

    async def _ask(
        self, key: Any, owner: str, facts: Mapping[str, str]
    ) -> tuple[float, dict[str, Any] | None]:
        """Claim a lease; return when that was sent, and the document that there is now."""
        claim = self._claim(owner, facts)
        wanted = {"owner": 1, "fence": 1, "purge": 1}
        began = time.monotonic()
        for _ in range(ATTEMPTS):
            began = time.monotonic()
            try:
                found = await self.collection.find_one_and_update(
                    {"_id": key}, claim, wanted, upsert=True, return_document=ReturnDocument.AFTER
                )
            except DuplicateKeyError:  # another one made the document just now: look again
                continue
            if found is not None:
                return began, found
        return began, None

    async def _give_back(self, asking: asyncio.Task[Any], key: Any, owner: str) -> None:
        """Release what a claim was granted that nobody waits for, once its answer is there."""
        await asyncio.wait([asking])
        if asking.cancelled():
            return
        error = asking.exception()
        if error is None and (asking.result()[1] or {}).get("owner") != owner:
            return
        never_sent = isinstance(error, ServerSelectionTimeoutError)
        unanswered = isinstance(error, AutoReconnect) and not never_sent
        await self._free_later(
            {"_id": key, "owner": owner}, RELEASE_AFTER if unanswered else RELEASE_AFTER[:1]
        )

    async def _free_later(self, mine: Mapping[str, Any], pauses: Sequence[float]) -> None:
        for pause in pauses:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            if await self._free(mine):
                return

    def _in_background(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._loose.add(task)
        task.add_done_callback(self._loose.discard)
        return task

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
            "gc": {"$cond": [_IS_DONE, _in_seconds(KEPT), "$$REMOVE"]},
            **{fact: {"$literal": value} for fact, value in facts.items()},
        }
        free = {"_free": {"$or": [lapsed, mine]}}
        taken = {key: {"$cond": ["$_free", value, f"${key}"]} for key, value in granted.items()}
        return [{"$set": free}, {"$set": taken}, {"$unset": "_free"}]

    async def release(self, lease: Lease) -> None:
        """Give a lease back; its document stays, for the fence to rise on.

        Goes on if the caller is cancelled, and is tried again for a while if the server fails.
        """
        self._held.pop(lease.owner, None)
        if lease.deadline <= time.monotonic():
            return
        freed = await asyncio.shield(self._in_background(self._free(lease.mine)))
        if freed is None:
            self._in_background(self._free_later(lease.mine, RELEASE_AFTER[1:]))

    async def _free(self, mine: Mapping[str, Any]) -> bool | None:
        """Free a lease; return whether it was held, None if the server didn't say."""
        # Not waiting for the majority: a release that is rolled back lapses all the same.
        leases = self.collection.with_options(write_concern=WriteConcern(1))
        try:
            freed = await leases.update_one(mine, {"$set": {"owner": None, "exp": LAPSED}})
        except PyMongoError as exc:
            self._log.warning("lease.not_released", error=str(exc)[:200])
            return None
        return bool(freed.matched_count)

    # Keeping

    def start(self) -> None:
        """Begin to renew what is held."""
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def stop(self) -> None:
        """Stop renewing; what is held lapses by itself."""
        self._stopping.set()
        if self._loose:
            await asyncio.wait(self._loose, timeout=STOPPING)
        tasks = [task for task in (self._keeper, self._renewing, *self._loose) if task]
        self._keeper = self._renewing = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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
            "_id": {"$in": [lease.key for lease in leases]},
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
        self._log.warning("lease.lost", user=lease.user, fence=lease.fence)
        lease.lost()

    # What else is kept in a lease's document

    async def since_last_login(self, lease: Lease, delay: float) -> float:
        """Return the seconds since the holder's last login, or inf; note it now, after `delay`."""
        delay *= 1000
        too_soon = {"$lt": [{"$ifNull": ["$since_login", delay]}, delay]}
        found = await self.collection.find_one_and_update(
            lease.mine,
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

    async def note_removal(self, lease: Lease) -> None:
        """Note that the account is being removed: a sweep looks later for lost deliveries to it.

        Raises TemporaryFailure: the lease isn't held any more.
        """
        note = {"$set": {"removed": "$$NOW"}}
        noted = await self.collection.update_one(lease.held, [note, {"$unset": "gc"}])
        if not noted.matched_count:
            raise TemporaryFailure

    async def listed(self) -> list[dict[str, Any]]:
        """Return the documents of the leases that are held now, in the order of their users."""
        held = {"$expr": {"$gt": ["$exp", "$$NOW"]}, "owner": {"$ne": None}}
        return [found async for found in self.collection.find(held, {"purge": 0}).sort("user", 1)]

    async def break_off(self, key: Any) -> bool:
        """Take a lease from its holder: that session can't delete any more, and ends."""
        broken = await self.collection.update_one(
            {"_id": key, "owner": {"$ne": None}}, {"$set": {"owner": None, "exp": LAPSED}}
        )
        return bool(broken.matched_count)


_IS_DONE = {
    "$and": [
        {"$eq": [{"$type": "$purge"}, "missing"]},
        {"$eq": [{"$type": "$removed"}, "missing"]},
    ]
}


def _in_seconds(seconds: float) -> dict[str, Any]:
    return {"$add": ["$$NOW", round(seconds * 1000)]}
