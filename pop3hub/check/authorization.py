"""The checks before login: greeting, command lines, CAPA, USER and PASS."""

# ruff: noqa: D401  # a check's docstring states the rule, as the report prints it
from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from pop3hub.check.client import NoReply
from pop3hub.check.outcomes import Failure, Remark, Skip, refuse, refuse_login
from pop3hub.check.probe import TRANSIENT, end_in_sync
from pop3hub.check.rules import MUST, POLICY, SHOULD, Checks

if TYPE_CHECKING:
    from pop3hub.check.probe import Probe

CHECKS = Checks()

# IANA's "POP3 Extension Mechanism" registry, complete.
REGISTERED = frozenset(
    {"TOP", "USER", "SASL", "RESP-CODES", "LOGIN-DELAY", "PIPELINING", "EXPIRE", "UIDL"}
    | {"IMPLEMENTATION", "STLS", "AUTH-RESP-CODE", "UTF8", "LANG"}
)
MAX_COMMAND = 255  # octets with CRLF (RFC 2449 s4)
MAX_RESPONSE = 512  # octets with CRLF (RFC 1939 s3)
SEGMENT_PAUSE = 0.02  # seconds; without it the octets may arrive together

_MSG_ID = re.compile(rb"<[^<>\s]+@[^<>\s]+>")
_CAPABILITY = re.compile(rb"[\x21-\x2d\x2f-\x7f]+(?: [\x21-\x7f]+)*\r\n")


@CHECKS.add("greeting", "RFC 1939 s4, RFC 2449 s3", MUST)
def greeting(probe: Probe) -> None:
    """The greeting is one positive line with at most one timestamp."""
    line = probe.dial().greeting
    if not line.startswith(b"+OK"):
        raise Failure(sent=b"", expected="a line that begins with +OK", came=line)
    if len(line) > MAX_RESPONSE:
        raise Failure(sent=b"", expected=f"at most {MAX_RESPONSE} octets", came=line)
    stamps = line.count(b"<")
    if stamps > 1 or (stamps and not _MSG_ID.search(line)):
        raise Failure(sent=b"", expected="at most one '<', in <local@domain>", came=line)


@CHECKS.add("unknown-command", "RFC 1939 s3", MUST)
def unknown_command(probe: Probe) -> None:
    """An unknown command is answered with -ERR."""
    client = probe.secure()
    refuse(client.ask("XYZW"), "the command is unknown")
    try:
        reply = client.ask("QUIT")
    except NoReply as exc:
        raise Remark(
            "the connection is closed after one unknown command, which old clients send to probe"
        ) from exc
    if not reply.ok:
        raise Failure(sent=reply, expected="+OK", came=reply)


@CHECKS.add("command-case", "RFC 1939 s3", MUST)
def command_case(probe: Probe) -> None:
    """Commands are understood in upper, lower and mixed case."""
    for command in ("quit", "qUiT"):
        reply = probe.secure().ask(command)
        if not reply.ok:
            raise Failure(sent=reply, expected="+OK, as for QUIT", came=reply)


@CHECKS.add("quit-authorization", "RFC 1939 s4", MUST)
def quit_authorization(probe: Probe) -> None:
    """QUIT before login is answered with +OK, then the connection is closed."""
    client = probe.secure()
    reply = client.ask("QUIT")
    if not reply.ok:
        raise Failure(sent=reply, expected="+OK", came=reply)
    rest = client.read_to_end()
    if rest:
        raise Failure(sent=reply, expected="nothing more after the reply", came=rest)


@CHECKS.add("state-authorization", "RFC 1939 s3", MUST)
def state_authorization(probe: Probe) -> None:
    """The commands of TRANSACTION are refused before login."""
    commands = ("STAT", "LIST", "RETR 1", "DELE 1", "NOOP", "RSET", "TOP 1 0", "UIDL")
    for _, reply in probe.each(commands, probe.secure):
        refuse(reply, "not logged in")


@CHECKS.add("segments", "RFC 1939 s3", MUST)
def segments(probe: Probe) -> None:
    """A command is understood when its octets arrive one at a time."""
    client = probe.secure()
    for octet in b"QUIT\r\n":
        client.send(bytes((octet,)))
        time.sleep(SEGMENT_PAUSE)
    reply = client.read_reply(sent=b"QUIT\r\n")
    if not reply.ok:
        raise Failure(sent=b"QUIT\\r\\n, octet by octet", expected="+OK", came=reply)


@CHECKS.add("command-length", "RFC 2449 s4", MUST)
def command_length(probe: Probe) -> None:
    """A command of 255 octets gets one reply, and the session stays in sync."""
    if probe.table("secure") is None:
        raise Skip("CAPA is not implemented: RFC 1939 alone allows 47 octets")
    client = probe.secure()
    client.ask("USER " + "u" * (MAX_COMMAND - len("USER \r\n")))
    end_in_sync(client)


@CHECKS.add("line-too-long", "RFC 1939 s3", POLICY)
def line_too_long(probe: Probe) -> str | None:
    """A line of 4,000 octets gets one -ERR, and the session stays in sync."""
    client = probe.secure()
    reply = client.ask("XYZW " + "x" * 4000)
    refuse(reply, "the line is longer than any command")
    try:
        end_in_sync(client)
    except NoReply as exc:
        if not exc.closed:
            raise
        return "the connection is closed after that"
    return None


@CHECKS.add("pipelining", "RFC 2449 s6.6", MUST, needs="PIPELINING")
def pipelining(probe: Probe) -> None:
    """Commands in one segment are answered one by one, in order."""
    alone = probe.secure().ask("CAPA", multi=True)
    client = probe.secure()
    client.send(b"CAPA\r\nSTAT\r\nCAPA\r\nQUIT\r\n")
    for command, expected in ((b"CAPA", True), (b"STAT", False), (b"CAPA", True), (b"QUIT", True)):
        reply = client.read_reply(multi=command == b"CAPA", sent=command + b"\r\n")
        if reply.ok != expected or (command == b"CAPA" and reply.lines != alone.lines):
            raise Failure(
                sent=b"CAPA, STAT, CAPA, QUIT in one segment",
                expected=f"the reply to {command.decode()} next, as when it is sent alone",
                came=reply,
            )


@CHECKS.add("capa", "RFC 2449 s3, s5", MUST)
def capa(probe: Probe) -> None:
    """CAPA lists one capability per line, in valid syntax, within 512 octets."""
    reply = probe.secure().ask("CAPA", multi=True)
    if reply.lines is None:
        raise Skip("CAPA is not implemented")
    for line in reply.lines:
        if len(line) > MAX_RESPONSE or not _CAPABILITY.fullmatch(line):
            raise Failure(sent=reply, expected="TAG [SP parameter]... CRLF", came=line)


@CHECKS.add("capa-registered", "RFC 2449 s9", SHOULD)
def capa_registered(probe: Probe) -> None:
    """Each capability is registered, or is private and begins with X."""
    table = probe.table("secure")
    if table is None:
        raise Skip("CAPA is not implemented")
    unknown = [tag for tag in table if tag not in REGISTERED and not tag.startswith("X")]
    if unknown:
        raise Failure(sent=b"CAPA\r\n", expected="registered tags", came=" ".join(unknown).encode())


@CHECKS.add("capa-user", "RFC 2449 s6.2", SHOULD, needs="USER")
def capa_user(probe: Probe) -> None:
    """USER is not announced where it is refused."""
    if "USER" not in probe.capabilities("clear"):
        return
    # A name that nobody has: a server may refuse it by RFC 1939 s7, but then after TLS too.
    here = probe.connect().ask("USER no-such-user")
    if here.err and (probe.target.security != "stls" or probe.secure().ask("USER no-such-user").ok):
        raise Failure(sent=here, expected="+OK, or no USER in CAPA", came=here)


@CHECKS.add("user-argument", "RFC 1939 s7 USER", MUST)
def user_argument(probe: Probe) -> None:
    """USER without a name is refused."""
    for _, reply in probe.each(("USER", "USER "), probe.secure):
        refuse(reply, "a name is required")


@CHECKS.add("pass-without-user", "RFC 1939 s7 PASS", MUST)
def pass_without_user(probe: Probe) -> None:
    """PASS is refused when no USER came before it."""
    refuse(probe.secure().ask("PASS x"), "PASS needs a successful USER before it")


@CHECKS.add("login", "RFC 1939 s4", MUST, login=True)
def login(probe: Probe) -> None:
    """The given user can log in."""
    client = probe.secure()
    reply = probe.authenticate(client)
    if reply.ok:
        probe.share(client)
    elif reply.code in TRANSIENT:
        raise Skip(f"try again later: {probe.target.show(reply.line)}")
    else:
        probe.login_refused = "login refused"
        raise Failure(sent=reply, expected="+OK", came=reply)


@CHECKS.add("failed-login", "RFC 1939 s7 USER, PASS", MUST)
def failed_login(probe: Probe) -> str | None:
    """A user who does not exist cannot log in."""
    failed = probe.failed_login()
    if failed.password is None:
        return "USER refuses an unknown name, so names can be found out"
    refuse_login(failed.password, "there is no such user")
    return None


@CHECKS.add("auth-resp-code", "RFC 3206 s5, s6", MUST, needs="AUTH-RESP-CODE")
def auth_resp_code(probe: Probe) -> None:
    """A failed login carries [AUTH] where AUTH-RESP-CODE is announced."""
    reply = probe.failed_login().password
    if reply is None:
        raise Skip("the name was refused at USER")
    if reply.code in TRANSIENT:
        raise Skip(f"try again later: {probe.target.show(reply.line)}")
    if reply.code is None or reply.code.partition(b"/")[0] != b"AUTH":
        raise Failure(sent=reply, expected="-ERR [AUTH]", came=reply)


@CHECKS.add("auth-resp-code-announced", "RFC 3206 s5", SHOULD)
def auth_resp_code_announced(probe: Probe) -> None:
    """A server that sends [AUTH] announces AUTH-RESP-CODE."""
    failed = probe.failed_login()
    reply = failed.password or failed.user
    if reply.code == b"AUTH" and "AUTH-RESP-CODE" not in probe.capabilities():
        raise Failure(sent=reply, expected="AUTH-RESP-CODE in CAPA", came=reply)
