"""A difference in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vmjit.divergence.search import MOST_STEPS, Difference
from vmjit.divergence.sides import Side
from vmjit.divergence.states import bytes_unlike
from vmjit.memory_image import PAGE
from vmjit.memory_layout import MemoryLayout
from vmjit.next_instruction import NextInstruction, next_instruction
from vmjit.snapshot import Snapshot
from vmjit.stops import Access, Stop

# Bytes of memory and instructions that are shown at most.
_MOST_BYTES = 32
_MOST_STEPS = 12


@dataclass(frozen=True, eq=False)
class Report:
    """`culprit` is the number of the step that most likely went wrong: the earliest of those that were the last to
    write something in which the sides differ."""

    difference: Difference
    left: Side
    right: Side
    steps: tuple[NextInstruction, ...]
    culprit: int
    text: str


def explained(difference: Difference, left: Side, right: Side, place: Callable[[int], str]) -> Report:
    """`place` gives an address in words, as `CodeSymbols.place` does."""
    if difference.count > MOST_STEPS:
        text = (
            f"{left.name} and {right.name} differed in lane {difference.lane} within {difference.count:,} instructions "
            f"behind the first {difference.retired:,}, and did not when these ran again"
        )
        return Report(difference, left, right, (), 0, text)
    steps = _followed(left, difference)
    culprit = _culprit(difference, steps, left, right)
    before = _state_before(left, difference, culprit)
    text = _Text(difference, left, right, steps, culprit, before, place).text()
    return Report(difference, left, right, tuple(steps), culprit, text)


def _followed(left: Side, difference: Difference) -> list[NextInstruction]:
    """What the lane did on the trusted side between the state that both had and the one in which they differ."""
    left.restore(difference.start)
    found = [next_instruction(left.machine, difference.lane)]
    while len(found) < difference.count:
        left.advance(1)
        found.append(next_instruction(left.machine, difference.lane))
    return found


def _registers_unlike(difference: Difference, left: Side, right: Side) -> list[int]:
    a, b = (s.state["registers"][:, difference.lane] for s in (difference.left, difference.right))
    both = set(left.registers) & set(right.registers)
    return [int(i) for i in np.flatnonzero(a != b) if int(i) in both]


def _culprit(difference: Difference, steps: list[NextInstruction], left: Side, right: Side) -> int:
    last = []
    for index in _registers_unlike(difference, left, right):
        last += [max((i for i, step in enumerate(steps) if index in step.writes), default=len(steps) - 1)]
    addresses = [
        address_of(left.machine._layout, offset)
        for offset, _, _ in bytes_unlike(difference.left, difference.right, difference.lane)[:_MOST_BYTES]
    ]
    for address in addresses:
        storing = [i for i, step in enumerate(steps) if _stores_at(step, address)]
        last.append(max(storing, default=len(steps) - 1))
    return min(last, default=len(steps) - 1)


def _stores_at(step: NextInstruction, address: int) -> bool:
    return any(stores and first <= address < first + len(data) for first, data, stores in step.touched)


def _state_before(left: Side, difference: Difference, steps: int) -> Snapshot:
    left.restore(difference.start)
    if steps:
        left.advance(steps)
    return left.snapshot()


def address_of(layout: MemoryLayout, offset: int) -> int:
    """The guest address of a byte of a lane's own memory."""
    for span in layout.spans:
        if not span.shared and span.offset <= offset < span.offset + span.size:
            return span.lo + offset - span.offset
    return offset


@dataclass(frozen=True, eq=False)
class _Text:
    difference: Difference
    left: Side
    right: Side
    steps: list[NextInstruction]
    culprit: int
    before: Snapshot
    place: Callable[[int], str]

    def text(self) -> str:
        d, step = self.difference, self.steps[self.culprit]
        number = d.retired + self.culprit
        lines = [
            f"{self.left.name} and {self.right.name} first differ in lane {d.lane}, "
            f"at the instruction that follows {number:,} others:",
            "",
            f"  {self.place(step.pc)}   {step.data.hex(' ')}   {step.text}",
            "",
        ]
        if d.count > 1:
            lines += self._context()
        lines += self._table(step)
        return "\n".join(lines)

    def _context(self) -> list[str]:
        """The instructions that compiled code executes as one, around the culprit."""
        first = max(self.culprit - _MOST_STEPS // 2, 0)
        shown = list(enumerate(self.steps))[first : first + _MOST_STEPS]
        lines = [f"  It shows {self.difference.count} instructions behind the last state that both had:"]
        lines += [f"  {'>' if i == self.culprit else ' '} {step.pc:#x}  {step.text}" for i, step in shown]
        return [*lines, ""]

    def _table(self, step: NextInstruction) -> list[str]:
        d, lane = self.difference, self.difference.lane
        file = self.left.machine._engine.decoder.registers
        unlike = _registers_unlike(d, self.left, self.right)
        rows: list[tuple[str, ...]] = [("", "before", self.left.name, self.right.name)]
        states = (self.before, d.left, d.right)
        for index in sorted(set(unlike) | {i for i in step.reads | step.writes.keys() if i not in file.hidden}):
            values = [int(s.state["registers"][index, lane]) for s in states]
            mark = " *" if index in unlike else ""
            rows.append((file.shown_name(index), *(f"{value:#x}" for value in values[:2]), f"{values[2]:#x}{mark}"))
        for name in ("pc", "retired"):
            values = [int(s.state[name][lane]) for s in states]
            if values[1] != values[2]:
                rows.append((name, *(f"{v:#x}" if name == "pc" else f"{v:,}" for v in values)))
        stops = [_stop(s, lane) for s in states]
        if stops[1] != stops[2]:
            rows.append(("stop", *stops))
        rows += self._memory_rows()
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        return ["  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]

    def _memory_rows(self) -> list[tuple[str, ...]]:
        d = self.difference
        found = bytes_unlike(d.left, d.right, d.lane)
        layout, before = self.left.machine._layout, _own_bytes(self.before, d.lane)
        rows: list[tuple[str, ...]] = [
            (f"mem[{address_of(layout, at):#x}]", f"{before(at):02x}", f"{a:02x}", f"{b:02x} *")
            for at, a, b in found[:_MOST_BYTES]
        ]
        if len(found) > _MOST_BYTES:
            rows.append((f"and {len(found) - _MOST_BYTES} bytes more", "", "", ""))
        return rows


def _own_bytes(snapshot: Snapshot, lane: int) -> Callable[[int], int]:
    """What a lane has at an offset of its own memory."""
    pages = snapshot.pages
    own = {int(n): c for whose, n, c in zip(pages.lanes, pages.numbers, pages.contents, strict=True) if whose == lane}

    def byte(offset: int) -> int:
        number, place = divmod(offset, PAGE)
        page = own.get(number)
        return int((snapshot.base.pages(np.array([number]))[0] if page is None else page)[place])

    return byte


def _stop(snapshot: Snapshot, lane: int) -> str:
    stop = Stop(int(snapshot.state["stop"][lane]))
    if stop is not Stop.FAULT:
        return "goes on" if stop in (Stop.BUDGET, Stop.RUNNING) else stop.name
    access = Access(int(snapshot.state["fault_access"][lane])).name
    return f"{access} fault at {int(snapshot.state['fault_address'][lane]):#x}"
