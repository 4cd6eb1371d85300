"""Other programs rename and remove what a session works with; what it answers stays true."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext

import pytest

from pop3hub.testing import Dialogue
from pop3hub_maildir import MaildirBackend

DOVEADM = shutil.which("doveadm", path=f"{os.environ.get('PATH', '')}:/usr/bin:/usr/sbin")
RENAMER = """
import os, sys
print("renaming", flush=True)
cur, letter = sys.argv[1:]
while True:
    for name in os.listdir(cur):
        base, _, flags = name.partition(":2,")
        flags = flags.replace(letter, "") if letter in flags else flags + letter
        try:
            os.rename(f"{cur}/{name}", f"{cur}/{base}:2,{flags}")
        except FileNotFoundError:
            pass
"""


@contextmanager
def renaming(mailbox, letter="S"):
    """Mark mail as read and unread again, without end, in another process."""
    words = [sys.executable, "-c", RENAMER, mailbox.path / "cur", letter]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def fill(mailbox, count, folder="cur"):
    for number in range(count):
        name = f"{1_700_000_000 + number}.M{number}P1.host:2,"
        mailbox.put(name, b"Subject: %d\r\n\r\n" % number, folder=folder)


async def delete_all(dialogue) -> bytes:
    count = int((await dialogue.say("STAT")).split()[1])
    for number in range(1, count + 1):
        await dialogue.say(f"DELE {number}")
    return await dialogue.say("QUIT")


async def test_what_quit_acknowledges_is_gone_while_another_program_renames(server, mailbox):
    fill(mailbox, 300)
    async with Dialogue(server) as dialogue:
        await dialogue.login("luke", "hello")
        with renaming(mailbox):
            reply = await delete_all(dialogue)

    left = mailbox.names()
    assert reply.startswith(b"-ERR" if left else b"+OK")
    assert [] == left


@pytest.mark.slow
@pytest.mark.parametrize("programs", [1, 2])
async def test_three_thousand_removals_beside_renames(server, mailbox, programs):
    fill(mailbox, 3000)
    async with Dialogue(server) as dialogue:
        await dialogue.login("luke", "hello")
        with renaming(mailbox), renaming(mailbox, "F") if programs > 1 else nullcontext():
            reply = await delete_all(dialogue)

    assert reply.startswith(b"-ERR" if mailbox.names() else b"+OK")
    assert [] == mailbox.names()


@pytest.mark.slow
@pytest.mark.clients
@pytest.mark.skipif(DOVEADM is None, reason="needs Dovecot's doveadm")
async def test_three_thousand_removals_beside_doveadm_flags_add(server, mailbox, tmp_path):
    """Dovecot marks mail as read, file after file, while QUIT removes it."""
    fill(mailbox, 3000)
    user = pwd.getpwnam("nobody")
    for folder in (tmp_path, *tmp_path.parents):  # pytest's own are closed to other users
        if folder.is_relative_to("/tmp/pytest-of-root"):  # noqa: S108
            folder.chmod(0o755)
    for path in (tmp_path / "mail", *(tmp_path / "mail").rglob("*")):
        os.chown(path, user.pw_uid, user.pw_gid)
    for name in ("run", "state"):
        (tmp_path / name).mkdir()
        os.chown(tmp_path / name, user.pw_uid, user.pw_gid)
    (tmp_path / "conf").write_text(
        f"base_dir = {tmp_path}/run\nstate_dir = {tmp_path}/state\nlog_path = /dev/stderr\n"
        f"mail_location = maildir:{mailbox.path}\nssl = no\nfirst_valid_uid = 1\n"
        f"first_valid_gid = 0\nmail_uid = {user.pw_uid}\nmail_gid = {user.pw_gid}\n"
    )
    words = [DOVEADM, "-c", tmp_path / "conf", "flags", "add", r"\Seen", "mailbox", "INBOX", "ALL"]
    async with Dialogue(server) as dialogue:
        await dialogue.login("luke", "hello")
        environment = {"USER": "luke", "HOME": str(tmp_path), "PATH": os.environ["PATH"]}
        with subprocess.Popen(  # noqa: ASYNC220 - started in a moment
            words, env=environment, user=user.pw_uid, group=user.pw_gid, extra_groups=[]
        ) as doveadm:
            until = time.monotonic() + 20
            while not any(name.endswith("S") for name in mailbox.names()):
                assert time.monotonic() < until, "doveadm renames nothing"
            reply = await delete_all(dialogue)
            doveadm.wait()

    assert reply.startswith(b"+OK")
    assert [] == mailbox.names()


async def test_every_file_of_a_message_goes(server, mailbox):
    """A crash of a program that links and unlinks leaves two names for one message."""
    mailbox.put("1.M1P1.host:2,S", folder="cur")
    os.link(mailbox.path / "cur" / "1.M1P1.host:2,S", mailbox.path / "cur" / "1.M1P1.host:2,FS")
    async with Dialogue(server) as dialogue:
        await dialogue.login("luke", "hello")
        assert b"+OK 1 14\r\n" == await dialogue.say("STAT")
        assert (await delete_all(dialogue)).startswith(b"+OK")

    assert [] == mailbox.names()


async def test_a_first_listing_leaves_nothing_out_that_is_renamed_meanwhile(server, mailbox):
    fill(mailbox, 1000)
    with renaming(mailbox):
        async with Dialogue(server) as dialogue:
            assert (await dialogue.login("luke", "hello")).startswith(b"+OK")
            assert (await dialogue.say("STAT")).startswith(b"+OK 1000 ")


async def test_messages_are_read_while_they_are_renamed(server, mailbox):
    fill(mailbox, 50)
    async with Dialogue(server) as dialogue:
        await dialogue.login("luke", "hello")
        with renaming(mailbox):
            for number in range(1, 51):
                line = b"Subject: %d\r\n" % (number - 1)
                assert line in await dialogue.say(f"RETR {number}")
                assert line in await dialogue.say(f"TOP {number} 0")


async def test_old_mail_expires_while_it_is_renamed(mailbox):
    fill(mailbox, 200)
    with renaming(mailbox):
        async with mailbox.serve(expire=10) as server, Dialogue(server) as dialogue:
            await dialogue.login("luke", "hello")
            assert b"+OK 0 0\r\n" == await dialogue.say("STAT")
    assert [] == mailbox.names()


async def test_a_unique_id_is_not_given_twice_while_its_message_is_renamed(server, mailbox):
    fill(mailbox, 500)
    await server.store.store_message("luke", b"Subject: x\r\n\r\n", "their-uid")
    async with Dialogue(server) as dialogue:
        await dialogue.login("luke", "hello")
    with renaming(mailbox):
        for _ in range(20):
            with pytest.raises(Exception, match="unique-id-taken"):
                await server.store.store_message("luke", b"Subject: y\r\n\r\n", "their-uid")


async def test_new_mail_never_takes_the_place_of_another_message(server, mailbox):
    mailbox.put("1.M1P1.host:2,", b"Subject: old\r\n\r\n", folder="cur")
    mailbox.put("1.M1P1.host", b"Subject: new\r\n\r\n")

    async with Dialogue(server) as dialogue:
        await dialogue.login("luke", "hello")
        assert b"Subject: old" in await dialogue.say("RETR 1")

    assert b"Subject: new\r\n\r\n" == (mailbox.path / "new" / "1.M1P1.host").read_bytes()


# The lock


async def test_a_lock_file_that_is_removed_gives_nobody_a_second_hold(server, mailbox):
    mailbox.put("1.M1P1.host")
    async with Dialogue(server) as dialogue:
        await dialogue.login("luke", "hello")
        (mailbox.path / "pop3hub.lock").unlink()

        async with mailbox.serve() as another, Dialogue(another) as rival:
            assert (await rival.login("luke", "hello")).startswith(b"-ERR [IN-USE]")

        await dialogue.say("DELE 1")
        assert (await dialogue.say("QUIT")).startswith(b"-ERR [SYS/TEMP]")

    assert ["1.M1P1.host:2,"] == mailbox.names()


async def test_where_folders_cant_be_locked_a_lost_lock_file_removes_nothing(
    server, mailbox, monkeypatch
):
    """As over NFS: the rival gets in, but only one of the two may remove anything."""
    monkeypatch.setattr("pop3hub_maildir.lock.MaildirLock._lock_folder", lambda _: False)
    mailbox.put("1.M1P1.host")
    async with Dialogue(server) as dialogue:
        await dialogue.login("luke", "hello")
        (mailbox.path / "pop3hub.lock").unlink()
        async with mailbox.serve() as another, Dialogue(another) as rival:
            assert (await rival.login("luke", "hello")).startswith(b"+OK")
            await dialogue.say("DELE 1")
            assert (await dialogue.say("QUIT")).startswith(b"-ERR [SYS/TEMP]")
            assert ["1.M1P1.host:2,"] == mailbox.names()
            await rival.say("DELE 1")
            assert (await rival.say("QUIT")).startswith(b"+OK")

    assert [] == mailbox.names()


def start(words) -> subprocess.Popen[bytes]:
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


async def test_a_lock_on_the_index_that_is_never_released_refuses_nobody(mailbox):
    backend = MaildirBackend(index_patience=0.05)
    mailbox.put("1.M1P1.host")
    program = (
        "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX);"
        "print('locked', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", program, mailbox.path / "pop3hub-index.lock"]
    with start(words) as holder:
        holder.stdout.readline()
        async with mailbox.serve(backend) as server, Dialogue(server) as dialogue:
            assert (await dialogue.login("luke", "hello")).startswith(b"+OK")
            assert (await delete_all(dialogue)).startswith(b"+OK")
        holder.stdin.close()

    assert [] == mailbox.names()
    assert "pop3hub-index" not in mailbox.names(".")
