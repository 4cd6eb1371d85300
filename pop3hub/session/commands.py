"""Command lines to handlers: the table, the checks that come first, and what both states share.

The only place where an error becomes a reply.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pop3hub import protocol
from pop3hub.errors import CommandError, PopError, TemporaryFailure
from pop3hub.hooks.interfaces import State
from pop3hub.session import authorization, transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from pop3hub.session.session import Session

    Answer = Coroutine[Any, Any, None] | None

IMPLEMENTATION = f"pop3hub-{version('pop3hub')}"


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the table: where it may stand, how many arguments it takes, and who does it.

    `rest` commands take all that stands behind the first space as one argument of octets.
    """

    handler: Callable[..., Answer]
    states: tuple[State, ...]
    usage: str
    least: int = 0
    most: int = 0
    rest: bool = False


# Commands of both states


def capa(session: Session) -> None:
    """List what this server can do, in this state (RFC 2449 s5)."""
    session.ok("capabilities-follow")
    lines = "".join(f"{line}\r\n" for line in capabilities(session))
    session.channel.send(lines.encode("ascii") + protocol.END)


def capabilities(session: Session) -> list[str]:
    """Return the capability lines; nothing that would be refused here (RFC 2449 s6)."""
    settings = session.settings
    lines = [f"IMPLEMENTATION {IMPLEMENTATION}", f"LOGIN-DELAY {settings.login_delay}"]
    if authorization.plaintext_allowed(session):
        lines.append("USER")
    lines += ["UIDL", "UTF8 USER"]
    lines.append("EXPIRE NEVER" if settings.expire is None else f"EXPIRE {settings.expire}")
    lines += ["LANG", "TOP", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING"]
    if mechanisms := authorization.mechanisms(session):
        lines.append("SASL " + " ".join(mechanisms))
    if session.state is State.AUTHORIZATION and session.starts_tls and session.tls is None:
        lines.append("STLS")
    lines += [line for line in session.plugins.capabilities(session.view) if _is_capability(line)]
    return lines


def _is_capability(line: str) -> bool:
    """Whether a plugin's line may be sent: printable ASCII, no dot in front, not too long."""
    return re.fullmatch(r"[!-\-/-~][ -~]{0,509}", line) is not None


def lang(session: Session, language_range: str | None = None) -> None:
    """Change the language of the texts, or list the languages (RFC 6856 s3)."""
    catalogue = session.context.catalogue
    if language_range is None:
        session.ok("languages-follow")
        lines = "".join(f"{each.tag} {each.name}\r\n" for each in catalogue.languages)
        session.channel.send(lines.encode("utf-8") + protocol.END)
        return
    if language_range == "*":
        session.reset_language()
    else:
        found = catalogue.find(language_range)
        if found is None:
            raise CommandError("language-unknown")
        session.texts = found
    session.plain = False
    tag = session.language
    text = session.text("language-changed", tag=tag)
    session.channel.send(protocol.ok(tag.encode("ascii") + b" " + text))


def quit_(session: Session) -> Answer:
    """Say goodbye; after a login, remove the marked messages first (RFC 1939 s4, s6)."""
    if session.state is State.TRANSACTION:
        return _update(session)
    session.ok("signing-off", name=session.settings.name)
    session.end("quit")
    return None


async def _update(session: Session) -> None:
    try:
        failed = await session.update()
        if failed:
            raise TemporaryFailure(text_id="messages-not-removed", failed=failed)
    except PopError as error:
        session.refuse(error)
    else:
        session.ok("signing-off", name=session.settings.name)
    session.end("quit")


_AUTHORIZATION = (State.AUTHORIZATION,)
_TRANSACTION = (State.TRANSACTION,)
_BOTH = _AUTHORIZATION + _TRANSACTION

COMMANDS = {
    b"USER": Command(authorization.user, _AUTHORIZATION, "USER name", 1, rest=True),
    b"PASS": Command(authorization.pass_, _AUTHORIZATION, "PASS password", 1, rest=True),
    b"APOP": Command(authorization.apop, _AUTHORIZATION, "APOP name digest", 1, rest=True),
    b"AUTH": Command(authorization.auth_, _AUTHORIZATION, "AUTH mechanism [response]", 0, 2),
    b"STLS": Command(authorization.stls, _AUTHORIZATION, "STLS"),
    b"UTF8": Command(authorization.utf8, _AUTHORIZATION, "UTF8"),
    b"STAT": Command(transaction.stat, _TRANSACTION, "STAT"),
    b"LIST": Command(transaction.list_, _TRANSACTION, "LIST [message]", 0, 1),
    b"UIDL": Command(transaction.uidl, _TRANSACTION, "UIDL [message]", 0, 1),
    b"RETR": Command(transaction.retr, _TRANSACTION, "RETR message", 1, 1),
    b"TOP": Command(transaction.top, _TRANSACTION, "TOP message lines", 2, 2),
    b"DELE": Command(transaction.dele, _TRANSACTION, "DELE message", 1, 1),
    b"NOOP": Command(transaction.noop, _TRANSACTION, "NOOP"),
    b"RSET": Command(transaction.rset, _TRANSACTION, "RSET"),
    b"CAPA": Command(capa, _BOTH, "CAPA"),
    b"LANG": Command(lang, _BOTH, "LANG [language]", 0, 1),
    b"QUIT": Command(quit_, _BOTH, "QUIT"),
}

# What may stand between USER and PASS without the name being forgotten.
_KEEP_NAME = frozenset({b"PASS", b"CAPA", b"LANG", b"UTF8"})


def handle(session: Session, line: bytes | None) -> Answer:
    """Carry out a command line, None standing for one that was too long.

    Returns None once it is answered, or a coroutine to be awaited before the next line is handled.
    """
    session.stats.commands += 1
    try:
        waiting = _start(session, line)
    except PopError as error:
        refuse(session, error)
        return None
    if waiting is not None:
        return _finish(session, waiting)
    session.bad_commands = 0
    return None


def _start(session: Session, line: bytes | None) -> Answer:
    name, session.pending_name = session.pending_name, None
    if line is None:
        raise CommandError("line-too-long")
    keyword, rest = protocol.split_command(line)
    if keyword in _KEEP_NAME:
        session.pending_name = name
    command = COMMANDS.get(keyword)
    if command is None:
        raise CommandError("unknown-command")
    if session.state not in command.states:
        after = session.state is State.TRANSACTION
        raise CommandError("logged-in-already" if after else "log-in-first")
    if command.rest:
        if not (rest if keyword == b"PASS" else rest.strip()):
            raise CommandError("arguments-wrong", usage=command.usage)
        return command.handler(session, rest)
    if not rest:
        if command.least:
            raise CommandError("arguments-wrong", usage=command.usage)
        return command.handler(session)
    # Octets are split, not text: the spaces of other scripts part no arguments.
    arguments = [protocol.text_of(argument) for argument in rest.split()]
    if not command.least <= len(arguments) <= command.most:
        raise CommandError("arguments-wrong", usage=command.usage)
    return command.handler(session, *arguments)


async def _finish(session: Session, waiting: Coroutine[Any, Any, None]) -> None:
    try:
        await waiting
    except PopError as error:
        refuse(session, error)
    else:
        session.bad_commands = 0


def refuse(session: Session, error: PopError) -> None:
    """Answer with the error, or close after too many bad commands in a row."""
    if isinstance(error, CommandError):
        session.bad_commands += 1
        if session.bad_commands >= session.settings.limits.bad_commands:
            session.refuse(CommandError("too-many-bad-commands"))
            session.end("bad commands")
            return
    session.refuse(error)
