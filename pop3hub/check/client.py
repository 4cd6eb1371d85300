"""A blocking POP3 client that corrects nothing: octets as they came (RFC 1939, RFC 2449).

It judges no server. It keeps what was said in a log, for the checks that look at every reply.
Python's poplib is of no use here: it strips line ends, un-stuffs and hides what is malformed.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_REPLY = 64 * 1024 * 1024  # octets; a server that sends more is out of control
_CHUNK = 65536

_CODE = re.compile(rb"(?:\+OK|-ERR) \[([^\]\r\n]*)\]", re.IGNORECASE)


class Unreachable(Exception):
    """No POP3 session could be opened: no connection, no TLS, no greeting in time."""


class NoReply(Exception):
    """A reply did not come whole: it took too long, or the connection was closed."""

    def __init__(self, reason: str, *, sent: bytes, received: bytes, closed: bool = False) -> None:
        super().__init__(reason)
        self.closed = closed
        self.sent = sent
        self.received = received


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One reply: its first line and the lines of its body, each with the line end that it had.

    `lines` are still dot-stuffed and have no termination line; None after a single-line reply.
    """

    sent: bytes
    line: bytes
    lines: tuple[bytes, ...] | None = None

    @property
    def ok(self) -> bool:
        """Whether the status is positive, in upper or lower case."""
        return self.line[:3].upper() == b"+OK"

    @property
    def err(self) -> bool:
        """Whether the status is negative, in upper or lower case."""
        return self.line[:4].upper() == b"-ERR"

    @property
    def text(self) -> bytes:
        """What follows the status indicator and its space."""
        return self.line.rstrip(b"\r\n").partition(b" ")[2]

    @property
    def code(self) -> bytes | None:
        """The extended response code in upper case, without brackets (RFC 2449 s8)."""
        found = _CODE.match(self.line)
        return found[1].upper() if found else None

    @property
    def body(self) -> list[bytes]:
        """The body's lines without line ends, un-stuffed."""
        lines = (line.rstrip(b"\r\n") for line in self.lines or ())
        return [line[1:] if line.startswith(b".") else line for line in lines]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What the log keeps: of a message only the lines that lack CRLF, of a listing all.

    `negotiated`: UTF-8 was asked for by LANG or UTF8 before this reply (RFC 6856).
    """

    sent: bytes
    line: bytes
    lines: tuple[bytes, ...] = ()
    negotiated: bool = False


class Client:
    """One connection. Not connected until `open`; every wait is bounded by `timeout` seconds.

    A multi-line reply may take ten times as long. `log` is the caller's and is only added to.
    """

    def __init__(
        self, host: str, port: int, *, timeout: float, context: ssl.SSLContext, log: list[Exchange]
    ) -> None:
        self.host = host
        self.port = port
        self.timeout = timeout
        self.context = context
        self.log = log
        self.greeting = b""
        self.encrypted = False
        self.closed = False
        self.negotiated = False
        self.sent = b""
        self._buffer = bytearray()
        self._socket: socket.socket | None = None

    def open(self, *, tls: bool) -> None:
        """Connect, do the TLS handshake if asked for, and read the greeting."""
        self.connect()
        self.greet(tls=tls)

    def connect(self) -> None:
        """Connect, and read nothing yet."""
        try:
            self._socket = socket.create_connection((self.host, self.port), self.timeout)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as exc:
            self.close()
            raise Unreachable(str(exc)) from exc

    def greet(self, *, tls: bool) -> None:
        """Do the TLS handshake if asked for, and read the greeting."""
        try:
            if tls:
                self.handshake()
            self.greeting = self.read_line()
        except NoReply as exc:
            self.close()
            raise Unreachable(f"no greeting: {exc}") from exc
        except OSError as exc:
            self.close()
            raise Unreachable(str(exc)) from exc
        self.log.append(Exchange(sent=b"", line=self.greeting))

    def handshake(self) -> None:
        """Start TLS on the open connection; what was received before is dropped."""
        assert self._socket is not None  # noqa: S101  # a programmer's mistake
        self._buffer.clear()
        self._socket = self.context.wrap_socket(self._socket, server_hostname=self.host)
        self.encrypted = True

    def send(self, octets: bytes, *, shown: bytes | None = None) -> None:
        """Write octets; reports have `shown` instead when they hold a secret."""
        self.sent = octets if shown is None else shown
        if self._socket is None:
            raise NoReply("the connection is closed", sent=self.sent, received=b"", closed=True)
        try:
            self._socket.sendall(octets)
        except OSError as exc:
            # The server may have answered before it closed: reading decides what is reported.
            if isinstance(exc, TimeoutError):
                raise NoReply("the server reads no more", sent=self.sent, received=b"") from exc

    def pour(self, chunk: bytes, limit: int) -> tuple[int, str]:
        """Send `chunk` again and again until something happens; return how many octets, and what.

        What: "answered" (then `read_reply`), "closed", "not read any further" (nothing was taken
        for `timeout` seconds), "slow" (ten times as long was too short for it), or "taken": all
        `limit` octets.
        """
        assert self._socket is not None  # noqa: S101  # a programmer's mistake
        deadline = time.monotonic() + 10 * self.timeout
        total = 0
        while total < limit:
            if time.monotonic() > deadline:
                return total, "slow"
            try:
                self._socket.sendall(chunk)
            except TimeoutError:
                return total, self._arrived() or "not read any further"
            except OSError:
                return total, self._arrived() or "closed"
            total += len(chunk)
            if happened := self._arrived():
                return total, happened
        # What is in the sockets' buffers may still have to reach the server, and its answer us.
        with contextlib.suppress(NoReply):
            more = self._receive(time.monotonic() + self.timeout)
            self._buffer += more
            return total, "answered" if more else "closed"
        return total, "taken"

    def read_line(self, deadline: float | None = None) -> bytes:
        """Return octets to and with the next LF."""
        deadline = time.monotonic() + self.timeout if deadline is None else deadline
        start = 0
        while (end := self._buffer.find(b"\n", start)) < 0:
            start = len(self._buffer)
            chunk = self._receive(deadline)
            if not chunk:
                raise self._missing("the connection was closed", closed=True)
            if start > MAX_REPLY:
                raise self._missing("the line has no end")
            self._buffer += chunk
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        return line

    def read_reply(self, *, multi: bool = False, sent: bytes | None = None) -> Reply:
        """Read one reply; its body too if `multi` and the status is positive."""
        sent = self.sent if sent is None else sent
        line = self.read_line()
        reply = Reply(sent=sent, line=line)
        if multi and reply.ok:
            reply = Reply(sent=sent, line=line, lines=tuple(self._read_body(line)))
        self._keep(reply)
        return reply

    def ask(self, command: str | bytes, *, multi: bool = False, shown: str | None = None) -> Reply:
        """Send one command and read its reply."""
        octets = command.encode() if isinstance(command, str) else command
        self.send(octets + b"\r\n", shown=None if shown is None else shown.encode() + b"\r\n")
        return self.read_reply(multi=multi)

    def say(self, command: str) -> Reply:
        """Ask a command, and keep the reply out of the log: it may be something else."""
        self.send(command.encode() + b"\r\n")
        return Reply(sent=self.sent, line=self.read_line())

    def lost(self) -> bool:
        """Tell without waiting whether the server closed the connection."""
        return self._socket is None or self._arrived() == "closed"

    def read_to_end(self) -> bytes:
        """Return all that comes until the server closes the connection."""
        deadline = time.monotonic() + self.timeout
        while chunk := self._receive(deadline):
            self._buffer += chunk
            if len(self._buffer) > MAX_REPLY:
                raise self._missing("the reply has no end")
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def close(self) -> None:
        """Close the connection at once, with no QUIT: a server then deletes nothing."""
        self.closed = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None

    def _read_body(self, status: bytes) -> Iterable[bytes]:
        deadline = time.monotonic() + 10 * self.timeout
        # A server that ends its lines with a bare LF is reported for that, not waited for.
        last = {b".\r\n"} if status.endswith(b"\r\n") else {b".\r\n", b".\n"}
        octets = 0
        while (line := self.read_line(deadline)) not in last:
            octets += len(line)
            if octets > MAX_REPLY:
                raise self._missing("the reply has no end")
            yield line

    def _arrived(self) -> str:
        """Say without waiting whether octets came or the connection was closed."""
        assert self._socket is not None  # noqa: S101  # a programmer's mistake
        try:
            self._socket.settimeout(0)
            more = self._socket.recv(_CHUNK)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return ""
        except OSError:
            return "closed"
        finally:
            self._socket.settimeout(self.timeout)
        self._buffer += more
        return "answered" if more else "closed"

    def _receive(self, deadline: float) -> bytes:
        if self._socket is None:
            return b""
        left = deadline - time.monotonic()
        if left <= 0:
            raise self._missing(f"nothing more within {self.timeout:g} s")
        try:
            self._socket.settimeout(left)
            return self._socket.recv(_CHUNK)
        except TimeoutError:
            raise self._missing(f"nothing more within {self.timeout:g} s") from None
        except OSError:
            return b""
        finally:
            self._socket.settimeout(self.timeout)

    def _missing(self, reason: str, *, closed: bool = False) -> NoReply:
        received = bytes(self._buffer[:1000])
        return NoReply(reason, sent=self.sent, received=received, closed=closed)

    def _keep(self, reply: Reply) -> None:
        verb = reply.sent[:4].upper()
        lines = reply.lines or ()
        if verb in {b"RETR", b"TOP "}:
            lines = tuple(line for line in lines if not line.endswith(b"\r\n"))[:1]
        if reply.ok and (verb == b"UTF8" or reply.sent.upper().startswith(b"LANG ")):
            self.negotiated = True
        self.log.append(
            Exchange(sent=reply.sent, line=reply.line, lines=lines, negotiated=self.negotiated)
        )
