"""The client of MongoDB: motor, or PyMongo's own for asyncio.

The one module that knows the difference between the two, and the one where an error of theirs
becomes an error of pop3hub.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import AsyncGenerator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from pymongo import AsyncMongoClient, ReadPreference, WriteConcern
from pymongo.errors import ConfigurationError as NoDefault
from pymongo.errors import InvalidURI, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from pop3hub import ConfigurationError, TemporaryFailure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator

    from pop3hub_mongo.options import DriverName

T = TypeVar("T")

SCHEMES = ("mongodb://", "mongodb+srv://")
CLIENT_SETTINGS: dict[str, Any] = {
    "appname": "pop3hub",
    "serverSelectionTimeoutMS": 15_000,
    "connectTimeoutMS": 5_000,
    "socketTimeoutMS": 12_000,
    "waitQueueTimeoutMS": 10_000,
    "maxPoolSize": 100,
}
"""What the URI may overrule. A fail-over with MongoDB's own settings takes 10 to 12 seconds: the
selection of a server outlasts it, and stays below the 30 seconds of a hook, as does a read that is
cut by the socket's time-out and tried a second time."""

MAJORITY_TIMEOUT = 10_000
"""Milliseconds until a write that no majority confirms is given up; MongoDB's default is never."""
LOG_EVERY = 1.0
"""Seconds in which one failure of the server is logged; the others are counted."""


class Driver:
    """A client, and what its calls need: the same for both libraries."""

    def __init__(self, client: Any, *, owned: bool = True, where: str = "") -> None:
        """Use a client; `owned` says that it shall be closed with the driver."""
        self.client = client
        self._owned = owned
        self._where = where
        self._log = structlog.get_logger("pop3hub.mongo")
        self._quiet_until = 0.0
        self._unsaid = 0

    @classmethod
    def open(cls, name: DriverName, uri: str) -> Driver:
        """Make a client in the running event loop; nothing is connected yet.

        Raises ConfigurationError: the URI or its settings can't be used. The URI holds credentials
        and is never quoted.
        """
        settings = {key: value for key, value in CLIENT_SETTINGS.items() if key not in _set_in(uri)}
        try:
            if not uri.startswith(SCHEMES):  # what has no scheme is taken for the name of a host
                raise InvalidURI  # noqa: TRY301 - one way to say it
            client = _client_class(name, uri)(uri, **settings)
        except InvalidURI as exc:
            raise ConfigurationError(
                "the MongoDB URI can't be parsed: it begins with mongodb:// or mongodb+srv://, and "
                "special characters in user name and password are percent-encoded"
            ) from exc
        except (PyMongoError, OSError, ValueError) as exc:
            raise ConfigurationError(f"the MongoDB URI can't be used: {exc}") from exc
        return cls(client, where=_hosts(uri))

    def database(self, name: str, **options: Any) -> Any:
        """Return a database whose writes and reads are those of the majority, on the primary."""
        return self.client.get_database(
            name,
            **options,
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority", wtimeout=MAJORITY_TIMEOUT),
        )

    async def server_time(self) -> int:
        """Return the primary's clock, in milliseconds since 1970.

        What decides about deletion goes by this clock: that of a node may be a day off.
        """
        hello = await self.client.admin.command("hello")
        now: datetime = hello["localTime"]
        return round((now if now.tzinfo else now.replace(tzinfo=UTC)).timestamp() * 1000)

    def default_database(self) -> str | None:
        """Return the name of the database that the URI's path names."""
        try:
            return str(self.client.get_default_database().name)
        except NoDefault:
            return None

    async def aggregate(
        self, collection: Any, pipeline: list[dict[str, Any]], **options: Any
    ) -> Any:
        """Return the cursor of an aggregation."""
        return await _settled(collection.aggregate(pipeline, **options))

    async def ping(self) -> None:
        """Return if a primary answers."""
        await self.client.admin.command("ping")

    async def close(self) -> None:
        """Close the client, unless it is somebody else's."""
        if self._owned:
            await _settled(self.client.close())

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Make a TemporaryFailure of whatever the client raises, and log why."""
        try:
            yield
        except PyMongoError as exc:
            self._tell(exc)
            raise TemporaryFailure from exc

    async def errors_in(self, items: AsyncIterator[T]) -> AsyncIterator[T]:
        """Yield what a generator yields, its errors made as `errors` makes them; close it."""
        with self.errors():
            try:
                async for item in items:
                    yield item
            finally:
                if isinstance(items, AsyncGenerator):
                    await items.aclose()

    @contextmanager
    def errors_at_start(self) -> Iterator[None]:
        """Make a ConfigurationError of one line of whatever the client raises."""
        try:
            yield
        except OperationFailure as exc:
            reason = (exc.details or {}).get("errmsg") or str(exc)
            reason, _, _ = reason.partition(" to execute command")  # a document of many lines
            raise ConfigurationError(f"MongoDB{self._where} refuses: {reason}") from exc
        except PyMongoError as exc:
            raise ConfigurationError(
                f"MongoDB{self._where} can't be reached: {_shortened(exc)}; is it running, and is "
                "--mongo-uri right?"
            ) from exc

    def _tell(self, exc: Exception) -> None:
        now = time.monotonic()
        if now < self._quiet_until:
            self._unsaid += 1
            return
        self._quiet_until = now + LOG_EVERY
        self._log.warning(
            "mongo.failed", error=_shortened(exc), kind=type(exc).__name__, unsaid=self._unsaid
        )
        self._unsaid = 0


async def uninterrupted(command: Awaitable[T]) -> T:
    """Await a command to its end, and only then let a cancellation through.

    A command that was cancelled may go on: motor's thread does, and so does the server. What undoes
    it has to come after it.
    """
    task = asyncio.ensure_future(command)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # looked at: the cancellation is what the caller hears of
        raise


async def _settled(value: Any) -> Any:
    """Await what one library returns at once and the other as an awaitable."""
    return await value if inspect.isawaitable(value) else value


def _client_class(name: DriverName, uri: str) -> Any:
    if name == "pymongo":
        return AsyncMongoClient
    # motor runs its calls in threads, five for each core unless told before its import: then a few
    # slow calls stop every session of the process.
    pool = _set_in(uri).get("maxPoolSize", "")
    threads = pool if pool.isdecimal() and int(pool) else CLIENT_SETTINGS["maxPoolSize"]
    os.environ.setdefault("MOTOR_MAX_WORKERS", str(threads))
    from motor.motor_asyncio import AsyncIOMotorClient  # noqa: PLC0415 - reads the variable now

    return AsyncIOMotorClient


def _set_in(uri: str) -> dict[str, str]:
    """Return those of our settings that the URI has values of its own for."""
    names = {name.lower(): name for name in CLIENT_SETTINGS}
    pairs = (pair.partition("=") for pair in uri.partition("?")[2].replace(";", "&").split("&"))
    return {names[key.lower()]: value for key, _, value in pairs if key.lower() in names}


def _hosts(uri: str) -> str:
    """Return where a URI points to, without its credentials, behind " at "."""
    authority = uri.partition("://")[2].partition("/")[0].partition("?")[0]
    return f" at {authority.rpartition('@')[2]}"


def _shortened(exc: Exception) -> str:
    """Return an error's first sentence: the rest describes the topology and the settings."""
    text = str(exc)
    for mark in (" (configured timeouts", ", Timeout:", ", full error:", "\n"):
        text = text.partition(mark)[0]
    return text
