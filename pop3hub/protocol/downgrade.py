"""The surrogate of a message for clients that did not ask for UTF8 (RFC 6858, RFC 6856 s2.1).

Octets in, octets out, between a message's loader and its encoder. Bodies pass untouched; header
blocks, those of MIME parts and of enclosed messages too, are held until they are whole. A block
whose octets outside ASCII are not valid UTF-8 is ordinary legacy mail and goes out as stored.
What begins with no field is text, not a header. The structure followed is the one that a client
finds in the surrogate, so that a surrogate is its own surrogate.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from pop3hub.protocol.header_fields import (
    segments,
    surrogate_field,
    unfold,
    unquote,
    without_comments,
)
from pop3hub.protocol.message import LineEnds

if TYPE_CHECKING:
    from collections.abc import Iterable

HEADER_LIMIT = 256 << 10
"""Octets of a header block, without its blank line. In a longer one each octet outside ASCII
becomes SUB (0x1A), and the parts that it may tell of go out as stored."""
PARTS_LIMIT = 10_000
"""Header blocks of a message; what follows them goes out as stored."""
NESTING_LIMIT = 100
"""Multiparts within one another; a deeper one is a body like any other."""
LINE_LIMIT = 1000
"""Octets of a delimiter's line, with its line end (RFC 5322 s2.1.1); a longer line is text."""

# Where the octets end, more of them may make a blank line or a delimiter.
_HEADER_BREAK = re.compile(rb"\n(?=\r?\n|--|[\r-]?\Z)")
_BODY_BREAK = re.compile(rb"\n(?=--|-?\Z)")
# What a line may still become whose end isn't there; in a body, and in a header.
_MAY_BREAK = re.compile(rb"-?\Z|--"), re.compile(rb"[\r-]?\Z|--")
_FIELD = re.compile(rb"[^\n]++\n?(?:[ \t][^\n]*+\n?)*+")
_NAME = re.compile(rb"([^\x00-\x20\x7f:]++)[ \t]*+:")
_MBOX_LINE = re.compile(rb">?From ")
_VALUE = re.compile(rb"[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)")
# An encoding hides the headers of the message within (RFC 6532 s3.7 allows it for message/global).
_MESSAGES = frozenset({"message/rfc822", "message/global"})
_IDENTITIES = frozenset({"", "7bit", "8bit", "binary"})
_SUBSTITUTED = bytes(range(128)) + b"\x1a" * 128
_LF = 0x0A


class _State(Enum):
    HEADER = auto()
    LONG_HEADER = auto()
    BODY = auto()


class _Kind(Enum):
    MORE = auto()
    BLANK = auto()
    DELIMITER = auto()
    CLOSE_DELIMITER = auto()


class _Line(NamedTuple):
    """The line that ends a header block or a part; MORE begins where the next scan has to."""

    kind: _Kind
    start: int
    end: int
    boundary: bytes = b""


class Downgrader:
    """Turns a message into its surrogate, chunk by chunk; each split of it gives the same octets.

    It never fails. What is not changed keeps its line ends; a field that is changed has CRLF.
    changed: whether the message holds what needs UTF8, as far as it was fed.
    """

    __slots__ = (
        "_boundaries",
        "_default_is_message",
        "_held",
        "_line_start",
        "_parts",
        "_scanned",
        "_size",
        "_state",
        "changed",
        "header_limit",
        "nesting_limit",
        "parts_limit",
    )

    def __init__(
        self,
        *,
        header_limit: int = HEADER_LIMIT,
        parts_limit: int = PARTS_LIMIT,
        nesting_limit: int = NESTING_LIMIT,
    ) -> None:
        self.header_limit = header_limit
        self.parts_limit = parts_limit
        self.nesting_limit = nesting_limit
        self.changed = False
        self._held = bytearray()
        self._scanned = 0  # so many of the held octets, in them no header ends
        self._line_start = True
        self._state = _State.HEADER
        self._default_is_message = False
        self._parts = 1
        # The delimiters of the multiparts that are open, the innermost last, and whether the parts
        # of each are messages by default (RFC 2046 s5.1.5).
        self._boundaries: dict[bytes, bool] = {}
        self._size = LineEnds()

    @property
    def size(self) -> int:
        """The octets returned so far, with CRLF line ends; after `end`, what RETR sends (s11)."""
        return self._size.octets

    def feed(self, chunk: bytes) -> bytes:
        """Return what can be sent; the chunk itself where nothing in it is held or changed."""
        if self._held:
            self._held += chunk
            chunk = self._walk(self._held, final=False)
        elif self._boundaries or self._state is not _State.BODY:
            chunk = self._walk(chunk, final=False)
        self._size.feed(chunk)
        return chunk

    def end(self) -> bytes:
        """Return what was held, at the end of the message."""
        rest = self._walk(self._held, final=True)
        self._size.feed(rest)
        self._size.end()
        return rest

    def _walk(self, data: bytes | bytearray, *, final: bool) -> bytes:
        """Return what is settled of the octets that wait; hold the rest."""
        out: list[bytes | bytearray] = []
        sent = position = 0
        scanned, self._scanned = self._scanned, 0
        while self._boundaries or self._state is not _State.BODY:
            line = self._scan(data, position + scanned, final=final)
            scanned = 0
            if self._state is _State.HEADER:
                length = line.start - position
                if line.kind is _Kind.MORE and not final and length <= self.header_limit:
                    self._scanned = length
                    break
                if length and not _begins_header(data, position):
                    self._state = _State.BODY
                    continue
            if self._state is not _State.BODY:
                block = bytes(data[position : line.start])
                shown = self._show(block, ended=line.kind is not _Kind.MORE)
                if shown is not block:
                    out += (data[sent:position], shown)
                    sent = line.start
                    self.changed = True
            position = line.end
            if line.kind is _Kind.MORE:
                break
            if line.kind is not _Kind.BLANK:
                self._pass_delimiter(line)
        else:
            position = len(data)
        out.append(data[sent:position])
        if data is self._held:
            del self._held[:position]
        else:
            self._held += data[position:]
        return b"".join(out)  # of one whole chunk, that chunk itself

    def _scan(self, data: bytes | bytearray, position: int, *, final: bool) -> _Line:
        """Find the next open delimiter, and in a header the next blank line."""
        in_header = self._state is not _State.BODY
        pattern = _HEADER_BREAK if in_header else _BODY_BREAK
        at_start, self._line_start = self._line_start, True
        while True:
            if not at_start:
                match = pattern.search(data, position)
                if not match:
                    self._line_start = False
                    return _Line(_Kind.MORE, len(data), len(data))
                position = match.end()
            at_start = False
            end = data.find(b"\n", position, position + LINE_LIMIT) + 1
            if not end:
                if len(data) - position >= LINE_LIMIT:
                    continue
                if not final and _MAY_BREAK[in_header].match(data, position):
                    return _Line(_Kind.MORE, position, position)
                end = len(data)
            kind, boundary = self._kind(bytes(data[position:end]), in_header=in_header)
            if kind is not _Kind.MORE:
                return _Line(kind, position, end, boundary)

    def _kind(self, line: bytes, *, in_header: bool) -> tuple[_Kind, bytes]:
        if in_header and line in {b"\n", b"\r\n"}:
            return _Kind.BLANK, b""
        if line.startswith(b"--"):
            boundary = line[2:].rstrip()
            if boundary in self._boundaries:
                return _Kind.DELIMITER, boundary
            boundary = boundary.removesuffix(b"--")
            if boundary in self._boundaries:
                return _Kind.CLOSE_DELIMITER, boundary
        return _Kind.MORE, b""

    def _pass_delimiter(self, line: _Line) -> None:
        """Close the multiparts within the one whose delimiter this is (RFC 2046 s5.1.2)."""
        while next(reversed(self._boundaries)) != line.boundary:
            self._boundaries.popitem()
        if line.kind is _Kind.DELIMITER:
            self._begin_header(default_is_message=self._boundaries[line.boundary])
        else:
            self._boundaries.popitem()
            self._state = _State.BODY

    def _begin_header(self, *, default_is_message: bool) -> None:
        self._parts += 1
        self._default_is_message = default_is_message
        self._state = _State.HEADER
        if self._parts > self.parts_limit:
            self._boundaries.clear()
            self._state = _State.BODY

    def _show(self, block: bytes, *, ended: bool) -> bytes:
        """Return the surrogate of a header block, or the block; go on to what follows."""
        if len(block) > self.header_limit:
            self._state = _State.LONG_HEADER
        if self._state is _State.LONG_HEADER:
            if ended:
                self._state = _State.BODY
            return block if block.isascii() else block.translate(_SUBSTITUTED)
        shown = block if block.isascii() else _surrogate_block(block)
        self._state = _State.BODY
        content = _value(shown, b"content-type")
        if content is None:
            media_type = "message/rfc822" if self._default_is_message else "text/plain"
        else:
            media_type = without_comments(segments(content)[0]).lower()
        if media_type in _MESSAGES:
            encoding = without_comments(_value(shown, b"content-transfer-encoding") or "")
            if encoding.lower() in _IDENTITIES:
                self._begin_header(default_is_message=False)
        elif content is not None and media_type.startswith("multipart/"):
            boundary = _boundary(content)
            if boundary and len(self._boundaries) < self.nesting_limit:
                # One that is open already stays the outer one's.
                self._boundaries.setdefault(boundary, media_type == "multipart/digest")
        return shown


def _begins_header(data: bytes | bytearray, position: int) -> bool:
    """Tell a header from text that begins where a header should be."""
    return bool(_NAME.match(data, position) or _MBOX_LINE.match(data, position))


def _surrogate_block(block: bytes) -> bytes:
    """Return a header block without octets outside ASCII; as it is if it isn't valid UTF-8."""
    try:
        block.decode()
    except UnicodeDecodeError:
        return block
    fields: list[bytes] = []
    for field in _FIELD.findall(block):
        name = _NAME.match(field)
        if field.isascii():
            # Nothing but a field may come first: it would make text of all that follows it.
            if fields or _begins_header(field, 0):
                fields.append(field)
        elif name and name[1].isascii():
            surrogate = surrogate_field(name[1].decode(), field[name.end() :].decode())
            if surrogate:
                fields.append(surrogate.encode())
    return b"".join(fields)


def _value(block: bytes, name: bytes) -> str | None:
    """Return the value of the first field of this name, unfolded."""
    lines = b"\n" + block.lower()
    start = lines.find(b"\n" + name)
    while start >= 0:
        match = _VALUE.match(block, start + len(name))
        if match:
            return unfold(match[1].decode("latin-1"))
        start = lines.find(b"\n" + name, start + 1)
    return None


def _boundary(content: str) -> bytes | None:
    """Return the boundary parameter of a Content-Type, if a delimiter can be made of it."""
    for parameter in segments(content)[1:]:
        name, _, value = parameter.partition("=")
        if name.strip(" ").lower() != "boundary":
            continue
        value = value.strip(" ")
        boundary = (unquote(value) if value.startswith('"') else value.split(" ")[0]).rstrip(" ")
        if 0 < len(boundary) < LINE_LIMIT and boundary.isascii() and boundary.isprintable():
            return boundary.encode()
    return None


def surrogate_size(chunks: Iterable[bytes]) -> int | None:
    """Return a message's `PopMessage.ascii_size`: what RETR sends to a client without UTF8.

    That is the message's own size where it needs no surrogate; None where the surrogate has that
    size by chance, which would hide that there is one.
    """
    stored = LineEnds()
    downgrader = Downgrader()
    for chunk in chunks:
        stored.feed(chunk)
        downgrader.feed(chunk)
    downgrader.end()
    stored.end()
    return None if downgrader.changed and downgrader.size == stored.octets else downgrader.size
