"""The octets of messages: short ones inside their document, long ones in chunks beside it.

Chunks have the layout of GridFS, and their owner besides, so that a cluster can be sharded by it.
"""

from __future__ import annotations

from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bson import Binary
from pymongo.errors import PyMongoError

from pop3hub import TemporaryFailure, WireForm
from pop3hub_mongo.wire import has_ascii_headers

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

CHUNK_INDEX = [("user", 1), ("files_id", 1), ("n", 1)]


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
        self, name: str, message_id: ObjectId, contents: bytes | AsyncIterator[bytes]
    ) -> Body:
        """Write what doesn't fit into a document; what was written is removed if that fails."""
        form = WireForm()
        writer = _Writer(self.chunks, name, message_id)
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
            if writer.written:
                await self.discard(name, message_id)
            raise

    async def discard(self, name: str, message_id: ObjectId) -> None:
        """Remove the chunks of a message that will not be; what stays is swept up some day."""
        with suppress(PyMongoError):
            await self.chunks.delete_many({"user": name, "files_id": message_id})

    async def read(self, name: str, message_id: ObjectId, count: int) -> AsyncIterator[bytes]:
        """Yield the chunks in order, the first one alone: TOP seldom wants more.

        A cursor that breaks (the primary went, or the client read so slowly that the server closed
        it) is opened again behind the last chunk: bodies never change.
        """
        wanted, failures = 0, 0
        while wanted < count:
            before = wanted
            try:
                async with aclosing(self._chunks_from(name, message_id, wanted)) as chunks:
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
        self, name: str, message_id: ObjectId, first: int
    ) -> AsyncGenerator[bytes, None]:
        of_message: dict[str, Any] = {"user": name, "files_id": message_id}
        if first == 0:
            chunk = await self.chunks.find_one(of_message | {"n": 0}, {"_id": 0, "data": 1})
            if chunk is None:
                return
            yield chunk["data"]
            return
        cursor = self.chunks.find(
            of_message | {"n": {"$gte": first}}, {"_id": 0, "n": 1, "data": 1}
        )
        cursor = cursor.sort("n", 1).batch_size(AT_ONCE)
        try:
            async for chunk in cursor:
                if chunk["n"] != first:  # one is missing: better half a message than a wrong one
                    return
                yield chunk["data"]
                first += 1
        finally:
            await cursor.close()


class _Writer:
    """Collects octets, and writes them in chunks once they are too many for a document."""

    def __init__(self, chunks: Any, name: str, message_id: ObjectId) -> None:
        self._chunks = chunks
        self._name = name
        self._message_id = message_id
        self._buffer = bytearray()
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
                "user": self._name,
                "files_id": self._message_id,
                "n": self.written + index,
                "data": Binary(bytes(self._buffer[index * CHUNK : (index + 1) * CHUNK])),
            }
            for index in range(chunks)
        ]
        if documents:
            await self._chunks.insert_many(documents)
        self.written += len(documents)
        del self._buffer[: chunks * CHUNK]
