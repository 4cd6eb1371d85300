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
