"""RFC 6856: UTF8 and LANG; what a client without UTF8 is sent (RFC 6858)."""

import re

import pytest

from pop3hub.hooks.specs import hookimpl
from pop3hub.i18n.catalogue import Catalogue
from pop3hub.peer import Peer
from pop3hub.protocol.downgrade import Downgrader
from pop3hub.protocol.message import wire_form
from pop3hub.server.server import PopServer
from pop3hub.session.retrieval import MEASURED, SLICE
from tests.support.serving import Store, new_user

NEEDS = (
    "From: J\u00f6 <j\u00f6@example.com>\nSubject: gr\u00fc\u00df\nX-Note: \u00fc\n\n\u00fc.\n"
).encode()
LEGACY = b"Subject: gr\xfc\xdf\n\nbody\n"
EIGHT_BIT = "Subject: plain\n\n\u00fc\n.\n".encode()
REFUSED = b"-ERR [UTF8] message 1 needs UTF8, which must be asked for before the login\r\n"


def body_of(reply):
    """Return the status line of a multi-line reply, and the message without its stuffing."""
    status, rest = reply.split(b"\r\n", 1)
    lines = rest.removesuffix(b".\r\n").split(b"\r\n")
    return status, b"\r\n".join(line.removeprefix(b".") for line in lines)


def octets_of(reply):
    return int(re.match(rb"\+OK (?:1 )?([0-9]+)", reply)[1])


# s2, UTF8


async def test_utf8_is_announced_for_user_names_too(dialogue):
    """s2: `UTF8 USER`."""
    assert b"\r\nUTF8 USER\r\n" in await dialogue.say("CAPA")


async def test_utf8_may_be_said_twice(dialogue):
    assert b"+OK UTF-8 enabled\r\n" == await dialogue.say("UTF8")
    assert b"+OK UTF-8 enabled\r\n" == await dialogue.say("UTF8")


async def test_utf8_after_the_login_is_refused(open_maildrop):
    """s2.1."""
    dialogue = await open_maildrop()

    assert b"-ERR not after the login\r\n" == await dialogue.say("UTF8")


async def test_stls_after_utf8_is_refused(open_dialogue):
    """s2.1: clients must not, servers may reject without a code."""
    dialogue = await open_dialogue(starts_tls=True)
    await dialogue.say("UTF8")

    assert b"-ERR STLS must come before UTF8\r\n" == await dialogue.say("STLS")


@pytest.mark.parametrize("first", ["UTF8", None])
@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("j\u00f6rg", "j\u00f6rg"),
        ("j\u00f6rg", "jo\u0308rg"),
        ("\u65e5\u672c", "\u65e5\u672c"),
        ("ix", "\u2168"),
    ],
)
async def test_names_in_utf8_are_taken_and_prepared(dialogue, store, first, name, typed):
    """s2.2: also before UTF8, and in every normal form."""
    store.users[name.lower()] = store.users[name] = new_user(name, "gr\u00fc\u00df")
    store.users["IX"] = store.users[name]
    store.mail[name] = {}
    if first:
        await dialogue.say(first)

    assert b"+OK pass accepted" == (await dialogue.login(typed, "gru\u0308\u00df"))[:17]


@pytest.mark.parametrize("command", [b"USER ", b"PASS "])
@pytest.mark.parametrize(
    "octets", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe9t\xe9", b"\xc3"]
)
async def test_malformed_utf8_is_refused(dialogue, command, octets):
    """s2.2: overlong forms, surrogates, what is beyond U+10FFFF, cut characters."""
    await dialogue.say("USER luke")

    assert b"-ERR text must be valid UTF-8\r\n" == await dialogue.say(command + octets)


@pytest.mark.parametrize("name", ["a\u200eb", "a\u2028b", "a\ufffdb", "\ue000"])
async def test_names_that_saslprep_prohibits_are_failed_logins(dialogue, name):
    """RFC 4013 s2.3."""
    assert b"-ERR [AUTH] wrong user name or password\r\n" == await dialogue.login(name, "hello")


# s2.1, messages


@pytest.mark.parametrize("chunk", [None, 1, 1000])
@pytest.mark.parametrize("contents", [NEEDS, LEGACY, EIGHT_BIT])
async def test_a_session_in_utf8_is_sent_what_is_stored(open_maildrop, store, chunk, contents):
    store.chunk = chunk
    dialogue = await open_maildrop(contents, utf8=True)

    size = octets_of(await dialogue.say("LIST 1"))
    status, message = body_of(await dialogue.say("RETR 1"))

    assert (b"+OK %d octets" % size, wire_form(contents)) == (status, message)
    assert len(message) == size


@pytest.mark.parametrize("chunk", [None, 1, 1000])
async def test_a_session_without_utf8_is_sent_a_surrogate(open_maildrop, store, chunk):
    """RFC 6858 s2.1: address, subject, and the field that has to go; the body stays."""
    store.chunk = chunk
    dialogue = await open_maildrop(NEEDS)
    await dialogue.say("STAT")

    status, message = body_of(await dialogue.say("RETR 1"))

    header, body = message.split(b"\r\n\r\n", 1)
    names = [line.partition(b":")[0] for line in header.split(b"\r\n") if line[:1] != b" "]
    assert [b"From", b"Subject"] == names
    assert b"<invalid@internationalized-address.invalid>" in header
    assert header.isascii()
    assert "\u00fc.\r\n".encode() == body
    assert b"+OK %d octets" % len(message) == status


@pytest.mark.parametrize("chunk", [None, 1000])
@pytest.mark.parametrize("first", ["STAT", "RETR 1", "TOP 1 0"])
async def test_a_surrogate_as_long_as_its_message_is_sent_each_time(
    open_dialogue, serve, store, chunk, first
):
    """A size alone can't say that there is none: not to this session, and not to the next."""
    longer, shorter = "Subject: \u00fc\n", "X-Note: \u00fc{}\n"
    more = len(shown(longer)) - len(wire_form(longer.encode()))
    less = len(wire_form(shorter.encode())) - len(shown(shorter)) - len("{}")
    contents = (longer + shorter.format("x" * (more - less)) + "\nbody\n").encode()
    assert len(wire_form(contents)) == len(shown(contents.decode()))
    store.chunk = chunk
    store.put(contents)
    server = await serve(listen=())

    for _ in range(2):
        dialogue = await open_dialogue(server)
        await dialogue.login("luke", "hello")
        for line in (first, "RETR 1", "RETR 1"):
            assert (await dialogue.say(line)).isascii()
        await dialogue.say("QUIT")


def shown(text):
    """Return the surrogate of a message."""
    downgrader = Downgrader()
    return wire_form(downgrader.feed(text.encode()) + downgrader.end())


@pytest.mark.parametrize("chunk", [None, 1, 1000])
@pytest.mark.parametrize("contents", [NEEDS, LEGACY, EIGHT_BIT, b"a: b\n\nc", NEEDS + b"x" * 99])
@pytest.mark.parametrize("first", ["LIST 1", "RETR 1"])
async def test_the_size_of_list_is_that_of_retr_in_both_modes(
    open_dialogue, store, chunk, contents, first
):
    """s2.1."""
    store.chunk = chunk
    store.put(contents)
    for mode in ("NOOP", "UTF8"):
        dialogue = await open_dialogue()
        await dialogue.say(mode)
        await dialogue.login("luke", "hello")
        await check_sizes(dialogue, first)


async def check_sizes(dialogue, first):
    replies = {line: await dialogue.say(line) for line in (first, "LIST 1", "RETR 1")}

    assert octets_of(replies["LIST 1"]) == len(body_of(replies["RETR 1"])[1])
    assert b"+OK 1 %d\r\n" % octets_of(replies["LIST 1"]) == await dialogue.say("STAT")
    listing = await dialogue.say("LIST")
    assert b"\r\n1 %d\r\n.\r\n" % octets_of(replies["LIST 1"]) == listing[listing.index(b"\r") :]


@pytest.mark.parametrize("contents", [LEGACY, EIGHT_BIT])
async def test_what_only_an_old_charset_or_an_8_bit_body_holds_is_sent_as_it_is(
    open_maildrop, contents
):
    """conformance.md 10: as every POP3 server did since 8BITMIME."""
    dialogue = await open_maildrop(contents)

    assert wire_form(contents) == body_of(await dialogue.say("RETR 1"))[1]


async def test_the_lines_of_top_are_those_of_the_surrogate(open_maildrop):
    """RFC 6858 s4."""
    dialogue = await open_maildrop(NEEDS + b"2\n3\n")

    whole = body_of(await dialogue.say("RETR 1"))[1]
    top = body_of(await dialogue.say("TOP 1 1"))[1]

    assert whole.removesuffix(b"2\r\n3\r\n") == top
    assert body_of(await dialogue.say("TOP 1 99999999"))[1] == whole


@pytest.mark.parametrize("chunk", [None, 7])
async def test_reject_refuses_retr_and_top_with_its_code(open_maildrop, store, chunk):
    """s5: [UTF8]."""
    store.chunk = chunk
    dialogue = await open_maildrop(NEEDS, EIGHT_BIT, internationalized="reject")

    assert REFUSED == await dialogue.say("RETR 1")
    assert REFUSED == await dialogue.say("TOP 1 0")
    assert wire_form(EIGHT_BIT) == body_of(await dialogue.say("RETR 2"))[1]


async def test_reject_never_fails_the_whole_listing(open_maildrop):
    """conformance.md 10."""
    dialogue = await open_maildrop(NEEDS, b"a\n", internationalized="reject")
    size = len(wire_form(NEEDS))

    assert b"+OK 2 %d\r\n" % (size + 3) == await dialogue.say("STAT")
    expected = b"+OK 2 messages (%d octets)\r\n1 %d\r\n2 3\r\n.\r\n" % (size + 3, size)
    assert expected == await dialogue.say("LIST")


async def test_reject_sends_all_to_a_session_in_utf8(open_maildrop):
    dialogue = await open_maildrop(NEEDS, utf8=True, internationalized="reject")

    assert wire_form(NEEDS) == body_of(await dialogue.say("RETR 1"))[1]


@pytest.mark.parametrize("chunk", [None, 7])
async def test_raw_sends_what_is_stored_to_all(open_maildrop, store, chunk):
    """What Dovecot, Cyrus and Courier do; off the standard."""
    store.chunk = chunk
    dialogue = await open_maildrop(NEEDS, internationalized="raw")

    assert wire_form(NEEDS) == body_of(await dialogue.say("RETR 1"))[1]
    assert b"+OK 1 %d\r\n" % len(wire_form(NEEDS)) == await dialogue.say("LIST 1")


async def test_a_message_that_can_not_be_read_hides_no_other_from_the_listing(open_maildrop, store):
    """Sizes are looked for in the contents; the client must be able to go on without one."""
    store.chunk = 5
    store.broken["uid-1"] = 5
    dialogue = await open_maildrop(b"a: b\n\nc\n", b"d\n")

    assert b"+OK 2 14\r\n" == await dialogue.say("STAT")
    assert b"+OK 2 messages (14 octets)\r\n1 11\r\n2 3\r\n.\r\n" == await dialogue.say("LIST")
    assert b"+OK 3 octets\r\nd\r\n.\r\n" == await dialogue.say("RETR 2")


@pytest.mark.parametrize("line", ["STAT", "LIST"])
@pytest.mark.parametrize(("over", "reads"), [(0, 2), (1, 0)])
async def test_sizes_are_not_looked_for_in_more_than_a_bound(
    open_maildrop, store, line, over, reads
):
    """STAT must not read a whole mailbox."""
    store.chunk = SLICE
    dialogue = await open_maildrop(b"a\n" * 8, b"b\n" * 8)
    maildrop = dialogue.session.maildrop
    maildrop[1].size = MEASURED - maildrop[2].size + over

    assert (await dialogue.say(line)).startswith(b"+OK 2 ")
    assert reads == store.calls.count("load_contents")


async def test_dele_after_a_surrogate_removes_the_message(open_maildrop, store):
    dialogue = await open_maildrop(NEEDS, b"a\n")
    await dialogue.say("LIST")
    await dialogue.say("DELE 1")

    assert b"+OK 1 3\r\n" == await dialogue.say("STAT")
    await dialogue.say("QUIT")
    assert {"uid-2": b"a\n"} == store.mail["luke"]


# s3, LANG


async def test_lang_alone_lists_tags_with_their_own_names(dialogue):
    """s3.2: in UTF-8, whatever was said before."""
    languages = Catalogue.load().languages
    lines = "".join(f"{language.tag} {language.name}\r\n" for language in languages)

    assert f"+OK languages follow\r\n{lines}.\r\n".encode() == await dialogue.say("LANG")
    assert {"en English", "nl Nederlands"} < {f"{each.tag} {each.name}" for each in languages}


@pytest.mark.parametrize("language_range", ["nl", "NL", "nl-BE", "nl-Latn-BE", "nL-x-y"])
async def test_lang_answers_the_exact_tag_and_a_text_in_the_new_language(dialogue, language_range):
    """s3; RFC 4647: any case, and a longer range finds what it begins with."""
    dutch = Catalogue.load().find("nl").text("language-changed", ascii=False, tag="nl")

    assert b"+OK nl " + dutch + b"\r\n" == await dialogue.say(f"LANG {language_range}")


async def test_lang_changes_every_text_after_it_and_no_figure(open_maildrop):
    dialogue = await open_maildrop(b"a\n")
    dutch = Catalogue.load().find("nl").text
    await dialogue.say("LANG nl")

    def said(text_id, **fields):
        return dutch(text_id, ascii=False, **fields)

    assert b"+OK 1 3\r\n" == await dialogue.say("STAT")
    assert b"-ERR " + said("unknown-command") + b"\r\n" == await dialogue.say("FOO")
    follow = said("unique-ids-follow")
    assert b"+OK " + follow + b"\r\n1 uid-1\r\n.\r\n" == await dialogue.say("UIDL")
    goodbye = said("signing-off", name="pop3hub")
    assert b"+OK " + goodbye + b"\r\n" == await dialogue.say("QUIT")


@pytest.mark.parametrize(
    "language_range", ["MUL", "xx", "en_US", "-", "e", "\u00e9", "en--", "i-x" * 40]
)
async def test_an_unknown_language_is_refused_in_the_old_one(dialogue, language_range):
    """s3: the -ERR is in the language that stays."""
    await dialogue.say("LANG nl")
    refusal = Catalogue.load().find("nl").text("language-unknown", ascii=False)

    assert b"-ERR " + refusal + b"\r\n" == await dialogue.say(f"LANG {language_range}")


async def test_lang_star_is_what_the_administrator_prefers(open_dialogue):
    dialogue = await open_dialogue(default_language="nl")
    await dialogue.say("LANG en")

    reply = await dialogue.say("LANG *")

    assert b"+OK nl " == reply[:7]


async def test_lang_star_may_depend_on_the_user_after_the_login(open_dialogue, store):
    """s3; and never before it: nobody shall learn who exists (s7)."""

    class Prefers:
        @hookimpl
        def default_language(self, session):
            return "nl" if session.user else None

    server = PopServer(backend=store, plugins=[Prefers()], listen=(), bcrypt_cost=4)
    async with server:
        dialogue = await open_dialogue(server)
        await dialogue.say("USER luke")
        before = await dialogue.say("LANG *")
        await dialogue.say("PASS hello")

        assert b"+OK en " == before[:7]
        assert b"+OK nl " == (await dialogue.say("LANG *"))[:7]


async def test_stls_forgets_the_language(open_dialogue):
    """What a man in the middle has chosen counts no more."""
    dialogue = await open_dialogue(starts_tls=True, peer=Peer("192.0.2.7", 4000))
    await dialogue.say("LANG nl")
    await dialogue.say("STLS")

    assert b"-ERR unknown command\r\n" == await dialogue.say("FOO")


@pytest.mark.parametrize("language", [each.tag for each in Catalogue.load().languages])
async def test_a_session_is_ascii_before_lang_and_utf8(open_maildrop, language):
    """RFC 1939 s3, conformance.md 10: greeting, errors, echoed names, in each default language."""
    dialogue = await open_maildrop(b"a\n", default_language=language)

    lines = ("FOO", "STAT 1", "RETR 2", "LIST", "UIDL", "CAPA", "DELE 1", "RSET", "QUIT")
    said = [dialogue.greeting, *[await dialogue.say(line) for line in lines]]

    assert [] == [reply for reply in said if not reply.isascii()]


async def test_an_echoed_name_is_ascii_before_lang_and_utf8(dialogue):
    reply = await dialogue.say("USER j\u00f6rg \u65e5\u672c")

    assert b"+OK user 'jorg ??' accepted, proceed with PASS\r\n" == reply


@pytest.mark.parametrize("line", ["LANG ru", "UTF8"])
async def test_texts_are_utf8_after_lang_or_utf8(open_dialogue, line):
    dialogue = await open_dialogue(default_language="ru")
    assert (await dialogue.say("FOO")).isascii()
    await dialogue.say(line)

    reply = await dialogue.say("FOO")

    russian = Catalogue.load().find("ru").text("unknown-command", ascii=False)
    assert b"-ERR " + russian + b"\r\n" == reply
    assert not reply.isascii()


async def test_a_plugin_may_choose_the_first_language(open_dialogue):
    class Dutch:
        @hookimpl
        def default_language(self, session):
            return "nl" if session.peer.host == "127.0.0.1" else "zz"

    server = PopServer(backend=Store(), plugins=[Dutch()], listen=(), bcrypt_cost=4)
    async with server:
        local = await open_dialogue(server)
        other = await open_dialogue(server, peer=Peer("192.0.2.7", 4000))

        assert b"-ERR unknown command\r\n" != await local.say("FOO")
        assert b"-ERR unknown command\r\n" == await other.say("FOO")
