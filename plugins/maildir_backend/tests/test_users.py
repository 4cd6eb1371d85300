"""Users from a passwd file or another plugin, their Maildirs, and settings that can't work."""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading

import pytest

from pop3hub.auth.users import PopUser
from pop3hub.errors import ConfigurationError, NoSuchUser, TemporaryFailure
from pop3hub.hooks.specs import hookimpl
from pop3hub.server.server import PopServer
from pop3hub.testing import Dialogue
from pop3hub_maildir import MaildirBackend

BCRYPT = "$2y$04$ven61mBYYusFPH26CvnnAuuQrEAjCX5WSUvGMSUX10NjwfvnnCjUK"  # of "U*U", by doveadm pw


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
        # macOS types and writes letters and accents apart (NFD); no form is another password.
        ("luke:{PLAIN}Gr\u00fc\u00dfe", "Gru\u0308\u00dfe", b"+OK"),
        ("luke:{PLAIN}Gru\u0308\u00dfe", "Gr\u00fc\u00dfe", b"+OK"),
        ("luke:{PLAIN}\ufb01sh", "fish", b"+OK"),
        ("luke:{PLAIN}fish", "\uff46ish", b"+OK"),
        ("luke:{PLAIN}\u1100\u1161", "\uac00", b"+OK"),
        ("luke:{PLAIN}Gr\u00fc\u00dfe", "Gru\u00dfe", b"-ERR [AUTH]"),
        ("luke:{PLAIN}x\ue000", "x\ue000", b"+OK"),
    ],
)
async def test_passwords_of_a_dovecot_passwd_file(server, mailbox, line, password, answer):
    mailbox.passwd.write_text(f"# users\n\nother:{{PLAIN}}x\n{line}\n")

    async with Dialogue(server) as dialogue:
        assert (await dialogue.login("luke", password)).startswith(answer)


@pytest.mark.parametrize(
    ("password", "offered"), [("{PLAIN}hello", True), (BCRYPT, False), ("{SHA256}x", False)]
)
async def test_scram_is_offered_where_every_user_can_log_in_by_it(mailbox, password, offered):
    mailbox.passwd.write_text(f"luke:{{PLAIN}}hello\nleia:{password}\n")
    async with mailbox.serve() as server, Dialogue(server) as dialogue:
        assert offered == (b"SCRAM-SHA-256" in await dialogue.say("CAPA"))


async def scram_log_in(dialogue, mechanism, name, password) -> tuple[bytes, str]:
    """Return the last answer, and the salt and the rounds that the server told."""
    digest = mechanism.removeprefix("SCRAM-").replace("-", "").lower()
    bare = f"n={name},r=nonce"
    first = base64.b64encode(f"n,,{bare}".encode()).decode()
    challenge = base64.b64decode((await dialogue.say(f"AUTH {mechanism} {first}"))[2:]).decode()
    nonce, salt, rounds = (part[2:] for part in challenge.split(","))
    salted = hashlib.pbkdf2_hmac(digest, password.encode(), base64.b64decode(salt), int(rounds))
    key = hmac.digest(salted, b"Client Key", digest)
    final = f"c=biws,r={nonce}"
    signed = f"{bare},{challenge},{final}".encode()
    signature = hmac.digest(hashlib.new(digest, key).digest(), signed, digest)
    proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode()
    answer = await dialogue.say(base64.b64encode(f"{final},p={proof}".encode()).decode())
    if answer.startswith(b"+ "):
        answer = await dialogue.say("")
    return answer, f"{salt} {rounds}"


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "SCRAM-SHA-256"])
async def test_users_in_the_clear_log_in_by_scram_with_the_same_salt_everywhere(mailbox, mechanism):
    mailbox.passwd.write_text("luke:{PLAIN}hello\n")
    told = set()
    for _ in range(2):
        async with mailbox.serve() as server:
            for password, answer in (("hello", b"+OK"), ("other", b"-ERR [AUTH]")):
                async with Dialogue(server) as dialogue:
                    said, salt = await scram_log_in(dialogue, mechanism, "luke", password)
                    assert said.startswith(answer)
                    told.add(salt)
            async with Dialogue(server) as dialogue:
                said, stranger = await scram_log_in(dialogue, mechanism, "nobody", "hello")
                assert said.startswith(b"-ERR [AUTH]")

    assert 1 == len(told)
    assert stranger.split()[1] == told.pop().split()[1]


async def test_the_passwd_file_is_read_again_when_it_has_changed(server, mailbox):
    async with Dialogue(server) as dialogue:
        assert (await dialogue.login("luke", "hello")).startswith(b"+OK")
    new = mailbox.passwd.with_suffix(".new")
    new.write_text("luke:{PLAIN}other\n")
    new.rename(mailbox.passwd)

    async with Dialogue(server) as dialogue:
        assert (await dialogue.login("luke", "hello")).startswith(b"-ERR [AUTH]")
        assert (await dialogue.login("luke", "other")).startswith(b"+OK")


async def test_a_passwd_file_that_is_gone_for_a_moment_locks_nobody_out(server, mailbox):
    mailbox.passwd.unlink()

    async with Dialogue(server) as dialogue:
        assert (await dialogue.login("luke", "hello")).startswith(b"+OK")


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
    async with mailbox.serve() as server:
        await server.store.store_message("luke@x@example.org", b"Subject: x\n\n")
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
    async with mailbox.serve(plugins=[Directory()]) as server, Dialogue(server) as dialogue:
        await dialogue.login("luke", "hello")
        assert b"+OK 1 1.M1P1.host\r\n" == await dialogue.say("UIDL 1")


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
    async with mailbox.serve() as server:
        await server.plugins.ready()
        (tmp_path / "mail").rename(tmp_path / "away")
        with pytest.raises(TemporaryFailure):
            await server.plugins.ready()


@pytest.mark.parametrize("option", ["maildir_passwd", "maildir_path"])
async def test_a_start_that_fails_leaves_no_thread(mailbox, option):
    mailbox.options[option] = "/nowhere/{user}"
    with pytest.raises(ConfigurationError):
        await mailbox.serve().start()

    assert not [each for each in threading.enumerate() if each.name == "pop3hub-maildir"]
