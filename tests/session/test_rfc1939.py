"""RFC 1939, section by section: what a session answers, octet for octet."""

import asyncio
import hashlib
import re
from contextlib import suppress

import pytest
from structlog.testing import capture_logs

from pop3hub.auth.users import apop_digest
from pop3hub.errors import CommandError, PermanentFailure, TemporaryFailure
from pop3hub.hooks.specs import hookimpl
from pop3hub.protocol.message import wire_form
from pop3hub.server.server import PopServer
from pop3hub.session.commands import handle
from tests.support.serving import LUKE, Gate, new_user

HARD = b"Subject: dots\n\none\n.hidden\n.\n..two\nlast"
NUMBERED = ("LIST", "UIDL", "RETR", "DELE")


# s3, basic operation


@pytest.mark.parametrize("line", ["CAPA", "capa", "cApA"])
async def test_keywords_are_taken_in_any_case(dialogue, line):
    assert (await dialogue.say(line)).startswith(b"+OK capabilities follow.\r\n")


@pytest.mark.parametrize("line", ["", " ", "FOO", "XTND XLST", "LAST", "RPOP", " NOOP", "\u00e9"])
async def test_an_unknown_command_is_refused_and_the_session_goes_on(dialogue, line):
    """s3; old clients probe with commands that are gone (conformance.md 13)."""
    assert b"-ERR unknown command\r\n" == await dialogue.say(line)
    assert b"+OK" == (await dialogue.say("CAPA"))[:3]


@pytest.mark.parametrize(
    "line",
    [
        *("STAT", "LIST", "LIST 1", "UIDL", "UIDL 1", "RETR 1", "TOP 1 0", "DELE 1"),
        *("NOOP", "RSET"),
    ],
)
async def test_commands_of_transaction_are_refused_before_the_login(dialogue, line):
    assert b"-ERR log in first\r\n" == await dialogue.say(line)


@pytest.mark.parametrize(
    "line",
    ["USER luke", "PASS hello", "APOP luke x", "AUTH", "AUTH PLAIN =", "STLS", "UTF8"],
)
async def test_commands_of_authorization_are_refused_after_the_login(open_maildrop, line):
    """RFC 1939 s4, s7; RFC 2595 s4; RFC 5034 s4; RFC 6856 s2.1."""
    dialogue = await open_maildrop()

    assert b"-ERR not after the login\r\n" == await dialogue.say(line)


@pytest.mark.parametrize(
    ("line", "usage"),
    [
        ("USER", "USER name"),
        ("PASS", "PASS password"),
        ("CAPA x", "CAPA"),
        ("QUIT now", "QUIT"),
        ("STLS now", "STLS"),
        ("UTF8 x", "UTF8"),
        ("LANG en nl", "LANG [language]"),
        ("AUTH PLAIN = =", "AUTH mechanism [response]"),
    ],
)
async def test_a_wrong_number_of_arguments_is_refused_before_the_login(dialogue, line, usage):
    assert f"-ERR the form is: {usage}\r\n".encode() == await dialogue.say(line)


@pytest.mark.parametrize(
    ("line", "usage"),
    [
        ("STAT 1", "STAT"),
        ("NOOP x", "NOOP"),
        ("RSET x", "RSET"),
        ("QUIT x", "QUIT"),
        ("CAPA x", "CAPA"),
        ("LIST 1 2", "LIST [message]"),
        ("UIDL 1 2", "UIDL [message]"),
        ("RETR", "RETR message"),
        ("RETR 1 2", "RETR message"),
        ("DELE", "DELE message"),
        ("TOP", "TOP message lines"),
        ("TOP 1", "TOP message lines"),
        ("TOP 1 2 3", "TOP message lines"),
    ],
)
async def test_a_wrong_number_of_arguments_is_refused_after_the_login(open_maildrop, line, usage):
    dialogue = await open_maildrop(HARD)

    assert f"-ERR the form is: {usage}\r\n".encode() == await dialogue.say(line)
    assert b"+OK 1 47\r\n" == await dialogue.say("STAT")


@pytest.mark.parametrize("line", ["STAT ", "STAT  ", "STAT\t", "stat \t "])
async def test_white_space_behind_a_command_is_passed_over(open_maildrop, line):
    dialogue = await open_maildrop(HARD)

    assert b"+OK 1 47\r\n" == await dialogue.say(line)


@pytest.mark.parametrize("line", ["LIST  1", "LIST 1 ", "LIST 01", "list   0000000001  \t"])
async def test_spaces_and_leading_zeros_around_a_number_are_passed_over(open_maildrop, line):
    dialogue = await open_maildrop(HARD)

    assert b"+OK 1 47\r\n" == await dialogue.say(line)


@pytest.mark.parametrize(
    "line", [b"STAT\0", b"ST\tAT", b"USER a\rb", b"USER \x1b[2J", b"PASS \x7f", b"PASS hello\t"]
)
async def test_control_characters_are_refused(dialogue, line):
    assert b"-ERR control characters are not allowed in a command\r\n" == await dialogue.say(line)


@pytest.mark.parametrize("command", NUMBERED)
@pytest.mark.parametrize(
    "number",
    [
        *("+1", "-1", "1_0", "0x1", "1e3", "1.0", "one", "12345678901", "*"),
        *("\uff11", "\u0661", "1\u00a0", "\u2003" + "1"),
    ],
)
async def test_a_message_number_is_ascii_digits_only(open_maildrop, command, number):
    """conformance.md 1.1: what int() and str.split() take more than that is refused."""
    dialogue = await open_maildrop(HARD)

    expected = b"-ERR a message number is wanted, from 1 up\r\n"
    assert expected == await dialogue.say(f"{command} {number}")


@pytest.mark.parametrize("command", NUMBERED)
@pytest.mark.parametrize("number", [0, 3, 4_294_967_297, 9_999_999_999])
async def test_a_number_that_no_message_has_is_refused(open_maildrop, command, number):
    dialogue = await open_maildrop(HARD, HARD)

    expected = f"-ERR no message {number}, there are 2\r\n".encode()
    assert expected == await dialogue.say(f"{command} {number}")


async def test_a_lone_message_is_told_in_the_singular(open_maildrop):
    dialogue = await open_maildrop(HARD)

    assert b"-ERR no message 2, there is 1\r\n" == await dialogue.say("DELE 2")


# s4, AUTHORIZATION


async def test_the_greeting_is_one_positive_line(dialogue):
    assert b"+OK pop3hub at your service, IPv4 127.0.0.1:50000\r\n" == dialogue.greeting


async def test_quit_before_the_login_says_goodbye_and_closes(dialogue, store):
    assert b"+OK pop3hub signing off.\r\n" == await dialogue.say("QUIT")
    assert dialogue.closed
    assert [] == store.calls


async def test_the_maildrop_is_locked_for_the_first_session(store, open_dialogue, serve):
    """s4: the second one stays in AUTHORIZATION, and gets in after the first one's QUIT."""
    server = await serve(listen=())
    first, second = await open_dialogue(server), await open_dialogue(server)
    assert b"+OK pass accepted, welcome 'luke'.\r\n" == await first.login("luke", "hello")

    expected = b"-ERR [IN-USE] this maildrop is in use by another session\r\n"
    assert expected == await second.login("luke", "hello")
    assert b"-ERR log in first\r\n" == await second.say("STAT")
    await first.say("QUIT")
    assert b"+OK pass accepted, welcome 'luke'.\r\n" == await second.login("luke", "hello")


async def test_another_user_is_not_locked_out(open_dialogue, serve):
    server = await serve(listen=())
    first, second = await open_dialogue(server), await open_dialogue(server)
    await first.login("luke", "hello")

    assert b"+OK pass accepted, welcome 'user'.\r\n" == await second.login("user", "pencil")


@pytest.mark.parametrize("hook", ["receive_messages", "is_in_use"])
async def test_a_login_that_fails_after_the_lock_releases_it_before_the_answer(
    store, open_dialogue, serve, hook
):
    server = await serve(listen=())
    dialogue = await open_dialogue(server)
    store.failures[hook] = TemporaryFailure()
    assert b"-ERR [SYS/TEMP] " == (await dialogue.login("luke", "hello"))[:16]

    store.failures.clear()
    other = await open_dialogue(server)

    assert b"+OK pass accepted, welcome 'luke'.\r\n" == await other.login("luke", "hello")


async def test_a_session_that_is_aborted_while_its_maildrop_opens_is_never_logged_in(
    store, open_dialogue, serve
):
    """Its lease lapsed, say: it must not go on without the lock."""
    server = await serve(listen=())
    dialogue, other = await open_dialogue(server), await open_dialogue(server)
    gate = store.gates["receive_messages"] = Gate()
    logging_in = asyncio.create_task(dialogue.login("luke", "hello"))
    await gate.reached.wait()

    dialogue.session.abort("lease lost")
    gate.opened.set()

    assert b"-ERR [SYS/TEMP] temporary failure, try again later\r\n" == await logging_in
    assert None is dialogue.session.user
    assert {("USER", "SYS/TEMP"): 1} == server.context.stats.attempts
    assert b"+OK pass accepted, welcome 'luke'.\r\n" == await other.login("luke", "hello")


async def test_a_lost_connection_releases_the_lock_and_deletes_nothing(store, open_dialogue, serve):
    """s6: a session that ends otherwise than by QUIT must not remove any message."""
    store.put(HARD, HARD)
    server = await serve(listen=())
    first, second = await open_dialogue(server), await open_dialogue(server)
    await first.login("luke", "hello")
    await first.say("DELE 1")
    await first.hang_up()

    await second.login("luke", "hello")

    assert b"+OK 2 94\r\n" == await second.say("STAT")
    assert "delete_messages" not in store.calls


async def test_a_connection_lost_while_the_maildrop_opens_releases_the_lock(
    store, open_dialogue, serve
):
    server = await serve(listen=())
    first, second = await open_dialogue(server), await open_dialogue(server)
    gate = store.gates["receive_messages"] = Gate()
    login = asyncio.create_task(first.login("luke", "hello"))
    await gate.reached.wait()
    await first.hang_up()
    gate.opened.set()
    with suppress(asyncio.CancelledError):
        await login

    assert b"+OK pass accepted, welcome 'luke'.\r\n" == await second.login("luke", "hello")


# s5, TRANSACTION


async def test_stat_tells_count_and_octets_and_nothing_more(open_maildrop):
    dialogue = await open_maildrop(HARD, b"a\r\n")

    assert b"+OK 2 50\r\n" == await dialogue.say("STAT")


async def test_an_empty_maildrop_is_listed_as_such(open_maildrop):
    """s5: +OK and no lines, no error."""
    dialogue = await open_maildrop()

    assert b"+OK 0 0\r\n" == await dialogue.say("STAT")
    assert b"+OK 0 messages (0 octets)\r\n.\r\n" == await dialogue.say("LIST")
    assert b"+OK mailbox listing follows.\r\n.\r\n" == await dialogue.say("UIDL")
    assert b"-ERR no message 1, there are 0\r\n" == await dialogue.say("RETR 1")


async def test_list_tells_the_size_of_all_or_one(open_maildrop):
    dialogue = await open_maildrop(HARD, b"a\r\n")

    expected = b"+OK 2 messages (50 octets)\r\n1 47\r\n2 3\r\n.\r\n"
    assert expected == await dialogue.say("LIST")
    assert b"+OK 2 3\r\n" == await dialogue.say("LIST 2")


async def test_uidl_tells_the_unique_id_of_all_or_one(open_maildrop):
    dialogue = await open_maildrop(HARD, b"a\r\n")

    expected = b"+OK mailbox listing follows.\r\n1 uid-1\r\n2 uid-2\r\n.\r\n"
    assert expected == await dialogue.say("UIDL")
    assert b"+OK 2 uid-2\r\n" == await dialogue.say("UIDL 2")


async def test_marked_messages_are_in_no_figure_and_numbers_never_move(open_maildrop):
    """s5, s8; other servers number anew after DELE, or go on listing what is marked."""
    dialogue = await open_maildrop(b"a\n", b"bb\n", b"ccc\n")

    assert b"+OK message 2 deleted.\r\n" == await dialogue.say("DELE 2")

    assert b"+OK 2 8\r\n" == await dialogue.say("STAT")
    assert b"+OK 2 messages (8 octets)\r\n1 3\r\n3 5\r\n.\r\n" == await dialogue.say("LIST")
    expected = b"+OK mailbox listing follows.\r\n1 uid-1\r\n3 uid-3\r\n.\r\n"
    assert expected == await dialogue.say("UIDL")
    assert b"+OK 5 octets\r\nccc\r\n.\r\n" == await dialogue.say("RETR 3")


@pytest.mark.parametrize("line", ["LIST 1", "UIDL 1", "RETR 1", "TOP 1 0", "DELE 1"])
async def test_a_marked_message_can_not_be_had_any_more(open_maildrop, line):
    dialogue = await open_maildrop(HARD)
    await dialogue.say("DELE 1")

    assert b"-ERR message 1 is deleted\r\n" == await dialogue.say(line)


async def test_rset_takes_all_marks_off_and_shows_no_new_mail(open_maildrop, store):
    dialogue = await open_maildrop(b"a\n", b"bb\n")
    await dialogue.say("DELE 1")
    await dialogue.say("DELE 2")
    store.put(b"new\n")

    assert b"+OK the maildrop has 2 messages (7 octets)\r\n" == await dialogue.say("RSET")
    assert b"+OK 2 7\r\n" == await dialogue.say("STAT")
    await dialogue.say("QUIT")
    assert "delete_messages" not in store.calls


async def test_new_mail_is_not_seen_before_the_next_session(open_maildrop, store):
    dialogue = await open_maildrop(b"a\n")

    store.put(b"new\n")

    assert b"+OK 1 3\r\n" == await dialogue.say("STAT")
    assert b"-ERR no message 2, there is 1\r\n" == await dialogue.say("RETR 2")


async def test_noop_does_nothing(open_maildrop):
    dialogue = await open_maildrop(HARD)

    assert b"+OK nothing done\r\n" == await dialogue.say("NOOP")


@pytest.mark.parametrize("chunk", [None, 1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("contents", "sent"),
    [
        (b"", b"+OK 0 octets\r\n.\r\n"),
        (b"\n", b"+OK 2 octets\r\n\r\n.\r\n"),
        (b".", b"+OK 3 octets\r\n..\r\n.\r\n"),
        (b"..\r\n", b"+OK 4 octets\r\n...\r\n.\r\n"),
        (b"\r\n.hidden\r\n.\r\n", b"+OK 14 octets\r\n\r\n..hidden\r\n..\r\n.\r\n"),
        (b".Head: x\n\n.b", b"+OK 16 octets\r\n..Head: x\r\n\r\n..b\r\n.\r\n"),
        (b"a\r\n\r\nb", b"+OK 8 octets\r\na\r\n\r\nb\r\n.\r\n"),
        (b"only: header", b"+OK 14 octets\r\nonly: header\r\n.\r\n"),
        (b"a\rb\n", b"+OK 5 octets\r\na\rb\r\n.\r\n"),
        (b"x\r", b"+OK 4 octets\r\nx\r\r\n.\r\n"),
        (b"s: x\n\n\0\xe9\xff\n", b"+OK 13 octets\r\ns: x\r\n\r\n\0\xe9\xff\r\n.\r\n"),
    ],
)
async def test_retr_sends_every_octet_stuffed_and_its_size_is_the_one_of_list(
    open_maildrop, store, chunk, contents, sent
):
    """s3, s11: the matrix of conformance.md 1.3, whole and at every chunk size."""
    store.chunk = chunk
    dialogue = await open_maildrop(contents)

    reply = await dialogue.say("RETR 1")

    assert sent == reply
    assert b"+OK 1 %d\r\n" % len(wire_form(contents)) == await dialogue.say("LIST 1")


async def test_a_line_of_five_million_octets_is_sent_as_it_is(open_maildrop, store):
    """conformance.md 1.3, 12: no line is too long."""
    store.chunk = 64 * 1024
    line = b"x" * 5_000_000
    dialogue = await open_maildrop(line)

    assert b"+OK 5000002 octets\r\n" + line + b"\r\n.\r\n" == await dialogue.say("RETR 1")


@pytest.mark.parametrize("hook", ["load_contents", None])
async def test_what_fails_before_the_first_octet_is_told(open_maildrop, store, hook):
    store.chunk = 5
    dialogue = await open_maildrop(HARD)
    if hook:
        store.failures[hook] = OSError("the disk is gone")
    else:
        store.broken["uid-1"] = 0

    expected = b"-ERR [SYS/TEMP] temporary failure, try again later\r\n"
    assert expected == await dialogue.say("RETR 1")
    assert b"+OK 1 47\r\n" == await dialogue.say("STAT")


async def test_what_fails_behind_the_status_line_cuts_the_connection_without_the_dot(
    open_maildrop, store
):
    """conformance.md 4: with a final dot, half a message looks whole, and is deleted next."""
    store.chunk = 10
    store.broken["uid-1"] = 19
    dialogue = await open_maildrop(HARD)

    reply = await dialogue.say("RETR 1")

    assert b"+OK 47 octets\r\nSubject: dots\r\n\r\none\r\n" == reply
    assert dialogue.closed
    assert "store failed" == dialogue.session.reason


async def test_a_message_that_is_gone_from_the_store_is_refused(open_maildrop, store):
    """conformance.md 4.1: something else than this session has removed it."""
    store.chunk = 100
    dialogue = await open_maildrop(HARD, HARD)
    del store.mail["luke"]["uid-1"]

    expected = b"-ERR [SYS/PERM] the message is gone from the store\r\n"
    assert expected == await dialogue.say("RETR 1")
    assert b"+OK 47 octets" == (await dialogue.say("RETR 2"))[:13]


# s6, UPDATE


async def test_quit_removes_what_is_marked_and_nothing_else(open_maildrop, store):
    dialogue = await open_maildrop(b"a\n", b"b\n", b"c\n")
    await dialogue.say("DELE 1")
    await dialogue.say("DELE 3")

    assert b"+OK pop3hub signing off.\r\n" == await dialogue.say("QUIT")
    assert {"uid-2": b"b\n"} == store.mail["luke"]
    assert dialogue.closed


async def test_quit_is_answered_after_the_removal(open_maildrop, store):
    """s6; other servers answer first, and their clients take lost work for done."""
    dialogue = await open_maildrop(b"a\n")
    await dialogue.say("DELE 1")
    gate = store.gates["delete_messages"] = Gate()

    quitting = asyncio.create_task(dialogue.say("QUIT"))
    await gate.reached.wait()
    assert [] == dialogue._out
    gate.opened.set()

    assert b"+OK pop3hub signing off.\r\n" == await quitting


async def test_quit_with_the_maildrop_untouched_asks_the_store_nothing(open_maildrop, store):
    dialogue = await open_maildrop(b"a\n")

    await dialogue.say("QUIT")

    assert "delete_messages" not in store.calls


async def test_a_removal_that_failed_in_part_is_an_error(open_maildrop, store):
    dialogue = await open_maildrop(b"a\n", b"b\n")
    store.deaf = {"uid-1"}
    await dialogue.say("DELE 1")
    await dialogue.say("DELE 2")

    expected = b"-ERR [SYS/TEMP] 1 message could not be removed, try again later\r\n"
    assert expected == await dialogue.say("QUIT")
    assert {"uid-1": b"a\n"} == store.mail["luke"]


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (TemporaryFailure(), b"-ERR [SYS/TEMP] temporary failure, try again later\r\n"),
        (PermanentFailure(), b"-ERR [SYS/PERM] this needs an administrator\r\n"),
        (OSError("gone"), b"-ERR [SYS/TEMP] temporary failure, try again later\r\n"),
    ],
)
async def test_a_removal_that_failed_is_an_error_and_the_lock_is_released_all_the_same(
    store, open_dialogue, serve, failure, expected
):
    """s6: the maildrop lock is released whether the removal worked or not."""
    store.put(b"a\n")
    server = await serve(listen=())
    dialogue, other = await open_dialogue(server), await open_dialogue(server)
    await dialogue.login("luke", "hello")
    await dialogue.say("DELE 1")
    store.failures["delete_messages"] = failure

    assert expected == await dialogue.say("QUIT")
    assert dialogue.closed
    assert b"+OK pass accepted, welcome 'luke'.\r\n" == await other.login("luke", "hello")
    assert b"+OK 1 3\r\n" == await other.say("STAT")


async def test_a_removal_goes_on_to_its_end_when_the_client_leaves(open_maildrop, store):
    """UPDATE has begun: the messages go, with the lock held."""
    dialogue = await open_maildrop(b"a\n")
    await dialogue.say("DELE 1")
    gate = store.gates["delete_messages"] = Gate()
    quitting = asyncio.create_task(dialogue.say("QUIT"))
    await gate.reached.wait()

    leaving = asyncio.create_task(dialogue.hang_up())
    await asyncio.sleep(0)
    gate.opened.set()
    await asyncio.wait([leaving, quitting])

    assert {} == store.mail["luke"]


async def test_who_aborts_a_session_inside_update_does_not_cut_its_answer(serve, connect, store):
    """The removal goes on; the client has to hear what came of it."""

    class Aborts:
        @hookimpl
        def delete_messages(self, session):
            session.abort("lease lost")

    store.put(b"a\n")
    client = await connect(await serve(plugins=[Aborts()]))
    client.send(b"USER luke\r\nPASS hello\r\nDELE 1\r\n")
    await client.lines(3)

    assert b"+OK pop3hub signing off.\r\n" == await client.say(b"QUIT")
    assert {} == store.mail["luke"]


async def test_a_backend_that_counts_one_too_many_fails_no_quit(open_maildrop):
    class CountsTooMany:
        @hookimpl
        def delete_messages(self, messages):
            return len(messages) + 1

    dialogue = await open_maildrop(b"a\n", plugins=[CountsTooMany()])
    await dialogue.say("DELE 1")

    assert b"+OK pop3hub signing off.\r\n" == await dialogue.say("QUIT")


# s7, TOP


FIVE = b"From: a\r\nSubject: five\r\n\r\n1\r\n.2\r\n3\r\n4\r\n5\r\n"
HEAD = b"From: a\r\nSubject: five\r\n\r\n"


@pytest.mark.parametrize("chunk", [None, 1, 4, 1000])
@pytest.mark.parametrize(
    ("lines", "body"),
    [
        (0, b""),
        (1, b"1\r\n"),
        (2, b"1\r\n..2\r\n"),
        (5, b"1\r\n..2\r\n3\r\n4\r\n5\r\n"),
        (6, b"1\r\n..2\r\n3\r\n4\r\n5\r\n"),
        (9_999_999_999, b"1\r\n..2\r\n3\r\n4\r\n5\r\n"),
    ],
)
async def test_top_sends_the_header_a_blank_line_and_so_many_lines_of_the_body(
    open_maildrop, store, chunk, lines, body
):
    """s7; others count header lines too, or send all for 0, or leave dots as they are."""
    store.chunk = chunk
    dialogue = await open_maildrop(FIVE)

    assert b"+OK top follows.\r\n" + HEAD + body + b".\r\n" == await dialogue.say(f"TOP 1 {lines}")


async def test_top_of_a_message_without_blank_line_is_all_of_it(open_maildrop):
    dialogue = await open_maildrop(b"a: 1\nb: 2")

    assert b"+OK top follows.\r\na: 1\r\nb: 2\r\n.\r\n" == await dialogue.say("TOP 1 0")


@pytest.mark.parametrize("lines", ["-1", "+1", "x", "1.5", "\uff11", "12345678901"])
async def test_top_wants_a_number_of_lines_from_0_up(open_maildrop, lines):
    dialogue = await open_maildrop(FIVE)

    expected = b"-ERR a number of lines is wanted, from 0 up\r\n"
    assert expected == await dialogue.say(f"TOP 1 {lines}")


async def test_top_reads_no_more_than_it_sends_and_closes_what_it_opened(open_maildrop, store):
    store.chunk = 64
    dialogue = await open_maildrop(HEAD + b"line\r\n" * 100_000)

    reply = await dialogue.say("TOP 1 1")

    assert b"+OK top follows.\r\n" + HEAD + b"line\r\n.\r\n" == reply
    assert ["uid-1"] == store.closed
    assert 0 == dialogue.session.stats.retrieved


# s7, USER and PASS


async def test_user_is_accepted_whoever_it_is_and_asks_nobody(dialogue, store):
    """s13: the answer to USER must not tell who exists."""
    assert b"+OK user 'nobody' accepted, proceed with PASS\r\n" == await dialogue.say("USER nobody")
    assert b"+OK user 'luke' accepted, proceed with PASS\r\n" == await dialogue.say("USER luke")
    assert [] == store.calls


async def test_the_last_user_counts(dialogue):
    await dialogue.say("USER nobody")

    assert b"+OK pass accepted, welcome 'luke'.\r\n" == await dialogue.login("luke", "hello")


async def test_pass_without_user_is_refused(dialogue):
    assert b"-ERR PASS must follow USER\r\n" == await dialogue.say("PASS hello")


async def test_a_name_is_forgotten_after_a_wrong_password(dialogue):
    await dialogue.login("luke", "wrong")

    assert b"-ERR PASS must follow USER\r\n" == await dialogue.say("PASS hello")


@pytest.mark.parametrize("between", ["CAPA", "LANG", "LANG nl", "UTF8"])
async def test_what_changes_no_state_may_stand_between_user_and_pass(dialogue, between):
    """Liberal: some clients ask there."""
    await dialogue.say("USER luke")
    await dialogue.say(between)

    assert b"+OK" == (await dialogue.say("PASS hello"))[:3]


@pytest.mark.parametrize("between", ["NOOP", "FOO", "AUTH", "APOP a b", "STLS", "\0", None])
async def test_pass_comes_immediately_after_user(dialogue, between):
    """s7; None stands for a line that is too long."""
    await dialogue.say("USER luke")
    if between is None:
        handle(dialogue.session, None)
        dialogue._said()
    else:
        await dialogue.say(between)

    assert b"-ERR PASS must follow USER\r\n" == await dialogue.say("PASS hello")


@pytest.mark.parametrize(
    "password", ["a b c", " leading", "trailing ", "  ", "sch\u00f6n", "\u65e5\u672c", "x" * 72]
)
async def test_a_password_is_taken_as_it_stands(store, dialogue, password):
    """s7: spaces belong to it; others split there. RFC 6856 s2.2: UTF-8."""
    store.users["luke"] = new_user("luke", password)

    assert b"+OK pass accepted, welcome 'luke'.\r\n" == await dialogue.login("luke", password)


@pytest.mark.parametrize("wrong", ["hello ", " hello", "Hello", "hell", "x" * 73, "\u00ad"])
async def test_a_password_that_is_nearly_right_is_wrong(dialogue, wrong):
    expected = b"-ERR [AUTH] wrong user name or password\r\n"
    assert expected == await dialogue.login("luke", wrong)


async def test_more_octets_than_bcrypt_compares_are_wrong_although_72_would_be_right(
    store, dialogue
):
    store.users["luke"] = new_user("luke", "x" * 72)

    expected = b"-ERR [AUTH] wrong user name or password\r\n"
    assert expected == await dialogue.login("luke", "x" * 73)


async def test_a_name_may_hold_spaces(store, dialogue):
    """conformance.md 1.1: the rest of the line, without the spaces around it."""
    store.users["luke sky"] = new_user("luke sky", "hello")
    store.mail["luke sky"] = {}

    assert b"+OK pass accepted, welcome 'luke sky'.\r\n" == await dialogue.login(
        "  luke sky ", "hello"
    )


async def test_unknown_user_and_wrong_password_are_told_in_the_same_octets(dialogue):
    wrong = await dialogue.login("luke", "wrong")

    assert b"-ERR [AUTH] wrong user name or password\r\n" == wrong
    assert wrong == await dialogue.login("nobody", "wrong")


@pytest.mark.parametrize("name", ["luke", "nobody", "\u00ad"])
async def test_a_failed_login_is_answered_at_a_fixed_time(open_dialogue, name):
    """conformance.md 6: who exists shows neither in the answer nor in its time."""
    dialogue = await open_dialogue(failure_delay=0.08)
    loop = asyncio.get_running_loop()
    await dialogue.say(f"USER {name}")
    began = loop.time()

    reply = await dialogue.say("PASS wrong")

    assert b"-ERR [AUTH] wrong user name or password\r\n" == reply
    assert 0.08 <= loop.time() - began < 2


async def test_an_unknown_users_password_is_hashed_all_the_same(open_dialogue, monkeypatch):
    dialogue = await open_dialogue()
    hashed = []
    dummy = dialogue.server.context.hasher.check_dummy

    async def noted(raw):
        hashed.append(raw)
        return await dummy(raw)

    monkeypatch.setattr(dialogue.server.context.hasher, "check_dummy", noted)
    await dialogue.login("nobody", "wrong")

    assert ["wrong"] == hashed


# s7, APOP


async def test_the_greeting_has_a_new_stamp_each_time(store, open_dialogue, serve):
    server = await serve(listen=(), apop=True)
    greetings = [(await open_dialogue(server)).greeting for _ in range(20)]

    stamps = {re.search(rb"<[0-9a-f]{16}\.[0-9a-f]+@pop3hub>\r\n\Z", line)[0] for line in greetings}

    assert 20 == len(stamps)
    assert {1} == {line.count(b"<") for line in greetings}


async def test_there_is_no_stamp_and_no_apop_unless_it_is_on(dialogue):
    """MailKit tries APOP wherever it sees a stamp."""
    assert b"<" not in dialogue.greeting
    assert b"-ERR unknown command\r\n" == await dialogue.say("APOP luke " + "0" * 32)


async def test_a_long_greeting_leaves_the_stamp_whole(open_dialogue, tmp_path):
    """RFC 2449 s4: 512 octets."""
    greeting = "long " * 70 + "{name}, {client}"
    (tmp_path / "tlh.toml").write_text(
        f'tag = "tlh"\nname = "tlh"\n[text]\ngreeting = "{greeting}"\n'
    )
    dialogue = await open_dialogue(
        name="n" * 64, apop=True, default_language="tlh", language_directories=[tmp_path]
    )

    assert 500 < len(dialogue.greeting) <= 512
    assert dialogue.greeting.endswith(b"@" + b"n" * 64 + b">\r\n")


def test_the_digest_is_the_one_of_the_rfc():
    stamp = "<1896.697170952@dbc.mtview.ca.us>"

    assert "c4c9334bac560ecc979e58001b3e22fb" == apop_digest(stamp, "tanstaaf")


def digest_of(dialogue, secret):
    return hashlib.md5(dialogue.session.stamp.encode() + secret, usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("write", [str, str.upper])
async def test_apop_logs_in(open_dialogue, write):
    dialogue = await open_dialogue(apop=True)

    reply = await dialogue.say(f"APOP luke {write(digest_of(dialogue, b'tanstaaf'))}")

    assert b"+OK pass accepted, welcome 'luke'.\r\n" == reply


@pytest.mark.parametrize(
    ("name", "secret"), [("luke", b"wrong"), ("nobody", b"tanstaaf"), ("user", b""), ("luke", b"")]
)
async def test_apop_fails_in_the_same_octets_for_whoever(open_dialogue, name, secret):
    """`user` has no secret: the digest of the stamp alone must not let it in."""
    dialogue = await open_dialogue(apop=True)

    reply = await dialogue.say(f"APOP {name} {digest_of(dialogue, secret)}")

    assert b"-ERR [AUTH] wrong user name or password\r\n" == reply


@pytest.mark.parametrize("line", ["APOP", "APOP luke", "APOP luke "])
async def test_apop_wants_a_name_and_a_digest(open_dialogue, line):
    dialogue = await open_dialogue(apop=True)

    assert b"-ERR the form is: APOP name digest\r\n" == await dialogue.say(line)


# s7, UIDL


async def test_a_unique_id_that_can_not_be_sent_is_replaced_by_a_stable_one(open_maildrop, store):
    """s7: 1 to 70 characters 0x21 to 0x7E."""
    store.mail["luke"] = {"has space": b"a\n", "x" * 71: b"b\n", "": b"c\n", "x" * 70: b"d\n"}
    dialogue = await open_maildrop()
    sums = [hashlib.sha256(uid.encode()).hexdigest().encode() for uid in store.mail["luke"]]

    expected = b"+OK mailbox listing follows.\r\n1 %b\r\n2 %b\r\n3 %b\r\n4 %b\r\n.\r\n" % (
        *sums[:3],
        b"x" * 70,
    )
    assert expected == await dialogue.say("UIDL")
    assert b"+OK 2 %b\r\n" % sums[1] == await dialogue.say("UIDL 2")


async def test_two_messages_of_one_unique_id_are_a_damaged_maildrop(store, open_dialogue):
    class Twins(type(store)):
        async def receive_messages(self, user):
            return [*await super().receive_messages(user)] * 2

    Twins.receive_messages = hookimpl(Twins.receive_messages)
    twins = Twins()
    twins.put(b"a\n")
    server = PopServer(backend=twins, listen=(), failure_delay=0, bcrypt_cost=4)
    async with server:
        dialogue = await open_dialogue(server)

        reply = await dialogue.login("luke", "hello")

    assert b"-ERR [SYS/PERM] " == reply[:16]


# s8, EXPIRE 0 is in test_rfc2449.py; s11 is in the RETR tests above


async def test_an_error_of_a_command_is_one_line(open_maildrop, store):
    """Whatever a plugin puts into its error, it is one line and no response code."""
    store.chunk = 100
    dialogue = await open_maildrop(HARD)
    store.failures["load_contents"] = CommandError("arguments-wrong", usage="two\r\n+OK lines")

    assert b"-ERR the form is: two??+OK lines\r\n" == await dialogue.say("RETR 1")


async def test_a_text_that_is_none_of_ours_is_not_shown(open_maildrop, store):
    """An id that doesn't exist could be anything, a database's URI for one."""
    store.chunk = 100
    dialogue = await open_maildrop(HARD)
    store.failures["load_contents"] = PermanentFailure(text_id="mongodb://luke:secret@db")

    assert b"-ERR [SYS/PERM] this needs an administrator\r\n" == await dialogue.say("RETR 1")


async def test_what_an_error_says_to_the_operator_is_not_sent(open_maildrop, store):
    store.chunk = 100
    dialogue = await open_maildrop(HARD)
    store.failures["load_contents"] = PermanentFailure("mongodb://luke:secret@db is gone")

    with capture_logs() as logs:
        assert b"-ERR [SYS/PERM] this needs an administrator\r\n" == await dialogue.say("RETR 1")

    assert ["mongodb://luke:secret@db is gone"] == [
        line["error"] for line in logs if line["event"] == "hook.failed"
    ]


def test_the_store_of_these_tests_has_the_secret_that_they_use():
    assert "tanstaaf" == LUKE.secret
