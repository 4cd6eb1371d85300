"""Users, the forms of their names and passwords, and what proves that one is who they say.

Secrets are compared in constant time; neither a password, a digest nor a token is ever logged or
put into an exception's text.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import stringprep
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unicodedata import (  # the Unicode that stringprep is defined on (RFC 3454 s2.2)
    normalize,
    ucd_3_2_0,
)

from pop3hub.errors import AuthenticationFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_PREPARED = 1024
"""Characters that `prepare` takes: PLAIN must allow 255 octets (RFC 4616 s2)."""
_PROHIBITED = (  # RFC 4013 s2.3
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


@dataclass(frozen=True, slots=True)
class PopUser:
    """A user as `get_user` returns one.

    name: the canonical name; lock, log and store go by it.
    password: the hash that `compare_password` is given, or None for a user without one.
    secret: the shared secret of APOP and CRAM-MD5, which need it in clear (RFC 1939 s7), or None.
    data: whatever the plugin wants to find again in `session.user.data`.
    scram: SCRAM keys by mechanism name, each `iterations:salt$StoredKey:ServerKey` in base64 (the
        authentication value of RFC 5803 behind its scheme); no password can be read from them.
    """

    name: str
    password: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    data: Any = None
    scram: Mapping[str, str] = field(default_factory=dict, repr=False)


class UnknownHash(ValueError):
    """A stored hash or key is in no form that pop3hub reads: a failed login, and an error to log.

    The text doesn't show it. bcrypt is read as `$2a$`, `$2b$` or `$2y$`, without a prefix such as
    `{BLF-CRYPT}`, which a plugin takes off or compares itself.
    """


# Text


def prepare(text: str, *, stored: bool = False) -> str:
    """Return the form in which names and passwords are compared: SASLprep (RFC 4013).

    What a client sends is a query string, in which code points that Unicode 3.2 didn't have pass as
    they are; `stored` refuses those too. The result may be empty.
    Raises ValueError, without showing the text, for what RFC 4013 s2.3 prohibits.
    """
    if len(text) > MAX_PREPARED:
        raise ValueError(f"the text is longer than {MAX_PREPARED} characters")
    if text.isascii() and text.isprintable():
        return text
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in text
        if not stringprep.in_table_b1(character)
    )
    prepared = ucd_3_2_0.normalize("NFKC", mapped)
    characters = set(prepared)
    if any(prohibited(character) for character in characters for prohibited in _PROHIBITED):
        raise ValueError("the text has a character that SASLprep prohibits (RFC 4013 s2.3)")
    if stored and any(map(stringprep.in_table_a1, characters)):
        raise ValueError("the text has a character that Unicode 3.2 doesn't know (RFC 4013 s2.5)")
    if any(map(stringprep.in_table_d1, characters)) and (
        any(map(stringprep.in_table_d2, characters))
        or not stringprep.in_table_d1(prepared[0])
        or not stringprep.in_table_d1(prepared[-1])
    ):
        raise ValueError("the text mixes directions of writing (RFC 3454 s6)")
    return prepared


def prepare_name(text: str) -> str:
    """Return a user name as `prepare` makes it; AuthenticationFailed where it makes none of it."""
    try:
        name = prepare(text)
    except ValueError:
        raise AuthenticationFailed from None
    if not name:
        raise AuthenticationFailed
    return name


def name_key(name: str) -> str:
    """Return the form in which user names are compared: case-folded, in NFC."""
    return normalize("NFC", name.casefold())


# Shared secrets


def new_stamp(name: str) -> str:
    """Return a time stamp `<hex.hex@name>` that no greeting had before (RFC 1939 s7).

    Plain atoms only, whatever the name: mpop passes over a stamp with `=` or an address literal.
    """
    host = re.sub(r"[^A-Za-z0-9-]+", ".", name).strip(".") or "pop3hub"
    return f"<{secrets.token_hex(8)}.{time.time_ns():x}@{host}>"


def shared_secret(user: PopUser | None) -> str:
    """Return the user's `secret` as `prepare` makes it, or "", which nothing may be right about.

    By the rules for stored strings (RFC 6856 s2.2): a secret that they prohibit fits nobody.
    """
    try:
        return prepare(user.secret or "", stored=True) if user else ""
    except ValueError:
        return ""


def apop_digest(stamp: str, secret: str) -> str:
    """Return the digest with which a client proves that it knows the secret (RFC 1939 s7)."""
    return hashlib.md5((stamp + secret).encode(), usedforsecurity=False).hexdigest()


def check_apop(stamp: str, digest: str, user: PopUser | None) -> bool:
    """Return whether the digest is that of the user's secret; None takes the time of a user."""
    secret = shared_secret(user)
    expected = apop_digest(stamp, secret)
    same = hmac.compare_digest(expected.encode(), digest.lower().encode())
    return same and bool(secret)
