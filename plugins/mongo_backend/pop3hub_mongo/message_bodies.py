"""The octets of messages: short ones inside their document, long ones in chunks beside it.

Chunks have the layout of GridFS, and their account besides, so that a cluster can be sharded by it.

A delivery and a sweep may meet: one writes chunks whose message isn't there yet, the other removes
chunks that have none. So each leaves its mark before it looks at the other's. The delivery writes
the message, then looks whether its chunks are there and not condemned; the sweep condemns the first
chunk, then looks whether the message is there. Whatever the clocks and pauses, not both go on.
"""

from __future__ import annotations

from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bson import Binary
from pymongo.errors import PyMongoError

from pop3hub import TemporaryFailure, WireForm
from pop3hub_mongo.driver import uninterrupted
from pop3hub_mongo.messages import has_ascii_headers

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from bson import ObjectId

INLINE = 256 * 1024
"""Octets up to which a body is part of its message's document: then both come and go as one."""
CHUNK = 255 * 1024
"""Octets of a chunk: with its other fields it fits into 256 KiB, as GridFS has it."""
AT_ONCE = 4
"""Chunks that are read or written together: 1 MiB for each session that is busy with one."""
SERVER_CHANGES = 3
"""How often a stream is taken up again without a chunk in between before it is given up."""

CHUNK_INDEX = [("account", 1), ("files_id", 1), ("n", 1)]


@dataclass(frozen=True, slots=True)
class Body:
    """A body as it was written: inline octets, or None and the number of chunks."""

    form: WireForm
    ascii_headers: bool
    inline: bytes | None
    chunks: int = 0


class MessageBodies:
    """Reads and writes the bodies of one database."""

    def __init__(self, chunks: Any) -> None:
        self.chunks = chunks

    async def write(
        self, account: ObjectId, message_id: ObjectId, contents: bytes | AsyncIterator[bytes]
    ) -> Body:
        """Write what doesn't fit into a document; what was written is removed if that fails."""
        form = WireForm()
        writer = _Writer(self.chunks, account, message_id)
        try:
            if isinstance(contents, bytes):
                for start in range(0, len(contents), CHUNK):
                    await writer.add(form.feed(contents[start : start + CHUNK]))
            else:
                async for piece in contents:
                    for start in range(0, len(piece), CHUNK):
                        await writer.add(form.feed(piece[start : start + CHUNK]))
            return await writer.close(form)
        except BaseException:
            if writer.begun:
                await self.discard(account, message_id)
            raise

    async def discard(self, account: ObjectId, message_id: ObjectId) -> None:
        """Remove the chunks of a message that will not be; what stays is swept up some day."""
        with suppress(PyMongoError):
            await self.remove(account, message_id)

    async def remove(self, account: ObjectId, message_id: ObjectId) -> None:
        """Remove the chunks of a message."""
        await self.chunks.delete_many(_of(account, message_id))

    async def are_whole(self, account: ObjectId, message_id: ObjectId, count: int) -> bool:
        """Return whether all chunks of a message are there, and no sweep has condemned them."""
        chunks = _of(account, message_id)
        first = await self.chunks.find_one(chunks | {"n": 0}, {"_id": 0, "condemned": 1})
        if first is None or first.get("condemned"):
            return False
        return int(await self.chunks.count_documents(chunks, hint=CHUNK_INDEX)) == count

    async def condemn(self, account: ObjectId, message_id: ObjectId) -> None:
        """Let no delivery commit with the chunks of this message any more."""
        first = _of(account, message_id) | {"n": 0}
        await self.chunks.update_one(first, {"$set": {"condemned": True}})

    async def spare(self, account: ObjectId, message_id: ObjectId) -> None:
        """Take that back: the message is there."""
        first = _of(account, message_id) | {"n": 0}
        await self.chunks.update_one(first, {"$unset": {"condemned": ""}})

    async def read(
        self, account: ObjectId, message_id: ObjectId, count: int
    ) -> AsyncIterator[bytes]:
        """Yield the chunks in order, the first one alone: TOP seldom wants more.

        A cursor that breaks (the primary went, or the client read so slowly that the server closed
        it) is opened again behind the last chunk: bodies never change.
        """
        wanted, failures = 0, 0
        while wanted < count:
            before = wanted
            try:
                async with aclosing(
                    self._chunks_from(account, message_id, wanted, count)
                ) as chunks:
                    async for data in chunks:
                        yield data
                        wanted += 1
            except PyMongoError:
                failures = failures + 1 if wanted == before else 1
                if failures == SERVER_CHANGES:
                    raise
            else:
                if wanted == before:
                    raise TemporaryFailure(text_id="message-gone")

    async def _chunks_from(
        self, account: ObjectId, message_id: ObjectId, first: int, count: int
    ) -> AsyncGenerator[bytes, None]:
        of_message = _of(account, message_id)
        if first == 0:
            chunk = await self.chunks.find_one(of_message | {"n": 0}, {"_id": 0, "data": 1})
            if chunk is None:
                return
            yield chunk["data"]
            return
        cursor = self.chunks.find(
            of_message | {"n": {"$gte": first}}, {"_id": 0, "n": 1, "data": 1}
        )
        # With the limit, the server closes the cursor with its last batch: no command for an end.
        cursor = cursor.sort("n", 1).batch_size(AT_ONCE).limit(count - first)
        try:
            async for chunk in cursor:
                if chunk["n"] != first:  # one is missing: better half a message than a wrong one
                    return
                yield chunk["data"]
                first += 1
        finally:
            await cursor.close()


def _of(account: ObjectId, message_id: ObjectId) -> dict[str, Any]:
    return {"account": account, "files_id": message_id}


class _Writer:
    """Collects octets, and writes them in chunks once they are too many for a document."""

    def __init__(self, chunks: Any, account: ObjectId, message_id: ObjectId) -> None:
        self._chunks = chunks
        self._account = account
        self._message_id = message_id
        self._buffer = bytearray()
        self.begun = False
        self.written = 0

    async def add(self, octets: bytes) -> None:
        self._buffer += octets
        if len(self._buffer) >= AT_ONCE * CHUNK:
            await self._flush(AT_ONCE)

    async def close(self, form: WireForm) -> Body:
        self._buffer += form.end()
        if not self.written and len(self._buffer) <= INLINE:
            inline = bytes(self._buffer)
            return Body(form, has_ascii_headers(inline), inline)
        await self._flush(-(-len(self._buffer) // CHUNK))
        return Body(form, form.ascii, None, self.written)

    async def _flush(self, chunks: int) -> None:
        documents = [
            {
                "account": self._account,
                "files_id": self._message_id,
                "n": self.written + index,
                "data": Binary(bytes(self._buffer[index * CHUNK : (index + 1) * CHUNK])),
            }
            for index in range(chunks)
        ]
        if documents:
            self.begun = True
            await uninterrupted(self._chunks.insert_many(documents))
        self.written += len(documents)
        del self._buffer[: chunks * CHUNK]
