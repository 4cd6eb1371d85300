"""The hook specifications: the contract between pop3hub and every plugin.

`async def` specifications are awaited: a hookimpl may be `def` or `async def`. `def` specifications
are plain calls that must not block: most are made while the server starts, `default_language` for
each connection and `capabilities` for each CAPA. A hookimpl takes only the arguments it needs, by
name; the names are public and stay. `firstresult` hooks ask one plugin after the other, the backend
after the extensions and pop3hub's own default last, until one answers with something else than
None. docs/hooks.md is made from this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    import click

    from pop3hub.auth.sasl import Mechanism
    from pop3hub.auth.users import PopUser
    from pop3hub.hooks.interfaces import Server, Session
    from pop3hub.maildrop import PopMessage

PROJECT = "pop3hub"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


# Users


@hookspec(firstresult=True)
async def get_user(name: str, session: Session) -> PopUser | None:
    """Return the user who logs in under this name, or None if there is none.

    Called for USER with PASS, APOP and AUTH. `name` is what was typed, prepared by SASLprep
    (RFC 4013); `PopUser.name` is the canonical one: lock, log and store use it. None means that
    this plugin doesn't know the user: the next one is asked, and in the end the client hears what
    it hears for a wrong password.
    Raises TemporaryFailure while the store can't be asked; AuthenticationFailed for a user who
    exists and may not log in.
    """


@hookspec(firstresult=True)
async def compare_password(
    raw: str,
    hash: str,  # noqa: A002 - the name that callbacks of this kind have
    user: PopUser,
    session: Session,
) -> bool | None:
    """Return whether the password `raw` is the one that `hash` was made of.

    `hash` is `user.password`. None leaves the answer to the next plugin; pop3hub's own default
    compares bcrypt in a thread. False ends the search: the login has failed.
    """


@hookspec(firstresult=True)
async def verify_token(name: str, token: str, session: Session) -> PopUser | None:
    """Return the user whom an OAuth 2.0 bearer token stands for (RFC 7628, XOAUTH2).

    `name` is the authorization identity that the client gave, or "" if it gave none: then the token
    alone tells who it is. A token that is valid for somebody else must not be answered with a user.
    None means that this plugin can't verify the token; if none can, the login has failed.
    A plugin that is installed but not configured has an attribute `verifies_tokens` that is False
    once the server starts: OAUTHBEARER and XOAUTH2 are then not offered for its sake.
    """


# The maildrop


@hookspec(firstresult=True)
async def is_in_use(user: PopUser, session: Session) -> bool | None:
    """Return whether another session has this user's maildrop open.

    Advisory, and asked while this session holds the lock of `lock_maildrop`, so that two logins
    can't both hear "no". True refuses the login with [IN-USE] (RFC 2449 s8.1.2).
    """


@hookspec(firstresult=True)
async def lock_maildrop(user: PopUser, session: Session) -> AbstractAsyncContextManager[Any] | None:
    """Return an async context manager that holds the exclusive lock on the maildrop (RFC 1939 s4).

    Entered once the password was right, left on every way out of the session: after UPDATE, on a
    lost connection, on a cancelled task. What it yields is kept as `session.fence`. Entering raises
    MaildropInUse where another session holds the lock. A lock that can lapse calls
    `session.abort(reason)` when it does. pop3hub's own default is one set of names per process.
    """


@hookspec(firstresult=True)
async def since_last_login(user: PopUser, session: Session) -> float | None:
    """Note a login of this user now, and return the seconds since the one before.

    Asked while the lock is held, and only where the server has a LOGIN-DELAY (RFC 2449 s6.5). inf
    where there was none before. A login that comes within `session.settings.login_delay` seconds is
    refused and must not be noted: the delay counts from the last one that succeeded. pop3hub's own
    default remembers the logins of its process.
    """


@hookspec(firstresult=True)
async def expire_messages(user: PopUser, days: int, session: Session) -> int | None:
    """Remove the user's messages that are older than `days` days; return how many there were.

    Asked while the lock is held, before `receive_messages`, and only where the server has an EXPIRE
    of one day or more (RFC 2449 s6.7). None means that this plugin can't.
    """


@hookspec(firstresult=True)
async def receive_messages(
    user: PopUser, session: Session
) -> Sequence[PopMessage] | AsyncIterator[Sequence[PopMessage]] | None:
    """Return the maildrop's messages, oldest first, as they shall stay for this session.

    Called once, after the maildrop is locked. Either a sequence, or an async iterator of pages:
    pages of some thousand messages leave the event loop to other sessions in between.
    A `Snapshot` is a sequence to be returned again as long as nothing changes: it is checked, and
    put together for LIST and UIDL, only once.
    `PopMessage.size` counts octets with CRLF line ends, before dot-stuffing (RFC 1939 s11); `uid`
    is 1 to 70 characters 0x21 to 0x7E and never reused (s7). One that is not is replaced by its
    SHA-256 in hexadecimal; two that are the same fail the login. An empty maildrop is an empty
    sequence; None means that this plugin does not serve the user.
    Raises TemporaryFailure: the client is told [SYS/TEMP] and may try again (RFC 3206).
    """


@hookspec(firstresult=True)
async def load_contents(
    message: PopMessage, session: Session
) -> bytes | AsyncIterator[bytes] | None:
    """Return a message's octets, or an async iterator of chunks of any size.

    Called once for each RETR and TOP. Text is sent as UTF-8. Any line ends: pop3hub makes CRLF of a
    lone LF and doubles the dots, or sends the octets as they are where `message.wire_ready` says
    so. The iterator is closed on every way out: a generator's `finally` is the place to close a
    cursor. pop3hub's own default calls `message.load_contents()`.
    Raises PermanentFailure for a message that is gone, TemporaryFailure for a store that can't be
    asked. Raised before the first chunk, the client hears it; after it, the connection is cut,
    since a final dot would make half a message look whole.
    """


@hookspec(firstresult=True)
async def delete_messages(messages: Sequence[PopMessage], session: Session) -> int | None:
    """Remove the messages for good, and return how many of them are gone now.

    Called in UPDATE only: after QUIT, before its answer, with the maildrop still locked (RFC 1939
    s6). A message that was gone before counts as gone. Fewer than asked for makes the answer -ERR.
    It is never cancelled by a client that leaves; it must not return before the removal is durable.
    """


# Failed logins


@hookspec(firstresult=True)
async def count_failed_login(name: str, address: str, window: float) -> tuple[int, int] | None:
    """Note a failed login, and return how many there were for this name, and from this address.

    For what is served by several nodes: pop3hub itself counts for all workers of one machine. Both
    numbers are those of all nodes in the last `window` seconds, with this failure among them.
    `name` is prepared and case-folded, may be anything and nobody's, and "" where the client gave
    none; `address` is an IPv4 address or an IPv6 network (/64), and "" where it doesn't count.
    Called for each failure, never for a login that succeeds. None, or what is raised, leaves it at
    the numbers of this machine.
    """


# Observers


@hookspec
async def session_opened(session: Session) -> None:
    """Hear that a connection was accepted and is about to be greeted.

    Like every observer: all plugins are told, what one raises is logged and goes no further.
    """


@hookspec
async def login_succeeded(session: Session) -> None:
    """Hear that the session has entered TRANSACTION as `session.user`."""


@hookspec
async def login_failed(name: str, session: Session) -> None:
    """Hear that a login was refused; `name` is as the client gave it and may be anything."""


@hookspec
async def message_retrieved(message: PopMessage, session: Session) -> None:
    """Hear that RETR has sent the whole message: where a store marks a message as seen.

    Not called for TOP, nor for a message that was cut short.
    """


@hookspec
async def session_closed(session: Session) -> None:
    """Hear that the session has ended, its lock released; `session.stats` tells what it did."""


# Life of the server


@hookspec
def configure(options: Mapping[str, Any]) -> None:
    """Take the settings, by parameter name, before the start; nothing is opened here.

    `options` holds what the plugin's `register_options` asked for, and where a server is made by a
    program, what that program gave: a missing key means the default. With --workers it is called in
    the parent and then in each worker: what can be read only once has to be kept.
    Raises ConfigurationError: the start stops, and the operator reads its message.
    """


@hookspec
async def startup(server: Server | None) -> None:
    """Open what the plugin needs: connections, indexes, background tasks, imports that take long.

    Called in the running event loop, in the order backend, extensions. `server` is None where a
    command such as `pop3hub deliver` uses the store without serving.
    Raises ConfigurationError for what the operator must put right.
    """


@hookspec
async def shutdown(server: Server | None) -> None:
    """Close what `startup` opened; called in reverse order, also where a later startup failed."""


@hookspec
async def ready() -> None:
    """Return if the plugin could serve a login now, raise what hinders it (health checks)."""


# What a plugin adds


@hookspec(firstresult=True)
def default_language(session: Session) -> str | None:
    """Return the tag of the language that this connection starts in, or None for `--language`."""


@hookspec
def capabilities(session: Session) -> Iterable[str]:
    """Return lines that CAPA shall list beside pop3hub's own (RFC 2449 s5), by state if it matters.

    A private capability's name begins with `X-`.
    """


@hookspec
def register_options() -> Sequence[click.Option]:
    """Return command-line options; they join pop3hub's own under a heading of the plugin's name.

    Names begin with the plugin's: `--mongo-uri` is `POP3HUB_MONGO_URI` in the environment and
    `[mongo] uri` in the configuration file.
    """


@hookspec
def register_commands(group: click.Group) -> None:
    """Add commands of the plugin's own below `pop3hub`."""


@hookspec
def register_languages() -> Iterable[Path]:
    """Return directories that hold more language files (docs/languages.md)."""


@hookspec
def register_sasl_mechanisms() -> Iterable[Mechanism]:
    """Return SASL mechanisms, to be offered by AUTH beside or instead of pop3hub's own (RFC 5034).

    `Mechanism(name, function)` holds an `async def function(exchange) -> PopUser`, which raises
    AuthenticationFailed; `plaintext=True` offers it under TLS only.
    """


# The store, for `pop3hub user`, `deliver` and `import`: all optional


@hookspec(firstresult=True)
async def store_user(
    user: PopUser,
    replace: bool,  # noqa: FBT001 - hooks are called by keyword
) -> bool | None:
    """Keep this user durably; return False, with nothing changed, where that hinders.

    `replace` False is for a new user and never overwrites one; True is for one who exists.
    """


@hookspec(firstresult=True)
async def remove_user(
    name: str,
    with_mail: bool,  # noqa: FBT001 - hooks are called by keyword
) -> bool | None:
    """Remove the user of this name, and the maildrop if `with_mail`; return False if there is none.

    Raises MaildropNotEmpty, with nothing changed, for a user with messages unless `with_mail`.
    """


@hookspec(firstresult=True)
async def list_users() -> Sequence[PopUser] | AsyncIterator[Sequence[PopUser]] | None:
    """Return all users in the order of their names, as a sequence or an async iterator of pages."""


@hookspec(firstresult=True)
async def store_message(
    name: str, contents: bytes | AsyncIterator[bytes], uid: str | None
) -> str | None:
    """Put a message into the user's maildrop, as its newest; return its unique-id.

    The message is durable when this returns. `uid` keeps the unique-id that another server gave it.
    Raises NoSuchUser; UniqueIdTaken where the maildrop has that unique-id; TemporaryFailure where
    trying again can help: then nothing is stored.
    """
