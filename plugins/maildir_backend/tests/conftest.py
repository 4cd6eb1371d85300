"""A Maildir of Luke's, and a server over it."""

from __future__ import annotations

import os

import pytest

from pop3hub.server.server import PopServer
from pop3hub_maildir import MaildirBackend

LONG_AGO = 1_000_000_000  # seconds: a folder this old is known to be settled


class Mailbox:
    """Luke's Maildir and the options that serve it."""

    def __init__(self, root):
        self.path = root / "mail" / "luke" / "Maildir"
        for name in ("cur", "new", "tmp"):
            (self.path / name).mkdir(parents=True)
        self.passwd = root / "passwd"
        self.passwd.write_text("luke:{PLAIN}hello\n")
        self.options = {
            "maildir_path": f"{root}/mail/{{user}}/Maildir",
            "maildir_passwd": self.passwd,
        }

    def put(self, name, contents=b"Subject: x\n\n", folder="new"):
        (self.path / folder / name).write_bytes(contents)

    def settle(self):
        """Make the folders look as if nobody had written into them lately."""
        for folder in ("new", "cur"):
            os.utime(self.path / folder, (LONG_AGO, LONG_AGO))

    def serve(self, backend=None, **settings) -> PopServer:
        settings = {"listen": (), "failure_delay": 0, "bcrypt_cost": 4} | settings
        return PopServer(backend=backend or MaildirBackend(), options=self.options, **settings)

    @property
    def index(self):
        return (self.path / "pop3hub-index").read_text()

    def names(self, folder="cur"):
        return sorted(path.name for path in (self.path / folder).iterdir())


@pytest.fixture
def mailbox(tmp_path):
    return Mailbox(tmp_path)


@pytest.fixture
async def server(mailbox):
    async with mailbox.serve() as server:
        yield server
