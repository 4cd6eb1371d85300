"""Maildirs as other programs fill them, and what happens to them meanwhile."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pop3hub.testing import Dialogue
from pop3hub_maildir import MaildirBackend
from pop3hub_maildir.index import HEADER, SPARE_LINES

POSTFIX = "1700000001.Vfd01I5e07M{0:06}.mail"
EXIM = "1700000002.H{0:06}P4242.mail,S=13"
DOVECOT = "1700000003.M{0:06}P4243.mail,S=13,W=15"


async def ask(server, *lines) -> list[bytes]:
    """Log in, say the lines, and return the answers."""
    async with Dialogue(server) as dialogue:
        assert (await dialogue.login("luke", "hello")).startswith(b"+OK")
        return [await dialogue.say(line) for line in lines]


async def uidl(server) -> list[str]:
    reply = (await ask(server, "UIDL"))[0]
    return [line.split(" ")[1] for line in reply.decode().splitlines()[1:-1]]


# What others deliver


async def test_mail_of_postfix_exim_and_dovecot_is_listed_oldest_first(server, mailbox):
    mailbox.put(DOVECOT.format(7), b"Subject: 3a\n\n")
    mailbox.put(POSTFIX.format(20), b"Subject: 1b\n\n")
    mailbox.put(EXIM.format(1), b"Subject: 2a\n\n")
    mailbox.put(POSTFIX.format(3), b"Subject: 1a\n\n")

    stat, listing, *_ = await ask(server, "STAT", "LIST")

    assert b"+OK 4 60\r\n" == stat
    assert b"1 15\r\n2 15\r\n3 15\r\n4 15\r\n.\r\n" == listing.partition(b"\r\n")[2]
    names = (POSTFIX.format(3), POSTFIX.format(20), EXIM.format(1), DOVECOT.format(7))
    assert list(names) == await uidl(server)


async def test_new_mail_is_moved_to_cur_and_flags_are_kept(server, mailbox):
    mailbox.put("1.M1P1.host")
    mailbox.put("2.M1P1.host:2,FS")
    mailbox.put("3.M1P1.host:2,RS", folder="cur")

    await uidl(server)

    assert [] == mailbox.names("new")
    assert ["1.M1P1.host:2,", "2.M1P1.host:2,FS", "3.M1P1.host:2,RS"] == mailbox.names()


@pytest.mark.parametrize(
    ("name", "contents", "octets"),
    [
        ("1.M1P1.host,S=12,W=4711:2,", b"Subject: x\n\n", 14),
        ("1.M1P1.host,S=4711:2,", b"Subject: x\n\n", 14),
        # Dovecot's W= leaves out the line end that is missing at the end of a file.
        ("1.M1P1.host,S=15,W=17:2,", b"Subject: x\n\nabc", 19),
    ],
)
async def test_sizes_are_those_of_retr_whatever_the_name_says(
    server, mailbox, name, contents, octets
):
    mailbox.put(name, contents, folder="cur")

    stat, list_, retr = await ask(server, "STAT", "LIST 1", "RETR 1")

    assert b"+OK 1 %d\r\n" % octets == stat == list_
    assert retr.startswith(b"+OK %d octets\r\n" % octets)


async def test_what_is_no_message_is_not_listed(server, mailbox):
    (mailbox.path / "cur" / "1.folder").mkdir()
    (mailbox.path / "cur" / "2.link").symlink_to(mailbox.passwd)
    os.mkfifo(mailbox.path / "cur" / "3.pipe")
    mailbox.put(".nfs000001", folder="cur")
    mailbox.put("tmp", folder="tmp")
    mailbox.put("4.M1P1.host")

    assert ["4.M1P1.host"] == await uidl(server)


async def test_links_are_not_followed_even_where_the_size_is_known(server, mailbox):
    """A user with a shell must not read other people's files through the server."""
    (mailbox.path / "cur" / "1.M1P1.host,W=10:2,").symlink_to(mailbox.passwd)

    (reply,) = await ask(server, "RETR 1")

    assert reply.startswith(b"-ERR")


async def test_names_with_strange_octets_are_served(server, mailbox):
    name = os.fsdecode(b"1.M1P1.h\xff\tst\n")
    mailbox.put(name)
    mailbox.put("2.M1P1." + "x" * 100)

    first = await uidl(server)

    assert first == await uidl(server)
    assert [64, 64] == [len(uid) for uid in first]


# Unique-ids


async def test_dovecots_unique_ids_are_kept_whatever_dovecot_does_later(server, mailbox):
    for number in (1, 2, 3):
        mailbox.put(f"{number}.M1P1.host:2,S", folder="cur")
    uidlist = mailbox.path / "dovecot-uidlist"
    uidlist.write_text("3 V1795414657 N3\n1 :2.M1P1.host\n2 W9 :1.M1P1.host:2,S\n")
    expected = ["000000016b03da81", "000000026b03da81", "3.M1P1.host"]

    assert expected == await uidl(server)
    uidlist.write_text("3 V1795414658 N4\n1 :1.M1P1.host\n2 :2.M1P1.host\n3 :3.M1P1.host\n")
    mailbox.settle()
    async with mailbox.serve() as another:
        assert expected == await uidl(another)


async def test_a_unique_id_that_two_files_claim_goes_to_one(server, mailbox):
    mailbox.put("1.M1P1.host")
    mailbox.put("2.M1P1.host")
    (mailbox.path / "dovecot-uidlist").write_text(
        "3 V1795414657 N3\n1 Psame :1.M1P1.host\n2 Psame :2.M1P1.host\n"
    )

    assert ["same", "2.M1P1.host"] == await uidl(server)


async def test_the_index_survives_damage(server, mailbox):
    for number in (1, 2, 3):
        mailbox.put(f"{number}.M1P1.host")
    (mailbox.path / "dovecot-uidlist").write_text(
        "3 V1795414657 N3\n1 :1.M1P1.host\n2 :2.M1P1.host\n3 :3.M1P1.host\n"
    )
    before = await uidl(server)
    (mailbox.path / "dovecot-uidlist").unlink()
    index = mailbox.path / "pop3hub-index"
    lines = index.read_bytes().splitlines(keepends=True)
    index.write_bytes(b"\x00\xff\x00\n" + lines[1] + b"rubbish\t\n" + lines[2] + lines[3][:-9])
    mailbox.put("4.M1P1.host")

    async with mailbox.serve() as another:
        assert [*before[:2], "3.M1P1.host", "4.M1P1.host"] == await uidl(another)
        assert [*before[:2], "3.M1P1.host", "4.M1P1.host"] == await uidl(another)


async def test_an_index_that_names_a_unique_id_twice_locks_nobody_out(server, mailbox):
    mailbox.put("1.M1P1.host")
    mailbox.put("2.M1P1.host")
    facts = "14\t14\tn\t12\t1\t1"
    (mailbox.path / "pop3hub-index").write_text(
        f"{HEADER}1.M1P1.host\tsame\t{facts}\n2.M1P1.host\tsame\t{facts}\n"
    )

    first = await uidl(server)

    assert "same" == first[0]
    assert first == await uidl(server)


async def test_files_that_cant_be_read_hide_no_others(mailbox):
    for number in range(3):
        (mailbox.path / "cur" / f"{number}.folder").mkdir()
    mailbox.put("4.M1P1.host")
    mailbox.put("5.M1P1.host")

    async with mailbox.serve(MaildirBackend(measuring=0)) as server:
        assert ["4.M1P1.host", "5.M1P1.host"] == await uidl(server)


async def test_the_index_is_written_anew_when_most_of_it_is_of_removed_messages(server, mailbox):
    mailbox.put("1.M1P1.host")
    await uidl(server)
    with (mailbox.path / "pop3hub-index").open("a") as index:
        lines = (f"{n}.M2P1.host\t\t12\t12\tn\t12\t1\t1\n" for n in range(SPARE_LINES))
        index.writelines(lines)
    before = await uidl(server)

    async with mailbox.serve() as another:
        assert before == await uidl(another)
    status = (mailbox.path / "cur" / "1.M1P1.host:2,").stat()
    stamp = f"{status.st_size}\t{status.st_mtime_ns}\t{status.st_ino}"
    assert f"{HEADER}1.M1P1.host\t\t14\t14\tn\t{stamp}\n" == mailbox.index


async def test_an_imported_unique_id_is_in_the_index_before_the_message_shows(server, mailbox):
    assert "their-uid" == await server.store.store_message("luke", b"Subject: x\n\n", "their-uid")

    async with mailbox.serve() as another:
        assert ["their-uid"] == await uidl(another)


# Listing again


async def test_an_unchanged_maildir_is_not_read_again(server, mailbox):
    mailbox.put("1.M1P1.host:2,", folder="cur")
    mailbox.settle()
    await uidl(server)
    mailbox.put("2.M1P1.host:2,", folder="cur")
    mailbox.settle()  # as if nothing had come

    assert ["1.M1P1.host"] == await uidl(server)


@pytest.mark.parametrize("folder", ["new", "cur"])
async def test_a_change_just_now_is_never_missed(server, mailbox, folder):
    """The time of a folder may stand still for two seconds: it isn't believed until then."""
    for number in range(5):
        mailbox.put(f"{number}.M1P1.host:2,", folder=folder)
        assert number + 1 == len(await uidl(server))


async def test_a_maildir_that_is_not_there_is_made_at_the_login(server, mailbox, tmp_path):
    mailbox.passwd.write_text("leia:{PLAIN}organa\n")
    async with Dialogue(server) as dialogue:
        assert (await dialogue.login("leia", "organa")).startswith(b"+OK")
        assert b"+OK 0 0\r\n" == await dialogue.say("STAT")

    made = tmp_path / "mail" / "leia" / "Maildir"
    assert {"cur", "new", "tmp", "pop3hub.lock"} == {path.name for path in made.iterdir()}
    assert 0o700 == (made / "cur").stat().st_mode & 0o777


async def test_listing_in_pages_measures_everything(mailbox):
    for number in range(5):
        mailbox.put(f"{number}.M1P1.host", b"x" * number + b"\n")

    async with mailbox.serve(MaildirBackend(page=2)) as server:
        assert b"+OK 5 20\r\n" == (await ask(server, "STAT"))[0]
    assert 5 == mailbox.index.count("\tn\t")


# While a session is open


async def test_a_message_that_another_server_flags_is_still_found(server, mailbox):
    mailbox.put("1.M1P1.host")
    async with Dialogue(server) as dialogue:
        await dialogue.login("luke", "hello")
        (mailbox.path / "cur" / "1.M1P1.host:2,").rename(mailbox.path / "cur" / "1.M1P1.host:2,FS")

        assert (await dialogue.say("RETR 1")).endswith(b"Subject: x\r\n\r\n.\r\n")
        (mailbox.path / "cur" / "1.M1P1.host:2,FS").rename(mailbox.path / "cur" / "1.M1P1.host:2,S")
        await dialogue.say("DELE 1")
        assert (await dialogue.say("QUIT")).startswith(b"+OK")

    assert [] == mailbox.names()


async def test_a_message_that_another_server_removes_is_gone_and_others_are_not(server, mailbox):
    for number in (1, 2, 3):
        mailbox.put(f"{number}.M1P1.host")
    async with Dialogue(server) as dialogue:
        await dialogue.login("luke", "hello")
        (mailbox.path / "cur" / "2.M1P1.host:2,").unlink()
        mailbox.put("4.M1P1.host")

        assert (await dialogue.say("RETR 2")).startswith(b"-ERR [SYS/PERM]")
        assert (await dialogue.say("RETR 3")).startswith(b"+OK")
        await dialogue.say("DELE 2")
        await dialogue.say("DELE 3")
        assert (await dialogue.say("QUIT")).startswith(b"+OK")

    assert ["1.M1P1.host", "4.M1P1.host"] == await uidl(server)


async def test_what_could_not_be_removed_is_told_and_the_rest_goes(server, mailbox, monkeypatch):
    for number in (1, 2):
        mailbox.put(f"{number}.M1P1.host")
    unlink = os.unlink

    def refuse(path, **where):
        if "1.M1P1" in path:
            raise PermissionError(1, "Operation not permitted")
        unlink(path, **where)

    monkeypatch.setattr("pop3hub_maildir.directories.os.unlink", refuse)
    replies = await ask(server, "DELE 1", "DELE 2", "QUIT")

    assert replies[-1].startswith(b"-ERR")
    assert ["1.M1P1.host:2,"] == mailbox.names()


async def test_quit_is_answered_after_the_removal_is_on_disk(server, mailbox, monkeypatch):
    synced = []
    mailbox.put("1.M1P1.host")
    async with Dialogue(server) as dialogue:
        await dialogue.login("luke", "hello")
        monkeypatch.setattr(
            os, "fsync", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink())
        )
        await dialogue.say("DELE 1")
        await dialogue.say("QUIT")

    assert [mailbox.path / "cur", mailbox.path / "new"] == synced


async def test_a_delivery_is_on_disk_before_it_is_answered_for(server, mailbox, monkeypatch):
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink())
    )

    uid = await server.store.store_message("luke", b"Subject: x\n\n")

    written = mailbox.path / "tmp" / uid.partition(",")[0]
    assert [written, mailbox.path / "new"] == synced
    assert [uid] == mailbox.names("new")
    assert uid.endswith(",S=12,W=14")
    assert [] == mailbox.names("tmp")


async def test_old_mail_expires_by_the_time_in_its_name(mailbox):
    now = int(time.time())
    mailbox.put(f"{now - 10 * 86_400 - 60}.M1P1.host")
    mailbox.put(f"{now - 10 * 86_400 + 60}.M1P1.host:2,S", folder="cur")
    mailbox.put("no-time")
    async with mailbox.serve(expire=10) as server:
        for _ in range(2):
            assert b"+OK 2 28\r\n" == (await ask(server, "STAT"))[0]
            mailbox.settle()


def deliver(mailbox, total):
    for number in range(total):
        name = f"{1_700_000_000 + number}.M{number}P1.host"
        mailbox.put(name, b"Subject: %d\n\n" % number, folder="tmp")
        (mailbox.path / "tmp" / name).rename(mailbox.path / "new" / name)


def flag(mailbox, until):
    while until():
        for name in mailbox.names():
            if not name.endswith("S"):
                with suppress(FileNotFoundError):
                    (mailbox.path / "cur" / name).rename(mailbox.path / "cur" / f"{name}S")


async def take_all(server) -> list[bytes]:
    """Retrieve and delete what there is; return the subjects."""
    async with Dialogue(server) as dialogue:
        await dialogue.login("luke", "hello")
        count = int((await dialogue.say("STAT")).split()[1])
        replies = [await dialogue.say(f"RETR {number}") for number in range(1, count + 1)]
        for number in range(1, count + 1):
            await dialogue.say(f"DELE {number}")
        assert (await dialogue.say("QUIT")).startswith(b"+OK")
    assert all(reply.startswith(b"+OK") for reply in replies)
    return [reply.split(b"\r\n")[1] for reply in replies]


async def test_nothing_is_lost_or_doubled_while_others_deliver_and_flag(server, mailbox):
    """A delivery agent and an IMAP server are at work while POP3 sessions take and delete."""
    agent = threading.Thread(target=deliver, args=(mailbox, 300))
    imap = threading.Thread(target=flag, args=(mailbox, agent.is_alive))
    agent.start()
    imap.start()
    taken: list[bytes] = []
    ending = False
    while not ending:
        ending = not imap.is_alive()
        taken += await take_all(server)

    assert sorted(b"Subject: %d" % number for number in range(300)) == sorted(taken)
    assert [] == mailbox.names() + mailbox.names("new")


# The lock


def hold_lock(path) -> subprocess.Popen[str]:
    """Hold the lock in another process until its standard input ends."""
    program = (
        "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX);"
        "print('locked', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, path / "pop3hub.lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert "locked\n" == holder.stdout.readline()
    return holder


async def test_another_process_is_kept_out_and_its_death_frees_the_lock(server, mailbox):
    with hold_lock(mailbox.path) as holder:
        async with Dialogue(server) as dialogue:
            assert (await dialogue.login("luke", "hello")).startswith(b"-ERR [IN-USE]")
        holder.kill()
        holder.wait()

    assert [] == await uidl(server)


async def test_an_open_session_keeps_other_processes_out(server, mailbox):
    async with Dialogue(server) as dialogue:
        await dialogue.login("luke", "hello")
        with (mailbox.path / "pop3hub.lock").open("a") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with (mailbox.path / "pop3hub.lock").open("a"):
            pass  # closing it takes nothing away, as it would from a POSIX lock

        async with Dialogue(server) as other:
            assert (await other.login("luke", "hello")).startswith(b"-ERR [IN-USE]")
