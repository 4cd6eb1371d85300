"""Byte-level POP3: command lines in, status lines out (RFC 1939 s3, RFC 2449 s4, s8).

Nothing here awaits, logs or knows a maildrop. Any split of the input gives the same lines.
"""

from __future__ import annotations

import re

from pop3hub.errors import CommandError

REPLY_LIMIT = 512
"""Octets of a status line, CRLF included (RFC 2449 s4)."""
COMMAND_LIMIT = 255
"""Octets of a command, CRLF included (RFC 2449 s4)."""

_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")
_AUTH = re.compile(rb"AUTH ", re.IGNORECASE)


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
