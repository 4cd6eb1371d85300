"""The backend: pop3hub's hooks, over the parts that do the work.

What needs PyMongo is imported at the start, not before: a command line that only asks for help
must not wait for it.
"""

from __future__ import annotations

import os
import socket
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from pop3hub import (
    ConfigurationError,
    MaildropNotEmpty,
    NoSuchUser,
    PermanentFailure,
    TemporaryFailure,
    hookimpl,
)
from pop3hub_mongo.accounts import Account, MongoUser
from pop3hub_mongo.messages import MongoMessage
from pop3hub_mongo.options import DEFAULT_DATABASE, STANDARD_INPUT, MongoOptions, options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    import click

    from pop3hub import PopMessage, PopUser, Server, Session
    from pop3hub_mongo.driver import Driver
    from pop3hub_mongo.failed_logins import FailedLogins
    from pop3hub_mongo.lease import Lease, Leases
    from pop3hub_mongo.mapped import MappedStore
    from pop3hub_mongo.native_store import NativeStore
    from pop3hub_mongo.purge import Purge
    from pop3hub_mongo.sweep import Sweeper, Swept

DAY = 86_400.0


class MongoBackend:
    """Users and mail in MongoDB, shared by any number of processes.

    For a schema that `[mongo.schema]` can't describe, make a subclass and override `find_user`,
    `list_messages`, `open_contents` or `remove_messages`, each by itself: lease, recovery and the
    translation of errors stay.
    """

    driver: Driver
    store: NativeStore | MappedStore
    leases: Leases
    failed_logins: FailedLogins
    purge: Purge
    sweeper: Sweeper

    def __init__(self, client: Any = None) -> None:
        """Use a client of motor's or PyMongo's that the program has, or make one at the start."""
        self._client = client
        self.options = MongoOptions()
        self._piped_uri = ""
        self._sessions: dict[str, tuple[Lease, MongoUser]] = {}
        self._node = f"{socket.gethostname()}:{os.getpid()}"
        self._log = structlog.get_logger("pop3hub.mongo")

    @property
    def keeps_scram_keys(self) -> bool:
        """Whether users have SCRAM keys: ours do, made with their passwords; others' may not."""
        return self.options.schema is None

    # What a subclass may override

    async def find_user(self, name: str) -> PopUser | None:
        """Return the user of this name, or None."""
        return await self.store.find_user(name)

    def list_messages(self, user: PopUser) -> AsyncIterator[Sequence[PopMessage]]:
        """Yield pages of `MongoMessage`s, oldest first."""
        return self.store.list_messages(user)

    async def open_contents(
        self, message: MongoMessage, user: PopUser
    ) -> bytes | AsyncIterator[bytes]:
        """Return a message's octets, or a generator of chunks."""
        return await self.store.open_contents(message, user)

    async def remove_messages(self, owner: Any, ids: Sequence[Any]) -> int:
        """Remove the messages of an `Account.owner` with these ids; return how many are gone.

        One that was gone before counts. May be called again for the same messages, by another
        process, and without a session: after a crash the next login and the sweeper finish it.
        """
        return await self.store.remove_messages(owner, ids)

    # Life

    @hookimpl
    def register_options(self) -> Sequence[click.Option]:
        """Give the command line its options."""
        return options()

    @hookimpl
    def register_commands(self, group: click.Group) -> None:
        """Give the command line its commands."""
        from pop3hub_mongo.commands import register  # noqa: PLC0415 - only a command line needs it

        register(group, self)

    @hookimpl
    def configure(self, options: Mapping[str, Any]) -> None:
        """Take the settings; standard input is read here, before workers are forked, and once."""
        self.options = MongoOptions.parse(options)
        if self.options.uri_file == STANDARD_INPUT:
            self._piped_uri = self._piped_uri or self.options.read_uri()
            self.options = replace(self.options, uri=self._piped_uri, uri_file=None)

    @hookimpl
    async def startup(self, server: Server | None) -> None:
        """Connect, make indexes, begin to keep leases; sweep in the background if this serves."""
        from pop3hub_mongo.driver import Driver  # noqa: PLC0415 - see the module's docstring

        if self._client is not None:
            self.driver = Driver(self._client, owned=False)
        else:
            self.driver = Driver.open(self.options.driver, self.options.read_uri())
        try:
            with self.driver.errors_at_start():
                await self.driver.ping()
                await self._open()
        except BaseException:
            await self.driver.close()
            raise
        self.leases.start()
        if server is not None:
            self.sweeper.start()

    async def _open(self) -> None:
        from pop3hub_mongo.failed_logins import FailedLogins  # noqa: PLC0415 - see the module's docstring
        from pop3hub_mongo.lease import Leases  # noqa: PLC0415
        from pop3hub_mongo.mapped import MappedStore  # noqa: PLC0415
        from pop3hub_mongo.native_store import NativeStore  # noqa: PLC0415
        from pop3hub_mongo.purge import Purge  # noqa: PLC0415
        from pop3hub_mongo.sweep import Sweeper  # noqa: PLC0415
        from pop3hub_mongo.versions import NATIVE, claim_database  # noqa: PLC0415

        schema = self.options.schema
        in_uri = self.driver.default_database()
        native: NativeStore | None = None
        mapped: MappedStore | None = None
        if schema is None:
            ours = self.driver.database(self.options.database or in_uri or DEFAULT_DATABASE)
            await claim_database(ours, NATIVE)
            self.store = native = NativeStore(self.driver, ours)
            await native.create_indexes()
        else:
            if not (schema.database or in_uri):
                raise ConfigurationError(
                    "[mongo.schema] needs the name of the database: at the end of the URI "
                    "(mongodb://host/NAME), or as `database`"
                )
            theirs = self.driver.database(schema.database or in_uri or "")
            ours = self.driver.database(self.options.database or DEFAULT_DATABASE)
            await claim_database(ours, f"{theirs.name}.{schema.messages}")
            self.store = mapped = MappedStore(schema, theirs, ours)
            await mapped.create_indexes(allowed=self.options.create_indexes)
        self.leases = Leases(ours["leases"])
        await self.leases.create_indexes()
        self.failed_logins = FailedLogins(ours["failed_logins"])
        await self.failed_logins.create_indexes()
        self.purge = Purge(self.leases.collection, self.remove_messages)
        self.sweeper = Sweeper(
            self.leases, self.purge, turns=ours["turns"], native=native, mapped=mapped
        )

    @hookimpl
    async def shutdown(self) -> None:
        """Disconnect."""
        await self.sweeper.stop()
        await self.leases.stop()
        await self.driver.close()

    @hookimpl
    async def ready(self) -> None:
        """Raise TemporaryFailure unless a primary answers."""
        with self.driver.errors():
            await self.driver.ping()

    # Sessions

    @hookimpl
    async def get_user(self, name: str) -> PopUser | None:
        """Return the user of this name, or None."""
        with self.driver.errors():
            return await self.find_user(name)

    @hookimpl
    def lock_maildrop(self, user: PopUser, session: Session) -> AbstractAsyncContextManager[int]:
        """Return the lease on the maildrop; entering it gives its fence."""
        return self._leased(user, session)

    @asynccontextmanager
    async def _leased(self, user: PopUser, session: Session) -> AsyncIterator[int]:
        with self.driver.errors():
            account = await self._account_of(user)
        if not (isinstance(user, MongoUser) and user.account):
            user = MongoUser(
                user.name, user.password, user.secret, user.data, user.scram, account=account
            )
        async with self._holding(
            account, user.name, lambda: session.abort("lease lost"), peer=str(session.peer)
        ) as lease:
            self._sessions[session.id] = lease, user
            try:
                yield lease.fence
            finally:
                del self._sessions[session.id]

    @asynccontextmanager
    async def _holding(
        self, account: Account, name: str, lost: Callable[[], None], **facts: str
    ) -> AsyncIterator[Lease]:
        """Hold the lease on a maildrop in which nothing is left over from an earlier holder."""
        with self.driver.errors():
            lease = await self.leases.acquire(account.lease, name, lost, node=self._node, **facts)
        try:
            if lease.purge:
                with self.driver.errors():
                    await self.purge.finish(lease.key, lease.purge)
            yield lease
        finally:
            await self.leases.release(lease)

    async def _account_of(self, user: PopUser) -> Account:
        try:
            return await self.store.account_of(user)
        except NoSuchUser:
            if type(self).find_user is MongoBackend.find_user:
                raise
            return Account(user.name, user.name)  # a subclass has its users elsewhere

    def _held_by(self, session: Session) -> tuple[Lease, MongoUser]:
        """Return what a session holds. Raises TemporaryFailure: it holds no lease."""
        try:
            return self._sessions[session.id]
        except KeyError:
            raise TemporaryFailure from None

    @hookimpl
    async def since_last_login(self, session: Session) -> float:
        """Note a login in the lease; return the seconds since the one before."""
        lease, _ = self._held_by(session)
        with self.driver.errors():
            return await self.leases.since_last_login(lease, session.settings.login_delay)

    @hookimpl
    async def expire_messages(self, days: int, session: Session) -> int | None:
        """Remove what arrived so many days ago; None where another program keeps the mail."""
        if self.options.schema is not None:
            return None
        lease, user = self._held_by(session)
        with self.driver.errors():
            owner = (await self._account_of(user)).owner
            ids = await self._native.older_than(owner, days * DAY)
            return await self.purge.remove(lease, owner, ids)

    @hookimpl
    def receive_messages(self, user: PopUser) -> AsyncIterator[Sequence[PopMessage]]:
        """Return the pages of a user's messages."""
        return self.driver.errors_in(self.list_messages(user))

    @hookimpl
    async def load_contents(
        self, message: PopMessage, session: Session
    ) -> bytes | AsyncIterator[bytes] | None:
        """Return a message's octets, or a generator of chunks."""
        if not isinstance(message, MongoMessage):
            return None
        _, user = self._held_by(session)
        with self.driver.errors():
            contents = await self.open_contents(message, user)
        return contents if isinstance(contents, bytes) else self.driver.errors_in(contents)

    @hookimpl
    async def delete_messages(self, messages: Sequence[PopMessage], session: Session) -> int | None:
        """Remove messages in the name of the session's lease; without it, nothing is removed."""
        ids = [message.id for message in messages if isinstance(message, MongoMessage)]
        if len(ids) != len(messages):
            return None
        lease, user = self._held_by(session)
        with self.driver.errors():
            owner = (await self._account_of(user)).owner
            return await self.purge.remove(lease, owner, ids)

    @hookimpl
    async def count_failed_login(self, name: str, address: str, window: float) -> tuple[int, int]:
        """Note a failed login; return what all nodes have counted."""
        with self.driver.errors():
            return await self.failed_logins.count(name, address, window)

    # The store

    @property
    def _native(self) -> NativeStore:
        """The store of pop3hub's own schema. Raises PermanentFailure where there is another's."""
        if self.options.schema is not None:
            self._log.error("mongo.schema_is_foreign", remedy="use the program that keeps the mail")
            raise PermanentFailure
        return self.store  # type: ignore[return-value] # without a schema it is NativeStore

    @hookimpl
    async def store_user(self, user: PopUser, replace: bool) -> bool:  # noqa: FBT001 - as the hook has it
        """Keep a user."""
        with self.driver.errors():
            return await self._native.store_user(user, replace=replace)

    @hookimpl
    async def remove_user(self, name: str, with_mail: bool) -> bool:  # noqa: FBT001 - as the hook has it
        """Remove a user, whose maildrop is locked meanwhile."""
        with self.driver.errors():
            found = await self._native.find_any(name)
            if found is None or found.account is None:
                return False
            account = found.account
            async with self._holding(account, found.name, lambda: None) as lease:
                await self._remove(found.name, lease, account.owner, with_mail=with_mail)
        return True

    async def _remove(self, key: str, lease: Lease, owner: Any, *, with_mail: bool) -> None:
        """Remove a user whose lease is held, and their mail.

        The user goes when there is no mail, and none can come: a delivery is acknowledged after it
        has seen that nobody removes its user, and that mark is made before looking for mail.
        """
        store = self._native
        if not with_mail and await store.all_ids(owner):
            raise MaildropNotEmpty(name=key)
        deleted = False
        while not deleted:
            if with_mail:  # most of it without holding off anybody, since it may take long
                await self.purge.remove(lease, owner, await store.all_ids(owner))
            await store.hold_off_mail(key, owner)
            ids = await store.all_ids(owner)
            if ids and not with_mail:
                await store.take_mail(key, owner)
                raise MaildropNotEmpty(name=key)
            await self.purge.remove(lease, owner, ids)
            await self.leases.note_removal(lease)
            deleted = await store.delete_user(key, owner)

    @hookimpl
    def list_users(self) -> AsyncIterator[Sequence[PopUser]]:
        """Return the pages of all users."""
        return self.driver.errors_in(self.store.list_users())

    @hookimpl
    async def store_message(
        self, name: str, contents: bytes | AsyncIterator[bytes], uid: str | None = None
    ) -> str:
        """Put a message into a maildrop; a majority has it when this returns."""
        with self.driver.errors():
            return await self._native.store_message(name, contents, uid)

    # For operators

    async def sweep(self, min_age: float) -> Swept:
        """Do away with what interrupted work left behind."""
        with self.driver.errors():
            return await self.sweeper.sweep(min_age)

    async def list_locks(self) -> list[dict[str, Any]]:
        """Return the documents of all leases that are held."""
        with self.driver.errors():
            return await self.leases.listed()

    async def break_lock(self, name: str) -> bool:
        """Take a maildrop's lease away; return False if nobody holds it."""
        with self.driver.errors():
            key = await self.store.lease_of(name)
            return key is not None and await self.leases.break_off(key)
