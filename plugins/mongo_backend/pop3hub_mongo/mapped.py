"""Somebody else's documents, read through a `MongoSchema` and changed by nothing but deletion.

Sizes that they don't have are measured once and remembered in a collection of pop3hub's own.
Errors of the client pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from pymongo import IndexModel
from pymongo.errors import BulkWriteError

from pop3hub import PermanentFailure, PopUser
from pop3hub.protocol.message import wire_form
from pop3hub_mongo.messages import MongoMessage
from pop3hub_mongo.native_store import USERS_PAGE
from pop3hub_mongo.wire import has_ascii_headers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from pop3hub import PopMessage
    from pop3hub_mongo.schema import MongoSchema

PAGE = 1_000
"""Messages of one page, at most."""
MEASURED = 32
"""Messages of a page where some have to be read for their size: a page has the time of one hook."""
BODIES_AT_ONCE = 8
"""MessageBodies that are read together for measuring; one may have 16 MiB."""
ALREADY_THERE = 11000


class MappedStore:
    """Users and mail of another program's schema."""

    def __init__(self, schema: MongoSchema, theirs: Any, ours: Any) -> None:
        """Read the database `theirs`; keep what is remembered in the database `ours`."""
        self.schema = schema
        self.users = theirs[schema.users]
        self.messages = theirs[schema.messages]
        self.sizes = ours["sizes"]
        self._log = structlog.get_logger("pop3hub.mongo")

    async def create_indexes(self, *, allowed: bool) -> None:
        """Make the index that listings want, if that is allowed; else tell that it is missing."""
        wanted = self.schema.index()
        indexes = await self.messages.index_information()
        if any(index["key"][:2] == wanted[:2] for index in indexes.values()):
            return
        if allowed:
            await self.messages.create_indexes([IndexModel(wanted)])
            return
        fields = ", ".join(f'"{name}": 1' for name, _ in wanted)
        self._log.warning(
            "mongo.index_missing",
            remedy=f"db.{self.schema.messages}.createIndex({{{fields}}})",
            option="--mongo-create-indexes",
        )

    # Users

    @staticmethod
    def key(name: str) -> str:
        """Return the name as it is: their program decides what is the same."""
        return name

    async def find_user(self, name: str) -> PopUser | None:
        """Return the user whose document has exactly this name, or None."""
        found = await self.users.find_one({self.schema.user_key: name})
        return self._user(found) if found else None

    async def list_users(self) -> AsyncIterator[list[PopUser]]:
        """Yield all users in the order of their names, in pages."""
        key = self.schema.user_key
        page: list[PopUser] = []
        async for found in self.users.find({key: {"$type": "string"}}).sort(key, 1):
            page.append(self._user(found))
            if len(page) == USERS_PAGE:
                yield page
                page = []
        yield page

    def _user(self, found: dict[str, Any]) -> PopUser:
        schema = self.schema
        return PopUser(
            found[schema.user_key],
            _text(found.get(schema.password)),
            secret=_text(found.get(schema.apop_secret)) if schema.apop_secret else None,
            data={"_id": found["_id"]},
        )

    # Messages

    async def list_messages(self, user: PopUser) -> AsyncIterator[Sequence[PopMessage]]:
        """Yield pages of a user's messages, sizes measured where theirs are missing."""
        schema = self.schema
        owner = await self.users.find_one({schema.user_key: user.name}, {schema.owner_from: 1})
        if owner is None:
            return
        fields = {name: 1 for name in ("_id", schema.uid, schema.size) if name}
        cursor = self.messages.find(schema.of_owner(owner[schema.owner_from]), fields)
        cursor = cursor.sort([(name, 1) for name in dict.fromkeys((schema.order, "_id"))])
        page: list[dict[str, Any]] = []
        try:
            async for found in cursor.batch_size(PAGE):
                page.append(found)
                if len(page) == PAGE:
                    async for messages in self._sized(page):
                        yield messages
                    page = []
        finally:
            await cursor.close()
        async for messages in self._sized(page):
            yield messages

    async def _sized(self, page: list[dict[str, Any]]) -> AsyncIterator[list[PopMessage]]:
        """Yield a page as messages, in parts so small that measuring one doesn't take long."""
        unknown = [found["_id"] for found in page if self._size(found) is None]
        if not unknown:
            yield self._messages(page, {})
            return
        known = {found["_id"]: found async for found in self.sizes.find({"_id": {"$in": unknown}})}
        for start in range(0, len(page), MEASURED):
            part = page[start : start + MEASURED]
            missing = [
                found["_id"]
                for found in part
                if self._size(found) is None and found["_id"] not in known
            ]
            if missing:
                known |= await self._measure(missing)
            yield self._messages(part, known)

    def _messages(
        self, page: list[dict[str, Any]], known: dict[Any, dict[str, Any]]
    ) -> list[PopMessage]:
        messages: list[PopMessage] = []
        for found in page:
            remembered = known.get(found["_id"], {})
            size = self._size(found)
            if size is None:
                size = remembered.get("size")
            if size is None:  # removed by its own program while it was listed
                continue
            uid = str(found.get(self.schema.uid) or "") if self.schema.uid else ""
            messages.append(MongoMessage(found["_id"], size, uid, remembered.get("ascii")))
        return messages

    def _size(self, found: dict[str, Any]) -> int | None:
        size = found.get(self.schema.size) if self.schema.size else None
        return int(size) if isinstance(size, (int, float)) else None

    async def _measure(self, ids: list[Any]) -> dict[Any, dict[str, Any]]:
        """Return the sizes of messages by reading them, and remember them."""
        measured: dict[Any, dict[str, Any]] = {}
        bodies = self.messages.find({"_id": {"$in": ids}}, {self.schema.body: 1})
        async for found in bodies.batch_size(BODIES_AT_ONCE):
            contents = _octets(found.get(self.schema.body))
            measured[found["_id"]] = {
                "_id": found["_id"],
                "size": len(wire_form(contents)),
                "ascii": has_ascii_headers(contents),
            }
        await self._remember(list(measured.values()))
        return measured

    async def _remember(self, sizes: list[dict[str, Any]]) -> None:
        if not sizes:
            return
        try:
            await self.sizes.insert_many(sizes, ordered=False)
        except BulkWriteError as exc:  # another node measured them too
            errors = (exc.details or {}).get("writeErrors", [])
            if any(error.get("code") != ALREADY_THERE for error in errors):
                raise

    async def open_contents(
        self,
        message: MongoMessage,
        user: PopUser,  # noqa: ARG002 - others want it
    ) -> bytes | AsyncIterator[bytes]:
        """Return a body."""
        found = await self.messages.find_one({"_id": message.id}, {self.schema.body: 1})
        if found is None:
            raise PermanentFailure(text_id="message-gone")
        return _octets(found.get(self.schema.body))

    async def remove_messages(self, name: str, ids: Sequence[Any]) -> int:  # noqa: ARG002 - ids are unique
        """Remove or flag messages; return how many are gone, which is all of them."""
        wanted = {"_id": {"$in": list(ids)}}
        if flag := self.schema.flag:
            await self.messages.update_many(wanted, {"$set": {flag: True}})
        else:
            await self.messages.delete_many(wanted)
        await self.sizes.delete_many(wanted)
        return len(ids)


def _text(value: Any) -> str | None:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _octets(body: Any) -> bytes:
    if isinstance(body, str):
        return body.encode("utf-8", "surrogatepass")
    if isinstance(body, bytes):
        return body
    raise PermanentFailure(
        text_id="maildrop-damaged"
    )  # the schema names a field that holds no message
