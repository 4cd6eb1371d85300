"""Users from a file as Dovecot's passwd-file has it: `name:password:` and fields not used here."""

from __future__ import annotations

import errno
import hmac
import os
import re
import stat
from typing import TYPE_CHECKING

import structlog

from pop3hub import ConfigurationError, PopUser, TemporaryFailure, is_bcrypt, name_key, prepare
from pop3hub_maildir.scram import KeysOfPassword

if TYPE_CHECKING:
    from pathlib import Path

CLEAR = "{PLAIN}"
"""What `PopUser.password` begins with where the password follows in clear."""

_SCHEME = re.compile(r"\{([^}]*)\}(.*)")
_EXTRA = 6  # fields from uid to the extra ones: uid, gid, gecos, home, shell, extra
_UNDECODED = re.compile(r"[\ud800-\udfff]")
# Dovecot's extra fields that let only some logins through: pop3hub would let all of them.
_RESTRICTING = re.compile(r"(?:^|\s)(nologin|allow_nets|allow_real_nets)(?:=|\s|$)")


class PasswdFile:
    """The users of a file, read again when it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._users: dict[str, PopUser] = {}
        self._state: tuple[int, int, int] | None = None
        self._log = structlog.get_logger("pop3hub.maildir")

    def __str__(self) -> str:
        return str(self._path)

    @property
    def changed(self) -> bool:
        """Whether the file is another than the one that was read; one that is gone is not."""
        try:
            return _state(self._path.stat()) != self._state
        except FileNotFoundError:  # between a removal and the new file: the old one still holds
            return self._state is None

    def get(self, name: str) -> PopUser | None:
        """Return a user, whatever the case of the name."""
        return self._users.get(name_key(name))

    def all(self) -> list[PopUser]:
        """Return the users in the order of their names."""
        return sorted(self._users.values(), key=lambda user: user.name)

    def read(self) -> None:
        """Read the file; lines that can't be used are logged, without what stands in them.

        A file that can't be read raises ConfigurationError at the start and TemporaryFailure later.
        """
        try:
            with open(self._path, encoding="utf-8", errors="surrogateescape", opener=_open) as file:
                state = _state(os.fstat(file.fileno()))
                lines = file.read().split("\n")
        except OSError as exc:
            if self._state is None:
                problem = f"--maildir-passwd {self._path}: {exc.strerror}"
                raise ConfigurationError(problem) from exc
            self._log.error("passwd.unreadable", file=str(self._path), error=exc.strerror)
            raise TemporaryFailure from exc
        users: dict[str, PopUser] = {}
        for number, line in enumerate(lines, 1):
            if line.strip() and not line.startswith("#"):
                user = self._parse(line.rstrip("\r"), number)
                if user is not None:
                    users.setdefault(name_key(user.name), user)
        self._users = users
        self._state = state

    def _parse(self, line: str, number: int) -> PopUser | None:
        name, _, rest = line.partition(":")
        password, *fields = rest.split(":", _EXTRA)
        extra = fields[-1] if len(fields) == _EXTRA else ""
        problem = ""
        if not name.isprintable() or not name:
            problem = "the name is empty, or not printable UTF-8"
        elif _UNDECODED.search(password):
            problem = "the password is not UTF-8"
        elif match := _RESTRICTING.search(extra):
            problem = f"{match[1]} is not supported, so this user may not log in"
        if problem:
            self._log.warning("passwd.line", file=str(self._path), line=number, problem=problem)
            return None
        scheme, secret = _split(password)
        if scheme == "PLAIN" and secret:
            return PopUser(name, CLEAR + secret, secret=secret, scram=KeysOfPassword(name, secret))
        if scheme == "BLF-CRYPT" and is_bcrypt(secret):
            return PopUser(name, secret)
        problem = "only {PLAIN}, {BLF-CRYPT} and bare bcrypt ($2y$...) are supported"
        self._log.warning("passwd.line", file=str(self._path), line=number, problem=problem)
        return PopUser(name)  # known, so that mail can be delivered; nothing fits as a password


def is_same_password(raw: str, stored: str) -> bool:
    """Compare a password with one stored in the clear, in whatever Unicode form each was typed."""
    return hmac.compare_digest(_prepared(raw), _prepared(stored))


def _prepared(text: str) -> bytes:
    try:
        return prepare(text).encode()
    except ValueError:  # no form of it is allowed: only the same octets fit
        return text.encode("utf-8", "surrogatepass")


def _open(path: str, flags: int) -> int:
    """Open a plain file: anything else could keep its reader waiting."""
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "not a plain file", path)


def _split(password: str) -> tuple[str, str]:
    match = _SCHEME.fullmatch(password)
    if match is None:
        return "BLF-CRYPT", password
    scheme = match[1].upper()
    if scheme in {"CLEAR", "CLEARTEXT"}:
        scheme = "PLAIN"
    if scheme == "CRYPT":
        scheme = "BLF-CRYPT"
    return scheme, match[2]


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mtime_ns, status.st_size, status.st_ino
