"""The commands of the TRANSACTION state (RFC 1939 s5, s7).

A handler that can answer at once is a plain function; one that may have to wait returns a
coroutine. Either sends its reply or raises the error that is the reply; state and arity were
checked before.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

from pop3hub import protocol
from pop3hub.downgrade import Downgrader
from pop3hub.errors import CommandError, PermanentFailure, PopError
from pop3hub.listing import PAGE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine

    from pop3hub.maildrop import PopMessage
    from pop3hub.session import Session

    Answer = Coroutine[Any, Any, None] | None
    Lines = Callable[[int, int], list[str]]

SLICE = 64 * 1024
"""Octets that are encoded at a time; contents at hand up to this size are sent without a wait."""
MEASURED = 8 * 1024 * 1024
"""Octets of messages that STAT and LIST read to find out whether they have surrogates."""
TURN = 1024 * 1024
"""Octets after which other sessions get their turn, however fast the client reads."""

_LINES = re.compile(r"[0-9]{1,10}", re.ASCII)


def stat(session: Session) -> Answer:
    """Tell count and octets of the messages that are not marked."""
    maildrop = session.maildrop
    if _must_measure(session):
        return _measure_first(session, stat)
    octets = maildrop.octets(surrogates=session.takes_surrogates)
    session.channel.send(b"+OK %d %d\r\n" % (len(maildrop), octets))
    return None


def list_(session: Session, number: str | None = None) -> Answer:
    """Tell the size of one message, or of all that are not marked."""
    maildrop = session.maildrop
    surrogates = session.takes_surrogates
    if number is None:
        if _must_measure(session):
            return _measure_first(session, list_)
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
    await _needs_utf8(session, n)
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
    return _transmit(session, session.maildrop.number(number), None)


def top(session: Session, number: str, lines: str) -> Answer:
    """Send a message's header and the first so many lines of its body."""
    n = session.maildrop.number(number)
    if not _LINES.fullmatch(lines):
        raise CommandError("line-count-invalid")
    return _transmit(session, n, int(lines))


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


# Messages


def _transmit(session: Session, n: int, body_lines: int | None) -> Answer:
    """Send message n: at once if it is at hand, short, and can go as it is stored."""
    message = session.maildrop[n]
    if message.size > SLICE:
        return _stream(session, n, body_lines)
    contents = session.plugins.contents_at_hand(message, session)
    if contents is None or len(contents) > SLICE:
        return _stream(session, n, body_lines)
    if not session.utf8 and session.settings.internationalized != "raw":
        if message.ascii_size is None and contents.isascii():
            message.ascii_size = message.size
        if message.ascii_size != message.size:
            return _stream(session, n, body_lines)
    _announce(session, body_lines, message.size)
    if message.wire_ready and body_lines is None:
        session.channel.send(contents + protocol.END)
        return _sent(session, n, len(contents))
    encoder = protocol.MessageEncoder(body_lines)
    session.channel.send(encoder.feed(contents) + encoder.end())
    return _sent(session, n, encoder.octets, whole=body_lines is None)


async def _stream(session: Session, n: int, body_lines: int | None) -> None:
    """Send message n as its store yields it, with its headers downgraded if need be.

    Where nobody knows yet whether they need it, that shows while they are sent, and is remembered;
    the octets announced are then those of the message as it is stored.
    """
    message = session.maildrop[n]
    if session.settings.internationalized == "reject" and await _needs_utf8(session, n):
        raise CommandError("message-needs-utf8", code="UTF8", number=n)
    surrogate = session.takes_surrogates and message.ascii_size != message.size
    downgrader = Downgrader() if surrogate else None
    async with aclosing(await _open(session, n)) as chunks:
        # What fails before the first chunk can still be told to the client.
        first = await anext(chunks, b"")
        _announce(session, body_lines, session.maildrop.size(n, surrogate=surrogate))
        try:
            if message.wire_ready and body_lines is None and not downgrader:
                octets = await _pass_on(session, first, chunks)
            else:
                octets = await _encode(session, first, chunks, body_lines, downgrader)
        except PopError:  # logged where it was caught; a final dot would call half a message whole
            session.abort("store failed")
            return
    if downgrader and body_lines is None:
        _remember(session, n, downgrader)
    finished = _sent(session, n, octets, whole=body_lines is None)
    if finished is not None:
        await finished


async def _pass_on(session: Session, first: bytes, chunks: AsyncIterator[bytes]) -> int:
    channel = session.channel
    octets = turn = len(first)
    channel.send(first)
    async for chunk in chunks:
        await channel.drain()
        channel.send(chunk)
        octets += len(chunk)
        turn += len(chunk)
        if turn > TURN:
            turn = 0
            await asyncio.sleep(0)
    channel.send(protocol.END)
    return octets


async def _encode(
    session: Session,
    first: bytes,
    chunks: AsyncIterator[bytes],
    body_lines: int | None,
    downgrader: Downgrader | None,
) -> int:
    channel = session.channel
    encoder = protocol.MessageEncoder(body_lines)
    turn = 0
    chunk = first
    while True:
        channel.send(encoder.feed(downgrader.feed(chunk) if downgrader else chunk))
        turn += len(chunk)
        if turn > TURN:
            turn = 0
            await asyncio.sleep(0)
        if encoder.done:
            break
        await channel.drain()
        try:
            chunk = await anext(chunks)
        except StopAsyncIteration:
            if downgrader:
                channel.send(encoder.feed(downgrader.end()))
            break
    channel.send(encoder.end())
    return encoder.octets


async def _open(session: Session, n: int) -> AsyncGenerator[bytes, None]:
    """Return the chunks of message n, none of them larger than a slice where we cut them."""
    try:
        contents = await session.plugins.load_contents(session.maildrop[n], session)
    except PermanentFailure as exc:
        exc.fields.setdefault("number", n)
        raise
    if isinstance(contents, bytes):
        return _slices(contents)
    return session.plugins.chunks(contents)


async def _slices(contents: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(contents), SLICE):
        yield contents[start : start + SLICE]


async def _needs_utf8(session: Session, n: int) -> bool:
    """Return whether this session can't be sent message n as it is stored (RFC 6856 s2.1).

    Reads the whole message where that isn't known yet, and remembers what it found.
    """
    message = session.maildrop[n]
    if session.utf8 or session.settings.internationalized == "raw":
        return False
    if message.ascii_size is not None:
        return message.ascii_size != message.size
    downgrader = Downgrader()
    async with aclosing(await _open(session, n)) as chunks:
        async for chunk in chunks:
            downgrader.feed(chunk)
            await asyncio.sleep(0)
    downgrader.end()
    _remember(session, n, downgrader)
    return downgrader.changed


def _remember(session: Session, n: int, downgrader: Downgrader) -> None:
    message = session.maildrop[n]
    if not downgrader.changed:
        message.ascii_size = message.size
    elif downgrader.size != message.size:
        message.ascii_size = downgrader.size
        session.maildrop.measured(n)
    if message.ascii_size is not None and session.user is not None:
        uid = session.maildrop.unique_id(n)
        session.context.remember_size(session.user.name, uid, message.ascii_size)


def _must_measure(session: Session) -> bool:
    """Return whether sizes must be found out first, so that they are those of RETR (RFC 6856 s2.1).

    Where that means to read too much, the sizes are those that the store tells.
    """
    maildrop = session.maildrop
    if not (maildrop.unmeasured and session.takes_surrogates):
        return False
    user = session.user.name if session.user else ""
    measured = session.context.measured
    unknown = []
    for n in maildrop.unmeasured:
        message = maildrop[n]
        if message.ascii_size is None:
            message.ascii_size = measured.get((user, maildrop.unique_id(n)))
            maildrop.measured(n)
        if message.ascii_size is None:
            unknown.append(n)
    maildrop.unmeasured = unknown
    return 0 < sum(maildrop[n].size for n in unknown) <= MEASURED


async def _measure_first(session: Session, answer: Callable[[Session], Answer]) -> None:
    # What can't be read is RETR's to tell; it must not keep the other messages from being listed.
    with suppress(PopError):
        for n in session.maildrop.unmeasured:
            await _needs_utf8(session, n)
    session.maildrop.unmeasured.clear()
    waiting = answer(session)
    if waiting is not None:
        await waiting


def _announce(session: Session, body_lines: int | None, octets: int) -> None:
    if body_lines is None:
        session.ok("octets-follow", octets=octets)
    else:
        session.ok("top-follows")


def _sent(session: Session, n: int, octets: int, *, whole: bool = True) -> Answer:
    """Count what was sent; return what is still to be awaited, for a message that RETR sent."""
    stats = session.stats
    stats.octets += octets
    if not whole:
        return None
    stats.retrieved += 1
    message: PopMessage = session.maildrop[n]
    if octets not in {message.size, message.ascii_size}:
        session.log.warning("message.size_differs", uid=message.uid, size=message.size, sent=octets)
    if session.retrieved is not None:
        session.retrieved.add(n)
    if session.plugins.observes("message_retrieved"):
        return session.plugins.message_retrieved(message, session)
    return None
