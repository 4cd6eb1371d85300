"""An extension of pop3hub that breaks what the backend does, and tells what the process holds.

It stands before the backend. Faults come while the file that POP3HUB_SOAK_FAULTS names is there;
SIGUSR1 asks for a census, a log line. Wall-clock time jumps for this process alone: monotonic time,
by which all limits go, can't.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import structlog

from pop3hub.errors import PermanentFailure, TemporaryFailure
from pop3hub.hooks.specs import hookimpl

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pop3hub import PopMessage, Server, Session

RATE = 0.04
"""How often a hook fails."""
HANG = 5.0
"""Seconds that a hook hangs for; more than the soak's --hook-timeout."""
JUMPS = (-86_400.0, -1.0, 0.0, 3_600.0, 400 * 86_400.0)
"""Seconds by which the wall clock is wrong, from one session to another."""


class Faults:
    """Fails, hangs, breaks streams off, aborts sessions and turns the clock."""

    def __init__(self) -> None:
        self._switch = os.environ["POP3HUB_SOAK_FAULTS"]
        self._dice = random.Random(os.environ["POP3HUB_SOAK_SEED"])  # noqa: S311 - repeatable
        self._log = structlog.get_logger("pop3hub.soak")
        self._offset = 0.0
        self._server: Any

    @property
    def on(self) -> bool:
        """Whether faults are wanted now."""
        return os.access(self._switch, os.F_OK)

    @hookimpl
    async def startup(self, server: Server) -> None:
        """Turn the clock from now on, and answer SIGUSR1."""
        self._server = server
        seconds, nanoseconds = time.time, time.time_ns
        time.time = lambda: seconds() + self._offset
        time.time_ns = lambda: nanoseconds() + int(self._offset * 1e9)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._census)

    def _census(self) -> None:
        gc.collect()
        self._log.warning(
            "soak.census",
            sessions=len(self._server.sessions),
            opening=len(self._server._server.state.opening),  # noqa: SLF001 - of no plugin's business
            tasks=len(asyncio.all_tasks()),
            threads=threading.active_count(),
            objects=len(gc.get_objects()),
        )

    async def _fail(self) -> None:
        """Raise what plugins raise, or hang, now and then."""
        if not self.on or self._dice.random() >= RATE:
            return
        match self._dice.randrange(5):
            case 0:
                raise TemporaryFailure
            case 1:
                raise PermanentFailure
            case 2:
                raise OSError("soak: the disk is gone")
            case 3:
                raise RuntimeError("soak: a defect of a plugin")
            case _:
                await asyncio.sleep(HANG)

    @hookimpl
    async def session_opened(self) -> None:
        """Turn the clock."""
        if self.on and self._dice.random() < RATE:
            self._offset = self._dice.choice(JUMPS)
        await self._fail()

    @hookimpl
    async def get_user(self) -> None:
        """Fail instead of the backend."""
        await self._fail()

    @hookimpl
    async def lock_maildrop(self) -> None:
        """Fail instead of the backend."""
        await self._fail()

    @hookimpl
    async def receive_messages(self) -> None:
        """Fail instead of the backend."""
        await self._fail()

    @hookimpl
    async def delete_messages(self) -> None:
        """Fail before the backend removes anything."""
        await self._fail()

    @hookimpl
    async def load_contents(self, message: PopMessage) -> AsyncIterator[bytes] | None:
        """Fail, or begin to send something and break off."""
        await self._fail()
        if self.on and self._dice.random() < RATE:
            return self._broken(message)
        return None

    async def _broken(self, message: PopMessage) -> AsyncIterator[bytes]:
        yield b"Subject: broken off\r\n\r\n" + b"x" * min(message.size, 100_000)
        await asyncio.sleep(0)
        raise OSError("soak: the disk is gone in the middle of a message")

    @hookimpl
    async def login_succeeded(self, session: Session) -> None:
        """End the session some time later, as a lock that lapses does."""
        if self.on and self._dice.random() < RATE:
            asyncio.get_running_loop().call_later(
                self._dice.random() / 10, session.abort, "soak: lease lost"
            )
        await self._fail()

    @hookimpl
    async def message_retrieved(self) -> None:
        """Fail where nobody is to hear of it."""
        await self._fail()

    @hookimpl
    async def session_closed(self) -> None:
        """Fail where nobody is to hear of it."""
        await self._fail()

    @hookimpl
    def capabilities(self) -> list[str]:
        """Fail in a hook that can't be awaited."""
        if self.on and self._dice.random() < RATE:
            raise KeyError("soak: a defect of a plugin")
        return []
