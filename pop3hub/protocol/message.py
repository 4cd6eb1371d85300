"""Messages as multi-line replies: line ends, dots, sizes (RFC 1939 s3, s11).

Nothing here awaits, logs or knows a maildrop. Every class accepts any split of its input.
"""

from __future__ import annotations

import re

END = b".\r\n"
"""The termination octet and its CRLF, at the end of a multi-line reply (RFC 1939 s3)."""

# An expression that begins with one octet is looked for by memchr; `count` and `replace` of two
# octets are several times slower (benchmarks/parts.py).
_BARE_LF = re.compile(rb"\n(?<!\r\n)")
_LONE_CR = re.compile(rb"\r(?!\n)")
_DOT_AFTER_LF = re.compile(rb"\n\.")
_DOT = 0x2E
_DOT_LINE = re.compile(rb"\n(?=\.)")


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

    __slots__ = ("_last", "_repairing", "_seen", "claim_held", "done", "octets")

    def __init__(self, *, seen: bool = False) -> None:
        """Encode octets; `seen` says that the very same ones went through before, unchanged."""
        self._seen = seen
        self._last = b"\r\n"
        self._repairing: MessageEncoder | None = None
        self.octets = 0
        self.done = False
        self.claim_held = True

    def feed(self, chunk: bytes) -> bytes:
        """Return a chunk as it goes to the client."""
        if self._repairing is None:
            # Most large messages are base64, without a dot: one memchr, a hundredth of sending.
            if (
                self._seen
                or b"." not in chunk
                or not (
                    (chunk[0] == _DOT and self._last.endswith(b"\n")) or _DOT_AFTER_LF.search(chunk)
                )
            ):
                self.octets += len(chunk)
                self._last = chunk[-2:] if len(chunk) > 1 else (self._last + chunk)[-2:]
                return chunk
            self.claim_held = False
            self._repairing = MessageEncoder(line_start=self._last.endswith(b"\n"))
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


class LineEnds:
    """Octets in, the same with CRLF line ends and one at the end out; any split of the input.

    A lone CR is not a line end and stays.
    octets: what was returned so far (RFC 1939 s11).
    line_start: whether the next octet begins a line.
    """

    __slots__ = ("_cr", "line_start", "octets")

    def __init__(self, *, line_start: bool = True) -> None:
        self.octets = 0
        self.line_start = line_start
        self._cr = False

    def feed(self, chunk: bytes) -> bytes:
        """Return a chunk with CRLF line ends; a CR at its end waits for the next one."""
        if self._cr:
            chunk = b"\r" + chunk
        self._cr = chunk.endswith(b"\r")
        if self._cr:  # the LF may come with the next chunk
            chunk = chunk[:-1]
        if chunk:
            chunk = _with_crlf(chunk)
            self.octets += len(chunk)
            self.line_start = chunk.endswith(b"\n")
        return chunk

    def end(self) -> bytes:
        """Return what is missing at the end."""
        tail = b"\r\r\n" if self._cr else b"" if self.line_start else b"\r\n"
        self.octets += len(tail)
        return tail


class LoneCarriageReturns:
    """Makes CRLF of each CR that has no LF behind it; any split of the input.

    RFC 5321 s2.3.8 allows none in mail that comes in, and some clients take one for a line end:
    a dot between two of them would end the reply for such a reader.
    found: how many there were.
    """

    __slots__ = ("_held", "found")

    def __init__(self) -> None:
        self.found = 0
        self._held = False

    def feed(self, chunk: bytes) -> bytes:
        """Return a chunk without them; a CR at its end waits for the next one."""
        if self._held:
            chunk = b"\r" + chunk
        self._held = chunk.endswith(b"\r")
        if self._held:
            chunk = chunk[:-1]
        if b"\r" not in chunk:
            return chunk
        mended, count = _LONE_CR.subn(b"\r\n", chunk)
        self.found += count
        return mended

    def end(self) -> bytes:
        """Return what was held."""
        self.found += self._held
        held, self._held = self._held, False
        return b"\r\n" if held else b""


class WireForm(LineEnds):
    """A message in the form that RETR sends, but for doubled dots: for stores that keep it so.

    feed, end: return it, for any split of the input.
    octets: its size so far, which `PopMessage.size` wants (RFC 1939 s11).
    wire_ready: no line of it begins with a dot, so that it can be sent as it is (RFC 1939 s3).
    ascii: no octet is above 127, so that no surrogate is needed (RFC 6858).
    changed: it differs from what was fed.
    """

    __slots__ = ("ascii", "changed", "wire_ready")

    def __init__(self) -> None:
        super().__init__()
        self.wire_ready = True
        self.ascii = True
        self.changed = False

    def feed(self, chunk: bytes) -> bytes:
        """Return a chunk in wire form."""
        starts_line, held = self.line_start, self._cr
        octets = super().feed(chunk)
        if not self.changed:
            self.changed = len(octets) + self._cr != len(chunk) + held
        if self.wire_ready and b"." in octets:
            dotted = (starts_line and octets[0] == _DOT) or _DOT_AFTER_LF.search(octets)
            self.wire_ready = not dotted
        self.ascii = self.ascii and octets.isascii()
        return octets

    def end(self) -> bytes:
        """Return what is missing at the end."""
        held = self._cr
        tail = super().end()
        self.changed = self.changed or len(tail) > held
        return tail


class MessageEncoder(LineEnds):
    """A message's octets as a multi-line reply: CRLF line ends, dots doubled (RFC 1939 s3).

    octets: what was sent so far, before dot-stuffing (RFC 1939 s11).
    done: the lines that TOP asked for are sent; the rest of the message need not be read.
    """

    __slots__ = ("_body_lines", "_in_header", "done")

    def __init__(self, body_lines: int | None = None, *, line_start: bool = True) -> None:
        """Encode the whole message, or the header and so many lines of the body (TOP)."""
        super().__init__(line_start=line_start)
        self._body_lines = body_lines
        self._in_header = body_lines is not None
        self.done = False

    def feed(self, chunk: bytes) -> bytes:
        """Return a chunk as it goes to the client."""
        if self.done:
            return b""
        starts_line = self.line_start
        chunk = super().feed(chunk)
        if self._body_lines is not None and chunk:
            kept = self._cut(chunk, starts_line=starts_line)
            self.octets -= len(chunk) - len(kept)
            chunk = kept
            self.line_start = self.done or self.line_start
        stuffed = _DOT_LINE.sub(b"\n.", chunk)
        return b"." + stuffed if starts_line and chunk.startswith(b".") else stuffed

    def end(self) -> bytes:
        """Return what ends the reply: a missing last line end, and the dot."""
        return END if self.done else super().end() + END

    def _cut(self, chunk: bytes, *, starts_line: bool) -> bytes:
        """Return the part of a chunk, in CRLF form, that lies within the budget of lines."""
        start = 0
        if self._in_header:
            if starts_line and chunk.startswith(b"\r\n"):
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
