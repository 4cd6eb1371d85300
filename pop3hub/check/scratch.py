"""The checks that may cost mail or annoy the server: only on a mailbox given for that."""

# ruff: noqa: D401  # a check's docstring states the rule, as the report prints it
from __future__ import annotations

import secrets

from pop3hub.check.client import NoReply
from pop3hub.check.probe import MUST, POLICY, Checks, Failure, Probe, Remark, Skip, refuse

CHECKS = Checks()

BAD_COMMANDS = 100
ENDLESS_LINE = 1024 * 1024  # octets without a line end


@CHECKS.add("drop-keeps", "RFC 1939 s6", MUST, scratch=True, needs="UIDL")
def drop_keeps(probe: Probe) -> None:
    """A connection that is lost after DELE deletes nothing."""
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
    """A wrong password is answered as an unknown user is."""
    unknown = probe.failed_login()
    client = probe.secure()
    user = client.ask(f"USER {probe.target.user}")
    if not user.ok:
        raise Skip("USER was refused")
    wrong = client.ask(f"PASS {secrets.token_hex(8)}", shown="PASS ***")
    if unknown.password is None or unknown.password.line != wrong.line:
        refused = unknown.password or unknown.user
        raise Failure(sent=wrong, expected=f"as for an unknown user: {refused.line!r}", came=wrong)


@CHECKS.add("nul", "RFC 1939 s3", MUST, scratch=True)
def nul(probe: Probe) -> None:
    """A NUL octet in a command is refused."""
    client = probe.secure()
    try:
        refuse(client.ask(b"XY\0W"), "commands are printable ASCII")
    except NoReply as exc:
        if not exc.closed:
            raise
        raise Remark("the connection is closed without a reply") from exc


@CHECKS.add("bad-commands", "RFC 1939 s3", POLICY, scratch=True)
def bad_commands(probe: Probe) -> str:
    """Each of many bad commands is refused, until the server closes the connection."""
    client = probe.secure()
    for count in range(BAD_COMMANDS):
        try:
            refuse(client.ask("XYZW"), "the command is unknown")
        except NoReply as exc:
            if not exc.closed:
                raise
            return f"the connection is closed after {count}"
    return f"{BAD_COMMANDS} are answered"


@CHECKS.add("endless-line", "RFC 2449 s4", POLICY, scratch=True)
def endless_line(probe: Probe) -> str:
    """A line of 1 MiB is refused, or the connection closed: the server's memory is bounded."""
    client = probe.secure()
    try:
        client.send(b"x" * ENDLESS_LINE + b"\r\n", shown=b"1 MiB without a line end")
        reply = client.read_reply()
    except NoReply as exc:
        if not exc.closed:
            raise
        return "the connection is closed"
    refuse(reply, "the line is longer than any command")
    return "refused"
