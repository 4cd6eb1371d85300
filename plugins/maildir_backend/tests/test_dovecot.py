"""Dovecot and pop3hub on one Maildir, one after the other: what the client sees stays the same."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from pop3hub.server.server import PopServer
from pop3hub.testing import Dialogue
from pop3hub_maildir import MaildirBackend

DOVEADM = shutil.which("doveadm", path=f"{os.environ.get('PATH', '')}:/usr/bin:/usr/sbin")

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(
        DOVEADM is None or not Path("/usr/lib/dovecot/pop3").exists(),
        reason="needs Dovecot with its POP3 server",
    ),
]

CONFIGURATION = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
mail_location = maildir:{folder}/mail/luke
protocols = pop3
ssl = no
first_valid_uid = 1
first_valid_gid = 0
mail_uid = {user.pw_uid}
mail_gid = {user.pw_gid}
"""


class Dovecot:
    """Dovecot's POP3 on standard input and output, as a user who may read mail: root may not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.user = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
        self.maildir = folder / "mail" / "luke"
        for name in ("run", "state", "mail/luke/cur", "mail/luke/new", "mail/luke/tmp"):
            (folder / name).mkdir(parents=True)
        (folder / "conf").write_text(CONFIGURATION.format(folder=folder, user=self.user))
        (folder / "passwd").write_text("luke:{PLAIN}hello\n")
        self.own()

    def own(self) -> None:
        """Give everything to the user that Dovecot runs as."""
        if os.getuid() == 0:
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, self.user.pw_uid, self.user.pw_gid)

    def say(self, *lines: str) -> str:
        """Return what Dovecot answers, without its greeting."""
        self.own()
        identity = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}
        done = subprocess.run(
            [DOVEADM, "-c", self.folder / "conf", "exec", "pop3"],
            input="".join(f"{line}\r\n" for line in (*lines, "QUIT")).encode(),
            env={"USER": "luke", "HOME": str(self.folder), "PATH": os.environ["PATH"]},
            capture_output=True,
            timeout=20,
            check=True,
            **(identity if os.getuid() == 0 else {}),
        )
        return done.stdout.decode("latin-1")


@pytest.fixture
def dovecot():
    # Not below pytest's folder, which another user can't enter.
    with tempfile.TemporaryDirectory(prefix="pop3hub-dovecot-") as folder:
        Path(folder).chmod(0o755)
        yield Dovecot(Path(folder))


def serve(dovecot) -> PopServer:
    options = {
        "maildir_path": f"{dovecot.folder}/mail/{{user}}",
        "maildir_passwd": dovecot.folder / "passwd",
    }
    return PopServer(backend=MaildirBackend(), options=options, listen=(), failure_delay=0)


async def ask(dovecot, *lines) -> list[str]:
    async with serve(dovecot) as server, Dialogue(server) as dialogue:
        assert (await dialogue.login("luke", "hello")).startswith(b"+OK")
        return [(await dialogue.say(line)).decode("latin-1") for line in lines]


def rows(answer: str) -> list[str]:
    """Return the lines of a listing."""
    lines = answer.splitlines()
    return lines[1 : lines.index(".")]


async def test_a_switch_from_dovecot_keeps_numbers_sizes_and_unique_ids(dovecot):
    """Delivered by hand, by Dovecot's names, with flags, and looked at by Dovecot first."""
    for number in (3, 1, 2):
        name = f"170000000{number}.M{number}P1.host"
        (dovecot.maildir / "new" / name).write_bytes(b"Subject: %d\n\nhi\n" % number)
    (dovecot.maildir / "cur" / "1700000009.M9P1.host,S=14,W=17:2,FS").write_bytes(
        b"Subject: 9\n\nx\n"
    )
    theirs = [rows(dovecot.say(command)) for command in ("UIDL", "LIST")]

    ours = [rows(answer) for answer in await ask(dovecot, "UIDL", "LIST")]

    assert 4 == len(theirs[0])
    assert theirs == ours


async def test_ids_that_a_migration_saved_are_shown_as_dovecot_shows_them(dovecot):
    for number in (1, 2, 3, 4):
        name = f"170000000{number}.M{number}P1.host"
        (dovecot.maildir / "new" / name).write_bytes(b"Subject: %d\n\nhi\n" % number)
    dovecot.say("UIDL")
    uidlist = dovecot.maildir / "dovecot-uidlist"
    lines = uidlist.read_text().splitlines()
    for row, extra in ((1, " Pold-1 :"), (2, " P :"), (4, " O1 :")):
        lines[row] = lines[row].replace(" :", extra, 1)
    uidlist.write_text("\n".join(lines) + "\n")
    for index in dovecot.maildir.glob("dovecot.index*"):
        index.unlink()

    theirs = rows(dovecot.say("UIDL"))

    assert ["2 old-1", "3 1700000002.M2P1.host"] == theirs[1:3]
    assert theirs == rows((await ask(dovecot, "UIDL"))[0])


async def test_what_pop3hub_delivers_moves_and_removes_is_right_for_dovecot(dovecot):
    (dovecot.maildir / "new" / "1700000001.M1P1.host").write_bytes(b"Subject: 1\n\nhi\n")
    async with serve(dovecot) as server:
        await server.store.store_message("luke", b"Subject: 2\r\n\r\nhi\r\n")
        await server.store.store_message("luke", b"Subject: 3\n\n.hi\n")
        async with Dialogue(server) as dialogue:
            await dialogue.login("luke", "hello")
            await dialogue.say("DELE 1")
            assert (await dialogue.say("QUIT")).startswith(b"+OK")

    assert ["1 18", "2 19"] == rows(dovecot.say("LIST"))
    assert "Subject: 3\r\n\r\n..hi\r\n.\r\n" in dovecot.say("RETR 2")
