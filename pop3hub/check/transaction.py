"""The checks after login that change nothing: DELE is always taken back by RSET."""

# ruff: noqa: D401  # a check's docstring states the rule, as the report prints it
from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pop3hub.check.outcomes import Failure, Remark, Skip, refuse
from pop3hub.check.rules import MAY, MUST, SHOULD, Checks

if TYPE_CHECKING:
    from pop3hub.check.client import Reply
    from pop3hub.check.probe import Probe

CHECKS = Checks()

_STAT = re.compile(rb"\+OK [0-9]+ [0-9]+([^\r\n]*)\r?\n", re.IGNORECASE)
_UID = re.compile(rb"[\x21-\x7e]{1,70}")

_MAY_DIFFER = frozenset({"LOGIN-DELAY", "EXPIRE"})  # "both / yes" in RFC 2449 s6


@CHECKS.add("state-transaction", "RFC 1939 s3, RFC 5034 s4, RFC 6856 s2.1", MUST, login=True)
def state_transaction(probe: Probe) -> None:
    """The commands of AUTHORIZATION are refused after login."""
    commands = ("USER x", "PASS x", f"APOP x {'0' * 32}", "AUTH PLAIN", "STLS", "UTF8")
    for _, reply in probe.each(commands, probe.session):
        refuse(reply, "the session is in TRANSACTION")


@CHECKS.add("unknown-transaction", "RFC 1939 s3", MUST, login=True)
def unknown_transaction(probe: Probe) -> None:
    """An unknown command is answered with -ERR after login too."""
    refuse(probe.session().ask("XYZW"), "the command is unknown")


@CHECKS.add("noop", "RFC 1939 s5", MUST, login=True)
def noop(probe: Probe) -> None:
    """NOOP is answered with +OK."""
    reply = probe.session().ask("NOOP")
    if not reply.ok:
        raise Failure(sent=reply, expected="+OK", came=reply)


@CHECKS.add("capa-both-states", "RFC 2449 s5, RFC 5034 s3", MUST, login=True)
def capa_both_states(probe: Probe) -> None:
    """What CAPA announces before login it also announces after it."""
    before, after = probe.table("secure"), probe.table("login")
    if before is None and after is None:
        raise Skip("CAPA is not implemented")
    before, after = before or {}, after or {}
    missing = set(before) - set(after) - {"STLS"}
    different = {tag for tag in set(before) & set(after) if before[tag] != after[tag]}
    different -= _MAY_DIFFER | {tag for tag in different if tag.startswith("X")}
    if missing or different:
        tags = sorted(missing | different)
        raise Failure(
            sent=b"CAPA\r\n",
            expected=f"as before login: {', '.join(f'{t} {before[t]}'.strip() for t in tags)}",
            came=", ".join(f"{tag} {text}".strip() for tag, text in after.items()).encode(),
        )


@CHECKS.add("capa-before-login", "RFC 2449 s6", SHOULD, login=True)
def capa_before_login(probe: Probe) -> None:
    """Only IMPLEMENTATION may be announced after login alone."""
    before, after = probe.table("secure"), probe.table("login")
    if before is None and after is None:
        raise Skip("CAPA is not implemented")
    new = {tag for tag in after or {} if not tag.startswith("X")}
    new -= set(before or {}) | {"IMPLEMENTATION", "STLS"}  # capa-stls is about STLS
    if new:
        raise Failure(
            sent=b"CAPA\r\n",
            expected=f"{' '.join(sorted(new))} before login too",
            came=" ".join(before or {}).encode(),
        )


@CHECKS.add("capa-stls", "RFC 2595 s8", SHOULD, login=True)
def capa_stls(probe: Probe) -> None:
    """STLS is announced in AUTHORIZATION only."""
    if "STLS" in probe.capabilities("login"):
        raise Failure(sent=b"CAPA\r\n", expected="no STLS after login", came=b"STLS")


@CHECKS.add("stat", "RFC 1939 s5", MUST, login=True)
def stat(probe: Probe) -> None:
    """STAT is answered with +OK, count and octets."""
    reply = probe.session().ask("STAT")
    found = _STAT.fullmatch(reply.line)
    if not found:
        raise Failure(sent=reply, expected="+OK nn mm", came=reply)
    if found[1]:
        raise Remark(f"text after the octets, which is strongly discouraged: {found[1]!r}")


@CHECKS.add("list", "RFC 1939 s4, s5", MUST, login=True)
def list_(probe: Probe) -> None:
    """LIST has messages 1 to n, as many as STAT counts."""
    count, listed = probe.stat()[0], probe.listing()
    if sorted(listed) != list(range(1, count + 1)):
        numbers = ", ".join(map(str, sorted(listed)[:20]))
        raise Failure(sent=b"LIST\r\n", expected=f"messages 1 to {count}", came=numbers.encode())


@CHECKS.add("stat-octets", "RFC 1939 s5 (RFC 6856 s2.1: not a MUST)", SHOULD, login=True)
def stat_octets(probe: Probe) -> None:
    """STAT's octets are the sum of LIST's sizes."""
    octets, total = probe.stat()[1], sum(probe.listing().values())
    if octets != total:
        raise Failure(sent=b"STAT\r\n", expected=f"{total} octets", came=str(octets).encode())


@CHECKS.add("list-one", "RFC 1939 s5", MUST, login=True)
def list_one(probe: Probe) -> None:
    """LIST n is answered with +OK, number and size on one line, matching LIST."""
    listed = probe.listing()
    for number in probe.sample():
        reply = probe.session().ask(f"LIST {number}")
        size = reply.text.removeprefix(b"%d " % number)
        if "UTF8" in probe.capabilities() and size.isdigit() and int(size) != listed[number]:
            raise Remark(
                f"message {number} has {listed[number]} octets in LIST, {int(size)} in LIST n:"
                " a SHOULD for a server with UTF8 (RFC 6856 s2.1)"
            )
        one(reply, f"{number} {listed[number]}")


@CHECKS.add("numbers", "RFC 1939 s3, s5", MUST, login=True)
def numbers(probe: Probe) -> None:
    """Arguments that are not a message number are refused: 0, n+1, -1, 1x, 20 digits, none."""
    beyond = probe.stat()[0] + 1
    bad = ("0", str(beyond), "-1", "1x", "9" * 20)
    commands = [f"{verb} {number}" for verb in ("LIST", "RETR", "DELE") for number in bad]
    commands += ["RETR", "DELE"]
    if probe.offers("UIDL"):
        commands += [f"UIDL {number}" for number in bad]
    if probe.offers("TOP"):
        commands += [f"TOP {number} 0" for number in bad] + ["TOP", "TOP 1"]
        commands += ["TOP 1 -1", "TOP 1 x"]
    for _, reply in probe.each(commands, probe.session):
        refuse(reply, "no such message, or not a message number")


@CHECKS.add("number-sign", "RFC 1939 s4: numbers are decimal", SHOULD, login=True)
def number_sign(probe: Probe) -> None:
    """A number with a plus sign is refused."""
    if not probe.stat()[0]:
        raise Skip("the maildrop is empty")
    refuse(probe.session().ask("LIST +1"), "'+1' is not a number in POP3")


@CHECKS.add("uidl", "RFC 1939 s7 UIDL", MUST, login=True, needs="UIDL")
def uidl(probe: Probe) -> None:
    """UIDL has a unique-id of 1 to 70 characters 0x21 to 0x7E for each message in LIST."""
    uids, listed = probe.unique_ids(), probe.listing()
    for number, uid in uids.items():
        if not _UID.fullmatch(uid):
            line = b"%d %s" % (number, uid)
            raise Failure(sent=b"UIDL\r\n", expected="1 to 70 characters 0x21 to 0x7E", came=line)
    if sorted(uids) != sorted(listed):
        numbered = ", ".join(map(str, sorted(uids)[:20])).encode()
        raise Failure(sent=b"UIDL\r\n", expected="the numbers that LIST has", came=numbered)


@CHECKS.add("uidl-unique", "RFC 1939 s7 UIDL", SHOULD, login=True, needs="UIDL")
def uidl_unique(probe: Probe) -> None:
    """No two messages share a unique-id (hashes of equal messages may)."""
    seen: dict[bytes, int] = {}
    for number, uid in probe.unique_ids().items():
        if uid in seen:
            both = b"%d %s, %d %s" % (seen[uid], uid, number, uid)
            raise Failure(sent=b"UIDL\r\n", expected="different unique-ids", came=both)
        seen[uid] = number


@CHECKS.add("uidl-one", "RFC 1939 s7 UIDL", MUST, login=True, needs="UIDL")
def uidl_one(probe: Probe) -> None:
    """UIDL n is answered with +OK, number and unique-id on one line, matching UIDL."""
    uids = probe.unique_ids()
    for number in probe.sample():
        uid = uids.get(number, b"").decode("latin-1")
        one(probe.session().ask(f"UIDL {number}"), f"{number} {uid}", strict=True)


@CHECKS.add("uidl-persistent", "RFC 1939 s7 UIDL", MUST, login=True, needs="UIDL")
def uidl_persistent(probe: Probe) -> None:
    """Unique-ids are the same in the next session, and none is missing."""
    before = probe.unique_ids()
    probe.another_login()
    after = set(probe.unique_ids().values())
    for number, uid in before.items():
        if uid not in after:
            line = b"%d %s" % (number, uid)
            raise Failure(sent=b"UIDL\r\n", expected="in the next session", came=b"without " + line)


@CHECKS.add("dele-twice", "RFC 1939 s5 DELE", MUST, login=True)
def dele_twice(probe: Probe) -> None:
    """DELE of a message that is marked as deleted is refused."""
    with probe.mark() as (client, number):
        refuse(client.ask(f"DELE {number}"), "the message is marked as deleted")


@CHECKS.add("deleted-refused", "RFC 1939 s5 DELE", MUST, login=True)
def deleted_refused(probe: Probe) -> None:
    """LIST n, RETR, TOP and UIDL n of a message marked as deleted are refused."""
    tags = [tag for tag in ("TOP", "UIDL") if probe.offers(tag)]
    with probe.mark() as (client, number):
        for verb in ("LIST", "RETR", *tags):
            command = f"{verb} {number}" + (" 0" if verb == "TOP" else "")
            refuse(client.ask(command), "the message is marked as deleted")


@CHECKS.add("deleted-unlisted", "RFC 1939 s5, s7", MUST, login=True)
def deleted_unlisted(probe: Probe) -> None:
    """STAT, LIST and UIDL leave marked messages out, and the others keep their numbers."""
    listed = probe.listing()
    uids = probe.unique_ids() if probe.offers("UIDL") else None
    count = probe.stat()[0]
    with probe.mark() as (client, number):
        if probe.stat(client)[0] != count - 1:
            raise Failure(
                sent=b"STAT\r\n",
                expected=f"{count - 1} messages, one of them marked",
                came=b"%d messages" % probe.stat(client)[0],
            )
        del listed[number]
        if probe.listing(client) != listed:
            raise others(b"LIST\r\n", probe.listing(client), number)
        if uids is not None:
            del uids[number]
            if probe.unique_ids(client) != uids:
                raise others(b"UIDL\r\n", probe.unique_ids(client), number)


@CHECKS.add("rset", "RFC 1939 s5 RSET", MUST, login=True)
def rset(probe: Probe) -> None:
    """RSET unmarks the messages marked as deleted."""
    before = probe.stat(), probe.listing()
    with probe.mark() as (client, number):
        reply = client.ask("RSET")
        if not reply.ok:
            raise Failure(sent=reply, expected="+OK", came=reply)
        if (probe.stat(client), probe.listing(client)) != before:
            raise Failure(
                sent=b"RSET\r\n",
                expected=f"message {number} is back in STAT and LIST",
                came=b"STAT: %d messages" % probe.stat(client)[0],
            )


@CHECKS.add("pipelining-transaction", "RFC 2449 s6.6", MUST, login=True, needs="PIPELINING")
def pipelining_transaction(probe: Probe) -> None:
    """Commands in one segment after login get the same replies as one by one."""
    client = probe.session()
    commands = ["NOOP", "STAT", "LIST", "LIST 0", "NOOP", "STAT"]
    multi = {"LIST"}
    alone = [client.ask(command, multi=command in multi) for command in commands]
    client.send("".join(f"{command}\r\n" for command in commands).encode())
    for expected in alone:
        reply = client.read_reply(multi=expected.lines is not None, sent=expected.sent)
        if (reply.line[:3], reply.lines) != (expected.line[:3], expected.lines):
            raise Failure(
                sent=", ".join(commands).encode() + b" in one segment",
                expected=f"the reply to {expected.sent!r} next, as when it is sent alone",
                came=reply,
            )


@CHECKS.add("pipelining-login", "RFC 2449 s6.6", MUST, login=True, needs="PIPELINING")
def pipelining_login(probe: Probe) -> None:
    """USER, PASS, STAT and QUIT in one segment are answered in order."""
    if "USER" not in probe.capabilities():
        raise Skip("USER is not announced")
    probe.another_login()
    client, target = probe.secure(), probe.target
    commands = f"USER {target.user}\r\nPASS {target.password}\r\nSTAT\r\nQUIT\r\n"
    shown = b"USER, PASS, STAT, QUIT in one segment"
    client.send(commands.encode(), shown=shown)
    for verb in ("USER", "PASS", "STAT", "QUIT"):
        reply = client.read_reply(sent=verb.encode())
        if reply.code == b"IN-USE":
            raise Skip("the maildrop is still locked by the session before")
        if not reply.ok or (verb == "STAT" and not _STAT.fullmatch(reply.line)):
            raise Failure(sent=shown, expected=f"+OK to {verb} next", came=reply)


@CHECKS.add("second-session", "RFC 1939 s4, RFC 2449 s8.1.2", MAY, login=True)
def second_session(probe: Probe) -> str:
    """A second session while the first is open is allowed, or refused with [IN-USE]."""
    probe.another_login()
    probe.session()
    client = probe.secure()
    reply = probe.authenticate(client)
    if reply.ok:
        probe.finish(client)
        return "allowed"
    if reply.code == b"IN-USE":
        return "refused with [IN-USE]"
    raise Remark(f"refused without [IN-USE]: {probe.target.show(reply.line)}")


@CHECKS.add("quit-transaction", "RFC 1939 s6", MUST, login=True)
def quit_transaction(probe: Probe) -> None:
    """QUIT after login is answered with +OK, then the connection is closed."""
    client = probe.session()
    client.ask("RSET")
    reply = client.ask("QUIT")
    if not reply.ok:
        raise Failure(sent=reply, expected="+OK", came=reply)
    rest = client.read_to_end()
    client.close()
    if rest:
        raise Failure(sent=reply, expected="nothing more after the reply", came=rest)


def one(reply: Reply, fields: str, *, strict: bool = False) -> None:
    """Check a one-line listing; what may follow the size is only discouraged (RFC 1939 s5)."""
    came = reply.line.rstrip(b"\r\n").decode("latin-1")
    expected = f"+OK {fields}"
    if came.upper() == expected.upper():
        return
    if not strict and came.upper().startswith(f"{expected} ".upper()):
        raise Remark(f"text after the size, which is strongly discouraged: {came}")
    raise Failure(sent=reply, expected=expected, came=reply)


def others(sent: bytes, came: dict[int, int] | dict[int, bytes], number: int) -> Failure:
    """Return the failure of a listing that should only lack the marked message."""
    text = ", ".join(f"{n} {v!r}" for n, v in list(came.items())[:10])
    return Failure(
        sent=sent, expected=f"the same lines without message {number}", came=text.encode()
    )
