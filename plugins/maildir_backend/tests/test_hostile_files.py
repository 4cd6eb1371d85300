"""Users with a shell, and what they can lay into their Maildirs: it costs nobody else anything."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from pop3hub.errors import ConfigurationError, TemporaryFailure
from pop3hub.testing import Dialogue
from pop3hub_maildir import threads
from pop3hub_maildir.folder import Folder

ROOT = os.geteuid() == 0
NOBODY = 65534


def lay_fifo(path):
    os.mkfifo(path)


def lay_socket(path):
    with socket.socket(socket.AF_UNIX) as bound:
        where = os.open(path.parent, os.O_PATH)  # a socket's path is short
        bound.bind(f"/proc/self/fd/{where}/{path.name}")
        os.close(where)


def lay_folder(path):
    path.mkdir()


def lay_link(path):
    path.symlink_to("/etc/passwd")


def lay_loop(path):
    path.symlink_to(path.name)


def lay_device(path):
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero, which never ends


def lay_giant(path):
    path.touch()
    os.truncate(path, 1 << 42)


ODD = [lay_fifo, lay_socket, lay_folder, lay_link, lay_loop]
if ROOT:
    ODD.append(lay_device)


async def log_in(server, name="luke") -> bytes:
    async with asyncio.timeout(10), Dialogue(server) as dialogue:
        return await dialogue.login(name, "hello")


@contextmanager
def no_thread_hangs():
    yield
    assert not [t for t in threading.enumerate() if t.name == "pop3hub-maildir" and t.is_alive()]


@pytest.mark.parametrize("lay", [*ODD, lay_giant])
@pytest.mark.parametrize("name", ["pop3hub-index", "pop3hub-index.lock", "dovecot-uidlist"])
async def test_nothing_odd_in_place_of_a_file_refuses_a_login(mailbox, name, lay):
    mailbox.put("1.M1P1.host")
    lay(mailbox.path / name)
    with no_thread_hangs():
        async with mailbox.serve() as server:
            for _ in range(5):
                assert (await log_in(server)).startswith(b"+OK")
            async with Dialogue(server) as dialogue:
                await dialogue.login("luke", "hello")
                assert b"+OK 1 14\r\n" == await dialogue.say("STAT")
                await dialogue.say("DELE 1")
                assert (await dialogue.say("QUIT")).startswith(b"+OK")
    assert [] == mailbox.names()


@pytest.mark.parametrize("lay", ODD)
async def test_an_odd_lock_file_refuses_its_own_user_alone(mailbox, tmp_path, lay):
    mailbox.passwd.write_text("luke:{PLAIN}hello\nleia:{PLAIN}hello\n")
    lay(mailbox.path / "pop3hub.lock")
    with no_thread_hangs():
        async with mailbox.serve() as server:
            for _ in range(5):
                assert (await log_in(server)).startswith(b"-ERR [SYS/PERM]")
            assert (await log_in(server, "leia")).startswith(b"+OK")


@pytest.mark.parametrize("lay", ODD)
@pytest.mark.parametrize("folder", ["cur", "new"])
async def test_odd_messages_are_not_listed_and_leave_the_others_alone(mailbox, lay, folder):
    mailbox.put("1.M1P1.host")
    lay(mailbox.path / folder / "2.M1P1.host,S=5,W=5:2,")
    mailbox.put("3.M1P1.host")
    with no_thread_hangs():
        async with mailbox.serve() as server:
            for _ in range(5):
                async with asyncio.timeout(10), Dialogue(server) as dialogue:
                    await dialogue.login("luke", "hello")
                    assert b"+OK 2 28\r\n" == await dialogue.say("STAT")


@pytest.mark.parametrize("lay", ODD)
async def test_a_message_that_becomes_something_odd_is_an_error(mailbox, lay):
    mailbox.put("1.M1P1.host")
    async with mailbox.serve() as server, asyncio.timeout(10), Dialogue(server) as dialogue:
        await dialogue.login("luke", "hello")
        path = mailbox.path / "cur" / "1.M1P1.host:2,"
        path.unlink()
        lay(path)
        assert (await dialogue.say("RETR 1")).startswith(b"-ERR [SYS/")
        assert (await dialogue.say("TOP 1 1")).startswith(b"-ERR [SYS/")
        await dialogue.say("DELE 1")
        assert (await dialogue.say("QUIT")).startswith(b"+OK")


async def test_a_message_that_never_ends_is_not_listed(server, mailbox):
    mailbox.put("1.M1P1.host")
    lay_giant(mailbox.path / "cur" / "2.M1P1.host:2,")

    async with asyncio.timeout(10), Dialogue(server) as dialogue:
        await dialogue.login("luke", "hello")
        assert b"+OK 1 14\r\n" == await dialogue.say("STAT")


@pytest.mark.parametrize("lay", [lay_fifo, lay_socket, lay_folder])
async def test_a_passwd_file_that_is_none_stops_the_start_and_later_nobody_else(mailbox, lay):
    async with mailbox.serve() as server:
        await log_in(server)
        mailbox.passwd.unlink()
        lay(mailbox.passwd)
        assert (await log_in(server)).startswith(b"-ERR [SYS/TEMP]")
    async with asyncio.timeout(10):
        with pytest.raises(ConfigurationError, match="--maildir-passwd"):
            await mailbox.serve().start()


# Links


@pytest.fixture
def other(mailbox, tmp_path):
    """Leia's Maildir, with a message that is nobody else's."""
    path = tmp_path / "mail" / "leia" / "Maildir"
    for name in ("cur", "new", "tmp"):
        (path / name).mkdir(parents=True)
    (path / "cur" / "1.M1P1.host:2,").write_bytes(b"Subject: secret\r\n\r\n")
    mailbox.passwd.write_text("luke:{PLAIN}hello\nleia:{PLAIN}hello\n")
    return path


def put_link(mine, other, name):
    place, target = (Path(os.path.normpath(path / name)) for path in (mine, other))
    place.rename(f"{place}.away")
    place.symlink_to(target)


@pytest.mark.parametrize("link", ["cur", "new", "tmp", ".", ".."])
async def test_no_link_leads_into_another_maildir(mailbox, other, link):
    """Luke makes one of his folders, his Maildir or the folder above a link to Leia's."""
    put_link(mailbox.path, other, link)
    before = sorted(other.rglob("*"))
    async with mailbox.serve() as server:
        if link != "tmp":
            assert (await log_in(server)).startswith(b"-ERR [SYS/PERM]")
        with pytest.raises(Exception, match="maildrop-damaged"):
            await server.store.store_message("luke", b"Subject: x\n\n")

    assert before == sorted(other.rglob("*"))


async def test_a_folder_that_becomes_a_link_in_a_session_is_not_followed(mailbox, other):
    mailbox.put("1.M1P1.host:2,", b"Subject: mine\r\n\r\n", folder="cur")
    async with mailbox.serve() as server, Dialogue(server) as dialogue:
        await dialogue.login("luke", "hello")
        (mailbox.path / "cur").rename(mailbox.path / "away")
        (mailbox.path / "cur").symlink_to(other / "cur")

        for line in ("RETR 1", "TOP 1 0"):
            assert b"secret" not in await dialogue.say(line)
        await dialogue.say("DELE 1")
        assert (await dialogue.say("QUIT")).startswith(b"-ERR")

    assert (other / "cur" / "1.M1P1.host:2,").exists()


async def test_the_root_may_be_reached_by_links(mailbox, tmp_path):
    """It is the operator's."""
    mailbox.put("1.M1P1.host")
    (tmp_path / "link").symlink_to(tmp_path / "mail")
    mailbox.options["maildir_path"] = f"{tmp_path}/link/{{user}}/Maildir"
    async with mailbox.serve() as server:
        assert (await log_in(server)).startswith(b"+OK")


@pytest.mark.skipif(not ROOT, reason="only root can give files away")
@pytest.mark.parametrize("folder", ["cur", "new", "tmp"])
async def test_as_root_a_folder_of_another_owner_is_not_entered(mailbox, folder):
    for path in (mailbox.path.parent, *mailbox.path.parent.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    async with mailbox.serve() as server:
        assert (await log_in(server)).startswith(b"+OK")
        os.chown(mailbox.path / folder, 1234, 1234)
        with pytest.raises(Exception, match="maildrop-damaged"):
            await server.store.store_message("luke", b"Subject: x\n\n")
        if folder != "tmp":
            assert (await log_in(server)).startswith(b"-ERR [SYS/PERM]")


@pytest.mark.skipif(not ROOT, reason="only root can give files away")
async def test_as_root_a_second_name_of_another_users_file_is_not_read(mailbox, tmp_path):
    """Hard links: where the kernel lets everybody make them (fs.protected_hardlinks=0)."""
    for number, owner in ((1, 1234), (2, 0)):
        secret = tmp_path / f"secret{number}"
        secret.write_bytes(b"Subject: secret\n\n")
        os.chown(secret, owner, owner)
        os.link(secret, mailbox.path / "cur" / f"{number}.M1P1.host:2,")
    mailbox.put("3.M1P1.host")
    for path in (mailbox.path.parent, mailbox.path, *mailbox.path.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    async with mailbox.serve() as server, Dialogue(server) as dialogue:
        await dialogue.login("luke", "hello")
        assert b"+OK 1 14\r\n" == await dialogue.say("STAT")


@pytest.mark.skipif(not ROOT, reason="only root can give files away")
async def test_as_root_what_is_made_belongs_to_the_maildirs_owner(mailbox):
    os.chown(mailbox.path.parent, NOBODY, NOBODY)
    for path in (mailbox.path, *mailbox.path.iterdir()):
        path.rmdir() if path != mailbox.path else None
    mailbox.path.rmdir()
    async with mailbox.serve() as server:
        await server.store.store_message("luke", b"Subject: x\n\n")
        assert (await log_in(server)).startswith(b"+OK")

    made = [mailbox.path, *mailbox.path.rglob("*")]
    assert {"pop3hub.lock", "pop3hub-index"} <= {path.name for path in made}
    assert {NOBODY} == {path.stat().st_uid for path in made}


# Threads that hang


async def test_maildirs_that_hang_keep_nobody_else_out_and_delay_no_shutdown(
    mailbox, tmp_path, monkeypatch
):
    monkeypatch.setattr(threads, "LIMIT", 0.3)
    monkeypatch.setattr(threads, "HANGING", 0.1)
    monkeypatch.setattr(threads, "CHECK", 0.05)
    monkeypatch.setattr(threads, "CLOSING", 0.2)
    names = [f"user{number}" for number in range(10)]
    mailbox.passwd.write_text("".join(f"{name}:{{PLAIN}}hello\n" for name in ["luke", *names]))
    over = threading.Event()
    scan = Folder.scan

    def hang(folder):
        if "user" in str(folder.path):
            over.wait()
        return scan(folder)

    monkeypatch.setattr("pop3hub_maildir.folder.Folder.scan", hang)
    async with mailbox.serve() as server:
        stuck = [log_in(server, name) for name in names for _ in range(3)]
        replies = await asyncio.gather(*stuck, log_in(server))
        assert (await log_in(server)).startswith(b"+OK")
        with pytest.raises(TemporaryFailure):
            await server.store.store_message(names[0], b"Subject: x\n\n")
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert not any(reply.startswith(b"+OK") for reply in replies[:-1])
    over.set()


PROGRAM = """
import sys, time
from pop3hub_maildir.folder import Folder
from pop3hub.cli.main import main
scan = Folder.scan
def hang(self):
    print("hanging", flush=True)
    while True:
        time.sleep(3600)
Folder.scan = hang
sys.argv = ["pop3hub", *sys.argv[1:]]
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_sigterm_ends_the_process_while_a_thread_hangs(mailbox, loop):
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-c", PROGRAM, "--backend", "maildir", "--loop", loop]
    words += ["--maildir", mailbox.options["maildir_path"], "--maildir-passwd", mailbox.passwd]
    words += ["--listen", f"pop3://127.0.0.1:{port}", "--drain", "0", "--log-level", "error"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        try:
            until = time.monotonic() + 20
            while True:
                try:
                    client = socket.create_connection(("127.0.0.1", port), timeout=20)
                    break
                except ConnectionRefusedError:
                    assert time.monotonic() < until
                    time.sleep(0.05)
            with client:
                client.sendall(b"USER luke\r\nPASS hello\r\n")
                assert b"hanging\n" == process.stdout.readline()
                process.send_signal(signal.SIGTERM)
                assert 0 == process.wait(15)
        finally:
            process.kill()
