"""RFC 3206: [AUTH] for failures of credentials and nothing else, [SYS/...] for what is ours."""

import base64

import pytest

from pop3hub.auth.users import PopUser
from pop3hub.errors import PermanentFailure, TemporaryFailure
from pop3hub.peer import Peer
from pop3hub.settings import Limits
from tests.support.serving import LUKE, Gate

WRONG = b"-ERR [AUTH] wrong user name or password\r\n"
TEMP = b"-ERR [SYS/TEMP] temporary failure, try again later\r\n"
PERM = b"-ERR [SYS/PERM] this needs an administrator\r\n"


def plain(name, password):
    return "AUTH PLAIN " + base64.b64encode(f"\0{name}\0{password}".encode()).decode()


LOGINS = {
    "USER": lambda dialogue, password: dialogue.login("luke", password),
    "PLAIN": lambda dialogue, password: dialogue.say(plain("luke", password)),
    "APOP": lambda dialogue, password: dialogue.say(f"APOP luke {'0' * 32}{password}"),
}


async def test_auth_resp_code_is_announced(dialogue):
    """s6."""
    assert b"\r\nAUTH-RESP-CODE\r\n" in await dialogue.say("CAPA")


@pytest.mark.parametrize("how", LOGINS)
async def test_wrong_credentials_are_auth(open_dialogue, how):
    """s5."""
    dialogue = await open_dialogue(apop=True)

    assert WRONG == await LOGINS[how](dialogue, "wrong")


@pytest.mark.parametrize("how", ["USER", "PLAIN"])
@pytest.mark.parametrize("hook", ["get_user", "receive_messages", "is_in_use"])
@pytest.mark.parametrize("failure", [TemporaryFailure(), PermanentFailure(), ValueError("defect")])
async def test_a_store_that_fails_at_login_is_never_auth(dialogue, store, how, hook, failure):
    """s4; after [AUTH] clients ask for the password anew, or forget it."""
    store.failures[hook] = failure

    expected = PERM if isinstance(failure, PermanentFailure) else TEMP
    assert expected == await LOGINS[how](dialogue, "hello")
    store.failures.clear()
    assert b"+OK" == (await LOGINS[how](dialogue, "hello"))[:3]


async def test_a_store_that_fails_is_no_failed_login(open_dialogue, store):
    """It counts against nobody: the connection stays open."""
    dialogue = await open_dialogue()
    store.failures["get_user"] = TemporaryFailure()

    assert [TEMP] * 9 == [await dialogue.login("luke", "hello") for _ in range(9)]


async def test_a_store_that_hangs_is_a_temporary_failure(open_dialogue, store):
    store.gates["get_user"] = Gate()
    dialogue = await open_dialogue(limits=Limits(hook=0.02))

    assert TEMP == await dialogue.login("luke", "hello")


@pytest.mark.parametrize("stored", [None, "", "plain text", "$2b$04$short", LUKE.password[:-1]])
async def test_a_user_without_a_password_that_can_be_read_fails_like_anybody(
    dialogue, store, stored
):
    store.users["luke"] = PopUser("luke", stored)

    assert WRONG == await dialogue.login("luke", "hello")
    assert WRONG == await dialogue.login("luke", "plain text")


async def test_a_maildrop_that_nobody_serves_is_permanent(open_dialogue, store):
    store.serves = False
    dialogue = await open_dialogue()

    reply = await dialogue.login("luke", "hello")

    expected = b"the maildrop can't be listed, an administrator must repair it\r\n"
    assert b"-ERR [SYS/PERM] " + expected == reply


@pytest.mark.parametrize(
    "line",
    [
        *("FOO", "PASS x", "USER", "AUTH NONE", "AUTH PLAIN !", "AUTH PLAIN AAA=BBB"),
        *("STAT", "LANG xx-unknown", "APOP a b", "STLS"),
    ],
)
async def test_what_has_nothing_to_do_with_credentials_has_no_code(dialogue, line):
    reply = await dialogue.say(line)

    assert b"-ERR " == reply[:5]
    assert b"[" not in reply


async def test_passwords_in_clear_are_refused_without_a_look_at_them(open_dialogue, store):
    """RFC 8314 s4.1: the answer must not depend on whether the password was right."""
    dialogue = await open_dialogue(peer=Peer("192.0.2.7", 4000), starts_tls=True)
    expected = b"-ERR logging in with a clear-text password needs TLS here\r\n"

    for line in (
        "USER luke",
        plain("luke", "hello"),
        plain("luke", "x"),
        "AUTH LOGIN",
        "AUTH PLAIN",
    ):
        assert expected == await dialogue.say(line)
    assert b"-ERR PASS must follow USER\r\n" == await dialogue.say("PASS hello")
    assert [] == store.calls
