"""pop3hub's own schema: users, messages, and the chunks of long bodies.

README.md describes the documents and the reasons for them. Errors of the client pass.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog
from bson import Binary, ObjectId
from pymongo import IndexModel
from pymongo.errors import DuplicateKeyError, PyMongoError

from pop3hub import NoSuchUser, PermanentFailure, TemporaryFailure, UniqueIdTaken, name_key
from pop3hub_mongo import documents
from pop3hub_mongo.accounts import Account, MongoUser
from pop3hub_mongo.driver import uninterrupted
from pop3hub_mongo.message_bodies import CHUNK_INDEX, Body, MessageBodies
from pop3hub_mongo.messages import MongoMessage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from pop3hub import PopMessage, PopUser
    from pop3hub_mongo.driver import Driver

PAGE = 5_000
"""Messages of one listing command: the loop is left to others in between."""
USERS_PAGE = 1_000
LISTING_INDEX = [("account", 1), ("_id", 1), ("size", 1), ("uid", 1), ("ascii", 1)]
UID_INDEX = [("account", 1), ("uid", 1)]
REMOVING = 30_000
"""Milliseconds for which a user who is being removed gets no mail, unless it's done before."""


class NativeStore:
    """Users and mail in pop3hub's own schema."""

    def __init__(self, driver: Driver, database: Any) -> None:
        self._driver = driver
        self.users = database["users"]
        self.messages = database["messages"]
        self.bodies = MessageBodies(database["bodies.chunks"])
        self._ids = _ArrivalIds()
        self._log = structlog.get_logger("pop3hub.mongo")

    async def create_indexes(self) -> None:
        """Make the indexes that are missing."""
        unique_ids = IndexModel(
            UID_INDEX, unique=True, partialFilterExpression={"uid": {"$exists": True}}
        )
        await self.messages.create_indexes([IndexModel(LISTING_INDEX), unique_ids])
        await self.bodies.chunks.create_indexes([IndexModel(CHUNK_INDEX, unique=True)])

    async def server_time(self) -> int:
        """Return the server's clock, by which all ages count, in milliseconds since 1970."""
        return await self._driver.server_time()

    # Users

    @staticmethod
    def key(name: str) -> str:
        """Return the form of a login name that is the key of its user: any case, Unicode NFC."""
        return name_key(name)

    async def find_user(self, name: str) -> MongoUser | None:
        """Return the user of this name in any case, or None, also for one who is disabled."""
        found = await self.users.find_one({"_id": self.key(name), "disabled": {"$ne": True}})
        return self._user(found) if found and self._is_ours(found) else None

    async def find_any(self, name: str) -> MongoUser | None:
        """Return the user of this name, also one who is disabled. Raises PermanentFailure."""
        found = await self.users.find_one({"_id": self.key(name)})
        if found is None:
            return None
        if not self._is_ours(found):
            raise PermanentFailure
        return self._user(found)

    async def has_account(self, key: str, account: ObjectId) -> bool:
        """Return whether this user has this account."""
        found = await self.users.find_one({"_id": key}, {"account": 1})
        return found is not None and found.get("account") == account

    async def account_of(self, user: PopUser) -> Account:
        """Return a user's account. Raises NoSuchUser."""
        if isinstance(user, MongoUser) and user.account is not None:
            return user.account
        found = await self.find_user(user.name)
        if found is None or found.account is None:
            raise NoSuchUser(name=user.name)
        return found.account

    async def lease_of(self, name: str) -> Any:
        """Return the `_id` of the lease on a user's maildrop, or None if there is no such user."""
        found = await self.users.find_one({"_id": self.key(name)}, {"account": 1})
        return found.get("account") if found else None

    def _is_ours(self, found: dict[str, Any]) -> bool:
        """Return whether a user's document is of this version of the schema, or say in the log."""
        if isinstance(found.get("account"), ObjectId):
            return True
        self._log.error(
            "mongo.other_schema",
            user=found["_id"],
            remedy="remove this document from `users` and add the user again: it has no account",
        )
        return False

    def _user(self, found: dict[str, Any]) -> MongoUser:
        """Return the user of a document; a credential that can't be one is left out and logged."""
        texts = {name: documents.text_of(found.get(name)) for name in ("password", "apop")}
        odd = [name for name, text in texts.items() if text is None and found.get(name) is not None]
        scram = found.get("scram") or {}
        if not isinstance(scram, dict) or not all(isinstance(v, str) for v in scram.values()):
            odd.append("scram")
            scram = {}
        for field in odd:
            self._log.error("mongo.odd_user", user=found["_id"], field=field)
        account = found.get("account")
        return MongoUser(
            found["_id"],
            texts["password"],
            secret=texts["apop"],
            scram=scram,
            account=Account(account, account),
        )

    async def store_user(self, user: PopUser, *, replace: bool) -> bool:
        """Insert or update a user; return False if there is one, or with `replace` if none is.

        A new user gets an account that nobody had before, whoever had the name.
        """
        key = self.key(user.name)
        fields = {
            "password": user.password,
            "apop": user.secret,
            "scram": dict(user.scram) or None,
        }
        present = {field: value for field, value in fields.items() if value is not None}
        if not replace:
            try:
                await self.users.insert_one(
                    {"_id": key, "account": ObjectId(os.urandom(12)), **present}
                )
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
        named = self.users.find({"_id": {"$type": "string"}})
        async for found in named.sort("_id", 1).batch_size(USERS_PAGE):
            page.append(self._user(found))
            if len(page) == USERS_PAGE:
                yield page
                page = []
        yield page

    async def hold_off_mail(self, key: str, account: ObjectId) -> None:
        """Let no delivery to a user be acknowledged for a while: they are being removed."""
        removing = {"$add": ["$$NOW", REMOVING]}
        await self.users.update_one(
            {"_id": key, "account": account}, [{"$set": {"removing": removing}}]
        )

    async def take_mail(self, key: str, account: ObjectId) -> None:
        """Take that back."""
        await self.users.update_one({"_id": key, "account": account}, {"$unset": {"removing": ""}})

    async def delete_user(self, key: str, account: ObjectId) -> bool:
        """Delete a user while mail is still held off; return False if it isn't any more."""
        held_off = {"$expr": {"$gt": ["$removing", "$$NOW"]}}
        deleted = await self.users.delete_one({"_id": key, "account": account, **held_off})
        return bool(deleted.deleted_count)

    # Messages

    async def list_messages(self, user: PopUser) -> AsyncIterator[Sequence[PopMessage]]:
        """Yield pages of a user's messages in the order of their arrival, from the index alone.

        The server puts a page into one document of arrays: five times less work here than a
        document for each message.
        """
        account = await self.account_of(user)
        last: ObjectId | None = None
        while True:
            page = await self._page(account.owner, last)
            if page is None:
                return
            columns = (page["ids"], page["sizes"], page["uids"], page["ascii"])
            rows: Iterable[tuple[Any, ...]] = zip(*columns, strict=True)
            if set(map(type, page["sizes"])) != {int}:
                rows = [row for row in map(self._sized, rows) if row]
            yield [MongoMessage(*row) for row in rows]
            if len(page["ids"]) < PAGE:
                return
            last = page["ids"][-1]

    def _sized(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a row with a size that is an int, or an empty one after a line in the log."""
        message_id, size, *rest = row
        size = documents.size_of(size)
        if size is None:
            self._log.error("mongo.message_skipped", document=repr(message_id), field="size")
            return ()
        return message_id, size, *rest

    async def _page(self, account: ObjectId, last: ObjectId | None) -> dict[str, Any] | None:
        cursor = await self._driver.aggregate(
            self.messages, listing_pipeline(account, last), hint=dict(LISTING_INDEX)
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
        account = (await self.account_of(user)).owner
        found = await self.messages.find_one(
            {"_id": message.id, "account": account},
            {"_id": 0, "body": 1, "chunks": 1, "dotless": 1},
        )
        if found is None:
            raise PermanentFailure(text_id="message-gone")
        message.wire_ready = bool(found.get("dotless"))
        body, chunks = found.get("body"), found.get("chunks")
        if isinstance(body, bytes):
            return body
        if not isinstance(chunks, int) or body is not None:
            self._log.error("mongo.odd_message", document=repr(message.id), field="body")
            raise PermanentFailure(text_id="maildrop-damaged")
        return self.bodies.read(account, message.id, chunks)

    async def remove_messages(self, account: ObjectId, ids: Sequence[Any]) -> int:
        """Remove messages and their chunks; return how many are gone, which is all of them."""
        wanted = list(ids)
        await self.messages.delete_many({"account": account, "_id": {"$in": wanted}})
        await self.bodies.chunks.delete_many({"account": account, "files_id": {"$in": wanted}})
        return len(wanted)

    async def older_than(self, account: ObjectId, seconds: float) -> list[ObjectId]:
        """Return the ids of the messages that arrived so many seconds ago or earlier."""
        before = first_id(await self.server_time() - round(seconds * 1000))
        return await self.all_ids(account, {"_id": {"$lt": before}})

    async def all_ids(
        self, account: ObjectId, query: Mapping[str, Any] | None = None
    ) -> list[ObjectId]:
        """Return the ids of all messages of an account, or of those that a query matches."""
        found = self.messages.find({"account": account, **(query or {})}, {"_id": 1})
        return [message["_id"] async for message in found.hint(LISTING_INDEX)]

    # Delivery

    async def store_message(
        self, name: str, contents: bytes | AsyncIterator[bytes], uid: str | None
    ) -> str:
        """Put a message into a maildrop; return its unique-id.

        The document of the message comes last: it is the commit. What was committed and can't be
        acknowledged is removed again. Raises NoSuchUser, UniqueIdTaken, TemporaryFailure.
        """
        key = self.key(name)
        fields = {"account": 1, "now": {"$toLong": "$$NOW"}}
        user = await self.users.find_one({"_id": key}, fields)
        if not user:
            raise NoSuchUser(name=name)
        if not self._is_ours(user):
            raise PermanentFailure
        account = user["account"]
        if uid and await self._is_taken(account, uid):
            raise UniqueIdTaken(uid=uid)
        message_id = self._ids.new(user["now"])
        body = await self.bodies.write(account, message_id, contents)
        document = _document(message_id, account, uid, body)
        try:
            await uninterrupted(self.messages.insert_one(document))
            await self._confirm(name, account, message_id, body.chunks)
        except DuplicateKeyError as exc:
            await self.bodies.discard(account, message_id)
            raise UniqueIdTaken(uid=uid) from exc
        except BaseException:  # nobody is told that it is there
            await self._undo(account, message_id)
            raise
        return uid or str(message_id)

    async def _confirm(
        self, name: str, account: ObjectId, message_id: ObjectId, chunks: int
    ) -> None:
        """Return if a message that was just committed will stay; else raise.

        It stays unless a sweep took its chunks for leftovers, or its user is being removed. Both of
        them leave a mark before they look for messages, so one of the two sides sees the other.
        """
        fields = {"account": 1, "is_removed": {"$gt": ["$removing", "$$NOW"]}}
        user = await self.users.find_one({"_id": self.key(name)}, fields)
        if user is None or user.get("account") != account:
            raise NoSuchUser(name=name)
        if user["is_removed"]:
            raise TemporaryFailure
        if chunks and not await self.bodies.are_whole(account, message_id, chunks):
            self._log.warning("delivery.chunks_gone", user=name)
            raise TemporaryFailure

    async def _undo(self, account: ObjectId, message_id: ObjectId) -> None:
        """Remove a message that isn't acknowledged, as far as the server lets us."""
        with suppress(PyMongoError):
            await self.messages.delete_one({"_id": message_id, "account": account})
            await self.bodies.discard(account, message_id)  # not if the message may be there still

    async def _is_taken(self, account: ObjectId, uid: str) -> bool:
        taken: list[dict[str, Any]] = [{"uid": uid}]
        if ObjectId.is_valid(uid):
            taken.append({"_id": ObjectId(uid)})
        for query in taken:
            if await self.messages.find_one({"account": account, **query}, {"_id": 1}):
                return True
        return False


def first_id(milliseconds: int) -> ObjectId:
    """Return an id that is lower than any of a message that arrived later than that."""
    return ObjectId(_ticks(max(0, milliseconds)).to_bytes(7, "big") + bytes(5))


def listing_pipeline(account: ObjectId, last: ObjectId | None) -> list[dict[str, Any]]:
    """Return the aggregation of one page: four arrays, from the index alone."""
    match: dict[str, Any] = {"account": account}
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
                "sizes": {"$push": {"$ifNull": ["$size", None]}},
                "uids": {"$push": {"$ifNull": ["$uid", None]}},
                "ascii": {"$push": {"$ifNull": ["$ascii", None]}},
            }
        },
    ]


def _document(
    message_id: ObjectId, account: ObjectId, uid: str | None, body: Body
) -> dict[str, Any]:
    """Return the document of a message; what isn't there says no."""
    form = body.form
    document: dict[str, Any] = {"_id": message_id, "account": account, "size": form.octets}
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
    return document


def _ticks(milliseconds: int) -> int:
    return (milliseconds << 24) // 1000


class _ArrivalIds:
    """ObjectIds that sort by arrival within a second too, whichever process makes them.

    Four octets of seconds as always, three of their fraction, five of chance; the time is the
    server's. Those of the library are by the clock of the process, and have its number behind the
    seconds: messages of one second would come in any order.
    """

    def __init__(self) -> None:
        self._last = 0

    def new(self, milliseconds: int) -> ObjectId:
        """Return an id that is higher than the one before, also when the clock was put back."""
        self._last = max(self._last + 1, _ticks(milliseconds))
        return ObjectId(self._last.to_bytes(7, "big") + os.urandom(5))
