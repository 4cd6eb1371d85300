"""The checks before the login: greeting, command lines, CAPA, STLS, AUTH, LANG and UTF8."""

# ruff: noqa: D401  # a check's docstring states the rule, as the report prints it
from __future__ import annotations

import re
import ssl
import time
from typing import TYPE_CHECKING

from pop3hub.check.client import NoReply, Reply
from pop3hub.check.probe import (
    MUST,
    POLICY,
    SHOULD,
    TRANSIENT,
    Checks,
    Failure,
    Remark,
    Skip,
    capabilities,
    refuse,
)

if TYPE_CHECKING:
    from pop3hub.check.client import Client
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
_LANGUAGE_ITEM = re.compile(rb"[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*(?: .+)?\r\n")
_LANGUAGE_CHANGED = re.compile(rb"\+OK ([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*) ")


@CHECKS.add("greeting", "RFC 1939 s4, RFC 2449 s3", MUST)
def greeting(probe: Probe) -> None:
    """The greeting is one positive line, with at most one time stamp."""
    line = probe.dial().greeting
    if not line.startswith(b"+OK"):
        raise Failure(sent=b"", expected="a line that begins with +OK", came=line)
    if len(line) > MAX_RESPONSE:
        raise Failure(sent=b"", expected=f"at most {MAX_RESPONSE} octets", came=line)
    stamps = line.count(b"<")
    if stamps > 1 or (stamps and not _MSG_ID.search(line)):
        raise Failure(sent=b"", expected="no '<' but in one <local@domain>", came=line)


@CHECKS.add("greeting-timestamp", "RFC 1939 s7 APOP", MUST)
def greeting_timestamp(probe: Probe) -> None:
    """The time stamp for APOP is another one in each greeting."""
    stamps = [_MSG_ID.search(probe.connect().greeting) for _ in range(2)]
    if stamps[0] is None or stamps[1] is None:
        raise Skip("the greeting has no time stamp: no APOP")
    if stamps[0][0] == stamps[1][0]:
        raise Failure(sent=b"", expected="a different time stamp", came=stamps[1][0])


@CHECKS.add("unknown-command", "RFC 1939 s3", MUST)
def unknown_command(probe: Probe) -> None:
    """An unknown command is answered by -ERR."""
    client = probe.secure()
    refuse(client.ask("XYZW"), "the command is unknown")
    try:
        reply = client.ask("QUIT")
    except NoReply as exc:
        raise Remark(
            "the connection is closed after one unknown command; old clients probe"
        ) from exc
    if not reply.ok:
        raise Failure(sent=reply, expected="+OK", came=reply)


@CHECKS.add("command-case", "RFC 1939 s3", MUST)
def command_case(probe: Probe) -> None:
    """Commands are understood in upper, lower and mixed case."""
    for command in ("quit", "qUiT"):
        reply = probe.secure().ask(command)
        if not reply.ok:
            raise Failure(sent=reply, expected="+OK, as to QUIT", came=reply)


@CHECKS.add("quit-authorization", "RFC 1939 s4", MUST)
def quit_authorization(probe: Probe) -> None:
    """QUIT before the login is answered by +OK, then the connection is closed."""
    client = probe.secure()
    reply = client.ask("QUIT")
    if not reply.ok:
        raise Failure(sent=reply, expected="+OK", came=reply)
    rest = client.read_to_end()
    if rest:
        raise Failure(sent=reply, expected="nothing after the reply", came=rest)


@CHECKS.add("state-authorization", "RFC 1939 s3", MUST)
def state_authorization(probe: Probe) -> None:
    """The commands of TRANSACTION are refused before the login."""
    commands = ("STAT", "LIST", "RETR 1", "DELE 1", "NOOP", "RSET", "TOP 1 0", "UIDL")
    for _, reply in probe.each(commands, probe.secure):
        refuse(reply, "nobody has logged in")


@CHECKS.add("segments", "RFC 1939 s3", MUST)
def segments(probe: Probe) -> None:
    """A command is understood when each octet comes by itself."""
    client = probe.secure()
    for octet in b"QUIT\r\n":
        client.send(bytes((octet,)))
        time.sleep(SEGMENT_PAUSE)
    reply = client.read_reply(sent=b"QUIT\r\n")
    if not reply.ok:
        raise Failure(sent=b"QUIT\\r\\n, octet by octet", expected="+OK", came=reply)


@CHECKS.add("command-length", "RFC 2449 s4", MUST)
def command_length(probe: Probe) -> None:
    """A command of 255 octets has one reply and leaves the session in step."""
    if probe.table("secure") is None:
        raise Skip("CAPA is not implemented: RFC 1939 alone allows 47 octets")
    client = probe.secure()
    client.ask("USER " + "u" * (MAX_COMMAND - len("USER \r\n")))
    in_step(client)


@CHECKS.add("line-too-long", "RFC 1939 s3", POLICY)
def line_too_long(probe: Probe) -> str | None:
    """A line of 4,000 octets has one -ERR and leaves the session in step."""
    client = probe.secure()
    reply = client.ask("XYZW " + "x" * 4000)
    refuse(reply, "the line is longer than any command")
    try:
        in_step(client)
    except NoReply as exc:
        if not exc.closed:
            raise
        return "the connection is closed after it"
    return None


@CHECKS.add("pipelining", "RFC 2449 s6.6", MUST, needs="PIPELINING")
def pipelining(probe: Probe) -> None:
    """Commands in one segment are answered one by one, in order."""
    alone = probe.secure().ask("CAPA", multi=True)
    client = probe.secure()
    client.send(b"CAPA\r\nXYZW\r\nCAPA\r\nQUIT\r\n")
    for command, expected in ((b"CAPA", True), (b"XYZW", False), (b"CAPA", True), (b"QUIT", True)):
        reply = client.read_reply(multi=command == b"CAPA", sent=command + b"\r\n")
        if reply.ok != expected or (command == b"CAPA" and reply.lines != alone.lines):
            raise Failure(
                sent=b"CAPA, XYZW, CAPA, QUIT in one segment",
                expected=f"the reply to {command.decode()} next, as when it is sent alone",
                came=reply,
            )


@CHECKS.add("capa", "RFC 2449 s3, s5", MUST)
def capa(probe: Probe) -> None:
    """CAPA lists one capability a line, in its grammar, within 512 octets."""
    reply = probe.secure().ask("CAPA", multi=True)
    if reply.lines is None:
        raise Skip("CAPA is not implemented")
    for line in reply.lines:
        if len(line) > MAX_RESPONSE or not _CAPABILITY.fullmatch(line):
            raise Failure(sent=reply, expected="TAG [SP parameter]... CRLF, 512 octets", came=line)


@CHECKS.add("capa-registered", "RFC 2449 s9", SHOULD)
def capa_registered(probe: Probe) -> None:
    """Each capability is registered, or private with a name that begins with X."""
    table = probe.table("secure")
    if table is None:
        raise Skip("CAPA is not implemented")
    unknown = [tag for tag in table if tag not in REGISTERED and not tag.startswith("X")]
    if unknown:
        raise Failure(
            sent=b"CAPA\r\n", expected="tags of the registry", came=" ".join(unknown).encode()
        )


@CHECKS.add("capa-user", "RFC 2449 s6.2", SHOULD, needs="USER")
def capa_user(probe: Probe) -> None:
    """USER is not announced where it is refused."""
    if "USER" not in probe.capabilities("clear"):
        return
    # A name that nobody has: a server may refuse it by RFC 1939 s7, but then after TLS too.
    here = probe.connect().ask("USER no-such-user")
    if here.err and (probe.target.security != "stls" or probe.secure().ask("USER no-such-user").ok):
        raise Failure(sent=here, expected="+OK, or no USER in CAPA", came=here)


@CHECKS.add("pass-without-user", "RFC 1939 s7 PASS", MUST)
def pass_without_user(probe: Probe) -> None:
    """PASS is refused when no USER went before it."""
    refuse(probe.secure().ask("PASS x"), "PASS follows a successful USER only")


@CHECKS.add("login", "RFC 1939 s4", MUST, login=True)
def login(probe: Probe) -> None:
    """The given user can log in."""
    client = probe.secure()
    reply = probe.authenticate(client)
    if reply.ok:
        probe.share(client)
    elif reply.code in TRANSIENT:
        raise Skip(f"not now: {probe.target.show(reply.line)}")
    else:
        probe.login_refused = "the login was refused"
        raise Failure(sent=reply, expected="+OK", came=reply)


@CHECKS.add("failed-login", "RFC 1939 s7 USER, PASS", MUST)
def failed_login(probe: Probe) -> str | None:
    """A name that nobody has cannot log in."""
    failed = probe.failed_login()
    if failed.password is None:
        return "an unknown name is refused at USER already: names can be found out"
    refuse(failed.password, "nobody has this name")
    return None


@CHECKS.add("auth-resp-code", "RFC 3206 s5, s6", MUST, needs="AUTH-RESP-CODE")
def auth_resp_code(probe: Probe) -> None:
    """A failed login carries [AUTH] where AUTH-RESP-CODE is announced."""
    reply = probe.failed_login().password
    if reply is None:
        raise Skip("the name was refused at USER")
    if reply.code is None or reply.code.partition(b"/")[0] != b"AUTH":
        raise Failure(sent=reply, expected="-ERR [AUTH]", came=reply)


@CHECKS.add("auth-resp-code-announced", "RFC 3206 s5", SHOULD)
def auth_resp_code_announced(probe: Probe) -> None:
    """A server that sends [AUTH] announces AUTH-RESP-CODE."""
    failed = probe.failed_login()
    reply = failed.password or failed.user
    if reply.code == b"AUTH" and "AUTH-RESP-CODE" not in probe.capabilities():
        raise Failure(sent=reply, expected="AUTH-RESP-CODE in CAPA", came=reply)


@CHECKS.add("stls", "RFC 2595 s4", MUST)
def stls(probe: Probe) -> None:
    """STLS starts TLS after its +OK, and CAPA works again, with no new greeting."""
    client = start_tls(probe, b"STLS\r\n")
    refuse(client.ask("XYZW"), "the command is unknown, and there is no new greeting")
    reply = client.ask("CAPA", multi=True)
    if reply.lines is None:
        raise Failure(sent=reply, expected="a list of capabilities", came=reply)
    in_step(client)


@CHECKS.add("stls-injection", "RFC 2595 s4 (CVE-2011-0411)", MUST)
def stls_injection(probe: Probe) -> str | None:
    """What came in the clear behind STLS is not executed after the handshake."""
    try:
        client = start_tls(probe, b"STLS\r\nCAPA\r\n")
        reply = client.ask("XYZW")
        refuse(reply, "the command inside TLS is unknown; this answers the CAPA before TLS")
        in_step(client)
    except (NoReply, OSError):
        return "the connection does not go on: safe"
    return None


@CHECKS.add("stls-twice", "RFC 2595 s4, RFC 1939 s3", MUST)
def stls_twice(probe: Probe) -> None:
    """STLS is refused when TLS is active."""
    client = probe.secure()
    if not client.encrypted:
        client = start_tls(probe, b"STLS\r\n")
    refuse(client.ask("STLS"), "TLS is active")


@CHECKS.add("stls-announced", "RFC 2595 s4", SHOULD)
def stls_announced(probe: Probe) -> None:
    """STLS is not announced any more when TLS is active."""
    client = probe.secure()
    if not client.encrypted:
        client = start_tls(probe, b"STLS\r\n")
    reply = client.ask("CAPA", multi=True)
    if "STLS" in capabilities(reply):
        raise Failure(sent=reply, expected="no STLS", came=b"STLS")


@CHECKS.add("stls-forgets-user", "RFC 1939 s7 PASS, RFC 2595 s4", SHOULD, login=True)
def stls_forgets_user(probe: Probe) -> None:
    """A USER from before STLS does not count after it: PASS follows USER immediately."""
    client, target = clear(probe), probe.target
    probe.another_login()
    if not client.ask(f"USER {target.user}").ok:
        raise Skip("USER is refused without TLS")
    begin_tls(client, b"STLS\r\n")
    reply = client.ask(f"PASS {target.password}", shown="PASS ***")
    if not reply.err or reply.code == b"IN-USE":
        raise Failure(sent=reply, expected="-ERR: the name was given in the clear", came=reply)


@CHECKS.add("auth-unknown", "RFC 5034 s4", MUST, needs="SASL")
def auth_unknown(probe: Probe) -> None:
    """AUTH with an unknown mechanism is refused."""
    refuse(probe.secure().ask("AUTH NO-SUCH-MECHANISM"), "the mechanism is unknown")


@CHECKS.add("auth-challenge", "RFC 5034 s4", MUST, needs="SASL")
def auth_challenge(probe: Probe) -> None:
    """The empty challenge is '+', one space and CRLF."""
    reply = challenge(probe)[1]
    if reply.line != b"+ \r\n":
        raise Failure(sent=reply, expected=repr(b"+ \r\n"), came=reply)


@CHECKS.add("auth-cancel", "RFC 5034 s4", MUST, needs="SASL")
def auth_cancel(probe: Probe) -> None:
    """'*' cancels AUTH by -ERR, and another AUTH may follow."""
    client = challenge(probe)[0]
    refuse(client.ask("*"), "the client cancelled")
    reply = client.ask("AUTH PLAIN")
    if not reply.line.startswith(b"+") or reply.ok:
        raise Failure(sent=reply, expected="a challenge, as if no AUTH had been sent", came=reply)


@CHECKS.add("auth-base64", "RFC 5034 s4", MUST, needs="SASL")
def auth_base64(probe: Probe) -> None:
    """A response that is not base64 is refused, and ends the exchange."""
    for response in ("!!!!", "=AAA", "AAA=BBB"):
        client = challenge(probe)[0]
        refuse(client.ask(response), "not base64")


@CHECKS.add("lang-list", "RFC 6856 s3.2", MUST, needs="LANG")
def lang_list(probe: Probe) -> None:
    """LANG lists a tag a line, each with a name or alone."""
    languages(probe)


@CHECKS.add("lang-tag", "RFC 6856 s3.2", MUST, needs="LANG")
def lang_tag(probe: Probe) -> None:
    """LANG with a listed tag is answered by +OK, the exact tag, a space and text."""
    for tag in languages(probe):
        changed(probe.secure().ask(b"LANG " + tag.lower()), tag)


@CHECKS.add("lang-default", "RFC 6856 s3.2", MUST, needs="LANG")
def lang_default(probe: Probe) -> None:
    """LANG * is answered by +OK, a tag, a space and text."""
    reply = probe.secure().ask("LANG *")
    if reply.err:
        raise Remark("the server has no preferred language")
    changed(reply, None)


@CHECKS.add("lang-unknown", "RFC 6856 s3.2", MUST, needs="LANG")
def lang_unknown(probe: Probe) -> None:
    """LANG with an unknown tag is refused."""
    refuse(probe.secure().ask("LANG qzz"), "no server speaks it")


@CHECKS.add("utf8", "RFC 6856 s2.1", SHOULD, needs="UTF8")
def utf8(probe: Probe) -> str:
    """UTF8 is accepted where it is announced; what STLS answers after it is free."""
    client = probe.connect()
    reply = client.ask("UTF8")
    if not reply.ok:
        raise Failure(sent=reply, expected="+OK", came=reply)
    if client.encrypted or "STLS" not in probe.capabilities("clear"):
        return ""
    return "STLS after it is " + ("accepted" if client.ask("STLS").ok else "refused")


def in_step(client: Client) -> None:
    """Check that QUIT is answered next, and that nothing follows."""
    reply = client.ask("QUIT")
    if not reply.ok:
        raise Failure(sent=reply, expected="+OK: one reply to each command", came=reply)
    rest = client.read_to_end()
    if rest:
        raise Failure(sent=reply, expected="one reply to each command", came=rest)


def clear(probe: Probe) -> Client:
    """Return a connection in the clear on which STLS is announced."""
    if probe.target.security == "tls":
        raise Skip("TLS is active from the start")
    if "STLS" not in probe.capabilities("clear"):
        raise Skip("STLS is not announced")
    return probe.connect()


def start_tls(probe: Probe, octets: bytes) -> Client:
    """Return a connection on which `octets`, STLS and perhaps more, were sent and TLS started."""
    client = clear(probe)
    begin_tls(client, octets)
    return client


def begin_tls(client: Client, octets: bytes) -> None:
    """Send `octets` in one segment, read the answer to STLS, and do the handshake."""
    client.send(octets)
    reply = client.read_reply()
    if not reply.ok:
        raise Failure(sent=reply, expected="+OK, since STLS is announced", came=reply)
    try:
        client.handshake()
    except ssl.SSLCertVerificationError as exc:
        raise Skip(f"the certificate is not trusted: {exc.verify_message}") from exc


def challenge(probe: Probe) -> tuple[Client, Reply]:
    """Return a connection that waits for the response to AUTH PLAIN, and the challenge."""
    if "PLAIN" not in probe.capabilities().get("SASL", "").upper().split():
        raise Skip("PLAIN is not announced")
    client = probe.secure()
    reply = client.ask("AUTH PLAIN")
    if not reply.line.startswith(b"+") or reply.ok:
        raise Failure(sent=reply, expected=repr(b"+ \r\n"), came=reply)
    return client, reply


def languages(probe: Probe) -> list[bytes]:
    """Return the tags that LANG lists."""
    reply = probe.secure().ask("LANG", multi=True)
    if reply.lines is None:
        raise Skip("the server does not list its languages")
    for line in reply.lines:
        if not _LANGUAGE_ITEM.fullmatch(line):
            raise Failure(sent=reply, expected="tag [SP name] CRLF", came=line)
    return [line.split()[0] for line in reply.lines]


def changed(reply: Reply, tag: bytes | None) -> None:
    """Check the answer to LANG with an argument."""
    found = _LANGUAGE_CHANGED.match(reply.line)
    if not found or (tag is not None and found[1].lower() != tag.lower()):
        shape = "tag" if tag is None else tag.decode()
        raise Failure(sent=reply, expected=f"+OK {shape} text", came=reply)
