"""The parent of --workers processes: it binds, hands over, watches and forwards signals.

One SO_REUSEPORT socket for each listener and worker, bound here and kept open: the connections that
wait in it outlive the worker's death and are served by the next one. The parent runs no event loop
and starts no thread, so that a fork of it is a clean beginning; it sleeps in `sigtimedwait`.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from pop3hub.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pop3hub.cli.systemd import Notifier
    from pop3hub.server.listeners import Listener

    Sockets = Sequence[Sequence[socket.socket]]
    """For each listener the sockets of one worker."""

READY = signal.SIGRTMIN
"""By which a worker tells its parent that it serves; real-time signals don't get lost."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
MIN_LIFE = 10.0
"""Seconds; a worker that ends sooner is started again with a pause before."""
MAX_PAUSE = 60.0
"""Seconds between two starts at most; the pause doubles from one second."""


def bind(listeners: Sequence[Listener], inherited: Sockets, count: int) -> list[Sockets]:
    """Return the sockets of each worker; inherited ones are shared by all.

    Raises ConfigurationError, also for a port that another program shares out in the same way.
    """
    shares: list[list[list[socket.socket]]] = [[] for _ in range(count)]
    for listener, given in zip(listeners, inherited, strict=True):
        opened = [list(given)] * count if given else _bind(listener, count)
        for share, sockets in zip(shares, opened, strict=True):
            share.append(sockets)
    return list(shares)


def _bind(listener: Listener, count: int) -> list[list[socket.socket]]:
    shares: list[list[socket.socket]] = [[] for _ in range(count)]
    try:
        places = socket.getaddrinfo(
            listener.host, listener.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, address in sorted({(place[0], place[4]) for place in places}):
            if address[1]:
                _bound(family, address, shared=False).close()
            for share in shares:
                bound = _bound(family, address, shared=True)
                address = (address[0], bound.getsockname()[1], *address[2:])  # noqa: PLW2901 - port 0 is any port, but one for all
                share.append(bound)
    except OSError as exc:
        raise ConfigurationError(
            f"can't listen on {listener.url()}: {exc.strerror or exc}"
        ) from exc
    return shares


def _bound(family: int, address: tuple[object, ...], *, shared: bool) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


@dataclass(frozen=True, slots=True)
class Parent:
    """What a worker knows of its parent; told as a service manager is (notify.py).

    leash: a pipe's end that reads as ended once the parent is gone.
    """

    pid: int
    leash: int

    def ready(self, status: str = "") -> None:  # noqa: ARG002 - the parent tells its own
        """Tell that this worker serves."""
        os.kill(self.pid, READY)

    def reloading(self) -> None:
        """Tell nothing: the parent had the signal first."""

    def stopping(self) -> None:
        """Tell nothing: the parent knows."""


@dataclass(slots=True)
class Worker:
    """One place for a worker: its process if it has one, else when the next one starts."""

    number: int
    sockets: Sockets
    pid: int = 0
    began: float = 0.0
    pause: float = 0.0
    due: float = 0.0
    is_ready: bool = False


class Supervisor:
    """Keeps `count` workers running until it is told to end.

    work: called in each worker with its sockets and its parent; returns the exit code.
    """

    def __init__(
        self, count: int, work: Callable[[Sockets, Parent], int], notifier: Notifier
    ) -> None:
        self._count = count
        self._work = work
        self._notifier = notifier
        self._workers: list[Worker] = []
        self._leash, self._held = os.pipe()
        self._ending = False
        self._reloads = False
        self._serves = False
        self._code = 0
        self.log = structlog.get_logger("pop3hub.workers")

    def run(self, shares: Sequence[Sockets]) -> int:
        """Start the workers and watch over them; return the exit code.

        The first one has to serve before the others start: what hinders it is said once.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, [*SIGNALS, READY])
        self._workers = [Worker(number, sockets) for number, sockets in enumerate(shares, 1)]
        self._start(self._workers[0])
        while any(worker.pid for worker in self._workers) or not self._ending:
            self._wait()
            self._reap()
            if not self._ending and self._serves:
                for worker in self._workers:
                    if not worker.pid and worker.due <= time.monotonic():
                        self._start(worker)
        return self._code

    def _wait(self) -> None:
        """Sleep until a signal comes or a worker is due, and act on the signal."""
        now = time.monotonic()
        waiting = [worker.due - now for worker in self._workers if not worker.pid]
        starts = self._serves and not self._ending
        pause = max(0.0, min(waiting, default=MAX_PAUSE)) if starts else MAX_PAUSE
        info = signal.sigtimedwait([*SIGNALS, READY], pause)
        if info is None:
            return
        if info.si_signo == READY:
            self._note_ready(info.si_pid)
        elif info.si_signo == signal.SIGHUP:
            self._reloads = True
            self._notifier.reloading()
            self._forward(signal.SIGHUP)
            self._notifier.ready()
        elif info.si_signo in {signal.SIGTERM, signal.SIGINT}:
            self._ending = True
            self._notifier.stopping()
            self._forward(info.si_signo)

    def _note_ready(self, pid: int) -> None:
        for worker in self._workers:
            if worker.pid == pid:
                worker.is_ready = True
                self.log.info("worker.ready", worker=worker.number, pid=pid)
        if not self._serves:
            self._serves = True
            self._notifier.ready(status=f"{self._count} workers")

    def _forward(self, number: int) -> None:
        for worker in self._workers:
            if worker.pid:
                os.kill(worker.pid, number)

    def _start(self, worker: Worker) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid:
            worker.pid, worker.began, worker.is_ready = pid, time.monotonic(), False
            return
        code = os.EX_SOFTWARE
        try:
            os.close(self._held)
            if self._reloads:  # what was read when the parent began is no longer true
                signal.raise_signal(signal.SIGHUP)
            code = self._work(worker.sockets, Parent(parent, self._leash))
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def _reap(self) -> None:
        for worker in self._workers:
            if not worker.pid:
                continue
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if not pid:
                continue
            worker.pid = 0
            code = os.waitstatus_to_exitcode(status)
            if self._ending:
                continue
            if not self._serves:  # it has said why
                self._ending, self._code = True, code if code > 0 else os.EX_SOFTWARE
                return
            self._put_off(worker, pid, code)

    def _put_off(self, worker: Worker, pid: int, code: int) -> None:
        now = time.monotonic()
        if now - worker.began >= MIN_LIFE:
            worker.pause = 0.0
        worker.due = now + worker.pause
        self.log.error(
            "worker.died", worker=worker.number, pid=pid, code=code, restart_in=worker.pause
        )
        worker.pause = min(MAX_PAUSE, max(1.0, worker.pause * 2))
