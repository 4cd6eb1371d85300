"""Values in somebody else's documents, which may be anything: what is usable, and what isn't.

Nothing here awaits or logs.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import bson
from bson import Binary, Int64, ObjectId
from bson.binary import UUID_SUBTYPE
from bson.errors import BSONError

UUID_OCTETS = 16
UNUSABLE: tuple[type[Exception], ...] = (BSONError, ValueError, OverflowError, TypeError)
"""What the library raises for a value that it has read and can't write again."""


def value_at(document: dict[str, Any], path: str) -> Any:
    """Return the value of a field, `a.b` being the field b of the document in the field a."""
    value: Any = document
    for name in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def text_of(value: Any) -> str | None:
    """Return a string or the text that its octets are; None for anything else."""
    try:
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, str):
            value.encode()  # not what the library made of octets that are no UTF-8
            return value
    except UnicodeError:
        pass
    return None


def key_of(value: Any) -> bytes | None:
    """Return what is the same for two values only if they are; None for one that can't be asked.

    Python's own comparison takes true for 1, and knows no key for a document.
    """
    if type(value) is ObjectId:
        return b"\x07" + value.binary
    try:
        return bson.encode({"": value})
    except UNUSABLE:
        return None


def digest_of(*values: Any) -> str:
    """Return a unique-id, the same for the same values: 64 characters (RFC 1939 s7)."""
    return hashlib.sha256(b"".join(key_of(value) or b"" for value in values)).hexdigest()


def whole(value: Any) -> int | None:
    """Return a number of at most 64 bits without a fraction; None for anything else.

    JavaScript makes a float of it, which is the same number to MongoDB.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, float) and not (math.isfinite(value) and value.is_integer()):
        return None
    return int(value) if -(2**63) <= value < 2**63 else None


def size_of(value: Any) -> int | None:
    """Return a size in octets, or None for what can't be one."""
    size = whole(value)
    return size if size is not None and size >= 0 else None


def uid_of(value: Any) -> str | None:
    """Return a value as a unique-id, "" where there is none; None for what can't be one."""
    if value is None:
        return ""
    if isinstance(value, str):
        return text_of(value)
    if isinstance(value, ObjectId):
        return str(value)
    number = whole(value)
    return None if number is None else str(number)


def owner_of(value: Any) -> str | None:
    """Return how an owner is written as a string; None for a value that can't be one.

    A number and the string of its digits are one owner, since messages may have either. Null would
    own all messages without an owner, a regular expression those that it matches, a list those of
    all its members.
    """
    if isinstance(value, str):
        return text_of(value) or None
    if isinstance(value, ObjectId):
        return str(value)
    if isinstance(value, Binary) and value.subtype == UUID_SUBTYPE and len(value) == UUID_OCTETS:
        return str(value.as_uuid())
    if isinstance(value, bytes):
        return value.hex() or None
    number = whole(value)
    return None if number is None else str(number)


def owners_of(value: Any) -> list[Any]:
    """Return what a message may have for an owner: the value as it is, or as a string."""
    number = whole(value)
    return [value if number is None else Int64(number), owner_of(value)]


def octets_of(value: Any) -> bytes | None:
    """Return the octets of a message, string or binary; None for anything else."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, bytes):
        return bytes(value)
    return None
