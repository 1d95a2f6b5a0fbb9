"""Bars as SVG, small enough to keep beside a page."""

from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

WIDTH: Final = 760
LEFT: Final = 230  # where the bars begin; their names stand before it
RIGHT: Final = 120  # room for the figures behind them
BAR, GAP, HEAD = 14, 10, 56  # heights
COLOURS: Final = ("#2b6cb0", "#9cc3e6", "#c05621")
HEADS: Final = 'font-size="15" font-weight="bold"'


class Bar(NamedTuple):
    """A median with its spread."""

    middle: float
    least: float
    most: float


def bars(title: str, series: Sequence[str], rows: Sequence[tuple[str, Sequence[Bar | None]]], *, digits: int) -> str:
    """Horizontal bars, a group of one for each of `series` in every row, all at one scale that begins at 0."""
    most = max((bar.most for _, group in rows for bar in group if bar), default=0.0) or 1.0
    scale = (WIDTH - LEFT - RIGHT) / most
    parts: list[str] = []
    y = HEAD
    for name, group in rows:
        middle = y + len(group) * BAR / 2 + 4
        parts.append(f'<text x="{LEFT - 8}" y="{middle:g}" text-anchor="end">{escape(name)}</text>')
        for number, bar in enumerate(group):
            if bar:
                parts += _bar(bar, y + number * BAR, COLOURS[number], scale, digits)
        y += len(group) * BAR + GAP
    legend, x = [], LEFT
    for number, name in enumerate(series):
        legend.append(f'<rect x="{x}" y="32" width="10" height="10" fill="{COLOURS[number]}"/>')
        legend.append(f'<text x="{x + 15}" y="41">{escape(name)}</text>')
        x += 30 + 7 * len(name)
    size = f'width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12" fill="#222">',
            f'<rect width="{WIDTH}" height="{y}" fill="#fff"/>',
            f'<text x="12" y="20" {HEADS}>{escape(title)}</text>',
            *legend,
            *parts,
            "</svg>\n",
        ]
    )


def _bar(bar: Bar, y: float, colour: str, scale: float, digits: int) -> list[str]:
    middle, least, most = (LEFT + value * scale for value in bar)
    line = y + BAR / 2 - 1
    return [
        f'<rect x="{LEFT}" y="{y}" width="{middle - LEFT:.1f}" height="{BAR - 2}" fill="{colour}"/>',
        f'<path d="M{least:.1f} {line:g}H{most:.1f}" stroke="#222"/>',
        f'<text x="{max(middle, most) + 6:.1f}" y="{y + BAR - 4:g}">{bar.middle:,.{digits}f}</text>',
    ]
