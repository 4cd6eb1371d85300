"""RFC 6858: what a client without UTF8 gets in place of an internationalized message."""

import email
import email.header
import re
import time
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pop3hub.protocol import downgrade
from pop3hub.protocol.downgrade import Downgrader, surrogate_size
from pop3hub.protocol.message import MessageEncoder, wire_form

INVALID = "<invalid@internationalized-address.invalid>"
ADDRESS_FIELDS = [
    *("Bcc", "Cc", "From", "Reply-To", "Sender", "To"),
    *("Resent-Bcc", "Resent-Cc", "Resent-From", "Resent-Sender", "Resent-To"),
]


def surrogate(message, chunk_size=None, **limits):
    """Return the whole surrogate of a message, fed in chunks of one size or in one piece."""
    downgrader = Downgrader(**limits)
    step = chunk_size or len(message) or 1
    chunks = [message[start : start + step] for start in range(0, len(message), step)]
    return b"".join([*map(downgrader.feed, chunks), downgrader.end()])


def shown(field):
    """Return the surrogate of one field, as it is folded; empty if it was removed."""
    message = surrogate(f"A: b\r\n{field}\r\n\r\nbody\r\n".encode())
    return message.removeprefix(b"A: b\r\n").removesuffix(b"\r\nbody\r\n").decode("ascii")


def decoded(text):
    """Return the text that encoded-words stand for."""
    return str(email.header.make_header(email.header.decode_header(text)))


# --- Addresses (RFC 6858 s2.1) ---


@pytest.mark.parametrize("name", ADDRESS_FIELDS)
def test_an_internationalized_address_becomes_an_invalid_one(name):
    assert f"{name}: Fred Foo {INVALID}\r\n" == shown(f"{name}: Fred Foo <fréd@example.com>")


@pytest.mark.parametrize("address", ["fréd@example.com", "fred@exämple.com", '"fréd"@example.com'])
def test_an_address_without_display_name_is_shown_as_one(address):
    atoms = shown(f"To: <{address}>").removeprefix("To: ").split()

    assert INVALID == atoms[-1]
    assert address == decoded(" ".join(atoms[:-1]))


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("To: fréd@example.com", f"To: =?utf-8?q?fr=C3=A9d=40example=2Ecom?=\r\n {INVALID}\r\n"),
        ("To: Jürgen <j@x.example>", "To: =?utf-8?q?J=C3=BCrgen?= <j@x.example>\r\n"),
        ("To: A Jürgen B <j@x.example>", "To: A =?utf-8?q?J=C3=BCrgen?= B <j@x.example>\r\n"),
        ("To: a@x, é@x, B <b@x>", f"To: a@x, =?utf-8?q?=C3=A9=40x?= {INVALID},\r\n B <b@x>\r\n"),
        ('To: "A, B" <a@x>, C <é@x>', f'To: "A, B" <a@x>, C {INVALID}\r\n'),
        ('To: "é, \\"b\\"" <a@x>', "To: =?utf-8?q?=C3=A9=2C_=22b=22?= <a@x>\r\n"),
        ('To: "B \\"C\\"" <é@x>', f'To: "B \\"C\\"" {INVALID}\r\n'),
        ("To: a@x (é (b))", "To: a@x (=?utf-8?q?=C3=A9_=28b=29?=)\r\n"),
        ("To: a@x (b, c), D <é@x>", f"To: a@x (b, c), D {INVALID}\r\n"),
        ("To: <@a,@b:c@é> (d)", f"To: =?utf-8?q?=40a=2C=40b=3Ac=40=C3=A9?=\r\n {INVALID} (d)\r\n"),
        ("To: B <é@[IPv6:2001:db8::1]>", f"To: B {INVALID}\r\n"),
        ("To: friends: a@x, B <é@x>; , c@x", f"To: friends: a@x, B {INVALID}; c@x\r\n"),
        ("To: Gäste:;", "To: =?utf-8?q?G=C3=A4ste?=: ;\r\n"),
        ("To: Gäste: a@x;", "To: =?utf-8?q?G=C3=A4ste?=: a@x;\r\n"),
        ("To: a@x; B <é@x>", f"To: a@x; B {INVALID}\r\n"),
        ("To: =?utf-8?q?=C3=A9?= <é@x>", f"To: =?utf-8?q?=C3=A9?= {INVALID}\r\n"),
        (
            "To: =?utf-8?q?=C3=A9?= ü B <a@x>",
            "To: =?utf-8?q?=C3=A9?= =?utf-8?b?IMO8?= B <a@x>\r\n",
        ),
        ("To: Jürgen\r\n\t<j@x.example>", "To: =?utf-8?q?J=C3=BCrgen?= <j@x.example>\r\n"),
        ("To: Jürgen\r\n\t(\r\n b) <j@x>", "To: =?utf-8?q?J=C3=BCrgen?= <j@x> ( b)\r\n"),
        ("To: a@x <é@x>", f'To: "a@x" {INVALID}\r\n'),
        ("To: B <a@x> <é@x>", f"To: B {INVALID}\r\n"),
        ("To: B <a@x> <c@x> é", f"To: B =?utf-8?b?w6k=?= {INVALID}\r\n"),
        ("to : Jürgen <j@x>", "to: =?utf-8?q?J=C3=BCrgen?= <j@x>\r\n"),
    ],
)
def test_what_is_ascii_in_an_address_field_stays(field, expected):
    assert expected == shown(field)


@pytest.mark.parametrize(
    "malformed",
    [
        "é <",
        "<é",
        '"é',
        "(é",
        "é (",
        "[é",
        "é>",
        "é,",
        "é;",
        ":é",
        "é:",
        "é\\",
        '"é\\',
        "(é\\",
        "@é",
    ],
)
def test_a_malformed_address_field_is_shown_in_ascii(malformed):
    assert shown(f"To: {malformed}").startswith("To: ")


def test_a_return_path_has_no_display_name():
    assert f"Return-Path: {INVALID}\r\n" == shown("Return-Path: <fréd@example.com> (Fréd)")
    assert "Return-Path: <a@x>\r\n" == shown("Return-Path: <a@x> (Fréd)")


def test_addresses_elsewhere_are_no_addresses():
    assert "" == shown("Received: from a by b for <fréd@example.com>; date")
    assert "" == shown("Disposition-Notification-To: <fréd@example.com>")


# --- MIME parameters (RFC 6858 s2.2) ---


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ('Content-Disposition: attachment; filename="é"', "Content-Disposition: attachment"),
        (
            'Content-Disposition: attachment; filename="é;b"; size=1',
            "Content-Disposition: attachment; size=1",
        ),
        (
            'Content-Type: text/plain; name=é; charset="a;b"',
            'Content-Type: text/plain; charset="a;b"',
        ),
        ("Content-Type: text/plain; é=b; charset=a", "Content-Type: text/plain; charset=a"),
        (
            "Content-Disposition: inline; filename=é; filename*=utf-8''%C3%A9",
            "Content-Disposition: inline; filename*=utf-8''%C3%A9",
        ),
        (
            'Content-Disposition: inline; a=b; filename*0="c"; FileName*1="é"; filename*2*=d',
            "Content-Disposition: inline; a=b",
        ),
        ("Content-Type: text/plain (é); charset=a", "Content-Type: text/plain; charset=a"),
        ("Content-Type: text/plain;; name=é;", "Content-Type: text/plain"),
    ],
)
def test_parameters_outside_ascii_are_cut(field, expected):
    assert f"{expected}\r\n" == shown(field)


@pytest.mark.parametrize("value", ["text/é; charset=a", "é", "; name=é", "(é)"])
def test_a_field_whose_value_is_outside_ascii_goes_with_its_parameters(value):
    assert "" == shown(f"Content-Type: {value}")


# --- Subject (RFC 6858 s2.3) ---


@pytest.mark.parametrize(
    "subject",
    [
        "Grüße",
        "Re: Grüße aus München (2)",
        "Re:  Grüße   aus  München",
        "あ" * 300,
        "é a" * 300,
        "e\u0301 \U0001f4e7 \u2028",
        "=?é?=",
        "a_b=é?",
    ],
)
def test_a_subject_outside_ascii_is_encoded(subject):
    field = shown(f"Subject: {subject}")

    assert subject == decoded(field.removeprefix("Subject: ").rstrip("\r\n"))
    assert max(map(len, field.split("\r\n"))) <= 76


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("=?utf-8?q?=C3=A9?= ü", "é ü"),
        ("ü =?utf-8?q?=C3=A9?=", "ü é"),
        ("ü =?utf-8?b?w6k=?= =?iso-8859-1?q?=E9?= b ü c", "ü éé b ü c"),
        ("a ü =?unknown?q?=C3=A9", "a ü =?unknown?q?=C3=A9"),
    ],
)
def test_encoded_words_that_were_there_are_shown_as_before(subject, expected):
    assert expected == decoded(shown(f"Subject: {subject}").removeprefix("Subject: ").rstrip())


def test_only_the_words_outside_ascii_and_those_between_are_encoded():
    assert "Subject: Re: =?utf-8?q?Gr=C3=BC=C3=9Fe_from_M=C3=BCnchen?= (2)\r\n" == shown(
        "Subject: Re: Grüße from München (2)"
    )


def test_a_folded_subject_is_encoded_as_one_line():
    field = shown("Subject: Grüße\r\n aus\r\n\tMünchen\x00\rx")

    assert "Grüße aus München  x" == decoded(field.removeprefix("Subject: ").rstrip("\r\n"))


# --- Other fields (RFC 6858 s2.4) ---


@pytest.mark.parametrize(
    "name", ["Comments", "Keywords", "X-Note", "Message-ID", "Content-Description", "Größe", "a b"]
)
def test_each_other_field_outside_ascii_is_removed(name):
    assert "" == shown(f"{name}: é\r\n folded")


def test_each_other_field_in_ascii_stays_as_it_is():
    message = "X: a\n\tb\r\nSubject: é\nNo field\nReceived:  c\r\n\r\n\xe9\n".encode()

    expected = "X: a\n\tb\r\nSubject: =?utf-8?b?w6k=?=\r\nNo field\nReceived:  c\r\n\r\n\xe9\n"
    assert expected.encode() == surrogate(message)


# --- What is left alone ---


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\r\n",
        b"\n\xc3\xa9\n",
        b"Subject: a\n\n\xc3\xa9\r\n.\r\n\x00\xff",
        b"Subject: a",
        b"Subject: a\r\n\r\n",
        b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\n\xc3\xa9\n--b--\n\xc3\xa9",
    ],
)
def test_a_message_with_ascii_headers_passes_as_it_is(message):
    downgrader = Downgrader()

    assert message == downgrader.feed(message) + downgrader.end()
    assert not downgrader.changed


def test_a_chunk_with_nothing_to_change_or_hold_is_returned_itself():
    downgrader = Downgrader()
    chunks = [b"Content-Type: multipart/mixed; boundary=b\r\n\r\n", b"text\r\n", b"--b\r\n\r\ntext"]

    assert [id(chunk) for chunk in chunks] == [id(downgrader.feed(chunk)) for chunk in chunks]


@pytest.mark.parametrize(
    "octets", [b"\xe9", b"\xc3", b"\xc3\xa9 \xff", b"\xc0\xaf", b"\xed\xa0\x80"]
)
def test_a_header_block_that_is_not_valid_utf8_goes_out_as_stored(octets):
    message = b"To: \xc3\xa9\r\nSubject: " + octets + b"\r\n\r\nbody\r\n"

    assert message == surrogate(message)


def test_each_header_block_is_judged_on_its_own():
    message = (
        b"Content-Type: multipart/mixed; boundary=b\nX: \xe9\n\n--b\nX: %b\n\n--b\nX: \xe9\n\n"
    )

    assert message % b"a" == surrogate(message % b"a")
    assert message.replace(b"X: %b\n", b"") == surrogate(message % b"\xc3\xa9")


def test_a_message_that_begins_with_no_field_has_no_header():
    message = "Grüße\r\nSubject: é\r\n\r\n".encode()

    assert message == surrogate(message)


def test_the_line_of_an_mbox_is_no_text():
    assert b"From a\nSubject: b\n\n" == surrogate("From a\nX: é\nSubject: b\n\n".encode())
    assert b"Subject: b\n\n" == surrogate("From é\nSubject: b\n\n".encode())


def test_a_header_does_not_come_to_begin_with_text():
    """A client would take the fields behind it for the body."""
    assert b"Subject: b\n\n" == surrogate("X: é\ntext\nSubject: b\n\n".encode())


@pytest.mark.parametrize("message", ["X: a\nTo: Jürgen <j@x>", "X: a\nTo: Jürgen\n <j@x>\n"])
def test_a_header_may_end_with_the_message(message):
    assert b"X: a\nTo: =?utf-8?q?J=C3=BCrgen?= <j@x>\r\n" == surrogate(message.encode())


# --- Structure: X: é lines go where a header is, and stay in bodies ---


def structure(text, **limits):
    return surrogate(text.encode(), **limits).decode()


def multipart(boundary, *parts, subtype="mixed"):
    lines = "".join(f"--{boundary}\n{part}\n" for part in parts)
    return f"Content-Type: multipart/{subtype}; boundary={boundary}\n\n{lines}--{boundary}--\n"


def test_the_headers_of_parts_are_downgraded():
    text = multipart("b", "X: é\nY: a\n\nX: é", "X: é\n\nX: é") + "X: é"

    assert multipart("b", "Y: a\n\nX: é", "\nX: é") + "X: é" == structure(text)


def test_preamble_and_epilogue_are_no_headers():
    text = "Content-Type: multipart/mixed; boundary=b\n\nX: é\n\nX: é\n--b--\nX: é\n--b\nX: é\n\n"

    assert text == structure(text)


def test_multiparts_nest():
    inner = multipart("b", "X: é\n\nX: é")
    text = multipart("c", inner + "X: é", "X: é\n\n")

    expected = multipart("c", multipart("b", "\nX: é") + "X: é", "\n")
    assert expected == structure(text)


def test_a_delimiter_may_be_the_prefix_of_another():
    text = multipart("b", multipart("bb", "X: é\n\nX: é\n--b x\n--bbb\n--b-"), "X: é\n\n")

    expected = multipart("b", multipart("bb", "\nX: é\n--b x\n--bbb\n--b-"), "\n")
    assert expected == structure(text)


def test_a_missing_close_delimiter_ends_with_the_outer_part():
    inner = multipart("b", "X: é\n\nX: é").removesuffix("--b--\n")
    text = multipart("c", inner, "X: é\n\n--b\nX: é\n\n")

    expected = multipart("c", inner.replace("X: é\n", "", 1), "\n--b\nX: é\n\n")
    assert expected == structure(text)


def test_a_delimiter_ends_a_header_that_has_no_body():
    text = "Content-Type: multipart/mixed; boundary=b\n\n--b\nX: é\n--b\nX: é\nY: a\n--b--\nX: é"

    expected = "Content-Type: multipart/mixed; boundary=b\n\n--b\n--b\nY: a\n--b--\nX: é"
    assert expected == structure(text)


@pytest.mark.parametrize("line", ["--b \t\r\n", "--b\r\n", "--b\n"])
def test_white_space_may_follow_a_delimiter(line):
    text = f"Content-Type: multipart/mixed; boundary=b\n\n{line}X: é\n\n"

    assert text.replace("X: é\n", "") == structure(text)


@pytest.mark.parametrize(
    "content",
    [
        'multipart/mixed; boundary="b"',
        "MULTIPART/Mixed;\r\n\tBOUNDARY = b",
        "multipart/mixed (a; b); charset=a ; boundary=b (c)",
        'multipart/mixed; name="; boundary=c"; boundary="\\b"',
        "multipart/mixed; boundary=b; boundary=c; name=é",
        'multipart/mixed; boundary="b',
    ],
)
def test_a_boundary_is_read_as_a_client_reads_it(content):
    assert structure(f"Content-Type: {content}\n\n--b\nX: é\n\n").endswith("\n\n--b\n\n")


@pytest.mark.parametrize(
    "content",
    [
        "multipart/mixed",
        'multipart/mixed; boundary=""',
        "text/plain; boundary=b",
        "text/é; boundary=b",
        f"multipart/mixed; boundary={'b' * 1000}",
    ],
)
def test_without_a_boundary_there_are_no_parts(content):
    text = f"Content-Type: {content}\n\n--b\nX: é\n\n--\nX: é\n\n"

    assert structure(text).endswith("\n--b\nX: é\n\n--\nX: é\n\n")


def test_a_line_that_is_too_long_is_no_delimiter():
    text = f"Content-Type: multipart/mixed; boundary=b\n\n--b{' ' * 1000}\nX: é\n\n"

    assert text == structure(text)


@pytest.mark.parametrize("subtype", ["rfc822", "global", "RFC822 (a)"])
def test_the_header_of_an_enclosed_message_is_downgraded(subtype):
    message = f"Content-Type: message/{subtype}\n\nX: é\n\nX: é"

    assert message.replace("X: é\n", "", 1) == structure(message)
    assert multipart("b", message.replace("X: é\n", "", 1)) == structure(multipart("b", message))


@pytest.mark.parametrize("encoding", ["base64", "Quoted-Printable"])
def test_an_encoded_message_is_a_body(encoding):
    """RFC 6532 s3.7 lets message/global be encoded: what looks like a header there is none."""
    text = f"Content-Type: message/global\nContent-Transfer-Encoding: {encoding}\n\nX: é\n\n"

    assert text == structure(text)
    assert text.replace(encoding, "8BIT").replace("X: é\n", "") == structure(
        text.replace(encoding, "8BIT")
    )


def test_the_parts_of_a_digest_are_messages():
    """RFC 2046 s5.1.5: unless they say that they are something else."""
    text = multipart("b", "\nX: é\n", "Content-Type: text/plain\n\nX: é", subtype="digest")

    assert text.replace("X: é\n", "", 1) == structure(text)


def test_a_boundary_that_is_open_stays_the_outer_one():
    text = multipart("b", multipart("b", "\nX: é\n\nX: é"), subtype="digest")

    assert text.replace("X: é\n", "", 1) == structure(text)


def test_the_structure_is_that_of_the_surrogate():
    """A part loses a Content-Type that ASCII can't show, and is a message then in a digest."""
    text = multipart("b", "Content-Type: text/é\n\nX: é\n", subtype="digest")

    assert multipart("b", "\n", subtype="digest") == structure(text)


# --- Limits ---


def test_in_a_header_over_the_limit_each_octet_outside_ascii_is_substituted():
    header = "To: é\n" + "X: é\n" * 10

    assert header.replace("é", "\x1a\x1a") + "\né" == structure(header + "\né", header_limit=66)
    assert "To: =?utf-8?b?w6k=?= <" in structure(header + "\né", header_limit=67)


def test_an_ascii_header_over_the_limit_passes_as_it_is():
    message = b"Subject: " + b"a" * downgrade.HEADER_LIMIT * 2

    assert message == surrogate(message, 65536)


def test_no_more_than_the_limit_is_held():
    downgrader = Downgrader(header_limit=100)
    fed = sum(len(downgrader.feed(b"X: a\r\n")) for _ in range(1000))

    assert 6000 - 106 <= fed


def test_no_more_than_a_line_is_held_of_a_body():
    downgrader = Downgrader()
    downgrader.feed(b"Content-Type: multipart/mixed; boundary=b\n\n--b")

    fed = sum(len(downgrader.feed(b"     ")) for _ in range(1000))

    assert 5000 - downgrade.LINE_LIMIT <= fed


def test_parts_over_the_limit_go_out_as_stored():
    text = multipart("b", *["X: é\n\n"] * 3)

    assert text.replace("X: é\n", "", 2) == structure(text, parts_limit=3)


def test_multiparts_nested_over_the_limit_are_bodies():
    text = multipart("b", multipart("c", "X: é\n\n"), "X: é\n\n")

    expected = multipart("b", multipart("c", "X: é\n\n"), "\n")
    assert expected == structure(text, nesting_limit=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["To", "Content-Type", "Subject"])
@pytest.mark.parametrize(
    "hostile",
    ["(", "()", "(\\", ",", ":;", "<", "<a ", '"', '"\\', "[", "a ", "é,", "é ", "*0=;", "\n ",
     "é =?a?q?b?= ", "\na:é", "\n-"],
)  # fmt: skip
def test_time_grows_no_faster_than_the_header(name, hostile):
    """A quadratic step would take minutes."""
    message = f"{name}: é{hostile * ((1 << 20) // len(hostile))}\n\n".encode()

    start = time.process_time()
    octets = surrogate(message, 65536, header_limit=4 << 20)

    assert time.process_time() - start < 12
    assert octets.isascii()


@pytest.mark.slow
@pytest.mark.parametrize("line", [b"X: a\n", b"--\n", b"aa", b"\n "])
def test_time_grows_no_faster_than_the_number_of_chunks(line):
    start = time.process_time()
    surrogate(b"X: a\n" + line * (downgrade.HEADER_LIMIT // len(line)), 1)

    assert time.process_time() - start < 12


@pytest.mark.slow
@pytest.mark.parametrize("hostile", ["--b\n", "--b\n\n", "--c\n", "--b ", "-", "\n", "\n--"])
def test_time_grows_no_faster_than_the_body(hostile):
    head = "Content-Type: multipart/mixed; boundary=b\n\n"
    message = (head + hostile * ((1 << 20) // len(hostile))).encode()

    start = time.process_time()
    surrogate(message, 100)

    assert time.process_time() - start < 12


# --- Sizes ---


@pytest.mark.parametrize(
    ("message", "size"),
    [
        (b"", 0),
        (b"\n", 2),
        (b"A: b", 6),
        (b"A: b\r\n\r\n", 8),
        (b"A: b\n\n\n.\n", 13),
        (b"A: b\n\n\r", 11),
        (b"X: \xc3\xa9", 0),
        (b"X: \xc3\xa9\n\n", 2),
        (b"Subject: \xc3\xa9\n\na\r\nb\n", 35),
    ],
)
def test_the_size_is_that_of_crlf_line_ends_without_stuffing(message, size):
    assert size == surrogate_size([message]) == len(wire_form(surrogate(message)))


def test_a_surrogate_of_the_same_size_is_not_taken_for_the_message():
    """`ascii_size` equal to `size` says that a message needs no surrogate."""
    message = b"Subject: \xc3\xa9\r\nX-Longer: \xc3\xa9\r\n\r\n"
    assert len(message) == len(surrogate(message))

    assert surrogate_size([message]) is None


# --- Whatever comes ---

PIECES = [
    *(
        b"\n",
        b"\r\n",
        b"\n\n",
        b"\r",
        b" ",
        b"\t",
        b"--",
        b"-",
        b"--b",
        b"--c",
        b"b",
        b":",
        b"\x1a",
    ),
    *(b"\n--b\n", b"\n--c\n", b"\n--b--\n", b"\r\n--c--\r\n", b"\n--bb\n", b"From ", b"digest"),
    *(
        b"Content-Type: multipart/mixed; boundary=b\n",
        b"Content-Type: multipart/digest; boundary=c",
    ),
    *(b"Content-Type: message/rfc822\n", b"\nContent-Type: text/", b"; boundary=bb", b"text\n"),
    *(b"To: ", b"Subject: ", b"X: ", b"Return-Path: <", b"Content-Disposition: a; b=", b'"', b"\\"),
    *("é".encode(), "é\n".encode(), b"\xe9", b"\xc3", b"<", b">", b"(", b")", b",", b";", b"a@b"),
]
LINES = [
    *(
        "",
        "",
        "é",
        "--b",
        "--b",
        "--c",
        "--b--",
        "--c--",
        "X: é",
        "X: a",
        " é",
        "To: é@b,",
        "To: b",
    ),
    "Content-Type: multipart/mixed; boundary=b",
    "Content-Type: multipart/digest; boundary=c; name=é",
    "Content-Type: message/rfc822",
    "Content-Type: text/é",
]
octets = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from(PIECES)).map(b"".join),
    st.lists(st.sampled_from(LINES), max_size=40).map(lambda lines: "\n".join(lines).encode()),
)


@given(octets, st.lists(st.integers(0, 300)), st.sampled_from([20, 60, 1000]))
@example(b"X: a\n\r\nX: \xc3\xa9", [6], 1000)
def test_each_split_gives_the_same(message, cuts, limit):
    whole = Downgrader(header_limit=limit)
    expected = whole.feed(message) + whole.end()

    parts = Downgrader(header_limit=limit)
    edges = [0, *sorted(cuts), len(message)]
    chunks = [message[start:end] for start, end in pairwise(edges)]
    found = b"".join([*map(parts.feed, chunks), parts.end()])

    assert expected == found == surrogate(message, 1, header_limit=limit)
    assert (whole.changed, whole.size) == (parts.changed, parts.size)


@given(octets, st.sampled_from([20, 60, 1000]))
def test_a_surrogate_is_its_own_surrogate(message, limit):
    once = surrogate(message, header_limit=limit)

    again = Downgrader(header_limit=limit)

    assert once == again.feed(once) + again.end()
    assert not again.changed


@given(octets)
def test_the_size_is_what_retr_sends(message):
    downgrader = Downgrader()
    encoder = MessageEncoder()
    for octet in message:
        encoder.feed(downgrader.feed(bytes([octet])))
    encoder.feed(downgrader.end())
    encoder.end()

    assert encoder.octets == downgrader.size
    assert surrogate_size([message]) in {encoder.octets, None}


@given(octets)
def test_it_changes_nothing_unless_it_says_so(message):
    downgrader = Downgrader()

    found = downgrader.feed(message) + downgrader.end()

    assert (found != message) == downgrader.changed


@given(octets)
def test_no_header_of_valid_utf8_has_an_octet_outside_ascii(message):
    header = re.sub(rb"\n(?:\r?\n)+", b"\n", b"A: b\n" + message + b"\n") + b"\n"
    shown_header = surrogate(header).partition(b"\n\n")[0]

    try:
        header.partition(b"\n\n")[0].decode()
    except UnicodeDecodeError:
        assert shown_header == header.partition(b"\n\n")[0]
    else:
        assert shown_header.isascii()


# --- Whole messages, against the standard library's parser ---

words = st.text('aé あ()<>@,;:"\\=?.', max_size=12)
fields = st.one_of(
    st.builds(
        "{}: {}".format, st.sampled_from([*ADDRESS_FIELDS, "Subject", "X", "Received"]), words
    ),
    st.builds("Content-Disposition: attachment; filename={}".format, words),
    st.builds("Subject: a\n\t{}".format, words.map(lambda text: f"b{text}")),
)
bodies = st.lists(words.filter(lambda text: not text.startswith("--")), max_size=3).map("\n".join)


def _leaf(head, body):
    return "".join(f"{field}\n" for field in ["A: b", *head]) + f"\n{body}"


def _enclosed(head, inner):
    return _leaf(["Content-Type: message/rfc822", *head], inner)


def _multipart(head, inner):
    boundary = f"b{abs(hash(tuple(inner)))}"
    parts = "".join(f"--{boundary}\n{part}\n" for part in inner)
    content = f"Content-Type: multipart/mixed; boundary={boundary}"
    return _leaf([content, *head], f"pré\n{parts}--{boundary}--\né")


heads = st.lists(fields, max_size=3)
messages = st.recursive(
    st.builds(_leaf, heads, bodies),
    lambda inner: st.one_of(
        st.builds(_enclosed, heads, inner),
        st.builds(_multipart, heads, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=6,
)


@given(messages, st.sampled_from(["\n", "\r\n"]), st.integers(1, 100))
def test_another_parser_finds_ascii_headers_and_the_same_bodies(text, line_end, chunk_size):
    message = text.replace("\n", line_end).encode()

    before = list(email.message_from_bytes(message).walk())
    after = list(email.message_from_bytes(surrogate(message, chunk_size)).walk())

    assert [part.get_content_type() for part in before] == [p.get_content_type() for p in after]
    assert [part._payload for part in before if not part.is_multipart()] == [
        part._payload for part in after if not part.is_multipart()
    ]
    assert all(str(value).isascii() for part in after for _, value in part.raw_items())
