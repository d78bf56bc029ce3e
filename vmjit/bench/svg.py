"""Plots as SVG, written without a plotting library: the same data give the same bytes, light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 24, 40, 52
_ROW = 18
_SERIES = 8

# Colours that stand out on light and dark alike; text and lines follow the reader's scheme.
STYLE = """\
.vj{font:12px system-ui,sans-serif;fill:#222}.vj .t{font-size:14px;font-weight:600}\
.vj path{fill:none;stroke-width:2}.vj .g{stroke:#8885;stroke-width:1}.vj .r{stroke:#888;stroke-width:1}\
.vj .m{text-anchor:middle}.vj .e{text-anchor:end}.vj circle{fill:currentColor;stroke:none}\
.s0{stroke:#d1495b;color:#d1495b}.s1{stroke:#2e86ab;color:#2e86ab}.s2{stroke:#4c9f70;color:#4c9f70}\
.s3{stroke:#e08e00;color:#e08e00}.s4{stroke:#8e6bbf;color:#8e6bbf}.s5{stroke:#7a7a7a;color:#7a7a7a}\
.s6{stroke:#b8651b;color:#b8651b}.s7{stroke:#1aa6a6;color:#1aa6a6}\
@media(prefers-color-scheme:dark){.vj{fill:#ddd}}"""


@dataclass(frozen=True)
class Series:
    """Points (x, y, low, high), x growing; low and high are where y can be."""

    name: str
    points: Sequence[tuple[float, float, float, float]]


@dataclass(frozen=True)
class LinePlot:
    """y over x, both logarithmic. marks: x values with a text each."""

    title: str
    x: str
    y: str
    series: Sequence[Series]
    marks: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True)
class DotPlot:
    """A dot on a logarithmic axis for each category and series; `at` is where a line is drawn to compare with."""

    title: str
    x: str
    categories: Sequence[str]
    series: Sequence[Series]
    """Of which x is the number of a category, and y the value."""
    at: float = 1.0


Plot = LinePlot | DotPlot


def drawn(plot: Plot) -> str:
    """An <svg> element."""
    return _lines(plot) if isinstance(plot, LinePlot) else _dots(plot)


def standalone(plot: Plot) -> str:
    """A file of its own, with the style in it."""
    head, rest = drawn(plot).split(">", 1)
    return f"{head}>\n<style>{STYLE}</style>{rest}\n"


class _Axis:
    """A logarithmic axis from the least to the greatest value, on the screen from `start` to `end`."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        logs = [math.log10(value) for value in values if value > 0] or [0.0]
        low, high = min(logs), max(logs)
        pad = max(0.04 * (high - low), 0.02)
        self.low, self.high, self._start, self._end = low - pad, high + pad, start, end

    def __call__(self, value: float) -> float:
        share = (math.log10(max(value, 1e-300)) - self.low) / (self.high - self.low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        """Powers of ten, with twos and fives between them where there are few, or of ten by thousands where many."""
        decades = range(math.floor(self.low), math.ceil(self.high) + 1)
        step = 1 + len(decades) // 9
        parts = (1, 2, 5) if self.high - self.low < 2.5 else (1,)
        values = [part * 10.0**decade for decade in decades[::step] for part in parts]
        return [value for value in values if self.low <= math.log10(value) <= self.high]


def tick_text(value: float) -> str:
    if 1 <= value < 1e5:
        return f"{value:,.0f}"
    if 1e-3 <= value < 1:
        return f"{value:g}"
    return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-")


def _opened(height: int, title: str) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="vj" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<text class="t" x="{_LEFT}" y="18">{escape(title)}</text>',
    ]


def _legend(series: Sequence[Series], y: float) -> list[str]:
    found, x = [], float(_LEFT)
    for number, one in enumerate(series):
        found.append(f'<g class="s{number % _SERIES}"><circle cx="{x + 4:.1f}" cy="{y - 4:.1f}" r="4"/></g>')
        found.append(f'<text x="{x + 12:.1f}" y="{y:.1f}">{escape(one.name)}</text>')
        x += 28 + 6.6 * len(one.name)
    return found


def _lines(plot: LinePlot) -> str:
    points = [point for series in plot.series for point in series.points]
    x = _Axis([p[0] for p in points], _LEFT, _WIDTH - _RIGHT)
    y = _Axis([v for p in points for v in p[1:]], _HEIGHT - _BOTTOM, _TOP + 20)
    out = [*_opened(_HEIGHT, plot.title), *_legend(plot.series, 38)]
    for value in y.ticks():
        out.append(f'<path class="g" d="M{_LEFT} {y(value):.1f}H{_WIDTH - _RIGHT}"/>')
        out.append(f'<text class="e" x="{_LEFT - 6}" y="{y(value) + 4:.1f}">{tick_text(value)}</text>')
    for number in sorted({point[0] for point in points}):
        out.append(f'<text class="m" x="{x(number):.1f}" y="{_HEIGHT - _BOTTOM + 18}">{tick_text(number)}</text>')
    out.append(f'<text class="m" x="{(_LEFT + _WIDTH - _RIGHT) / 2:.1f}" y="{_HEIGHT - 12}">{escape(plot.x)}</text>')
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    out.append(f'<text class="m" transform="translate(16 {middle:.1f}) rotate(-90)">{escape(plot.y)}</text>')
    for where, text in plot.marks:
        out.append(f'<path class="r" stroke-dasharray="4 4" d="M{x(where):.1f} {_TOP + 20}V{_HEIGHT - _BOTTOM}"/>')
        side, beside = ("e", -6) if x(where) > _WIDTH / 2 else ("b", 6)
        out.append(f'<text class="{side}" x="{x(where) + beside:.1f}" y="{_TOP + 32}">{escape(text)}</text>')
    for number, series in enumerate(plot.series):
        out.append(f'<g class="s{number % _SERIES}">')
        places = [(x(a), y(b), y(low), y(high)) for a, b, low, high in series.points]
        out.append(f'<path d="M{"L".join(f"{a:.1f} {b:.1f}" for a, b, _, _ in places)}"/>')
        for a, b, low, high in places:
            out.append(f'<path d="M{a:.1f} {low:.1f}V{high:.1f}"/><circle cx="{a:.1f}" cy="{b:.1f}" r="3.5"/>')
        out.append("</g>")
    return "\n".join([*out, "</svg>"])


def _dots(plot: DotPlot) -> str:
    height = _TOP + 12 + _ROW * len(plot.categories) + _BOTTOM
    bottom = height - _BOTTOM
    left = _LEFT + 30
    x = _Axis([v for s in plot.series for p in s.points for v in p[1:]] + [plot.at], left, _WIDTH - _RIGHT)
    out = [*_opened(height, plot.title), *_legend(plot.series, 38)]
    for value in x.ticks():
        out.append(f'<path class="g" d="M{x(value):.1f} {_TOP + 6}V{bottom}"/>')
        out.append(f'<text class="m" x="{x(value):.1f}" y="{bottom + 16}">{tick_text(value)}</text>')
    out.append(f'<path class="r" d="M{x(plot.at):.1f} {_TOP + 6}V{bottom}"/>')
    out.append(f'<text class="m" x="{(left + _WIDTH - _RIGHT) / 2:.1f}" y="{height - 12}">{escape(plot.x)}</text>')
    for number, name in enumerate(plot.categories):
        out.append(f'<text class="e" x="{left - 8}" y="{_line(number) + 4:.1f}">{escape(name)}</text>')
    for number, series in enumerate(plot.series):
        out.append(f'<g class="s{number % _SERIES}">')
        for category, value, low, high in series.points:
            # Side by side where there are several.
            y = _line(int(category)) + 3.0 * (number - (len(plot.series) - 1) / 2)
            out.append(f'<path d="M{x(low):.1f} {y:.1f}H{x(high):.1f}"/>')
            out.append(f'<circle cx="{x(value):.1f}" cy="{y:.1f}" r="3.5"/>')
        out.append("</g>")
    return "\n".join([*out, "</svg>"])


def _line(number: int) -> float:
    return _TOP + 18 + _ROW * number
