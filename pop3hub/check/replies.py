"""The checks of all that the server said in the run; they send no commands."""

# ruff: noqa: D401  # a check's docstring states the rule, as the report prints it
from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pop3hub.check.outcomes import Failure, Remark, Skip
from pop3hub.check.rules import MUST, SHOULD, Checks

if TYPE_CHECKING:
    from pop3hub.check.client import Exchange
    from pop3hub.check.probe import Probe

CHECKS = Checks()

# IANA's registry of POP3 response codes (RFC 2449, RFC 3206, RFC 6856), complete.
RESPONSE_CODES = (b"LOGIN-DELAY", b"IN-USE", b"SYS/TEMP", b"SYS/PERM", b"AUTH", b"UTF8")
MAX_RESPONSE = 512  # octets with CRLF (RFC 1939 s3)
BURSTS, AT_ONCE = 4, 5  # how often, and how many connections are opened together

_MSG_ID = re.compile(rb"<[^<>\s]+@[^<>\s]+>")
_CHALLENGE = re.compile(rb"\+[ \r\n]")
_STATUS = re.compile(rb"(?:\+OK|-ERR)(?=[ \r\n])", re.IGNORECASE)
_BRACKET = re.compile(rb"(?:\+OK|-ERR) \[(.*)", re.IGNORECASE | re.DOTALL)
_RESPONSE_CODE = re.compile(rb"([\x21-\x5c\x5e-\x7e]+)\]")


def single(probe: Probe) -> list[Exchange]:
    """Return all exchanges without the challenges of AUTH, which are not replies (RFC 5034)."""
    return [said for said in probe.log if not _CHALLENGE.match(said.line)]


@CHECKS.add("crlf", "RFC 1939 s3", MUST)
def crlf(probe: Probe) -> None:
    """Every line that the server sends ends in CRLF."""
    for said in probe.log:
        for line in (said.line, *said.lines):
            if not line.endswith(b"\r\n"):
                raise Failure(sent=said.sent, expected="CRLF at the end", came=line)


@CHECKS.add("status", "RFC 1939 s3", MUST)
def status(probe: Probe) -> None:
    """Every reply begins with +OK or -ERR, followed by a space or the end of the line."""
    for said in single(probe):
        if not _STATUS.match(said.line):
            raise Failure(sent=said.sent, expected="+OK or -ERR", came=said.line)


@CHECKS.add("status-case", "RFC 1939 s3", MUST)
def status_case(probe: Probe) -> None:
    """+OK and -ERR are in upper case."""
    for said in single(probe):
        found = _STATUS.match(said.line)
        if found and found[0] != found[0].upper():
            raise Failure(sent=said.sent, expected=found[0].upper().decode(), came=said.line)


@CHECKS.add("response-length", "RFC 1939 s3, RFC 2449 s4", MUST)
def response_length(probe: Probe) -> None:
    """The first line of a reply has at most 512 octets."""
    for said in single(probe):
        if len(said.line) > MAX_RESPONSE:
            raise Failure(sent=said.sent, expected="at most 512 octets", came=said.line)


@CHECKS.add("ascii", "RFC 2449 s3, RFC 6856 s3.2", MUST)
def ascii_only(probe: Probe) -> None:
    """Replies are ASCII as long as neither LANG nor UTF8 was accepted."""
    for said in probe.log:
        # LANG's listing has each language's own name in UTF-8, always.
        listing = () if said.sent.upper().startswith(b"LANG") else said.lines
        message = said.sent[:4].upper() in {b"RETR", b"TOP "}
        lines = (said.line,) if message else (said.line, *listing)
        for line in lines:
            if not line.isascii() and not said.negotiated:
                raise Failure(sent=said.sent, expected="ASCII", came=line)


@CHECKS.add("response-code-form", "RFC 2449 s3, s6.4", MUST)
def response_code_form(probe: Probe) -> None:
    """Text that begins with '[' is a response code."""
    for said in single(probe):
        found = _BRACKET.match(said.line)
        if found is None or _RESPONSE_CODE.match(found[1]):
            continue
        if "RESP-CODES" not in probe.capabilities():
            raise Remark(f"text that begins with '[': {probe.target.show(said.line)}")
        raise Failure(sent=said.sent, expected="a response code after '['", came=said.line)


@CHECKS.add("response-code-registered", "RFC 2449 s9", SHOULD)
def response_code_registered(probe: Probe) -> None:
    """Each response code is registered, or adds detail to a registered one."""
    for code, said in codes(probe):
        if not any(code == known or code.startswith(known + b"/") for known in RESPONSE_CODES):
            raise Failure(sent=said.sent, expected="a registered code", came=said.line)


@CHECKS.add("response-code-announced", "RFC 2449 s8", SHOULD)
def response_code_announced(probe: Probe) -> None:
    """A server that sends response codes announces RESP-CODES."""
    for _, said in codes(probe):
        if "RESP-CODES" not in probe.capabilities():
            raise Failure(sent=said.sent, expected="RESP-CODES in CAPA", came=said.line)


@CHECKS.add("greeting-timestamp", "RFC 1939 s7 APOP", MUST)
def greeting_timestamp(probe: Probe) -> str:
    """Each greeting has a different timestamp, which APOP needs."""
    # A clock that is too coarse shows on connections that come close together.
    for _ in range(BURSTS):
        probe.connect_at_once(AT_ONCE)
        probe.tidy()
    found = [_MSG_ID.search(said.line) for said in probe.log if not said.sent]
    stamps = [stamp[0] for stamp in found if stamp]
    if not stamps:
        raise Skip("the greeting has no timestamp: no APOP")
    for index, stamp in enumerate(stamps):
        if stamp in stamps[:index]:
            raise Failure(sent=b"", expected="a different timestamp", came=stamp)
    if len(stamps) == 1:
        raise Skip("only one greeting was seen")
    return f"{len(stamps)} greetings"


def codes(probe: Probe) -> list[tuple[bytes, Exchange]]:
    """Return the response codes that were sent, in upper case."""
    found = []
    for said in single(probe):
        bracket = _BRACKET.match(said.line)
        code = _RESPONSE_CODE.match(bracket[1]) if bracket else None
        if code:
            found.append((code[1].upper(), said))
    return found
