"""Metrics and health checks over HTTP, for Prometheus and for load balancers.

An extension of pop3hub. It reads what the server counts anyway and implements no hook of a
session, so sessions cost nothing more with it.
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

from pop3hub import ConfigurationError, PluginFailure, PopError, hookimpl
from pop3hub_metrics import samples
from pop3hub_metrics.http import PATIENCE, Answer, HttpServer
from pop3hub_metrics.shared_memory import SharedMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pop3hub import Server
    from pop3hub_metrics.samples import Samples

__all__ = ["Metrics"]

TICK = 0.5
"""Seconds between two measurements; the counts of other processes are at most as old."""
READY_PATIENCE = 5.0
"""Seconds that plugins have to say whether they are ready."""


class Metrics:
    """The extension `metrics`: `--metrics HOST:PORT` serves /metrics, /healthz and /readyz.

    Make one instance for each server. Processes that are forked afterwards answer as one.
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
        self._shared = SharedMemory()
        self._address: tuple[str, int] | None = None
        self._server: Server | None = None
        self._inherited: Samples = {}
        self._lag = samples.Lag()
        self._expose: Callable[[Samples, str], tuple[bytes, str]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._http = HttpServer(
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
                help="Serve /metrics for Prometheus, /healthz and /readyz at this address, over "
                "HTTP without a password.",
            )
        ]

    @hookimpl
    def configure(self, options: Mapping[str, Any]) -> None:
        """Take the address to listen on; without one, do nothing."""
        given = options.get("metrics")
        self._address = parse(given) if given else None

    @hookimpl
    async def startup(self, server: Server | None) -> None:
        """Listen and begin to measure, unless this is a command that serves no mail."""
        if server is None or self._address is None:
            return
        if self._server is not None:
            raise ConfigurationError("one instance of Metrics can't serve two servers")
        from pop3hub_metrics.exposition import expose  # noqa: PLC0415 - commands needn't wait for it

        self._expose = expose
        host, port = self._address
        self._inherited = {}
        samples.add(self._inherited, self._shared.take(), gone=True)
        alone = not any(taken for _, taken in self._shared.others())
        try:
            await self._http.open(host, port, alone=alone)
        except OSError as exc:
            self._shared.leave()
            raise ConfigurationError(
                f"--metrics: can't listen on {host} port {port}: {exc.strerror or exc}"
            ) from exc
        self._server = server
        self._log.info("metrics.listening", url=self.url)
        if not _is_local(host):
            self._log.warning(
                "metrics.exposed",
                host=host,
                remedy="anyone who can connect can read them: keep the port behind a firewall",
            )
        self._measure(time.monotonic())

    @hookimpl
    async def shutdown(self) -> None:
        """Stop answering; leave the counts to the process that comes next."""
        if self._server is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        await self._http.close()
        self._shared.write(self._own(self._server))
        self._shared.leave()
        self._server = None

    @property
    def url(self) -> str:
        """The URL that it answers at, with the port that the system chose for port 0."""
        host = self._address[0] if self._address else ""
        return f"http://{f'[{host}]' if ':' in host else host}:{self._http.port}"

    def _measure(self, due: float) -> None:
        """Measure how late the loop is, and write the counts for the other processes."""
        assert self._server is not None  # noqa: S101 - the timer ends with the server
        now = time.monotonic()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._tick, self._measure, now + self._tick)
        self._lag.add(max(0.0, now - due))
        self._shared.write(self._own(self._server))

    def _own(self, server: Server) -> Samples:
        """Return the counts of this process, and those that it took over from one that ended."""
        own = samples.collect(server, self._lag)
        samples.add(own, self._inherited)
        return own

    # What is answered

    async def _metrics(self, fields: Mapping[str, str]) -> Answer:
        assert self._server is not None  # noqa: S101 - it listens between startup and shutdown
        total = self._own(self._server)
        for found, taken in self._shared.others():
            samples.add(total, found, gone=not taken)
        assert self._expose is not None  # noqa: S101 - the same
        return Answer(HTTPStatus.OK, *self._expose(total, fields.get("accept", "")))

    async def _healthz(self, _fields: Mapping[str, str]) -> Answer:
        return Answer(HTTPStatus.OK, b"ok\n")

    async def _readyz(self, _fields: Mapping[str, str]) -> Answer:
        assert self._server is not None  # noqa: S101 - it listens between startup and shutdown
        reason = await _why_not_ready(self._server, self._ready_patience)
        if reason:
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{reason}\n".encode())
        return Answer(HTTPStatus.OK, b"ok\n")


async def _why_not_ready(server: Server, patience: float) -> str:
    """Return why no login could be served now, in words that anyone may read; "" if one could.

    An exception's own text may hold a password, such as that of a database's URI: only the log
    has it.
    """
    if not server.is_accepting:
        return "the server accepts no connections: it is starting or stopping"
    try:
        async with asyncio.timeout(patience):
            await server.ready()
    except TimeoutError:
        return f"no answer within {patience:g} seconds"
    except PluginFailure as exc:
        return f"{exc}; see the log"
    except PopError as exc:
        return server.text(exc) + (f" [{exc.code}]" if exc.code else "")
    return ""


def parse(text: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`, IPv6 in brackets; raise ConfigurationError."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port is None or parts.netloc != text or parts.username is not None:
        raise ConfigurationError(f"--metrics {text}: it must be HOST:PORT, such as 127.0.0.1:9110")
    return host, port


def _check(_context: click.Context, _option: click.Parameter, given: str | None) -> str | None:
    if given:
        try:
            parse(given)
        except ConfigurationError as exc:
            raise click.BadParameter("it must be HOST:PORT, such as 127.0.0.1:9110.") from exc
    return given


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
