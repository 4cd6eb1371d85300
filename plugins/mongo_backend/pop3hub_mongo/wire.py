"""The form in which a message is kept: as RETR sends it, but for the doubled dots.

Synchronous, and without knowledge of MongoDB.
"""

from __future__ import annotations

from pop3hub import surrogate_size

EXAMINED = 256 * 1024
"""Octets up to which a message that isn't ASCII is searched for headers that aren't."""


class WireForm:
    """Octets in, octets with CRLF line ends and a CRLF at the end out; any split of the input.

    size: octets returned so far (RFC 1939 s11).
    dotless: no line begins with a dot, so nothing will have to be doubled (RFC 1939 s3).
    ascii: no octet is above 127.
    """

    __slots__ = ("_cr", "_line_start", "ascii", "dotless", "size")

    def __init__(self) -> None:
        self.size = 0
        self.dotless = True
        self.ascii = True
        self._cr = False
        self._line_start = True

    def feed(self, chunk: bytes) -> bytes:
        """Return a chunk in wire form."""
        if self._cr:
            chunk = b"\r" + chunk
        self._cr = chunk.endswith(b"\r")
        if self._cr:  # the LF may come with the next chunk
            chunk = chunk[:-1]
        if not chunk:
            return b""
        if chunk.count(b"\n") != chunk.count(b"\r\n"):
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        if b"\n." in chunk or (self._line_start and chunk.startswith(b".")):
            self.dotless = False
        self.ascii = self.ascii and chunk.isascii()
        self.size += len(chunk)
        self._line_start = chunk.endswith(b"\n")
        return chunk

    def end(self) -> bytes:
        """Return what is missing at the end."""
        tail = b"\r" if self._cr else b""
        if tail or not self._line_start:
            tail += b"\r\n"
        self.size += len(tail)
        return tail


def has_ascii_headers(contents: bytes) -> bool:
    """Return whether no header of a message in wire form needs a surrogate (RFC 6858).

    False for what takes long to tell.
    """
    if contents.isascii():
        return True
    if len(contents) > EXAMINED:
        return False
    return surrogate_size((contents,)) == len(contents)
