"""RFC 2449: CAPA in each state, what it announces, lengths, response codes, pipelining."""

import asyncio
import re

import pytest

from pop3hub.errors import AuthenticationFailed, LoginDelayed, PermanentFailure, TemporaryFailure
from pop3hub.hooks.specs import hookimpl
from pop3hub.i18n.catalogue import Catalogue
from pop3hub.peer import Peer, Tls
from pop3hub.server.server import PopServer
from pop3hub.session.commands import IMPLEMENTATION
from tests.support.serving import Store, new_user

AWAY = Peer("192.0.2.7", 40_000)
TLS = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384")
REGISTERED = {
    "TOP",
    "USER",
    "UIDL",
    "SASL",
    "RESP-CODES",
    "LOGIN-DELAY",
    "PIPELINING",
    "EXPIRE",
} | {*("IMPLEMENTATION", "STLS", "AUTH-RESP-CODE", "UTF8", "LANG")}
ALWAYS = {
    f"IMPLEMENTATION {IMPLEMENTATION}",
    *("LOGIN-DELAY 0", "UIDL", "UTF8 USER", "EXPIRE NEVER", "LANG", "TOP"),
    *("RESP-CODES", "AUTH-RESP-CODE", "PIPELINING"),
}
IN_CLEAR = "SASL SCRAM-SHA-256 SCRAM-SHA-1"
PROTECTED = "SASL PLAIN LOGIN SCRAM-SHA-256 SCRAM-SHA-1 OAUTHBEARER XOAUTH2"


async def capabilities(dialogue):
    """Return the lines of CAPA, having looked at their form."""
    first, *lines = (await dialogue.say("CAPA")).split(b"\r\n")
    assert (b"+OK capabilities follow.", [b".", b""]) == (first, lines[-2:])
    names = [line.decode("ascii") for line in lines[:-2]]
    assert len(names) == len({name.partition(" ")[0] for name in names})
    return set(names)


# s5, CAPA


async def test_capa_over_loopback(dialogue):
    assert ALWAYS | {"USER", PROTECTED} == await capabilities(dialogue)


async def test_capa_in_clear_offers_no_password_in_clear(open_dialogue):
    """RFC 5034 s4, RFC 2595 s2.3: what would be refused is not announced."""
    dialogue = await open_dialogue(peer=AWAY)

    assert ALWAYS | {IN_CLEAR} == await capabilities(dialogue)


async def test_capa_in_clear_without_a_mechanism_has_no_sasl_line(open_dialogue):
    dialogue = await open_dialogue(peer=AWAY, scram=False)

    assert await capabilities(dialogue) == ALWAYS


async def test_capa_offers_stls_where_it_can_be_had(open_dialogue):
    dialogue = await open_dialogue(peer=AWAY, starts_tls=True)

    assert ALWAYS | {IN_CLEAR, "STLS"} == await capabilities(dialogue)


async def test_capa_after_stls_offers_passwords_and_no_second_stls(open_dialogue):
    """RFC 2595 s4."""
    dialogue = await open_dialogue(peer=AWAY, starts_tls=True)
    await dialogue.say("STLS")

    assert ALWAYS | {"USER", PROTECTED} == await capabilities(dialogue)


async def test_capa_under_tls_from_the_beginning(open_dialogue):
    dialogue = await open_dialogue(peer=AWAY, tls=TLS)

    assert ALWAYS | {"USER", PROTECTED} == await capabilities(dialogue)


async def test_capa_after_the_login_lists_the_same_but_stls(open_dialogue):
    """RFC 5034 s3: SASL stays; RFC 2595 s8: STLS is of AUTHORIZATION."""
    dialogue = await open_dialogue(peer=AWAY, starts_tls=True, allow_plaintext=True)
    before = await capabilities(dialogue)
    await dialogue.login("luke", "hello")

    assert before - {"STLS"} == await capabilities(dialogue)


async def test_capa_with_every_policy(open_dialogue):
    dialogue = await open_dialogue(login_delay=900, expire=60, cram_md5=True, apop=True)

    expected = ALWAYS - {"LOGIN-DELAY 0", "EXPIRE NEVER"} | {
        *("USER", "LOGIN-DELAY 900", "EXPIRE 60", f"{PROTECTED} CRAM-MD5")
    }
    assert expected == await capabilities(dialogue)


async def test_only_registered_capabilities_are_announced(open_dialogue):
    """IANA's registry; there is no APOP and no CAPA in it."""
    dialogue = await open_dialogue(apop=True, starts_tls=True)

    names = {line.partition(" ")[0] for line in await capabilities(dialogue)}

    assert REGISTERED == names


async def test_a_capability_of_a_plugin_that_can_not_be_sent_is_left_out(open_dialogue):
    class Adds:
        @hookimpl
        def capabilities(self, session):
            good = [f"X-STATE {session.state.name}", "X-" + "a" * 508]
            return [*good, ".", ".X", "X-\r\nSTLS", "X-\u00e9", "X-" + "a" * 509, ""]

    server = PopServer(backend=Store(), plugins=[Adds()], listen=(), bcrypt_cost=4)
    async with server:
        dialogue = await open_dialogue(server)

        added = await capabilities(dialogue) - ALWAYS - {"USER", PROTECTED}

    assert {"X-STATE AUTHORIZATION", "X-" + "a" * 508} == added


# s4, lengths


async def test_a_reply_is_512_octets_at_most_in_every_language(open_dialogue, store):
    """s4; cut at a character's border, whatever a name is made of."""
    tags = [language.tag for language in Catalogue.load().languages]
    for name in ("n" * 240, "\u00e9" * 120, "\u65e5" * 80):
        dialogue = await open_dialogue()
        for tag in tags:
            assert len(await dialogue.say(f"LANG {tag}")) <= 512
            reply = await dialogue.say(f"USER {name}")
            assert reply.decode("utf-8").endswith("\r\n")
            assert len(reply) <= 512
        store.users[name] = new_user(name, "hello")
        store.mail[name] = {}
        reply = await dialogue.login(name, "hello")
        assert reply.startswith(b"+OK")
        assert len(reply) <= 512


@pytest.mark.parametrize("name", ["[::1]", "[AUTH] x", " [IN-USE]", "[", "<stamp@host>"])
async def test_no_text_begins_like_a_response_code(open_dialogue, store, name):
    """s3: with RESP-CODES announced, a text that begins with `[` is one."""
    dialogue = await open_dialogue()
    for language in Catalogue.load().languages:
        await dialogue.say(f"LANG {language.tag}")
        reply = await dialogue.say(f"USER {name}")
        assert not re.match(rb"(\+OK|-ERR) *\[", reply), reply


async def test_the_greeting_of_an_ipv6_client_begins_with_no_bracket(open_dialogue):
    dialogue = await open_dialogue(peer=Peer("::1", 50_000))

    assert b"+OK pop3hub at your service, IPv6 [::1]:50000\r\n" == dialogue.greeting


# s6.4, s8, RESP-CODES


async def test_in_use_means_that_the_password_was_right(open_dialogue, serve):
    """s8.1.2: it is never the answer to a wrong one."""
    server = await serve(listen=())
    first, second = await open_dialogue(server), await open_dialogue(server)
    await first.login("luke", "hello")

    assert b"-ERR [AUTH] " == (await second.login("luke", "wrong"))[:12]
    assert b"-ERR [IN-USE] " == (await second.login("luke", "hello"))[:14]


async def test_a_plugin_that_says_in_use_is_believed(dialogue, store):
    store.used = True

    expected = b"-ERR [IN-USE] this maildrop is in use by another session\r\n"
    assert expected == await dialogue.login("luke", "hello")


# s6.5, LOGIN-DELAY


async def test_a_login_too_soon_after_the_last_one_is_refused(open_dialogue, serve):
    server = await serve(listen=(), login_delay=60)
    first, second = await open_dialogue(server), await open_dialogue(server)
    await first.login("luke", "hello")
    await first.say("QUIT")

    expected = b"-ERR [LOGIN-DELAY] you logged in a short time ago, wait 60 seconds\r\n"
    assert expected == await second.login("luke", "hello")
    assert b"-ERR log in first\r\n" == await second.say("STAT")
    assert b"+OK" == (await second.login("user", "pencil"))[:3]


async def test_a_refused_login_does_not_begin_the_delay_anew(open_dialogue, serve, monkeypatch):
    """s6.5: so many seconds after a +OK; who asks every 50 seconds gets in at the second time."""
    now = [1000.0]
    monkeypatch.setattr("pop3hub.hooks.defaults.time.monotonic", lambda: now[0])
    server = await serve(listen=(), login_delay=60)
    replies = []
    for _ in range(4):
        dialogue = await open_dialogue(server)
        replies.append((await dialogue.login("luke", "hello"))[:18])
        await dialogue.hang_up()
        now[0] += 50

    assert [b"+OK pass accepted,", b"-ERR [LOGIN-DELAY]"] * 2 == replies


async def test_a_wrong_password_is_told_before_a_delay(open_dialogue, serve):
    server = await serve(listen=(), login_delay=60)
    first, second = await open_dialogue(server), await open_dialogue(server)
    await first.login("luke", "hello")
    await first.say("QUIT")

    assert b"-ERR [AUTH] " == (await second.login("luke", "wrong"))[:12]


def test_a_delay_of_less_than_a_second_is_told_as_one():
    assert 1 == LoginDelayed(0.01).fields["seconds"]


# s6.7, EXPIRE


class Expires(Store):
    """A store that notes how many days it was asked to keep messages."""

    @hookimpl
    async def expire_messages(self, user, days):
        self.calls.append(f"expire {user.name} {days}")
        return 0


@pytest.mark.parametrize(("days", "asked"), [(None, []), (0, []), (30, ["expire luke 30"])])
async def test_the_store_removes_what_is_too_old_before_it_is_listed(open_dialogue, days, asked):
    store = Expires()
    server = PopServer(backend=store, listen=(), expire=days, bcrypt_cost=4)
    async with server:
        dialogue = await open_dialogue(server)
        await dialogue.login("luke", "hello")

    assert ["get_user", "is_in_use", *asked, "receive_messages"] == store.calls


async def test_expire_0_removes_at_quit_what_was_retrieved_whole(open_maildrop, store):
    """s6.7, RFC 1939 s8: RETR counts as DELE there; TOP and LIST do not."""
    dialogue = await open_maildrop(b"a\n", b"b\n", b"c\n", b"d\n", expire=0)
    await dialogue.say("RETR 1")
    await dialogue.say("TOP 2 9")
    await dialogue.say("DELE 3")

    assert b"+OK 3 9\r\n" == await dialogue.say("STAT")
    assert b"+OK 3 octets\r\na\r\n.\r\n" == await dialogue.say("RETR 1")
    assert b"+OK pop3hub signing off.\r\n" == await dialogue.say("QUIT")
    assert {"uid-2": b"b\n", "uid-4": b"d\n"} == store.mail["luke"]


async def test_expire_0_keeps_what_was_retrieved_before_rset(open_maildrop, store):
    """RFC 1939 s5: RSET takes back every deletion, that of RETR too."""
    dialogue = await open_maildrop(b"a\n", b"b\n", expire=0)
    await dialogue.say("RETR 1")
    await dialogue.say("RSET")
    await dialogue.say("RETR 2")

    assert b"+OK pop3hub signing off.\r\n" == await dialogue.say("QUIT")
    assert {"uid-1": b"a\n"} == store.mail["luke"]


async def test_expire_0_removes_once_what_was_retrieved_and_deleted(open_maildrop, store):
    dialogue = await open_maildrop(b"a\n", b"b\n", expire=0)
    await dialogue.say("RETR 1")
    await dialogue.say("RETR 2")
    await dialogue.say("DELE 1")

    assert b"+OK pop3hub signing off.\r\n" == await dialogue.say("QUIT")
    assert {} == store.mail["luke"]
    assert 2 == dialogue.session.stats.deleted


async def test_expire_0_removes_nothing_when_the_connection_is_lost(open_maildrop, store):
    dialogue = await open_maildrop(b"a\n", expire=0)
    await dialogue.say("RETR 1")

    await dialogue.hang_up()

    assert {"uid-1": b"a\n"} == store.mail["luke"]


async def test_without_expire_a_retrieved_message_stays(open_maildrop, store):
    dialogue = await open_maildrop(b"a\n")
    await dialogue.say("RETR 1")

    await dialogue.say("QUIT")

    assert {"uid-1": b"a\n"} == store.mail["luke"]


# s6.6, PIPELINING


SESSION = (
    b"USER luke\r\nPASS hello\r\nSTAT\r\nLIST 1\r\nRETR 1\r\n"
    b"DELE 1\r\nSTAT\r\nRSET\r\nDELE 2\r\nQUIT\r\n"
)
ANSWERS = (
    b"+OK user 'luke' accepted, proceed with PASS\r\n"
    b"+OK pass accepted, welcome 'luke'.\r\n"
    b"+OK 2 6\r\n+OK 1 3\r\n+OK 3 octets\r\na\r\n.\r\n+OK message 1 deleted.\r\n+OK 1 3\r\n"
    b"+OK the maildrop has 2 messages (6 octets)\r\n+OK message 2 deleted.\r\n"
    b"+OK pop3hub signing off.\r\n"
)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_whole_session_in_one_segment_is_answered_in_order(serve, connect, store, streamed):
    store.put(b"a\n", b"b\n")
    store.chunk = 1 if streamed else None
    client = await connect(await serve())

    client.send(SESSION)

    assert ANSWERS == await client.rest()
    assert {"uid-1": b"a\n"} == store.mail["luke"]


async def test_a_session_with_bare_line_feeds_is_answered_with_crlf(serve, connect, store):
    """conformance.md 1.1: liberal in what is taken."""
    store.put(b"a\n", b"b\n")
    client = await connect(await serve())

    client.send(SESSION.replace(b"\r\n", b"\n"))

    assert ANSWERS == await client.rest()


async def test_what_a_client_sent_before_it_half_closed_is_answered(serve, connect, store):
    store.put(b"a\n", b"b\n")
    client = await connect(await serve())

    client.send(SESSION.removesuffix(b"QUIT\r\n"))
    client.writer.write_eof()

    assert ANSWERS.removesuffix(b"+OK pop3hub signing off.\r\n") == await client.rest()
    assert {"uid-1": b"a\n", "uid-2": b"b\n"} == store.mail["luke"]


async def test_ten_thousand_pipelined_commands_get_ten_thousand_answers(serve, connect):
    client = await connect(await serve())
    client.send(b"USER luke\r\nPASS hello\r\n" + b"NOOP\r\n" * 10_000 + b"QUIT\r\n")

    replies = (await client.rest()).splitlines()

    assert [b"+OK nothing done"] * 10_000 == replies[2:-1]


async def test_others_are_served_while_one_client_pipelines(serve, connect):
    server = await serve()
    busy, other = await connect(server), await connect(server)
    busy.send(b"CAPA\r\n" * 5000)

    assert b"+OK pop3hub signing off.\r\n" == await other.say(b"QUIT")
    assert 10_000 > (await asyncio.wait_for(busy.reader.read(100), 5)).count(b"\n")


# s8 again: what each failure of a login is called


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (TemporaryFailure(), b"-ERR [SYS/TEMP] temporary failure, try again later\r\n"),
        (PermanentFailure(), b"-ERR [SYS/PERM] this needs an administrator\r\n"),
        (OSError("gone"), b"-ERR [SYS/TEMP] temporary failure, try again later\r\n"),
        (AuthenticationFailed(), b"-ERR [AUTH] wrong user name or password\r\n"),
    ],
)
async def test_a_login_hears_what_its_user_look_up_came_to(dialogue, store, failure, expected):
    store.failures["get_user"] = failure

    assert expected == await dialogue.login("luke", "hello")
