"""Mail in one SQLite file, for any number of processes (docs/writing-a-backend.md).

    pip install ./examples/sqlite_backend
    pop3hub --backend sqlite --sqlite-path mail.db user add luke
    pop3hub --backend sqlite --sqlite-path mail.db

The blocking driver works in threads, on a few connections that no session keeps. A lease in the
database locks a maildrop, over processes too, and every removal asks whether it still holds.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import time
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pop3hub import (
    ConfigurationError,
    MaildropInUse,
    NoSuchUser,
    PermanentFailure,
    PopMessage,
    PopUser,
    TemporaryFailure,
    UniqueIdTaken,
    WireForm,
    hookimpl,
    name_key,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from pop3hub import Session

T = TypeVar("T")

CONNECTIONS = 4
"""How many; a session that waits for nothing has none."""
LEASE = 30.0
"""Seconds for which a maildrop is locked, unless the lock is renewed."""
CHUNK = 256 * 1024
"""Octets that are read at a time."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS users (key TEXT PRIMARY KEY, name TEXT, password TEXT);
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, user TEXT, uid TEXT, size INTEGER, ready INTEGER,
    contents BLOB, UNIQUE (user, uid)
);
CREATE TABLE IF NOT EXISTS leases (user TEXT PRIMARY KEY, owner TEXT, ends REAL);
"""
TAKE = """
INSERT INTO leases VALUES (:user, :owner, :now + :lease)
ON CONFLICT (user) DO UPDATE SET owner = :owner, ends = :now + :lease WHERE ends < :now
"""
RENEW = "UPDATE leases SET ends = :now + :lease WHERE user = :user AND owner = :owner"


class SqliteMessage(PopMessage):
    """A message without its contents, and the row that has them."""

    def __init__(self, row: int, uid: str, size: int, ready: int) -> None:
        super().__init__(uid, size, wire_ready=bool(ready))
        self.row = row


class SqliteBackend:
    """Users, messages and leases in three tables."""

    def __init__(self, *, lease: float = LEASE) -> None:
        """Lock a maildrop for so many seconds; the lock is renewed three times in them."""
        self._lease = lease
        self._path = ""
        self._connections: asyncio.Queue[sqlite3.Connection] = asyncio.Queue()

    @hookimpl
    def register_options(self) -> list[click.Option]:
        """Offer --sqlite-path: also POP3HUB_SQLITE_PATH, and `path` in the table [sqlite]."""
        return [click.Option(["--sqlite-path"], metavar="FILE", help="The database file.")]

    @hookimpl
    def configure(self, options: Mapping[str, Any]) -> None:
        """Note the file; nothing is opened here."""
        self._path = options.get("sqlite_path") or ""
        if not self._path:
            raise ConfigurationError("the sqlite backend needs --sqlite-path FILE")

    @hookimpl
    async def startup(self) -> None:
        """Open the file, and make the tables that are missing."""
        self._connections = asyncio.Queue()
        for _ in range(CONNECTIONS):
            try:
                db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
                db.executescript(f"PRAGMA journal_mode = wal; PRAGMA synchronous = full; {SCHEMA}")
            except sqlite3.Error as exc:
                raise ConfigurationError(f"--sqlite-path {self._path}: {exc}") from exc
            self._connections.put_nowait(db)

    @hookimpl
    async def shutdown(self) -> None:
        """Close what is open; who is still at work ends first."""
        for _ in range(CONNECTIONS):
            with suppress(TimeoutError):
                async with asyncio.timeout(10):
                    (await self._connections.get()).close()

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run work on a connection in a thread; the connection is free again when it is done."""
        db = await self._connections.get()
        job = asyncio.ensure_future(asyncio.to_thread(work, db))
        # Not when the waiting ends: a thread goes on although its session gave up.
        job.add_done_callback(lambda _: self._connections.put_nowait(db))
        try:
            return await asyncio.shield(job)
        except sqlite3.OperationalError as exc:
            raise TemporaryFailure(exc) from exc  # for the log; the client hears [SYS/TEMP]

    # Users

    @hookimpl
    async def get_user(self, name: str) -> PopUser | None:
        """Return the user; pop3hub compares the bcrypt hash."""
        query = "SELECT name, password FROM users WHERE key = ?"
        row = await self._run(lambda db: db.execute(query, [name_key(name)]).fetchone())
        return PopUser(*row) if row else None

    @hookimpl
    async def store_user(self, user: PopUser, replace: bool) -> bool:  # noqa: FBT001 - the hook's
        """Add a user, or change the password of one."""
        change = "UPDATE users SET password = :password WHERE key = :key"
        add = "INSERT OR IGNORE INTO users VALUES (:key, :name, :password)"
        facts = {"key": name_key(user.name), "name": user.name, "password": user.password}
        query = change if replace else add
        return await self._run(lambda db: db.execute(query, facts).rowcount == 1)

    # The maildrop

    @hookimpl
    @asynccontextmanager
    async def lock_maildrop(self, user: PopUser, session: Session) -> AsyncIterator[str]:
        """Hold a lease while the session lasts; its owner is the fence that removals ask for."""
        owner = secrets.token_hex(16)
        facts = {"user": user.name, "owner": owner, "lease": self._lease}
        take = facts | {"now": time.time()}
        if not await self._run(lambda db: db.execute(TAKE, take).rowcount):
            raise MaildropInUse
        keeper = asyncio.create_task(self._keep(facts, session))
        try:
            yield owner
        finally:
            keeper.cancel()
            free = "DELETE FROM leases WHERE user = :user AND owner = :owner"
            await self._run(lambda db: db.execute(free, facts))

    async def _keep(self, facts: dict[str, Any], session: Session) -> None:
        """Renew the lease; end the session once it is somebody else's."""
        while True:
            await asyncio.sleep(self._lease / 3)
            with suppress(TemporaryFailure):  # there is time for another try
                if not await self._run(partial(_renew, facts)):
                    session.abort("lease lost")
                    return

    @hookimpl
    async def receive_messages(self, user: PopUser) -> Sequence[PopMessage]:
        """Return unique-ids and sizes, not contents."""
        query = "SELECT id, uid, size, ready FROM messages WHERE user = ? ORDER BY id"
        rows = await self._run(lambda db: db.execute(query, [user.name]).fetchall())
        return [SqliteMessage(*row) for row in rows]

    @hookimpl
    async def load_contents(self, message: SqliteMessage) -> AsyncIterator[bytes]:
        """Yield a message in chunks, so that none is in memory as a whole."""
        position = 1
        while True:
            chunk = await self._run(partial(_chunk, message.row, position))
            if chunk is None:
                raise PermanentFailure(text_id="message-gone")
            if not chunk:
                return
            yield chunk
            position += CHUNK

    @hookimpl
    async def delete_messages(self, messages: Sequence[SqliteMessage], session: Session) -> int:
        """Remove the messages in one transaction, if this session still has the lock."""
        rows = [(message.row,) for message in messages]
        held = "SELECT 1 FROM leases WHERE owner = ? AND ends >= ?"

        def remove(db: sqlite3.Connection) -> bool:
            db.execute("BEGIN IMMEDIATE")
            try:
                if held_now := db.execute(held, [session.fence, time.time()]).fetchone():
                    db.executemany("DELETE FROM messages WHERE id = ?", rows)
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise
            return bool(held_now)

        if not await self._run(remove):
            raise TemporaryFailure("the lease lapsed before the removal")
        return len(messages)

    # Deliveries

    @hookimpl
    async def store_message(
        self, name: str, contents: bytes | AsyncIterator[bytes], uid: str | None = None
    ) -> str:
        """Add a message: what `pop3hub deliver` calls. It is on disk when this returns."""
        if (user := await self.get_user(name)) is None:
            raise NoSuchUser(name)
        form = WireForm()
        parts = [form.feed(contents)] if isinstance(contents, bytes) else []
        if not isinstance(contents, bytes):
            parts += [form.feed(chunk) async for chunk in contents]
        stored = b"".join([*parts, form.end()])
        uid = uid or secrets.token_hex(16)
        query = "INSERT INTO messages (user, uid, size, ready, contents) VALUES (?, ?, ?, ?, ?)"
        facts = [user.name, uid, form.octets, form.wire_ready, stored]
        try:
            await self._run(lambda db: db.execute(query, facts))
        except sqlite3.IntegrityError as exc:
            raise UniqueIdTaken(uid) from exc
        return uid


def _renew(facts: Mapping[str, Any], db: sqlite3.Connection) -> int:
    return db.execute(RENEW, {**facts, "now": time.time()}).rowcount


def _chunk(row: int, position: int, db: sqlite3.Connection) -> bytes | None:
    query = "SELECT substr(contents, ?, ?) FROM messages WHERE id = ?"
    found = db.execute(query, [position, CHUNK, row]).fetchone()
    return bytes(found[0] or b"") if found else None
