"""Results as a table for people, as JSON, and as a plot in docs/."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import plot
from work import WORKS

if TYPE_CHECKING:
    from pathlib import Path

    from measure import Cost
    from work import Done, Work

MARK = "<!-- last run -->"
KIB = 1024
REFERENCE = "dovecot"


@dataclass(slots=True)
class Results:
    """What was measured: by work and server, the microseconds a unit of each round."""

    machine: str
    versions: dict[str, str]
    date: str
    listed: int
    idle: int
    cpu: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    wall: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    pss: dict[str, float] = field(default_factory=dict)

    def add(self, work: Work, server: str, cost: Cost, done: Done) -> None:
        """Take in a measurement: CPU a unit, and the median wall clock of a step."""
        cpu = self.cpu.setdefault(work.name, {}).setdefault(server, [])
        cpu.append(cost.cpu / done.units * 1e6)
        wall = self.wall.setdefault(work.name, {}).setdefault(server, [])
        wall.append(done.median * 1e6)

    def ratio(self, work: str, server: str) -> float | None:
        """Return the server's CPU over Dovecot's for the same work, the medians of the rounds."""
        costs = self.cpu[work]
        if server not in costs or not sum(costs.get(REFERENCE, [])):
            return None
        return statistics.median(costs[server]) / statistics.median(costs[REFERENCE])

    @property
    def noise(self) -> float:
        """How far the rounds of a measurement lie apart: the middle one of all (max-min)/median."""
        spreads = [
            (max(rounds) - min(rounds)) / statistics.median(rounds)
            for servers in self.cpu.values()
            for rounds in servers.values()
            if statistics.median(rounds)
        ]
        return statistics.median(spreads) if spreads else 0.0


def table(results: Results) -> str:
    """Return a Markdown table: CPU a unit, the ratio to Dovecot, wall clock, and the goals."""
    names = list(dict.fromkeys(name for costs in results.cpu.values() for name in costs))
    lines = [
        "| CPU (wall clock) | a | " + " | ".join(names) + " |",
        "|---|---|" + "---:|" * len(names),
    ]
    for work in WORKS:
        if work.name in results.cpu:
            cells = [_cell(results, work, name) for name in names]
            lines.append(f"| {work.title} | {work.unit} | " + " | ".join(cells) + " |")
    if results.pss:
        cells = [_memory(results.pss.get(name)) for name in names]
        title = f"idle session, PSS at {results.idle}"
        lines.append(f"| {title} | session | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(results: Results, work: Work, server: str) -> str:
    rounds = results.cpu[work.name].get(server)
    if not rounds:
        return ""
    wall = statistics.median(results.wall[work.name][server])
    cell = f"{_time(statistics.median(rounds))} ({_time(wall)})"
    ratio = results.ratio(work.name, server)
    return cell if ratio is None or server == REFERENCE else f"{cell}, x {ratio:.2f}"


def _memory(octets: float | None) -> str:
    return "" if octets is None else f"{octets / KIB:.1f} KiB"


def _time(microseconds: float) -> str:
    if microseconds >= 10_000:
        return f"{microseconds / 1_000:,.0f} ms"
    if microseconds >= 1_000:
        return f"{microseconds / 1_000:.1f} ms"
    return f"{microseconds:.0f} us" if microseconds >= 10 else f"{microseconds:.1f} us"


def save(results: Results, folder: Path) -> None:
    """Write performance.json and performance.svg, and the table into performance.md."""
    (folder / "performance.json").write_text(json.dumps(asdict(results), indent=1) + "\n")
    ours = ("memory", "maildir", "mongo", "floor")
    rows = [
        (work.title, {name: results.ratio(work.name, name) for name in ours})
        for work in WORKS
        if work.name in results.cpu
    ]
    title = "Processor time, Dovecot = 1 (less is better)"
    (folder / "performance.svg").write_text(plot.bars(title, rows))
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    facts = (
        f"{results.date}; {results.machine}; {versions}. A long maildrop has {results.listed} "
        f"messages. Half of the measurements differ from round to round by less than "
        f"{results.noise:.0%}."
    )
    page = folder / "performance.md"
    before, _, rest = page.read_text().partition(MARK)
    after = rest.partition(MARK)[2]
    page.write_text(f"{before}{MARK}\n{facts}\n\n{table(results)}\n{MARK}{after}")
