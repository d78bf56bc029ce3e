"""Where guest memory lies on the host, and access to it, against a plain model; programs at unusual addresses."""

from __future__ import annotations

import itertools
import mmap
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.differential.oracles import EXECUTE, READ, TIERS, WRITE, settle
from tests.differential.reference import Instruction
from tests.machine.harness import (
    A2,
    A3,
    A4,
    A5,
    CODE,
    RA,
    S0,
    T0,
    ZERO,
    Assembly,
    Scene,
    check_on,
    ins,
)
from vmjit import ArgumentError, GuestAddressError, Machine, host_memory, vector_tier
from vmjit.decoders.riscv.isa import parse_isa
from vmjit.host_memory import HostMemory
from vmjit.kernels.layout import GroupState
from vmjit.lane_memory import LaneMemory
from vmjit.memory_layout import MemoryLayout, MemorySpan, plan_memory
from vmjit.program import Program, Segment
from vmjit.resident_pages import resident_pages
from vmjit.translators.vector_unit import vector_unit

everywhere = pytest.mark.parametrize("tier", TIERS)
both = pytest.mark.parametrize("xlen", [32, 64])

MEMORY = 512
LANES = 5


# -- layouts


@dataclass
class Layout:
    """A program of random segments, what is to be each lane's own, and the layout that was planned."""

    program: Program
    own: frozenset[int]
    arena: bool
    aligned: bool
    layout: MemoryLayout = field(init=False)

    def __post_init__(self) -> None:
        self.layout = plan_memory(
            self.program, MEMORY, LANES, own=self.own, arena=self.arena, aligned=self.aligned
        )  # fmt: skip


@st.composite
def segments(draw: st.DrawFn, xlen: int) -> tuple[Segment, ...]:
    """Up to eight segments from some base on, touching or with gaps, the last perhaps up to the end of it all."""
    limit = 1 << xlen
    place = draw(st.sampled_from([0, 0x10, 0x1000, 0x10000, 0x7FFFFFF0, 0x80000000, limit - 0x20000]))
    found: list[Segment] = []
    for _ in range(draw(st.integers(1, 8))):
        place += draw(st.sampled_from([0, 0, 1, 7, 15, 16, 64, 0x1000]))
        size = draw(st.one_of(st.integers(1, 20), st.sampled_from([63, 64, 65, 300])))
        if place + size > limit:
            break
        data = draw(st.binary(max_size=min(size, 24)))
        found.append(Segment(place, size, data, draw(st.integers(0, 7))))
        place += size
    if draw(st.booleans()) and place < limit - 64:
        size = draw(st.integers(1, 64))
        found.append(Segment(limit - size, size, b"top"[:size], draw(st.integers(0, 7))))
    return tuple(found)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    xlen = draw(st.sampled_from([32, 64]))
    pieces = list(draw(segments(xlen)))
    # Somewhere, there must be room for an instruction to start.
    roomy = [i for i, p in enumerate(pieces) if p.address + p.address % 2 < p.end]
    if not roomy:
        pieces, roomy = [Segment(0x20000, 2, b"", READ)], [0]
    chosen = draw(st.sampled_from(roomy))
    pieces[chosen] = replace(pieces[chosen], permissions=pieces[chosen].permissions | EXECUTE)
    entry = pieces[chosen].address + pieces[chosen].address % 2
    program = Program(tuple(pieces), entry, parse_isa(f"rv{xlen}imac"))
    own = frozenset(s.address for s in pieces if not s.writable and draw(st.booleans()))
    return Layout(program, own, draw(st.integers(0, 9)) > 0, draw(st.integers(0, 9)) > 0)


def overlap(ranges: list[tuple[int, int]]) -> bool:
    ranges = sorted(ranges)
    return any(a[1] > b[0] for a, b in itertools.pairwise(ranges))


@settings(max_examples=150, report_multiple_bugs=False)
@given(layouts())
def test_layouts(made: Layout) -> None:
    layout, program = made.layout, made.program
    spans = layout.spans
    # In the guest: the program's segments and the heap, by address, apart from each other.
    assert list(spans) == sorted(spans, key=lambda s: s.lo)
    assert not overlap([(s.lo, s.end) for s in spans])
    assert all(0 <= s.lo < s.end <= 1 << program.xlen for s in spans)
    of_program = {(s.address, s.size, s.permissions, s.data) for s in program.segments}
    rest = [s for s in spans if (s.lo, s.size, s.permissions, s.data) not in of_program]
    assert len(spans) - len(rest) == len(program.segments)
    if made.arena:
        (heap,) = rest
        assert heap.permissions == READ | WRITE
        assert heap.lo <= layout.heap_start
        assert layout.stack_top == heap.end
        assert layout.stack_top % 16 == 0
        assert MEMORY - 16 < layout.stack_top - layout.heap_start <= MEMORY
        assert layout.stack_top < 1 << program.xlen
    else:
        assert not rest
    # On the host: no two share a byte, and each is inside its memory.
    for shared, size in ((True, layout.shared_bytes), (False, layout.private_bytes)):
        places = [(s.offset, s.offset + s.size) for s in spans if s.shared == shared]
        assert not overlap(places)
        assert all(lo >= 0 and end <= size for lo, end in places)
    for span in spans:
        writable = bool(span.permissions & WRITE)
        assert span.shared == (not writable and span.lo not in made.own)
        if made.aligned:
            assert span.offset % 64 == span.lo % 64


@settings(max_examples=150, report_multiple_bugs=False)
@given(layouts())
def test_windows(made: Layout) -> None:
    """A window is guest memory without gaps, of the right kind, at one distance from the host's."""
    layout = made.layout
    for window, shared, wanted in (
        (layout.private_window, False, READ | WRITE),
        (layout.shared_window, True, READ),
    ):
        lo, size, offset = window
        inside = [s for s in layout.spans if s.lo < lo + size and lo < s.end]
        assert sum(s.size for s in inside) == size
        for span in inside:
            assert lo <= span.lo
            assert span.end <= lo + size
            assert span.shared == shared
            assert span.permissions & wanted == wanted
            assert span.offset == offset + span.lo - lo
        there = [s for s in layout.spans if s.shared == shared and s.permissions & wanted == wanted]
        assert bool(size) == bool(there)
    if made.arena:
        lo, size, _ = layout.private_window
        assert lo <= layout.heap_start
        assert lo + size == layout.stack_top or lo + size > layout.stack_top
    plan = layout.window_plan()
    assert (plan.private_lo, plan.private_size) == layout.private_window[:2]
    assert (plan.shared_lo, plan.shared_size) == layout.shared_window[:2]


def test_segments_that_touch_are_one_window() -> None:
    """Data, more data and the heap behind them are one range of host memory: accesses across the borders are fast."""
    pieces = (
        Segment(CODE, 16, b"", READ | EXECUTE),
        Segment(0x20000, 32, b"", READ | WRITE),
        Segment(0x20020, 21, b"", READ | WRITE),
        Segment(0x30000, 8, b"", READ),
        Segment(0x30008, 8, b"", READ),
    )
    layout = plan_memory(Program(pieces, CODE, parse_isa("rv64imac")), MEMORY)
    assert layout.heap_start == 0x20040
    assert layout.private_window[:2] == (0x20000, 0x40 + MEMORY)
    assert layout.shared_window[:2] == (0x30000, 16)


def test_the_heap_covers_no_neighbour() -> None:
    """The bytes of alignment between data and heap may hold a segment of another kind."""
    isa = parse_isa("rv64imac")
    code = Segment(CODE, 16, b"", READ | EXECUTE)
    data, constant = Segment(0x20000, 1, b"\1", READ | WRITE), Segment(0x20001, 3, b"\2\3\4", READ)
    layout = plan_memory(Program((code, data, constant), CODE, isa), MEMORY)
    assert not overlap([(s.lo, s.end) for s in layout.spans])
    assert layout.heap_start == 0x20010


def test_room_for_the_heap_is_looked_for() -> None:
    """Behind the writable segments, behind others, and at the start of the address space."""
    isa = parse_isa("rv32imac")
    code = Segment(CODE, 16, b"", READ | EXECUTE)
    data = Segment(0x20000, 16, b"", READ | WRITE)
    close = Segment(0x20020, 16, b"", READ)
    top = Segment((1 << 32) - 16, 16, b"", READ | WRITE)
    assert plan_memory(Program((code, data), CODE, isa), 4096).heap_start == 0x20010
    assert plan_memory(Program((code, data, close), CODE, isa), 4096).heap_start == 0x20030
    assert plan_memory(Program((code, top), CODE, isa), 4096).heap_start == CODE + 16
    assert plan_memory(Program((Segment(1 << 31, (1 << 31) - 64, b"", 7),), 1 << 31, isa), 4096).heap_start == 0x1000
    with pytest.raises(ArgumentError, match="no room for 0x80000000 bytes"):
        plan_memory(Program((Segment(0x70000000, 0x20000000, b"", 7),), 0x70000000, isa), 1 << 31)


# -- access by the host


class Model:
    """Guest memory byte by byte: (lane, address) to value, and the permissions of addresses."""

    def __init__(self, spans: tuple[MemorySpan, ...]) -> None:
        self.permissions: dict[int, int] = {}
        self.shared: set[int] = set()
        self.bytes: dict[tuple[int, int], int] = {}
        for span in spans:
            for i in range(span.size):
                self.permissions[span.lo + i] = span.permissions
                if span.shared:
                    self.shared.add(span.lo + i)
                for lane in range(LANES):
                    self.bytes[lane, span.lo + i] = span.data[i] if i < len(span.data) else 0

    def there(self, address: int, size: int, permission: int) -> bool:
        return all(
            a in self.permissions and self.permissions[a] & permission == permission
            for a in range(address, address + size)
        )

    def read(self, lane: int, address: int, size: int) -> list[int]:
        return [self.bytes[lane, a] for a in range(address, address + size)]

    def write(self, lane: int, address: int, data: bytes) -> None:
        for i, value in enumerate(data):
            self.bytes[lane, address + i] = value


def relay(memory: LaneMemory, group: int) -> None:
    """Interleave a group's memory, or lay its lanes apart again, as kernels do."""
    count = memory.group
    rows = memory.rows[group * count : (group + 1) * count].reshape(-1)
    interleaved = memory.groups[group, GroupState.INTERLEAVED // 8]
    words = rows.reshape((-1, count, 4) if interleaved else (count, -1, 4)).transpose(1, 0, 2)
    rows[:] = words.reshape(-1).copy()
    memory.groups[group, GroupState.INTERLEAVED // 8] = not interleaved


@settings(max_examples=150, report_multiple_bugs=False)
@given(st.data())
def test_access_by_the_host(data: st.DataObject) -> None:
    """Reads and writes of all lanes at one address, and of each lane at its own, against a model; some lanes'
    memory is interleaved."""
    made = data.draw(layouts())
    spans = made.layout.spans
    memory = LaneMemory(made.layout, LANES)
    group = data.draw(st.sampled_from([1, 2, 4]))
    whole = LANES // group if group > 1 else 0  # a lane is left behind the last whole group
    assert memory.form_groups(group) or group == 1
    model = Model(spans)
    limit = 1 << made.program.xlen
    borders = sorted({b for s in spans for b in (s.lo, s.end)})
    # Near the borders of spans, where mistakes would be.
    addresses = st.builds(lambda b, d: min(max(b + d, 0), limit - 1), st.sampled_from(borders), st.integers(-9, 9))
    sizes = st.one_of(st.integers(0, 12), st.integers(0, 100))
    kinds = ["read", "write", "write rows", "gather", "scatter", "own", "reset", *(["relay"] * 3 if whole else [])]
    for _ in range(data.draw(st.integers(1, 12))):
        kind = data.draw(st.sampled_from(kinds))
        if kind == "relay":
            relay(memory, data.draw(st.integers(0, whole - 1)))
            continue
        if kind == "own":
            which = data.draw(st.lists(st.integers(0, LANES - 1), min_size=1, max_size=LANES))
            for span in (s for s in spans if not s.shared):
                got = memory.own_bytes(span, np.array(which, np.intp))
                assert got.tolist() == [model.read(lane, span.lo, span.size) for lane in which]
            continue
        if kind == "reset":
            memory.reset()
            model = Model(spans)
            continue
        if kind in ("gather", "scatter"):
            lanes = data.draw(st.permutations(range(LANES)))[: data.draw(st.integers(1, LANES))]
            if data.draw(st.booleans()):
                where, lengths = [data.draw(addresses)] * len(lanes), [data.draw(sizes)] * len(lanes)
            else:
                where, lengths = [data.draw(addresses) for _ in lanes], [data.draw(sizes) for _ in lanes]
            arguments = (np.array(lanes, np.intp), np.array(where, np.uint64), np.array(lengths, np.int64))
            if kind == "gather":
                found, good = memory.gather(*arguments)
                wanted = [model.there(a, n, READ) for a, n in zip(where, lengths, strict=True)]
                assert good.tolist() == wanted
                each = zip(lanes, where, lengths, wanted, strict=True)
                assert found.tolist() == [v for lane, a, n, w in each if w for v in model.read(lane, a, n)]
            else:
                rows = [data.draw(st.binary(min_size=n, max_size=n)) for n in lengths]
                good = memory.scatter(*arguments, np.frombuffer(b"".join(rows), np.uint8))
                wanted = [model.there(a, n, WRITE) for a, n in zip(where, lengths, strict=True)]
                assert good.tolist() == wanted
                for lane, a, row, w in zip(lanes, where, rows, wanted, strict=True):
                    if w:
                        model.write(lane, a, row)
            continue
        address, size = data.draw(addresses), data.draw(sizes)
        if not model.there(address, size, 0):
            with pytest.raises(GuestAddressError):
                memory.read(address, size)
            with pytest.raises(GuestAddressError):
                memory.write(address, np.zeros(size, np.uint8))
        elif kind == "read":
            got = memory.read(address, size)
            assert (got.shape, got.dtype) == ((LANES, size), np.uint8)
            assert got.tolist() == [model.read(lane, address, size) for lane in range(LANES)]
        elif kind == "write":
            row = data.draw(st.binary(min_size=size, max_size=size))
            memory.write(address, np.frombuffer(row, np.uint8))
            for lane in range(LANES):
                model.write(lane, address, row)
        else:
            rows = [data.draw(st.binary(min_size=size, max_size=size)) for _ in range(LANES)]
            array = np.frombuffer(b"".join(rows), np.uint8).reshape(LANES, size)
            touched, split = memory.write(address, array)
            shared = {s.lo for s in spans if s.shared and s.lo < address + size and address < s.end}
            if shared and len(set(rows)) > 1 and size:
                # Shared memory cannot take other bytes by lane: nothing is written, and who asked is told.
                assert {s.lo for s in split} == shared
                assert not touched
            else:
                assert not split
                for lane in range(LANES):
                    model.write(lane, address, rows[lane])
    for span in spans:
        got = memory.read(span.lo, span.size)
        assert got.tolist() == [model.read(lane, span.lo, span.size) for lane in range(LANES)]


def scribbling() -> Assembly:
    """Adds up what a3 and a4 point at, 200 words from each, and writes over it; the lane's number makes it its own."""
    a = Assembly(64)
    a.put("addi", S0, ZERO, imm=200)
    a.label("loop")
    a.put("lw", T0, A3)
    a.put("add", A2, A2, T0)
    a.put("lw", T0, A4)
    a.put("add", A2, A2, T0)
    a.put("add", T0, A2, 10)
    a.put("sw", 0, A3, T0)
    a.put("sw", 0, A4, S0)
    a.put("addi", A3, A3, imm=4)
    a.put("addi", A4, A4, imm=-4)
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="loop")
    a.put("ebreak")
    return a


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("past_caches", [False, True])
@pytest.mark.parametrize("own_code", [False, True])
def test_reset_gives_back_the_loaded_program(
    tier: str, past_caches: bool, own_code: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lanes and the host wrote is gone and the program's data are there, also where lanes had been interleaved:
    each run adds up the same."""
    monkeypatch.setattr(host_memory, "_FEW_BYTES", 0)
    if past_caches:
        monkeypatch.setattr(host_memory, "_PAST_CACHES", 0)
    monkeypatch.setitem(vector_tier.POLICIES, "auto", vector_tier.ALWAYS)
    lanes = 4 * vector_unit().lanes + 3
    code = scribbling().code
    numbers = np.arange(1, 1101, dtype=np.uint32).tobytes()
    pieces = (Segment(CODE, len(code), code, READ | EXECUTE), Segment(0x40003, 5000, b"abc" + numbers, READ | WRITE))
    m = Machine(Program(pieces, CODE, parse_isa("rv64im")), lanes, tier=tier, memory="20KiB", arguments=["one", "two"])
    if own_code:  # written by lane, code is no longer shared
        m.memory.write(CODE + len(code) - 1, np.arange(lanes, dtype=np.uint8)[:, None])
        m.reset()
    spans = m._layout.spans
    loaded = [m.memory.read(s.lo, s.size) for s in spans]
    sums = []
    for turn in range(6):
        m.registers["a3"] = 0x40010 + np.arange(lanes) % 2 * 4
        m.registers["a4"] = m.registers["sp"]
        assert m.run().stops() == {"EBREAK": lanes}
        settle()
        for group in range(turn % 2, 4 if tier == "auto" else 0, 2):
            relay(m._lane_memory, group)
        sums.append(m.registers["a2"].tolist())
        if turn % 2:
            m.memory.write(0x40003 + turn, np.arange(lanes * 77, dtype=np.uint64).astype(np.uint8).reshape(lanes, 77))
            m.memory.write(CODE, code[:3])
        m.reset()
        for span, wanted in zip(spans, loaded, strict=True):
            assert (m.memory.read(span.lo, span.size) == wanted).all()
    assert sums == [sums[0]] * 6


@pytest.mark.parametrize("size", [1, 3 * mmap.PAGESIZE, 200 * mmap.PAGESIZE - 1])
@pytest.mark.parametrize("past_caches", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_cleared_memory_is_zero(size: int, past_caches: bool, known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever pages were written, and where nobody knows which are there."""
    monkeypatch.setattr(host_memory, "_FEW_BYTES", 0)
    if past_caches:
        monkeypatch.setattr(host_memory, "_PAST_CACHES", 0)
    if not known:
        monkeypatch.setattr(host_memory, "resident_pages", lambda address, size: None)
    memory = HostMemory(size)
    rng = np.random.default_rng(size)
    for turn in range(20):
        memory.array[rng.integers(0, size, 300 if turn % 3 else 2)] = 1
        memory.array[-1] = 7
        memory.clear()
        assert not memory.array.any()


needs_resident_pages = pytest.mark.skipif(
    resident_pages(HostMemory(1).address, mmap.PAGESIZE) is None,
    reason="this kernel does not tell which pages are there",
)


@needs_resident_pages
@pytest.mark.parametrize("most", [1, 3, 1 << 12])
def test_resident_pages(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ranges the kernel is asked for at once."""
    monkeypatch.setattr("vmjit.resident_pages._MOST_RANGES", most)
    memory = HostMemory(1000 * mmap.PAGESIZE, sparse_unit=1000 * mmap.PAGESIZE)

    def pages() -> list[int]:
        found = resident_pages(memory.address, 1000 * mmap.PAGESIZE)
        assert found is not None
        return found.tolist()

    assert pages() == []
    written = [0, 3, 4, 5, 77, 998, 999]
    memory.array[np.array(written) * mmap.PAGESIZE] = 1
    assert pages() == written
    memory.array[:] = 1
    assert pages() == list(range(1000))
    memory.discard()
    assert pages() == []


@needs_resident_pages
def test_pages_that_are_not_written_any_more_are_given_back() -> None:
    """What is written each time stays, what was written once does not stay for long."""
    pages = (4 << 20) // mmap.PAGESIZE
    memory = HostMemory(pages * mmap.PAGESIZE, sparse_unit=pages * mmap.PAGESIZE)

    def count() -> int:
        found = resident_pages(memory.address, pages * mmap.PAGESIZE)
        assert found is not None
        return len(found)

    memory.array[:] = 1
    for _ in range(20):
        memory.clear()
        assert count() == pages
        memory.array[:] = 1
    for few in (pages // 2, pages // 8):
        memory.array[:] = 1
        memory.clear()
        turns = 0
        while count() > few:
            memory.array[: few * mmap.PAGESIZE] = 1
            memory.clear()
            turns += 1
            assert turns < 20
        assert (few == pages // 2) == (turns > 4)


def test_gather_and_scatter_of_many_lanes() -> None:
    """Ragged sizes in one call, among them nothing and ranges that cannot be written."""
    pieces = (Segment(CODE, 32, bytes(range(32)), READ | EXECUTE), Segment(CODE + 32, 64, b"", READ | WRITE))
    layout = plan_memory(Program(pieces, CODE, parse_isa("rv64imac")), MEMORY)
    lanes = 500
    memory = LaneMemory(layout, lanes)
    rng = np.random.default_rng(1)
    which = rng.permutation(lanes)[:300].astype(np.intp)
    sizes = rng.integers(0, 24, 300)
    places = (CODE + 32 + rng.integers(0, 40, 300)).astype(np.uint64)
    places[::7] = CODE + 4  # cannot be written
    data = rng.integers(0, 256, int(sizes.sum()), dtype=np.uint8)
    good = memory.scatter(which, places, sizes, data)
    assert good.tolist() == [bool(i % 7 or n == 0) for i, n in enumerate(sizes)]
    found, there = memory.gather(which, places, sizes)
    assert there.all()
    starts = np.cumsum(sizes) - sizes
    for i, (n, start) in enumerate(zip(sizes, starts, strict=True)):
        wanted = data[start : start + n].tolist() if i % 7 else list(range(4, 4 + n))
        assert found[start : start + n].tolist() == wanted
    untouched = sorted(set(range(lanes)) - set(which.tolist()))
    assert not memory.read(CODE + 32, 64)[untouched].any()


@pytest.mark.parametrize(("size", "step"), [(8, 4), (4, 8), (4, 1), (6, 4), (1, 1)])
def test_gather_and_scatter_of_one_size(size: int, step: int) -> None:
    """Whole words and others, of lanes side by side and interleaved; some lanes want nothing."""
    layout = plan_memory(Program((Segment(CODE, 256, b"", 7),), CODE, parse_isa("rv64imac")), MEMORY)
    lanes = 67
    memory = LaneMemory(layout, lanes)
    assert memory.form_groups(8)
    rng = np.random.default_rng(size)
    plain = np.zeros((lanes, 256), np.uint8)
    for turn in range(12):
        relay(memory, turn * 5 % 8)
        which = rng.permutation(lanes)[:50].astype(np.intp)
        offsets = rng.integers(0, 240 // step, 50) * step
        sizes = np.where(rng.integers(0, 5, 50) == 0, 0, size) if turn % 2 else np.full(50, size)
        wanting = np.flatnonzero(sizes)
        data = rng.integers(0, 256, len(wanting) * size, dtype=np.uint8)
        places = (CODE + offsets).astype(np.uint64)
        assert memory.scatter(which, places, sizes, data).all()
        columns = offsets[wanting, None] + np.arange(size)
        plain[which[wanting, None], columns] = data.reshape(-1, size)
        assert (memory.read(CODE, 256) == plain).all()
        found, good = memory.gather(which, places, sizes)
        assert good.all()
        assert (found == data).all()


@pytest.mark.parametrize("kind", ["gather", "scatter"])
def test_ranges_across_segments(kind: str) -> None:
    """The environment's access goes over borders as the guest's does: from shared to private memory, and up to the top."""
    permissions = READ if kind == "gather" else READ | WRITE
    top = 1 << 64
    pieces = (
        Segment(CODE, 16, bytes(range(16)), READ | EXECUTE),
        Segment(CODE + 16, 16, bytes(range(16, 32)), permissions),
        Segment(CODE + 32, 32, bytes(range(32, 64)), READ | WRITE),
        Segment(top - 32, 32, bytes(range(32)), READ | WRITE),
    )
    memory = LaneMemory(plan_memory(Program(pieces, CODE, parse_isa("rv64imac")), MEMORY, 2), 2)
    lanes, sizes = np.array([0, 1], np.intp), np.array([20, 8], np.int64)
    places = np.array([CODE + 24, top - 8], np.uint64)
    if kind == "gather":
        found, good = memory.gather(lanes, places, sizes)
        assert good.tolist() == [True, True]
        assert found.tolist() == [*range(24, 44), *range(24, 32)]
    else:
        assert memory.scatter(lanes, places, sizes, np.arange(100, 128, dtype=np.uint8)).tolist() == [True, True]
        assert memory.read(CODE + 24, 20)[0].tolist() == list(range(100, 120))
        assert memory.read(top - 8, 8)[1].tolist() == list(range(120, 128))


# -- programs at unusual addresses


def summing(xlen: int, base: int) -> Assembly:
    """Adds the words from a3 on to a4 and stores the sum at a5, a hundred times or until it faults."""
    a = Assembly(xlen, base)
    a.put("addi", S0, ZERO, imm=100)
    a.label("loop")
    a.put("lw", T0, A3)
    a.put("add", A4, A4, T0)
    a.put("sw", 0, A5, A4)
    a.put("addi", A3, A3, imm=4)
    a.put("addi", A5, A5, imm=4)
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="loop")
    a.put("ebreak")
    return a


BASES = [(32, 0x10000), (64, 0x10000), (32, 0x80000000), (64, 0x80000000), (32, 0xFFFF0000), (64, 0xFFFFFFFFFFFF0000)]
BASES += [(32, 0), (64, 0), (64, 1 << 63), (64, 0xFFFFFFFF80000000)]


@everywhere
@pytest.mark.parametrize(("xlen", "base"), BASES)
def test_programs_anywhere(xlen: int, base: int, tier: str) -> None:
    """Code, constants and data one behind the other, in the middle of the address space and at both its ends."""
    constants, data = base + 0x1000, base + 0x2000
    pieces = [(constants, bytes(k % 251 for k in range(512)), READ), (data, bytes(512), READ | WRITE)]
    lanes = [{A3: constants + k, A5: data + 4 * k} for k in (0, 1, 100, 400)]
    check_on(Scene(summing(xlen, base), lanes, segments=pieces), tier)


@everywhere
@both
def test_data_up_to_the_very_top(xlen: int, tier: str) -> None:
    """The last byte of the address space is memory; accesses go round to address 0, where there is some or none."""
    top = 1 << xlen
    data = (top - 256, bytes(range(256)), READ | WRITE)
    lanes = [
        {A3: top - 4 * k + off, A5: CODE - 0x8000 + 4 * k} for k, off in ((1, 0), (1, 2), (20, 0), (20, 1), (60, 3))
    ]
    scratch = (CODE - 0x8000, bytes(1024), READ | WRITE)
    check_on(Scene(summing(xlen, CODE), lanes, segments=[data, scratch]), tier)
    bottom = (0, bytes(range(255, -1, -1)) * 2, READ | WRITE)
    check_on(Scene(summing(xlen, CODE), lanes, segments=[data, bottom, scratch]), tier)
    # Stores over the top too.
    lanes = [{A3: CODE - 0x8000, A5: top - 4 * k + off} for k, off in ((1, 0), (1, 1), (20, 0), (20, 3))]
    check_on(Scene(summing(xlen, CODE), lanes, segments=[data, scratch]), tier)
    check_on(Scene(summing(xlen, CODE), lanes, segments=[data, bottom, scratch]), tier)


@everywhere
@both
def test_code_up_to_the_very_top(xlen: int, tier: str) -> None:
    """Execution that goes on behind the last byte comes to address 0: where nothing is, and where code is."""
    top = 1 << xlen
    a = Assembly(xlen, top - 40)
    a.put("addi", S0, ZERO, imm=30)
    a.label("loop")
    a.put("addi", A2, A2, imm=3)
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="loop")
    a.put("jal", RA, imm=4)
    while a.pc < top:
        a.put("addi", A4, A4, imm=7)
    scratch = (0x40000, bytes(16), READ | WRITE)
    check_on(Scene(a, [{}, {}], segments=[scratch]), tier)
    b = Assembly(xlen, 0)
    b.put("addi", A4, A4, imm=11)
    b.put("jal", RA, imm=-36)  # to the loop's first instruction, over the bottom
    low = (0, b.code, READ | EXECUTE)
    scene = Scene(a, [{}, {A4: 5}], segments=[scratch, low], more=b.listing)
    for schedule in ([1000], [37, 200]):
        check_on(scene, tier, schedule)


@everywhere
def test_executable_segments_far_apart(tier: str) -> None:
    """A loop that calls functions in segments that no jump could reach, each of which calls the next."""
    places = [0x10000, 0x3000_0000, 0x8000_0000, 1 << 40, (1 << 64) - 0x1000]
    functions = []
    for i, place in enumerate(places[1:], 1):
        f = Assembly(64, place)
        if i < 4:
            f.put("sd", 0, A3, RA, imm=8 * i)
            f.put("ld", T0, A3, imm=64 + 8 * (i + 1))
            f.put("addi", A2, A2, imm=i)
            f.put("jalr", RA, T0)
            f.put("ld", RA, A3, imm=8 * i)
        f.put("add", A4, A4, A2)
        f.put("jalr", ZERO, RA)
        functions.append(f)
    a = Assembly(64, places[0])
    a.put("addi", S0, ZERO, imm=50)
    a.label("loop")
    a.put("ld", T0, A3, imm=72)
    a.put("jalr", RA, T0)
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="loop")
    a.put("ebreak")
    table = b"".join(place.to_bytes(8, "little") for place in places)
    data = (0x40000, bytes(64) + table + bytes(24), READ | WRITE)
    more = {place: i for f in functions for place, i in f.listing.items()}
    pieces = [data, *((f.base, f.code, READ | EXECUTE) for f in functions)]
    scene = Scene(a, [{A3: 0x40000}, {A3: 0x40000, A2: 9}, {A3: 0x40004}], segments=pieces, more=more)
    check_on(scene, tier, [33, 500, 10_000])


class Part(Assembly):
    """The first bytes of a program; the rest is in another segment."""

    def __init__(self, whole: Assembly, size: int) -> None:
        super().__init__(whole.xlen, whole.base)
        self.whole, self.size = whole, size

    @property
    def listing(self) -> dict[int, Instruction]:
        return self.whole.listing

    @property
    def code(self) -> bytes:
        return self.whole.code[: self.size]


@everywhere
def test_adjacent_segments_of_all_permissions(tier: str) -> None:
    """Code in two segments side by side, one writable; instructions across the border; data around them."""
    a = Assembly(64)
    a.put("addi", S0, ZERO, imm=40)
    a.label("loop")
    a.put("addi", A2, A2, imm=1, short="c.addi")
    for k in range(20):
        a.put("addi", 10 + k % 4, 10 + k % 4, imm=k)
    a.put("lw", T0, A3)
    a.put("add", A4, A4, T0)
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="loop")
    a.put("ebreak")
    code = a.code
    # A border at each place of the loop, in the middle of instructions too.
    for cut in (2, 4, 6, 8, 30, 32, len(code) - 6, len(code) - 2):
        pieces = [(CODE + cut, code[cut:], 7 if cut % 4 else 5), (0x40000, bytes(range(64)), 3)]
        scene = Scene(Part(a, cut), [{A3: 0x40000}, {A3: CODE + cut - 1}], segments=pieces)
        check_on(scene, tier, [70, None])


def test_stores_to_the_last_bytes() -> None:
    """The widest access that still fits a window, and the first that does not, for every size of a tiny segment."""
    for size in range(1, 12):
        a = Assembly(64)
        a.put("addi", S0, ZERO, imm=5)
        a.label("loop")
        a.extend([ins("sb", 0, A3, S0), ins("sh", 0, A4, S0), ins("addi", S0, S0, imm=-1)])
        a.put("bne", rs1=S0, to="loop")
        a.put("sd", 0, A5, A2)
        a.put("ebreak")
        tiny = (0x40000, bytes(size), READ | WRITE)
        behind = (0x40000 + size, bytes(32), READ)
        lanes = [{A3: 0x40000 + size - 1, A4: 0x40000 + max(size - 2, 0), A5: 0x40000 + k, A2: -1} for k in range(4)]
        for tier in TIERS:
            check_on(Scene(a, lanes, segments=[tiny, behind]), tier, compiles=size > 1)
