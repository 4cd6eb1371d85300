"""The client side: cheap enough that one processor keeps a server busy on another.

Octets are made before the clock runs. Long replies are counted, not read: how long one is was
learnt from asking once.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mail import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

LINE_END = b"\r\n"
LIST_END = b"\r\n.\r\n"
CHUNK = 256 * 1024
PATIENCE = 60.0
"""Seconds after which a server that says nothing fails the benchmark."""

Address = tuple[str, int]

_DROPPED = bytearray(CHUNK)  # where octets go that are counted only


def trusting() -> ssl.SSLContext:
    """Return a client's TLS context that takes any certificate and resumes no session."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Wire:
    """One connection that waits for each answer."""

    def __init__(self, address: Address, *, tls: bool = False) -> None:
        self._socket = socket.create_connection(address, PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self._socket = trusting().wrap_socket(self._socket)
        self.read(LINE_END)

    def read(self, end: bytes) -> bytes:
        """Return a reply, to its end; a negative one is an error."""
        reply = b""
        while not reply.endswith(end):
            data = self._socket.recv(CHUNK)
            if not data:
                raise ConnectionError(f"the server closed after {reply[:80]!r}")
            reply += data
            if reply.startswith(b"-"):
                raise ConnectionError(f"the server said {reply[:80]!r}")
        return reply

    def say(self, line: bytes, end: bytes = LINE_END) -> bytes:
        """Send a line and return its reply."""
        self._socket.sendall(line + LINE_END)
        return self.read(end)

    def log_in(self, user: str) -> None:
        """Go to TRANSACTION."""
        self.say(b"USER %b" % user.encode())
        self.say(b"PASS %b" % PASSWORD.encode())

    def count(self, octets: bytes, expected: int) -> None:
        """Send octets and read as many as the answers to them are known to have."""
        self._socket.sendall(octets)
        receive = self._socket.recv_into
        while expected > 0:
            got = receive(_DROPPED)
            if not got:
                raise ConnectionError(f"the server closed, {expected} octets too early")
            expected -= got
        assert expected == 0, "the server sent more than the first time"

    def drop(self, line: bytes) -> int:
        """Send a line and read its long reply without keeping it; return its octets."""
        self._socket.sendall(line + LINE_END)
        receive = self._socket.recv_into
        octets = 0
        tail = b""
        while tail != LIST_END:  # which stands nowhere else: dots are doubled
            got = receive(_DROPPED)
            if not got:
                raise ConnectionError(f"the server closed after {octets} octets")
            octets += got
            tail = (tail + _DROPPED[max(0, got - len(LIST_END)) : got])[-len(LIST_END) :]
        return octets

    def ask(self, line: bytes) -> None:
        """Send a line, and leave its reply unread."""
        self._socket.sendall(line + LINE_END)

    def quit(self) -> None:
        """Say QUIT and close."""
        self.say(b"QUIT")
        self._socket.close()

    def close(self) -> None:
        """Leave without a word."""
        self._socket.close()


def repeat(work: Callable[[], object], seconds: float) -> list[float]:
    """Do the work until the time is over; return how long each took, in seconds."""
    took: list[float] = []
    end = time.perf_counter() + seconds
    now = time.perf_counter()
    while not took or now < end:
        work()
        began, now = now, time.perf_counter()
        took.append(now - began)
    return took


@dataclass(slots=True)
class _Caller:
    socket: socket.socket
    user: str
    began: float
    step: int = -1
    reply: bytes = b""
    shaking: bool = False


class Poll:
    """Many polling sessions at once: connect, USER, PASS, STAT, UIDL, QUIT."""

    ENDS = (LINE_END, LINE_END, LINE_END, LINE_END, LIST_END, LINE_END)

    def __init__(self, address: Address, users: Iterable[str], *, tls: bool = False) -> None:
        self._address = address
        self._users = deque(users)
        self._tls = trusting() if tls else None
        self._epoll = select.epoll()
        self._callers: dict[int, _Caller] = {}
        self._requests = {user: self._lines_of(user) for user in self._users}
        self._took: list[float] = []

    def _lines_of(self, user: str) -> Sequence[bytes]:
        lines = (f"USER {user}", f"PASS {PASSWORD}", "STAT", "UIDL", "QUIT")
        return [line.encode() + LINE_END for line in lines]

    def run(self, at_once: int, seconds: float) -> list[float]:
        """Poll until the time is over; return the seconds of each session."""
        end = time.perf_counter() + seconds
        for _ in range(at_once):
            self._call()
        while self._callers:
            events = self._epoll.poll(PATIENCE)
            if not events:
                raise TimeoutError("the server fell silent")
            for descriptor, _ in events:
                caller = self._callers[descriptor]
                if self._go_on(caller):
                    self._took.append(time.perf_counter() - caller.began)
                    self._hang_up(caller)
                    if time.perf_counter() < end:
                        self._call()
        self._epoll.close()
        return self._took

    def _call(self) -> None:
        began = time.perf_counter()
        made = socket.create_connection(self._address, PATIENCE)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setblocking(False)
        caller = _Caller(made, self._users.popleft(), began)
        if self._tls is not None:
            caller.socket = self._tls.wrap_socket(made, do_handshake_on_connect=False)
            caller.shaking = True
            self._shake(caller)
        self._callers[caller.socket.fileno()] = caller
        self._epoll.register(caller.socket.fileno(), select.EPOLLIN)

    def _hang_up(self, caller: _Caller) -> None:
        self._epoll.unregister(caller.socket.fileno())
        del self._callers[caller.socket.fileno()]
        self._users.append(caller.user)
        caller.socket.close()

    def _shake(self, caller: _Caller) -> None:
        try:
            caller.socket.do_handshake()  # type: ignore[attr-defined] # an SSLSocket
        except ssl.SSLWantReadError:
            return
        caller.shaking = False

    def _go_on(self, caller: _Caller) -> bool:
        """Read what came, and ask the next thing; True when the last answer is there."""
        if caller.shaking:
            self._shake(caller)
            if caller.shaking:
                return False
        while True:
            try:
                data = caller.socket.recv(CHUNK)
            except (BlockingIOError, ssl.SSLWantReadError):
                return False
            if not data:
                raise ConnectionError(f"the server closed after {caller.reply[:80]!r}")
            reply = caller.reply + data
            if reply.endswith(self.ENDS[caller.step + 1]):
                if not reply.startswith(b"+OK"):
                    raise ConnectionError(f"the server said {reply[:80]!r}")
                caller.reply = b""
                caller.step += 1
                requests = self._requests[caller.user]
                if caller.step == len(requests):
                    return True
                caller.socket.send(requests[caller.step])
            else:
                caller.reply = reply
            if self._tls is None:
                return False
