"""A mail store in one SQLite file, as small as one can be: what broken backends are made of."""

from __future__ import annotations

import sqlite3
import uuid
from typing import TYPE_CHECKING

from pop3hub import (
    NoSuchUser,
    PermanentFailure,
    PopMessage,
    PopUser,
    UniqueIdTaken,
    hookimpl,
)
from pop3hub.protocol.message import wire_form

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

SCHEMA = """
CREATE TABLE IF NOT EXISTS users (name TEXT PRIMARY KEY, password TEXT);
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user TEXT, uid TEXT, size INTEGER, contents BLOB, UNIQUE (user, uid)
);
"""


class SqliteMessage(PopMessage):
    """A message without its contents, and the row that has them."""

    def __init__(self, row: int, uid: str, size: int) -> None:
        super().__init__(uid, size)
        self.row = row


class SqliteBackend:
    """Users and messages in two tables."""

    def __init__(self, path: str) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.executescript(SCHEMA)

    @hookimpl
    def shutdown(self) -> None:
        """Close the file."""
        self.db.close()

    @hookimpl
    def get_user(self, name: str) -> PopUser | None:
        """Return the user; pop3hub compares the bcrypt hash."""
        row = self.db.execute("SELECT name, password FROM users WHERE name = ?", [name]).fetchone()
        return PopUser(*row) if row else None

    @hookimpl
    def receive_messages(self, user: PopUser) -> Sequence[PopMessage]:
        """Return unique-ids and sizes, not contents."""
        query = "SELECT id, uid, size FROM messages WHERE user = ? ORDER BY id"
        return [SqliteMessage(*row) for row in self.db.execute(query, [user.name])]

    @hookimpl
    def load_contents(self, message: SqliteMessage) -> bytes:
        """Return the contents of one message."""
        query = "SELECT contents FROM messages WHERE id = ?"
        if (row := self.db.execute(query, [message.row]).fetchone()) is None:
            raise PermanentFailure(text_id="message-gone")
        return bytes(row[0])

    @hookimpl
    def delete_messages(self, messages: Sequence[SqliteMessage]) -> int:
        """Remove the messages in one transaction."""
        with self.db:
            self.db.execute("BEGIN")
            rows = [(message.row,) for message in messages]
            self.db.executemany("DELETE FROM messages WHERE id = ?", rows)
        return len(messages)

    @hookimpl
    def store_user(self, user: PopUser, replace: bool) -> bool:  # noqa: FBT001 - the hook's argument
        """Add a user, or change the password of one."""
        change = "UPDATE users SET password = :password WHERE name = :name"
        query = change if replace else "INSERT OR IGNORE INTO users VALUES (:name, :password)"
        facts = {"name": user.name, "password": user.password}
        return self.db.execute(query, facts).rowcount == 1

    @hookimpl
    async def store_message(
        self, name: str, contents: bytes | AsyncIterator[bytes], uid: str | None = None
    ) -> str:
        """Add a message: what `pop3hub deliver` calls."""
        if not isinstance(contents, bytes):
            contents = b"".join([chunk async for chunk in contents])
        if self.get_user(name) is None:
            raise NoSuchUser(name=name)
        wire, uid = wire_form(contents), uid or uuid.uuid4().hex
        query = "INSERT INTO messages (user, uid, size, contents) VALUES (?, ?, ?, ?)"
        try:
            self.db.execute(query, [name, uid, len(wire), wire])
        except sqlite3.IntegrityError as exc:
            raise UniqueIdTaken(uid=uid) from exc
        return uid
