"""The memory backend: users and mail in one process, read from files that are never changed."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import threading
import uuid
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import structlog

from pop3hub import (
    ConfigurationError,
    MaildropNotEmpty,
    NoSuchUser,
    PopMessage,
    PopUser,
    Snapshot,
    UniqueIdTaken,
    hookimpl,
    is_bcrypt,
    name_key,
    prepare,
)
from pop3hub.mailbox_files import SourceMessage, find_messages
from pop3hub.protocol.message import is_wire_ready, wire_form
from pop3hub_memory.users import parse_user, read_users

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from pop3hub import Server, Session

__all__ = ["MemoryBackend"]

T = TypeVar("T")

INLINE = 1024 * 1024
"""Octets up to which a delivered message is brought into wire form on the event loop."""


class MemoryBackend:
    """Users and maildrops in dictionaries, by name without regard to case.

    Messages are kept in wire form and shared by all sessions.
    """

    shared_state = False

    def __init__(self) -> None:
        self._users: dict[str, PopUser] = {}
        self._maildrops: dict[str, dict[str, PopMessage]] = {}
        self._snapshots: dict[
            str, Snapshot[PopMessage]
        ] = {}  # of those that have not changed since
        self._given: Sequence[str] = ()
        self._users_file: Path | None = None
        self._mail: Path | None = None
        self._log = structlog.get_logger("pop3hub.memory")

    @property
    def keeps_scram_keys(self) -> bool:
        """Whether every user can log in by SCRAM: keys can't be made of a bcrypt hash."""
        return all(user.scram for user in self._users.values())

    # Settings and start

    @hookimpl
    def register_options(self) -> list[click.Option]:
        """Offer users and mail from the command line."""
        return [
            click.Option(
                ["--memory-user"],
                multiple=True,
                metavar="NAME:PASSWORD",
                hide_input=True,
                help="A user; repeatable. Visible in `ps`: --memory-users is not.",
            ),
            click.Option(
                ["--memory-users"],
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="A file of NAME:PASSWORD lines, in clear or as bcrypt hash.",
            ),
            click.Option(
                ["--memory-mail"],
                type=click.Path(path_type=Path),
                metavar="DIR",
                help="A folder for each user with .eml files, mboxes or a Maildir; never changed.",
            ),
        ]

    @hookimpl
    def configure(self, options: Mapping[str, Any]) -> None:
        """Note the settings."""
        given = options.get("memory_user") or ()
        self._given = (given,) if isinstance(given, str) else tuple(given)
        self._users_file = _path(options.get("memory_users"))
        self._mail = _path(options.get("memory_mail"))

    @hookimpl
    async def startup(self, server: Server | None) -> None:  # noqa: ARG002 - the hook's argument
        """Read users and mail."""
        users = [parse_user(text, "--memory-user") for text in self._given]
        if self._users_file is not None:
            users += await _in_thread(read_users, self._users_file)
        for user in users:
            if self._users.setdefault(name_key(user.name), user) is not user:
                raise ConfigurationError(f"two users are named {user.name!r}")
        if self._mail is not None:
            self._maildrops |= await _in_thread(self._read_mail, self._mail)
        if not self._users:
            self._log.warning("memory.no_users", remedy="give --memory-user or --memory-users")

    def _read_mail(self, mail: Path) -> dict[str, dict[str, PopMessage]]:
        if not mail.is_dir():
            raise ConfigurationError(f"--memory-mail {mail}: there is no such folder")
        try:
            entries = [entry for entry in mail.iterdir() if not entry.name.startswith(".")]
        except OSError as exc:
            raise ConfigurationError(f"--memory-mail {mail}: {exc.strerror}") from exc
        return {name_key(entry.name): self._read_maildrop(entry) for entry in entries}

    def _read_maildrop(self, path: Path) -> dict[str, PopMessage]:
        maildrop: dict[str, PopMessage] = {}
        for found in find_messages(path, uidls=True):
            if isinstance(found, SourceMessage):
                contents = found.contents()
                _add(maildrop, _distinct(found.uid or _digest(contents), maildrop), contents)
            elif found.readable:
                self._log.warning("memory.refused", origin=found.origin, reason=found.reason)
            else:
                raise ConfigurationError(f"{found.origin}: {found.reason}")
        return maildrop

    # Users

    @hookimpl
    def get_user(self, name: str) -> PopUser | None:
        """Look a user up, whatever the case of the name."""
        return self._users.get(name_key(name))

    @hookimpl
    def compare_password(self, raw: str, hash: str, user: PopUser) -> bool | None:  # noqa: A002 - the hook's name
        """Compare our users' clear passwords; leave bcrypt, and other plugins' users, to others."""
        if is_bcrypt(hash) or self._users.get(name_key(user.name)) is not user:
            return None
        return hmac.compare_digest(_prepared(raw), _prepared(hash))

    @hookimpl
    def store_user(self, user: PopUser, replace: bool) -> bool:  # noqa: FBT001 - the hook's argument
        """Keep a user as given, its password in clear or as bcrypt hash."""
        if (name_key(user.name) in self._users) is not replace:
            return False
        self._users[name_key(user.name)] = user
        return True

    @hookimpl
    def remove_user(self, name: str, with_mail: bool) -> bool:  # noqa: FBT001 - the hook's argument
        """Remove a user, and the maildrop."""
        key = name_key(name)
        if key not in self._users:
            return False
        if self._maildrops.get(key) and not with_mail:
            raise MaildropNotEmpty(name=name)
        del self._users[key]
        self._maildrops.pop(key, None)
        self._snapshots.pop(key, None)
        return True

    @hookimpl
    def list_users(self) -> list[PopUser]:
        """Return the users in the order of their names."""
        return sorted(self._users.values(), key=lambda user: user.name)

    # Mail

    @hookimpl
    def receive_messages(self, user: PopUser) -> Sequence[PopMessage]:
        """Return the maildrop; one that nothing was stored in is empty."""
        key = name_key(user.name)
        if key not in self._maildrops:
            return ()
        if key not in self._snapshots:
            self._snapshots[key] = Snapshot(self._maildrops[key].values())
        return self._snapshots[key]

    @hookimpl
    def delete_messages(self, messages: Sequence[PopMessage], session: Session) -> int:
        """Forget the messages; the files that they came from stay."""
        assert session.user is not None  # noqa: S101 - for the type checker: there is no UPDATE without a user
        key = name_key(session.user.name)
        maildrop = self._maildrops.get(key, {})
        self._snapshots.pop(key, None)
        for message in messages:
            maildrop.pop(message.uid, None)
        return len(messages)

    @hookimpl
    async def store_message(
        self, name: str, contents: bytes | AsyncIterator[bytes], uid: str | None = None
    ) -> str:
        """Keep a message for a user, or for a maildrop that --memory-mail has."""
        if not isinstance(contents, bytes):
            contents = b"".join([chunk async for chunk in contents])
        if len(contents) > INLINE:
            contents = await asyncio.to_thread(wire_form, contents)
        key = name_key(name)
        if key not in self._users and key not in self._maildrops:
            raise NoSuchUser(name=name)
        maildrop = self._maildrops.setdefault(key, {})
        self._snapshots.pop(key, None)
        if uid in maildrop:
            raise UniqueIdTaken(uid=uid)
        uid = uid or uuid.uuid4().hex
        _add(maildrop, uid, contents)
        return uid


async def _in_thread(function: Callable[[Path], T], path: Path) -> T:
    """Read files in a thread that doesn't keep the process from ending, should it hang."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            result = function(path)
        except BaseException as exc:  # noqa: BLE001 - it is the caller's
            future.set_exception(exc)
        else:
            future.set_result(result)

    threading.Thread(target=work, name="pop3hub-memory", daemon=True).start()
    return await asyncio.wrap_future(future)


def _path(given: str | Path | None) -> Path | None:
    return Path(given) if given else None


def _prepared(text: str) -> bytes:
    try:
        return prepare(text).encode()
    except ValueError:  # no form of it is allowed: only the same octets fit
        return text.encode()


def _digest(contents: bytes) -> str:
    return hashlib.blake2b(contents, digest_size=16).hexdigest()


def _distinct(uid: str, taken: Iterable[str]) -> str:
    """Return the unique-id, or one like it: equal messages are two messages."""
    candidate, number = uid, 1
    while candidate in taken:
        number += 1
        candidate = f"{uid[:60]}-{number}"
    return candidate


def _add(maildrop: dict[str, PopMessage], uid: str, contents: bytes) -> None:
    contents = wire_form(contents)
    maildrop[uid] = PopMessage(
        uid,
        len(contents),
        contents,
        wire_ready=is_wire_ready(contents),
        ascii_size=len(contents) if contents.isascii() else None,
    )
