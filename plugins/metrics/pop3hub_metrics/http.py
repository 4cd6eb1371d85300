"""As much of an HTTP server as metrics and health checks need: GET, one request per connection.

It runs in the event loop of the mail server, so an answer also shows that the loop is alive. It
reads only the head of a request, within limits of size, time and number.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Route = Callable[[Mapping[str, str]], Awaitable["Answer"]]
    """Takes the header fields of a request, by lower-case name."""

HEAD = 8 * 1024
"""Octets that the head of a request may have."""
PATIENCE = 10.0
"""Seconds for a request, from the connection to the last octet of the answer."""
CONNECTIONS = 32
"""Connections at once; more are closed without an answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, a body and its content type."""

    status: HTTPStatus
    body: bytes
    kind: str = "text/plain; charset=utf-8"


class HttpServer:
    """Answers GET and HEAD for a few paths, each within `patience` seconds."""

    def __init__(self, routes: Mapping[str, Route], *, patience: float = PATIENCE) -> None:
        self._routes = routes
        self._patience = patience
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("pop3hub.metrics")

    async def open(self, host: str, port: int, *, alone: bool) -> None:
        """Listen, on a port that other worker processes share; raise OSError.

        `alone` says that this is the only worker: then a port in use belongs to another program.
        """
        if alone:
            probe = await asyncio.start_server(self._accept, host, port)
            probe.close()
            await probe.wait_closed()
        self._server = await asyncio.start_server(
            self._accept, host, port, limit=HEAD, reuse_port=True
        )

    @property
    def port(self) -> int:
        """The port that it listens on; 0 while it does not."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server else 0

    async def close(self) -> None:
        """Stop listening, and drop requests in progress."""
        if self._server is None:
            return
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(TimeoutError, OSError, asyncio.IncompleteReadError):
                async with asyncio.timeout(self._patience):
                    writer.write(await self._reply(reader))
                    writer.close()
                    await writer.wait_closed()
        finally:
            writer.transport.abort()

    async def _reply(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.LimitOverrunError:
            return _reply(_plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
        request, *lines = head.split("\r\n")
        try:
            method, target, version = request.split(" ")
            path = urlsplit(target).path
        except ValueError:
            return _reply(_plain(HTTPStatus.BAD_REQUEST))
        if not version.startswith("HTTP/1."):
            return _reply(_plain(HTTPStatus.BAD_REQUEST))
        if method not in {"GET", "HEAD"}:
            return _reply(_plain(HTTPStatus.METHOD_NOT_ALLOWED), "Allow: GET, HEAD\r\n")
        route = self._routes.get(path)
        if route is None:
            return _reply(_plain(HTTPStatus.NOT_FOUND))
        fields = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        try:
            answer = await route(fields)
        except Exception:  # noqa: BLE001 - the client gets an answer, the log the reason
            self._log.exception("metrics.failed", path=path)
            answer = _plain(HTTPStatus.INTERNAL_SERVER_ERROR)
        return _reply(answer, with_body=method == "GET")


def _plain(status: HTTPStatus) -> Answer:
    return Answer(status, f"{status.phrase}\n".encode())


def _reply(answer: Answer, fields: str = "", *, with_body: bool = True) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
        f"Content-Type: {answer.kind}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        f"Cache-Control: no-store\r\n{fields}Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + (answer.body if with_body else b"")
