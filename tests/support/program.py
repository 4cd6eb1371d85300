"""pop3hub as a program: run in this process for its output, or as a process of its own."""

from __future__ import annotations

import io
import json
import os
import pickle
import queue
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0
"""Seconds after which a test that waits for the program has failed."""

METADATA = "Metadata-Version: 2.1\nName: filed\nVersion: 1.0\n"
ENTRY_POINTS = "[pop3hub.backends]\nfiled = tests.support.filed_store:FiledBackend\n"


class Outcome(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


def install_filed_store(folder: Path, entry_points: str = ENTRY_POINTS) -> Path:
    """Make a folder that is to be put on the path, with a distribution that has the store."""
    information = folder / "filed-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(METADATA)
    (information / "entry_points.txt").write_text(entry_points)
    return folder


class Filed:
    """The store in a file, as a test looks at it; its `options` choose it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.options = ("--backend", "filed", "--filed-path", str(path))

    @property
    def users(self) -> dict[str, Any]:
        """The users by name."""
        return pickle.loads(self.path.read_bytes())[0]  # noqa: S301 - the test's own file

    @property
    def mail(self) -> dict[str, list[tuple[str, bytes]]]:
        """Unique-ids and contents by user."""
        return pickle.loads(self.path.read_bytes())[1]  # noqa: S301 - the test's own file


class Stdin(io.TextIOWrapper):
    """Standard input that is no terminal."""

    def __init__(self, octets: bytes) -> None:
        super().__init__(io.BytesIO(octets), encoding="utf-8")


class Process:
    """A pop3hub that serves; its log is read as JSON."""

    def __init__(self, *arguments: object, listen: str = "pop3://127.0.0.1:0", **more: Any) -> None:
        environment = os.environ | more.pop("env", {})
        words = [*map(str, arguments), "--log-format", "json"]
        if listen:
            words += ["--listen", listen]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pop3hub", *words],
            cwd=ROOT,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )
        self.pid = self.process.pid
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.lines: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()

    def _read(self) -> None:
        for line in self.process.stderr:
            self._lines.put(line)
        self._lines.put("")

    def event(self, name: str) -> dict[str, Any]:
        """Wait for the next log line of this event."""
        while line := self._lines.get(timeout=PATIENCE):
            self.lines.append(line)
            if line.startswith("{") and (event := json.loads(line))["event"] == name:
                return event
        raise AssertionError(f"{name} never came: {self.lines}")

    def serve(self) -> tuple[str, int]:
        """Wait until it listens; return where."""
        url = urlsplit(self.event("server.listening")["url"])
        return url.hostname, url.port

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait for the end; return the exit code."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        self.process.stderr.close()
        return code


class Client:
    """A connection that speaks line by line; b"" means that the server closed it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, PATIENCE)
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def line(self) -> bytes:
        """Return the next line."""
        return self.file.readline()

    def say(self, line: bytes) -> bytes:
        """Send a line; return the first line of the answer."""
        self.socket.sendall(line + b"\r\n")
        return self.line()
