"""The Maildir backend under the contract of all backends."""

from __future__ import annotations

import pytest

from pop3hub.testing import BackendContract
from pop3hub_maildir import MaildirBackend


class TestContract(BackendContract):
    @pytest.fixture
    def backend(self):
        return MaildirBackend()

    @pytest.fixture
    def options(self, tmp_path):
        self.passwd = tmp_path / "passwd"
        self.passwd.touch()
        (tmp_path / "mail").mkdir()
        return {"maildir_path": f"{tmp_path}/mail/{{user}}", "maildir_passwd": self.passwd}

    async def add_user(self, server, name, password):
        with self.passwd.open("a") as file:
            file.write(f"{name}:{{PLAIN}}{password}\n")


class TestContractWithoutMemory(TestContract):
    """Every session begins from what is in the Maildir's own files."""

    @pytest.fixture
    def options(self, tmp_path):
        self.passwd = tmp_path / "passwd"
        self.passwd.touch()
        (tmp_path / "mail").mkdir()
        return {
            "maildir_path": f"{tmp_path}/mail/{{user}}",
            "maildir_passwd": self.passwd,
            "maildir_cache": 0,
        }
