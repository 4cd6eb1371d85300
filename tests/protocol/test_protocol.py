"""The octets of POP3: framing, replies, dot-stuffing, TOP, at every split of the input."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pop3hub.errors import CommandError
from pop3hub.protocol.framing import Framer, LineNeverEnds, split_command
from pop3hub.protocol.message import (
    END,
    LoneCarriageReturns,
    MessageEncoder,
    WireReadyEncoder,
    is_wire_ready,
    wire_form,
)

MAIL = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"..", b"a", b"Subject: x", b"\0", b"\xff"])
).map(b"".join)


def framer():
    return Framer(auth_limit=1000, swallow_limit=4000)


def pieces(data, cuts):
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def encode(chunks, body_lines=None):
    encoder = MessageEncoder(body_lines)
    return b"".join(encoder.feed(chunk) for chunk in chunks) + encoder.end(), encoder.octets


def unstuffed(reply):
    """What a client makes of a multi-line reply, by RFC 1939 s3 and no more."""
    assert reply.endswith(END)
    lines = reply[: -len(END)].split(b"\r\n")
    assert b"" == lines.pop()
    assert not [line for line in lines if re.fullmatch(rb"\.", line)]
    return b"".join(line.removeprefix(b".") + b"\r\n" for line in lines)


@given(MAIL, st.lists(st.integers(0, 200), max_size=6))
@example(b".", [])
@example(b"\r\n.", [1, 2])
@example(b"a\r", [1])
@example(b"", [])
def test_a_message_comes_back_in_wire_form_however_it_was_cut(mail, cuts):
    """RFC 1939 s3, s11."""
    reply, octets = encode(pieces(mail, cuts))

    expected = wire_form(mail)
    assert (expected, len(expected)) == (unstuffed(reply), octets)


@given(MAIL)
def test_what_is_wire_ready_is_sent_as_it_stands(mail):
    ready = is_wire_ready(mail)

    assert ready == (encode([mail])[0] == mail + END)


@pytest.mark.parametrize(
    ("mail", "reply"),
    [
        (b"", b".\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b"..\n", b"...\r\n.\r\n"),
        (b"\r\n.hidden\r\n.\r\n", b"\r\n..hidden\r\n..\r\n.\r\n"),
        (b".Header: x\n\n.a\n..b\nc.d", b"..Header: x\r\n\r\n..a\r\n...b\r\nc.d\r\n.\r\n"),
        (b"a\rb\r\n", b"a\rb\r\n.\r\n"),
        (b"a\r.b\r\n", b"a\r.b\r\n.\r\n"),
        (b"\0\xff\n", b"\0\xff\r\n.\r\n"),
    ],
)
def test_the_stuffing_matrix(mail, reply):
    """RFC 1939 s3: every line that begins with a dot, wherever a chunk ends."""
    assert reply == encode([mail])[0]
    assert reply == encode([mail[at : at + 1] for at in range(len(mail))])[0]


def reference_top(mail, count):
    lines = wire_form(mail).split(b"\r\n")[:-1] if mail else []
    kept = []
    body = None
    for line in lines:
        if body is not None:
            if body == count:
                break
            body += 1
        kept.append(line)
        if body is None and line == b"":
            body = 0
    return b"".join(line + b"\r\n" for line in kept)


@given(MAIL, st.integers(0, 4), st.lists(st.integers(0, 200), max_size=6))
def test_top_is_the_header_the_blank_line_and_so_many_lines_of_the_body(mail, count, cuts):
    """RFC 1939 s7."""
    reply, _ = encode(pieces(mail, cuts), count)

    assert reference_top(mail, count) == unstuffed(reply)


def test_top_is_done_once_its_lines_are_sent():
    encoder = MessageEncoder(1)

    assert b"A: b\r\n\r\none\r\n" == encoder.feed(b"A: b\n\none\ntwo\n")
    assert encoder.done
    assert b"" == encoder.feed(b"three\n")


def lines_of(data, chunks=None, limit=255):
    reader = framer()
    found = []
    for chunk in chunks or [data]:
        reader.feed(chunk)
        while (line := reader.take(limit)) is not None:
            found.append(line[0])
    return found


@given(
    st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\n", b"").rstrip(b"\r"))),
    st.lists(st.integers(0, 500)),
)
def test_lines_are_the_same_at_any_split(lines, cuts):
    data = b"".join(line + b"\r\n" for line in lines)

    assert lines == lines_of(data, pieces(data, cuts))


def test_a_bare_lf_ends_a_line():
    assert [b"NOOP", b"", b"STAT"] == lines_of(b"NOOP\n\nSTAT\r\n")


def test_a_command_of_255_octets_is_taken_and_a_longer_one_told_once():
    """RFC 2449 s4."""
    longest = b"USER " + b"x" * 248
    data = longest + b"\r\n" + longest + b"x\r\nNOOP\r\n"

    assert [longest, None, b"NOOP"] == lines_of(data)
    assert [longest, None, b"NOOP"] == lines_of(
        data, [data[at : at + 7] for at in range(0, 600, 7)]
    )


def test_an_auth_line_may_be_longer():
    """RFC 5034 s4 leaves 255 octets to the initial response; tokens are longer."""
    line = b"auth XOAUTH2 " + b"a" * 900

    assert [line] == lines_of(line + b"\r\n")
    assert [None] == lines_of(b"AUTH X " + b"a" * 1000 + b"\r\n")


def test_the_tail_of_an_over_long_line_is_never_taken_for_auth():
    """It may come in a segment of its own, and AUTH lines have a limit of their own."""
    lines = framer()
    lines.feed(b"x" * 300)
    assert None is lines.take(255)
    lines.feed(b"AUTH PLAIN\r\nNOOP\r\n")

    assert [(None,), (b"NOOP",)] == [lines.take(255), lines.take(255)]


def test_a_line_without_end_is_given_up():
    reader = framer()

    def send():
        for _ in range(100):
            reader.feed(b"x" * 100)
            reader.take(255)
            assert len(reader) <= 355

    with pytest.raises(LineNeverEnds):
        send()


def test_a_password_keeps_its_spaces():
    assert (b"PASS", b"  two words ") == split_command(b"pass   two words ")


@pytest.mark.parametrize("line", [b"NOOP \t ", b"NOOP\t", b"noop", b"NOOP  "])
def test_white_space_behind_a_command_is_no_argument(line):
    keyword, rest = split_command(line)

    assert (b"NOOP", b"") == (keyword, rest.strip())


@pytest.mark.parametrize("line", [b"USER a\0b", b"\x01", b"NOOP\x7f", b"LIST\t1", b"PASS word\t"])
def test_control_characters_are_refused(line):
    with pytest.raises(CommandError, match="line-has-controls"):
        split_command(line)


# What a store claims


@pytest.mark.parametrize(
    "claimed",
    [
        b"a\r\n.\r\n+OK 9 octets\r\n",
        b".\r\n",
        b"a\n.\n",
        b"a\r\n..\r\nb\r\n",
        b"no line end",
        b"ends in LF\n",
        b"ends in CR\r",
        b"",
        b"fine\r\nmail.\r\n",
    ],
)
def test_a_wrong_claim_of_wire_form_never_breaks_the_frame(claimed):
    """RFC 1939 s3: only the last line of the reply is one dot, however the octets are split."""
    replies = set()
    for split in range(len(claimed) + 1):
        encoder = WireReadyEncoder()
        reply = b"".join((*map(encoder.feed, (claimed[:split], claimed[split:])), encoder.end()))
        body, rest = f"\r\n{reply.decode()}".split("\r\n.\r\n", 1)
        assert "" == rest
        unstuffed = body.encode()[2:].replace(b"\n..", b"\n.").removeprefix(b".")
        assert encoder.octets >= len(claimed)
        assert claimed.replace(b"\n", b"").replace(b"\r", b"").removeprefix(b".") == (
            unstuffed.replace(b"\n", b"").replace(b"\r", b"").removeprefix(b".")
        )
        replies.add(reply)
    assert b"\n.\n" not in reply


# Lone CR, which some clients take for a line end


@pytest.mark.parametrize(
    ("came", "mended", "count"),
    [
        (b"a\r.\rb\r\n", b"a\r\n.\r\nb\r\n", 2),
        (b"a\nb\r.\rc\n", b"a\nb\r\n.\r\nc\n", 2),
        (b"a\r\nb\r\r\nc", b"a\r\nb\r\n\r\nc", 1),
        (b"a\r", b"a\r\n", 1),
        (b"\r\r", b"\r\n\r\n", 2),
        (b"a\r\n.\r\n", b"a\r\n.\r\n", 0),
        (b"", b"", 0),
    ],
)
def test_a_lone_carriage_return_becomes_a_line_end(came, mended, count):
    """RFC 5321 s2.3.8."""
    whole = LoneCarriageReturns()
    assert (mended, count) == (whole.feed(came) + whole.end(), whole.found)


@given(
    st.binary(max_size=60).map(lambda b: b.translate(bytes(b"a\r\n."[n % 4] for n in range(256)))),
    st.data(),
)
def test_no_lone_carriage_return_is_left_at_any_split(came, data):
    split = data.draw(st.integers(0, len(came)))
    lone = LoneCarriageReturns()

    mended = lone.feed(came[:split]) + lone.feed(came[split:]) + lone.end()

    assert re.search(rb"\r(?!\n)", mended) is None
    assert re.split(rb"\r\n|\r|\n", came) == re.split(rb"\r?\n", mended)
