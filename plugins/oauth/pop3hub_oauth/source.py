"""Where an issuer's key set comes from: a file, or a URL.

Every read is bounded in time and in octets, whatever the file is and however the issuer behaves.
Nothing here knows a key.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import ipaddress
import os
import stat
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pop3hub import ConfigurationError

if TYPE_CHECKING:
    import socket

FETCH_TIME = 10.0
"""Seconds that one fetch may take in all, from the name's resolution to the last octet."""
MAX_DOCUMENT = 1024 * 1024
"""Octets of a key set."""


def is_url(source: str) -> bool:
    """Return whether the source is a URL, not the path of a file.

    Raises ConfigurationError for a URL whose answer others could change on its way.
    """
    if "://" not in source:
        return False
    parts = urllib.parse.urlsplit(source)
    host = parts.hostname or ""
    local = host == "localhost"
    with suppress(ValueError):
        local = local or ipaddress.ip_address(host).is_loopback
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise ConfigurationError(f"a key set must come from a file or an https URL, not {source}")
    return True


def file_stamp(path: str) -> tuple[int, ...] | None:
    """Return what changes when the file does, None if there is no file."""
    try:
        facts = Path(path).stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size, facts.st_ino


def read_file(path: str) -> bytes:
    """Return the contents of a regular file. Raises OSError, and ValueError for a long one."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO can't block it
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        return _bounded(file.read(MAX_DOCUMENT + 1))


async def fetch(url: str, limit: float = FETCH_TIME) -> bytes:
    """Return the document at a URL, within `limit` seconds.

    It runs in a daemon thread, since the resolver can't be interrupted: neither a login nor the end
    of the process waits for it. Raises OSError, ValueError or HTTPException.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[bytes] = loop.create_future()
    deadline = time.monotonic() + limit

    def settle(outcome: bytes | Exception) -> None:
        if result.done():
            return
        if isinstance(outcome, Exception):
            result.set_exception(outcome)
        else:
            result.set_result(outcome)

    def work() -> None:
        outcome: bytes | Exception
        try:
            outcome = _get(url, deadline)
        except Exception as exc:  # noqa: BLE001 - raised where it is awaited
            outcome = exc
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=work, name="pop3hub-oauth-fetch", daemon=True).start()
    try:
        async with asyncio.timeout(limit):
            return await result
    except OSError as exc:
        if time.monotonic() < deadline and not isinstance(exc, TimeoutError):
            raise
        raise TimeoutError(f"no complete answer within {limit:g} seconds") from None


def _get(url: str, deadline: float) -> bytes:
    # An issuer on this machine is not behind a proxy.
    proxies: dict[str, str] | None = {} if url.startswith("http:") else None
    opener = urllib.request.build_opener(
        _NoRedirects(), urllib.request.ProxyHandler(proxies), _Http(deadline), _Https(deadline)
    )
    try:
        with opener.open(url, timeout=deadline - time.monotonic()) as answer:
            return _bounded(answer.read(MAX_DOCUMENT + 1))
    except urllib.error.HTTPError as exc:
        exc.close()  # the error is the answer, and holds its socket
        raise


def _bounded(document: bytes) -> bytes:
    if len(document) > MAX_DOCUMENT:
        raise ValueError(f"it is longer than {MAX_DOCUMENT} octets")
    return document


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: it could leave https, or the issuer."""

    def redirect_request(self, *_: Any) -> None:
        """Let the redirection be an error."""


class _Http(urllib.request.HTTPHandler):
    """Makes connections whose answers end at a deadline."""

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Send the request; return the answer."""
        return self.do_open(_until(self._deadline, http.client.HTTPConnection), req)


class _Https(urllib.request.HTTPSHandler):
    """The same under TLS."""

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self._deadline = deadline

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Send the request; return the answer."""
        return self.do_open(_until(self._deadline, http.client.HTTPSConnection), req)


def _until(deadline: float, connection: type[http.client.HTTPConnection]) -> Any:
    """Return a function that makes connections of this class whose answers end at the deadline."""

    class Answer(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **more: Any) -> None:
            super().__init__(sock, *args, **more)
            self.fp = io.BufferedReader(_Ending(self.fp, sock, deadline))

    def make(host: str, **settings: Any) -> http.client.HTTPConnection:
        made = connection(host, **settings)
        made.response_class = Answer  # of a proxy's answer to CONNECT too
        return made

    return make


class _Ending(io.RawIOBase):
    """Octets from a socket up to a deadline. A socket's own timeout starts anew at each octet."""

    def __init__(self, octets: io.BufferedIOBase, sock: socket.socket, deadline: float) -> None:
        super().__init__()
        self._octets = octets
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what is there, and wait for it no longer than to the deadline."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer took too long")
        self._sock.settimeout(left)
        return self._octets.readinto1(buffer)

    def close(self) -> None:
        """Close the socket's file too: the last to hold the socket."""
        self._octets.close()
        super().close()
