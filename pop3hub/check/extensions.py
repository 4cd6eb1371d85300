"""The checks of STLS, AUTH, LANG and UTF8, all before login."""

# ruff: noqa: D401  # a check's docstring states the rule, as the report prints it
from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING

from pop3hub.check.client import NoReply, Reply
from pop3hub.check.outcomes import Failure, Remark, Skip, refuse, refuse_login
from pop3hub.check.probe import capabilities, end_in_sync
from pop3hub.check.rules import MUST, SHOULD, Checks

if TYPE_CHECKING:
    from pop3hub.check.client import Client
    from pop3hub.check.probe import Probe

CHECKS = Checks()

_LANGUAGE_ITEM = re.compile(rb"[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*(?: .+)?\r\n")
_LANGUAGE_CHANGED = re.compile(rb"\+OK ([A-Z]{1,8}(?:-[A-Z0-9]{1,8})*) ", re.IGNORECASE)


@CHECKS.add("stls", "RFC 2595 s4", MUST)
def stls(probe: Probe) -> None:
    """STLS starts TLS after its +OK; CAPA works again, and there is no second greeting."""
    client = start_tls(probe)
    refuse(client.ask("STAT"), "not logged in, and no second greeting")
    reply = client.ask("CAPA", multi=True)
    if reply.lines is None:
        raise Failure(sent=reply, expected="a list of capabilities", came=reply)
    end_in_sync(client)


@CHECKS.add("stls-injection", "RFC 2595 s4 (CVE-2011-0411)", MUST)
def stls_injection(probe: Probe) -> str | None:
    """Commands sent in the clear after STLS are not executed inside TLS."""
    try:
        client = clear(probe)
        client.send(b"STLS\r\nCAPA\r\n")
        if client.read_reply().err:
            return "STLS is refused when more follows it, which is safe"
        handshake(client)
        refuse(client.ask("STAT"), "not logged in; this answers the CAPA that was sent before TLS")
        end_in_sync(client)
    except (NoReply, OSError):
        return "the connection is closed, which is safe"
    return None


@CHECKS.add("stls-twice", "RFC 2595 s4, RFC 1939 s3", MUST)
def stls_twice(probe: Probe) -> None:
    """STLS is refused when TLS is active."""
    client = probe.secure()
    if not client.encrypted:
        client = start_tls(probe)
    refuse(client.ask("STLS"), "TLS is active")


@CHECKS.add("stls-announced", "RFC 2595 s4", SHOULD)
def stls_announced(probe: Probe) -> None:
    """STLS is no longer announced once TLS is active."""
    client = probe.secure()
    if not client.encrypted:
        client = start_tls(probe)
    reply = client.ask("CAPA", multi=True)
    if "STLS" in capabilities(reply):
        raise Failure(sent=reply, expected="no STLS", came=b"STLS")


@CHECKS.add("stls-forgets-user", "RFC 1939 s7 PASS, RFC 2595 s4", SHOULD, login=True)
def stls_forgets_user(probe: Probe) -> None:
    """A USER sent before STLS does not count after it: PASS must follow USER directly."""
    client, target = clear(probe), probe.target
    probe.another_login()
    if not client.ask(f"USER {target.user}").ok:
        raise Skip("USER is refused without TLS")
    begin_tls(client)
    reply = probe.ask_to_log_in(client, f"PASS {target.password}", shown="PASS ***")
    refuse_login(reply, "USER came before STLS")


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
        raise Failure(sent=reply, expected="a challenge, as for the first AUTH", came=reply)


@CHECKS.add("auth-base64", "RFC 5034 s4", MUST, needs="SASL")
def auth_base64(probe: Probe) -> None:
    """A response that is not base64 is refused, and ends the exchange."""
    for response in ("!!!!", "=AAA", "AAA=BBB"):
        client = challenge(probe)[0]
        refuse(client.ask(response), "not base64")


@CHECKS.add("lang-list", "RFC 6856 s3.2", MUST, needs="LANG")
def lang_list(probe: Probe) -> None:
    """LANG lists one tag per line, with or without a name."""
    languages(probe)


@CHECKS.add("lang-tag", "RFC 6856 s3.2", MUST, needs="LANG")
def lang_tag(probe: Probe) -> None:
    """LANG with a listed tag is answered with +OK, the exact tag, a space and text."""
    for tag in languages(probe):
        client = probe.secure()
        changed(client.ask(b"LANG " + tag), tag)
        client.close()


@CHECKS.add("lang-case", "RFC 6856 s3.2, RFC 5646 s2.1.1", MUST, needs="LANG")
def lang_case(probe: Probe) -> None:
    """LANG understands a listed tag in upper, lower and mixed case."""
    for tag in languages(probe):
        client = probe.secure()
        for other in {tag.lower(), tag.upper(), tag.title(), tag.swapcase()} - {tag}:
            changed(client.ask(b"LANG " + other), tag)
        client.close()


@CHECKS.add("lang-default", "RFC 6856 s3.2", MUST, needs="LANG")
def lang_default(probe: Probe) -> None:
    """LANG * is answered with +OK, a tag, a space and text."""
    reply = probe.secure().ask("LANG *")
    if reply.err:
        raise Remark("the server has no preferred language")
    changed(reply, None)


@CHECKS.add("lang-unknown", "RFC 6856 s3.2", MUST, needs="LANG")
def lang_unknown(probe: Probe) -> None:
    """LANG with an unknown tag is refused."""
    refuse(probe.secure().ask("LANG qzz"), "the language is unknown")


@CHECKS.add("utf8", "RFC 6856 s2.1", SHOULD, needs="UTF8")
def utf8(probe: Probe) -> str:
    """UTF8 is accepted where it is announced; STLS after it may be accepted or refused."""
    client = probe.connect()
    reply = client.ask("UTF8")
    if not reply.ok:
        raise Failure(sent=reply, expected="+OK", came=reply)
    if client.encrypted or "STLS" not in probe.capabilities("clear"):
        return ""
    return "STLS after it is " + ("accepted" if client.ask("STLS").ok else "refused")


def clear(probe: Probe) -> Client:
    """Return a connection in the clear on which STLS is announced."""
    if probe.target.security == "tls":
        raise Skip("TLS is active from the start")
    if "STLS" not in probe.capabilities("clear"):
        raise Skip("STLS is not announced")
    return probe.connect()


def start_tls(probe: Probe) -> Client:
    """Return a connection on which STLS was accepted and TLS started."""
    client = clear(probe)
    begin_tls(client)
    return client


def begin_tls(client: Client) -> None:
    """Send STLS, and do the handshake."""
    reply = client.ask("STLS")
    if not reply.ok:
        raise Failure(sent=reply, expected="+OK, since STLS is announced", came=reply)
    handshake(client)


def handshake(client: Client) -> None:
    """Do the handshake after STLS was accepted."""
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
