"""Plots as SVG: bars of ratios, and lines over a growing number. No library is needed for them."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COLOURS = ("#3b76b5", "#4b9e63", "#c98a2b", "#8a8a8a", "#9a5ba5")
STYLE = (
    "<style>text{font:12px sans-serif;fill:#222}line{stroke:#bbb}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}line{stroke:#555}}</style>"
)
LEFT, TOP, BAR = 260, 54, 13
WIDTH, HEIGHT = 760, 320


def bars(title: str, rows: Sequence[tuple[str, Mapping[str, float | None]]]) -> str:
    """Return a bar for each value of each row, on a logarithmic scale around 1."""
    names = list(rows[0][1]) if rows else []
    values = [value for _, row in rows for value in row.values() if value]
    low = min([0.1, *values])
    high = max([1.0, *values])
    span = math.log(high / low)

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - 60) * math.log(max(value, low) / low) / span

    step = BAR * len(names) + 12
    height = TOP + step * len(rows) + 10
    parts = [_text(10, 18, f"{title}, logarithmic scale"), *_legend(names)]
    parts.append(f'<line x1="{x(1):.1f}" y1="{TOP}" x2="{x(1):.1f}" y2="{height - 10}"/>')
    for number, (label, row) in enumerate(rows):
        y = TOP + step * number
        parts.append(_text(LEFT - 8, y + step / 2, label, anchor="end"))
        for place, (name, value) in enumerate(row.items()):
            if value:
                top = y + BAR * place
                parts.append(
                    f'<rect x="{LEFT}" y="{top}" width="{max(1, x(value) - LEFT):.1f}" '
                    f'height="{BAR - 1}" fill="{COLOURS[names.index(name)]}"/>'
                )
                parts.append(_text(x(value) + 4, top + BAR - 2, f"{value:.2g}"))
    return _svg(height, parts)


def lines(
    title: str, across: str, series: Mapping[str, Sequence[tuple[float, float]]], unit: str
) -> str:
    """Return a line for each series, both axes logarithmic; each point tells its value."""
    points = [point for each in series.values() for point in each]
    xs = [max(x, 1) for x, _ in points]
    ys = [max(y, 1e-9) for _, y in points]
    bottom, left = HEIGHT - 40, 40

    def place(x: float, y: float) -> tuple[float, float]:
        across_ = _share(max(x, 1), min(xs), max(xs))
        up = _share(max(y, 1e-9), min(ys), max(ys))
        return left + (WIDTH - 110) * across_, bottom - (bottom - TOP - 10) * up

    parts = [_text(10, 18, f"{title} ({unit}), logarithmic scales"), *_legend(list(series))]
    parts.append(f'<line x1="{left}" y1="{bottom}" x2="{WIDTH - 40}" y2="{bottom}"/>')
    parts.append(_text(WIDTH - 40, HEIGHT - 6, across, anchor="end"))
    parts += [
        _text(place(x, ys[0])[0], bottom + 16, _short(x), anchor="middle") for x in sorted(set(xs))
    ]
    for colour, each in zip(COLOURS, series.values(), strict=False):
        placed = [place(x, y) for x, y in each]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for (x, y), (_, value) in zip(placed, each, strict=True):
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
            parts.append(_text(x, y - 7, f"{float(f'{value:.3g}'):,g}", anchor="middle"))
    return _svg(HEIGHT, parts)


def _share(value: float, low: float, high: float) -> float:
    return math.log(value / low) / math.log(high / low) if high > low else 0.5


def _short(value: float) -> str:
    for size, letter in ((2**30, "Gi"), (2**20, "Mi"), (2**10, "Ki")):
        if value >= size and value % size == 0:
            return f"{value / size:.0f} {letter}"
    return f"{value:,.0f}"


def _legend(names: Sequence[str]) -> list[str]:
    parts = []
    for number, (colour, name) in enumerate(zip(COLOURS, names, strict=False)):
        x = 10 + 130 * number
        parts.append(f'<rect x="{x}" y="28" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(x + 15, 37, name))
    return parts


def _text(x: float, y: float, text: str, *, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(height: float, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}">'
    return "\n".join([head, STYLE, *parts, "</svg>"]) + "\n"
