"""Broken servers: greeting, command lines, CAPA, USER and PASS."""

# ruff: noqa: D102, ARG002  # a class says what is wrong, its methods are those of Honest
from __future__ import annotations

from typing import TYPE_CHECKING

from pop3hub.testing.faults import broken
from pop3hub.testing.honest import PASSWORD, USER, Honest

if TYPE_CHECKING:
    from collections.abc import Sequence

KEPT_AT_ONCE = 1024 * 1024  # octets

# The greeting


@broken("greeting-two-stamps", "greeting", sees="+OK <1@a> <1@b>")
class TwoStamps(Honest):
    """The greeting has two timestamps."""

    def greet(self) -> None:
        number = next(self.stamps)
        self.say(f"+OK <{number}@a> <{number}@b>")


@broken("greeting-long", "greeting", sees="a greeting of 518 octets, where 512 are allowed")
class LongGreeting(Honest):
    """The greeting is longer than a response may be."""

    def greet(self) -> None:
        self.say("+OK " + "x" * 512)


@broken("greeting-negative", "greeting", sees="-ERR too many connections, then a closed connection")
class NegativeGreeting(Honest):
    """The greeting is negative."""

    def greet(self) -> None:
        self.say("-ERR too many connections")
        self.open = False


@broken("greeting-same-stamp", "greeting-timestamp", sees="+OK <1@example.com> every time")
class OneStamp(Honest):
    """Each greeting has the same timestamp, so what APOP sent once can be replayed."""

    def greet(self) -> None:
        self.say("+OK <1@example.com>")


@broken(
    "greeting-coarse-stamp",
    "greeting-timestamp",
    sees="the same timestamp on connections opened together",
)
class CoarseClock(Honest):
    """The timestamp is too coarse a clock: three greetings in a row share it."""

    def greet(self) -> None:
        self.say(f"+OK <{next(self.stamps) // 3}@example.com>")


# Command lines


@broken("unknown-accepted", "unknown-command", "unknown-transaction", sees="+OK to XYZW")
class Yes(Honest):
    """An unknown command is answered with +OK."""

    def do_xyzw(self) -> None:
        self.ok()


@broken(
    "unknown-closes",
    "unknown-command",
    status="warn",
    sees="-ERR to an unknown command, then a closed connection",
)
class Touchy(Honest):
    """The connection is closed after an unknown command."""

    def do_xyzw(self) -> None:
        self.err()
        self.open = False


@broken(
    "bad-commands-accepted",
    "bad-commands",
    status="warn",
    sees="+OK to the tenth unknown command",
)
class Tires(Honest):
    """An unknown command is answered with +OK after nine of them."""

    count = 0

    def do_xyzw(self) -> None:
        self.count += 1
        if self.count > 9:  # noqa: PLR2004
            self.ok()
        else:
            self.err()


@broken("upper-case-only", "command-case", sees="-ERR to 'quit'")
class UpperCaseOnly(Honest):
    """Commands are understood in upper case only."""

    def verb(self, word: str) -> str:
        return word.lower() if word.isupper() else "nothing"


@broken(
    "quit-stays-open",
    "quit-authorization",
    "quit-transaction",
    silent=True,
    sees="+OK to QUIT, and a connection that stays open",
)
class NeverCloses(Honest):
    """QUIT does not close the connection."""

    def do_quit(self) -> None:
        self.ok()


@broken("noop-before-login", "state-authorization", sees="+OK to NOOP before login")
class EarlyNoop(Honest):
    """NOOP is obeyed before login."""

    def refuses(self, verb: str, refused: frozenset[str]) -> bool:
        return verb in refused - {"noop"}


@broken("segment-is-command", "segments", sees="-ERR to a command that is sent in two segments")
class SegmentIsCommand(Honest):
    """Whatever comes in one segment is taken for one command."""

    def read(self) -> str | None:
        return self.receive().rstrip(b"\r\n").decode("latin-1") or None


@broken(
    "segment-loses-rest",
    *("pipelining", "pipelining-transaction", "pipelining-login"),
    silent=True,
    sees="no reply to any but the first of several commands in one segment",
)
class LosesTheRest(Honest):
    """PIPELINING is announced, but only the first command of a segment is answered."""

    def read(self) -> str | None:
        line = super().read()
        self.buffer = b""
        return line


@broken("line-cut-at-128", "command-length", sees="two replies to a command of 255 octets")
class SmallBuffer(Honest):
    """A line is taken for several commands of 128 octets."""

    limit = 128

    def run(self, line: str) -> None:
        for start in range(0, max(len(line), 1), self.limit):
            super().run(line[start : start + self.limit])


@broken(
    "line-cut-at-1024",
    "line-too-long",
    status="warn",
    sees="four replies to a line of 4,000 octets",
)
class CutsLines(SmallBuffer):
    """A line that is too long is taken for several commands."""

    limit = 1024


@broken(
    "line-without-limit",
    "endless-line",
    status="warn",
    silent=True,
    sees="no reply, however much is sent without a line end",
)
class TakesAll(Honest):
    """A line is kept until its end comes: a client can use up all memory."""

    def read(self) -> str | None:
        parts = [self.buffer]
        while b"\n" not in parts[-1]:
            parts.append(self.receive())
            if not parts[-1]:
                return None
        line, _, self.buffer = b"".join(parts).partition(b"\n")
        return line.rstrip(b"\r").decode("latin-1")


@broken(
    "line-without-limit-after-login",
    "endless-line",
    status="warn",
    silent=True,
    sees="no reply after login, however much is sent without a line end",
)
class TakesAllInside(TakesAll):
    """A line is kept until its end comes, once somebody has logged in."""

    def read(self) -> str | None:
        return super().read() if self.user else Honest.read(self)


@broken(
    "line-without-end-obeyed",
    "endless-line",
    status="warn",
    sees="+OK after a MiB without a line end",
)
class EndsLines(TakesAll):
    """A line without an end is taken for a good command."""

    def read(self) -> str | None:
        while b"\n" not in self.buffer:
            chunk = self.receive()
            if not chunk:
                return None
            self.buffer += chunk
            if len(self.buffer) > KEPT_AT_ONCE:
                self.buffer = b""
                self.ok()
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.rstrip(b"\r").decode("latin-1")


class Nul(Honest):
    """A base: `mend` says what becomes of a line with NUL; the honest server refuses it."""

    def mend(self, line: str) -> str:
        return line

    def run(self, line: str) -> None:
        super().run(self.mend(line))


@broken("nul-ends-command", "nul", sees="+OK to NOOP<NUL>x, and a login by PASS right<NUL>x")
class EndsAtNul(Nul):
    """A command line ends at NUL, as strings do in C."""

    def mend(self, line: str) -> str:
        return line.partition("\0")[0]


@broken("nul-left-out", "nul", sees="+OK to NO<NUL>OP")
class LeavesNulOut(Nul):
    """NUL is left out of a command line."""

    def mend(self, line: str) -> str:
        return line.replace("\0", "")


@broken("nul-ends-argument", "nul", sees="+OK to LIST 1<NUL>")
class EndsArgumentsAtNul(Nul):
    """The number of a message ends at NUL."""

    def mend(self, line: str) -> str:
        verb, _, rest = line.partition(" ")
        return f"{verb} {rest.partition(chr(0))[0]}" if rest[:1].isdigit() else line


@broken("nul-ends-password", "nul", sees="+OK to PASS right<NUL>x")
class EndsPasswordAtNul(Nul):
    """A password ends at NUL: what comes after it is not compared."""

    def mend(self, line: str) -> str:
        return line.partition("\0")[0] if line.upper().startswith("PASS ") else line


@broken("nul-ends-name", "nul", sees="a login as luke after USER luke<NUL>x")
class EndsNameAtNul(Nul):
    """A user name ends at NUL."""

    def mend(self, line: str) -> str:
        return line.partition("\0")[0] if line.upper().startswith("USER ") else line


# CAPA


@broken("capa-dotted-tag", "capa", sees="X-1.0 among the capabilities")
class DottedTag(Honest):
    """A capability has a dot in its tag."""

    def capa(self) -> Sequence[str]:
        return [*super().capa(), "X-1.0"]


@broken("capa-long-line", "capa", sees="a capability of more than 512 octets")
class LongCapability(Honest):
    """A capability is longer than a response line may be."""

    def capa(self) -> Sequence[str]:
        return [*super().capa(), "IMPLEMENTATION " + "x" * 512]


@broken("capa-unregistered", "capa-registered", status="warn", sees="CAPA in its own list")
class ListsCapa(Honest):
    """A capability is not registered, and does not begin with X."""

    def capa(self) -> Sequence[str]:
        return ["CAPA", *super().capa()]


@broken(
    "user-announced-refused",
    "capa-user",
    status="warn",
    sees="USER in CAPA, -ERR to USER without TLS",
)
class RefusesUser(Honest):
    """USER is announced without TLS, but refused."""

    def do_user(self, name: str) -> None:
        if self.tls:
            super().do_user(name)
        else:
            self.err("TLS first")


# USER and PASS


@broken("user-without-name", "user-argument", sees="+OK to USER")
class NamelessUser(Honest):
    """USER without a name is accepted."""

    def do_user(self, name: str) -> None:
        self.name = name
        self.ok()


@broken("pass-without-user", "pass-without-user", sees="+OK to PASS as the first command")
class PassAlone(Honest):
    """PASS is accepted without USER."""

    def do_pass(self, password: str) -> None:
        if self.name is None:
            self.ok()
        else:
            super().do_pass(password)


@broken("pass-after-failure", "pass-after-failure", sees="-ERR to one PASS, +OK to the next")
class RemembersUser(Honest):
    """After a failed PASS the name still counts, so guessing passwords is twice as fast."""

    def do_pass(self, password: str) -> None:
        name = self.name
        super().do_pass(password)
        self.name = name


@broken("login-refused", "login", sees="-ERR [AUTH] to the right password")
class NoLogin(Honest):
    """Nobody can log in."""

    def enter(self, name: str, password: str) -> None:
        self.err("[AUTH] no")


@broken("login-open", "failed-login", sees="+OK to any name and password")
class OpenDoor(Honest):
    """Any name and password log in."""

    def enter(self, name: str, password: str) -> None:
        super().enter(USER, PASSWORD)


@broken(
    "login-tells-names",
    "login-refusal",
    status="warn",
    sees="another reply for an unknown name than for a wrong password",
)
class TellsNames(Honest):
    """The refusal of a login says whether the user exists."""

    def enter(self, name: str, password: str) -> None:
        if name != USER:
            self.err("[AUTH] nobody has this name")
        else:
            super().enter(name, password)


@broken("auth-code-missing", "auth-resp-code", sees="-ERR without [AUTH] to a wrong password")
class NoCode(Honest):
    """AUTH-RESP-CODE is announced, but a failed login has no code."""

    AUTH = ""


@broken(
    "auth-code-unannounced",
    "auth-resp-code-announced",
    status="warn",
    sees="-ERR [AUTH], and no AUTH-RESP-CODE in CAPA",
)
class UnannouncedAuth(Honest):
    """[AUTH] is sent, but AUTH-RESP-CODE is not announced."""

    def capa(self) -> Sequence[str]:
        return [tag for tag in super().capa() if tag != "AUTH-RESP-CODE"]


@broken(
    "busy-without-code",
    "second-session",
    status="warn",
    sees="-ERR [SYS/TEMP] while another session has the maildrop",
)
class NoInUse(Honest):
    """A locked maildrop is refused without [IN-USE]."""

    def enter(self, name: str, password: str) -> None:
        if self.server.lock and (name, password) == (USER, PASSWORD):
            self.err("[SYS/TEMP] busy")
        else:
            super().enter(name, password)
