"""The Maildir backend: the Maildirs that Postfix, Exim or Dovecot fill, served over POP3."""

from __future__ import annotations

import time
from collections import OrderedDict
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import structlog

from pop3hub import (
    ConfigurationError,
    NoSuchUser,
    PermanentFailure,
    TemporaryFailure,
    hookimpl,
)
from pop3hub_maildir.delivery import Delivery
from pop3hub_maildir.failures import refusal, told
from pop3hub_maildir.folder import MEASURING, PAGE, Folder
from pop3hub_maildir.index import INDEX_PATIENCE
from pop3hub_maildir.lock import MaildirLock
from pop3hub_maildir.messages import MaildirMessage
from pop3hub_maildir.passwd import CLEAR, PasswdFile, is_same_password
from pop3hub_maildir.pattern import Pattern
from pop3hub_maildir.reading import FileChanged, Reader
from pop3hub_maildir.threads import FileThreads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from typing import TypeVar

    from pop3hub import PopMessage, PopUser, Server

    T = TypeVar("T")
    Pages = AsyncIterator[Sequence[PopMessage]]

__all__ = ["MaildirBackend"]

CACHE = 100_000
"""Messages whose names and sizes are kept in memory between sessions: about 65 MiB."""
BATCH = 256 * 1024
"""Octets of a delivery that are written at once."""
FEW = 100
"""Messages whose files are looked at on the event loop at a login: 0.3 ms."""
RENAMED = 10
"""How often a file may be renamed between a look for it and its opening."""
REMOVED = 1000
"""Messages that are removed at once, so that a removal that hangs is noticed."""


class MaildirBackend:
    """One Maildir for each user, found by a pattern; users from a file or from another plugin."""

    def __init__(
        self,
        *,
        page: int = PAGE,
        measuring: float = MEASURING,
        index_patience: float = INDEX_PATIENCE,
    ) -> None:
        """Take limits of a listing's page, in messages and seconds, and of waiting for an index."""
        self._limits: dict[str, Any] = {
            "page": page,
            "measuring": measuring,
            "index_patience": index_patience,
        }
        self._pattern: Pattern | None = None
        self._passwd: PasswdFile | None = None
        self._cache = CACHE
        self._kept = 0
        self._folders: OrderedDict[str, Folder] = OrderedDict()
        self._threads: FileThreads | None = None
        self._reader: Reader | None = None
        self._log = structlog.get_logger("pop3hub.maildir")

    # Settings and life

    @hookimpl
    def register_options(self) -> list[click.Option]:
        """Offer where Maildirs and users are."""
        return [
            click.Option(
                ["--maildir", "maildir_path"],
                metavar="PATTERN",
                help="Where a user's Maildir is, such as /var/mail/{user}/Maildir; {local} and "
                "{domain} are what stands around the @ of a name.",
            ),
            click.Option(
                ["--maildir-passwd"],
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="Users as in Dovecot's passwd-file: {BLF-CRYPT}, {PLAIN} or bare bcrypt.",
            ),
            click.Option(
                ["--maildir-cache"],
                type=click.IntRange(min=0),
                default=CACHE,
                show_default=True,
                metavar="MESSAGES",
                help="Keep names and sizes of so many messages in memory between sessions.",
            ),
        ]

    @hookimpl
    def configure(self, options: Mapping[str, Any]) -> None:
        """Note the settings."""
        pattern = options.get("maildir_path")
        if not pattern:
            raise ConfigurationError(
                "the maildir backend needs --maildir PATTERN, such as /var/mail/{user}/Maildir"
            )
        self._pattern = Pattern(str(pattern))
        passwd = options.get("maildir_passwd")
        self._passwd = PasswdFile(Path(passwd)) if passwd else None
        self._cache = options.get("maildir_cache", CACHE)

    @hookimpl
    async def startup(self, server: Server | None) -> None:
        """Look for the root folder, and read the users."""
        if server is not None and self._passwd is None and not _knows_users(server):
            raise ConfigurationError(
                "nobody could log in: give --maildir-passwd FILE, or install a plugin whose "
                "get_user knows the users"
            )
        root = Path(self._paths.root)
        self._threads = FileThreads()
        self._reader = Reader(self._threads)
        try:
            found = await self._run(root, root.is_dir)
            if self._passwd is not None:
                await self._run(self._passwd, self._passwd.read)
        except BaseException:
            await self._threads.close()
            raise
        if not found:
            await self._threads.close()
            raise ConfigurationError(f"--maildir: there is no folder {root}")

    @hookimpl
    async def shutdown(self, server: Server | None) -> None:  # noqa: ARG002 - the hook's argument
        """Let the threads finish what they write, but for one that hangs."""
        threads, self._threads = self._threads, None
        if threads is not None:
            await threads.close()
        self._folders.clear()
        self._kept = 0

    @hookimpl
    async def ready(self) -> None:
        """Look for the root folder."""
        root = Path(self._paths.root)
        if not await self._run(root, root.is_dir):
            raise TemporaryFailure

    @property
    def _paths(self) -> Pattern:
        if self._pattern is None:
            raise ConfigurationError("the maildir backend needs --maildir PATTERN")
        return self._pattern

    async def _run(self, place: object, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function that waits for the disk, in a thread; one at a time for each place."""
        if self._threads is None:
            raise TemporaryFailure
        with told(str(place)):
            return await self._threads.run(str(place), function, *arguments)

    @property
    def keeps_scram_keys(self) -> bool:
        """Whether every user can log in by SCRAM: keys can't be made of a bcrypt hash."""
        return self._passwd is not None and all(user.scram for user in self._passwd.all())

    # Users

    @hookimpl
    def get_user(self, name: str) -> PopUser | Awaitable[PopUser | None] | None:
        """Look a user up in the file, which is read again if it has changed."""
        passwd = self._passwd
        if passwd is None:
            return None
        if passwd.changed:
            return self._get_user(passwd, name)
        return passwd.get(name)

    async def _get_user(self, passwd: PasswdFile, name: str) -> PopUser | None:
        await self._run(passwd, passwd.read)
        return passwd.get(name)

    @hookimpl
    def compare_password(self, raw: str, hash: str) -> bool | None:  # noqa: A002 - the hook's name
        """Compare a password that the file has in clear; leave hashes to pop3hub."""
        if not hash.startswith(CLEAR):
            return None
        return is_same_password(raw, hash.removeprefix(CLEAR))

    @hookimpl
    async def list_users(self) -> list[PopUser]:
        """Return the users of the file."""
        if self._passwd is None:
            return []
        await self._run(self._passwd, self._passwd.read)
        return self._passwd.all()

    # The maildrop

    def _folder(self, name: str) -> Folder:
        path = self._paths.path(name)
        if path is None:
            self._log.error("maildir.bad_name", user=name)
            raise PermanentFailure(text_id="maildrop-damaged")
        folder = self._folders.get(str(path))
        if folder is None:
            folder = self._folders[str(path)] = Folder(path, **self._limits)
        self._folders.move_to_end(str(path))
        return folder

    @hookimpl
    def lock_maildrop(self, user: PopUser) -> MaildirLock:
        """Lock the Maildir against every other session, process and machine."""
        folder = self._folder(user.name)
        return MaildirLock(folder, partial(self._leaving, folder))

    def _leaving(self, folder: Folder) -> None:
        """Keep what the session has listed, within the cache's limit."""
        if self._folders.get(str(folder.path)) is folder:
            self._kept += len(folder) - folder.counted
            folder.counted = len(folder)
        while self._kept > self._cache:
            self._kept -= self._folders.popitem(last=False)[1].counted

    @hookimpl
    def receive_messages(
        self, user: PopUser
    ) -> Sequence[PopMessage] | Awaitable[Sequence[PopMessage] | Pages]:
        """Return the last listing if nothing has changed, otherwise list anew."""
        folder = self._folder(user.name)
        if len(folder.messages) <= FEW:
            with folder.failures():
                if folder.is_current(folder.lock.maildir if folder.lock else None):
                    return folder.messages
        return self._receive(folder)

    async def _receive(self, folder: Folder) -> Sequence[PopMessage] | Pages:
        if len(folder.messages) > FEW and await self._run(folder.path, folder.is_current):
            return folder.messages
        return self._pages(folder)

    async def _pages(self, folder: Folder) -> Pages:
        messages, must_measure = await self._run(folder.path, folder.scan)
        if not must_measure:
            yield messages
        else:
            unmeasured = iter(messages)
            messages = []
            while page := await self._run(folder.path, folder.measure, unmeasured):
                messages += page
                yield page
        folder.finish(messages)

    @hookimpl
    def load_contents(
        self, message: PopMessage
    ) -> bytes | AsyncIterator[bytes] | Awaitable[bytes | AsyncIterator[bytes]] | None:
        """Read a message's file: at once what is in memory, in threads what isn't."""
        if not isinstance(message, MaildirMessage):
            return None
        try:
            return self._read(message)
        except FileNotFoundError:
            return self._relocated(message)
        except FileChanged:
            return self._changed(message)

    def _read(self, message: MaildirMessage) -> bytes | AsyncIterator[bytes]:
        if self._reader is None:
            raise TemporaryFailure
        try:
            fd = message.folder.open(message)
        except FileNotFoundError:
            raise
        except OSError as exc:
            file = f"{message.folder.path}/{message.place}"
            self._log.error("maildir.unreadable", file=file, error=exc.strerror)
            raise refusal(exc) from exc
        return self._reader.read(fd, message.stamp)

    async def _relocated(self, message: MaildirMessage) -> bytes | AsyncIterator[bytes]:
        """Read a message whose file has moved, or find that it is gone."""
        for _ in range(RENAMED):
            if not await self._run(message.folder.path, message.folder.relocate, message):
                raise PermanentFailure(text_id="message-gone", uid=message.uid)
            try:
                return self._read(message)
            except FileNotFoundError:  # renamed in the moment between
                continue
            except FileChanged:
                return await self._changed(message)
        raise TemporaryFailure

    async def _changed(self, message: MaildirMessage) -> bytes | AsyncIterator[bytes]:
        """Read a file that has changed since it was listed, if what was told of it still holds."""
        folder = message.folder
        if await self._run(folder.path, folder.measure_again, message):
            with suppress(FileChanged, FileNotFoundError):
                return self._read(message)
        self._log.warning("maildir.changed", file=f"{folder.path}/{message.place}")
        raise TemporaryFailure

    @hookimpl
    async def delete_messages(self, messages: Sequence[PopMessage]) -> int:
        """Remove the files, and wait until that is on disk."""
        ours = [message for message in messages if isinstance(message, MaildirMessage)]
        return await self._remove(ours[0].folder, ours) if ours else 0

    async def _remove(self, folder: Folder, messages: Sequence[MaildirMessage]) -> int:
        removed = 0
        for start in range(0, len(messages), REMOVED):
            batch = messages[start : start + REMOVED]
            removed += await self._run(folder.path, folder.remove, batch)
        return removed

    @hookimpl
    async def expire_messages(self, user: PopUser, days: int) -> int:
        """Remove what was delivered more than so many days ago."""
        folder = self._folder(user.name)
        before = time.time() - days * 24 * 3600
        return await self._remove(folder, await self._run(folder.path, folder.expired, before))

    # Delivery

    @hookimpl
    async def store_message(
        self, name: str, contents: bytes | AsyncIterator[bytes], uid: str | None = None
    ) -> str:
        """Deliver into `new`, for a user of the file or one who has a Maildir already."""
        folder = await self._addressee(name)
        delivery = await self._run(folder.path, Delivery, folder)
        try:
            if isinstance(contents, bytes):
                await self._run(folder.path, delivery.write, contents)
            else:
                await self._write(folder, delivery, contents)
            return await self._run(folder.path, delivery.finish, uid)
        except BaseException:
            await self._run(folder.path, delivery.abandon)
            raise

    async def _write(
        self, folder: Folder, delivery: Delivery, contents: AsyncIterator[bytes]
    ) -> None:
        waiting: list[bytes] = []
        octets = 0
        async for chunk in contents:
            waiting.append(chunk)
            octets += len(chunk)
            if octets >= BATCH:
                await self._run(folder.path, delivery.write, b"".join(waiting))
                waiting.clear()
                octets = 0
        await self._run(folder.path, delivery.write, b"".join(waiting))

    async def _addressee(self, name: str) -> Folder:
        user = None
        if self._passwd is not None:
            user = await self._get_user(self._passwd, name)
            if user is None:
                raise NoSuchUser(name=name)
        path = self._paths.path(user.name if user else name)
        if path is None or (user is None and not await self._run(path, path.exists)):
            raise NoSuchUser(name=name)
        return self._folder(user.name if user else name)


def _knows_users(server: Server) -> bool:
    """Return whether another plugin answers `get_user`."""
    return any(hook == "get_user" and plugin != "maildir" for hook, plugin in server.calls)
