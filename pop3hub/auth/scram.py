"""SCRAM keys: what is stored of a password, from which it can't be read (RFC 5802, RFC 7677)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pop3hub.auth.users import UnknownHash, prepare

if TYPE_CHECKING:
    from collections.abc import Mapping

SCRAM_HASHES: Mapping[str, str] = {"SCRAM-SHA-1": "sha1", "SCRAM-SHA-256": "sha256"}
"""The SCRAM mechanisms and their hash functions (RFC 5802, RFC 7677)."""
SCRAM_ITERATIONS = 2**15
"""Rounds of new SCRAM keys, which clients compute; RFC 7677 s4 wants 15,000 or more."""
SCRAM_SALT = 16
"""Octets of salt in new SCRAM keys, and in the answer for an unknown user."""
_MIN_ITERATIONS = 4096  # RFC 5802 s5.1
_SCRAM = re.compile(r"([1-9][0-9]{0,9}):([A-Za-z0-9+/]+=*)\$([A-Za-z0-9+/]+=*):([A-Za-z0-9+/]+=*)")


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """What a server keeps for one user and SCRAM mechanism (RFC 5802 s3)."""

    iterations: int
    salt: bytes
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str, mechanism: str) -> ScramKeys:
        """Read the form of `PopUser.scram`; raise UnknownHash for anything else."""
        match = _SCRAM.fullmatch(text)
        if match is None:
            raise UnknownHash(f"stored {mechanism} keys are in no form that is known")
        try:
            salt, *keys = (base64.b64decode(part, validate=True) for part in match.groups()[1:])
        except ValueError:
            raise UnknownHash(f"stored {mechanism} keys are no base64") from None
        size = hashlib.new(SCRAM_HASHES[mechanism]).digest_size
        iterations = int(match[1])
        if iterations < _MIN_ITERATIONS or {len(key) for key in keys} != {size}:
            raise UnknownHash(f"stored {mechanism} keys have too few rounds or a wrong length")
        return cls(iterations, salt, *keys)

    def __str__(self) -> str:
        salt, stored_key, server_key = (
            base64.b64encode(part).decode("ascii")
            for part in (self.salt, self.stored_key, self.server_key)
        )
        return f"{self.iterations}:{salt}${stored_key}:{server_key}"


def scram_keys(
    password: str,
    mechanism: str,
    iterations: int = SCRAM_ITERATIONS,
    salt: bytes | None = None,
) -> str:
    """Return new keys of a password for `PopUser.scram[mechanism]`.

    Takes some milliseconds of processor time. Raises ValueError for a password that SASLprep can't
    store (RFC 5802 s2.2), and for an empty one.
    """
    octets = prepare(password, stored=True).encode()
    if not octets:
        raise ValueError("the password is empty")
    algorithm = SCRAM_HASHES[mechanism]
    salt = salt or secrets.token_bytes(SCRAM_SALT)
    salted = hashlib.pbkdf2_hmac(algorithm, octets, salt, iterations)
    stored_key = hashlib.new(algorithm, hmac.digest(salted, b"Client Key", algorithm)).digest()
    server_key = hmac.digest(salted, b"Server Key", algorithm)
    return str(ScramKeys(iterations, salt, stored_key, server_key))
