"""The server: listeners, the sessions they bring, limits, and the order of start and stop.

`PopServer` runs in anybody's event loop. It reads no files but certificates and languages, and
knows nothing of a command line.
"""

from __future__ import annotations

import asyncio
import difflib
import hmac
import inspect
import re
import secrets
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

import structlog

from pop3hub.auth import sasl
from pop3hub.auth.passwords import Hasher, PasswordCache
from pop3hub.auth.throttle import Guard
from pop3hub.errors import ConfigurationError
from pop3hub.hooks import discovery
from pop3hub.hooks.callbacks import ARGUMENTS, CallbackArguments, Callbacks, callbacks_of
from pop3hub.hooks.defaults import Defaults
from pop3hub.hooks.plugins import Plugins
from pop3hub.hooks.store import BackendStore
from pop3hub.i18n.catalogue import Catalogue
from pop3hub.server import listeners
from pop3hub.server.connection import Connection
from pop3hub.server.proxied import ProxiedServer, bind
from pop3hub.server.state import OpenListener, ServerState
from pop3hub.server.tls import Certificates
from pop3hub.server.view import LockoutView, OpenSessions, ServerView
from pop3hub.session.session import ServerContext
from pop3hub.settings import Limits, SettingArguments, Settings

if TYPE_CHECKING:
    import socket
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from pop3hub.errors import PopError
    from pop3hub.hooks.interfaces import Calls, Lockouts, ServerStats, Session
    from pop3hub.server.listeners import Listener

DEFAULT_LISTEN = "pop3://127.0.0.1:1110"
BACKLOG = 1024


class Keywords(CallbackArguments, SettingArguments):
    """What PopServer takes as keywords beside those of its signature."""


class PopServer:
    """A POP3 and POP3S server over one mail store.

    The store is given in one of three ways: callbacks, a backend object with hookimpls, or the name
    of an installed backend, with `options` for it. Callbacks are keywords with the names of the
    hooks (`get_user`, `receive_messages` and `delete_messages` at least), or one `Callbacks`.
    `plugins` are extension objects; those that are installed take part where the backend is given
    by name, but for `blocked_plugins`. The policy is one `Settings`, or its fields as keywords,
    such as `apop=True`.

    listen: URLs as in listeners.py; port 0 asks for any free one, `addresses` tells which.
    tls_cert, tls_key: PEM files, or several; without a key, it is in the certificate's file.
    salt_key: a secret shared by all nodes, for the SCRAM salts of unknown users; default: this
        machine's own.
    store: what the backend can do beside serving, such as `store_message`.
    default_language: the tag in which connections begin; `language_directories` hold more.
    guard: the counters of failed logins; workers that are forked of one process share one.

    Raises ConfigurationError for what can't work, here or in `start`.
    """

    def __init__(
        self,
        callbacks: Callbacks | None = None,
        *,
        backend: object | str | None = None,
        plugins: Iterable[object] = (),
        blocked_plugins: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
        listen: str | Sequence[str] = DEFAULT_LISTEN,
        tls_cert: str | Sequence[str] = (),
        tls_key: str | Sequence[str] = (),
        default_language: str = "en",
        language_directories: Iterable[Path] = (),
        bcrypt_cost: int = 12,
        salt_key: bytes = b"",
        guard: Guard | None = None,
        settings: Settings | None = None,
        **keywords: Unpack[Keywords],
    ) -> None:
        _check_keywords(keywords)
        if found := callbacks_of(keywords):
            if callbacks is not None:
                raise ConfigurationError(
                    "give the callbacks as one object or as keywords, not both"
                )
            callbacks = found
        self.settings = _settings_of(settings, keywords)
        _check_name(self.settings.name)
        self.listeners = [
            listeners.parse(url, certs=_several(tls_cert), keys=_several(tls_key))
            for url in _several(listen)
        ]
        for listener in self.listeners:
            listeners.check_usable(listener, allow_plaintext=self.settings.allow_plaintext)
        self.log = structlog.get_logger("pop3hub.server")
        self._hasher = Hasher(cost=bcrypt_cost)
        made, extensions = self._find(backend, callbacks, blocked_plugins)
        self.plugins = Plugins(
            made,
            [*extensions, *plugins],
            defaults=Defaults(self._hasher, PasswordCache(self.settings.password_cache)),
            hook_timeout=self.settings.limits.hook,
        )
        self.plugins.configure(options or {})
        self._language_directories = tuple(language_directories)
        self.context = ServerContext(
            plugins=self.plugins,
            catalogue=self._read_languages(self._language_directories, default_language),
            settings=self.settings,
            hasher=self._hasher,
            salt_key=salt_key or machine_key(),
            guard=guard or Guard(),
        )
        self.open_listeners: list[OpenListener] = []
        self.state = ServerState(self.context)
        self.store = BackendStore(self.plugins)
        self._stopped = asyncio.Event()

    def _find(
        self,
        backend: object | str | None,
        callbacks: Callbacks | None,
        blocked: Sequence[str],
    ) -> tuple[object, list[discovery.Plugin]]:
        if (backend is None) == (callbacks is None):
            raise ConfigurationError(
                "give either callbacks, or a backend: an object, or the name of an installed one"
            )
        if callbacks is not None:
            return callbacks.plugin(self._hasher), []
        if isinstance(backend, str):
            return discovery.load_backend(backend), discovery.load_extensions(blocked)
        return backend, []

    # Life

    async def start(self, sockets: Sequence[Sequence[socket.socket]] = ()) -> None:
        """Start the plugins and listen. Raises ConfigurationError, with nothing left open.

        `sockets` are bound already: for each listener those to take, none where it opens its own.
        """
        self.state.loop = asyncio.get_running_loop()
        await self.plugins.startup(ServerView(self))
        try:
            self.context.mechanisms = _mechanisms(self.settings, self.plugins)
            for index, listener in enumerate(self.listeners):
                for bound in (sockets[index] if sockets else ()) or (None,):
                    self.open_listeners.append(await self._open(listener, bound))
        except BaseException:
            await self._shut()
            raise
        self.state.check_timeouts()
        for url in self.addresses:
            self.log.info("server.listening", url=url)

    async def _open(self, listener: Listener, bound: socket.socket | None) -> OpenListener:
        opened = OpenListener(listener, Certificates(listener) if listener.certs else None)
        where: dict[str, Any] = {"host": listener.host, "port": listener.port}
        try:
            if listener.proxies:
                sockets = await bind(listener) if bound is None else [bound]
                opened.server = ProxiedServer(
                    self.state, opened, sockets, backlog=BACKLOG, inherited=bound is not None
                )
                return opened
            opened.server = await self.state.loop.create_server(
                lambda: Connection(self.state, opened),
                **(where if bound is None else {"sock": bound}),
                backlog=BACKLOG,
                ssl=opened.context if listener.implicit_tls else None,
                ssl_handshake_timeout=self.settings.limits.handshake
                if listener.implicit_tls
                else None,
            )
        except OSError as exc:
            raise ConfigurationError(
                f"can't listen on {listener.url()}: {exc.strerror or exc}"
            ) from exc
        return opened

    @property
    def addresses(self) -> list[str]:
        """The URLs that this server listens on, with the ports that it was given."""
        return [
            replace(opened.config, host=bound.getsockname()[0]).url(bound.getsockname()[1])
            for opened in self.open_listeners
            if opened.server is not None
            for bound in opened.server.sockets
        ]

    async def serve_forever(self) -> None:
        """Wait until `stop` has done its work."""
        await self._stopped.wait()

    async def stop(self, grace: float = 0) -> None:
        """Take no new connections, give open sessions `grace` seconds, then close them.

        A session that is closed so removes nothing; one that is inside UPDATE finishes it first.
        Called again, it can only shorten the grace.
        """
        state = self.state
        stopping = state.end is not None
        state.shorten(state.loop.time() + grace)
        if stopping:
            await self.serve_forever()
            return
        await self._stop_accepting()
        await state.wait_for_grace()
        state.cut_all()
        await state.wait_until_empty()
        await self._shut()

    async def _stop_accepting(self) -> None:
        """Close the listening sockets, once all that was accepted from them has its protocol.

        asyncio drops a connection whose server is closed between its accept and its first step.
        """
        servers = [opened.server for opened in self.open_listeners if opened.server is not None]
        for bound in (bound for server in servers for bound in server.sockets):
            self.state.loop.remove_reader(bound.fileno())  # uvloop needs none of this
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for server in servers:
            server.close()

    async def _shut(self) -> None:
        for opened in self.open_listeners:
            if opened.server is not None:
                opened.server.close()
                await opened.server.wait_closed()
        self.open_listeners.clear()
        self.state.close()
        await self.plugins.shutdown(ServerView(self))
        self._hasher.close()
        self._stopped.set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def reload(
        self, *, limits: Limits | None = None, language_directories: Iterable[Path] | None = None
    ) -> None:
        """Read certificates and languages again, and take other limits.

        Nobody's session ends; the certificates and languages are those of new connections. None
        keeps what there is. Raises ConfigurationError, with limits and languages as they were.
        """
        if language_directories is None:
            language_directories = self._language_directories
        directories = tuple(language_directories)
        catalogue = self._read_languages(directories, self.context.catalogue.default.tag)
        for opened in self.open_listeners:
            if opened.certificates is not None:
                opened.certificates.reload()
        self._language_directories = directories
        self.context.catalogue = catalogue
        if limits is not None:
            self.settings = self.context.settings = replace(self.settings, limits=limits)
            self.plugins.hook_timeout = limits.hook

    def _read_languages(self, directories: Iterable[Path], default: str) -> Catalogue:
        return Catalogue.load([*directories, *self.plugins.languages()], default=default)

    @property
    def stats(self) -> ServerStats:
        """What the server has done since its start."""
        return self.context.stats

    @property
    def is_accepting(self) -> bool:
        """Whether it has started, and no stop has begun."""
        return self.state.is_accepting

    @property
    def sessions(self) -> Collection[Session]:
        """The sessions that are open now; `abort` ends one."""
        return OpenSessions(self.state)

    @property
    def calls(self) -> Mapping[tuple[str, str], Calls]:
        """What the calls of hooks came to since the start, by hook and plugin."""
        return self.plugins.calls

    async def ready(self) -> None:
        """Return if a login could be served now; otherwise raise the first plugin's reason."""
        await self.plugins.ready()

    def text(self, error: PopError) -> str:
        """Return the text of an error in the server's own language, as ASCII."""
        language = self.context.catalogue.default
        return language.text(error.text_id, ascii=True, **error.fields).decode()

    @property
    def lockouts(self) -> Lockouts:
        """Who is locked out after too many failed logins; `lift` ends it."""
        return LockoutView(self.context.guard)


def _mechanisms(settings: Settings, plugins: Plugins) -> dict[str, sasl.Mechanism]:
    """Return the SASL mechanisms for which this server has what they need."""
    scram = settings.scram
    if scram is None:
        scram = bool(getattr(plugins.backend.instance, "keeps_scram_keys", False))
    has = {
        "shared-secret": settings.cram_md5,
        "scram-keys": scram,
        "token-verifier": plugins.verifies_tokens,
        "client-certificate": True,  # the connection's to have
        None: True,
    }
    own = {name: each for name, each in sasl.MECHANISMS.items() if has[each.needs]}
    return own | plugins.mechanisms()


def machine_key() -> bytes:
    """Return a key that is this machine's over restarts, and in all of its workers."""
    try:
        identity = Path("/etc/machine-id").read_bytes()
    except OSError:
        identity = secrets.token_bytes(32)
    return hmac.digest(identity, b"pop3hub salt key", "sha256")


def _several(values: str | Sequence[str]) -> Sequence[str]:
    return (values,) if isinstance(values, str) else values


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[!-~](?:[ -~]{0,62}[!-~])?", name) or set(name) & set("<>[]"):
        raise ConfigurationError(
            f"the name {name!r} must be 1 to 64 printable ASCII characters, without <, >, [ and ]"
        )


def _check_keywords(keywords: Mapping[str, Any]) -> None:
    """Raise ConfigurationError for a keyword that PopServer doesn't have, with the nearest one."""
    policy = [each.name for each in fields(Settings)]
    limits = [each.name for each in fields(Limits)]
    own = inspect.signature(PopServer.__init__).parameters.keys() - {"self", "keywords"}
    known = [*own, *policy, *ARGUMENTS]
    for name in keywords.keys() - set(known):
        if name in limits:
            raise ConfigurationError(
                f"PopServer has no keyword {name!r}: give limits=Limits({name}=...)"
            )
        nearest = difflib.get_close_matches(name, [*known, *limits], n=1)
        remedy = f"did you mean {nearest[0]!r}?" if nearest else "docs/embedding.md lists them"
        raise ConfigurationError(f"PopServer has no keyword {name!r}: {remedy}")


def _settings_of(settings: Settings | None, keywords: Mapping[str, Any]) -> Settings:
    given = {name: value for name, value in keywords.items() if name not in ARGUMENTS}
    if settings is None:
        return Settings(**given)
    if given:
        raise ConfigurationError(
            f"give {min(given)!r} in settings=Settings(...), since there is one, not as a keyword"
        )
    return settings
