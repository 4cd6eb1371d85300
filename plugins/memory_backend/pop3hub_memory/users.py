"""Users as an operator writes them down: a name, a colon, a password in clear or as bcrypt hash."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pop3hub import SCRAM_HASHES, ConfigurationError, PopUser, is_bcrypt, scram_keys

if TYPE_CHECKING:
    from pathlib import Path

SCRAM_ITERATIONS = 4096
"""The least of RFC 5802 s5.1: these keys never leave the memory that the password is in, too."""

_NOT_IN_NAMES = re.compile(r"[/\x00-\x1f\x7f]")


def parse_user(text: str, origin: str) -> PopUser:
    """Return the user of a `name:password` text.

    Raises ConfigurationError, which names the origin and never shows the password.
    """
    name, colon, password = text.partition(":")
    if not colon:
        raise ConfigurationError(f"{origin}: NAME:PASSWORD is wanted, there is no colon")
    if not name or name.startswith(".") or _NOT_IN_NAMES.search(name):
        raise ConfigurationError(
            f"{origin}: {name!r} can't be a user's name, since it can't be the name of a folder"
        )
    if not password:
        raise ConfigurationError(f"{origin}: user {name!r} has no password")
    if is_bcrypt(password):
        return PopUser(name, password)
    return PopUser(name, password, secret=password, scram=LazyKeys(password))


def read_users(path: Path) -> list[PopUser]:
    """Return the users of a file; empty lines and those that begin with `#` are passed over."""
    try:
        lines = path.read_text("utf-8").split("\n")
    except OSError as exc:
        raise ConfigurationError(f"--memory-users {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"--memory-users {path}: the file is not UTF-8") from exc
    return [
        parse_user(line, f"{path}, line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.startswith("#")
    ]


class LazyKeys(Mapping[str, str]):
    """The SCRAM keys of a clear password, made when a client first asks for them (2 ms each)."""

    def __init__(self, password: str) -> None:
        self._password = password
        self._made: dict[str, str] = {}

    def __getitem__(self, mechanism: str) -> str:
        if mechanism not in SCRAM_HASHES:
            raise KeyError(mechanism)
        if mechanism not in self._made:
            try:
                self._made[mechanism] = scram_keys(self._password, mechanism, SCRAM_ITERATIONS)
            except ValueError:  # SASLprep allows no such password: SCRAM is not for this user
                raise KeyError(mechanism) from None
        return self._made[mechanism]

    def __iter__(self) -> Iterator[str]:
        return iter(SCRAM_HASHES)

    def __len__(self) -> int:
        return len(SCRAM_HASHES)
