"""The checks of RETR and TOP.

Each looks for messages that can show a fault: it reads on from the smallest until one has what the
rule is about, and is skipped where none has (`Probe.messages` bounds that).
"""

# ruff: noqa: D401  # a check's docstring states the rule, as the report prints it
from __future__ import annotations

from typing import TYPE_CHECKING

from pop3hub.check.outcomes import Failure, Remark, Skip
from pop3hub.check.rules import MUST, Checks

if TYPE_CHECKING:
    from collections.abc import Callable

    from pop3hub.check.client import Reply
    from pop3hub.check.probe import Probe

CHECKS = Checks()


@CHECKS.add("retr-size", "RFC 1939 s5 LIST, s11", MUST, login=True)
def retr_size(probe: Probe) -> str:
    """The size in LIST is the number of octets that RETR sends, before dot-stuffing."""
    listed = probe.listing()
    replies = dict(probe.messages(stuffed))
    in_sync(probe)
    sent = {number: octets(reply) for number, reply in replies.items()}
    wrong = {n: size for n, size in sent.items() if size != listed[n]}
    short = [str(n) for n, size in wrong.items() if size == listed[n] + 2]
    failed = {n: size for n, size in wrong.items() if str(n) not in short}
    if failed and "UTF8" in probe.capabilities():
        surrogates = [n for n in failed if utf8_size_is_right(probe, n)]
        if len(surrogates) == len(failed):
            raise Remark(
                f"LIST has the size of message {', '.join(map(str, surrogates))}"
                " in UTF-8, not of the surrogate that RETR sends: a SHOULD (RFC 6856 s2.1)"
            )
    for number, size in failed.items():
        came = f"{size} octets".encode()
        raise Failure(sent=b"RETR %d\r\n" % number, expected=f"{listed[number]} octets", came=came)
    if short:
        # A message may lack the final CRLF, which RETR cannot express.
        raise Remark(f"LIST leaves out the final CRLF that RETR sends: message {', '.join(short)}")
    if not any(map(stuffed, replies.values())):
        raise Skip(
            f"the sizes of {len(sent)} messages are right, but none has a line that begins with a"
            " dot, which LIST may count wrongly"
        )
    return f"{len(sent)} messages"


@CHECKS.add("dot-stuffing", "RFC 1939 s3", MUST, login=True)
def dot_stuffing(probe: Probe) -> str:
    """Each message line that begins with a dot is sent with one more dot in front."""
    count = 0
    for _, reply in probe.messages(stuffed):
        for line in reply.lines or ():
            if line.startswith(b"."):
                if not line.startswith(b".."):
                    raise Failure(sent=reply, expected="a second dot in front", came=line)
                count += 1
    # A lone dot that is not stuffed ends the message early: the rest would be the next reply.
    in_sync(probe)
    if not count:
        raise Skip("no message read has a line that begins with a dot")
    return f"{count} lines"


@CHECKS.add("top-headers", "RFC 1939 s7 TOP", MUST, login=True, needs="TOP")
def top_headers(probe: Probe) -> str:
    """TOP n 0 sends the headers and the blank line, and none of the body."""
    return top(probe, 0, body=1)


@CHECKS.add("top-lines", "RFC 1939 s7 TOP", MUST, login=True, needs="TOP")
def top_lines(probe: Probe) -> str:
    """TOP n 2 sends the headers, the blank line and two lines of the body."""
    return top(probe, 2, body=3)


@CHECKS.add("top-whole", "RFC 1939 s7 TOP", MUST, login=True, needs="TOP")
def top_whole(probe: Probe) -> str:
    """TOP n 99999999 sends the whole message, as RETR does."""
    return top(probe, 99999999, body=1, wanted=stuffed)


@CHECKS.add("utf8-surrogate", "RFC 6856 s2.1", MUST, login=True, needs="UTF8")
def utf8_surrogate(probe: Probe) -> str:
    """Without UTF8, no header is sent in UTF-8."""

    def judge(reply: Reply) -> None:
        for line in utf8_headers(reply):
            raise Failure(sent=reply, expected="ASCII, or -ERR [UTF8]", came=line)

    for _, reply in probe.messages():
        judge(reply)
    # Only a session in UTF-8 mode shows which messages have such a header.
    probe.another_login()
    client = probe.login(utf8=True)
    tops = probe.read(client, headers=probe.offers("TOP"))
    found = next((number for number, reply in tops if utf8_headers(reply)), None)
    probe.finish(client)
    if found is None:
        raise Skip("no message read has a header in UTF-8")
    if probe.offers("TOP"):
        judge(probe.session().ask(f"TOP {found} 0", multi=True))
    without = probe.message(found)
    if without is None:
        return f"message {found} is refused with [UTF8]"
    judge(without)
    return f"message {found} has other headers without UTF8"


def stuffed(reply: Reply) -> bool:
    """Tell whether a line of the message begins with a dot."""
    return any(line.startswith(b".") for line in reply.lines or ())


def utf8_headers(reply: Reply) -> list[bytes]:
    """Return the header lines in UTF-8 that are not ASCII; no RFC is about other 8-bit headers."""
    found = []
    for line in reply.body[: blank(reply)]:
        try:
            if line.decode() and not line.isascii():
                found.append(line)
        except UnicodeDecodeError:
            continue
    return found


def octets(reply: Reply) -> int:
    """Return the size of a retrieved message, before dot-stuffing."""
    return sum(len(line) + 2 for line in reply.body)


def utf8_size_is_right(probe: Probe, number: int) -> bool:
    """Tell whether LIST and RETR agree on a message in UTF-8 mode."""
    probe.another_login()
    client = probe.login(utf8=True)
    size = probe.listing(client).get(number)
    reply = client.ask(f"RETR {number}", multi=True)
    probe.finish(client)
    return reply.ok and octets(reply) == size


def in_sync(probe: Probe) -> None:
    """Check that the session answers the command that it is asked."""
    # NOOP may be refused, by a server that is wrong about that; a line of a message is not a reply.
    for _ in range(2):
        reply = probe.session().say("NOOP")
        if not (reply.ok or reply.err):
            raise Failure(
                sent=reply, expected="+OK: the message before it must have ended", came=reply
            )


def blank(reply: Reply) -> int:
    """Return the index of the line that ends the headers, or how many lines there are."""
    body = reply.body
    return body.index(b"") if b"" in body else len(body)


def top(
    probe: Probe, lines: int, *, body: int, wanted: Callable[[Reply], bool] | None = None
) -> str:
    """Compare TOP with what RETR sends, until a message has `body` lines below its headers.

    It must be one that is `wanted` too, but without such a one the rule is not skipped.
    """

    def long(reply: Reply) -> bool:
        return len(reply.body) - blank(reply) - 1 >= body

    def enough(reply: Reply) -> bool:
        return long(reply) and (wanted is None or wanted(reply))

    compared, seen = 0, False
    for number, whole in probe.messages(enough):
        end = blank(whole)
        expected = whole.body[: end + 1 + lines]
        reply = probe.session().ask(f"TOP {number} {lines}", multi=True)
        if reply.lines is None:
            raise Failure(sent=reply, expected="+OK and the start of the message", came=reply)
        came = reply.body
        if end == len(whole.body) and came == [*expected, b""]:
            came = expected  # headers alone: the blank line may be added or not
        if came != expected:
            raise Failure(
                sent=reply,
                expected=difference(expected, came),
                came=difference(came, expected).encode(),
            )
        compared += 1
        seen = seen or long(whole)
    if not seen:
        few = "lines" if body == 1 else f"more than {body - 1} lines"
        raise Skip(f"none of the {compared} messages read has {few} in its body")
    return f"{compared} messages"


def difference(these: list[bytes], those: list[bytes]) -> str:
    """Say how many lines there are, and the first that is not among the others at its place."""
    for index, line in enumerate(these):
        if index >= len(those) or those[index] != line:
            return f"{len(these)} lines, line {index + 1} being {line[:80]!r}"
    return f"{len(these)} lines"
