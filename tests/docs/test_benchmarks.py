"""Every benchmark runs once at a tiny size, so that none rots. No figure is judged here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PATIENCE = 120

pytest.importorskip("uvloop")
needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl")


def run(program, *options):
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / program), *options],
        capture_output=True,
        check=False,
        text=True,
        timeout=PATIENCE,
    )


@pytest.mark.parametrize(
    "program", ["run.py", "idle.py", "stream.py", "growth.py", "workers.py", "parts.py"]
)
def test_every_program_tells_what_it_measures(program):
    told = run(program, "--help")

    assert 0 == told.returncode, told.stderr
    assert "--quick" in told.stdout


def test_the_prices_of_parts_are_told():
    told = run("parts.py", "--quick")

    assert 0 == told.returncode, told.stderr
    assert all(line.endswith(" us") for line in told.stdout.splitlines())


@pytest.mark.slow
@needs_openssl
@pytest.mark.parametrize("program", ["idle.py", "stream.py", "growth.py", "workers.py"])
def test_every_program_runs_at_a_tiny_size(program):
    told = run(program, "--quick")

    assert 0 == told.returncode, told.stderr
    assert told.stdout


@pytest.mark.slow
@needs_openssl
def test_the_comparison_saves_its_results_its_plot_and_its_table(tmp_path):
    page = tmp_path / "performance.md"
    page.write_text("before\n<!-- last run -->\nold\n<!-- last run -->\nafter\n")

    told = run("run.py", "--quick", "--save", str(tmp_path))

    assert 0 == told.returncode, told.stderr
    results = json.loads((tmp_path / "performance.json").read_text())
    assert {"memory", "floor"} <= set(results["cpu"]["poll"])
    assert "<svg" in (tmp_path / "performance.svg").read_text()
    assert page.read_text().startswith("before\n<!-- last run -->\n")
    assert "| polling session |" in page.read_text()
    assert "old" not in page.read_text()
    assert page.read_text().endswith("<!-- last run -->\nafter\n")
