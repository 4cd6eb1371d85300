"""Maildirs as other programs fill them, and what happens to them meanwhile."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pop3hub.auth import PopUser
from pop3hub.errors import ConfigurationError, NoSuchUser, TemporaryFailure
from pop3hub.hookspecs import hookimpl
from pop3hub.protocol import MessageEncoder
from pop3hub.server import PopServer
from pop3hub.testing import Dialogue
from pop3hub_maildir import MaildirBackend
from pop3hub_maildir.index import HEADER, SPARE_LINES
from pop3hub_maildir.reading import Survey

LONG_AGO = 1_000_000_000  # seconds: a folder this old is known to be settled
POSTFIX = "1700000001.Vfd01I5e07M{0:06}.mail"
BCRYPT = "$2y$04$ven61mBYYusFPH26CvnnAuuQrEAjCX5WSUvGMSUX10NjwfvnnCjUK"  # of "U*U", by doveadm pw
EXIM = "1700000002.H{0:06}P4242.mail,S=13"
DOVECOT = "1700000003.M{0:06}P4243.mail,S=13,W=15"


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
    async with serve(mailbox) as server:
        yield server


def serve(mailbox, **settings) -> PopServer:
    settings = {"listen": (), "failure_delay": 0, "bcrypt_cost": 4} | settings
    return PopServer(backend=MaildirBackend(), options=mailbox.options, **settings)


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


async def test_w_in_the_name_is_the_size_and_the_file_is_not_read(server, mailbox):
    mailbox.put("1.M1P1.host,S=12,W=4711:2,", folder="cur")

    assert b"+OK 1 4711\r\n" == (await ask(server, "STAT"))[0]


async def test_s_in_the_name_is_no_size_on_the_wire(server, mailbox):
    mailbox.put("1.M1P1.host,S=12:2,", folder="cur")

    assert b"+OK 1 14\r\n" == (await ask(server, "STAT"))[0]


async def test_a_wrong_w_is_put_right_for_the_next_session(server, mailbox):
    """Dovecot's W= leaves out the line end that is missing at the end of a file."""
    mailbox.put("1.M1P1.host,S=15,W=17:2,", b"Subject: x\n\nabc", folder="cur")

    await ask(server, "RETR 1", "QUIT")
    mailbox.settle()
    async with serve(mailbox) as another:
        assert b"+OK 1 19\r\n" == (await ask(another, "STAT"))[0]


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
    async with serve(mailbox) as another:
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

    async with serve(mailbox) as another:
        assert [*before[:2], "3.M1P1.host", "4.M1P1.host"] == await uidl(another)
        assert [*before[:2], "3.M1P1.host", "4.M1P1.host"] == await uidl(another)


async def test_the_index_is_written_anew_when_most_of_it_is_of_removed_messages(server, mailbox):
    mailbox.put("1.M1P1.host")
    await uidl(server)
    with (mailbox.path / "pop3hub-index").open("a") as index:
        index.writelines(f"{n}.M2P1.host\t\t12\tna\n" for n in range(SPARE_LINES))
    before = await uidl(server)

    async with serve(mailbox) as another:
        assert before == await uidl(another)
    assert f"{HEADER}1.M1P1.host\t\t14\tna\n" == mailbox.index


async def test_an_imported_unique_id_is_in_the_index_before_the_message_shows(server, mailbox):
    assert "their-uid" == await server.plugins.store_message("luke", b"Subject: x\n\n", "their-uid")

    async with serve(mailbox) as another:
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


async def test_listing_in_pages_measures_everything(server, mailbox, monkeypatch):
    monkeypatch.setattr("pop3hub_maildir.folder.PAGE", 2)
    for number in range(5):
        mailbox.put(f"{number}.M1P1.host", b"x" * number + b"\n")

    assert b"+OK 5 20\r\n" == (await ask(server, "STAT"))[0]
    assert 5 == mailbox.index.count("\tna\n")


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

    def refuse(path):
        if "1.M1P1" in path:
            raise PermissionError(1, "Operation not permitted")
        unlink(path)

    monkeypatch.setattr("pop3hub_maildir.folder.os.unlink", refuse)
    replies = await ask(server, "DELE 1", "DELE 2", "QUIT")

    assert replies[-1].startswith(b"-ERR")
    assert ["1.M1P1.host:2,"] == mailbox.names()


async def test_quit_is_answered_after_the_removal_is_on_disk(server, mailbox, monkeypatch):
    synced = []
    monkeypatch.setattr("pop3hub_maildir.folder.sync_folder", synced.append)
    mailbox.put("1.M1P1.host")

    await ask(server, "DELE 1", "QUIT")

    assert [str(mailbox.path / "cur"), str(mailbox.path / "new")] == synced


async def test_a_delivery_is_on_disk_before_it_is_answered_for(server, mailbox, monkeypatch):
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink())
    )

    uid = await server.plugins.store_message("luke", b"Subject: x\n\n")

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
    async with serve(mailbox, expire=10) as server:
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


# Reading


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_a_survey_foretells_what_the_encoder_sends(size):
    """All messages of up to six octets of these kinds, in chunks of every small size."""
    for length in range(7):
        for octets in itertools.product(b"\r\n.a", repeat=length):
            contents = bytes(octets)
            survey, encoder = Survey(), MessageEncoder()
            chunks = [contents[at : at + size] for at in range(0, length, size)]
            for chunk in chunks:
                survey.feed(chunk)
            survey.end()
            sent = b"".join([encoder.feed(chunk) for chunk in chunks]) + encoder.end()

            assert encoder.octets == survey.octets, contents
            assert (sent == contents + b".\r\n") is survey.ready, contents


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_nothing_is_left_open(mailbox):
    async def within():
        async with serve(mailbox) as server:
            mailbox.put("1.M1P1.host", b"x" * 2_000_000)
            mailbox.put("2.M1P1.host", b"x" * 2_000)
            before = open_files()
            await ask(server, "RETR 1", "RETR 2", "TOP 1 0", "DELE 2")
            for _ in range(3):
                async with Dialogue(server) as dialogue:
                    await dialogue.login("luke", "hello")
                    stream = await server.plugins.load_contents(
                        dialogue.session.maildrop[1], dialogue.session
                    )
                    await anext(stream)
                    await stream.aclose()
            del stream
            assert before == open_files()
        assert not [t for t in threading.enumerate() if t.name.startswith("pop3hub-maildir")]

    asyncio.run(within())


@pytest.mark.parametrize("nowait", [None, os.RWF_NOWAIT])
@pytest.mark.parametrize("octets", [0, 1, 65_536, 65_537, 262_144, 262_145, 600_000])
async def test_contents_are_whole_whatever_the_system_can_do(
    server, mailbox, monkeypatch, octets, nowait
):
    monkeypatch.setattr("pop3hub_maildir.reading._NOWAIT", nowait)
    contents = (b"0123456789abcd\r\n" * (octets // 16 + 1))[:octets]
    mailbox.put("1.M1P1.host", contents)

    for _ in range(2):
        (reply,) = await ask(server, "RETR 1")
        sent = reply.partition(b"\r\n")[2]
        assert contents == sent[: len(contents)]
        assert sent[len(contents) :] in {b".\r\n", b"\r\n.\r\n", b"\n.\r\n"}


async def test_what_is_not_in_memory_is_read_in_a_thread(server, mailbox, monkeypatch):
    def not_cached(*_):
        raise BlockingIOError

    monkeypatch.setattr("pop3hub_maildir.reading.os.preadv", not_cached)
    contents = b"0123456789abcd\r\n" * 40_000
    mailbox.put("1.M1P1.host", contents)

    (reply,) = await ask(server, "RETR 1")

    assert contents + b".\r\n" == reply.partition(b"\r\n")[2]


async def test_what_is_found_out_by_the_first_retr_is_remembered(server, mailbox):
    mailbox.put("1.M1P1.host,W=14", b"Subject: x\r\n\r\n")
    mailbox.put("2.M1P1.host,W=17", b"Subject: x\n\n.")
    mailbox.put("3.M1P1.host,W=600000", b"0123456789abcd\r\n" * 37_500)
    await ask(server, "RETR 1", "RETR 2", "RETR 3", "QUIT")
    mailbox.settle()

    async with serve(mailbox) as another, Dialogue(another) as dialogue:
        await dialogue.login("luke", "hello")
        maildrop = dialogue.session.maildrop

        assert [True, False, True] == [maildrop[n].wire_ready for n in (1, 2, 3)]
        assert [14, 17, 600_000] == [maildrop[n].ascii_size for n in (1, 2, 3)]


# Users and names


@pytest.mark.parametrize(
    ("line", "password", "answer"),
    [
        ("luke:{PLAIN}hello", "hello", b"+OK"),
        ("luke:{plain}hello", "{plain}hello", b"-ERR [AUTH]"),
        ("luke:{CLEARTEXT}he{l}lo:1000:1000::/home/luke::", "he{l}lo", b"+OK"),
        ("luke:hello", "hello", b"-ERR [AUTH]"),
        ("luke:", "", b"-ERR"),
        ("luke", "luke", b"-ERR [AUTH]"),
        ("luke:{SHA512-CRYPT}$6$x$y", "x", b"-ERR [AUTH]"),
        ("luke:{PLAIN}hello::::::nologin", "hello", b"-ERR [AUTH]"),
        ("luke:{PLAIN}hello::::::userdb_x=1 allow_nets=10.0.0.0/8", "hello", b"-ERR [AUTH]"),
        ("luke:{PLAIN}hello::::::userdb_quota=1", "hello", b"+OK"),
        ("luke:{BLF-CRYPT}" + BCRYPT, "U*U", b"+OK"),
        ("luke:" + BCRYPT, "U*U", b"+OK"),
        ("luke:" + BCRYPT, "x", b"-ERR [AUTH]"),
    ],
)
async def test_passwords_of_a_dovecot_passwd_file(server, mailbox, line, password, answer):
    mailbox.passwd.write_text(f"# users\n\nother:{{PLAIN}}x\n{line}\n")

    async with Dialogue(server) as dialogue:
        assert (await dialogue.login("luke", password)).startswith(answer)


async def test_the_passwd_file_is_read_again_when_it_has_changed(server, mailbox):
    await uidl(server)
    new = mailbox.passwd.with_suffix(".new")
    new.write_text("luke:{PLAIN}other\n")
    new.rename(mailbox.passwd)

    async with Dialogue(server) as dialogue:
        assert (await dialogue.login("luke", "hello")).startswith(b"-ERR [AUTH]")
        assert (await dialogue.login("luke", "other")).startswith(b"+OK")


async def test_a_passwd_file_that_is_gone_for_a_moment_locks_nobody_out(server, mailbox):
    mailbox.passwd.unlink()

    assert [] == await uidl(server)


@pytest.mark.parametrize(
    "name", ["../luke", "luke/../x", ".", "..", ".luke", "a/b", "a\0b", "a\nb"]
)
async def test_no_name_leads_out_of_the_root(mailbox, name):
    """Even where another plugin says that there is such a user."""
    mailbox.options["maildir_passwd"] = None
    backend = MaildirBackend()
    backend.configure(mailbox.options)
    await backend.startup(None)
    try:
        with pytest.raises(NoSuchUser):
            await backend.store_message(name, b"x")
        with pytest.raises(Exception, match="maildrop-damaged"):
            backend.lock_maildrop(PopUser(name))
        with pytest.raises(Exception, match="maildrop-damaged"):
            backend.receive_messages(PopUser(name))
    finally:
        await backend.shutdown(None)


async def test_local_part_and_domain_stand_in_the_pattern(mailbox, tmp_path):
    mailbox.passwd.write_text("luke@x@example.org:{PLAIN}hello\nplain:{PLAIN}hello\n")
    mailbox.options["maildir_path"] = f"{tmp_path}/mail/{{domain}}/{{local}}"
    async with serve(mailbox) as server:
        await server.plugins.store_message("luke@x@example.org", b"Subject: x\n\n")
        async with Dialogue(server) as dialogue:
            assert (await dialogue.login("plain", "hello")).startswith(b"-ERR [SYS/PERM]")

    assert 1 == len(list((tmp_path / "mail" / "example.org" / "luke@x" / "new").iterdir()))


async def test_users_may_come_from_another_plugin(mailbox):
    class Directory:
        @hookimpl
        def get_user(self, name):
            return PopUser(name, "{PLAIN}hello") if name == "luke" else None

    del mailbox.options["maildir_passwd"]
    mailbox.put("1.M1P1.host")
    async with PopServer(
        backend=MaildirBackend(), plugins=[Directory()], options=mailbox.options, listen=()
    ) as server:
        assert ["1.M1P1.host"] == await uidl(server)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "the maildir backend needs --maildir PATTERN"),
        ({"maildir_path": "/nowhere/{user}"}, "--maildir: there is no folder /nowhere"),
        ({"maildir_path": "/tmp/{user"}, "--maildir /tmp/{user: expected '}'"),  # noqa: S108
        ({"maildir_path": "/{name}"}, "--maildir /{name}: only {user}, {local} and {domain}"),
        ({"maildir_path": "/{user!r}"}, "--maildir /{user!r}: only {user}, {local} and {domain}"),
        ({"maildir_path": "/x/{domain}"}, "--maildir /x/{domain}: without {user} or {local}"),
        ({"maildir_path": "/{user}", "maildir_passwd": "/no"}, "--maildir-passwd /no: No such"),
    ],
)
async def test_what_cant_work_stops_the_start_with_one_line(options, problem):
    with pytest.raises(ConfigurationError) as raised:
        await PopServer(backend=MaildirBackend(), options=options, listen=()).start()

    assert str(raised.value).startswith(problem)
    assert "\n" not in str(raised.value)


async def test_ready_tells_whether_the_root_is_there(mailbox, tmp_path):
    async with serve(mailbox) as server:
        await server.plugins.ready()
        (tmp_path / "mail").rename(tmp_path / "away")
        with pytest.raises(TemporaryFailure):
            await server.plugins.ready()
