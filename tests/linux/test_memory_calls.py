"""System calls on memory in random order, each lane its own, against a model of pages."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.linux.caller import DATA, Caller

PAGE = 4096
LANES = 3
BRK, MUNMAP, MREMAP, MMAP, MPROTECT, MADVISE, PRLIMIT, SELECT = 214, 215, 216, 222, 226, 233, 261, 72
ENOMEM, EACCES, EFAULT, EEXIST, EINVAL = 12, 13, 14, 17, 22
PRIVATE, FIXED, ANONYMOUS, NO_REPLACE = 2, 0x10, 0x20, 0x100000
XLENS = pytest.mark.parametrize("xlen", [32, 64])

# What a protection gives: what can be written can be read.
GIVEN = {0: "---", 1: "r--", 2: "rw-", 3: "rw-", 4: "--x", 5: "r-x", 6: "rwx", 7: "rwx"}


# A page far from the program, and how many behind it calls take.
FAR = {32: 0x7123_4000 // PAGE, 64: 0x12_3456_7000 // PAGE}
FAR_PAGES = 50


@dataclass
class Lane:
    """`pages` by number: permissions, and what is at the page's start. `room` is how many pages it has memory for, and
    `far` where those begin that are far."""

    room: int
    far: int
    pages: dict[int, tuple[str, int]] = field(default_factory=dict)
    backed: set[int] = field(default_factory=set)
    """Far pages that could be accessed since they were mapped."""

    def fits(self, backed: set[int], first: int = 0, count: int = 0) -> bool:
        """Whether there is memory with these far pages, and so many more that are near or not."""
        new = set(range(first, first + count)) if first < self.far else set()
        near = {page for page in self.pages if page < self.far} | new
        return len(near) + len(backed) <= self.room

    def free(self, first: int, count: int) -> bool:
        return not any(page in self.pages for page in range(first, first + count))

    def mapped(self, first: int, count: int) -> bool:
        return all(page in self.pages for page in range(first, first + count))

    def would_back(self, first: int, count: int, permissions: str, *, anew: bool = True) -> set[int]:
        pages = set(range(first, first + count))
        kept = self.backed - pages if anew else self.backed
        return kept | (pages if first >= self.far and permissions != "---" else set())

    def map(self, first: int, count: int, permissions: str) -> None:
        self.backed = self.would_back(first, count, permissions)
        self.pages |= dict.fromkeys(range(first, first + count), (permissions, 0))

    def unmap(self, first: int, count: int) -> None:
        self.backed -= set(range(first, first + count))
        self.pages = {p: v for p, v in self.pages.items() if not first <= p < first + count}


class Model:
    """The calls' meaning, by the manual pages, on the mapping area of a machine with little memory."""

    def __init__(self, caller: Caller) -> None:
        layout = caller.machine._layout
        assert layout.paged is not None
        self.caller, self.plan = caller, layout.paged
        self.first, self.top = layout.heap_start // PAGE, layout.paged.mapped_top // PAGE
        self.far = FAR[caller.xlen]
        self.lanes = [Lane(self.top - self.first, self.far) for _ in range(LANES)]
        self.breaks = [layout.heap_start] * LANES
        self.tag = 0

    def at(self, lane: int, page: int) -> int | None:
        """What is at the start of a page, if there is memory for it."""
        memory = self.caller.machine._residence.memory
        start = np.array([page * PAGE], np.uint64)
        data, good = memory.gather(np.array([lane]), start, np.array([8]), by_host=True)
        return int(data.view(np.uint64)[0]) if good[0] else None

    def check(self) -> None:
        memory = self.caller.machine.memory
        elsewhere = {page for lane in self.lanes for page in lane.pages if page >= self.far}
        far = range(self.far - 2, self.far + FAR_PAGES + 30)
        for page in (*range(self.first, self.plan.stack_lo // PAGE), *sorted(elsewhere | set(far))):
            for lane, model in enumerate(self.lanes):
                known = model.pages.get(page)
                assert memory.permissions(page * PAGE + 9, lane) == ("" if known is None else known[0])
                there = page < self.far or page in model.backed
                if known is not None:
                    assert self.at(lane, page) == (known[1] if there else None)

    def mark(self) -> None:
        """Write something else to each page that there is memory for."""
        memory = self.caller.machine._residence.memory
        for page in sorted({page for lane in self.lanes for page in lane.pages}):
            self.tag += 1
            data = np.full(1, self.tag, np.uint64).view(np.uint8)
            for number, lane in enumerate(self.lanes):
                if page in lane.pages and (page < self.far or page in lane.backed):
                    start = np.array([page * PAGE], np.uint64)
                    assert memory.scatter(np.array([number]), start, np.array([8]), data, by_host=True).all()
                    lane.pages[page] = (lane.pages[page][0], self.tag)

    def mmap(self, places: list[int], counts: list[int], protection: int, flags: int) -> None:
        got = self.caller.call(
            MMAP,
            [p * PAGE for p in places],
            [c * PAGE - 5 for c in counts],
            protection,
            PRIVATE | ANONYMOUS | flags,
            -1,
        )
        for lane, place, wanted, count in zip(self.lanes, got, places, counts, strict=True):
            largest = max(map(len, "".join(".x"[p in lane.pages] for p in range(self.first, self.top)).split("x")))
            page = place // PAGE
            if flags & NO_REPLACE and not lane.free(wanted, count):
                assert place == -EEXIST
                continue
            backed = lane.would_back(wanted, count, GIVEN[protection])
            fits = lane.fits(backed, wanted, count)
            if place < 0 and lane.backed and (0 < wanted < self.far or place == -EEXIST):
                # Something far may lie in the very memory.
                assert place in (-ENOMEM, -EEXIST)
                continue
            if flags & (FIXED | NO_REPLACE):
                assert page == wanted if fits else place == -ENOMEM
            elif place < 0:
                assert place == -ENOMEM
                assert lane.backed or largest < count + self.heap_pages(lane)
                assert protection
            elif wanted and lane.free(wanted, count) and not lane.backed and fits:
                assert page == wanted
            if place < 0:
                continue
            if not flags & FIXED:
                assert lane.free(page, count)
            assert place % PAGE == 0
            lane.map(page, count, GIVEN[protection])

    def heap_pages(self, lane: Lane) -> int:
        return self.breaks[self.lanes.index(lane)] // PAGE - self.first + 1

    def munmap(self, places: list[int], counts: list[int]) -> None:
        assert self.caller.call(MUNMAP, [p * PAGE for p in places], [c * PAGE for c in counts]) == [0] * LANES
        for lane, place, count in zip(self.lanes, places, counts, strict=True):
            lane.unmap(place, count)

    def mprotect(self, places: list[int], counts: list[int], protection: int) -> None:
        got = self.caller.call(MPROTECT, [p * PAGE for p in places], [c * PAGE for c in counts], protection)
        for lane, place, count, result in zip(self.lanes, places, counts, got, strict=True):
            backed = lane.would_back(place, count, GIVEN[protection], anew=False)
            assert result == (0 if lane.mapped(place, count) and lane.fits(backed) else -ENOMEM)
            if result == 0:
                lane.backed = backed
                lane.pages |= {p: (GIVEN[protection], lane.pages[p][1]) for p in range(place, place + count)}

    def mremap(self, places: list[int], counts: list[int], sizes: list[int], flags: int) -> None:
        got = self.caller.call(
            MREMAP, [p * PAGE for p in places], [c * PAGE for c in counts], [s * PAGE for s in sizes], flags
        )
        for lane, place, count, size, result in zip(self.lanes, places, counts, sizes, got, strict=True):
            pages = set(range(place, place + count))
            if not lane.mapped(place, count) or (place >= self.far and pages - lane.backed):
                assert result == -EFAULT
                continue
            if result < 0:
                assert result == -ENOMEM
                assert size > count
                continue
            old = [lane.pages[p] for p in range(place, place + count)]
            page = result // PAGE
            if page != place:
                assert flags == 1
                assert size > count
                assert lane.free(page, size)
            lane.unmap(place, count)
            assert lane.free(page, size)
            lane.map(page, size, old[0][0])
            kept = zip(range(page, page + size), old, strict=False)
            # In place, each page keeps what it may be used for.
            lane.pages |= {p: (v[0] if page == place else old[0][0], v[1]) for p, v in kept}

    def forget(self, places: list[int], counts: list[int]) -> None:
        got = self.caller.call(MADVISE, [p * PAGE for p in places], [c * PAGE for c in counts], 4)
        for lane, place, count, result in zip(self.lanes, places, counts, got, strict=True):
            assert result == (0 if lane.mapped(place, count) else -ENOMEM)
            if result == 0:
                lane.pages |= {p: (lane.pages[p][0], 0) for p in range(place, place + count)}

    def brk(self, wanted: list[int]) -> None:
        got = self.caller.call(BRK, wanted)
        for number, (lane, place, old, result) in enumerate(zip(self.lanes, wanted, self.breaks, got, strict=True)):
            end, new_end = -(-old // PAGE), -(-place // PAGE)
            possible = self.first * PAGE <= place <= self.top * PAGE and (
                new_end <= end or lane.free(end, new_end - end)
            )
            if result == old and lane.backed and new_end > end:
                continue  # something far may lie there
            assert result == (place if possible else old)
            if not possible:
                continue
            if new_end > end:
                lane.map(end, new_end - end, "rw-")
            else:
                lane.unmap(new_end, end - new_end)
            self.breaks[number] = place


def by_lane(element: st.SearchStrategy[int]) -> st.SearchStrategy[list[int]]:
    return st.one_of(element.map(lambda value: [value] * LANES), st.lists(element, min_size=LANES, max_size=LANES))


steps = st.lists(
    st.tuples(
        st.sampled_from(["mmap", "mmap", "fixed", "hint", "new", "munmap", "mprotect", "mremap", "forget", "brk"]),
        by_lane(st.one_of(st.integers(0, 45), st.integers(0, 45), st.integers(100, 100 + FAR_PAGES))),
        by_lane(st.integers(1, 12)),
        by_lane(st.integers(1, 20)),
        st.integers(0, 7),
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=80)
@given(steps=steps, wide=st.booleans())
def test_random_calls_as_pages(steps: list[tuple[str, list[int], list[int], list[int], int]], wide: bool) -> None:
    model = Model(Caller(64 if wide else 32, LANES))
    for kind, places, counts, sizes, protection in steps:
        pages = [model.first + place if place < 100 else model.far + place - 100 for place in places]
        counts = [
            count if page >= model.far else min(count, model.top - page)
            for count, page in zip(counts, pages, strict=True)
        ]
        if any(count < 1 for count in counts):
            continue
        if kind == "mmap":
            model.mmap([0] * LANES, counts, protection, 0)
        elif kind in ("fixed", "hint", "new"):
            model.mmap(pages, counts, protection, {"fixed": FIXED, "hint": 0, "new": NO_REPLACE}[kind])
        elif kind == "mprotect":
            model.mprotect(pages, counts, protection)
        elif kind == "mremap":
            model.mremap(pages, counts, sizes, protection & 1)
        elif kind == "brk":
            model.brk([(page - 3) * PAGE + size * 100 for page, size in zip(pages, sizes, strict=True)])
        elif kind == "munmap":
            model.munmap(pages, counts)
        else:
            model.forget(pages, counts)
        model.check()
        model.mark()
        model.check()


@XLENS
def test_what_cannot_be(xlen: int) -> None:
    caller = Caller(xlen, 2)
    layout = caller.machine._layout
    heap = layout.heap_start
    top = (1 << xlen) - PAGE
    anonymous = PRIVATE | ANONYMOUS
    for number, arguments, result in (
        (MMAP, (0, 0, 3, anonymous, -1), -EINVAL),
        (MMAP, (heap + 5, PAGE, 3, anonymous | FIXED, -1), -EINVAL),
        (MMAP, (0, PAGE, 8, anonymous, -1), -EINVAL),
        (MMAP, (0, 1 << 30, 3, anonymous, -1), -ENOMEM),
        (MMAP, (0, top, 3, anonymous, -1), -ENOMEM),
        (MMAP, (top, PAGE, 3, anonymous | FIXED, -1), -ENOMEM),
        (MMAP, (0x10000, PAGE, 3, anonymous | FIXED, -1), -ENOMEM),
        (MMAP, (0, PAGE, 3, PRIVATE, 9), -9),
        (MUNMAP, (heap + 1, PAGE), -EINVAL),
        (MUNMAP, (heap, 0), -EINVAL),
        (MUNMAP, (top, 3 * PAGE), -EINVAL),
        (MUNMAP, (heap, 1 << 20), 0),
        (MPROTECT, (heap + 1, PAGE, 1), -EINVAL),
        (MPROTECT, (heap, PAGE, 1), -ENOMEM),
        (MPROTECT, (heap, 0, 1), 0),
        (MPROTECT, (0x10000, PAGE, 7), -EACCES),
        (MPROTECT, (0x10000, PAGE, 9), -EINVAL),
        (MPROTECT, (0x10000, PAGE, 5), 0),
        (MREMAP, (heap, PAGE, PAGE, 0), -EFAULT),
        (MREMAP, (heap + 3, PAGE, PAGE, 0), -EINVAL),
        (MREMAP, (DATA, PAGE, 0, 0), -EINVAL),
        (MREMAP, (DATA, PAGE, 2 * PAGE, 2, heap), -EINVAL),
        (MREMAP, (DATA, PAGE, 2 * PAGE, 8), -EINVAL),
        (MREMAP, (DATA, PAGE, 1 << 30, 1), -ENOMEM),
        (MREMAP, (DATA, PAGE, PAGE, 3, DATA), -EINVAL),
        (MADVISE, (heap, PAGE, 4), -ENOMEM),
        (MADVISE, (heap + 1, PAGE, 4), -EINVAL),
        (MADVISE, (heap, PAGE, 3), 0),
    ):
        assert caller.call(number, *arguments) == [result] * 2, (number, arguments)


@XLENS
def test_a_mapping_moves_to_a_place(xlen: int) -> None:
    caller = Caller(xlen, 2)
    heap = caller.machine._layout.heap_start
    (place, _) = caller.call(MMAP, 0, 2 * PAGE, 3, PRIVATE | ANONYMOUS, -1)
    caller.write(place, [b"one lane", b"another "])
    assert caller.call(MREMAP, place, 2 * PAGE, 3 * PAGE, 3, heap) == [heap] * 2
    assert caller.read(heap, 8) == [b"one lane", b"another "]
    memory = caller.machine.memory
    assert [memory.permissions(p) for p in (place, heap, heap + 3 * PAGE - 1)] == ["", "rw-", "rw-"]


@XLENS
def test_what_a_mapping_grew_over_is_zero_when_it_is_mapped_again(xlen: int) -> None:
    caller = Caller(xlen, 2)
    heap = caller.machine._layout.heap_start
    assert caller.call(BRK, heap + PAGE) == [heap + PAGE] * 2
    assert caller.call(MREMAP, heap, PAGE, 3 * PAGE, 0) == [heap] * 2
    caller.write(heap + 2 * PAGE, [b"one lane", b"another "])
    assert caller.call(MUNMAP, heap + PAGE, 2 * PAGE) == [0] * 2
    assert caller.call(MMAP, heap + 2 * PAGE, PAGE, 3, PRIVATE | ANONYMOUS | FIXED, -1) == [heap + 2 * PAGE] * 2
    assert caller.read(heap + 2 * PAGE, 8) == [bytes(8)] * 2


@XLENS
def test_limits(xlen: int) -> None:
    caller = Caller(xlen, 2)
    plan = caller.machine._layout.paged
    assert plan is not None
    for kind, limit in ((3, caller.machine._layout.stack_top - plan.stack_lo), (7, 32), (1, (1 << 64) - 1)):
        assert caller.call(PRLIMIT, 0, kind, 0, DATA) == [0, 0]
        assert {int.from_bytes(row, "little") for row in caller.read(DATA, 8)} == {limit}
    assert caller.call(PRLIMIT, 0, 7, 0, 8) == [-EFAULT] * 2
