"""One session: its state, its maildrop and the way from greeting to goodbye (RFC 1939 s3-6).

The commands are in authorization.py, transaction.py and dispatcher.py. No sockets here: a session
writes into a `Channel`.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from pop3hub import auth, protocol
from pop3hub.auth.throttle import Guard, counted_name
from pop3hub.errors import (
    AuthenticationFailed,
    LoginDelayed,
    MaildropInUse,
    PopError,
    TemporaryFailure,
)
from pop3hub.hooks.interfaces import ServerStats, SessionStats, State
from pop3hub.maildrop import Maildrop
from pop3hub.session.view import SessionView

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pop3hub.auth.passwords import Hasher
    from pop3hub.auth.sasl import Mechanism
    from pop3hub.auth.users import PopUser
    from pop3hub.hooks.lock import MaildropLock
    from pop3hub.hooks.plugins import Plugins
    from pop3hub.i18n.catalogue import Catalogue
    from pop3hub.maildrop import PopMessage
    from pop3hub.peer import Peer, Tls
    from pop3hub.settings import Settings


ENDS = 64
"""Ends of sessions that are counted apart: plugins give reasons too."""
REMEMBERED_SIZES = 100_000
"""Messages whose surrogate's size is remembered where their store doesn't keep it."""
NO_MAILDROP = Maildrop()
"""What a session has before TRANSACTION, where no command asks for it."""


class Channel(Protocol):
    """The way to the client, as a session needs it."""

    def send(self, data: bytes) -> None:
        """Queue octets; they go out in one write with what follows without a wait."""

    async def drain(self) -> None:
        """Write what is queued, and wait until the client has taken enough of it."""

    async def start_tls(self) -> Tls:
        """Write what is queued, forget what was received, and do the handshake."""

    def close(self) -> None:
        """Write what is queued and close."""

    def abort(self) -> None:
        """Close without writing anything more."""


@dataclass(slots=True)
class ServerContext:
    """What all sessions of one server share."""

    plugins: Plugins
    catalogue: Catalogue
    settings: Settings
    hasher: Hasher
    mechanisms: Mapping[str, Mechanism] = field(default_factory=dict)
    salt_key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    guard: Guard = field(default_factory=Guard)
    stats: ServerStats = field(default_factory=ServerStats)
    log: Any = field(default_factory=lambda: structlog.get_logger("pop3hub.session"))
    measured: dict[tuple[str, str], int] = field(default_factory=dict)
    remembered_sizes: int = REMEMBERED_SIZES
    _prefix: str = field(default_factory=lambda: secrets.token_hex(5))
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def new_id(self) -> str:
        """Return a session id that no session of any process had before."""
        return f"{self._prefix}-{next(self._numbers):x}"

    def remember_size(self, user: str, uid: str, ascii_size: int) -> None:
        """Keep the size of a message's surrogate for later sessions; the oldest goes first."""
        self.measured[user, uid] = ascii_size
        if len(self.measured) > self.remembered_sizes:
            del self.measured[next(iter(self.measured))]


class Session:
    """A POP3 session, from the greeting to the release of its maildrop."""

    __slots__ = (
        "__weakref__",
        "_lock",
        "_log",
        "_response",
        "bad_commands",
        "channel",
        "context",
        "failed_logins",
        "fence",
        "finishing",
        "id",
        "last_activity",
        "locked_out",
        "maildrop",
        "mechanism",
        "peer",
        "pending_name",
        "plain",
        "plaintext_ok",
        "reason",
        "retrieved",
        "stamp",
        "starts_tls",
        "state",
        "stats",
        "texts",
        "tls",
        "user",
        "utf8",
        "view",
    )

    def __init__(
        self,
        context: ServerContext,
        channel: Channel,
        peer: Peer,
        *,
        tls: Tls | None = None,
        starts_tls: bool = False,
        plaintext_ok: bool | None = None,
    ) -> None:
        """Begin in AUTHORIZATION.

        `starts_tls` says that the listener has a certificate for STLS; `plaintext_ok` that
        passwords may come in clear on this connection, None meaning: as the settings say.
        """
        self.context = context
        self.channel = channel
        self.peer = peer
        self.tls = tls
        self.starts_tls = starts_tls
        if plaintext_ok is None:
            plaintext_ok = peer.is_local or context.settings.allow_plaintext
        self.plaintext_ok = plaintext_ok
        self.id = context.new_id()
        self.state = State.AUTHORIZATION
        self.stats = SessionStats()
        self.user: PopUser | None = None
        self.mechanism = ""
        self.maildrop: Maildrop = NO_MAILDROP
        self.fence: Any = None
        self.pending_name: str | None = None
        self.utf8 = False
        self.finishing = False
        self.last_activity = 0.0
        self.bad_commands = 0
        self.failed_logins = 0
        self.locked_out = False
        self.retrieved: set[int] | None = set() if context.settings.expire == 0 else None
        self.reason = "lost"
        self.stamp = auth.new_stamp(context.settings.name) if context.settings.apop else ""
        self._lock: MaildropLock | None = None
        self._log: Any = None
        self._response: asyncio.Future[bytes] | None = None
        self.view = SessionView(self)
        self.reset_language()

    def __repr__(self) -> str:
        return f"<Session {self.id} {self.peer} {self.state.name}>"

    @property
    def plugins(self) -> Plugins:
        """The plugins of the server."""
        return self.context.plugins

    @property
    def settings(self) -> Settings:
        """The policy of the server."""
        return self.context.settings

    @property
    def log(self) -> Any:
        """The session's logger, bound to its id and peer."""
        if self._log is None:
            self._log = self.context.log.bind(session=self.id, peer=self.peer.host)
        return self._log

    @property
    def language(self) -> str:
        """The tag of the language that the client is answered in."""
        return self.texts.tag

    @property
    def takes_surrogates(self) -> bool:
        """Whether messages with UTF-8 headers are sent as RFC 6858 surrogates."""
        return not self.utf8 and self.settings.internationalized == "downgrade"

    # Words

    def reset_language(self) -> None:
        """Go back to the language in which a connection begins, in ASCII (RFC 6856 s3)."""
        tag = self.plugins.default_language(self.view)
        self.texts = (self.context.catalogue.find(tag) if tag else None) or (
            self.context.catalogue.default
        )
        self.plain = True

    def text(self, text_id: str, **fields: Any) -> bytes:
        """Return a text in the session's language, as ASCII until LANG or UTF8 allowed more."""
        return self.texts.text(text_id, ascii=self.plain, **fields)

    def ok(self, text_id: str, **fields: Any) -> None:
        """Send a positive reply."""
        self.channel.send(protocol.ok(self.texts.text(text_id, ascii=self.plain, **fields)))

    def refuse(self, error: PopError) -> None:
        """Send the reply of an error; a text id that doesn't exist is not shown to a client."""
        known = error.text_id in self.context.catalogue.reference.entries
        text_id = error.text_id if known else type(error).text_id
        self.channel.send(protocol.err(self.text(text_id, **error.fields), error.code))

    # From the greeting to TRANSACTION

    def greet(self) -> None:
        """Send the greeting (RFC 1939 s4); with APOP, the only `<` in it begins the stamp."""
        family = "IPv6" if ":" in self.peer.host else "IPv4"
        room = protocol.REPLY_LIMIT - len(b"+OK  \r\n") - len(self.stamp)
        greeting = self.texts.text(
            "greeting",
            ascii=self.plain,
            limit=room,
            name=self.settings.name,
            client=f"{family} {self.peer}",
        )
        if self.stamp:
            greeting += b" " + self.stamp.encode("ascii")
        self.channel.send(protocol.ok(greeting))

    async def ask(self, challenge: bytes) -> bytes:
        """Send a challenge of AUTH, and return the line that the client answers (RFC 5034 s4)."""
        self.channel.send(b"+ %b\r\n" % challenge)
        self._response = asyncio.get_running_loop().create_future()
        try:
            await self.channel.drain()
            return await self._response
        finally:
            self._response = None
            self.last_activity = asyncio.get_running_loop().time()

    @property
    def wants_response(self) -> bool:
        """Whether the next line answers a challenge and is no command."""
        return self._response is not None and not self._response.done()

    def respond(self, line: bytes | PopError) -> None:
        """Hand over the line that answers a challenge, or the error that takes its place."""
        if self._response is not None and not self._response.done():
            if isinstance(line, PopError):
                self._response.set_exception(line)
            else:
                self._response.set_result(line)

    async def get_user(self, name: str) -> PopUser | None:
        """Return the user of a name that a client gave, or None."""
        self.locked_out = self.is_locked_out(name)
        return await self.plugins.get_user(name, self.view)

    async def compare_password(self, raw: str, user: PopUser | None) -> bool:
        """Return whether the password is the user's; for nobody's, False after the same work."""
        if self.locked_out:  # the answer comes no sooner for it, and bcrypt is spared
            return False
        if user is None or user.password is None:
            return await self.context.hasher.check_dummy(raw)
        return await self.plugins.compare_password(raw, user, self.view)

    async def verify_token(self, name: str, token: str) -> PopUser | None:
        """Return the user whom a bearer token stands for, or None."""
        return await self.plugins.verify_token(name, token, self.view)

    async def check_password(self, name: str, raw: str) -> PopUser:
        """Return the user whose name and password these are. Raises AuthenticationFailed."""
        user = await self.get_user(auth.prepare_name(name))
        if not await self.compare_password(raw, user) or user is None:
            raise AuthenticationFailed
        return user

    def is_locked_out(self, name: str) -> bool:
        """Return whether a login under this name must fail, as if the password were wrong."""
        return self.context.guard.is_locked_out(name, self.peer, self.settings)

    async def record_failure(self, name: str) -> float:
        """Count a failed login; return by how many times its answer is to be delayed."""
        counts = await self.plugins.count_failed_login(
            counted_name(name),
            self.peer.counted_as(self.settings.exempt),
            self.settings.limits.failed_logins_window,
        )
        return self.context.guard.record_failure(name, self.peer, self.settings, counts)

    async def enter_transaction(self, user: PopUser, mechanism: str) -> None:
        """Lock and list the maildrop of a user whose credentials were right (RFC 1939 s4).

        Raises MaildropInUse, LoginDelayed and what the plugins raise, with the lock released.
        """
        self.user = user
        try:
            lock = await self.plugins.lock_maildrop(user, self.view)
            self.fence = await lock.enter()
            self._lock = lock
            if await self.plugins.is_in_use(user, self.view):
                raise MaildropInUse  # noqa: TRY301 - one way out, and it releases the lock
            if delay := self.settings.login_delay:
                since = await self.plugins.since_last_login(user, self.view)
                if since < delay:
                    raise LoginDelayed(delay - since)  # noqa: TRY301
            if days := self.settings.expire:
                await self.plugins.expire_messages(user, days, self.view)
            self.maildrop = await self.plugins.receive_messages(user, self.view)
            if self.state is State.CLOSED:  # the lease lapsed, or the server closed, meanwhile
                raise TemporaryFailure  # noqa: TRY301
        except BaseException:
            self.user = None
            await self.release()
            raise
        self.mechanism = mechanism
        self.state = State.TRANSACTION
        self.log.info(
            "session.login",
            user=user.name,
            mechanism=mechanism,
            tls=self.tls.version if self.tls else None,
            messages=len(self.maildrop),
            octets=self.maildrop.octets(surrogates=False),
        )
        if self.plugins.observes("login_succeeded"):
            await self.plugins.login_succeeded(self.view)

    # From QUIT or a lost connection to the end

    async def update(self) -> int:
        """Remove the marked messages; return how many could not be removed (RFC 1939 s6).

        The lock is released whatever happens, and before the client is answered, so that its next
        login finds the maildrop free. Raises what `delete_messages` raises.
        """
        self.state = State.UPDATE
        self.finishing = True
        messages = self._to_remove()
        try:
            if not messages:
                return 0
            removed = await self.plugins.delete_messages(messages, self.view)
            self.stats.deleted = removed
            return max(0, len(messages) - removed)
        finally:
            await self.release()

    def _to_remove(self) -> list[PopMessage]:
        messages = self.maildrop.marked()
        if self.retrieved:  # EXPIRE 0: what was retrieved counts as deleted (RFC 2449 s6.7)
            kept = (self.maildrop[n] for n in sorted(self.retrieved - self.maildrop.marks))
            messages += kept
        return messages

    async def release(self) -> None:
        """Release the maildrop lock, if it is held.

        `finishing` tells whoever runs the session that it must not be cancelled now.
        """
        lock, self._lock = self._lock, None
        if lock is not None:
            self.finishing = True
            await lock.leave()
            self.finishing = self.state is State.UPDATE

    def end(self, reason: str) -> None:
        """Close the connection once what was sent is written; `reason` is for the log."""
        self.state = State.CLOSED
        self.finishing = False
        self.reason = reason
        self.channel.close()

    def abort(self, reason: str) -> None:
        """End the session without UPDATE, from a plugin or the server; `reason` is for the log.

        A session that is inside UPDATE already is left to finish.
        """
        if self.state in {State.UPDATE, State.CLOSED}:
            return
        self.state = State.CLOSED
        self.reason = reason
        self.channel.abort()

    def add_to(self, stats: ServerStats) -> None:
        """Count this session, which has ended, in its server's counters."""
        own = self.stats
        stats.logins += self.user is not None
        stats.failed_logins += self.failed_logins
        stats.commands += own.commands
        stats.retrieved += own.retrieved
        stats.octets += own.octets
        stats.deleted += own.deleted
        end = self.tls.version if self.tls else "", self.reason
        if end not in stats.ends and len(stats.ends) >= ENDS:
            end = end[0], "other"
        stats.ends[end] += 1

    @property
    def must_wait_to_close(self) -> bool:
        """Whether there is a lock to release or an observer to tell, and `finish` isn't all."""
        return self._lock is not None or self.plugins.observes("session_closed")

    async def close(self, reason: str | None = None) -> None:
        """Release what the session holds, tell the observers, and log its one line."""
        if reason is not None:
            self.reason = reason
        self.state = State.CLOSED
        await self.release()
        if self.plugins.observes("session_closed"):
            await self.plugins.session_closed(self.view)
        self.finish()

    def finish(self) -> None:
        """Log the one line of a session that holds nothing any more."""
        self.state = State.CLOSED
        stats = self.stats
        self.log.info(
            "session.closed",
            reason=self.reason,
            user=self.user.name if self.user else None,
            retrieved=stats.retrieved,
            octets=stats.octets,
            deleted=stats.deleted,
            commands=stats.commands,
            seconds=round(time.monotonic() - stats.began, 3),
        )
