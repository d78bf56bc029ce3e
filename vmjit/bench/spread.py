"""Medians, how far they can be trusted, and ratios that are only given where the noise allows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
"""How often an interval is to hold the true median."""

RESOLUTION = 0.02
"""Differences that are never told, as a share: one and the same program differs by that from process to process, by
where its memory happens to lie, however often each process is measured."""

# Of few values even the widest interval, from the least to the greatest, holds the median less often. Below this no
# difference is told: it takes five values.
_LEAST_COVERAGE = 0.9


@dataclass(frozen=True)
class Spread:
    """A median, and an interval that holds the true one in `coverage` of all cases, whatever the distribution."""

    median: float
    low: float
    high: float
    coverage: float

    @property
    def told(self) -> bool:
        """Whether there are values enough to tell differences by."""
        return self.coverage >= _LEAST_COVERAGE

    @property
    def differs(self) -> bool:
        """Of a ratio: whether it is another than 1, as far as noise and resolution let one see."""
        return self.told and not self.low / (1 + RESOLUTION) <= 1 <= self.high * (1 + RESOLUTION)

    @property
    def noise(self) -> float:
        """Of a ratio: how far from 1 it can be, as a share of 1."""
        return max(abs(self.low - 1), abs(self.high - 1), RESOLUTION)


def spread(values: Sequence[float]) -> Spread:
    """The median of at least one value, and between which of the ordered values it lies: each is above or below it as
    a coin falls, so that the binomial distribution says how often (the sign test's interval)."""
    ordered = sorted(values)
    count = len(ordered)
    out, tail = 1, 0.5**count
    while out < (count + 1) // 2:
        more = tail + math.comb(count, out) * 0.5**count
        if 1 - 2 * more < CONFIDENCE:
            break
        tail, out = more, out + 1
    return Spread(statistics.median(ordered), ordered[out - 1], ordered[count - out], max(0.0, 1 - 2 * tail))


def paired_ratio(first: Sequence[float], second: Sequence[float]) -> Spread | None:
    """How many times as fast as the second the first is, from their seconds by round; None where one of the times is
    nothing or less, as differences of noise are."""
    if min((*first, *second), default=0.0) <= 0:
        return None
    return spread([s / f for f, s in zip(first, second, strict=True)])


def ratio_text(ratio: Spread | None) -> str:
    """The ratio with its interval where it differs from 1 beyond the noise; else that it does not."""
    if ratio is None:
        return "too short to tell"
    if not ratio.told:
        return "too few rounds to tell"
    if not ratio.differs:
        return f"within noise (±{percent(ratio.noise)})"
    return f"{number(ratio.median)} ({number(ratio.low)}-{number(ratio.high)})"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.095 else f"{100 * share:.0f} %"


def number(value: float) -> str:
    """Three significant digits, or the whole number where it has more."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def geometric_mean(values: Iterable[float]) -> float | None:
    """None for no values."""
    logs = [math.log(v) for v in values if v > 0]
    return math.exp(sum(logs) / len(logs)) if logs else None
