"""The same cases on vmjit's tiers: many harts as the lanes of one machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

import vmjit
from tests.differential.oracles import machine, settle
from tests.filetests.hart import RUNNING, Outcome
from vmjit import Access, Stop
from vmjit.decoders.riscv.registers import FLOAT_STATUS, RESERVATION
from vmjit.program import Program

_STOPS = {Stop.EBREAK: "ebreak", Stop.ECALL: "ecall", Stop.UNSUPPORTED: "unsupported", Stop.BUDGET: RUNNING}
_FAULTS = {
    Access.READ: "read",
    Access.WRITE: "write",
    Access.EXECUTE: "fetch",
    Access.MISALIGNED: "misaligned_access",
    Access.MISALIGNED_FETCH: "misaligned_fetch",
}


@dataclass(frozen=True)
class Start:
    """One lane before a run: the 32 registers, and bytes of memory by address."""

    pc: int
    registers: list[int]
    memory: dict[int, bytes]
    retired: int = 0
    reserved: int | None = None
    floats: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """What became of the lanes in one run of a machine; `compiled` counts instructions retired in compiled code."""

    label: str
    outcomes: list[Outcome]
    compiled: int


def run_on_tier(program: Program, starts: list[Start], tier: str, limit: int) -> Iterator[Run]:
    """One lane a start. "auto" is run three times, so that lanes are interpreted first and meet compiled code at last."""
    m = machine(program, len(starts), tier, threads=1)
    m._engine.environment = None  # environment calls stop the lane
    runs = 3 if tier == "auto" else 1
    for number in range(1, runs + 1):
        if number > 1:
            settle()
            m.reset()
        _set(m, starts)
        result = m.run(limit)
        yield Run(f"{tier}, run {number}", _outcomes(m, result), result.tiers["scalar"])


def _set(m: vmjit.Machine, starts: list[Start]) -> None:
    values = np.array([s.registers for s in starts], np.uint64).T
    for i in range(1, 32):
        m.registers[i] = values[i]
    reserved = [0 if s.reserved is None else s.reserved + 1 for s in starts]
    m._state.registers[RESERVATION] = reserved
    for i, values in enumerate(zip(*(s.floats for s in starts), strict=True)):
        m._state.registers[FLOAT_STATUS + i] = values
    m._state.retired[:] = [s.retired for s in starts]
    m.pc = np.array([s.pc for s in starts], np.uint64)
    for address in sorted({a for s in starts for a in s.memory}):
        size = max(len(s.memory.get(address, b"")) for s in starts)
        rows = m.memory.read(address, size)
        for row, start in zip(rows, starts, strict=True):
            data = start.memory.get(address, b"")
            row[: len(data)] = np.frombuffer(data, np.uint8)
        m.memory.write(address, rows)


def _outcomes(m: vmjit.Machine, result: vmjit.RunResult) -> list[Outcome]:
    registers = m.registers.array()
    memory = {s.address: m.memory.read(s.address, s.size) for s in m.program.segments if s.writable}
    found = []
    for lane in range(m.lanes):
        stop = Stop(int(result.stop[lane]))
        faulted = stop is Stop.FAULT
        access = _FAULTS[Access(int(result.fault_access[lane]))] if faulted else ""
        reservation = int(m._state.registers[RESERVATION, lane])
        found.append(
            Outcome(
                [int(v) for v in registers[:, lane]],
                int(m.pc[lane]),
                int(m.retired[lane]),
                "" if faulted else _STOPS[stop],
                (access, int(result.fault_address[lane])) if faulted else None,
                reservation - 1 if reservation else None,
                {address: rows[lane].tobytes() for address, rows in memory.items()},
                [int(v) for v in m._state.registers[FLOAT_STATUS:, lane]],
            )
        )
    return found
