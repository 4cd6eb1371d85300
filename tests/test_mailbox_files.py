"""Mail in files: what is read, in which order, under which unique-id, and what is refused."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pop3hub.mailbox_files import SkippedFile, SourceMessage, dovecot_uidls, find_messages, octets

if TYPE_CHECKING:
    from pathlib import Path

UIDLIST = """3 V1795414657 N6 G9b2ed40081da036ba72d000083ecc375
1 W19 Pold-1 :1700000001.M1P1.host
2 W19 P :1700000002.M2P1.host,S=19:2,S
3 :1700000003.M3P1.host
4 W23 O1 :1700000004.M4P1.host
"""


def read(path: Path, *, uidls: bool = False) -> list[bytes]:
    return [
        found.contents()
        for found in find_messages(path, uidls=uidls)
        if isinstance(found, SourceMessage)
    ]


def uids(path: Path) -> list[str | None]:
    return [
        found.uid for found in find_messages(path, uidls=True) if isinstance(found, SourceMessage)
    ]


def uidls_of(path: Path) -> dict[str, str]:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return dovecot_uidls(folder)
    finally:
        os.close(folder)


def refused(path: Path) -> list[tuple[str, str]]:
    return [(f.origin, f.reason) for f in find_messages(path) if isinstance(f, SkippedFile)]


@pytest.fixture
def maildir(tmp_path):
    for name in ("cur", "new", "tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "new" / "1700000003.M3P1.host").write_bytes(b"Subject: 3\n\n")
    (tmp_path / "cur" / "1700000001.M1P1.host:2,S").write_bytes(b"Subject: 1\n\n")
    (tmp_path / "cur" / "1700000002.M20P1.host,S=12:2,").write_bytes(b"Subject: 2\n\n")
    (tmp_path / "cur" / "1700000002.M3P1.host:2,").write_bytes(b"Subject: 1b\n\n")
    (tmp_path / "tmp" / "1700000004.M4P1.host").write_bytes(b"half a mess")
    return tmp_path


def test_eml_files_of_a_folder_come_in_the_order_of_their_numbers(tmp_path):
    for number in (10, 2, 1):
        (tmp_path / f"{number}.eml").write_bytes(b"Subject: %d\r\n\r\n" % number)
    (tmp_path / ".hidden.eml").write_bytes(b"no")

    assert [b"Subject: 1\r\n\r\n", b"Subject: 2\r\n\r\n", b"Subject: 10\r\n\r\n"] == read(tmp_path)


def test_octets_are_read_as_they_lie_there(tmp_path):
    contents = b"Subject: \xff\n\n.dot\r\nlone\rcr and no line end"
    (tmp_path / "1.eml").write_bytes(contents)

    assert [contents] == read(tmp_path)
    assert [contents] == read(tmp_path / "1.eml")


def test_the_from_line_of_an_mbox_is_taken_off_a_single_message(tmp_path):
    (tmp_path / "1.eml").write_bytes(b"From luke@test.com Mon Mar 21 09:55:42 2022\nSubject: x\n\n")

    assert [b"Subject: x\n\n"] == read(tmp_path / "1.eml")


def test_an_mbox_is_told_by_its_first_line(tmp_path):
    (tmp_path / "luke").write_bytes(
        b"From a@b Mon Mar 21 09:55:42 2022\nSubject: 1\n\none\n\n"
        b"From a@b Mon Mar 21 09:55:43 2022\nX-UIDL: abc\nSubject: 2\n\n>From me\n"
    )

    assert [
        b"Subject: 1\n\none\n",
        b"X-UIDL: abc\nSubject: 2\n\n>From me\n",
    ] == read(tmp_path)
    assert [None, "abc"] == uids(tmp_path / "luke")


def test_reading_an_mbox_leaves_it_as_it_was(tmp_path):
    path = tmp_path / "mbox"
    path.write_bytes(b"From a@b Mon Mar 21 09:55:42 2022\nSubject: 1\n\none")
    before = path.read_bytes(), path.stat().st_mtime_ns

    read(tmp_path, uidls=True)

    assert before == (path.read_bytes(), path.stat().st_mtime_ns)
    assert [path] == list(tmp_path.iterdir())


def test_a_maildir_is_read_by_time_of_delivery_and_left_alone(maildir):
    before = sorted(maildir.rglob("*"))

    expected = [b"Subject: 1\n\n", b"Subject: 1b\n\n", b"Subject: 2\n\n", b"Subject: 3\n\n"]
    assert expected == read(maildir)
    assert before == sorted(maildir.rglob("*"))


def test_a_users_folder_may_hold_a_maildir_and_an_mbox(maildir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("luke")
    maildir.rename(folder / "Maildir")
    (folder / "old.mbox").write_bytes(b"From a@b Mon Mar 21 09:55:42 2022\nSubject: 0\n\n\n")

    assert [b"Subject: 1\n\n", b"Subject: 0\n\n"] == [read(folder)[0], read(folder)[-1]]


def test_dovecots_unique_ids_are_those_its_pop3_shows(maildir):
    """As Dovecot 2.3.19 answers UIDL: its format, P, an empty P and O each."""
    (maildir / "dovecot-uidlist").write_text(UIDLIST)

    assert {
        "1700000004.M4P1.host": "000000046b03da81",
        "1700000001.M1P1.host": "old-1",
        "1700000002.M2P1.host,S=19": "1700000002.M2P1.host,S=19",
        "1700000003.M3P1.host": "000000036b03da81",
    } == uidls_of(maildir)


def test_messages_come_in_dovecots_order_and_unknown_ones_after_them(maildir):
    (maildir / "dovecot-uidlist").write_text(
        "3 V1795414657 N3\n1 :1700000003.M3P1.host\n2 :1700000001.M1P1.host\n"
    )

    assert ["000000016b03da81", "000000026b03da81", None, None] == uids(maildir)
    assert [b"Subject: 3\n\n", b"Subject: 1\n\n"] == read(maildir, uidls=True)[:2]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"3\n",
        b"3 N5 V\n1 :a\n",
        b"3 V99999999999999 N1\n1 :a\n",
        b"1 1795414657 5\n1 a\n",
        b"\xff\xfe\x00",
    ],
)
def test_a_damaged_uidlist_gives_no_unique_ids(maildir, damage):
    (maildir / "dovecot-uidlist").write_bytes(damage)

    assert {} == uidls_of(maildir)


def test_damaged_lines_of_a_uidlist_are_passed_over(maildir):
    (maildir / "dovecot-uidlist").write_bytes(
        b"3 V1 N5\nrubbish\n1\n2 :\n3 P\x01bad :x\n4 Phas\xffbad :y\n5 :\xff.name\n6 :1.good\n"
    )

    assert {os.fsdecode(b"\xff.name"): "0000000500000001", "1.good": "0000000600000001"} == (
        uidls_of(maildir)
    )


def test_an_x_uidl_is_looked_for_in_the_header_only(tmp_path):
    (tmp_path / "1.eml").write_bytes(b"Subject: x\r\n\r\nX-UIDL: body\r\n")
    (tmp_path / "2.eml").write_bytes(b"x-uidl:\t12ab!~ \r\nSubject: x\r\n\r\n")
    (tmp_path / "3.eml").write_bytes(b"X-UIDL: " + b"a" * 71 + b"\n\n")

    assert [None, "12ab!~", None] == uids(tmp_path)


def test_what_is_no_mail_is_refused_with_the_reason(maildir):
    (maildir / ".Sent" / "cur").mkdir(parents=True)
    (maildir / ".Sent" / "new").mkdir()
    (maildir / "cur" / "1700000009.M1P1.host:2,Z").write_bytes(b"\x1f\x8b\x08rest")

    assert [
        (
            str(maildir / "1700000009.M1P1.host"),
            "packed or encrypted (gzip): unpack it first",
        ),
        (str(maildir / ".Sent"), "a folder below the inbox: POP3 has one maildrop"),
    ] == refused(maildir)


def test_one_refused_entry_hinders_no_other(tmp_path):
    (tmp_path / "1.txt").write_bytes(b"Dear diary")
    (tmp_path / "2").mkdir()
    (tmp_path / "3.eml").symlink_to(tmp_path / "missing")
    (tmp_path / "4.eml").write_bytes(b"Subject: x\n\n")
    reason = "neither a .eml file nor an mbox nor a Maildir"

    assert [
        (str(tmp_path / "1.txt"), reason),
        (str(tmp_path / "2"), reason),
        (str(tmp_path / "3.eml"), "a symbolic link"),
    ] == refused(tmp_path)
    assert [b"Subject: x\n\n"] == read(tmp_path)


def test_a_path_that_is_not_there_is_refused(tmp_path):
    assert [(str(tmp_path / "no"), "No such file or directory")] == refused(tmp_path / "no")
    assert 0 == octets(tmp_path / "no")


def test_octets_add_up_to_what_is_found(maildir):
    found = [f for f in find_messages(maildir) if isinstance(f, SourceMessage)]

    assert sum(f.octets for f in found) + len(b"half a mess") == octets(maildir)


# Files that aren't plain


def lay_fifo(path):
    os.mkfifo(path)


def lay_socket(path):
    with socket.socket(socket.AF_UNIX) as bound:
        where = os.open(path.parent, os.O_PATH)  # a socket's path is short
        bound.bind(f"/proc/self/fd/{where}/{path.name}")
        os.close(where)


def lay_link(path):
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize("lay", [lay_fifo, lay_socket, lay_link, lambda path: path.mkdir()])
@pytest.mark.parametrize("folder", ["cur", "new"])
def test_a_maildir_is_read_around_what_is_not_a_plain_file(maildir, lay, folder):
    lay(maildir / folder / "1700000001.M2P1.host:2,")

    assert 4 == len(read(maildir, uidls=True))
    assert [(str(maildir / "1700000001.M2P1.host"), "not a plain file")] == refused(maildir)
    assert octets(maildir) >= 49


@pytest.mark.parametrize("lay", [lay_fifo, lay_socket, lay_link, lambda path: path.mkdir()])
def test_a_uidlist_that_is_not_a_plain_file_gives_no_unique_ids(maildir, lay):
    lay(maildir / "dovecot-uidlist")

    assert {} == uidls_of(maildir)
    assert 4 == len(read(maildir, uidls=True))


@pytest.mark.parametrize("lay", [lay_fifo, lay_socket, lay_link])
def test_a_folder_is_read_around_what_is_not_a_plain_file(tmp_path, lay):
    (tmp_path / "1.eml").write_bytes(b"Subject: x\n\n")
    lay(tmp_path / "2.eml")
    lay(tmp_path / "3")

    assert [b"Subject: x\n\n"] == read(tmp_path)
    assert [str(tmp_path / "2.eml"), str(tmp_path / "3")] == [
        origin for origin, _ in refused(tmp_path)
    ]
    assert 12 == octets(tmp_path)


@pytest.mark.parametrize("lay", [lay_fifo, lay_socket])
def test_a_path_that_is_not_a_plain_file_is_refused(tmp_path, lay):
    lay(tmp_path / "mail")

    assert [(str(tmp_path / "mail"), "not a plain file")] == refused(tmp_path / "mail")
    assert 0 == octets(tmp_path / "mail")


def test_links_are_followed_to_what_was_asked_for_alone(maildir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("links")
    (folder / "maildir").symlink_to(maildir)
    (folder / "1.eml").write_bytes(b"Subject: x\n\n")
    (folder / "link.eml").symlink_to(folder / "1.eml")

    assert 4 == len(read(folder / "maildir"))
    assert 1 == len(read(folder / "link.eml"))
    assert [(str(folder / "link.eml"), "a symbolic link")] == refused(folder)[:1]
    assert [b"Subject: x\n\n"] == read(folder)


@pytest.mark.parametrize("name", ["cur", "new"])
def test_a_link_in_place_of_a_maildirs_folder_leads_nowhere(maildir, tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("mine")
    for each in {"cur", "new"} - {name}:
        (folder / each).mkdir()
    (folder / name).symlink_to(maildir / name)

    assert [] == read(folder)
    assert (str(folder / name), "a symbolic link") in refused(folder)


def test_nothing_is_left_out_that_another_program_renames(tmp_path):
    for name in ("cur", "new"):
        (tmp_path / name).mkdir()
    for number in range(1000):
        (tmp_path / "cur" / f"{number}.M1P1.host:2,").write_bytes(b"Subject: %d\n\n" % number)
    program = (
        "import os, sys\nprint(flush=True)\nos.chdir(sys.argv[1])\n"
        "while True:\n for name in os.listdir('.'):\n"
        "  os.rename(name, name[:-1] if name.endswith('S') else name + 'S')\n"
    )
    words = [sys.executable, "-c", program, tmp_path / "cur"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as renaming:
        renaming.stdout.readline()
        try:
            found = sorted(read(tmp_path))
        finally:
            renaming.kill()

    assert sorted(b"Subject: %d\n\n" % number for number in range(1000)) == found
