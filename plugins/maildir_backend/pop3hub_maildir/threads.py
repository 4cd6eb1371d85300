"""Threads for what waits for a disk, which neither shutdown nor other users' mail waits for.

A file system can hang for ever: NFS whose server is gone, FUSE. Such a call can't be ended, only
left alone. So each call has a limit, a Maildir keeps one thread at most, a thread that hangs is
replaced, and all of them are daemons: a process can end while one hangs.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from pop3hub import TemporaryFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    T = TypeVar("T")

THREADS = 4
"""Threads that work at the same time, those that hang not counted."""
MOST = 64
"""Threads with those that hang; once so many hang, nothing more is read."""
HANGING = 5.0
"""Seconds after which a thread counts as one that hangs, until it comes back."""
LIMIT = 20.0
"""Seconds that a call may take, its wait for a thread included; less than a hook may."""
CLOSING = 3.0
"""Seconds that calls have to end in at shutdown."""
CHECK = 1.0
"""Seconds between two looks for threads that hang."""

_Job = tuple["Future[Any]", "Callable[..., Any]", tuple[Any, ...]]


class FileThreads:
    """The threads of one event loop; they start when they are needed."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._mutex = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._busy: dict[threading.Thread, float] = {}
        self._ending: dict[Hashable, asyncio.Future[None]] = {}
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._log = structlog.get_logger("pop3hub.maildir")

    async def run(self, key: Hashable, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in a thread, and return what it returns.

        Calls of one key, which is a Maildir, are made one after the other. Raises TemporaryFailure
        after `LIMIT`; the function goes on, and the key waits for it.
        """
        try:
            async with asyncio.timeout(LIMIT):
                while (ending := self._ending.get(key)) is not None:
                    await asyncio.wait([ending])
                return await self._run(key, function, *arguments)
        except TimeoutError as exc:
            self._log.error("maildir.hangs", maildir=str(key), seconds=LIMIT)
            raise TemporaryFailure from exc

    async def _run(self, key: Hashable, function: Callable[..., T], *arguments: Any) -> T:
        job = self.submit(function, *arguments)
        ending = self._ending[key] = self._loop.create_future()

        def end(_: Future[T]) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._ended, key, ending)

        job.add_done_callback(end)
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            job.cancel()  # only if it has not begun
            raise
        return job.result()

    def _ended(self, key: Hashable, ending: asyncio.Future[None]) -> None:
        if self._ending.get(key) is ending:
            del self._ending[key]
        if not ending.done():
            ending.set_result(None)

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call a function in a thread; the caller bounds its own wait."""
        if self._closed:
            raise TemporaryFailure
        future: Future[T] = Future()
        self._jobs.put((future, function, arguments))
        self._grow()
        if self._timer is None:
            self._timer = self._loop.call_later(CHECK, self._check)
        return future

    def _grow(self) -> None:
        """Start a thread if there is work, none is idle, and too few are at work."""
        with self._mutex:
            total = len(self._threads)
            idle = total - len(self._busy)
            if self._jobs.qsize() <= idle or total >= MOST or total - self._hanging() >= THREADS:
                return
            thread = threading.Thread(target=self._work, name="pop3hub-maildir", daemon=True)
            self._threads.add(thread)
        thread.start()

    def _hanging(self) -> int:
        now = time.monotonic()
        return sum(now - began > HANGING for began in self._busy.values())

    def _check(self) -> None:
        self._timer = None
        if self._busy or not self._jobs.empty():
            self._grow()
            self._timer = self._loop.call_later(CHECK, self._check)

    def _work(self) -> None:
        me = threading.current_thread()
        while (job := self._jobs.get()) is not None:
            future, function, arguments = job
            if not future.set_running_or_notify_cancel():
                continue
            with self._mutex:
                self._busy[me] = time.monotonic()
            outcome: Any = None
            failure: BaseException | None = None
            try:
                outcome = function(*arguments)
            except BaseException as exc:  # noqa: BLE001 - it is the caller's
                failure = exc
            with self._mutex:
                del self._busy[me]
                surplus = len(self._threads) - self._hanging() > THREADS
                if surplus:
                    self._threads.discard(me)
            if failure is None:
                future.set_result(outcome)
            else:
                future.set_exception(failure)
            del job, future, function, arguments, outcome, failure
            if surplus:
                return

    async def close(self) -> None:
        """Let the threads finish what they are at; leave those alone that hang."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for _ in range(len(self._threads)):
            self._jobs.put(None)
        end = self._loop.time() + CLOSING
        while any(thread.is_alive() for thread in list(self._threads)):
            if self._loop.time() > end:
                self._log.error("maildir.hangs", threads=len(self._busy))
                return
            await asyncio.sleep(0.005)
