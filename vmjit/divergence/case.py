"""A difference as a test case of one file that shows it."""

from __future__ import annotations

from vmjit.cases.reduce import Draft
from vmjit.divergence.report import Report
from vmjit.hooks import X_REGISTERS
from vmjit.lane_bytes import LaneBytes
from vmjit.next_instruction import NextInstruction

# Memory ranges that are closer than this are one.
_NEAR = 64
_EBREAK = bytes.fromhex("73001000")


def case_of(report: Report, comment: str) -> Draft:
    """What was executed between the last common state and the difference. ValueError where that is too much for a case.

    Where it ran straight on, the code ends in a breakpoint: compiled code is then executed as a whole.
    """
    d, steps = report.difference, report.steps
    if not steps:
        raise ValueError("the difference did not come again")
    machine = report.left.machine
    start, end = min(s.pc for s in steps), max(s.pc + len(s.data) for s in steps)
    report.left.restore(d.start)
    memory = LaneBytes(machine, d.lane)
    code = _instructions(memory.fetch_all(start, end))
    starts = [start + sum(map(len, code[:i])) for i in range(len(code))]
    if steps[0].pc not in starts:
        raise ValueError("instructions overlap each other")
    straight = int(d.left.state["pc"][d.lane]) == end
    ranges = [(a, memory.peek(a, n)) for a, n in _merged(steps)]
    held = [(a, data) for a, data in ranges if data is not None]
    file = machine._engine.decoder.registers
    shown = list(range(1, X_REGISTERS))
    if file.float_status is not None:
        shown += range(file.float_status, len(file))
    values = d.start.state["registers"][:, d.lane]
    return Draft(
        machine.program.isa,
        start,
        starts.index(steps[0].pc),
        (*code, _EBREAK) if straight else code,
        (
            *(f"{file.shown_name(i)}={int(values[i]):#x}" for i in shown),
            *(f"mem[{a:#x}]={data.hex()}" for a, data in held),
        ),
        tuple((a, len(data)) for a, data in held),
        4 * d.count + 64 if straight else d.count,
        tuple(comment.splitlines()),
    )


def _instructions(code: bytes) -> tuple[bytes, ...]:
    found, place = [], 0
    while place < len(code):
        size = 4 if code[place] & 3 == 3 else 2
        found.append(code[place : place + size])
        place += size
    return tuple(found)


def _merged(steps: tuple[NextInstruction, ...]) -> list[tuple[int, int]]:
    """(address, size) of what instructions touched, in words, those near to each other as one."""
    touched = [(a, max(len(data), 1)) for step in steps for a, data, _ in step.touched]
    ranges = sorted((a & -8, (a + n + 7 & -8) - (a & -8)) for a, n in touched)
    found: list[tuple[int, int]] = []
    for address, size in ranges:
        if found and address <= found[-1][0] + found[-1][1] + _NEAR:
            start = found[-1][0]
            found[-1] = (start, max(found[-1][1], address + size - start))
        else:
            found.append((address, size))
    return found
