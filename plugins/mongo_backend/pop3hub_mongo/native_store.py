"""pop3hub's own schema: users, messages, and the chunks of long bodies.

README.md describes the documents and the reasons for them. Errors of the client pass.
"""

from __future__ import annotations

import os
import struct
import time
from typing import TYPE_CHECKING, Any

from bson import Binary, ObjectId
from pymongo import IndexModel
from pymongo.errors import DuplicateKeyError

from pop3hub import NoSuchUser, PermanentFailure, PopUser, UniqueIdTaken
from pop3hub_mongo.message_bodies import CHUNK_INDEX, MessageBodies
from pop3hub_mongo.messages import MongoMessage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from pop3hub import PopMessage
    from pop3hub_mongo.driver import Driver

PAGE = 5_000
"""Messages of one listing command: the loop is left to others in between."""
USERS_PAGE = 1_000
LISTING_INDEX = [("user", 1), ("_id", 1), ("size", 1), ("uid", 1), ("ascii", 1)]
UID_INDEX = [("user", 1), ("uid", 1)]


class NativeStore:
    """Users and mail in pop3hub's own schema."""

    def __init__(self, driver: Driver, database: Any) -> None:
        self._driver = driver
        self.users = database["users"]
        self.messages = database["messages"]
        self.bodies = MessageBodies(database["bodies.chunks"])
        self._ids = _ArrivalIds()

    async def create_indexes(self) -> None:
        """Make the indexes that are missing."""
        unique_ids = IndexModel(
            UID_INDEX, unique=True, partialFilterExpression={"uid": {"$exists": True}}
        )
        await self.messages.create_indexes([IndexModel(LISTING_INDEX), unique_ids])
        await self.bodies.chunks.create_indexes([IndexModel(CHUNK_INDEX, unique=True)])

    # Users

    @staticmethod
    def key(name: str) -> str:
        """Return the form of a login name that is the key of its user: any case, Unicode NFC."""
        return name_key(name)

    async def find_user(self, name: str) -> PopUser | None:
        """Return the user of this name, whatever its case, or None; one who is disabled is none."""
        found = await self.users.find_one({"_id": self.key(name), "disabled": {"$ne": True}})
        return _user(found) if found else None

    async def store_user(self, user: PopUser, *, replace: bool) -> bool:
        """Insert or update a user; return False where that hinders."""
        key = self.key(user.name)
        fields = {
            "password": user.password,
            "apop": user.secret,
            "scram": dict(user.scram) or None,
        }
        present = {field: value for field, value in fields.items() if value is not None}
        if not replace:
            try:
                await self.users.insert_one({"_id": key, **present})
            except DuplicateKeyError:
                return False
            return True
        absent = {field: "" for field, value in fields.items() if value is None}
        update = {"$set": present, "$unset": absent}
        changed = await self.users.update_one(
            {"_id": key}, {operator: fields for operator, fields in update.items() if fields}
        )
        return bool(changed.matched_count)

    async def list_users(self) -> AsyncIterator[list[PopUser]]:
        """Yield all users in the order of their names, in pages."""
        page: list[PopUser] = []
        async for found in self.users.find({}).sort("_id", 1).batch_size(USERS_PAGE):
            page.append(_user(found))
            if len(page) == USERS_PAGE:
                yield page
                page = []
        yield page

    # Messages

    async def list_messages(self, user: PopUser) -> AsyncIterator[Sequence[PopMessage]]:
        """Yield pages of a user's messages in the order of their arrival; the index has it all.

        The server puts a page into one document of arrays: five times less work here than a
        document for each message.
        """
        last: ObjectId | None = None
        while True:
            page = await self._page(user.name, last)
            if page is None:
                return
            yield [
                MongoMessage(*columns)
                for columns in zip(
                    page["ids"], page["sizes"], page["uids"], page["ascii"], strict=True
                )
            ]
            if len(page["ids"]) < PAGE:
                return
            last = page["ids"][-1]

    async def _page(self, name: str, last: ObjectId | None) -> dict[str, Any] | None:
        cursor = await self._driver.aggregate(
            self.messages, listing_pipeline(name, last), hint=dict(LISTING_INDEX)
        )
        try:
            found = await cursor.to_list(1)
        finally:
            await cursor.close()
        return found[0] if found else None

    async def open_contents(
        self, message: MongoMessage, user: PopUser
    ) -> bytes | AsyncIterator[bytes]:
        """Return a body, or an iterator of its chunks."""
        found = await self.messages.find_one(
            {"_id": message.id, "user": user.name}, {"_id": 0, "body": 1, "chunks": 1, "dotless": 1}
        )
        if found is None:
            raise PermanentFailure(text_id="message-gone")
        message.wire_ready = bool(found.get("dotless"))
        if "body" in found:
            return bytes(found["body"])
        return self.bodies.read(user.name, message.id, found["chunks"])

    async def remove_messages(self, name: str, ids: Sequence[Any]) -> int:
        """Remove messages and their chunks; return how many are gone, which is all of them."""
        wanted = list(ids)
        await self.messages.delete_many({"user": name, "_id": {"$in": wanted}})
        await self.bodies.chunks.delete_many({"user": name, "files_id": {"$in": wanted}})
        return len(wanted)

    async def older_than(self, name: str, seconds: float) -> list[ObjectId]:
        """Return the ids of the messages that arrived so many seconds ago or earlier."""
        before = ObjectId(struct.pack(">I", max(0, int(time.time() - seconds))) + bytes(8))
        found = self.messages.find({"user": name, "_id": {"$lt": before}}, {"_id": 1})
        return [message["_id"] async for message in found.hint(LISTING_INDEX)]

    async def all_ids(self, name: str) -> list[ObjectId]:
        """Return the ids of all messages of a user."""
        found = self.messages.find({"user": name}, {"_id": 1}).hint(LISTING_INDEX)
        return [message["_id"] async for message in found]

    async def store_message(
        self, name: str, contents: bytes | AsyncIterator[bytes], uid: str | None
    ) -> str:
        """Put a message into a maildrop; return its unique-id.

        The document of the message comes last: it is the commit. Raises NoSuchUser, UniqueIdTaken.
        """
        key = self.key(name)
        if not await self.users.find_one({"_id": key}, {"_id": 1}):
            raise NoSuchUser(name=name)
        if uid and await self._is_taken(key, uid):
            raise UniqueIdTaken(uid=uid)
        message_id = self._ids.new()
        body = await self.bodies.write(key, message_id, contents)
        form = body.form
        document: dict[str, Any] = {"_id": message_id, "user": key, "size": form.octets}
        if uid:
            document["uid"] = uid
        if body.ascii_headers:
            document["ascii"] = True
        if form.wire_ready:
            document["dotless"] = True
        if body.inline is None:
            document["chunks"] = body.chunks
        else:
            document["body"] = Binary(body.inline)
        try:
            await self.messages.insert_one(document)
        except DuplicateKeyError as exc:
            await self.bodies.discard(key, message_id)
            raise UniqueIdTaken(uid=uid) from exc
        return uid or str(message_id)

    async def _is_taken(self, name: str, uid: str) -> bool:
        taken: list[dict[str, Any]] = [{"uid": uid}]
        if ObjectId.is_valid(uid):
            taken.append({"_id": ObjectId(uid)})
        for query in taken:
            if await self.messages.find_one({"user": name, **query}, {"_id": 1}):
                return True
        return False


def listing_pipeline(name: str, last: ObjectId | None) -> list[dict[str, Any]]:
    """Return the aggregation of one page: four arrays, from the index alone."""
    match: dict[str, Any] = {"user": name}
    if last is not None:
        match["_id"] = {"$gt": last}
    return [
        {"$match": match},
        {"$sort": {"_id": 1}},
        {"$limit": PAGE},
        {
            "$group": {
                "_id": None,
                "ids": {"$push": "$_id"},
                "sizes": {"$push": "$size"},
                "uids": {"$push": {"$ifNull": ["$uid", None]}},
                "ascii": {"$push": {"$ifNull": ["$ascii", None]}},
            }
        },
    ]


def _user(found: dict[str, Any]) -> PopUser:
    return PopUser(
        found["_id"],
        found.get("password"),
        secret=found.get("apop"),
        scram=found.get("scram") or {},
    )


class _ArrivalIds:
    """ObjectIds that sort by arrival within a second too, whichever process makes them.

    Four octets of seconds as always, three of their fraction, five of chance. Those of the library
    have a process number behind the seconds: messages of one second would come in any order.
    """

    def __init__(self) -> None:
        self._last = 0

    def new(self) -> ObjectId:
        """Return an id that is higher than the one before, also when the clock was put back."""
        self._last = max(self._last + 1, int(time.time() * (1 << 24)))
        return ObjectId(self._last.to_bytes(7, "big") + os.urandom(5))
