"""The Maildir backend: the Maildirs that Postfix, Exim or Dovecot fill, served over POP3."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import structlog

from pop3hub.errors import (
    ConfigurationError,
    NoSuchUser,
    PermanentFailure,
    TemporaryFailure,
)
from pop3hub.hookspecs import hookimpl
from pop3hub_maildir.delivery import Delivery
from pop3hub_maildir.folder import MEASURING, PAGE, Folder, MaildirMessage
from pop3hub_maildir.lock import MaildirLock
from pop3hub_maildir.passwd import CLEAR, PasswdFile
from pop3hub_maildir.pattern import Pattern
from pop3hub_maildir.reading import Reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from typing import TypeVar

    from pop3hub.auth import PopUser
    from pop3hub.maildrop import PopMessage
    from pop3hub.server import PopServer

    T = TypeVar("T")

__all__ = ["MaildirBackend"]

THREADS = 4
"""Threads for what waits for a disk."""
CACHE = 100_000
"""Messages whose names and sizes are kept in memory between sessions: about 40 MiB."""
BATCH = 256 * 1024
"""Octets of a delivery that are written at once."""


class MaildirBackend:
    """One Maildir for each user, found by a pattern; users from a file or from another plugin."""

    def __init__(self, *, page: int = PAGE, measuring: float = MEASURING) -> None:
        """Hand new messages on after so many of them, or so many seconds of measuring them."""
        self._page = page
        self._measuring = measuring
        self._pattern: Pattern | None = None
        self._passwd: PasswdFile | None = None
        self._cache = CACHE
        self._kept = 0
        self._folders: OrderedDict[str, Folder] = OrderedDict()
        self._threads: ThreadPoolExecutor | None = None
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
    async def startup(self, server: PopServer | None) -> None:  # noqa: ARG002 - the hook's argument
        """Look for the root folder, and read the users."""
        root = Path(self._paths.root)
        if not await asyncio.to_thread(root.is_dir):
            raise ConfigurationError(f"--maildir: there is no folder {root}")
        if self._passwd is not None:
            await asyncio.to_thread(self._passwd.read)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="pop3hub-maildir")
        self._reader = Reader(self._threads)

    @hookimpl
    async def shutdown(self, server: PopServer | None) -> None:  # noqa: ARG002 - the hook's argument
        """Let the threads finish what they write."""
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(threads.shutdown)
        self._folders.clear()
        self._kept = 0

    @hookimpl
    async def ready(self) -> None:
        """Look for the root folder."""
        if not await self._run(Path(self._paths.root).is_dir):
            raise TemporaryFailure

    @property
    def _paths(self) -> Pattern:
        if self._pattern is None:
            raise ConfigurationError("the maildir backend needs --maildir PATTERN")
        return self._pattern

    async def _run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function that waits for the disk, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

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
        await self._run(passwd.read)
        return passwd.get(name)

    @hookimpl
    def compare_password(self, raw: str, hash: str) -> bool | None:  # noqa: A002 - the hook's name
        """Compare a password that the file has in clear; leave hashes to pop3hub."""
        if not hash.startswith(CLEAR):
            return None
        return hmac.compare_digest(raw.encode(), hash.removeprefix(CLEAR).encode())

    @hookimpl
    async def list_users(self) -> list[PopUser]:
        """Return the users of the file."""
        if self._passwd is None:
            return []
        await self._run(self._passwd.read)
        return self._passwd.all()

    # The maildrop

    def _folder(self, name: str) -> Folder:
        path = self._paths.path(name)
        if path is None:
            self._log.error("maildir.bad_name", user=name)
            raise PermanentFailure("maildrop-damaged")
        folder = self._folders.get(path)
        if folder is None:
            folder = Folder(path, page=self._page, measuring=self._measuring)
            self._folders[path] = folder
        self._folders.move_to_end(path)
        return folder

    @hookimpl
    def lock_maildrop(self, user: PopUser) -> MaildirLock:
        """Lock the Maildir against every other session, process and machine."""
        return MaildirLock(self._folder(user.name), self._leaving)

    async def _leaving(self, folder: Folder) -> None:
        """Keep what the session has found out, and within the cache's limit what it has listed."""
        if folder.has_learned:
            await self._run(folder.keep)
        if self._folders.get(folder.path) is folder:
            self._kept += len(folder) - folder.counted
            folder.counted = len(folder)
        while self._kept > self._cache:
            self._kept -= self._folders.popitem(last=False)[1].counted

    @hookimpl
    def receive_messages(
        self, user: PopUser
    ) -> Sequence[PopMessage] | AsyncIterator[Sequence[PopMessage]]:
        """Return the last listing if nothing has changed, otherwise list anew."""
        folder = self._folder(user.name)
        return folder.messages if folder.unchanged else self._pages(folder)

    async def _pages(self, folder: Folder) -> AsyncIterator[Sequence[PopMessage]]:
        messages, new = await self._run(folder.scan)
        yield messages
        unmeasured = iter(new)
        while new and (page := await self._run(folder.measure, unmeasured)):
            messages = messages + page
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

    def _read(self, message: MaildirMessage) -> bytes | AsyncIterator[bytes]:
        if self._reader is None:
            raise TemporaryFailure
        folder = message.folder
        if not message.place:
            raise FileNotFoundError
        surveyed = None if message.surveyed else lambda found: folder.learned(message, found)
        return self._reader.read(folder.path_of(message), surveyed)

    async def _relocated(self, message: MaildirMessage) -> bytes | AsyncIterator[bytes]:
        if not await self._run(message.folder.relocate, message):
            raise PermanentFailure("message-gone", uid=message.uid)
        try:
            return self._read(message)
        except FileNotFoundError:  # renamed twice in a moment
            raise TemporaryFailure from None

    @hookimpl
    async def delete_messages(self, messages: Sequence[PopMessage]) -> int:
        """Remove the files, and wait until that is on disk."""
        ours = [message for message in messages if isinstance(message, MaildirMessage)]
        return await self._run(ours[0].folder.remove, ours) if ours else 0

    @hookimpl
    async def expire_messages(self, user: PopUser, days: int) -> int:
        """Remove what was delivered more than so many days ago."""
        before = time.time() - days * 24 * 3600
        return await self._run(self._folder(user.name).expire, before)

    # Delivery

    @hookimpl
    async def store_message(
        self, name: str, contents: bytes | AsyncIterator[bytes], uid: str | None = None
    ) -> str:
        """Deliver into `new`, for a user of the file or one who has a Maildir already."""
        folder = await self._addressee(name)
        delivery = await self._run(Delivery, folder)
        try:
            if isinstance(contents, bytes):
                await self._run(delivery.write, contents)
            else:
                await self._write(delivery, contents)
            return await self._run(delivery.finish, uid)
        except BaseException:
            await self._run(delivery.abandon)
            raise

    async def _write(self, delivery: Delivery, contents: AsyncIterator[bytes]) -> None:
        waiting: list[bytes] = []
        octets = 0
        async for chunk in contents:
            waiting.append(chunk)
            octets += len(chunk)
            if octets >= BATCH:
                await self._run(delivery.write, b"".join(waiting))
                waiting.clear()
                octets = 0
        await self._run(delivery.write, b"".join(waiting))

    async def _addressee(self, name: str) -> Folder:
        user = None
        if self._passwd is not None:
            user = await self._get_user(self._passwd, name)
            if user is None:
                raise NoSuchUser(name=name)
        path = self._paths.path(user.name if user else name)
        if path is None or (user is None and not await self._run(Path(path).is_dir)):
            raise NoSuchUser(name=name)
        return self._folder(user.name if user else name)
