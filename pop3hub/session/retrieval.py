"""Messages on their way to a client: RETR and TOP, and the sizes of surrogates (RFC 1939 s5, s7).

Contents at hand and contents that are awaited meet the same encoder, in `Transfer`.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

from pop3hub import protocol
from pop3hub.errors import CommandError, PopError
from pop3hub.protocol.downgrade import Downgrader

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from pop3hub.hooks.plugins import Contents
    from pop3hub.session.session import Session

    Answer = Coroutine[Any, Any, None] | None
    Waiting = Coroutine[Any, Any, Contents]

SLICE = 64 * 1024
"""Octets that are encoded at a time; contents at hand up to this size are sent without a wait."""
MEASURED = 8 * 1024 * 1024
"""Octets of messages that STAT and LIST read to find out whether they have surrogates."""
TURN = 1024 * 1024
"""Octets after which other sessions get their turn, however fast the client reads."""


class Transfer:
    """One message for RETR, or the first lines of it for TOP: announced, encoded and counted.

    contents: all of it, where it is at hand: octets that were sent once need no second look.
    """

    __slots__ = ("_body_lines", "_contents", "_encoder", "_number", "_session", "downgrader")

    def __init__(
        self, session: Session, number: int, body_lines: int | None, contents: Contents
    ) -> None:
        message = session.maildrop[number]
        surrogate = message.ascii_size != message.size and session.takes_surrogates
        self.downgrader = Downgrader() if surrogate else None
        self._encoder: protocol.Encoder
        if message.wire_ready and body_lines is None and not surrogate:
            self._encoder = protocol.WireReadyEncoder(seen=contents is message.seen_ready)
        else:
            self._encoder = protocol.MessageEncoder(body_lines)
        self._session = session
        self._number = number
        self._body_lines = body_lines
        self._contents = contents

    def announce(self) -> None:
        """Send the status line; after it the reply can only be finished or cut off."""
        session = self._session
        if self._body_lines is not None:
            session.ok("top-follows")
            return
        octets = session.maildrop.size(self._number, surrogate=self.downgrader is not None)
        session.ok("octets-follow", octets=octets)

    def feed(self, chunk: bytes) -> None:
        """Send a chunk of the message as it is stored."""
        if self.downgrader:
            chunk = self.downgrader.feed(chunk)
        self._session.channel.send(self._encoder.feed(chunk))

    @property
    def done(self) -> bool:
        """Whether TOP has sent its lines and the rest of the message need not be read."""
        return self._encoder.done

    def end(self) -> Answer:
        """End the reply and count it; return what is still to be awaited."""
        session, encoder = self._session, self._encoder
        if self.downgrader and not encoder.done:
            session.channel.send(encoder.feed(self.downgrader.end()))
        session.channel.send(encoder.end())
        message = session.maildrop[self._number]
        if isinstance(encoder, protocol.WireReadyEncoder):
            if not encoder.claim_held:
                session.log.warning("message.not_wire_ready", uid=message.uid)
                message.wire_ready = False
            elif isinstance(self._contents, bytes):
                message.seen_ready = self._contents
        if self.downgrader and self._body_lines is None:
            _remember(session, self._number, self.downgrader)
        return _count(session, self._number, encoder.octets, whole=self._body_lines is None)


def _count(session: Session, number: int, octets: int, *, whole: bool) -> Answer:
    """Count what was sent; return what is still to be awaited, for a message that RETR sent."""
    stats = session.stats
    stats.octets += octets
    if not whole:
        return None
    stats.retrieved += 1
    message = session.maildrop[number]
    if octets not in {message.size, message.ascii_size}:
        session.log.warning("message.size_differs", uid=message.uid, size=message.size, sent=octets)
    if session.retrieved is not None:
        session.retrieved.add(number)
    if session.plugins.observes("message_retrieved"):
        return session.plugins.message_retrieved(message, session.view)
    return None


def transmit(session: Session, number: int, body_lines: int | None) -> Answer:
    """Send a message: at once if it is at hand, short, and needs no surrogate."""
    if session.settings.internationalized == "reject" and not session.utf8:
        message = session.maildrop[number]
        if message.ascii_size is None:
            return _transmit_measured(session, number, body_lines)
        if message.ascii_size != message.size:
            raise _needs_utf8_error(number)
    return _load_and_send(session, number, body_lines)


async def _transmit_measured(session: Session, number: int, body_lines: int | None) -> None:
    if await needs_utf8(session, number):
        raise _needs_utf8_error(number)
    waiting = _load_and_send(session, number, body_lines)
    if waiting is not None:
        await waiting


def _needs_utf8_error(number: int) -> CommandError:
    return CommandError("message-needs-utf8", code="UTF8", number=number)


def _load_and_send(session: Session, number: int, body_lines: int | None) -> Answer:
    message = session.maildrop[number]
    contents = session.plugins.load_contents(message, session.view)
    if not isinstance(contents, bytes) or len(contents) > SLICE:
        return _stream(session, number, body_lines, contents)
    if message.ascii_size is None and contents.isascii():
        message.ascii_size = message.size
    transfer = Transfer(session, number, body_lines, contents)
    if transfer.downgrader:
        return _stream(session, number, body_lines, contents)
    transfer.announce()
    transfer.feed(contents)
    return transfer.end()


async def _stream(
    session: Session, number: int, body_lines: int | None, contents: bytes | Waiting
) -> None:
    """Send a message chunk by chunk, as its store yields it and its client reads.

    Where nobody knows yet whether its headers need a surrogate, that shows while they are sent, and
    is remembered; the octets announced are then those of the message as it is stored.
    """
    channel = session.channel
    opened = contents if isinstance(contents, bytes) else await contents
    at_once = isinstance(opened, bytes) and len(opened) <= SLICE
    async with aclosing(_slices(opened) if isinstance(opened, bytes) else opened) as chunks:
        # What fails before the first chunk can still be told to the client.
        chunk = await anext(chunks, b"")
        transfer = Transfer(session, number, body_lines, opened)
        transfer.announce()
        turn = 0
        try:
            while True:
                transfer.feed(chunk)
                if transfer.done or at_once:  # its end goes out in the same write
                    break
                turn += len(chunk)
                if turn > TURN:
                    turn = 0
                    await asyncio.sleep(0)
                await channel.drain()
                chunk = await anext(chunks)
        except StopAsyncIteration:
            pass
        except PopError:  # logged where it was caught; a final dot would call half a message whole
            session.abort("store failed")
            return
    waiting = transfer.end()
    if waiting is not None:
        await waiting


async def _chunks(contents: bytes | Waiting) -> AsyncGenerator[bytes, None]:
    """Return the chunks of a message, none of them larger than a slice where we cut them."""
    opened = contents if isinstance(contents, bytes) else await contents
    return _slices(opened) if isinstance(opened, bytes) else opened


async def _slices(contents: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(contents), SLICE):
        yield contents[start : start + SLICE]


# Surrogates


async def needs_utf8(session: Session, number: int) -> bool:
    """Return whether this session can't be sent a message as it is stored (RFC 6856 s2.1).

    Reads the whole message where that isn't known yet, and remembers what it found.
    """
    message = session.maildrop[number]
    if session.utf8 or session.settings.internationalized == "raw":
        return False
    if message.ascii_size is not None:
        return message.ascii_size != message.size
    downgrader = Downgrader()
    async with aclosing(
        await _chunks(session.plugins.load_contents(message, session.view))
    ) as chunks:
        async for chunk in chunks:
            downgrader.feed(chunk)
            await asyncio.sleep(0)
    downgrader.end()
    _remember(session, number, downgrader)
    return downgrader.changed


def _remember(session: Session, number: int, downgrader: Downgrader) -> None:
    message = session.maildrop[number]
    if not downgrader.changed:
        message.ascii_size = message.size
    elif downgrader.size != message.size:
        message.ascii_size = downgrader.size
        session.maildrop.measured(number)
    if message.ascii_size is not None and session.user is not None:
        uid = session.maildrop.unique_id(number)
        session.context.remember_size(session.user.name, uid, message.ascii_size)


def must_measure(session: Session) -> bool:
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


async def measure_first(session: Session, answer: Callable[[Session], Answer]) -> None:
    """Find out the sizes that `must_measure` asks for, then give the answer that needs them."""
    # What can't be read is RETR's to tell; it must not keep the other messages from being listed.
    with suppress(PopError):
        for n in session.maildrop.unmeasured:
            await needs_utf8(session, n)
    session.maildrop.unmeasured.clear()
    waiting = answer(session)
    if waiting is not None:
        await waiting
