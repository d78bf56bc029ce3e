"""The mapping areas of lanes against sets of pages."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vmjit.environment.mappings import Mappings

PAGES, PAGE = 24, 4096
TOP = PAGES * PAGE


class Model:
    """One lane: the pages that are mapped."""

    def __init__(self) -> None:
        self.pages: set[int] = set()

    def take(self, count: int) -> int:
        """Like `Mappings.take`: the highest gap above the lowest mapping that has room, else right below it."""
        low = min(self.pages, default=PAGES)
        for first in range(PAGES - count, low - 1, -1):
            wanted = set(range(first, first + count))
            if not wanted & self.pages:
                self.pages |= wanted
                return first
        if low < count:
            return -1
        self.pages |= set(range(low - count, low))
        return low - count


steps = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "free", "use"]),
        st.lists(st.tuples(st.integers(0, PAGES - 1), st.integers(1, 6)), min_size=3, max_size=3),
        st.booleans(),
    ),
    max_size=30,
)


@given(steps)
def test_as_sets_of_pages(given_steps: list[tuple[str, list[tuple[int, int]], bool]]) -> None:
    mappings, models = Mappings(3, TOP), [Model() for _ in range(3)]
    lanes = np.arange(3)
    for kind, ranges, alike in given_steps:
        ranges = [ranges[0]] * 3 if alike else ranges
        starts = np.array([first for first, _ in ranges]) * PAGE
        sizes = np.array([count for _, count in ranges]) * PAGE
        if kind == "take":
            got = mappings.take(lanes, sizes, np.zeros(3, np.int64))
            want = [model.take(count) for model, (_, count) in zip(models, ranges, strict=True)]
            assert [g // PAGE for g in got.tolist()] == want
            continue
        (mappings.free if kind == "free" else mappings.use)(lanes, starts, starts + sizes)
        for model, (first, count) in zip(models, ranges, strict=True):
            pages = set(range(first, min(first + count, PAGES)))
            model.pages = model.pages - pages if kind == "free" else model.pages | pages
        lows = [min(model.pages, default=PAGES) * PAGE for model in models]
        assert mappings.low(lanes).tolist() == lows


def test_states_that_nobody_has_are_dropped() -> None:
    mappings = Mappings(2, 1 << 40)
    lanes = np.arange(2)
    for i in range(20_000):
        mappings.take(lanes, np.array([PAGE, 2 * PAGE]), np.zeros(2, np.int64))
        if i % 1000 == 0:
            assert len(mappings._known) <= 8_300


def test_saved_states_come_back() -> None:
    mappings, lanes = Mappings(2, TOP), np.arange(2)
    mappings.take(lanes, np.array([PAGE, 3 * PAGE]), np.zeros(2, np.int64))
    saved = mappings.save()
    mappings.reset()
    assert mappings.low(lanes).tolist() == [TOP, TOP]
    mappings.restore(*saved)
    assert mappings.low(lanes).tolist() == [TOP - PAGE, TOP - 3 * PAGE]
