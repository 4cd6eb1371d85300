"""Somebody else's documents, read through a `MongoSchema` and changed by nothing but deletion.

Sizes that they don't have are measured once and remembered in a collection of pop3hub's own. An odd
document costs what is in it: a message is left out or goes by another unique-id, a user can't log
in. A line in the log names it. Errors of the client pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from bson import CodecOptions, ObjectId
from bson.codec_options import DatetimeConversion
from pymongo import IndexModel, UpdateOne
from pymongo.errors import BulkWriteError

from pop3hub import NoSuchUser, PermanentFailure
from pop3hub.protocol.message import wire_form
from pop3hub_mongo import documents
from pop3hub_mongo.accounts import Account, MongoUser
from pop3hub_mongo.documents import value_at
from pop3hub_mongo.messages import MongoMessage, has_ascii_headers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from pop3hub import PopMessage, PopUser
    from pop3hub_mongo.schema import MongoSchema

PAGE = 1_000
"""Messages of one page, at most."""
MEASURED = 32
"""Messages of a page where some have to be read for their size: a page has the time of one hook."""
BODIES_AT_ONCE = 8
"""Bodies that are read together for measuring; one may have 16 MiB."""
ALREADY_THERE = 11000
USERS_PAGE = 1_000
NAMESAKES = 10
"""Documents that are looked at for a name: other values than the name itself match it too."""
NAMED = 10
"""Odd messages of one login that the log names; the others are counted."""

READABLE: CodecOptions[dict[str, Any]] = CodecOptions(
    unicode_decode_error_handler="surrogateescape",
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)
"""How their documents are decoded: text that is no UTF-8 and dates of any year mustn't fail."""


class MappedStore:
    """Users and mail of another program's schema."""

    def __init__(self, schema: MongoSchema, theirs: Any, ours: Any) -> None:
        """Read the database `theirs`; keep what is remembered in the database `ours`."""
        self.schema = schema
        self.users = theirs[schema.users].with_options(codec_options=READABLE)
        self.messages = theirs[schema.messages].with_options(codec_options=READABLE)
        self.sizes = ours["sizes"].with_options(codec_options=READABLE)
        self._log = structlog.get_logger("pop3hub.mongo")

    async def create_indexes(self, *, allowed: bool) -> None:
        """Make the indexes that logins and listings need, or log which are missing."""
        await self.sizes.create_indexes(
            [IndexModel([("of", 1)], partialFilterExpression={"of": {"$exists": True}})]
        )
        if self.schema.user_key != "_id":
            await self._index(self.users, [(self.schema.user_key, 1)], 1, allowed=allowed)
        await self._index(self.messages, self.schema.index(), 2, allowed=allowed)

    async def _index(
        self, collection: Any, wanted: list[tuple[str, int]], prefix: int, *, allowed: bool
    ) -> None:
        """Make an index, unless there is one that begins with the same so many fields."""
        for index in (await collection.index_information()).values():
            fields = [name for name, _ in index["key"][:prefix]]
            if (
                fields == [name for name, _ in wanted[:prefix]]
                and "partialFilterExpression" not in index
            ):
                return
        if allowed:
            await collection.create_indexes([IndexModel(wanted)])
            return
        keys = ", ".join(f'"{name}": {direction}' for name, direction in wanted)
        name = collection.name
        where = f"db.{name}" if name.isidentifier() else f'db.getCollection("{name}")'
        self._log.warning(
            "mongo.index_missing",
            database=collection.database.name,
            remedy=f"{where}.createIndex({{{keys}}})",
            option="--mongo-create-indexes",
        )

    # Users

    @staticmethod
    def key(name: str) -> str:
        """Return the name as it is: their program decides what is the same."""
        return name

    async def find_user(self, name: str) -> MongoUser | None:
        """Return the user whose document has exactly this name, or None.

        None, with a line in the log, for one whose document can't be right: to the client they are
        as unknown as anybody else.
        """
        query = {self.schema.user_key: name}
        found = self.users.find(query, self._user_fields()).limit(NAMESAKES)
        users = [user async for document in found if (user := self._user(document))]
        if len(users) > 1:
            self._log.error("mongo.name_taken_twice", user=name, documents=len(users))
        return users[0] if users else None

    def _user_fields(self) -> dict[str, int]:
        schema = self.schema
        fields = ("_id", schema.user_key, schema.owner_from, schema.password, schema.apop_secret)
        names = {name for name in fields if name}
        # A field and a part of it can't both be asked for.
        return {
            name: 1 for name in names if not any(name.startswith(f"{other}.") for other in names)
        }

    async def account_of(self, user: PopUser) -> Account:
        """Return the account of a user. Raises NoSuchUser."""
        if isinstance(user, MongoUser) and user.account is not None:
            return user.account
        found = await self.find_user(user.name)
        if found is None or found.account is None:
            raise NoSuchUser(name=user.name)
        return found.account

    async def lease_of(self, name: str) -> Any:
        """Return the `_id` of the lease on a user's maildrop, or None if there is no such user."""
        found = await self.find_user(name)
        return found.account.lease if found and found.account else None

    async def list_users(self) -> AsyncIterator[list[MongoUser]]:
        """Yield all users in the order of their names, in pages."""
        key = self.schema.user_key
        page: list[MongoUser] = []
        found = self.users.find({key: {"$type": "string"}}, self._user_fields()).sort(key, 1)
        async for document in found:
            if (user := self._user(document)) is None:
                continue
            page.append(user)
            if len(page) == USERS_PAGE:
                yield page
                page = []
        yield page

    def _user(self, found: dict[str, Any]) -> MongoUser | None:
        schema = self.schema
        document = repr(found.get("_id"))[:100]
        name = value_at(found, schema.user_key)
        if not isinstance(name, str) or documents.text_of(name) is None:
            self._log.error("mongo.odd_user", document=document, field=schema.user_key)
            return None
        owner = value_at(found, schema.owner_from)
        written = documents.owner_of(owner)
        if written is None:
            self._log.error("mongo.odd_user", user=name, document=document, field=schema.owner_from)
            return None
        credentials = {}
        for field in filter(None, (schema.password, schema.apop_secret)):
            value = value_at(found, field)
            credentials[field] = documents.text_of(value)
            if value is not None and credentials[field] is None:
                self._log.error("mongo.odd_user", user=name, document=document, field=field)
        return MongoUser(
            name,
            credentials[schema.password],
            secret=credentials.get(schema.apop_secret),
            account=Account(written, owner),
        )

    # Messages

    async def list_messages(self, user: PopUser) -> AsyncIterator[Sequence[PopMessage]]:
        """Yield pages of a user's messages, sizes measured where theirs are missing."""
        schema = self.schema
        account = await self.account_of(user)
        fields = {name: 1 for name in ("_id", schema.uid, schema.size) if name}
        cursor = self.messages.find(schema.of_owner(account.owner), fields)
        cursor = cursor.sort([(name, 1) for name in dict.fromkeys((schema.order, "_id"))])
        listing = _Listing(self, account, user.name)
        await listing.recall_unique_ids()
        page: list[dict[str, Any]] = []
        try:
            async for found in cursor.batch_size(PAGE):
                page.append(found)
                if len(page) == PAGE:
                    async for messages in listing.pages(page):
                        yield messages
                    page = []
        finally:
            await cursor.close()
        async for messages in listing.pages(page):
            yield messages
        await listing.end()

    async def open_contents(self, message: MongoMessage, user: PopUser) -> bytes:
        """Return a body."""
        account = await self.account_of(user)
        query = self.schema.messages_of(account.owner, [message.id])
        found = await self.messages.find_one(query, {self.schema.body: 1})
        if found is None:
            raise PermanentFailure(text_id="message-gone")
        contents = documents.octets_of(value_at(found, self.schema.body))
        if contents is None:
            self._log.error(
                "mongo.odd_message", document=repr(message.id)[:100], field=self.schema.body
            )
            raise PermanentFailure(text_id="maildrop-damaged")
        return contents

    async def remove_messages(self, owner: Any, ids: Sequence[Any]) -> int:
        """Remove or flag messages; return how many are gone, which is all of them."""
        theirs = self.schema.messages_of(owner, ids)
        if flag := self.schema.flag:
            await self.messages.update_many(theirs, {"$set": {flag: True}})
        else:
            await self.messages.delete_many(theirs)
        await self.sizes.delete_many({"_id": {"$in": list(ids)}})
        return len(ids)

    # Sizes

    async def measure(self, ids: list[Any]) -> dict[bytes | None, dict[str, Any]]:
        """Return what is found by reading messages, by their keys, and remember it.

        One without a body has no size, and is not remembered: their program may add it yet.
        """
        body = self.schema.body
        measured: dict[bytes | None, dict[str, Any]] = {}
        found = self.messages.find({"_id": {"$in": ids}}, {body: 1})
        async for message in found.batch_size(BODIES_AT_ONCE):
            contents = documents.octets_of(value_at(message, body))
            facts: dict[str, Any] = {"_id": message["_id"]}
            if contents is not None:
                facts["size"] = len(wire_form(contents))
                facts["ascii"] = has_ascii_headers(contents)
            measured[documents.key_of(message["_id"])] = facts
        await self.remember([facts for facts in measured.values() if "size" in facts])
        return measured

    async def remember(self, facts: list[dict[str, Any]]) -> None:
        """Keep facts about messages, beside others that are known."""
        if not facts:
            return
        updates = [
            UpdateOne(
                {"_id": {"$eq": each["_id"]}},
                {"$set": {name: value for name, value in each.items() if name != "_id"}},
                upsert=True,
            )
            for each in facts
        ]
        try:
            await self.sizes.bulk_write(updates, ordered=False)
        except BulkWriteError as exc:  # another node found them out too
            errors = (exc.details or {}).get("writeErrors", [])
            if any(error.get("code") != ALREADY_THERE for error in errors):
                raise

    async def forget_sizes(self, batch: int) -> int:
        """Forget the sizes of messages that their own program has removed; return how many."""
        forgotten = 0
        ids: list[Any] = []
        async for known in self.sizes.find({}, {"_id": 1}).batch_size(batch):
            ids.append(known["_id"])
            if len(ids) == batch:
                forgotten += await self._forget(ids)
                ids = []
        return forgotten + (await self._forget(ids) if ids else 0)

    async def _forget(self, ids: list[Any]) -> int:
        found = self.messages.find({"_id": {"$in": ids}}, {"_id": 1})
        there = {documents.key_of(message["_id"]) async for message in found}
        gone = [message_id for message_id in ids if documents.key_of(message_id) not in there]
        if gone:
            await self.sizes.delete_many({"_id": {"$in": gone}})
        return len(gone)


class _Listing:
    """One listing of a maildrop: what is odd in it, and the unique-ids that it has had."""

    def __init__(self, store: MappedStore, account: Account, user: str) -> None:
        self._store = store
        self._account = account
        self._user = user
        self._seen: set[str] = set()
        self._replaced: dict[bytes | None, str] = {}
        self._odd = 0
        self._log = structlog.get_logger("pop3hub.mongo")

    async def recall_unique_ids(self) -> None:
        """Read which messages go by another unique-id since another one had theirs."""
        found = self._store.sizes.find({"of": self._account.lease}, {"uid": 1})
        self._replaced = {documents.key_of(each["_id"]): each["uid"] async for each in found}

    async def pages(self, found: list[dict[str, Any]]) -> AsyncIterator[list[PopMessage]]:
        """Yield a page as messages, in parts so small that measuring one doesn't take long."""
        page = [each for each in found if documents.key_of(each["_id"]) or self._skip(each, "_id")]
        unknown = [each["_id"] for each in page if self._size(each) is None]
        if not unknown:
            yield await self._messages(page, {})
            return
        query = {"_id": {"$in": unknown}, "size": {"$exists": True}}
        known = {documents.key_of(e["_id"]): e async for e in self._store.sizes.find(query)}
        for start in range(0, len(page), MEASURED):
            part = page[start : start + MEASURED]
            missing = [
                each["_id"]
                for each in part
                if self._size(each) is None and documents.key_of(each["_id"]) not in known
            ]
            if missing:
                known |= await self._store.measure(missing)
            yield await self._messages(part, known)

    async def end(self) -> None:
        """Say how many odd messages there were beside the named ones."""
        if self._odd > NAMED:
            self._log.error("mongo.odd_messages", user=self._user, unnamed=self._odd - NAMED)

    async def _messages(
        self, page: list[dict[str, Any]], known: dict[bytes | None, dict[str, Any]]
    ) -> list[PopMessage]:
        messages: list[PopMessage] = []
        replaced: list[dict[str, Any]] = []
        for found in page:
            key = documents.key_of(found["_id"])
            size = self._size(found)
            facts = known.get(key) if size is None else {}
            if facts is None:  # removed by its own program while it was listed
                continue
            if size is None:
                size = facts.get("size")
            if size is None:
                self._skip(found, self._store.schema.body)
                continue
            uid = self._replaced.get(key) or self._uid(found)
            if uid in self._seen:
                uid = documents.digest_of(uid, found["_id"])
                self._report(found, self._store.schema.uid or "_id")
                replaced.append({"_id": found["_id"], "of": self._account.lease, "uid": uid})
            self._seen.add(uid)
            message_id = found["_id"]
            plain = isinstance(message_id, ObjectId) and uid == str(message_id)
            messages.append(
                MongoMessage(message_id, size, None if plain else uid, facts.get("ascii"))
            )
        await self._store.remember(replaced)
        return messages

    def _uid(self, found: dict[str, Any]) -> str:
        field = self._store.schema.uid
        uid = documents.uid_of(value_at(found, field)) if field else ""
        if uid is None:
            self._report(found, field)
        return uid or documents.uid_of(found["_id"]) or documents.digest_of(found["_id"])

    def _size(self, found: dict[str, Any]) -> int | None:
        field = self._store.schema.size
        return documents.size_of(value_at(found, field)) if field else None

    def _skip(self, found: dict[str, Any], field: str) -> bool:
        self._report(found, field, skipped=True)
        return False

    def _report(self, found: dict[str, Any], field: str, *, skipped: bool = False) -> None:
        self._odd += 1
        if self._odd > NAMED:
            return
        document = repr(found["_id"])[:100]
        if skipped:
            self._log.error(
                "mongo.message_skipped", user=self._user, document=document, field=field
            )
        else:
            self._log.error(
                "mongo.unique_id_replaced", user=self._user, document=document, field=field
            )
