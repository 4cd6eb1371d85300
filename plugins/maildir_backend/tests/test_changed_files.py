"""Files that change under their names: each reply is whole, with true octets, or a clean error."""

from __future__ import annotations

import gzip
import os

import pytest

from pop3hub.errors import TemporaryFailure
from pop3hub.protocol.message import wire_form
from pop3hub.testing import Dialogue

MAIL = b"Subject: x\r\nFrom: a@example.com\r\n\r\nline one\r\nline two\r\n"
EDITS = {
    "a line of one dot, in as many octets": MAIL.replace(b"line one", b".\r\n+OK 5").replace(
        b"two", b"2xx"
    ),
    "dots doubled, in as many octets": MAIL.replace(b"line one", b".ine one"),
    "a footer without a line end": MAIL + b"-- footer",
    "dos2unix": MAIL.replace(b"\r\n", b"\n"),
    "gzip": gzip.compress(MAIL),
    "cut": MAIL[:40],
    "empty": b"",
    "longer than is read at once": MAIL + b".\nx" * 200_000,
    "outside ASCII": MAIL.replace(b"x", "\u00fc".encode(), 1),
}


async def ask(server, *lines, utf8=False) -> list[bytes]:
    async with Dialogue(server) as dialogue:
        if utf8:
            assert (await dialogue.say("UTF8")).startswith(b"+OK")
        assert (await dialogue.login("luke", "hello")).startswith(b"+OK")
        return [await dialogue.say(line) for line in lines]


def reply_to(contents: bytes) -> bytes:
    wire = wire_form(contents)
    stuffed = wire.replace(b"\n.", b"\n..")
    return (
        b"+OK %d octets\r\n" % len(wire) + (b"." if wire[:1] == b"." else b"") + stuffed + b".\r\n"
    )


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("restart", [False, True])
async def test_a_file_that_changes_between_sessions_is_measured_again(
    server, mailbox, edit, restart
):
    """In the same process, and in one that knows the file from the index alone."""
    for number in (1, 2, 3):
        mailbox.put(f"{number}.M1P1.host:2,", MAIL, folder="cur")
    await ask(server, "RETR 1", "RETR 2", "RETR 3")
    mailbox.settle()
    await ask(server, "RETR 1")
    contents = EDITS[edit]
    mailbox.put("2.M1P1.host:2,", contents, folder="cur")
    mailbox.settle()

    async with mailbox.serve() as another:
        stat, list_, retr, uidl, retr_3 = await ask(
            another if restart else server,
            *("STAT", "LIST 2", "RETR 2", "UIDL 2", "RETR 3"),
            utf8=True,
        )

    octets = len(wire_form(contents))
    assert b"+OK 2 %d\r\n" % octets == list_
    assert b"+OK 3 %d\r\n" % (2 * len(MAIL) + octets) == stat
    assert reply_to(contents) == retr
    assert reply_to(MAIL) == retr_3
    assert b"+OK 2 2.M1P1.host\r\n" == uidl


@pytest.mark.parametrize("edit", EDITS)
async def test_a_file_that_changes_in_a_session_is_a_clean_error_until_the_next(
    server, mailbox, edit
):
    mailbox.put("1.M1P1.host:2,", MAIL, folder="cur")
    await ask(server, "RETR 1")
    contents = EDITS[edit]
    async with Dialogue(server) as dialogue:
        await dialogue.say("UTF8")
        await dialogue.login("luke", "hello")
        stat = await dialogue.say("STAT")
        mailbox.put("1.M1P1.host:2,", contents, folder="cur")
        replies = [await dialogue.say(line) for line in ("RETR 1", "TOP 1 9", "NOOP", "STAT")]

    same_size = len(wire_form(contents)) == len(MAIL) and contents.isascii()
    assert reply_to(contents) == replies[0] if same_size else replies[0].startswith(b"-ERR")
    assert replies[1].startswith(b"+OK" if same_size else b"-ERR [SYS/TEMP]")
    assert replies[2].startswith(b"+OK")
    assert stat == replies[3]
    assert reply_to(contents) == (await ask(server, "RETR 1", utf8=True))[0]


async def test_a_new_file_of_an_old_name_is_measured(server, mailbox):
    """With the size and the time of the file that it replaces, as `cp -p` and rsync keep them."""
    mailbox.put("1.M1P1.host:2,", MAIL, folder="cur")
    path = mailbox.path / "cur" / "1.M1P1.host:2,"
    os.utime(path, (1_000_000_000, 1_000_000_000))
    await ask(server, "RETR 1")
    new = mailbox.path / "tmp" / "x"
    new.write_bytes(EDITS["a line of one dot, in as many octets"])
    os.utime(new, (1_000_000_000, 1_000_000_000))
    new.rename(path)

    (reply,) = await ask(server, "RETR 1")

    assert reply_to(EDITS["a line of one dot, in as many octets"]) == reply


@pytest.mark.parametrize("change", [b"x" * 10, None])
async def test_a_long_file_that_changes_while_it_is_sent_ends_without_a_final_dot(
    server, mailbox, change
):
    """Appended to, or cut."""
    contents = b"0123456789abcd\r\n" * 100_000
    mailbox.put("1.M1P1.host:2,", contents, folder="cur")
    async with Dialogue(server) as dialogue:
        await dialogue.login("luke", "hello")
        stream = await server.plugins.load_contents(dialogue.session.maildrop[1], dialogue.session)
        got = await anext(stream)
        with (mailbox.path / "cur" / "1.M1P1.host:2,").open("r+b") as file:
            if change is None:
                file.truncate(1_000_000)
            else:
                file.seek(0, 2)
                file.write(change)

        with pytest.raises(TemporaryFailure):
            got += b"".join([chunk async for chunk in stream])
        await stream.aclose()

    assert contents.startswith(got)


async def test_sizes_of_large_mail_outside_ascii_are_known_before_it_is_sent(server, mailbox):
    """Also of mail that pop3hub delivered: 8 MiB are more than STAT would read for it."""
    header = "Subject: Gr\u00fc\u00dfe aus K\u00f6ln\r\n\r\n".encode()
    contents = header + b"0123456789abcd\r\n" * 600_000
    mailbox.put("1.M1P1.host", contents)
    await server.store.store_message("luke", contents)

    async with mailbox.serve() as another:
        for running in (server, another):
            stat, list_, retr = await ask(running, "STAT", "LIST 1", "RETR 1")
            status, _, rest = retr.partition(b"\r\n")
            octets = len(rest) - len(b".\r\n")
            assert rest.isascii()
            assert b"+OK %d octets" % octets == status
            assert b"+OK 1 %d\r\n" % octets == list_
            assert b"+OK 2 %d\r\n" % (2 * octets) == stat
