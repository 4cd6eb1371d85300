"""The manual page: what docs/make_manual.py prints."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pop3hub.cli import options

ROOT = next(parent for parent in Path(__file__).parents if (parent / "languages").is_dir())


@pytest.fixture(scope="module")
def page():
    pytest.importorskip("pop3hub_memory")
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "make_manual.py", "--backend", "memory"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_it_has_every_command_and_option(page):
    plain = page.replace("\\-", "-")

    for command in ("user add", "deliver", "import", "languages check", "config show", "check"):
        assert f"\n.SS {command} [OPTIONS]" in plain
    for _, group in options.core():
        for option in group:
            assert f"\n.B {option.opts[0]}" in plain
    assert "\n.B --memory-user NAME:PASSWORD" in plain
    assert "\n.TP\n.B 75\nTemporary failure; try again later.\n" in plain


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_it_is_good_roff(page):
    command = ["groff", "-man", "-Tutf8", "-ww"]
    done = subprocess.run(command, input=page.encode(), capture_output=True, check=False)

    assert (0, b"") == (done.returncode, done.stderr)
