"""Medians, intervals and ratios: how often they are right is counted."""

from __future__ import annotations

import random
import statistics

import pytest

from vmjit.bench.spread import RESOLUTION, paired_ratio, ratio_text, spread

TRIES = 3000


@pytest.mark.parametrize(("count", "coverage"), [(6, 0.969), (7, 0.984), (9, 0.961), (15, 0.965), (20, 0.959)])
def test_intervals_hold_the_median_as_often_as_they_say(count: int, coverage: float) -> None:
    """Of a skewed distribution, as times are."""
    rng = random.Random(count)
    median = statistics.median(rng.lognormvariate(0, 1) for _ in range(100_001))
    held = 0
    for _ in range(TRIES):
        found = spread([rng.lognormvariate(0, 1) for _ in range(count)])
        assert found.coverage == pytest.approx(coverage, abs=0.001)
        held += found.low <= median <= found.high
    assert held / TRIES == pytest.approx(coverage, abs=0.012)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_few_values_tell_no_difference(count: int) -> None:
    found = spread([2.0] * count)
    assert (found.median, found.low, found.high, found.told) == (2.0, 2.0, 2.0, False)
    assert ratio_text(found) == "too few rounds to tell"


def ratios(second: float, noise: float, count: int = 7) -> list[bool]:
    """Whether a difference was told, in many sessions."""
    rng = random.Random(str((second, noise)))
    told = []
    for _ in range(500):
        rounds = [rng.lognormvariate(0, 0.2) for _ in range(count)]  # what the machine does hits both
        first = [r * rng.uniform(1 - noise, 1 + noise) for r in rounds]
        other = [second * r * rng.uniform(1 - noise, 1 + noise) for r in rounds]
        found = paired_ratio(first, other)
        assert found is not None
        told.append(found.differs)
    return told


def test_equal_contestants_are_equal() -> None:
    for noise in (0.01, 0.05, 0.3):
        assert sum(ratios(1.0, noise)) / 500 < 0.03


def test_differences_beyond_the_noise_are_told_and_others_are_not() -> None:
    """The machine slows both down by a fifth from round to round, which pairs do not see."""
    assert sum(ratios(1.2, 0.03)) / 500 > 0.97
    assert sum(ratios(1.2, 0.9)) / 500 < 0.1
    assert sum(ratios(1 + RESOLUTION / 2, 0.001)) == 0


def test_ratios_in_words() -> None:
    assert ratio_text(paired_ratio([1.0] * 7, [1.25] * 7)) == "1.25 (1.25-1.25)"
    assert ratio_text(paired_ratio([1.0] * 7, [0.9, 1.1] * 3 + [1.0])) == "within noise (±10 %)"
    assert ratio_text(paired_ratio([1.0] * 7, [1.001] * 7)) == "within noise (±2.0 %)"
    assert ratio_text(paired_ratio([1.0, -0.1], [1.0, 1.0])) == "too short to tell"
