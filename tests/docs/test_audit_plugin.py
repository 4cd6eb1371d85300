"""The example of an extension: it takes part beside a backend, and installs as its README says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pop3hub.errors import ConfigurationError
from pop3hub.server.server import PopServer
from pop3hub.testing.dialogue import Dialogue

EXAMPLE = Path(__file__).parents[2] / "examples" / "audit_plugin"
CONTENTS = b"Subject: x\r\n\r\n"


@pytest.fixture
def audit(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE)
    from pop3hub_audit import Audit  # noqa: PLC0415 - it can be found in this test only

    return Audit()


def serve(backend, **given) -> PopServer:
    return PopServer(backend=backend, listen=(), failure_delay=0, **given)


@pytest.fixture
def backend():
    memory = pytest.importorskip("pop3hub_memory")
    return memory.MemoryBackend()


async def test_who_retrieves_and_deletes_is_written_down(audit, backend, tmp_path):
    path = tmp_path / "audit.jsonl"
    options = {"memory_user": ["luke:hello"], "audit_file": path}
    async with serve(backend, plugins=[audit], options=options) as server:
        await server.store.store_message("luke", CONTENTS, "uid-1")
        async with Dialogue(server) as dialogue:
            await dialogue.login("luke", "wrong")
            await dialogue.login("luke", "hello")
            for line in ("TOP 1 0", "RETR 1", "DELE 1", "QUIT"):
                await dialogue.say(line)

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    facts = [{key: line[key] for key in line if key not in {"time", "peer"}} for line in lines]
    assert [
        {"event": "retrieved", "user": "luke", "uid": "uid-1", "octets": len(CONTENTS)},
        {"event": "closed", "user": "luke", "deleted": 1},
    ] == facts


async def test_a_file_that_cant_be_opened_stops_the_start(audit, backend):
    server = serve(backend, plugins=[audit], options={"audit_file": "/nowhere/audit.jsonl"})

    with pytest.raises(ConfigurationError, match=r"^--audit-file /nowhere/audit\.jsonl: No such"):
        await server.start()


async def test_without_a_file_it_does_nothing(audit, backend):
    options = {"memory_user": ["luke:hello"]}
    async with serve(backend, plugins=[audit], options=options) as server, Dialogue(server) as luke:
        assert (await luke.login("luke", "hello")).startswith(b"+OK")


@pytest.mark.slow
def test_it_takes_part_once_it_is_installed(tmp_path):
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    build = ["--no-deps", "--no-build-isolation", "--no-index", "--target", tmp_path, EXAMPLE]
    subprocess.run([*pip, *build], check=True, timeout=60)
    program = (
        "from pop3hub.hooks.discovery import load_extensions;"
        "print([(p.name, p.origin, type(p.instance).__name__) for p in load_extensions()])"
    )

    found = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert "('audit', 'pop3hub-audit 0.1.0', 'Audit')" in found.stdout
