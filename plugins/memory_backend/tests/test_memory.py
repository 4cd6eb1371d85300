"""The memory backend: the contract, and what is its own."""

from __future__ import annotations

import base64

import bcrypt
import pytest

from pop3hub.auth.scram import ScramKeys
from pop3hub.auth.users import PopUser
from pop3hub.errors import ConfigurationError
from pop3hub.server.server import PopServer
from pop3hub.testing import BackendContract, Dialogue
from pop3hub_memory import MemoryBackend


class TestContract(BackendContract):
    @pytest.fixture
    def backend(self):
        return MemoryBackend()


def dialogue(**options) -> Dialogue:
    return Dialogue(MemoryBackend(), options=options, bcrypt_cost=4)


async def start(**options) -> MemoryBackend:
    backend = MemoryBackend()
    backend.configure(options)
    await backend.startup(None)
    return backend


@pytest.fixture
def mail(tmp_path):
    (tmp_path / "mail" / "luke").mkdir(parents=True)
    (tmp_path / "mail" / "luke" / "1.eml").write_bytes(b"Subject: hi\n\nHello world!\n..\n")
    (tmp_path / "mail" / "luke" / "2.eml").write_bytes(b"Subject: hi\r\n\r\n")
    (tmp_path / "mail" / "luke" / "3.eml").write_bytes(b"Subject: hi\r\n\r\n")
    return tmp_path / "mail"


async def test_users_and_mail_come_from_options(mail):
    async with dialogue(memory_user=["luke:hello"], memory_mail=mail) as luke:
        assert (await luke.login("luke", "hello")).startswith(b"+OK")
        assert b"+OK 3 63\r\n" == await luke.say("STAT")
        assert b"+OK 33 octets\r\nSubject: hi\r\n\r\nHello world!\r\n...\r\n.\r\n" == (
            await luke.say("RETR 1")
        )


@pytest.mark.parametrize(
    ("password", "offered"),
    [("hello", True), (bcrypt.hashpw(b"hello", bcrypt.gensalt(4)).decode(), False)],
)
async def test_scram_is_offered_where_every_user_can_log_in_by_it(password, offered):
    users = ["luke:hello", f"leia:{password}"]
    async with dialogue(memory_user=users) as luke:
        assert offered == (b"SCRAM-SHA-256" in await luke.say("CAPA"))


async def test_files_are_never_changed(mail):
    before = {path: path.read_bytes() for path in mail.rglob("*.eml")}
    async with dialogue(memory_user=["luke:hello"], memory_mail=mail) as luke:
        await luke.login("luke", "hello")
        await luke.say("DELE 1")
        assert (await luke.say("QUIT")).startswith(b"+OK")
        async with Dialogue(luke.server) as again:
            await again.login("luke", "hello")
            assert b"+OK 2 30\r\n" == await again.say("STAT")

    assert before == {path: path.read_bytes() for path in mail.rglob("*.eml")}


async def test_unique_ids_are_the_same_after_a_restart_and_differ_for_equal_messages(mail):
    user = PopUser("luke")
    first, second = [
        [message.uid for message in (await start(memory_mail=mail)).receive_messages(user)]
        for _ in range(2)
    ]

    assert first == second
    assert 3 == len(set(first))


async def test_a_maildrop_may_be_a_maildir_that_dovecot_served(tmp_path):
    for name in ("cur", "new", "tmp"):
        (tmp_path / "luke" / name).mkdir(parents=True)
    (tmp_path / "luke" / "new" / "1.M1P1.host").write_bytes(b"Subject: 1\n\n")
    (tmp_path / "luke" / "dovecot-uidlist").write_text("3 V1795414657 N2\n1 :1.M1P1.host\n")

    backend = await start(memory_mail=str(tmp_path))

    assert ["000000016b03da81"] == [m.uid for m in backend.receive_messages(PopUser("luke"))]


async def test_short_messages_are_known_to_be_ready(tmp_path):
    (tmp_path / "luke").mkdir()
    for number, contents in enumerate((b"a\n\nb\n", b"a\n\n.b\n", b"a: \xff\n\nb\n")):
        (tmp_path / "luke" / f"{number}.eml").write_bytes(contents)

    messages = (await start(memory_mail=tmp_path)).receive_messages(PopUser("luke"))

    assert [True, False, True] == [message.wire_ready for message in messages]
    assert [8, 9, None] == [message.ascii_size for message in messages]


@pytest.mark.parametrize(
    ("given", "typed"),
    [
        ("pass word", "pass word"),
        (" x ", " x "),
        ("a:b", "a:b"),
        ("I\u00adX", "IX"),
        ("é", "e\u0301"),
    ],
)
async def test_a_clear_password_fits_as_given_and_as_saslprep_makes_it(given, typed):
    async with dialogue(memory_user=[f"luke:{given}"]) as luke:
        assert (await luke.login("luke", typed + "x")).startswith(b"-ERR [AUTH]")
        assert (await luke.login("luke", typed)).startswith(b"+OK")


async def test_a_users_file_holds_clear_passwords_and_hashes(tmp_path):
    hashed = bcrypt.hashpw(b"organa", bcrypt.gensalt(4)).decode()
    (tmp_path / "users").write_text(f"# people\n\nluke:$2ecret\nleia:{hashed}\n")
    for name, password in (("luke", "$2ecret"), ("leia", "organa"), ("LEIA", "organa")):
        async with dialogue(memory_users=tmp_path / "users") as user:
            assert (await user.login(name, password)).startswith(b"+OK")


async def test_a_hash_is_no_password():
    hashed = bcrypt.hashpw(b"organa", bcrypt.gensalt(4)).decode()
    async with dialogue(memory_user=[f"leia:{hashed}"]) as leia:
        assert (await leia.login("leia", hashed)).startswith(b"-ERR [AUTH]")


async def test_clear_passwords_serve_apop_and_scram():
    backend = await start(memory_user=["luke:hello"])
    user = backend.get_user("luke")

    assert user is not None
    assert "hello" == user.secret
    assert {"SCRAM-SHA-1", "SCRAM-SHA-256"} == set(user.scram)
    keys = ScramKeys.parse(user.scram["SCRAM-SHA-256"], "SCRAM-SHA-256")
    assert user.scram["SCRAM-SHA-256"] == str(keys)
    assert user.scram.get("SCRAM-MD5") is None
    assert "hello" not in repr(user)


async def test_auth_plain_logs_in():
    async with dialogue(memory_user=["luke:hello"]) as luke:
        response = base64.b64encode(b"\0luke\0hello").decode()
        assert (await luke.say(f"AUTH PLAIN {response}")).startswith(b"+OK")


async def test_users_of_other_plugins_are_left_to_them():
    backend = await start(memory_user=["luke:hello"])

    assert backend.compare_password("hello", "hello", PopUser("luke", "hello")) is None


async def test_its_state_is_known_to_be_of_one_process():
    assert not PopServer(backend=MemoryBackend(), listen=()).plugins.shared_state


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"memory_user": ["luke"]}, "--memory-user: NAME:PASSWORD is wanted, there is no colon"),
        ({"memory_user": ["luke:"]}, "--memory-user: user 'luke' has no password"),
        ({"memory_user": [":x"]}, "--memory-user: '' can't be a user's name"),
        ({"memory_user": ["../luke:x"]}, "--memory-user: '../luke' can't be a user's name"),
        ({"memory_user": ["luke:x", "Luke:y"]}, "two users are named 'Luke'"),
        ({"memory_mail": "/nowhere"}, "--memory-mail /nowhere: there is no such folder"),
        ({"memory_users": "/nowhere"}, "--memory-users /nowhere: No such file or directory"),
    ],
)
async def test_what_cant_work_stops_the_start_with_one_line(options, problem):
    with pytest.raises(ConfigurationError) as raised:
        await start(**options)

    assert str(raised.value).startswith(problem)
    assert "\n" not in str(raised.value)


async def test_what_cant_be_read_stops_the_start(mail):
    (mail / "leia").symlink_to("/proc/self/mem")  # Linux refuses to read its beginning

    with pytest.raises(ConfigurationError, match=r"leia: Input/output error"):
        await start(memory_mail=mail)


async def test_a_broken_line_of_the_users_file_is_told_without_its_password(tmp_path):
    (tmp_path / "users").write_text("luke:hello\n.secret:hidden\n")

    with pytest.raises(ConfigurationError) as raised:
        await start(memory_users=tmp_path / "users")

    assert f"{tmp_path}/users, line 2: '.secret'" in str(raised.value)
    assert "hidden" not in str(raised.value)
