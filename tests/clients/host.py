"""A server on loopback with the hard messages, and the clients that run against it."""

import asyncio
import os
import shutil
import subprocess

import pytest

from pop3hub.auth.scram import SCRAM_HASHES, scram_keys
from pop3hub.hooks.specs import hookimpl
from tests.clients.mailbox import STORED
from tests.support.serving import Store, new_user

PATIENCE = 60.0
"""Seconds after which a client that has not ended is killed, and its test has failed."""
LISTENERS = {
    "plain": "pop3://127.0.0.1:0",
    "STLS": "pop3://127.0.0.1:0?cert={cert}",
    "POP3S": "pop3s://127.0.0.1:0?cert={cert}",
}
NAME, PASSWORD = "mia@example.com", "correct horse"
TOKEN = "eyJhbGciOiJub25lIn0.e30."
MIA = new_user(
    NAME,
    PASSWORD,
    secret=PASSWORD,
    scram={name: scram_keys(PASSWORD, name, 4096) for name in SCRAM_HASHES},
)
"""A user who can log in by every mechanism; the name is that of her certificate, too."""


def need(program, *probe):
    """Skip a test, by name, where a client is not installed; where CI=true, fail it.

    `probe` is a command that exits with 0 where the program has what it needs besides.
    """
    if shutil.which(program) is None:
        missing = f"{program} is not installed"
    elif (
        probe
        and subprocess.run(probe, capture_output=True, check=False, timeout=PATIENCE).returncode
    ):
        missing = f"{program} lacks what {' '.join(probe)} needs"
    else:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)


class Host:
    """A server with one user's maildrop, as a client is told of it, and what it saw of the client.

    security: plain, STLS or POP3S.
    ca: the file of the authority that signed the server's certificate, which is for localhost.
    home: the client's own folder; what it delivers goes into `delivered` in there, a file each.
    logins: for each session the mechanism of its login, and whether it was under TLS.
    """

    def __init__(self, security, home, ca):
        self.security = security
        self.home = home
        self.ca = ca
        self.delivered = home / "delivered"
        self.delivered.mkdir()
        self.port = 0
        self.logins = []
        self.store = Store()
        self.store.users = {NAME: MIA}
        self.store.tokens = {TOKEN: NAME}
        self.store.mail = {}
        self.store.put(*STORED.values(), name=NAME)
        self.store.chunk = 50_000

    @hookimpl
    def login_succeeded(self, session):
        self.logins.append((session.mechanism, session.tls is not None))

    @property
    def maildrop(self):
        """The messages that are left, by unique-id."""
        return self.store.mail[NAME]

    def saw(self, mechanism):
        """Return what `logins` is after one session with this mechanism."""
        return [(mechanism, self.security != "plain")]

    def arrived(self):
        """Return the messages that the client delivered."""
        return [each.read_bytes() for each in self.delivered.iterdir()]

    def write(self, name, text):
        """Write a configuration file that is nobody else's to read; return its path."""
        path = self.home / name
        path.touch(0o600)
        path.write_text(text, "utf-8")
        return path

    async def run(self, *command):
        """Run a client to its end and return what `subprocess.run` returns, with text."""
        return await asyncio.to_thread(
            subprocess.run,
            command,
            cwd=self.home,
            env={
                "HOME": str(self.home),
                "PATH": os.environ["PATH"],
                "LC_ALL": "C",
                "TERM": "vt100",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
