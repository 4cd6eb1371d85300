"""What every backend has to do right, done by this one."""

import sqlite3

import pytest
from pop3hub_sqlite import SqliteBackend

from pop3hub.testing import BackendContract


class TestSqliteBackend(BackendContract):
    """The suite that comes with pop3hub, over a file of its own."""

    @pytest.fixture
    def options(self, tmp_path):
        """Say where the file is."""
        self.path = tmp_path / "mail.db"
        return {"sqlite_path": str(self.path)}

    @pytest.fixture
    def backend(self):
        """Return a new backend."""
        return SqliteBackend()

    async def lose_lock(self, server, name):
        """End the lease of a maildrop, as if this process had been stopped for too long."""
        with sqlite3.connect(self.path) as db:
            db.execute("DELETE FROM leases WHERE user = ?", [name])
        db.close()
