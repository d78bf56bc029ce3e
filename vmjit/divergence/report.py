"""A difference in words, and as a test case of one file that shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vmjit.divergence.lane_bytes import LaneBytes
from vmjit.divergence.search import MOST_STEPS, Difference
from vmjit.divergence.sides import Side
from vmjit.divergence.states import bytes_unlike
from vmjit.divergence.steps import Step, steps_from
from vmjit.ir.registers import RegisterFile
from vmjit.machine import Machine
from vmjit.memory_layout import MemoryLayout
from vmjit.snapshot import Snapshot
from vmjit.stops import Access, Stop

# Bytes of memory and instructions that are shown at most.
_MOST_BYTES = 32
_MOST_STEPS = 12
# Memory ranges of a case that are closer than this are one.
_NEAR = 64
_X_REGISTERS = 32


@dataclass(frozen=True, eq=False)
class Report:
    """`culprit` is the number of the step that most likely went wrong: the earliest of those that were the last to
    write something in which the sides differ."""

    difference: Difference
    left: Side
    right: Side
    steps: tuple[Step, ...]
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
    steps = steps_from(left, difference.start, difference.count, difference.lane)
    culprit = _culprit(difference, steps, left, right)
    before = _state_before(left, difference, culprit)
    text = _Text(difference, left, right, steps, culprit, before, place).text()
    return Report(difference, left, right, tuple(steps), culprit, text)


def _registers_unlike(difference: Difference, left: Side, right: Side) -> list[int]:
    a, b = (s.state["registers"][:, difference.lane] for s in (difference.left, difference.right))
    both = set(left.registers) & set(right.registers)
    return [int(i) for i in np.flatnonzero(a != b) if int(i) in both]


def _culprit(difference: Difference, steps: list[Step], left: Side, right: Side) -> int:
    last = []
    for index in _registers_unlike(difference, left, right):
        last += [max((i for i, step in enumerate(steps) if index in step.writes), default=len(steps) - 1)]
    addresses = [
        address_of(left.machine._layout, offset)
        for offset, _, _ in bytes_unlike(difference.left, difference.right, difference.lane)[:_MOST_BYTES]
    ]
    for address in addresses:
        storing = [i for i, step in enumerate(steps) if any(st and a <= address < a + n for a, n, st in step.touched)]
        last.append(max(storing, default=len(steps) - 1))
    return min(last, default=len(steps) - 1)


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
    steps: list[Step]
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

    def _table(self, step: Step) -> list[str]:
        d, lane = self.difference, self.difference.lane
        file = self.left.machine._engine.decoder.registers
        unlike = _registers_unlike(d, self.left, self.right)
        rows: list[tuple[str, ...]] = [("", "before", self.left.name, self.right.name)]
        states = (self.before, d.left, d.right)
        for index in sorted(set(unlike) | {i for i in step.reads | step.writes if i not in file.hidden}):
            values = [int(s.state["registers"][index, lane]) for s in states]
            mark = " *" if index in unlike else ""
            rows.append((_name(file, index), *(f"{value:#x}" for value in values[:2]), f"{values[2]:#x}{mark}"))
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
        number, place = divmod(offset, 4096)
        page = own.get(number)
        return int((snapshot.base.pages(np.array([number]))[0] if page is None else page)[place])

    return byte


def _name(file: RegisterFile, index: int) -> str:
    names = [name for name, other in file.aliases.items() if other == index and name != "fp"]
    return names[0] if names else file.names[index]


def _stop(snapshot: Snapshot, lane: int) -> str:
    stop = Stop(int(snapshot.state["stop"][lane]))
    if stop is not Stop.FAULT:
        return "goes on" if stop in (Stop.BUDGET, Stop.RUNNING) else stop.name
    access = Access(int(snapshot.state["fault_access"][lane])).name
    return f"{access} fault at {int(snapshot.state['fault_address'][lane]):#x}"


# -- a case of one file


def case_text(report: Report, comment: str) -> str:
    """What was executed, as a file for the tests of tiers (`tests/filetests`): the state before, the code, and what the
    trusted side has afterwards. Raises ValueError where code and memory are too far apart for one."""
    return _Case(report, comment).text()


class _Case:
    def __init__(self, report: Report, comment: str) -> None:
        self.report, self.comment = report, comment
        self.difference, self.side = report.difference, report.left
        self.machine: Machine = report.left.machine
        self.file = self.machine._engine.decoder.registers

    def text(self) -> str:
        d, steps = self.difference, self.report.steps
        if not steps:
            raise ValueError("the difference did not come again")
        start, end = min(s.pc for s in steps), max(s.pc + len(s.data) for s in steps)
        self.side.restore(d.start)
        memory = LaneBytes(self.machine, d.lane)
        code = memory.fetch_all(start, end)
        ranges = _merged([(a, n) for step in steps for a, n, _ in step.touched])
        before = {a: memory.peek(a, n) for a, n in ranges}
        self.side.advance(d.count)
        after = {a: memory.peek(a, n) for a, n in ranges}
        settings = [f"# {line}" for line in self.comment.splitlines()]
        settings += ["test: run", f"isa: {self.machine.program.isa}", f"at: {start:#x}"]
        if steps[0].pc != start:
            settings.append(f"entry: {steps[0].pc:#x}")
        there = {a: data for a, data in before.items() if data is not None}
        if there:
            settings.append("memory: " + ", ".join(f"{a:#x} {len(data)}" for a, data in there.items()))
        settings.append(f"budget: {d.count}")
        first = [*self._registers(d.start), *_memory_items(there)]
        then = [*self._changed(), *_memory_items({a: after[a] or b"" for a in there if after[a] != there[a]})]
        then += [f"pc={int(d.left.state['pc'][d.lane]):#x}", *self._end()]
        return "\n".join(
            [
                *settings,
                "",
                "code:",
                *self._listing(start, code),
                "before:",
                *_lines(first),
                "after:",
                *_lines(then),
                "",
            ]
        )

    def _listing(self, start: int, code: bytes) -> list[str]:
        known = {step.pc: step for step in self.report.steps}
        lines, place = [], start
        while place < start + len(code):
            step = known.get(place)
            if step is not None:
                lines.append(f"  {step.data.hex(' ')}   ; {step.text}")
                place += len(step.data)
            else:
                lines.append(f"  {code[place - start : place - start + 2].hex(' ')}")
                place += 2
        return lines

    def _registers(self, snapshot: Snapshot) -> list[str]:
        values = snapshot.state["registers"][:, self.difference.lane]
        shown = list(range(1, _X_REGISTERS))
        if self.file.float_status is not None:
            shown += range(self.file.float_status, len(self.file))
        return [f"{_name(self.file, i)}={int(values[i]):#x}" for i in shown]

    def _changed(self) -> list[str]:
        d = self.difference
        old, new = (s.state["registers"][:, d.lane] for s in (d.start, d.left))
        return [
            f"{_name(self.file, int(i))}={int(new[i]):#x}"
            for i in np.flatnonzero(old != new)
            if int(i) not in self.file.hidden
        ]

    def _end(self) -> list[str]:
        d = self.difference
        retired = int(d.left.state["retired"][d.lane]) - d.retired
        stop = Stop(int(d.left.state["stop"][d.lane]))
        if stop is Stop.FAULT:
            kinds = {Access.READ: "read", Access.WRITE: "write", Access.EXECUTE: "fetch"}
            kinds |= {Access.MISALIGNED: "misaligned_access", Access.MISALIGNED_FETCH: "misaligned_fetch"}
            kind = kinds[Access(int(d.left.state["fault_access"][d.lane]))]
            return [f"fault={kind}:{int(d.left.state['fault_address'][d.lane]):#x}", f"retired={retired}"]
        named = {Stop.EBREAK: "ebreak", Stop.ECALL: "ecall", Stop.UNSUPPORTED: "unsupported"}
        return [f"stop={named.get(stop, 'budget')}", f"retired={retired}"]


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """(address, size) that cover ranges, words with a little around them, apart from each other."""
    found: list[tuple[int, int]] = []
    for address, size in sorted(((a & -8, (a + n + 7 & -8) - (a & -8)) for a, n in ranges)):
        if found and address <= found[-1][0] + found[-1][1] + _NEAR:
            start = found[-1][0]
            found[-1] = (start, max(found[-1][1], address + size - start))
        else:
            found.append((address, size))
    return found


def _memory_items(parts: dict[int, bytes]) -> list[str]:
    return [f"mem[{a:#x}]={data.hex()}" for a, data in parts.items()]


def _lines(items: list[str]) -> list[str]:
    """Items with commas between them, some a line."""
    lines, line = [], ""
    for item in items:
        if line and len(line) + len(item) > 100:
            lines.append(f"  {line.rstrip()}")
            line = ""
        line += f"{item}, "
    return [*lines, f"  {line.rstrip(', ')}"]
