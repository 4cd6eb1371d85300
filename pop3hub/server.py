"""The server: listeners, the sessions they bring, limits, and the order of start and stop.

`PopServer` runs in anybody's event loop. It reads no files but certificates and languages, and
knows nothing of a command line.
"""

from __future__ import annotations

import asyncio
import gc
import hmac
import re
import secrets
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet

import structlog

from pop3hub import discovery, listeners, protocol, sasl
from pop3hub.abuse import Guard
from pop3hub.accepting import ProxiedServer, bind
from pop3hub.auth import Hasher, PasswordCache
from pop3hub.callbacks import ADAPTERS, callbacks_plugin
from pop3hub.connection import Connection
from pop3hub.defaults import Defaults
from pop3hub.errors import ConfigurationError
from pop3hub.languages import Catalogue
from pop3hub.plugins import Plugins
from pop3hub.session import Service
from pop3hub.settings import Settings
from pop3hub.tls import Certificates

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence

    from pop3hub.listeners import Listener
    from pop3hub.peer import Peer
    from pop3hub.session import Session
    from pop3hub.settings import Limits

DEFAULT_LISTEN = "pop3://127.0.0.1:1110"
BACKLOG = 1024
ENDS = 64
"""Ends of sessions that are counted apart: plugins give reasons too."""


@dataclass(slots=True)
class Stats:
    """What a server has done since its start; plain counters.

    A session's figures are added when it ends.
    accepted: connections taken; those that are no `connections` did not end their TLS handshake.
    refused: of the connections, those that were too many.
    attempts: logins by mechanism and result: OK, the response code of the refusal, or ERR for none.
    ends: sessions that have ended, by TLS version ("" in clear) and reason.
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

    def add(self, session: Session) -> None:
        """Count a session that has ended."""
        figures = session.figures
        self.logins += session.user is not None
        self.failed_logins += session.failed_logins
        self.commands += figures.commands
        self.retrieved += figures.retrieved
        self.octets += figures.octets
        self.deleted += figures.deleted
        end = session.tls.version if session.tls else "", session.reason
        if end not in self.ends and len(self.ends) >= ENDS:
            end = end[0], "other"
        self.ends[end] += 1


@dataclass(slots=True)
class Port:
    """A listener that is open: its sockets and its TLS context."""

    listener: Listener
    certificates: Certificates | None = None
    server: asyncio.Server | ProxiedServer | None = None

    @property
    def context(self) -> ssl.SSLContext | None:
        """The TLS context of this listener, if it has a certificate."""
        return self.certificates.context if self.certificates else None

    @property
    def starts_tls(self) -> bool:
        """Whether STLS can be had here."""
        return self.certificates is not None and not self.listener.implicit_tls


class PopServer:
    """A POP3 and POP3S server over one mail store.

    The store is given in one of three ways: callbacks with the names of the hooks (`get_user`,
    `receive_messages` and `delete_messages` at least), a backend object with hookimpls, or the name
    of an installed backend, with `options` for it. `plugins` are extension objects; those that are
    installed take part where the backend is given by name, but for `blocked_plugins`.

    listen: URLs as in listeners.py; port 0 asks for any free one, `addresses` tells which.
    tls_cert, tls_key: PEM files, or several; without a key, it is in the certificate's file.
    default_language: the tag in which connections begin; `language_directories` hold more.
    guard: the counters of failed logins; workers that are forked of one process share one.
    settings: the fields of `Settings`, such as `apop=True`, and `limits`.

    Raises ConfigurationError for what can't work, here or in `start`.
    """

    def __init__(
        self,
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
        token_verifier: object | None = None,
        guard: Guard | None = None,
        **settings: Any,
    ) -> None:
        callbacks = {name: settings.pop(name) for name in ADAPTERS if settings.get(name)}
        self.settings = Settings(**settings)
        _check_name(self.settings.name)
        self.listeners = [
            listeners.parse(url, certs=_several(tls_cert), keys=_several(tls_key))
            for url in _several(listen)
        ]
        for listener in self.listeners:
            listeners.check_usable(listener, allow_plaintext=self.settings.allow_plaintext)
        self.stats = Stats()
        self.log = structlog.get_logger("pop3hub.server")
        self._hasher = Hasher(cost=bcrypt_cost)
        made, extensions = self._find(backend, callbacks, blocked_plugins)
        self.plugins = Plugins(
            made,
            [*extensions, *plugins, *([token_verifier] if token_verifier else [])],
            defaults=Defaults(self._hasher, PasswordCache(self.settings.password_cache)),
            hook_timeout=self.settings.limits.hook,
        )
        self.plugins.configure(options or {})
        self._language_directories = tuple(language_directories)
        self.service = Service(
            plugins=self.plugins,
            catalogue=self._read_languages(self._language_directories, default_language),
            settings=self.settings,
            hasher=self._hasher,
            logins=self.stats.attempts,
            salt_key=self.settings.salt_key or machine_key(),
            guard=guard or Guard(),
        )
        self.loop: asyncio.AbstractEventLoop
        self.ports: list[Port] = []
        self.opening: WeakSet[Connection] = WeakSet()
        self._connections: set[Connection] = set()
        self._by_address: dict[str, int] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = asyncio.Event()
        self._left = asyncio.Event()
        self._end: float | None = None

    def _find(
        self,
        backend: object | str | None,
        callbacks: Mapping[str, Callable[..., Any]],
        blocked: Sequence[str],
    ) -> tuple[object, list[discovery.Plugin]]:
        if (backend is None) == (not callbacks):
            raise ConfigurationError(
                "give either callbacks, or a backend: an object, or the name of an installed one"
            )
        if callbacks:
            return callbacks_plugin(callbacks, self._hasher), []
        if isinstance(backend, str):
            return discovery.load_backend(backend), discovery.load_extensions(blocked)
        return backend, []

    # Life

    async def start(self, sockets: Sequence[Sequence[socket.socket]] = ()) -> None:
        """Start the plugins and listen. Raises ConfigurationError, with nothing left open.

        `sockets` are bound already: for each listener those to take, none where it opens its own.
        """
        self.loop = asyncio.get_running_loop()
        await self.plugins.startup(self)
        try:
            self.service.mechanisms = _mechanisms(self.settings, self.plugins)
            for index, listener in enumerate(self.listeners):
                for bound in (sockets[index] if sockets else ()) or (None,):
                    self.ports.append(await self._open(listener, bound))
        except BaseException:
            await self._shut()
            raise
        self._look()
        for url in self.addresses:
            self.log.info("server.listening", url=url)

    async def _open(self, listener: Listener, bound: socket.socket | None) -> Port:
        port = Port(listener, Certificates(listener) if listener.certs else None)
        where: dict[str, Any] = {"host": listener.host, "port": listener.port}
        try:
            if listener.proxies:
                sockets = await bind(listener) if bound is None else [bound]
                port.server = ProxiedServer(
                    self, port, sockets, backlog=BACKLOG, inherited=bound is not None
                )
                return port
            port.server = await self.loop.create_server(
                lambda: Connection(self, port),
                **(where if bound is None else {"sock": bound}),
                backlog=BACKLOG,
                ssl=port.context if listener.implicit_tls else None,
                ssl_handshake_timeout=self.settings.limits.handshake
                if listener.implicit_tls
                else None,
            )
        except OSError as exc:
            raise ConfigurationError(
                f"can't listen on {listener.url()}: {exc.strerror or exc}"
            ) from exc
        return port

    @property
    def addresses(self) -> list[str]:
        """The URLs that this server listens on, with the ports that it was given."""
        return [
            replace(port.listener, host=bound.getsockname()[0]).url(bound.getsockname()[1])
            for port in self.ports
            if port.server is not None
            for bound in port.server.sockets
        ]

    @property
    def takes_connections(self) -> bool:
        """Whether it has started, and no stop has begun."""
        return self._timer is not None and self._end is None

    async def serve_forever(self) -> None:
        """Wait until `stop` has done its work."""
        await self._stopped.wait()

    async def stop(self, grace: float = 0) -> None:
        """Take no new connections, give open sessions `grace` seconds, then close them.

        A session that is closed so removes nothing; one that is inside UPDATE finishes it first.
        Called again, it can only shorten the grace.
        """
        end = self.loop.time() + grace
        if self._end is not None:
            if end < self._end:
                self._end = end
                self._left.set()
            await self.serve_forever()
            return
        self._end = end
        await self._stop_accepting()
        with suppress(TimeoutError):
            await self._emptied(patiently=False)
        for connection in list(self._connections):
            connection.cut("shutdown")
        await self._emptied()
        await self._shut()

    async def _stop_accepting(self) -> None:
        """Close the listening sockets, once all that was accepted from them has its protocol.

        asyncio drops a connection whose server is closed between its accept and its first step.
        """
        servers = [port.server for port in self.ports if port.server is not None]
        for bound in (bound for server in servers for bound in server.sockets):
            self.loop.remove_reader(bound.fileno())  # uvloop, which needs none of this, has none
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for server in servers:
            server.close()

    async def _emptied(self, *, patiently: bool = True) -> None:
        """Wait until no session is open and no work is left.

        Else only to the end of the grace, but for handshakes too that are going on.
        """
        while self._connections or self._tasks or (self.opening and not patiently):
            self._left.clear()
            async with asyncio.timeout_at(None if patiently else self._end):
                await self._left.wait()

    async def _shut(self) -> None:
        for port in self.ports:
            if port.server is not None:
                port.server.close()
                await port.server.wait_closed()
        self.ports.clear()
        if self._timer is not None:
            self._timer.cancel()
        await self.plugins.shutdown(self)
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
        catalogue = self._read_languages(directories, self.service.catalogue.default.tag)
        for port in self.ports:
            if port.certificates is not None:
                port.certificates.reload()
        self._language_directories = directories
        self.service.catalogue = catalogue
        if limits is not None:
            self.settings = self.service.settings = replace(self.settings, limits=limits)
            self.plugins.hook_timeout = limits.hook

    def _read_languages(self, directories: Iterable[Path], default: str) -> Catalogue:
        return Catalogue.load([*directories, *self.plugins.languages()], default=default)

    # What connections call

    @property
    def sessions(self) -> int:
        """How many sessions are open."""
        return len(self._connections)

    def admit(self, connection: Connection, peer: Peer) -> bytes | None:
        """Count a connection in, or return the line that refuses it."""
        self.opening.discard(connection)
        self.stats.connections += 1
        limits = self.settings.limits
        address = peer.counted_as(self.settings.exempt)
        count = self._by_address.get(address, 0)
        refusal: str | None
        if limits.sessions and len(self._connections) >= limits.sessions:
            refusal = "connections-too-many"
        elif address and 0 < limits.sessions_per_address <= count:
            refusal = "connections-too-many-from-address"
        else:
            refusal = self.service.guard.refusal(peer, self.settings)
        if refusal is not None:
            self.stats.refused += 1
            self.log.warning("connection.refused", peer=peer.host, reason=refusal)
            text = self.service.catalogue.default.text(refusal, ascii=True)
            return protocol.err(text, "SYS/TEMP")
        self._connections.add(connection)
        if address:
            self._by_address[address] = count + 1
        return None

    def forget(self, connection: Connection) -> None:
        """Count a connection out, and its session's figures in."""
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        self._left.set()
        session = connection.session
        if session is None:
            return
        if address := session.peer.counted_as(self.settings.exempt):
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]
        self.stats.add(session)

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work that belongs to no connection any more, and wait for it before the stop."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._kept)

    def _kept(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._left.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log.error("session.close_failed", exc_info=error)

    def _look(self) -> None:
        """Look for silent sessions: one timer for all of them costs less than one for each."""
        limits = self.settings.limits
        now = self.loop.time()
        for connection in list(self._connections):
            connection.look(now)
        if self.opening and self._end is not None:
            gc.collect()  # asyncio leaves handshakes that failed to it
            self._left.set()
        shortest = min(limits.idle, limits.login, limits.stall)
        self._timer = self.loop.call_later(min(1.0, shortest / 4), self._look)


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
