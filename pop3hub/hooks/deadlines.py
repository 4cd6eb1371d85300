"""A limit in time for many short waits at once, at the price of one timer a second."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable


class Deadlines:
    """A limit for many short waits at once: one timer a second, and a dictionary entry a wait.

    `asyncio.timeout` makes a timer for each wait, which costs more than most of the waits do.
    """

    def __init__(self) -> None:
        self._deadlines: dict[asyncio.Task[Any], float] = {}
        self._expired: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def limit(self, awaitable: Awaitable[Any], seconds: float) -> Any:
        """Return what the awaitable comes to; TimeoutError after about so many seconds."""
        task = asyncio.current_task()
        if task is None or task in self._deadlines:  # a hook within a hook: the outer limit holds
            return await awaitable
        loop = task.get_loop()
        self._deadlines[task] = loop.time() + seconds
        if self._timer is None:
            self._timer = loop.call_later(min(1.0, seconds), self._check, loop, seconds)
        try:
            return await awaitable
        except asyncio.CancelledError:
            if task in self._expired:
                self._expired.discard(task)
                if task.uncancel() <= 0:
                    raise TimeoutError from None
            raise
        finally:
            del self._deadlines[task]
            if task in self._expired:  # it came to its end although it was cancelled
                self._expired.discard(task)
                task.uncancel()

    def _check(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._timer = None
        now = loop.time()
        for task, deadline in self._deadlines.items():
            if deadline <= now and task not in self._expired:
                self._expired.add(task)
                task.cancel()
        if self._deadlines:
            self._timer = loop.call_later(min(1.0, seconds), self._check, loop, seconds)
