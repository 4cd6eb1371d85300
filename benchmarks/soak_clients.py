"""Clients of a soak: those that behave, and those that don't; and what each maildrop must hold.

What a server has acknowledged is noted; whoever looks into a maildrop later compares.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pop3hub.protocol.message import wire_form

if TYPE_CHECKING:
    import random
    import ssl
    from collections.abc import Awaitable, Callable

PASSWORD = "pw"
PATIENCE = 20.0
"""Seconds after which a server that says nothing is stuck."""
LOCK_PATIENCE = 20.0
"""Seconds after which a maildrop that nobody uses has to be free."""
KEPT = 12
"""Messages of a maildrop at which no more are delivered."""
TOO_SLOW = 6.0
"""Seconds that a client reads nothing for; more than the soak's --stall-timeout."""
LIMIT = 8 * 1024 * 1024
NO_LINGER = struct.pack("ii", 1, 0)
"""For SO_LINGER: the connection is reset, not closed in order."""


class Left(Exception):
    """The server closed the connection, or refused with [SYS/...]: nothing to object to."""


class Wrong(Exception):
    """The server did what it must not do."""


@dataclass(slots=True)
class Account:
    """A user, and what is known of the maildrop.

    kept: digests of the messages that must be there; unsure: of those whose removal was asked for
    and not answered; gone: those that must not come back.
    """

    name: str
    kept: dict[str, str] = field(default_factory=dict)
    unsure: dict[str, str] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def see(self, before: dict[str, str], uids: list[str]) -> None:
        """Compare with a listing; `before` is what was kept when it was asked for."""
        found = set(uids)
        if lost := before.keys() - found:
            raise Wrong(f"{self.name} lost {sorted(lost)}")
        if back := found & self.gone:
            raise Wrong(f"{self.name} has {sorted(back)} back")
        for uid in list(self.unsure):
            digest = self.unsure.pop(uid)
            if uid in found:
                self.kept[uid] = digest
            else:
                self.gone.add(uid)
        if strange := found - self.kept.keys():
            raise Wrong(f"{self.name} has {sorted(strange)}, which nobody delivered")


class Caller:
    """A connection, spoken to line by line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def call(cls, port: int, context: ssl.SSLContext | None = None, **more: int) -> Caller:
        """Connect; with a context, do a handshake."""
        async with asyncio.timeout(PATIENCE):
            made = socket.socket()
            made.setblocking(False)
            for option, value in more.items():
                made.setsockopt(socket.SOL_SOCKET, getattr(socket, option), value)
            try:
                await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", port))
                name = "localhost" if context else None
                streams = await asyncio.open_connection(
                    sock=made, ssl=context, server_hostname=name, limit=LIMIT
                )
            except BaseException:
                made.close()
                raise
        return cls(*streams)

    def send(self, octets: bytes) -> None:
        """Send octets."""
        self.writer.write(octets)

    async def line(self) -> bytes:
        """Return the next line; raise Left at the end of the connection."""
        async with asyncio.timeout(PATIENCE):
            line = await self.reader.readline()
        if not line.endswith(b"\n"):
            raise Left
        return line

    async def say(self, line: bytes) -> bytes:
        """Send a command; return the first line of its answer."""
        self.send(line + b"\r\n")
        return await self.line()

    async def many(self) -> bytes:
        """Return what follows a first line, without the dots that were added."""
        lines = []
        while (line := await self.line()) != b".\r\n":
            lines.append(line.removeprefix(b"."))
        return b"".join(lines)

    async def rest(self) -> bytes:
        """Return all that comes until the server closes."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()

    def reset(self) -> None:
        """Leave without a word: the peer gets an RST."""
        made = self.writer.get_extra_info("socket")
        if made is not None:  # the server was not quicker
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.writer.transport.abort()

    def close(self) -> None:
        """Leave."""
        self.writer.transport.abort()


def expect(reply: bytes) -> bytes:
    """Return a reply that is +OK; raise Left for one that a broken store excuses."""
    if reply.startswith(b"+OK"):
        return reply
    if reply.startswith((b"-ERR [SYS/", b"-ERR [IN-USE]")):
        raise Left
    raise Wrong(f"the server said {reply!r}")


@dataclass(slots=True)
class Clients:
    """All kinds of clients; each method is one, and does one session."""

    clear: int
    secure: int
    context: ssl.SSLContext
    dice: random.Random
    accounts: list[Account]

    async def _enter(self, account: Account, **more: int) -> Caller:
        """Log in, in clear, with STLS or over TLS, and compare the maildrop."""
        if self.dice.random() < 0.3:
            caller = await Caller.call(self.secure, self.context, **more)
        else:
            caller = await Caller.call(self.clear, **more)
        try:
            expect(await caller.line())
            if self.dice.random() < 0.1 and not caller.writer.get_extra_info("ssl_object"):
                expect(await caller.say(b"STLS"))
                async with asyncio.timeout(PATIENCE):
                    await caller.writer.start_tls(self.context, server_hostname="localhost")
            before = dict(account.kept)
            expect(await caller.say(b"USER " + account.name.encode()))
            expect(await caller.say(b"PASS " + PASSWORD.encode()))
            expect(await caller.say(b"UIDL"))
            listing = (await caller.many()).decode().splitlines()
            account.see(before, [line.split()[1] for line in listing])
        except BaseException:
            caller.close()
            raise
        return caller

    async def _retrieve(self, caller: Caller, account: Account, number: int) -> str:
        """Retrieve a message and compare it; return its unique-id."""
        uid = expect(await caller.say(b"UIDL %d" % number)).split()[2].decode()
        expect(await caller.say(b"RETR %d" % number))
        digest = hashlib.sha256(await caller.many()).hexdigest()
        if digest != account.kept[uid]:
            raise Wrong(f"{account.name} has another {uid} than was delivered")
        return uid

    async def _deleting(self, account: Account, end: Callable[[Caller], Awaitable[bool]]) -> None:
        """Log in, retrieve and delete some, and end; `end` returns whether the removal is sure.

        Raises Left where it is unsure.
        """
        async with account.turn:
            caller = await self._enter(account)
            try:
                count = int(expect(await caller.say(b"STAT")).split()[1])
                marked = []
                for number in range(1, count + 1):
                    if self.dice.random() < 0.5:
                        uid = await self._retrieve(caller, account, number)
                        expect(await caller.say(b"DELE %d" % number))
                        marked.append(uid)
                for uid in marked:
                    account.unsure[uid] = account.kept.pop(uid)
                if await end(caller):
                    account.unsure.clear()
                    account.gone.update(marked)
            finally:
                caller.close()

    async def reader(self, account: Account) -> None:
        """Retrieve, delete, and say QUIT."""

        async def end(caller: Caller) -> bool:
            return (await caller.say(b"QUIT")).startswith(b"+OK")

        await self._deleting(account, end)

    async def leaver(self, account: Account) -> None:
        """Say QUIT and not wait for the answer."""

        async def end(caller: Caller) -> bool:
            caller.send(b"QUIT\r\n")
            await asyncio.sleep(self.dice.random() / 200)
            caller.reset()
            return False

        await self._deleting(account, end)

    async def dropper(self, account: Account) -> None:
        """Delete and be gone, which removes nothing."""
        async with account.turn:
            caller = await self._enter(account)
            try:
                for number in (1, 2, 3):
                    await caller.say(b"DELE %d" % number)
            finally:
                (caller.reset if self.dice.random() < 0.5 else caller.close)()

    async def sluggard(self, account: Account) -> None:
        """Read slowly, or stop reading."""
        async with account.turn:
            caller = await self._enter(account, SO_RCVBUF=4096)
            try:
                if not account.kept:
                    return
                caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
                caller.send(b"RETR 1\r\n" * 40)
                await asyncio.sleep(self.dice.choice((0.2, 1.0, TOO_SLOW)))
                caller.writer.transport.resume_reading()  # type: ignore[attr-defined]
                for _ in range(40):
                    expect(await caller.line())
                    await caller.many()
                    await asyncio.sleep(0.01)
            finally:
                caller.close()

    async def half_closer(self, _account: Account) -> None:
        """Ask, stop sending, and want the answers all the same."""
        caller = await Caller.call(self.clear)
        try:
            expect(await caller.line())
            caller.send(b"CAPA\r\nLANG\r\nNOOP\r\n" + b"USER x\r\n" * 9)
            caller.writer.write_eof()
            said = await caller.rest()
            answers = len(re.findall(rb"^(?:\+OK|-ERR) ", said, re.MULTILINE))
            if said and b"[SYS/" not in said and answers != 3 + 9:
                raise Wrong(f"{answers} answers to who closes one half: {said[-300:]!r}")
        finally:
            caller.close()

    async def babbler(self, _account: Account) -> None:
        """Send what is no POP3."""
        caller = await Caller.call(self.clear)
        kind = self.dice.randrange(5)
        try:
            if kind == 0:
                caller.send(self.dice.randbytes(4000))
            elif kind == 1:
                caller.send(b"A" * 300_000)  # a line that never ends
            elif kind == 2:
                caller.send(b"\x16\x03\x01\x02\x00" + self.dice.randbytes(512))
            elif kind == 3:
                caller.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 30)
            else:
                caller.send(b"AUTH PLAIN\r\n" + b"=" * 200_000 + b"\r\n" + b"\0\r\n" * 50)
            caller.send(b"QUIT\r\n")
            await caller.rest()
        finally:
            caller.close()

    async def intruder(self, account: Account) -> None:
        """Guess a password, and find the connection closed in the end."""
        caller = await Caller.call(self.clear)
        try:
            expect(await caller.line())
            failed = 0
            while failed < 4:
                expect(await caller.say(b"USER " + account.name.encode()))
                said = await caller.say(b"PASS wrong")
                failed += said.startswith(b"-ERR [AUTH]")
                if said.startswith(b"+OK"):
                    raise Wrong("a wrong password was taken")
            raise Wrong(f"{failed} failed logins, and no end")
        finally:
            caller.close()

    async def tls_breaker(self, _account: Account) -> None:
        """Begin a handshake and spoil it, on either port."""
        if self.dice.random() < 0.5:
            caller = await Caller.call(self.secure)
        else:
            caller = await Caller.call(self.clear)
            expect(await caller.line())
            expect(await caller.say(b"STLS"))
        try:
            match self.dice.randrange(4):
                case 0:
                    caller.send(self.dice.randbytes(600))
                    await caller.rest()
                case 1:
                    caller.send(b"\x16\x03\x01\x00\xf0\x01\x00")  # a ClientHello that stops
                    await caller.rest()
                case 2:
                    caller.reset()
                case _:
                    caller.writer.write_eof()
                    await caller.rest()
        finally:
            caller.close()

    async def injector(self, _account: Account) -> None:
        """Put a command behind STLS, which must not run."""
        caller = await Caller.call(self.clear)
        try:
            expect(await caller.line())
            caller.send(b"STLS\r\nUSER evil\r\n")
            expect(await caller.line())
            async with asyncio.timeout(PATIENCE):
                await caller.writer.start_tls(self.context, server_hostname="localhost")
            if b"+OK" in await caller.say(b"PASS evil"):
                raise Wrong("what was injected behind STLS has run")
        finally:
            caller.close()

    async def sleeper(self, _account: Account) -> None:
        """Say nothing until the server ends it."""
        caller = await Caller.call(self.clear)
        try:
            await caller.rest()
        finally:
            caller.close()

    @property
    def kinds(self) -> list[Callable[[Account], Awaitable[None]]]:
        """The clients, the likely ones several times."""
        return [
            *[self.reader] * 6,
            *[self.leaver, self.dropper] * 2,
            *(self.sluggard, self.half_closer, self.babbler, self.intruder),
            *(self.tls_breaker, self.injector, self.sleeper),
        ]

    async def look(self, account: Account) -> None:
        """Look into a maildrop when all is quiet: it is free, whole, and holds what it must."""
        async with account.turn, asyncio.timeout(LOCK_PATIENCE):
            while True:
                try:
                    caller = await self._enter(account)
                except Left:
                    await asyncio.sleep(0.1)
                    continue
                break
            for number in range(1, len(account.kept) + 1):
                await self._retrieve(caller, account, number)
            expect(await caller.say(b"QUIT"))
            caller.close()


def new_message(dice: random.Random) -> tuple[bytes, str]:
    """Return a message and the digest of what RETR has to send."""
    lines = [b"Subject: %d" % dice.randrange(10**9), b""]
    size = dice.choice((100, 1000, 10_000, 100_000))
    while size > 0:
        line = dice.choice((b".", b"..", b"From x", b"", b".x")) + b"y" * dice.randrange(100)
        lines.append(line)
        size -= len(line) + 1
    contents = dice.choice((b"\n", b"\r\n")).join(lines)
    return contents, hashlib.sha256(wire_form(contents)).hexdigest()


def flood(port: int, count: int) -> list[socket.socket]:
    """Open so many connections, and leave them so."""
    found = []
    for _ in range(count):
        made = socket.socket()
        made.setblocking(False)
        made.connect_ex(("127.0.0.1", port))
        found.append(made)
    return found


def file_limit(number: int) -> Callable[[], None]:
    """Return what leaves a child process so many descriptors."""

    def limit() -> None:
        import resource  # noqa: PLC0415 - in the child alone

        resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))

    return limit


def descriptors(pid: int) -> int:
    """Count a process's descriptors."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def memory(pid: int) -> int:
    """Return a process's resident memory in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
