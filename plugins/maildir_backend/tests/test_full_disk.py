"""A full disk or a used-up quota: mail can still be read and deleted, which makes room again."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
from collections import deque
from pathlib import Path

import pytest

from pop3hub.errors import TemporaryFailure
from pop3hub.testing import Dialogue

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


@pytest.fixture
def disk(mailbox):
    """A disk of a megabyte, and of few files, with Luke's Maildir on it."""
    root = mailbox.path.parent
    options = "size=1m,nr_inodes=40,mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", root], check=True)
    try:
        for name in ("cur", "new", "tmp"):
            (mailbox.path / name).mkdir(parents=True)
        yield root
    finally:
        subprocess.run(["umount", "-l", root], check=True)


def fill_room(root: Path) -> None:
    with (root / "filler").open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
        file.writelines(itertools.repeat(b"x" * 4096))


def fill_inodes(root: Path) -> None:
    paths = (root / f"filler{number}" for number in itertools.count())
    with pytest.raises(OSError, match="space"):
        deque(map(Path.touch, paths), maxlen=0)


def warnings_of(capsys) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if "maildir.no_index" in line]


@pytest.mark.parametrize("fill", [[fill_room], [fill_inodes], [fill_room, fill_inodes]])
@pytest.mark.parametrize("known", [False, True])
async def test_a_full_disk_refuses_nobody_who_wants_to_make_room(
    mailbox, disk, fill, known, capsys
):
    """With mail that came before the disk was full, and with an index and a lock or without."""
    async with mailbox.serve() as server:
        if known:
            async with Dialogue(server) as dialogue:
                await dialogue.login("luke", "hello")
        for number in range(5):
            mailbox.put(f"{number}.M1P1.host:2,", b"Subject: x\r\n\r\n", folder="cur")
        for each in fill:
            each(disk)
        capsys.readouterr()

        async with Dialogue(server) as dialogue:
            assert (await dialogue.login("luke", "hello")).startswith(b"+OK")
            assert b"+OK 5 70\r\n" == await dialogue.say("STAT")
            assert b"Subject: x" in await dialogue.say("RETR 1")
            async with Dialogue(server) as rival:
                assert (await rival.login("luke", "hello")).startswith(b"-ERR [IN-USE]")
            for number in range(1, 6):
                await dialogue.say(f"DELE {number}")
            assert (await dialogue.say("QUIT")).startswith(b"+OK")
    lines = warnings_of(capsys)
    assert len(lines) <= 1
    assert lines or (known and fill == [fill_inodes])  # then there is room in the index

    assert [] == mailbox.names()


async def test_a_delivery_to_a_full_disk_is_refused_and_leaves_nothing(mailbox, disk, capsys):
    async with mailbox.serve() as server:
        await server.store.store_message("luke", b"Subject: x\r\n\r\n")
        fill_room(disk)
        for contents in (b"x" * 10_000, b"Subject: y\r\n\r\n"):
            for uid in (None, "theirs"):
                with pytest.raises(TemporaryFailure):
                    await server.store.store_message("luke", contents, uid)
        (disk / "filler").unlink()
        assert [] == mailbox.names("tmp")
        assert 1 == len(mailbox.names("new"))
        assert "theirs" == await server.store.store_message("luke", b"Subject: y\r\n", "theirs")
    assert "maildir.failed" in capsys.readouterr().out


async def test_an_index_cut_short_by_a_full_disk_is_mended_later(mailbox, disk):
    async with mailbox.serve() as server:
        for number in range(8):
            mailbox.put(f"{number}.M1P1.{'x' * 200}:2,", b"Subject: x\r\n\r\n", folder="cur")
        fill_room(disk)
        with (disk / "filler").open("r+b") as file:
            file.truncate((disk / "filler").stat().st_size // 4096 * 4096 - 4096)
        (mailbox.path / "pop3hub-index").write_bytes(b"x" * 4000)  # room for 96 octets
        async with Dialogue(server) as dialogue:
            assert (await dialogue.login("luke", "hello")).startswith(b"+OK")
            before = await dialogue.say("UIDL")
        (disk / "filler").unlink()
        mailbox.put("9.M1P1.host:2,", b"Subject: x\r\n\r\n", folder="cur")
        async with Dialogue(server) as dialogue:
            await dialogue.login("luke", "hello")
    async with mailbox.serve() as another, Dialogue(another) as dialogue:
        await dialogue.login("luke", "hello")
        assert b"+OK 9 126\r\n" == await dialogue.say("STAT")
        uids = [line.split()[1] for line in before.splitlines()[1:-1]]
        again = [line.split()[1] for line in (await dialogue.say("UIDL")).splitlines()[1:-1]]
        assert set(uids) < set(again)


async def test_mail_is_not_left_out_for_want_of_descriptors(server, mailbox, monkeypatch):
    """A client that misses a message once forgets that it has it, and downloads it again."""
    for number in range(5):
        mailbox.put(f"{number}.M1P1.host:2,", b"Subject: x\r\n\r\n", folder="cur")
    opened = os.open

    def refuse(path, flags, *more, **where):
        if str(path).startswith("3."):
            raise OSError(errno.EMFILE, "Too many open files")
        return opened(path, flags, *more, **where)

    monkeypatch.setattr(os, "open", refuse)
    async with Dialogue(server) as dialogue:
        assert (await dialogue.login("luke", "hello")).startswith(b"-ERR [SYS/TEMP]")
    monkeypatch.undo()
    async with Dialogue(server) as dialogue:
        await dialogue.login("luke", "hello")
        assert b"+OK 5 70\r\n" == await dialogue.say("STAT")
