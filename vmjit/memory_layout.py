"""Where guest memory lies on the host.

Segments that the guest cannot write are one copy that all lanes read; the others, with heap and stack behind them,
are each lane's own. The two windows (see `kernels/memory.py`) are chosen so that nearly all accesses fall into one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from vmjit.checks import shown
from vmjit.errors import ArgumentError, MemoryLimitError
from vmjit.host_memory import host_bytes
from vmjit.kernels.layout import PERMISSION_EXECUTE, PERMISSION_READ, PERMISSION_WRITE
from vmjit.program import Program, Segment
from vmjit.translators.region_body import PageWindows, WindowPlan

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "kb": 10**3, "kib": 1 << 10, "m": 1 << 20, "mb": 10**6, "mib": 1 << 20,
          "g": 1 << 30, "gb": 10**9, "gib": 1 << 30}  # fmt: skip
_HEAP_ALIGNMENT = 16
_HOST_ALIGNMENT = 64
_LOWEST_ARENA = 0x1000
MIN_MEMORY = 256
MIN_PAGED_MEMORY = 32 << 10
# Memory of a lane from so many bytes on starts at a page, so that lanes can share pages.
_PAGED = 16 << 10
_PAGE = 4096
_STATE_BYTES = 256  # of a lane, at least
# What a Linux program's stack has, where there is four times as much, and the gap below it at most.
_STACK = 8 << 20
_STACK_GAP = 64 << 10
# A word of a bitmap has a bit for each of 32 pages; and for so much memory between segments there may be bits in vain.
_WORD_PAGES = 32
_FAR = 64 << 20
# More than any host addresses: sizes above are mistakes, not wishes.
MAX_TOTAL = 1 << 46


def parse_size(size: int | str) -> int:
    """A number of bytes: 65536, "64KiB", "1MiB", "2G". Raises `ArgumentError`."""
    if isinstance(size, bool) or not isinstance(size, int | str):
        raise ArgumentError(f"a memory size is a number of bytes or text such as '1MiB', got {size!r}")
    if isinstance(size, str):
        match = re.fullmatch(r"\s*([0-9]{1,20})\s*([a-z]*)\s*", size.lower())
        if match is None or match[2] not in _UNITS:
            shown = repr(size if len(size) <= 40 else f"{size[:40]}…")
            raise ArgumentError(f"cannot read the memory size {shown}; write bytes, or a number with KiB, MiB or GiB")
        size = int(match[1]) * _UNITS[match[2]]
    return size


@dataclass(frozen=True)
class MemorySpan:
    """Guest memory of one permission: `offset` is into the shared image or into the lane's own memory."""

    lo: int
    size: int
    permissions: int
    shared: bool
    offset: int
    data: bytes

    @property
    def end(self) -> int:
        return self.lo + self.size

    @property
    def executable(self) -> bool:
        return bool(self.permissions & PERMISSION_EXECUTE)


@dataclass(frozen=True)
class PagePlan:
    """Where permissions of pages may change while a program runs (`vmjit/address_spaces.py`), of `xlen` bits.

    lo, size: addresses whose permissions can change; all other memory keeps those that it starts with.
    bits_lo: where bitmaps of pages begin, which may be below zero.
    hull_lo, hull_offset: private memory in one piece, from its data to the end of its stack.
    data_lo: where data begins that is not read-only once relocated; the heap follows it.
    stack_lo: where the stack ends, downwards; mappings come below `mapped_top`, with a gap that nothing is mapped in.
    """

    lo: int
    size: int
    bits_lo: int
    hull_lo: int
    hull_offset: int
    data_lo: int
    stack_lo: int
    mapped_top: int
    xlen: int


@dataclass(frozen=True)
class MemoryLayout:
    """Spans by address, the sizes of both kinds of memory, and where heap and stack are.

    With `paged`, the private window begins behind what is read-only once relocated."""

    spans: tuple[MemorySpan, ...]
    private_bytes: int
    shared_bytes: int
    heap_start: int
    stack_top: int
    private_window: tuple[int, int, int]  # guest address, size, offset
    shared_window: tuple[int, int, int]
    paged: PagePlan | None = None

    def window_plan(self) -> WindowPlan:
        """The windows for compiled code. Code that is read as data and lies in no window is too rare to compile for:
        such a load leaves to the interpreter."""
        windows = (self.private_window, self.shared_window)
        outside = [
            s
            for s in self.spans
            if not any(lo <= s.lo and s.end <= lo + size for lo, size, _ in windows)
            and not (self.paged is not None and self.paged.hull_lo <= s.lo and not s.shared)
            and s.permissions & PERMISSION_READ
            and (s.permissions & PERMISSION_WRITE or not s.executable)
        ]
        return WindowPlan(
            *self.private_window[:2], *self.shared_window[:2], more=bool(outside), paged=self._page_windows()
        )

    def _page_windows(self) -> PageWindows | None:
        plan = self.paged
        if plan is None:
            return None
        lo, size, _ = self.private_window
        return PageWindows(
            data_size=max(self.heap_start - lo, 0),
            stack_lo=plan.stack_lo,
            stack_size=lo + size - plan.stack_lo,
            hull_lo=plan.hull_lo,
            hull_size=lo + size - plan.hull_lo,
        )


def _round_up(value: int, to: int) -> int:
    return -(-value // to) * to


def _in_whole_pages(segments: Sequence[Segment]) -> list[Segment]:
    """Segments with zero around them up to where pages begin and end, or the next segment does."""
    found: list[Segment] = []
    for i, segment in enumerate(segments):
        lo = max(segment.address & -_PAGE, found[-1].end if found else 0)
        end = _round_up(segment.end, _PAGE)
        if i + 1 < len(segments):
            end = min(end, segments[i + 1].address)
        data = segment.data.rjust(segment.address - lo + len(segment.data), b"\0") if segment.data else b""
        found.append(Segment(lo, end - lo, data, segment.permissions))
    return found


def _arena(segments: Sequence[Segment], xlen: int, memory: int) -> int:
    """Address of heap and stack: behind the highest writable segment, else behind any segment, where there is room."""
    limit = 1 << xlen
    starts = [s.end for s in reversed(segments) if s.writable] + [s.end for s in reversed(segments)] + [_LOWEST_ARENA]
    for start in starts:
        start = _round_up(start, _HEAP_ALIGNMENT)
        end = start + memory
        # The last 16 bytes of the address space stay free so that sp never is 0.
        if end <= limit - _HEAP_ALIGNMENT and not any(s.address < end and start < s.end for s in segments):
            return start
    raise ArgumentError(
        f"no room for {memory:#x} bytes of heap and stack in the {xlen}-bit address space beside the program"
    )


def _check_host(program: Program, lanes: int) -> None:
    """Refuse at once what would fill the host's memory when the program is loaded: each lane's data are its own where
    lanes cannot share them."""
    if not hasattr(os, "sysconf"):
        return
    page = os.sysconf("SC_PAGE_SIZE")
    touched = sum(-(-len(s.data) // page) * page for s in program.segments if s.writable and s.data)
    wanted = lanes * ((0 if hasattr(os, "memfd_create") else touched) + _STATE_BYTES)
    if wanted > host_bytes():
        raise MemoryLimitError(
            f"{lanes} lanes of {program.name} need {wanted} bytes before they run, the host has {host_bytes()}",
            bytes=wanted,
        )


def plan_memory(
    program: Program,
    memory: int,
    lanes: int = 1,
    *,
    own: frozenset[int] = frozenset(),
    arena: bool = True,
    aligned: bool = True,
    whole_pages: bool = False,
) -> MemoryLayout:
    """Lay out a program for lanes with `memory` bytes of heap and stack each.

    `own` are addresses of read-only segments that must be each lane's own all the same (the host wrote different data
    into them). Without `arena` there is no heap and stack; without `aligned` the spans lie at the host back to back, as
    memory of somebody else's does. With `whole_pages`, segments begin and end at pages, as an operating system maps
    them. Raises `ArgumentError` for a size that cannot be.
    """
    if memory < MIN_MEMORY and arena:
        raise ArgumentError(f"memory must be at least {MIN_MEMORY} bytes, got {memory}")
    if memory >= 1 << program.xlen or memory * lanes > MAX_TOTAL:
        raise ArgumentError(f"a memory of {shown(memory)} bytes for {lanes} lanes is more than can be addressed")
    _check_host(program, lanes)
    pieces = _in_whole_pages(program.segments) if whole_pages else list(program.segments)
    start = end = 0
    if arena:
        start = _arena(pieces, program.xlen, memory)
        end = (start + memory) & ~(_HEAP_ALIGNMENT - 1)
        pieces.append(_heap(pieces, start, end))
        pieces.sort(key=lambda s: s.address)
    spans: list[MemorySpan] = []
    alignment = _PAGE if memory >= _PAGED else _HOST_ALIGNMENT
    private = shared = 0
    for piece in pieces:
        is_shared = not piece.writable and piece.address not in own
        base = shared if is_shared else private
        # Keep the guest's alignment on the host, and neighbours in the guest neighbours on the host.
        # Of large memory even its place in a page, so that what is a page to the guest is one to the host.
        touching = bool(spans) and spans[-1].end == piece.address and spans[-1].shared == is_shared
        if aligned and not touching:
            base = _round_up(base, alignment) + piece.address % alignment
        spans.append(MemorySpan(piece.address, piece.size, piece.permissions, is_shared, base, piece.data))
        if is_shared:
            shared = base + piece.size
        else:
            private = base + piece.size
    window = _best_window(spans, PERMISSION_READ | PERMISSION_WRITE, shared=False, prefer=end - 1)
    paged = None
    if whole_pages and arena:
        hull = _behind(window, _round_up(window[0], _PAGE))
        paged = _page_plan(spans, hull, start, end, program)
        window = _behind(hull, paged.data_lo)
    return MemoryLayout(
        tuple(spans),
        _round_up(max(private, 1), _PAGE if aligned and private >= _PAGED else _HOST_ALIGNMENT),
        _round_up(max(shared, 1), _HOST_ALIGNMENT),
        start,
        end,
        window,
        _best_window(spans, PERMISSION_READ, shared=True, prefer=None),
        paged,
    )


def _behind(window: tuple[int, int, int], end: int) -> tuple[int, int, int]:
    """The part of a window from `end` on, if that is inside."""
    lo, size, offset = window
    cut = end - lo if lo < end < lo + size else 0
    return (lo + cut, size - cut, offset + cut)


def _page_plan(
    spans: Sequence[MemorySpan], hull: tuple[int, int, int], start: int, end: int, program: Program
) -> PagePlan:
    """A quarter of an arena, and 8 MiB at most, is stack; up to 64 KiB stay free below it."""
    lo, size, offset = hull
    if end - start < MIN_PAGED_MEMORY:
        raise ArgumentError(f"Linux programs need at least {MIN_PAGED_MEMORY} bytes of memory")
    stack = min(_STACK, (end - start) // 4)
    stack_lo = (end - stack) & -_PAGE
    gap = max(min(_STACK_GAP, stack // 8) & -_PAGE, _PAGE)
    # Bits of the hull begin with a word of their own.
    unit = _WORD_PAGES * _PAGE
    before = _round_up(lo - spans[0].lo, unit) if 0 <= lo - spans[0].lo <= size + _FAR else 0
    first = max(lo - before, 0)
    data_lo = program.relro_end if lo < program.relro_end <= start else lo
    return PagePlan(first, lo + size - first, lo - before, lo, offset, data_lo, stack_lo, stack_lo - gap, program.xlen)


def _heap(segments: list[Segment], start: int, end: int) -> Segment:
    """Heap and stack. The few bytes of alignment behind a writable segment belong to it, so that there is no gap."""
    for segment in segments:
        gap = range(segment.end, start)
        if (
            segment.writable
            and 0 < len(gap) < _HEAP_ALIGNMENT
            and not any(s.address < gap.stop and gap.start < s.end for s in segments)
        ):
            start = segment.end
    return Segment(start, end - start, b"", PERMISSION_READ | PERMISSION_WRITE)


def _best_window(
    spans: list[MemorySpan], permissions: int, *, shared: bool, prefer: int | None
) -> tuple[int, int, int]:
    """The run of touching spans with all these permissions that holds `prefer`, else the best to have at hand.

    Among shared spans, data is better than code: programs seldom read their code.
    """
    runs: list[list[MemorySpan]] = []
    for span in spans:
        if span.shared != shared or span.permissions & permissions != permissions:
            continue
        if runs and runs[-1][-1].end == span.lo and runs[-1][-1].offset + runs[-1][-1].size == span.offset:
            runs[-1].append(span)
        else:
            runs.append([span])
    if not runs:
        return (0, 0, 0)

    def value(run: list[MemorySpan]) -> tuple[bool, bool, int]:
        lo, end = run[0].lo, run[-1].end
        holds = prefer is not None and lo <= prefer < end
        return (holds, any(not s.executable for s in run), end - lo)

    best = max(runs, key=value)
    return (best[0].lo, best[-1].end - best[0].lo, best[0].offset)
