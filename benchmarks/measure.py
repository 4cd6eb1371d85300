"""What a server costs: processor time and memory of its whole process tree, read from /proc."""

from __future__ import annotations

import os
import platform
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TICK = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]
"""The processors of the servers and of the load; with a single one they share it."""


def pin(core: int) -> None:
    """Keep this process, and those it starts, on one processor."""
    os.sched_setaffinity(0, {core})


def tree(root: int) -> list[int]:
    """Return a process and all of its descendants."""
    pids = [root]
    for pid in pids:  # grows while it is walked
        for task in _entries(PROC / str(pid) / "task"):
            pids += map(int, _read(task / "children").split())
    return pids


def cpu_of(root: int) -> float:
    """Return the seconds, user and system, of a process tree, those that ended in it included.

    The kernel counts in ticks of 10 ms: measure a second or more.
    """
    ticks = 0
    for pid in tree(root):
        fields = _read(PROC / str(pid) / "stat").rpartition(")")[2].split()
        if fields:  # utime, stime, and those of the children that were waited for
            ticks += sum(map(int, fields[11:15]))
    return ticks / TICK


def pss_of(root: int) -> int:
    """Return the octets of memory of a process tree, shared pages counted in part (PSS)."""
    return sum(_kib(PROC / str(pid) / "smaps_rollup", "Pss:") for pid in tree(root)) * 1024


def peak_of(root: int) -> int:
    """Return the octets that a process, alone, had resident at its highest."""
    return _kib(PROC / str(root) / "status", "VmHWM:") * 1024


@dataclass(slots=True)
class Cost:
    """Seconds of processor and of wall clock."""

    cpu: float = 0.0
    wall: float = 0.0


@contextmanager
def cost_of(root: int) -> Iterator[Cost]:
    """Measure what a process tree spends while the block runs."""
    cost = Cost()
    cpu, began = cpu_of(root), time.perf_counter()
    yield cost
    cost.wall = time.perf_counter() - began
    cost.cpu = cpu_of(root) - cpu


def machine() -> str:
    """Return the processor, how many of them, the kernel and the Python, in a line."""
    lines = _read(PROC / "cpuinfo").splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "?")
    return (
        f"{os.cpu_count()} x {model}, Linux {platform.release().partition('-')[0]}, "
        f"Python {platform.python_version()}"
    )


def _kib(path: Path, key: str) -> int:
    for line in _read(path).splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile; its parent counts it
        return ""


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return []
