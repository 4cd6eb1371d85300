"""SCRAM keys of passwords that the passwd file has in the clear (RFC 5802, RFC 7677)."""

from __future__ import annotations

import functools
import hmac
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

from pop3hub import SCRAM_HASHES, SCRAM_SALT, scram_keys

_PURPOSE = b"pop3hub maildir SCRAM salts"


class KeysOfPassword(Mapping[str, str]):
    """The keys of one user, each made when a client first asks for it (about 15 ms).

    Salts stay the same over restarts and in all workers, like those that strangers are given.
    """

    def __init__(self, name: str, password: str) -> None:
        self._name = name
        self._password = password
        self._made: dict[str, str] = {}

    def __getitem__(self, mechanism: str) -> str:
        if mechanism not in SCRAM_HASHES:
            raise KeyError(mechanism)
        if mechanism not in self._made:
            seed = f"{mechanism} {self._name}".encode("utf-8", "surrogatepass")
            salt = hmac.digest(_salt_key(), seed, "sha256")[:SCRAM_SALT]
            try:
                self._made[mechanism] = scram_keys(self._password, mechanism, salt=salt)
            except ValueError:  # SASLprep doesn't allow this password: SCRAM is not for this user
                raise KeyError(mechanism) from None
        return self._made[mechanism]

    def __iter__(self) -> Iterator[str]:
        return iter(SCRAM_HASHES)

    def __len__(self) -> int:
        return len(SCRAM_HASHES)


@functools.cache
def _salt_key() -> bytes:
    """Return a key that is this machine's over restarts, and in all of its workers."""
    try:
        identity = Path("/etc/machine-id").read_bytes()
    except OSError:
        identity = secrets.token_bytes(32)
    return hmac.digest(identity, _PURPOSE, "sha256")
