"""The checks that may cost mail or annoy the server: only on a mailbox given for that."""

# ruff: noqa: D401  # a check's docstring states the rule, as the report prints it
from __future__ import annotations

import base64
import secrets
from typing import TYPE_CHECKING

from pop3hub.check.client import NoReply
from pop3hub.check.outcomes import Failure, Remark, Skip, refuse, refuse_login
from pop3hub.check.rules import MUST, POLICY, Checks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pop3hub.check.client import Client
    from pop3hub.check.probe import Probe

CHECKS = Checks()

BAD_COMMANDS = 100
ENDLESS_LINE = 32 * 1024 * 1024  # octets without a line end: more than sockets' buffers hold
CHUNK = 65536  # octets


@CHECKS.add("drop-keeps", "RFC 1939 s6", MUST, scratch=True, needs="UIDL")
def drop_keeps(probe: Probe) -> None:
    """A connection lost after DELE deletes nothing."""
    before = probe.unique_ids()
    if not before:
        raise Skip("the maildrop is empty")
    number = min(before)
    client = probe.session()
    if not client.ask(f"DELE {number}").ok:
        raise Skip("DELE was refused")
    probe.drop_session()
    if before[number] not in probe.unique_ids().values():
        came = b"UIDL without " + before[number]
        raise Failure(sent=b"DELE, connection lost", expected="the message is kept", came=came)


@CHECKS.add("quit-deletes", "RFC 1939 s6", MUST, scratch=True, needs="UIDL")
def quit_deletes(probe: Probe) -> None:
    """QUIT deletes what is marked, and nothing else."""
    before = probe.unique_ids()
    if not before:
        raise Skip("the maildrop is empty")
    number = min(before)
    client = probe.session()
    client.ask(f"DELE {number}")
    reply = client.ask("QUIT")
    client.close()
    if not reply.ok:
        raise Remark(f"the server could not delete: {probe.target.show(reply.line)}")
    gone = before.pop(number)
    after = set(probe.unique_ids().values())
    if gone in after and gone not in before.values():
        raise Failure(sent=b"DELE, QUIT", expected="the message is gone", came=b"UIDL has " + gone)
    for uid in before.values():
        if uid not in after:
            came = b"UIDL without " + uid
            raise Failure(sent=b"DELE, QUIT", expected="the others are kept", came=came)


@CHECKS.add("login-refusal", "RFC 1939 s13", POLICY, scratch=True)
def login_refusal(probe: Probe) -> None:
    """A wrong password gets the same reply as an unknown user."""
    unknown = probe.failed_login()
    client = probe.secure()
    user = client.ask(f"USER {probe.target.user}")
    if not user.ok:
        raise Skip("USER was refused")
    wrong = probe.ask_to_log_in(client, f"PASS {secrets.token_hex(8)}", shown="PASS ***")
    if unknown.password is None or unknown.password.line != wrong.line:
        refused = unknown.password or unknown.user
        raise Failure(sent=wrong, expected=f"as for an unknown user: {refused.line!r}", came=wrong)


@CHECKS.add("pass-after-failure", "RFC 1939 s7 PASS", MUST, scratch=True)
def pass_after_failure(probe: Probe) -> str | None:
    """PASS after a failed PASS is refused: it must follow a successful USER directly."""
    probe.another_login()
    client, target = probe.secure(), probe.target
    if not client.ask(f"USER {target.user}").ok:
        raise Skip("USER was refused")
    wrong = probe.ask_to_log_in(client, f"PASS {secrets.token_hex(8)}", shown="PASS ***")
    refuse(wrong, "the password is wrong")
    try:
        reply = probe.ask_to_log_in(client, f"PASS {target.password}", shown="PASS ***")
    except NoReply as exc:
        if not exc.closed:
            raise
        return "the connection is closed after a wrong password"
    refuse_login(reply, "the PASS before it failed, so USER must come first")
    return None


@CHECKS.add("nul", "RFC 1939 s3", MUST, scratch=True)
def nul(probe: Probe) -> str | None:
    """A command with a NUL octet is refused: NUL neither ends it nor is ignored."""
    before = [b"XY\0W", b"CAPA\0x", b"QU\0IT", b"QUIT\0"]
    extensions = (("SASL", b"AUTH PLAIN\0"), ("LANG", b"LANG *\0"), ("UTF8", b"UTF8\0x"))
    before += [command for tag, command in extensions if probe.offers(tag)]
    closed = nul_refused(before, probe.secure)
    nul_in_login(probe)
    number = min(probe.listing(), default=1)
    after = [b"NOOP\0x", b"NO\0OP", b"STAT\0", b"LIST\0x", b"RSET\0", b"CAPA\0"]
    for verb in (b"LIST", b"RETR", b"DELE", *([b"UIDL"] if probe.offers("UIDL") else [])):
        after += [b"%s %d\0" % (verb, number), b"%s %d\0x" % (verb, number)]
    if probe.offers("TOP"):
        after += [b"TOP %d\0 0" % number, b"TOP %d 0\0" % number]
    alone = probe.session().ask("NOOP")
    closed += nul_refused(after, probe.session)
    reply = probe.session().ask("NOOP")
    if reply.line != alone.line:
        raise Failure(sent=reply, expected="one reply to each command", came=reply)
    return f"the connection is closed after {closed} of them" if closed else None


@CHECKS.add("bad-commands", "RFC 1939 s3", POLICY, scratch=True)
def bad_commands(probe: Probe) -> str:
    """Bad commands are refused, however many, until the server closes the connection."""
    client = probe.secure()
    for count in range(BAD_COMMANDS):
        try:
            refuse(client.ask("XYZW"), "the command is unknown")
        except NoReply as exc:
            if not exc.closed:
                raise
            return f"the connection is closed after {count}"
    return f"all {BAD_COMMANDS} are answered"


@CHECKS.add("endless-line", "RFC 2449 s4", POLICY, scratch=True)
def endless_line(probe: Probe) -> str:
    """A line without an end is refused, or not read any further: memory use is bounded."""
    notes = [f"before login: {pour(probe.secure())}"]
    if can_auth_plain(probe):
        client = probe.secure()
        if client.ask("AUTH PLAIN").line.startswith(b"+ "):
            notes.append(f"in AUTH: {pour(client)}")
    notes.append(f"after login: {pour(probe.session())}")
    probe.drop_session()
    return "; ".join(notes)


def pour(client: Client) -> str:
    """Send a line without an end, and say what the server did about it."""
    total, happened = client.pour(b"x" * CHUNK, ENDLESS_LINE)
    size = f"{total // 1024:,} KiB"
    sent = f"{size} without a line end".encode()
    if happened == "answered":
        refuse(client.read_reply(sent=sent), "the line is longer than any command")
        return f"refused within {size}"
    if happened == "slow":
        raise Skip(f"the connection is too slow: only {size} were sent")
    if happened == "taken":
        raise Failure(
            sent=sent,
            expected="-ERR, or a closed connection, or that the server stops reading",
            came=b"no reply, and all of it was read",
        )
    return f"{happened} within {size}"


def can_auth_plain(probe: Probe) -> bool:
    """Tell whether AUTH PLAIN is announced."""
    return "PLAIN" in probe.capabilities().get("SASL", "").upper().split()


def nul_refused(commands: Sequence[bytes], start: Callable[[], Client]) -> int:
    """Check that each command is refused; return for how many the connection was closed."""
    client = start()
    closed = 0
    for command in commands:
        if client.closed:
            client = start()
        try:
            refuse(client.ask(command), "a command is printable ASCII")
        except NoReply as exc:
            if not exc.closed:
                raise
            client.close()
            closed += 1
    return closed


def nul_in_login(probe: Probe) -> None:
    """Check that nobody logs in by a name or a password with a NUL octet in it."""
    probe.another_login()
    name, password = (probe.target.user or "").encode(), (probe.target.password or "").encode()
    plain = base64.b64encode(b"\0%s\0%s" % (name, password))
    attempts = [
        (b"USER " + name + b"\0x", b"PASS " + password, "PASS ***, after a USER with NUL"),
        (b"USER " + name, b"PASS " + password + b"\0x", "PASS *** with NUL behind it"),
        (
            b"USER " + name,
            b"PASS " + password[:1] + b"\0" + password[1:],
            "PASS *** with NUL in it",
        ),
    ]
    if can_auth_plain(probe):
        attempts.append((b"AUTH PLAIN", plain + b"\0", "*** with NUL behind it, after AUTH PLAIN"))
    for first, second, shown in attempts:
        client = probe.secure()
        try:
            if not client.ask(first).err:
                reply = probe.ask_to_log_in(client, second, shown=shown)
                refuse_login(reply, "no user has that name and password")
        except NoReply as exc:
            if not exc.closed:
                raise
        client.close()
