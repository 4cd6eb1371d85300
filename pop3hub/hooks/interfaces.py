"""What a plugin is handed: a session and the server, as far as a plugin may rely on them.

Hooks are given objects with these members and nothing else: no socket, no key, no password thread.
"""

from __future__ import annotations

import enum
import time
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence

    from pop3hub.auth import PopUser
    from pop3hub.errors import PopError
    from pop3hub.peer import Peer, Tls
    from pop3hub.settings import Settings

CALL_BOUNDS = (
    *(0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
"""Seconds by which calls are told apart (`Calls.spans`)."""


class State(enum.Enum):
    """The states of RFC 1939 s3, and what follows them."""

    AUTHORIZATION = "AUTHORIZATION"
    TRANSACTION = "TRANSACTION"
    UPDATE = "UPDATE"
    CLOSED = "CLOSED"


@dataclass(slots=True)
class SessionStats:
    """What a session did: counts, octets of messages, and when it began in monotonic seconds."""

    began: float = field(default_factory=time.monotonic)
    commands: int = 0
    retrieved: int = 0
    octets: int = 0
    deleted: int = 0


@dataclass(slots=True)
class ServerStats:
    """What a server has done since its start; plain counters.

    A session's counts are added when it ends.
    accepted: connections taken; those that are not `connections` did not end their TLS handshake.
    refused: of the connections, those that were too many.
    attempts: logins by mechanism and result: OK, the response code of the refusal, or ERR for none.
    ends: sessions that have ended, by TLS version ("" without TLS) and reason.
    """

    accepted: int = 0
    connections: int = 0
    refused: int = 0
    logins: int = 0
    failed_logins: int = 0
    commands: int = 0
    retrieved: int = 0
    octets: int = 0
    deleted: int = 0
    attempts: Counter[tuple[str, str]] = field(default_factory=Counter)
    ends: Counter[tuple[str, str]] = field(default_factory=Counter)


@dataclass(slots=True)
class Calls:
    """What the calls of one hookimpl came to: their number, seconds in all, failures.

    What a call returned to be awaited later counts as a call too: entering and leaving a lock, each
    page of a listing. A failure is whatever it raised but an answer such as MaildropInUse.
    spans: how many calls took `CALL_BOUNDS[i]` seconds at most, and more than `CALL_BOUNDS[i - 1]`.
    """

    number: int = 0
    seconds: float = 0.0
    failures: int = 0
    spans: list[int] = field(default_factory=lambda: [0] * (len(CALL_BOUNDS) + 1))

    def add(self, seconds: float) -> None:
        """Count a call that took so long."""
        self.number += 1
        self.seconds += seconds
        self.spans[bisect_left(CALL_BOUNDS, seconds)] += 1


class Session(Protocol):
    """One POP3 session. The same object for all hooks of a session, so it can be a key."""

    @property
    def id(self) -> str:
        """An id that no other session of any process has."""

    @property
    def peer(self) -> Peer:
        """Where the client is; behind a proxy, what the proxy said."""

    @property
    def tls(self) -> Tls | None:
        """The facts of TLS, None without it."""

    @property
    def state(self) -> State:
        """The state of RFC 1939 s3."""

    @property
    def user(self) -> PopUser | None:
        """Who has proved who they are, from before the lock is taken; None until then."""

    @property
    def mechanism(self) -> str:
        """How they proved it: USER, APOP or a SASL mechanism; "" until the login is complete."""

    @property
    def reason(self) -> str:
        """Why the session ended, in `session_closed`, as the log and `ServerStats.ends` have it."""

    @property
    def settings(self) -> Settings:
        """The policy of the server."""

    @property
    def fence(self) -> Any:
        """What the context manager of `lock_maildrop` yielded."""

    @property
    def stats(self) -> SessionStats:
        """What the session has done so far."""

    @property
    def language(self) -> str:
        """The tag of the language that the client is answered in (RFC 6856 s3)."""

    @property
    def utf8(self) -> bool:
        """Whether the client asked for UTF-8 (RFC 6856 s2)."""

    def abort(self, reason: str) -> None:
        """End the session without UPDATE; `reason` is for the log.

        A session that is inside UPDATE already is left to finish.
        """


class Store(Protocol):
    """What a backend can do without a session; a member is None where the backend can't.

    Each calls the hook of its name, with the hook's arguments and errors.
    """

    @property
    def find_user(self) -> Callable[..., Awaitable[PopUser | None]]:
        """`find_user(name, session=None)`: the user whom `get_user` finds, or None."""

    @property
    def store_user(self) -> Callable[..., Awaitable[bool]] | None:
        """`store_user(user, replace=False)`."""

    @property
    def remove_user(self) -> Callable[..., Awaitable[bool]] | None:
        """`remove_user(name, with_mail=False)`."""

    @property
    def list_users(self) -> Callable[[], AsyncIterator[PopUser]] | None:
        """`list_users()`: the users in the order of their names."""

    @property
    def store_message(self) -> Callable[..., Awaitable[str]] | None:
        """`store_message(name, contents, uid=None)`: the unique-id; durable when it returns."""


class Lockouts(Protocol):
    """Who can't log in for a while, after too many failed logins (as this process knows it)."""

    def current(self) -> Mapping[str, float]:
        """Return the users and addresses locked out from here, with the seconds that are left."""

    def lift(self, name_or_address: str) -> bool:
        """End the lockout of a user or an address; return whether there was one."""


class Server(Protocol):
    """A server that is starting or running."""

    @property
    def settings(self) -> Settings:
        """The policy of the server."""

    @property
    def addresses(self) -> Sequence[str]:
        """The URLs that it listens on, once it listens."""

    @property
    def is_accepting(self) -> bool:
        """Whether it has started and no stop has begun."""

    @property
    def stats(self) -> ServerStats:
        """What it has done since its start."""

    @property
    def sessions(self) -> Collection[Session]:
        """The sessions that are open now."""

    @property
    def lockouts(self) -> Lockouts:
        """Who is locked out."""

    @property
    def store(self) -> Store:
        """What the backend can do beside serving."""

    @property
    def calls(self) -> Mapping[tuple[str, str], Calls]:
        """What the calls of hooks came to since the start, by hook and plugin."""

    async def ready(self) -> None:
        """Return if a login could be served now; otherwise raise the first plugin's reason."""

    def text(self, error: PopError) -> str:
        """Return the text of an error in the server's own language, as ASCII."""
