"""Byte-level POP3: command lines in, replies and encoded messages out (RFC 1939, RFC 2449).

Nothing here awaits, logs or knows a maildrop. Every function accepts any split of its input.
"""

from __future__ import annotations

import re

from pop3hub.errors import CommandError

REPLY_LIMIT = 512
"""Octets of a status line, CRLF included (RFC 2449 s4)."""
COMMAND_LIMIT = 255
"""Octets of a command, CRLF included (RFC 2449 s4)."""

END = b".\r\n"
"""The termination octet and its CRLF, at the end of a multi-line reply (RFC 1939 s3)."""

_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")
_AUTH = re.compile(rb"AUTH ", re.IGNORECASE)

# An expression that begins with one octet is looked for by memchr; `count` and `replace` of two
# octets are several times slower (benchmarks/parts.py).
_BARE_LF = re.compile(rb"\n(?<!\r\n)")
_DOT_AFTER_LF = re.compile(rb"\n\.")
_DOT = 0x2E
_DOT_LINE = re.compile(rb"\n(?=\.)")


class LineNeverEnds(Exception):
    """A peer went on sending a line that is long refused; the connection has to go."""


class Framer:
    """Lines out of octets; bounded whatever the peer sends.

    A line that is too long is swallowed to its end, so that what follows stays in step, and told
    as None in its place.
    """

    __slots__ = ("_buffer", "_position", "_swallowed", "auth_limit", "swallow_limit")

    def __init__(self, *, auth_limit: int, swallow_limit: int) -> None:
        """Take limits in octets: of a line that begins with AUTH, and of what is swallowed."""
        self._buffer = b""
        self._position = 0
        self._swallowed = 0
        self.auth_limit = auth_limit
        self.swallow_limit = swallow_limit

    def __len__(self) -> int:
        """Count the octets that wait."""
        return len(self._buffer) - self._position

    def feed(self, data: bytes) -> None:
        """Append what came from the peer."""
        if self._position:
            self._buffer = self._buffer[self._position :] + data
            self._position = 0
        elif self._buffer:
            self._buffer += data
        else:
            self._buffer = data

    def clear(self) -> None:
        """Forget what waits: nothing that came in clear may run behind STLS (RFC 2595 s4)."""
        self._buffer = b""
        self._position = self._swallowed = 0

    def take(self, limit: int) -> tuple[bytes | None] | None:
        """Return the next line, without its CRLF or bare LF, in a tuple; None if none is whole.

        In the tuple is None for a line of more than `limit` octets, CRLF included.
        Raises LineNeverEnds.
        """
        buffer = self._buffer
        start = self._position
        end = buffer.find(b"\n", start)
        if end < 0:
            if buffer:
                self._hold_back(limit)
            return None
        length = end + 1 - start + self._swallowed
        if end + 1 == len(buffer):
            self._buffer = b""
            self._position = 0
        else:
            self._position = end + 1
        if length > limit and length > self._limit(buffer, start, limit):
            self._swallowed = 0
            return (None,)
        if buffer[end - 1 : end] == b"\r" and end > start:
            end -= 1
        return (buffer[start:end],)

    def _hold_back(self, limit: int) -> None:
        waiting = len(self)
        if waiting + self._swallowed > self._limit(self._buffer, self._position, limit):
            self._swallowed += waiting
            self._buffer = b""
            self._position = 0
            if self._swallowed > self.swallow_limit:
                raise LineNeverEnds

    def _limit(self, buffer: bytes, start: int, limit: int) -> int:
        if self._swallowed:
            return limit
        return max(limit, self.auth_limit) if _AUTH.match(buffer, start) else limit


def split_command(line: bytes) -> tuple[bytes, bytes]:
    """Return a line's keyword in upper case and what stands behind its first space.

    Raises CommandError: the line holds control characters, tabs at its end left out, which stand
    for spaces. Trailing spaces stay: they may be part of a password.
    """
    keyword, _, rest = line.partition(b" ")
    if _CONTROLS.search(line):
        line = line.rstrip(b" \t")
        if _CONTROLS.search(line) or keyword.upper() == b"PASS":
            raise CommandError("line-has-controls")
        keyword, _, rest = line.partition(b" ")
    return keyword.upper(), rest


def text_of(argument: bytes) -> str:
    """Return an argument as text. Raises CommandError: it is not valid UTF-8 (RFC 6856 s2)."""
    try:
        return argument.decode("utf-8")
    except UnicodeDecodeError:
        raise CommandError("line-not-utf8") from None


def ok(text: bytes) -> bytes:
    """Return a positive status line."""
    return b"+OK %b\r\n" % text


def err(text: bytes, code: str | None = None) -> bytes:
    """Return a negative status line, with its response code if it has one (RFC 2449 s8)."""
    if code:
        return b"-ERR [%b] %b\r\n" % (code.encode("ascii"), text)
    return b"-ERR %b\r\n" % text


def wire_form(contents: bytes) -> bytes:
    """Return a message with CRLF line ends, the last line too: what RETR sends but for the dots.

    A lone CR is no line end and stays.
    """
    contents = _with_crlf(contents)
    if contents and not contents.endswith(b"\r\n"):
        contents += b"\r\n"
    return contents


def _with_crlf(octets: bytes) -> bytes:
    if _BARE_LF.search(octets):
        if b"\r" in octets:
            octets = octets.replace(b"\r\n", b"\n")
        octets = octets.replace(b"\n", b"\r\n")
    return octets


def is_wire_ready(contents: bytes) -> bool:
    """Return whether a message can be sent as it is: in wire form, no line beginning with a dot."""
    return (
        not contents.startswith(b".")
        and not _BARE_LF.search(contents)
        and not _DOT_LINE.search(contents)
        and (not contents or contents.endswith(b"\r\n"))
    )


class WireReadyEncoder:
    """The octets of a message that is said to be in wire form, as a multi-line reply.

    They are sent as they are. Where a line begins with a dot all the same, the reply is encoded
    from that chunk on, so that nothing in a message can look like the end of its reply: a store's
    claim is never what holds the frame.
    octets, done: as in `MessageEncoder`.
    claim_held: whether the octets so far could be sent as they were.
    """

    __slots__ = ("_last", "_repairing", "claim_held", "done", "octets")

    def __init__(self) -> None:
        self._last = b"\r\n"
        self._repairing: MessageEncoder | None = None
        self.octets = 0
        self.done = False
        self.claim_held = True

    def feed(self, chunk: bytes) -> bytes:
        """Return a chunk as it goes to the client."""
        if self._repairing is None:
            # Most large messages are base64, without a dot: one memchr, a hundredth of sending.
            if b"." not in chunk or not (
                (chunk[0] == _DOT and self._last.endswith(b"\n")) or _DOT_AFTER_LF.search(chunk)
            ):
                self.octets += len(chunk)
                self._last = (self._last + chunk[-2:])[-2:]
                return chunk
            self.claim_held = False
            self._repairing = MessageEncoder.resumed(self._last)
            if self._last.endswith(b"\r") and chunk.startswith(b"\n"):  # its CR was sent
                self.octets += 1
                self._repairing.line_start = True
                return b"\n" + self._repairing.feed(chunk[1:])
        return self._repairing.feed(chunk)

    def end(self) -> bytes:
        """Return what ends the reply: a missing last line end, and the dot."""
        if self._repairing is not None:
            end = self._repairing.end()
            self.octets += self._repairing.octets
            return end
        if self._last == b"\r\n":
            return END
        self.claim_held = False
        self.octets += 2
        return b"\r\n" + END


class MessageEncoder:
    """A message's octets as a multi-line reply: CRLF line ends, dots doubled (RFC 1939 s3).

    octets: what was sent so far, before dot-stuffing (RFC 1939 s11).
    done: the lines that TOP asked for are sent; the rest of the message need not be read.
    claim_held: always true: nothing is claimed of these octets.
    """

    __slots__ = ("_body_lines", "_cr", "_in_header", "claim_held", "done", "line_start", "octets")

    def __init__(self, body_lines: int | None = None) -> None:
        """Encode the whole message, or the header and so many lines of the body (TOP)."""
        self._body_lines = body_lines
        self._in_header = body_lines is not None
        self._cr = False
        self.line_start = True
        self.octets = 0
        self.done = False
        self.claim_held = True

    @classmethod
    def resumed(cls, last: bytes) -> MessageEncoder:
        """Return one that goes on behind octets that were sent already, which end so."""
        encoder = cls()
        encoder.line_start = last.endswith(b"\n")
        return encoder

    def feed(self, chunk: bytes) -> bytes:
        """Return a chunk as it goes to the client."""
        if self._cr:
            chunk = b"\r" + chunk
        self._cr = chunk.endswith(b"\r")
        if self._cr:  # the LF may come with the next chunk
            chunk = chunk[:-1]
        if not chunk or self.done:
            return b""
        chunk = _with_crlf(chunk)
        if self._body_lines is not None:
            chunk = self._cut(chunk)
        self.octets += len(chunk)
        stuffed = _DOT_LINE.sub(b"\n.", chunk)
        if self.line_start and chunk.startswith(b"."):
            stuffed = b"." + stuffed
        self.line_start = chunk.endswith(b"\n")
        return stuffed

    def end(self) -> bytes:
        """Return what ends the reply: a missing last line end, and the dot."""
        tail = b""
        if self._cr and not self.done:
            tail = b"\r"
            self.line_start = False
        if not self.line_start:
            tail += b"\r\n"
        self.octets += len(tail)
        return tail + END

    def _cut(self, chunk: bytes) -> bytes:
        """Return the part of a chunk, in CRLF form, that lies within the budget of lines."""
        start = 0
        if self._in_header:
            if self.line_start and chunk.startswith(b"\r\n"):
                start = 2
            else:
                blank = chunk.find(b"\n\r\n")
                if blank < 0:
                    return chunk
                start = blank + 3
            self._in_header = False
        wanted = self._body_lines or 0
        lines = chunk.count(b"\n", start)
        if lines < wanted:
            self._body_lines = wanted - lines
            return chunk
        self.done = True
        if wanted == 0:
            return chunk[:start]
        return chunk[: len(chunk) - len(chunk[start:].split(b"\n", wanted)[wanted])]


Encoder = MessageEncoder | WireReadyEncoder
