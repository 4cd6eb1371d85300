"""The form in which a message is kept: as RETR sends it, but for the doubled dots.

Synchronous, and without knowledge of MongoDB.
"""

from __future__ import annotations

from pop3hub import surrogate_size

EXAMINED = 256 * 1024
"""Octets up to which a message that isn't ASCII is searched for headers that aren't."""


def has_ascii_headers(contents: bytes) -> bool:
    """Return whether no header of a message in wire form needs a surrogate (RFC 6858).

    False for what takes long to tell.
    """
    if contents.isascii():
        return True
    if len(contents) > EXAMINED:
        return False
    return surrogate_size((contents,)) == len(contents)
