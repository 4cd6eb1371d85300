"""Let hundreds of clients, good and bad, at a server whose store fails: what `make soak` runs.

pop3hub serves Maildirs as its own program; an extension (soak_faults.py) fails, hangs and turns the
clock, another program (soak_renames.py) marks mail as read in the Maildirs, descriptors run out,
the process is stopped for a while and reloaded. Between two quiet
moments tasks, threads, descriptors and memory must not have grown; after the last one every
maildrop is free and holds what was delivered, but for what was removed. Exit code 1 tells that not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import bcrypt
from soak_clients import (
    KEPT,
    PASSWORD,
    Account,
    Caller,
    Clients,
    Left,
    Wrong,
    descriptors,
    file_limit,
    flood,
    memory,
    new_message,
)

from pop3hub_maildir import MaildirBackend

FILES = 300
"""Descriptors that the server has."""
FLOOD = 400
"""Connections by which they run out."""
RECOVERY = 15.0
"""Seconds in which it has to serve again after that, and to be quiet after the last client."""
STOPPED = 4.0
"""Seconds for which the process is stopped; longer than its limits."""
LIMITS = {
    "login-timeout": 3,
    "idle-timeout": 4,
    "stall-timeout": 3,
    "handshake-timeout": 2,
    "hook-timeout": 2,
    "failure-delay": 0.2,
    "max-write-buffer": 65_536,
}
SLACK = {"memory": (1.15, 8 * 1024), "objects": (1.1, 500)}
"""How much more there may be, a factor and a sum: KiB of allocators, objects in caches."""
DISTRIBUTION = {
    "METADATA": "Metadata-Version: 2.1\nName: soak\nVersion: 1.0\n",
    "entry_points.txt": "[pop3hub.plugins]\nsoak = soak_faults:Faults\n",
}
NEVER = {"session.failed", "session.close_failed", "loop.error", "lock.release_failed"}
"""Events that tell of a defect of pop3hub's own."""


@dataclass(slots=True)
class Soak:
    """One run; `wrong` is what must not have been."""

    folder: Path
    loop: str
    seed: int
    at_once: int
    process: asyncio.subprocess.Process = field(init=False)
    clients: Clients = field(init=False)
    backend: MaildirBackend = field(default_factory=MaildirBackend)
    seen: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    census: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)
    listening: asyncio.Queue[int] = field(default_factory=asyncio.Queue)
    reading: asyncio.Task[None] = field(init=False)

    # The server

    async def start(self) -> None:
        """Make users, a certificate and the extension; start the server."""
        for name in ("mail", "site/soak-1.0.dist-info"):
            (self.folder / name).mkdir(parents=True)
        for name, text in DISTRIBUTION.items():
            (self.folder / "site/soak-1.0.dist-info" / name).write_text(text)
        accounts = [Account(f"user{n}") for n in range(self.at_once)]
        hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
        passwd = self.folder / "passwd"
        passwd.write_text("".join(f"{each.name}:{{BLF-CRYPT}}{hashed}\n" for each in accounts))
        options = {"maildir_path": f"{self.folder}/mail/{{user}}", "maildir_passwd": str(passwd)}
        self.backend.configure(options)
        await self.backend.startup(None)
        pair = self.folder / "pair.pem"
        make_pair(pair)
        words = ["--backend", "maildir", "--maildir", options["maildir_path"]]
        words += ["--maildir-passwd", str(passwd), "--loop", self.loop, "--log-format", "json"]
        words += ["--listen", f"pop3://127.0.0.1:0?cert={pair}", "--max-sessions", "10000"]
        words += ["--listen", f"pop3s://127.0.0.1:0?cert={pair}"]
        words += [word for name, value in LIMITS.items() for word in (f"--{name}", str(value))]
        here = Path(__file__).parent
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "pop3hub", *words),
            stderr=subprocess.PIPE,
            preexec_fn=file_limit(FILES),
            limit=1 << 20,
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join((str(self.folder / "site"), str(here), *sys.path)),
                "POP3HUB_SOAK_FAULTS": str(self.switch),
                "POP3HUB_SOAK_SEED": str(self.seed),
            },
        )
        self.reading = asyncio.create_task(self._read())
        ports = [await asyncio.wait_for(self.listening.get(), RECOVERY) for _ in range(2)]
        context = ssl.create_default_context(cafile=str(pair))
        dice = random.Random(self.seed)  # noqa: S311 - a seed makes a run repeatable
        self.clients = Clients(*ports, context, dice, accounts)

    @property
    def switch(self) -> Path:
        """The file whose presence turns faults on."""
        return self.folder / "faults"

    async def _read(self) -> None:
        """Read the log: count its events, and keep what tells of a defect."""
        assert self.process.stderr
        async for line in self.process.stderr:
            try:
                event = json.loads(line)
            except ValueError:
                self.wrong.append(f"not of the log: {line.decode(errors='replace').rstrip()}")
                continue
            name = event["event"]
            if name == "server.listening":
                self.listening.put_nowait(urlsplit(event["url"]).port or 0)
            elif name == "soak.census":
                self.census.put_nowait(event)
            elif name in NEVER or event.get("logger") == "asyncio":
                self.wrong.append(f"logged: {line.decode().rstrip()}")
            self.events[event.get("logger", name)] += 1

    async def count(self) -> dict[str, int]:
        """Wait until the server is quiet; return what it holds."""
        end = time.monotonic() + RECOVERY
        while True:
            self.process.send_signal(signal.SIGUSR1)
            found = await asyncio.wait_for(self.census.get(), RECOVERY)
            if found["sessions"] + found["opening"] == 0 or time.monotonic() > end:
                break
            await asyncio.sleep(0.2)
        names = ("sessions", "opening", "tasks", "threads", "objects")
        return {
            **{name: found[name] for name in names},
            "descriptors": descriptors(self.process.pid),
            "memory": memory(self.process.pid),
        }

    # The clients

    async def _deliver(self, account: Account) -> None:
        async with account.turn:
            if len(account.kept) + len(account.unsure) < KEPT:
                contents, digest = new_message(self.clients.dice)
                account.kept[await self.backend.store_message(account.name, contents)] = digest

    async def _one(self, account: Account, end: float) -> None:
        """Be one client after the other."""
        dice = self.clients.dice
        while time.monotonic() < end and not self.wrong:
            client = dice.choice(self.clients.kinds)
            name = client.__name__  # type: ignore[attr-defined]
            try:
                await self._deliver(account)
                await client(dice.choice(self.clients.accounts) if dice.random() < 0.2 else account)
                self.seen[name] += 1
            except (Left, OSError, asyncio.IncompleteReadError):
                self.seen[f"{name}, cut short"] += 1
            except TimeoutError:
                self.wrong.append(f"{name}: the server is stuck")
            except (Wrong, ValueError) as exc:
                self.wrong.append(f"{name}: {exc}")

    async def _disturb(self, end: float) -> None:
        """Take the descriptors, stop the process, reload it, in turns."""
        turn = 0
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 2.0))
            turn += 1
            if turn % 3 == 1:
                held = flood(self.clients.clear, FLOOD)
                await asyncio.sleep(1.0)
                for each in held:
                    each.close()
                await self._serves_again()
            elif turn % 3 == 2:
                self.process.send_signal(signal.SIGHUP)
            elif turn % 12 == 3:
                self.process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(STOPPED)
                self.process.send_signal(signal.SIGCONT)

    async def _serves_again(self) -> None:
        """Wait until a new client is greeted."""
        try:
            async with asyncio.timeout(RECOVERY):
                while True:
                    with suppress(Left, OSError):
                        caller = await Caller.call(self.clients.clear)
                        try:
                            await caller.line()
                        finally:
                            caller.close()
                        return
                    await asyncio.sleep(0.1)
        except TimeoutError:
            self.wrong.append("nobody is served after descriptors ran out")

    async def run(self, seconds: float) -> None:
        """Let the clients at the server for so long, and wait for quiet."""
        self.switch.touch()
        renames = Path(__file__).with_name("soak_renames.py")
        program = await asyncio.create_subprocess_exec(
            sys.executable, str(renames), str(self.folder / "mail")
        )
        end = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            group.create_task(self._disturb(end))
            for account in self.clients.accounts:
                group.create_task(self._one(account, end))
        if program.returncode is not None:
            self.wrong.append("the other program in the Maildirs has ended")
        with suppress(ProcessLookupError):
            program.kill()
        await program.wait()
        self.switch.unlink()

    async def look(self) -> None:
        """Look into every maildrop."""
        for account in self.clients.accounts:
            try:
                await self.clients.look(account)
            except TimeoutError:
                self.wrong.append(f"{account.name}: can't get in, the lock is held")
            except (Wrong, Left, OSError) as exc:
                self.wrong.append(f"{account.name}: {exc!r}")

    def look_at_files(self) -> None:
        """Compare each Maildir with what was acknowledged, as any other program finds it."""
        for account in self.clients.accounts:
            maildir = self.folder / "mail" / account.name
            found = Counter(
                path.name.partition(":")[0]
                for folder in ("cur", "new")
                for path in (maildir / folder).glob("*")
            )
            if back := found.keys() & account.gone:
                self.wrong.append(f"{account.name}: removed, and still there: {sorted(back)}")
            if lost := account.kept.keys() - found.keys():
                self.wrong.append(f"{account.name}: never removed, and gone: {sorted(lost)}")
            if twice := [base for base, files in found.items() if files > 1]:
                self.wrong.append(f"{account.name}: there twice: {sorted(twice)}")

    async def stop(self) -> None:
        """End the server; it has to end by itself."""
        with suppress(ProcessLookupError):
            self.process.terminate()
        try:
            code = await asyncio.wait_for(self.process.wait(), RECOVERY)
        except TimeoutError:
            self.process.kill()
            code = await self.process.wait()
        if code:
            self.wrong.append(f"the server ended with {code}")
        await self.reading
        await self.backend.shutdown(None)


def compare(before: dict[str, int], after: dict[str, int]) -> list[str]:
    """Return what has grown."""
    bounds = {name: float(number) for name, number in before.items()}
    for name, (factor, more) in SLACK.items():
        bounds[name] = before[name] * factor + more
    return [
        f"{name}: {before[name]} before, {after[name]} after"
        for name, bound in bounds.items()
        if after[name] > bound
    ]


def make_pair(path: Path) -> None:
    """Write a certificate for localhost with its key."""
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    words += ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext"]
    words += ["subjectAltName=DNS:localhost", "-keyout", str(path), "-out", f"{path}.cert"]
    subprocess.run(words, check=True, capture_output=True)
    cert = Path(f"{path}.cert")
    path.write_text(path.read_text() + cert.read_text())
    cert.unlink()


async def soak(seconds: float, at_once: int, loop: str, seed: int) -> list[str]:
    """Run it; return what was wrong."""
    with tempfile.TemporaryDirectory() as folder:
        run = Soak(Path(folder), loop, seed, at_once)
        await run.start()
        try:
            # The first part brings every thread, cache and lazy import that there will be.
            await run.run(seconds * 0.4)
            before = await run.count()
            await run.run(seconds * 0.6)
            after = await run.count()
            await run.look()
            run.look_at_files()
            last = await run.count()
        finally:
            await run.stop()
        run.wrong += compare(before, after)
        if last["sessions"] + last["opening"]:
            run.wrong.append(f"sessions are left: {last}")
    print(f"{loop}: before {before}\n{loop}: after  {after}")
    print(f"{loop}: {dict(run.seen.most_common())}")
    print(f"{loop}: logged {dict(run.events.most_common())}")
    return run.wrong


def main() -> int:
    """Soak on every loop, each for its share of the time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="in all")
    parser.add_argument("--at-once", type=int, default=200, help="clients, and users")
    parser.add_argument("--loop", action="append", choices=["asyncio", "uvloop"])
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    loops = args.loop or ["asyncio", "uvloop"]
    print(f"seed {args.seed}", flush=True)
    wrong = []
    for loop in loops:
        found = asyncio.run(soak(args.seconds / len(loops), args.at_once, loop, args.seed))
        wrong += [f"{loop}: {each}" for each in found]
    for each in wrong[:40]:
        print(each, file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
