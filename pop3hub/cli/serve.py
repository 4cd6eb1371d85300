"""Serving as a program: the event loop, signals, the log, and what the operator is told.

SIGTERM ends the server in order, a second one at once; SIGINT ends it at once; SIGHUP reads
certificates, languages and limits again.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from pop3hub.auth.throttle import Guard
from pop3hub.cli import logs, options, workers
from pop3hub.cli.context import Refused
from pop3hub.cli.systemd import Notifier, inherited_sockets
from pop3hub.errors import ConfigurationError
from pop3hub.server import listeners
from pop3hub.server.server import PopServer, machine_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from socket import socket

    from pop3hub.cli.context import CliContext

FULL = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
"""Errors by which the system says that it can't take another connection now."""
QUIET = 10.0
"""Seconds between two log lines about such errors."""
RELOADABLE = {"language_dir", *(options.parameter(option) for option, _ in options.LIMITS.values())}
"""The options that SIGHUP reads again."""


def configure_logs(values: Mapping[str, Any], *, quiet: bool) -> None:
    """Set the log up as the options say; `quiet` is for commands that print what they do."""
    key = None
    if values["log_names"] == "hash":
        key = options.salt_key(values["salt_key_file"]) or machine_key()
    level = "warning" if quiet else values["log_level"]
    logs.configure(style=values["log_format"], level=level, names_key=key)


def make_server(app: CliContext, guard: Guard | None = None) -> PopServer:
    """Return the server that the options say, not started; raise ConfigurationError."""
    return PopServer(
        backend=app.backend,
        plugins=app.extensions,
        options=app.options,
        guard=guard,
        **options.server_arguments(app.values),
    )


def serve(
    app: CliContext, again: Callable[[], Mapping[str, Any]], report: Callable[[Exception], int]
) -> int:
    """Serve until a signal ends it; return the exit code.

    `again` returns the options' values as they are now; `report` prints what ends a worker.
    """
    values = app.values
    shared = app.plugins.shared_state
    if values["workers"] > 1 and not shared:
        raise Refused(
            f"backend {app.backend.name!r} keeps its mail in one process, which several can't "
            "serve: leave --workers out",
            os.EX_UNAVAILABLE,
        )
    notifier = Notifier()
    places = [
        listeners.parse(url, certs=values["tls_cert"], keys=values["tls_key"])
        for url in values["listen"]
    ]
    inherited = assign(inherited_sockets(), places)
    guard = Guard()  # before any worker is forked: they all count in it
    if values["workers"] == 1:
        return ServerProcess(app, again, notifier, guard).run(inherited)

    app.plugins.configure(app.options)  # before the fork: standard input can be read only once

    def work(sockets: Sequence[Sequence[socket]], parent: workers.Parent) -> int:
        try:
            return ServerProcess(app, again, parent, guard).run(sockets, leash=parent.leash)
        except Exception as exc:  # noqa: BLE001 - the last place in a worker, as in the parent
            return report(exc)

    return workers.Supervisor(values["workers"], work, notifier).run(
        workers.bind(places, inherited, values["workers"])
    )


def assign(sockets: Sequence[socket], places: Sequence[listeners.Listener]) -> list[list[socket]]:
    """Return the inherited sockets of each listener: those of its address, else of its port."""
    found: list[list[socket]] = [[] for _ in places]
    for bound in sockets:
        host, port = bound.getsockname()[:2]
        fitting = [n for n, place in enumerate(places) if place.port == port]
        index = next((n for n in fitting if places[n].host == host), next(iter(fitting), None))
        if index is None:
            raise ConfigurationError(
                f"the service manager opened port {port}, and no --listen has it: "
                "give both the same ports"
            )
        found[index].append(bound)
    return found


class ServerProcess:
    """One serving process, from its start to its end."""

    def __init__(
        self,
        app: CliContext,
        again: Callable[[], Mapping[str, Any]],
        notifier: Notifier | workers.Parent,
        guard: Guard,
    ) -> None:
        self.server = make_server(app, guard)
        self._app = app
        self._again = again
        self._notifier = notifier
        self._starting: asyncio.Task[None]
        self._stops: list[asyncio.Task[None]] = []

    def run(self, sockets: Sequence[Sequence[socket]], leash: int | None = None) -> int:
        """Serve on these sockets, or where there are none on the listeners' own.

        `leash`: a descriptor that reads as ended once the parent process is gone.
        """
        with asyncio.Runner(loop_factory=loop_factory(self._app.values["loop"])) as runner:
            runner.run(self._live(sockets, leash))
        return 0

    async def _live(self, sockets: Sequence[Sequence[socket]], leash: int | None) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(LoopErrors(self.server.log))
        drain = self._app.values["drain"]
        self._starting = loop.create_task(self.server.start(sockets))
        loop.add_signal_handler(signal.SIGTERM, self._end, drain)
        loop.add_signal_handler(signal.SIGINT, self._end, 0)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        if leash is not None:
            loop.add_reader(leash, self._orphaned, leash, drain)
        # A worker is born with its signals blocked, so that none comes before this.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, workers.SIGNALS)
        try:
            await self._starting
        except asyncio.CancelledError:
            return  # a signal ended it before it served
        # What was made until now stays: a full collection that walks over it holds up every
        # session, for longer than the listing of a large maildrop does.
        gc.collect()
        gc.freeze()
        self._notifier.ready(status=", ".join(self.server.addresses))
        if sys.stderr.isatty():
            self._greet()
        await self.server.serve_forever()

    def _end(self, grace: float) -> None:
        self._notifier.stopping()
        if not self._starting.done():
            self._starting.cancel()
            return
        if self._stops:  # the second signal: no more patience
            grace = 0
        self.server.log.info("server.stopping", sessions=len(self.server.sessions), grace=grace)
        self._stops.append(asyncio.get_running_loop().create_task(self.server.stop(grace)))

    def _orphaned(self, leash: int, drain: float) -> None:
        asyncio.get_running_loop().remove_reader(leash)
        self._end(drain)

    def _reload(self) -> None:
        if not self._starting.done():
            self._starting.add_done_callback(self._reload_after)
            return
        log = self.server.log
        self._notifier.reloading()
        try:
            values = self._again()
            self.server.reload(
                limits=options.limits(values), language_directories=values["language_dir"]
            )
        except ConfigurationError as exc:
            log.error("server.reload_failed", error=str(exc))
        else:
            before = self._app.values
            later = [name for name in values.keys() - RELOADABLE if values[name] != before[name]]
            log.info("server.reloaded", after_a_restart=sorted(later) or None)
        self._notifier.ready()

    def _reload_after(self, starting: asyncio.Task[None]) -> None:
        if not starting.cancelled() and starting.exception() is None:
            self._reload()

    def _greet(self) -> None:
        click.echo(
            f"pop3hub serves {self._app.backend.name} ({self._app.backend.origin}):", err=True
        )
        for opened in self.server.open_listeners:
            if opened.server is None:
                continue
            where = opened.config.url(opened.server.sockets[0].getsockname()[1])
            if opened.config.implicit_tls:
                how = "TLS"
            elif opened.starts_tls:
                how = "STLS"
            else:
                how = "cleartext" + (", this machine only" if opened.config.is_local else "")
            click.echo(f"  {where}  {how}", err=True)
        click.echo("Ctrl-C ends it.", err=True)


class LoopErrors:
    """The event loop's exception handler: logs all, but a lack of descriptors only now and then.

    asyncio tells of one about a hundred times in a burst, and again a second later.
    """

    def __init__(self, log: Any) -> None:
        self._log = log
        self._said = float("-inf")
        self._unsaid = 0

    def __call__(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log what the loop tells of."""
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in FULL):
            self._log.error("loop.error", message=context.get("message"), exc_info=error)
            return
        now = time.monotonic()
        if now - self._said < QUIET:
            self._unsaid += 1
            return
        self._log.error("connection.not_accepted", error=error.strerror, since_then=self._unsaid)
        self._said, self._unsaid = now, 0


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return how to make the event loop; None for asyncio's own."""
    if name == "asyncio":
        return None
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ImportError as exc:
        if name == "uvloop":
            raise ConfigurationError(
                "--loop uvloop: it is not installed, try: pip install 'pop3hub[speed]'"
            ) from exc
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
