"""The commands on a store: users, delivery, import; and what they leave as exit codes."""

import mailbox
import os
import pty
import re
import subprocess
import sys

import bcrypt
import pytest

from pop3hub.auth.scram import ScramKeys
from pop3hub.protocol import MessageEncoder
from tests.support.program import ROOT

MESSAGE = b"Subject: hi\r\n\r\nHello!\r\n"


@pytest.fixture
def on(pop3hub, filed):
    """Return a function that runs a command on the store in a file."""

    def on(*arguments, stdin=b""):
        return pop3hub(*filed.options, "--bcrypt-cost", "4", *arguments, stdin=stdin)

    return on


@pytest.fixture
def luke(on):
    """A store that has luke, with the password hello."""
    assert 0 == on("user", "add", "luke", stdin=b"hello\n").code


# Users


def test_a_new_user_has_a_bcrypt_hash_and_scram_keys_of_the_password(on, filed):
    outcome = on("user", "add", "luke", stdin=b"hello\n")

    assert (0, "", "") == outcome
    luke = filed.users["luke"]
    assert bcrypt.checkpw(b"hello", luke.password.encode())
    assert luke.password.startswith("$2b$04$")
    assert ["SCRAM-SHA-1", "SCRAM-SHA-256"] == sorted(luke.scram)
    for mechanism, keys in luke.scram.items():
        assert ScramKeys.parse(keys, mechanism)
    assert luke.secret is None


def test_add_never_overwrites(on, filed, luke):
    before = filed.users

    outcome = on("user", "add", "luke", stdin=b"other\n")

    assert os.EX_CANTCREAT == outcome.code
    assert "user password" in outcome.err
    assert before == filed.users


def test_the_apop_secret_is_the_second_line(on, filed):
    on("user", "add", "luke", "--apop-secret", stdin=b"hello\ntanstaaf\n")

    assert "tanstaaf" == filed.users["luke"].secret


@pytest.mark.parametrize(
    ("stdin", "said"),
    [
        (b"x" * 73 + b"\nsecret\n", "longer than 72 octets"),
        ("é".encode() * 37 + b"\nsecret\n", "longer than 72 octets"),
        (b"\nsecret\n", "the password can't be used: the password is empty"),
        (b"", "no password on standard input"),
        (b"hello\n", "no APOP secret on standard input"),
        (b"hello\n\n", "APOP secret is empty"),
    ],
)
def test_a_password_that_could_never_log_in_is_refused(on, filed, stdin, said):
    outcome = on("user", "add", "luke", "--apop-secret", stdin=stdin)

    assert os.EX_DATAERR == outcome.code
    assert said in outcome.err
    assert not filed.path.exists()


def test_72_octets_are_not_too_many(on, filed):
    assert 0 == on("user", "add", "luke", stdin=b"x" * 72 + b"\n").code


def test_a_password_without_scram_form_is_kept_without_keys(on, filed):
    """RFC 5802 s2.2: stored strings hold no code point that Unicode 3.2 did not have."""
    outcome = on("user", "add", "luke", stdin="\N{ROBOT FACE}\n".encode())

    assert 0 == outcome.code
    assert "without SCRAM keys" in outcome.err
    assert {} == filed.users["luke"].scram


def test_a_changed_password_changes_the_keys_and_leaves_the_secret(on, filed):
    on("user", "add", "luke", "--apop-secret", stdin=b"hello\ntanstaaf\n")
    before = filed.users["luke"]

    assert 0 == on("user", "password", "luke", stdin=b"other\n").code

    after = filed.users["luke"]
    assert bcrypt.checkpw(b"other", after.password.encode())
    assert not before.scram.items() & after.scram.items()
    assert "tanstaaf" == after.secret


def test_the_secret_can_be_changed_and_taken_away(on, filed, luke):
    on("user", "password", "luke", "--apop-secret", stdin=b"hello\nnew\n")
    assert "new" == filed.users["luke"].secret

    on("user", "password", "LUKE", "--no-apop-secret", stdin=b"hello\n")
    assert filed.users["luke"].secret is None


def test_who_is_not_there_has_no_password_to_change(on, luke):
    outcome = on("user", "password", "leia", stdin=b"hello\n")

    assert os.EX_NOUSER == outcome.code
    assert "there is no user 'leia'" in outcome.err


def test_list_tells_what_each_can_log_in_with(on, luke):
    on("user", "add", "han", "--apop-secret", stdin=b"hello\nsecret\n")

    assert (
        "han\tpassword SCRAM-SHA-1 SCRAM-SHA-256 apop-secret\n"
        "luke\tpassword SCRAM-SHA-1 SCRAM-SHA-256\n" == on("user", "list").out
    )


def test_remove_refuses_a_user_with_mail_unless_it_may_go_too(on, filed, luke):
    on("deliver", "luke", stdin=MESSAGE)

    refused = on("user", "remove", "luke")
    assert os.EX_UNAVAILABLE == refused.code
    assert "--with-mail" in refused.err
    assert "luke" in filed.users

    assert 0 == on("user", "remove", "luke", "--with-mail").code
    assert ({}, {}) == (filed.users, filed.mail)
    assert os.EX_NOUSER == on("user", "remove", "luke").code


def test_no_secret_is_printed_or_stands_in_an_error(on, luke):
    outcome = on("user", "add", "luke", "--apop-secret", stdin=b"hel1o\nsecr3t\n")

    assert "hel1o" not in outcome.out + outcome.err
    assert "secr3t" not in outcome.out + outcome.err


def test_on_a_terminal_the_password_is_asked_for_twice_and_not_shown(filed):
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pop3hub", *filed.options, "user", "add", "luke"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(filed.path.parent / "site")},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    with os.fdopen(controller, "r+b", buffering=0) as screen:
        for answer in (b"hello\n", b"hello\n"):
            while not shown.rstrip(b" ").endswith(b":") or shown.count(b":") < 1:
                shown += screen.read(100)
            screen.write(answer)
            shown += b"|"
        assert 0 == process.wait(20)
    assert b"hello" not in shown
    assert bcrypt.checkpw(b"hello", filed.users["luke"].password.encode())


# Delivery


def test_a_message_on_standard_input_becomes_the_newest(on, filed, luke):
    assert (0, "", "") == on("deliver", "luke", stdin=MESSAGE)
    on("deliver", "luke", stdin=b"Subject: second\n\nlf\n")

    second = b"Subject: second\r\n\r\nlf\r\n"
    assert [("uid-1", MESSAGE), ("uid-2", second)] == filed.mail["luke"]


@pytest.mark.parametrize("size", [0, 4000, 4096, 300_000])
def test_the_from_line_of_an_mbox_is_taken_off(on, filed, luke, size):
    body = b"x" * size + b"\r\nFrom here on it is text\r\n"

    on("deliver", "luke", stdin=b"From leia@test.com Mon Nov  2 10:00:00 2026\n" + body)

    assert [("uid-1", body)] == filed.mail["luke"]


def test_mail_for_nobody_is_67(on, luke):
    outcome = on("deliver", "leia", stdin=MESSAGE)

    assert os.EX_NOUSER == outcome.code
    assert "pop3hub: there is no user 'leia'\n" == outcome.err


def test_no_message_is_65(on, luke):
    assert os.EX_DATAERR == on("deliver", "luke").code


def test_a_store_that_has_no_room_now_is_75(on):
    on("user", "add", "full", stdin=b"hello\n")

    assert os.EX_TEMPFAIL == on("deliver", "full", stdin=MESSAGE).code


@pytest.mark.parametrize(
    "wrong", [("--config", "/nonexistent.toml"), ("--no-plugin", "x"), ("--backend", "gone")]
)
def test_what_an_administrator_can_repair_is_75_too(on, luke, wrong):
    """A mail server would send the message back at any code that it does not know."""
    assert os.EX_TEMPFAIL == on(*wrong, "deliver", "luke", stdin=MESSAGE).code


# Import


@pytest.fixture
def mbox(tmp_path):
    """An mbox of two messages."""
    path = tmp_path / "old.mbox"
    box = mailbox.mbox(path)
    for number in (1, 2):
        box.add(f"Subject: {number}\nX-UIDL: old-{number}\n\nText\n".encode())
    box.close()
    return path


def test_an_mbox_a_maildir_and_an_eml_are_taken_in_order(on, filed, luke, mbox, tmp_path):
    maildir = mailbox.Maildir(tmp_path / "maildir")
    maildir.add(b"Subject: 3\n\nText\n")
    eml = tmp_path / "4.eml"
    eml.write_bytes(b"Subject: 4\r\n\r\nText\r\n")

    outcome = on("import", "luke", mbox, tmp_path / "maildir", eml)

    assert (0, "4 messages taken, 0 not taken\n", "") == outcome
    subjects = [contents.split(b"\r\n")[0] for _, contents in filed.mail["luke"]]
    assert [b"Subject: 1", b"Subject: 2", b"Subject: 3", b"Subject: 4"] == subjects


def test_unique_ids_are_kept_and_a_second_import_takes_nothing_twice(on, filed, luke, mbox):
    on("import", "luke", "--uidl", mbox)
    assert ["old-1", "old-2"] == [uid for uid, _ in filed.mail["luke"]]

    outcome = on("import", "luke", "--uidl", mbox)

    assert (0, "0 messages taken, 2 there already, 0 not taken\n", "") == outcome
    assert 2 == len(filed.mail["luke"])


def test_what_is_not_taken_is_named_with_the_reason(on, filed, luke, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "1.eml").write_bytes(MESSAGE)
    (folder / "2.eml").write_bytes(b"\x1f\x8bpacked")
    (folder / "notes.txt").write_bytes(b"no mail")

    outcome = on("import", "luke", folder)

    assert os.EX_DATAERR == outcome.code
    assert "1 messages taken, 2 not taken\n" == outcome.out
    packed, notes = outcome.err.splitlines()
    assert f"not taken: {folder / '2.eml'}: packed or encrypted (gzip): unpack it first" == packed
    assert notes.startswith(f"not taken: {folder / 'notes.txt'}: ")


def test_an_import_for_nobody_is_67(on, luke, mbox):
    assert os.EX_NOUSER == on("import", "leia", mbox).code


def test_an_import_that_stops_says_how_far_it_came(on, mbox):
    on("user", "add", "full", stdin=b"hello\n")

    outcome = on("import", "full", mbox)

    assert os.EX_TEMPFAIL == outcome.code
    assert "the import stopped, 0 messages taken" in outcome.err


def test_a_path_that_is_not_there_is_a_wrong_argument(on, luke):
    assert 2 == on("import", "luke", "/nonexistent").code


# Telling


def test_plugins_are_listed_with_version_hooks_and_who_answers(on, filed):
    out = on("plugins").out

    line, hooks = out.splitlines()[:2]
    assert ["*", "store", "filed", "filed", "1.0"] == line.split()
    assert "get_user, " in hooks
    assert "get_user is asked of: filed." in out


def test_a_command_of_a_plugin_gets_the_app(on, luke):
    assert (0, "1 users\n", "") == on("filed-count")


def test_languages_are_listed_checked_and_begun(pop3hub, tmp_path):
    assert "nl " in pop3hub("languages", "list").out

    skeleton = pop3hub("languages", "new", "fy").out
    file = tmp_path / "fy.toml"
    file.write_text(skeleton.replace('name = ""', 'name = "Frysk"'))
    checked = pop3hub("languages", "check", file)
    assert 0 == checked.code
    assert "texts missing" in checked.out

    file.write_text('tag = "nl"\nname = "Frysk"\n')
    wrong = pop3hub("languages", "check", file, ROOT / "languages" / "nl.toml")
    assert 1 == wrong.code
    assert "must be named nl.toml" in wrong.err
    assert "nl.toml: good" in wrong.out

    assert 1 == pop3hub("languages", "new", "../x").code


def test_the_check_of_other_servers_is_a_command(pop3hub):
    assert 0 == pop3hub("check", "--list").code


def test_a_reader_that_takes_a_lone_cr_for_a_line_end_sees_one_reply(on, luke, filed):
    """Java's readLine does: a dot between two of them would end the reply (RFC 5321 s2.3.8)."""
    hostile = b"Subject: x\r\n\r\na\r.\r+OK 1 message\r.\rb"

    assert 0 == on("deliver", "luke", stdin=hostile).code
    assert 0 == on("deliver", "--no-mend", "luke", stdin=hostile).code

    mended, kept = (contents for _, contents in filed.mail["luke"][-2:])
    encoder = MessageEncoder()
    reply = encoder.feed(mended) + encoder.end()
    assert [b"."] == [line for line in re.split(rb"\r\n|\r|\n", reply) if line == b"."]
    assert reply.endswith(b"\r\n.\r\n")
    assert hostile + b"\r\n" == kept
