"""The commands of the TRANSACTION state (RFC 1939 s5, s7).

A handler that can answer at once is a plain function; one that may have to wait returns a
coroutine. Either sends its reply or raises the error that is the reply; state and arity were
checked before.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from pop3hub import protocol
from pop3hub.errors import CommandError
from pop3hub.maildrop import PAGE
from pop3hub.session.retrieval import SLICE, measure_first, must_measure, needs_utf8, transmit

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from pop3hub.session.session import Session

    Answer = Coroutine[Any, Any, None] | None
    Lines = Callable[[int, int], list[str]]

_LINES = re.compile(r"[0-9]{1,10}", re.ASCII)


def stat(session: Session) -> Answer:
    """Tell count and octets of the messages that are not marked."""
    maildrop = session.maildrop
    if must_measure(session):
        return measure_first(session, stat)
    octets = maildrop.octets(surrogates=session.takes_surrogates)
    session.channel.send(b"+OK %d %d\r\n" % (len(maildrop), octets))
    return None


def list_(session: Session, number: str | None = None) -> Answer:
    """Tell the size of one message, or of all that are not marked."""
    maildrop = session.maildrop
    surrogates = session.takes_surrogates
    if number is None:
        if must_measure(session):
            return measure_first(session, list_)
        octets = maildrop.octets(surrogates=surrogates)
        session.ok("listing-follows", count=len(maildrop), octets=octets)
        return _send_listing(
            session, "LIST", lambda *span: maildrop.sizes(*span, surrogates=surrogates)
        )
    n = maildrop.number(number)
    if surrogates and maildrop[n].ascii_size is None:
        return _list_measured(session, n)
    session.channel.send(b"+OK %d %d\r\n" % (n, maildrop.size(n, surrogate=surrogates)))
    return None


async def _list_measured(session: Session, n: int) -> None:
    await needs_utf8(session, n)
    session.channel.send(b"+OK %d %d\r\n" % (n, session.maildrop.size(n, surrogate=True)))


def uidl(session: Session, number: str | None = None) -> Answer:
    """Tell the unique-id of one message, or of all that are not marked."""
    maildrop = session.maildrop
    if number is None:
        session.ok("unique-ids-follow")
        return _send_listing(session, "UIDL", maildrop.unique_ids)
    n = maildrop.number(number)
    session.channel.send(b"+OK %d %b\r\n" % (n, maildrop.unique_id(n).encode("ascii")))
    return None


def _send_listing(session: Session, command: str, lines: Lines) -> Answer:
    """Send the lines of all messages, and keep them where others will be told the same."""
    answers = session.maildrop.answers
    kept = None if answers is None else answers.get(command)
    if kept is not None and len(kept) > SLICE:
        return _send_kept(session, kept)
    if kept is None and session.maildrop.highest > PAGE:
        return _send_pages(session, command, lines)
    if kept is None:
        kept = "".join(lines(1, PAGE)).encode("ascii") + protocol.END
        if answers is not None:
            answers[command] = kept
    session.channel.send(kept)
    return None


async def _send_kept(session: Session, kept: bytes) -> None:
    for start in range(0, len(kept), SLICE):
        session.channel.send(kept[start : start + SLICE])
        await session.channel.drain()


async def _send_pages(session: Session, command: str, lines: Lines) -> None:
    """Make and send a long listing in pages, with turns for other sessions in between."""
    pages = []
    for start in range(1, session.maildrop.highest + 1, PAGE):
        pages.append("".join(lines(start, PAGE)).encode("ascii"))
        session.channel.send(pages[-1])
        await session.channel.drain()
        await asyncio.sleep(0)
    session.channel.send(protocol.END)
    answers = session.maildrop.answers
    if answers is not None:
        answers[command] = b"".join(pages) + protocol.END


def retr(session: Session, number: str) -> Answer:
    """Send a whole message."""
    return transmit(session, session.maildrop.number(number), None)


def top(session: Session, number: str, lines: str) -> Answer:
    """Send a message's header and the first so many lines of its body."""
    n = session.maildrop.number(number)
    if not _LINES.fullmatch(lines):
        raise CommandError("line-count-invalid")
    return transmit(session, n, int(lines))


def dele(session: Session, number: str) -> None:
    """Mark a message as deleted; it goes in UPDATE."""
    n = session.maildrop.number(number)
    session.maildrop.mark(n)
    session.ok("message-deleted", number=n)


def noop(session: Session) -> None:
    """Do nothing, successfully."""
    session.ok("nothing-done")


def rset(session: Session) -> None:
    """Take all deletion marks off."""
    maildrop = session.maildrop
    maildrop.unmark_all()
    if session.retrieved is not None:
        session.retrieved.clear()
    octets = maildrop.octets(surrogates=session.takes_surrogates)
    session.ok("marks-removed", count=len(maildrop), octets=octets)
