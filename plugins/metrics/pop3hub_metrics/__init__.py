"""Metrics and health checks over HTTP, for Prometheus and for whoever decides where to connect.

An extension of pop3hub. It reads what the server counts anyway (`PopServer.stats`,
`Plugins.calls`) and implements no hook of a session, so that sessions cost nothing more with it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
import structlog

from pop3hub.errors import ConfigurationError, PluginFailure, PopError
from pop3hub.hookspecs import hookimpl
from pop3hub_metrics import figures
from pop3hub_metrics.board import Board
from pop3hub_metrics.responder import PATIENCE, Answer, Responder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pop3hub.server import PopServer
    from pop3hub_metrics.figures import Samples

__all__ = ["Metrics"]

TICK = 0.5
"""Seconds between two looks at the clock; other processes' figures are as old at most."""
READY_PATIENCE = 5.0
"""Seconds after which a backend that doesn't answer isn't ready."""


class Metrics:
    """The extension `metrics`: `--metrics HOST:PORT` serves /metrics, /healthz and /readyz.

    One instance for one server. Processes that are forked after it was made answer as one.
    """

    def __init__(
        self,
        *,
        tick: float = TICK,
        ready_patience: float = READY_PATIENCE,
        patience: float = PATIENCE,
    ) -> None:
        """Take times in seconds: between two looks, for a backend to be ready, for a request."""
        self._tick = tick
        self._ready_patience = ready_patience
        self._board = Board()
        self._address: tuple[str, int] | None = None
        self._server: PopServer | None = None
        self._inherited: Samples = {}
        self._lag = figures.Lag()
        self._expose: Callable[[Samples, str], tuple[bytes, str]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._responder = Responder(
            {"/metrics": self._metrics, "/healthz": self._healthz, "/readyz": self._readyz},
            patience=patience,
        )
        self._log = structlog.get_logger("pop3hub.metrics")

    @hookimpl
    def register_options(self) -> list[click.Option]:
        """Offer --metrics."""
        return [
            click.Option(
                ["--metrics"],
                metavar="HOST:PORT",
                callback=_check,
                help="Serve /metrics for Prometheus, /healthz and /readyz over HTTP here. "
                "Whoever can connect can read them.",
            )
        ]

    @hookimpl
    def configure(self, options: Mapping[str, Any]) -> None:
        """Note where to listen; nowhere unless told."""
        given = options.get("metrics")
        self._address = parse(given) if given else None

    @hookimpl
    async def startup(self, server: PopServer | None) -> None:
        """Listen, and begin to look at the clock; a command that serves no mail has no metrics."""
        if server is None or self._address is None:
            return
        if self._server is not None:
            raise ConfigurationError("one instance of Metrics can't tell of two servers")
        from pop3hub_metrics.exposition import expose  # noqa: PLC0415 - commands needn't wait for it

        self._expose = expose
        host, port = self._address
        self._inherited = {}
        figures.add(self._inherited, self._board.take(), gone=True)
        alone = not any(taken for _, taken in self._board.others())
        try:
            await self._responder.open(host, port, alone=alone)
        except OSError as exc:
            self._board.leave()
            raise ConfigurationError(
                f"--metrics: can't listen on {host} port {port}: {exc.strerror or exc}"
            ) from exc
        self._server = server
        self._log.info("metrics.listening", url=self.url)
        if not _is_local(host):
            self._log.warning(
                "metrics.exposed",
                host=host,
                remedy="whoever can connect can read them: keep the port behind a firewall",
            )
        self._look(time.monotonic())

    @hookimpl
    async def shutdown(self) -> None:
        """Answer no more; leave what was counted to whoever comes next."""
        if self._server is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        await self._responder.close()
        self._board.write(self._own(self._server))
        self._board.leave()
        self._server = None

    @property
    def url(self) -> str:
        """Where it answers, with the port that it was given."""
        host = self._address[0] if self._address else ""
        return f"http://{f'[{host}]' if ':' in host else host}:{self._responder.port}"

    def _look(self, due: float) -> None:
        """See how late the loop is, and put down what was counted, for the other processes."""
        assert self._server is not None  # noqa: S101 - the timer ends with the server
        now = time.monotonic()
        self._timer = self._server.state.loop.call_later(self._tick, self._look, now + self._tick)
        self._lag.add(max(0.0, now - due))
        self._board.write(self._own(self._server))

    def _own(self, server: PopServer) -> Samples:
        """Return what this process has counted, and what it took over from one that is gone."""
        samples = figures.collect(server, self._lag)
        figures.add(samples, self._inherited)
        return samples

    # What is answered

    async def _metrics(self, fields: Mapping[str, str]) -> Answer:
        assert self._server is not None  # noqa: S101 - it listens between startup and shutdown
        samples = self._own(self._server)
        for found, taken in self._board.others():
            figures.add(samples, found, gone=not taken)
        assert self._expose is not None  # noqa: S101 - the same
        return Answer(HTTPStatus.OK, *self._expose(samples, fields.get("accept", "")))

    async def _healthz(self, _fields: Mapping[str, str]) -> Answer:
        return Answer(HTTPStatus.OK, b"ok\n")

    async def _readyz(self, _fields: Mapping[str, str]) -> Answer:
        assert self._server is not None  # noqa: S101 - it listens between startup and shutdown
        hindrance = await _hindrance(self._server, self._ready_patience)
        if hindrance:
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{hindrance}\n".encode())
        return Answer(HTTPStatus.OK, b"ok\n")


async def _hindrance(server: PopServer, patience: float) -> str:
    """Return why no login could be served now, in words that a client may read too; "" if none.

    An exception's own text can hold a password, of a database's URI for one: it is in the log.
    """
    if not server.is_accepting:
        return "the server takes no connections: it is starting or stopping"
    try:
        async with asyncio.timeout(patience):
            await server.plugins.ready()
    except TimeoutError:
        return f"no answer within {patience:g} seconds"
    except PluginFailure as exc:
        return f"{exc}: the log says why"
    except PopError as exc:
        text = server.context.catalogue.default.text(exc.text_id, ascii=True, **exc.fields)
        return text.decode() + (f" [{exc.code}]" if exc.code else "")
    return ""


def parse(text: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`, IPv6 in brackets; raise ConfigurationError."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port is None or parts.netloc != text or parts.username is not None:
        raise ConfigurationError(f"--metrics {text}: wanted is HOST:PORT, such as 127.0.0.1:9110")
    return host, port


def _check(_context: click.Context, _option: click.Parameter, given: str | None) -> str | None:
    if given:
        try:
            parse(given)
        except ConfigurationError as exc:
            raise click.BadParameter("wanted is HOST:PORT, such as 127.0.0.1:9110.") from exc
    return given


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
