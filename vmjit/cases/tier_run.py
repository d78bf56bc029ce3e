"""Harts of cases as the lanes of one machine."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vmjit.cases.case_file import CaseFile, decoder_of, floats_before, parse_state, registers_before
from vmjit.cases.hart import RUNNING, Outcome
from vmjit.cases.run_case import budget_of, code_address, entry_address, spans_of
from vmjit.decoders.riscv import parse_isa
from vmjit.decoders.riscv.registers import FLOAT_STATUS, RESERVATION
from vmjit.kernels.layout import PERMISSION_EXECUTE, PERMISSION_READ, PERMISSION_WRITE
from vmjit.machine import Machine
from vmjit.program import Program, Segment
from vmjit.result import RunResult
from vmjit.stops import Access, Stop

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


def program_of(case: CaseFile) -> Program:
    """The case's code and data, as they are before."""
    isa = parse_isa(case.settings["isa"])
    before = parse_state(case.sections["before"], isa.xlen, code_address(case))
    segments = []
    for span in spans_of(case, before):
        permissions = PERMISSION_READ | (PERMISSION_WRITE if span.writable else 0)
        permissions |= PERMISSION_EXECUTE if span.executable else 0
        segments.append(Segment(span.start, len(span.data), bytes(span.data), permissions))
    return Program(tuple(segments), code_address(case), isa)


def start_of(case: CaseFile) -> Start:
    decoder = decoder_of(case.settings["isa"])
    before = parse_state(case.sections["before"], decoder.isa.xlen, code_address(case))
    floats = floats_before(before, decoder)
    registers = registers_before(before, decoder.isa.xlen)
    return Start(entry_address(case), registers, {}, before.retired or 0, before.reserved, floats)


def run_on(case: CaseFile, tier: str, device: str = "cpu") -> Outcome:
    """What the code does on a tier or device; environment calls stop it."""
    machine = Machine(program_of(case), 1, device, tier, "4KiB", environment="bare-metal", fallback=False)
    machine._engine.environment = None
    set_lanes(machine, [start_of(case)])
    return outcomes(machine, machine.run(budget_of(case)))[0]


def set_lanes(m: Machine, starts: list[Start]) -> None:
    """Have each lane as one of `starts`."""
    values = np.array([s.registers for s in starts], np.uint64).T
    for i in range(1, 32):
        m.registers[i] = values[i]
    reserved = [0 if s.reserved is None else s.reserved + 1 for s in starts]
    m._state.registers[RESERVATION] = reserved
    for i, floats in enumerate(zip(*(s.floats for s in starts), strict=True)):
        m._state.registers[FLOAT_STATUS + i] = floats
    m._state.retired[:] = [s.retired for s in starts]
    m.pc = np.array([s.pc for s in starts], np.uint64)
    for address in sorted({a for s in starts for a in s.memory}):
        size = max(len(s.memory.get(address, b"")) for s in starts)
        rows = m.memory.read(address, size)
        for row, start in zip(rows, starts, strict=True):
            data = start.memory.get(address, b"")
            row[: len(data)] = np.frombuffer(data, np.uint8)
        m.memory.write(address, rows)


def outcomes(m: Machine, result: RunResult) -> list[Outcome]:
    """What became of each lane."""
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
