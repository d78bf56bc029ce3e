"""Address spaces of lanes against a dictionary of pages, and their rows against the spaces."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vmjit import Program
from vmjit.address_space import MOST_MAPPINGS, PAGE, AddressSpace
from vmjit.address_spaces import AddressSpaces
from vmjit.kernels.layout import AddressSpaceRow, Span
from vmjit.memory_layout import MemoryLayout, plan_memory
from vmjit.program import Segment

PAGES = 24
LANES = 3


def layout(memory: int = 256 << 10) -> MemoryLayout:
    """Code at 0x10000, data behind it of which the first page is read-only once relocated."""
    code = Segment(0x10000, 0x1800, b"\x13\x00\x00\x00" * 0x600, 5)
    data = Segment(0x13000, 0x2800, b"data", 3)
    from vmjit.decoders.riscv.isa import parse_isa

    program = Program((code, data), 0x10000, parse_isa("rv64gc"), linux=True, relro_end=0x14000)
    return plan_memory(program, memory, whole_pages=True)


steps = st.lists(
    st.tuples(
        st.sampled_from(["map", "map", "unmap", "protect"]),
        st.integers(0, PAGES - 1),
        st.integers(1, 6),
        st.integers(0, 7),
    ),
    max_size=30,
)


@given(steps)
def test_one_space_as_pages(given_steps: list[tuple[str, int, int, int]]) -> None:
    space, pages = AddressSpace(), dict[int, int]()
    for kind, first, count, permissions in given_steps:
        start, end = first * PAGE, (first + count) * PAGE
        wanted = range(first, first + count)
        assert space.is_mapped(start, end) == all(page in pages for page in wanted)
        assert space.is_free(start, end) == (not any(page in pages for page in wanted))
        assert space.allows(start, end, permissions) == all(
            page in pages and pages[page] & permissions == permissions for page in wanted
        )
        if kind == "unmap":
            space = space.unmapped(start, end)
            pages = {page: given for page, given in pages.items() if page not in wanted}
        elif kind == "map" or all(page in pages for page in wanted):
            space = space.mapped(start, end, permissions)
            pages |= dict.fromkeys(wanted, permissions)
        mappings = space.mappings
        assert {p: g for a, b, g in mappings for p in range(a // PAGE, b // PAGE)} == pages
        assert all(a < b for a, b, _ in mappings)
        for left, right in pairwise(mappings):
            assert left[1] < right[0] or (left[1] == right[0] and left[2] != right[2]), "joined as far as can be"
        for page in range(PAGES + 8):
            assert space.at(page * PAGE + 5) == pages.get(page)
        places, sizes = np.array([start + 7, start], np.uint64), np.array([2 * PAGE, end - start])
        for permission in (1, 2, 4):
            allowed = {page for page, given in pages.items() if given & permission}
            for i, found in enumerate(space.permits(places, sizes, permission).tolist()):
                touched = range(int(places[i]) // PAGE, (int(places[i]) + int(sizes[i]) - 1) // PAGE + 1)
                assert found == all(page in allowed for page in touched)
        holes = [size for size in range(1, PAGES) if space.place_for(size * PAGE, 0, PAGES * PAGE) is not None]
        runs = "".join("x" if page in pages else "." for page in range(PAGES)).split("x")
        assert max(holes, default=0) == min(max(map(len, runs)), PAGES - 1)


def test_a_place_is_the_smallest_that_fits() -> None:
    space = AddressSpace().mapped(2 * PAGE, 4 * PAGE, 3).mapped(7 * PAGE, 8 * PAGE, 3).mapped(10 * PAGE, 11 * PAGE, 0)
    assert space.place_for(PAGE, 0, 16 * PAGE) == 9 * PAGE
    assert space.place_for(3 * PAGE, 0, 16 * PAGE) == 4 * PAGE
    assert space.place_for(3 * PAGE, 5 * PAGE, 16 * PAGE) == 13 * PAGE
    assert space.place_for(6 * PAGE, 0, 16 * PAGE) is None


@given(steps, st.integers(0, LANES - 1))
def test_rows_say_what_spaces_do(given_steps: list[tuple[str, int, int, int]], lane: int) -> None:
    """Every page's bits, how far data reaches, and whether compiled code can run."""
    plan = layout()
    assert plan.paged is not None
    spaces = AddressSpaces(LANES, plan)
    for kind, first, count, permissions in given_steps:
        start = np.array([plan.paged.lo + first * 3 * PAGE])
        end = start + count * PAGE
        lanes = np.array([lane])
        if kind == "map":
            spaces.change(lanes, start, end, lambda s, a, b, p=permissions: s.mapped(a, b, p))
        elif kind == "unmap":
            spaces.change(lanes, start, end, spaces.without)
        else:
            spaces.change(lanes, start, end, lambda s, a, b, p=permissions: spaces.protected(s, a, b, permissions=p))
    for each in range(LANES):
        space, row = spaces.of(each), spaces.rows[spaces.numbers[each]]
        words = row[AddressSpaceRow.PAGES // 8 :][: 2 * spaces.bitmap_bytes // 8].reshape(2, -1)
        for permission, bitmap in zip((1, 2), words, strict=True):
            bits = np.unpackbits(bitmap.view(np.uint8), bitorder="little")
            for page in range(-(-plan.paged.size // PAGE)):
                place = plan.paged.lo + page * PAGE
                number = (place - plan.paged.bits_lo) // PAGE
                assert bits[number] == bool((space.at(place) or 0) & permission)
        reach, regular = int(row[AddressSpaceRow.REACH // 8]), bool(row[AddressSpaceRow.REGULAR // 8])
        assert regular == spaces.regular(space)
        lo = plan.private_window[0]
        assert lo == plan.paged.data_lo == 0x14000
        assert space.allows(lo, lo + reach, 3)
        assert reach == 0 or space.at(lo + reach) is None or (space.at(lo + reach) or 0) & 3 != 3


def test_where_heap_stack_and_gap_are() -> None:
    plan = layout()
    assert plan.paged is not None
    spaces = AddressSpaces(1, plan)
    space = spaces.of(0)
    assert space.at(plan.heap_start) is None
    assert space.at(plan.stack_top - 1) == 3
    assert space.at(plan.paged.stack_lo) == 3
    assert space.at(plan.paged.stack_lo - 1) is None
    assert plan.paged.mapped_top <= plan.paged.stack_lo - PAGE
    assert spaces.regular(space)
    (place,) = spaces.find(np.array([0]), np.array([PAGE]), np.array([plan.heap_start]))
    assert place + PAGE == plan.paged.mapped_top


def test_lanes_that_do_the_same_have_one_space() -> None:
    spaces = AddressSpaces(100, layout())
    lanes = np.arange(100)
    start = np.full(100, layout().heap_start)
    for count in (1, 2, 3):
        spaces.change(lanes, start, start + count * PAGE, lambda s, a, b: s.mapped(a, b, 3))
    assert len(spaces) == 4
    assert len(set(spaces.numbers.tolist())) == 1
    spaces.change(lanes[::2], start[::2], start[::2] + PAGE, lambda s, a, b: s.unmapped(a, b))
    assert len(set(spaces.numbers.tolist())) == 2
    spaces.reset()
    assert set(spaces.numbers.tolist()) == {0}


def test_mappings_are_bounded_and_spaces_that_nobody_has_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmjit.address_spaces._MANY_SPACES", 256)
    spaces = AddressSpaces(1, layout(16 << 20))
    lane, start = np.array([0]), layout(16 << 20).heap_start
    made = [
        bool(
            spaces.change(
                lane, np.array([start + 2 * i * PAGE]), np.array([start + (2 * i + 1) * PAGE]),
                lambda s, a, b: s.mapped(a, b, 3),
            )[0]
        )
        for i in range(700)
    ]  # fmt: skip
    assert made.index(False) in range(MOST_MAPPINGS - 5, MOST_MAPPINGS)
    kept = spaces.of(0)
    for i in range(600):
        spaces.change(lane, np.array([start]), np.array([start + PAGE]), lambda s, a, b, p=i % 8: s.mapped(a, b, p))
        spaces.change(lane, np.array([start + i % 50 * 2 * PAGE]), np.array([start + (i % 50 * 2 + 1) * PAGE]),
                      lambda s, a, b, p=i % 5: s.mapped(a, b, p))  # fmt: skip
    assert len(spaces) <= 260
    assert len(spaces.of(0).mappings) <= len(kept.mappings)


def test_what_may_be_executed_is_told() -> None:
    spaces = AddressSpaces(3, layout())
    heap = layout().heap_start
    spaces.take_moved()
    spaces.change(np.array([1]), np.array([heap]), np.array([heap + PAGE]), lambda s, a, b: s.mapped(a, b, 3))
    assert spaces.take_moved().tolist() == []
    spaces.change(np.array([1]), np.array([heap]), np.array([heap + PAGE]), lambda s, a, b: s.mapped(a, b, 5))
    assert spaces.take_moved().tolist() == [1]
    assert spaces.take_moved().tolist() == []
    kinds = spaces.alike_in_code(np.arange(3))
    assert sorted((lanes.tolist(), kind.compiled) for lanes, kind in kinds) == [([0, 2], True), ([1], True)]
    spaces.change(np.array([2]), np.array([0x10000]), np.array([0x11000]), lambda s, a, b: s.mapped(a, b, 1))
    assert spaces.take_moved().tolist() == [2]
    assert not spaces.regular(spaces.of(2))


def test_damaged_spaces_are_refused() -> None:
    spaces = AddressSpaces(1, layout())
    heap = layout().heap_start
    start = spaces.of(0)
    assert not spaces.refuses(start)
    assert not spaces.refuses(start.mapped(heap, heap + PAGE, 7))
    for bad in (
        AddressSpace(((heap, heap, 3),)),
        AddressSpace(((heap + 1, heap + PAGE, 3),)),
        AddressSpace(((heap, heap + PAGE, 9),)),
        AddressSpace(((heap, heap + 2 * PAGE, 3), (heap + PAGE, heap + 3 * PAGE, 1))),
        AddressSpace(((heap, heap + PAGE, 3), (0x10000, 0x11000, 5))),
        AddressSpace(((1 << 40, (1 << 40) + PAGE, 3),)),
        start.mapped(0x10000, 0x11000, 3),
    ):
        assert spaces.refuses(bad)


FAR = 0x12_3456_7000


@given(steps, st.lists(st.tuples(st.integers(-2, PAGES + 2), st.integers(0, PAGE - 1), st.integers(0, 3 * PAGE))))
@example([("map", 0, 3, 2), ("map", 1, 1, 1)], [])
def test_far_pages_are_those_that_back_them(
    given_steps: list[tuple[str, int, int, int]], asked: list[tuple[int, int, int]]
) -> None:
    """Each far page that could be accessed has a page of its own, which it keeps; rows and questions agree on it."""
    plan = layout()
    spaces, lanes = AddressSpaces(LANES, plan), np.array([1])
    assert plan.paged is not None
    before: dict[int, int] = {}
    for kind, first, count, permissions in given_steps:
        start, end = np.array([FAR + first * PAGE]), np.array([FAR + (first + count) * PAGE])
        if kind == "unmap":
            good = spaces.change(lanes, start, end, spaces.without)
        elif kind == "map":
            good = spaces.change(lanes, start, end, lambda s, a, b, p=permissions: s.unmapped(a, b).mapped(a, b, p))
        else:
            good = spaces.change(
                lanes, start, end, lambda s, a, b, p=permissions: spaces.protected(s, a, b, permissions=p)
            )
        space = spaces.of(1)
        touched = {first + i for i in range(count)} if kind != "protect" and good[0] else set()
        pages = {
            (first + i * PAGE - FAR) // PAGE: place + i * PAGE
            for first, last, place in space.backing
            for i in range((last - first) // PAGE)
        }
        assert {page: place for page, place in pages.items() if page in before and page not in touched} == {
            page: place for page, place in before.items() if page not in touched
        }
        assert len(set(pages.values())) == len(pages)
        for place in pages.values():
            assert plan.heap_start <= place < plan.paged.mapped_top
            assert space.at(place) is None
        for page in range(PAGES + 6):
            if space.at(FAR + page * PAGE):
                assert page in pages
        assert not spaces.refuses(space)
        before = pages
    row = spaces.rows[spaces.numbers[1]]
    words = row[(AddressSpaceRow.PAGES + 2 * spaces.bitmap_bytes) // 8 :]
    table = words[1:][: int(words[0]) * Span.BYTES // 8].reshape(-1, Span.BYTES // 8).tolist()
    for page in range(-1, PAGES + 6):
        address = FAR + page * PAGE
        found = [line for line in table if line[0] <= address <= line[1]]
        readable = bool((spaces.of(1).at(address) or 0) & 3)
        assert len(found) == readable
        for lo, _, permissions, shared, offset in found:
            assert (permissions, shared) == (spaces.of(1).at(address), 0)
            assert offset + address - lo == spaces.offset_of(before[page])
    for page, within, size in asked:
        address = FAR + page * PAGE + within
        (near,) = spaces.nearby(lanes, np.array([address], np.uint64), np.array([size])).tolist()
        last = (address + max(size, 1) - 1 - FAR) // PAGE
        pages_of = range((address - FAR) // PAGE, last + 1)
        one_piece = bool(size) and all(
            p in before and before[p] - before[pages_of[0]] == (p - pages_of[0]) * PAGE for p in pages_of
        )
        assert near == (before[pages_of[0]] + within if one_piece else address)


def test_damaged_backing_is_refused() -> None:
    plan = layout()
    assert plan.paged is not None
    spaces = AddressSpaces(1, plan)
    heap = plan.heap_start
    mapped = spaces.of(0).mapped(FAR, FAR + 2 * PAGE, 3)
    good = mapped.backed(FAR, FAR + 2 * PAGE, heap + PAGE)
    assert not spaces.refuses(good)
    assert not spaces.refuses(spaces.of(0).mapped(FAR, FAR + (1 << 40), 0))
    for bad in (
        mapped,
        mapped.backed(FAR, FAR + PAGE, heap),
        mapped.backed(FAR, FAR + 2 * PAGE, heap + 1),
        mapped.backed(FAR, FAR + 2 * PAGE, heap - PAGE),
        mapped.backed(FAR, FAR + 2 * PAGE, plan.paged.mapped_top - PAGE),
        mapped.backed(FAR, FAR + PAGE, heap).backed(FAR + PAGE, FAR + 2 * PAGE, heap),
        good.backed(FAR + 4 * PAGE, FAR + 5 * PAGE, heap + 9 * PAGE),
        good.mapped(heap, heap + 2 * PAGE, 3),
        AddressSpace(good.mappings, ((FAR, FAR + 2 * PAGE, heap), (FAR + PAGE, FAR + 2 * PAGE, heap + 9 * PAGE))),
        AddressSpace(good.mappings, (*good.backing, (FAR + 3 * PAGE, FAR + 2 * PAGE, heap + 9 * PAGE))),
        spaces.of(0).mapped(0x1000, 0x2000, 3).backed(0x1000, 0x2000, heap),
        spaces.of(0).mapped(1 << 47, (1 << 47) + PAGE, 0),
    ):
        assert spaces.refuses(bad)
