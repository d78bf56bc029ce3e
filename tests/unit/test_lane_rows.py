"""Rows of lanes' memory against arrays: images, what rows changed, and rows made new; copied and mapped."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vmjit import lane_rows, resident_pages
from vmjit.lane_rows import LaneRows
from vmjit.memory_image import PAGE, MemoryImage

PAGES = 5
maps_images = pytest.mark.skipif(sys.platform != "linux", reason="only Linux maps an image")


@pytest.fixture(params=["mapped", "mapped, no scan", "copied", "copied, no scan"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How rows get an image, and whether the system tells which pages are in use."""
    found = str(request.param)
    if found.startswith("mapped") and sys.platform != "linux":
        pytest.skip("only Linux maps an image")
    monkeypatch.setattr(lane_rows, "_MAPPED_FROM", 0 if found.startswith("mapped") else 1 << 60)
    monkeypatch.setattr(lane_rows, "_MOST_MAPPINGS", 3)
    monkeypatch.setattr(lane_rows, "_AT_ONCE", 4)
    if "no scan" in found:
        monkeypatch.setattr(resident_pages, "_PAGEMAP_SCAN", 0)
    return found


def image_of(stride: int, pages: dict[int, int]) -> tuple[MemoryImage, NDArray[np.uint8]]:
    """An image with pages of one byte each, and as an array."""
    row = np.zeros(-(-stride // PAGE) * PAGE, np.uint8)
    for number, byte in pages.items():
        row[number * PAGE : (number + 1) * PAGE] = byte
    row[stride:] = 0
    contents = row.reshape(-1, PAGE)[list(pages)] if pages else np.zeros((0, PAGE), np.uint8)
    return MemoryImage.of_pages(stride, np.array(list(pages), np.int64), contents), row[:stride]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 6), st.integers(0, PAGES * PAGE - 1), st.integers(0, 3)),
        st.tuples(st.just("load"), st.integers(0, 2)),
        st.tuples(st.sampled_from(["renew", "give_back"]), st.none() | st.lists(st.booleans(), min_size=7, max_size=7)),
        st.tuples(st.just("changed"), st.none() | st.lists(st.booleans(), min_size=7, max_size=7)),
    ),
    max_size=12,
)


@pytest.mark.parametrize("stride", [PAGES * PAGE, PAGES * PAGE - 64])
def test_rows_against_arrays(way: str, stride: int) -> None:
    images = [image_of(stride, pages) for pages in ({}, {0: 7, 3: 9}, {1: 5, 2: 6, 4: 8})]

    @settings(max_examples=60)
    @given(steps)
    def test(made: list[tuple[object, ...]]) -> None:
        rows = LaneRows(7, stride)
        model = np.zeros((7, stride), np.uint8)
        base = np.zeros(stride, np.uint8)
        for name, *rest in made:
            if name == "write":
                lane, place, byte = (int(str(n)) for n in rest)
                rows.array[lane, place % stride] = model[lane, place % stride] = byte
            elif name == "load":
                image, base = images[int(str(rest[0]))]
                rows.load(image)
                model[:] = base
            else:
                chosen = None if rest[0] is None else np.array(rest[0], bool)
                those = np.ones(7, bool) if chosen is None else chosen
                if name in ("renew", "give_back"):
                    getattr(rows, str(name))(chosen)
                    model[those] = base
                else:
                    check_changed(rows, model, base, chosen, those)
            np.testing.assert_array_equal(rows.array, model)

    test()


def check_changed(
    rows: LaneRows,
    model: NDArray[np.uint8],
    base: NDArray[np.uint8],
    chosen: NDArray[np.bool_] | None,
    those: NDArray[np.bool_],
) -> None:
    """Exactly the pages that differ, in order, with what they hold."""
    found = rows.changed(chosen)
    padded = np.zeros((7, PAGES * PAGE), np.uint8)
    padded[:, : model.shape[1]] = model
    origin = np.zeros(PAGES * PAGE, np.uint8)
    origin[: len(base)] = base
    unlike = (padded.reshape(7, PAGES, PAGE) != origin.reshape(PAGES, PAGE)).any(axis=2) & those[:, None]
    assert list(zip(found.lanes, found.numbers, strict=True)) == [tuple(pair) for pair in np.argwhere(unlike)]
    np.testing.assert_array_equal(found.contents, padded.reshape(7, PAGES, PAGE)[unlike])


@maps_images
def test_what_no_row_has_written_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand rows of 4 MiB that start from 1 MiB and write two pages each have these two."""
    monkeypatch.setattr(lane_rows, "_MAPPED_FROM", 0)
    image, row = image_of(4 << 20, dict.fromkeys(range(256), 3))
    rows = LaneRows(1000, 4 << 20)
    rows.load(image)
    assert rows.own_bytes() == 0
    rows.array[:, 17 * PAGE + 5] = 1
    rows.array[:, 900 * PAGE] = 2
    assert rows.array[::100, : 256 * PAGE : PAGE].sum() == 3 * 256 * 10  # reading takes nothing
    assert rows.own_bytes() == 1000 * 2 * PAGE
    rows.renew(np.arange(1000) < 999)
    assert rows.array[999, 900 * PAGE] == 2
    np.testing.assert_array_equal(rows.array[5], row)
    rows.load(image_of(4 << 20, {3: 1})[0])
    assert rows.own_bytes() == 0
    assert rows.array[:, 3 * PAGE].all()


@maps_images
def test_pages_that_are_rarely_written_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_rows, "_MAPPED_FROM", 0)
    image, _ = image_of(1 << 20, {1: 1})
    rows = LaneRows(64, 1 << 20)
    rows.load(image)
    rows.array[:, : 100 * PAGE] = 9
    rows.renew(None)
    assert rows.own_bytes() == 64 * 100 * PAGE, "written pages are kept, for the next time"
    for _ in range(3):
        rows.array[0, 0] = 9
        rows.renew(None)
    assert rows.own_bytes() <= PAGE
    assert rows.array[3, PAGE] == 1
