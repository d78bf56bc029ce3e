"""Random programs on every tier against the plain-Python reference and, without bit manipulation, Unicorn.

Each example runs in pieces: `max_instructions` of its schedule one after the other, then to the end; after each piece
all state must be that of the reference after exactly as many instructions.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, note, settings

from tests.differential.oracles import EVERY_CODE, Unicorn, machine, settle
from tests.differential.programs import CODE, DATA, WINDOW, Case, cases
from tests.differential.reference import Reference
from vmjit import Access, Machine, Stop
from vmjit.decoders.riscv.decoder import Decoder
from vmjit.decoders.riscv.isa import parse_isa
from vmjit.ir.evaluate import Evaluator, Trap
from vmjit.program import Program, Segment

STOPS = {"ebreak": Stop.EBREAK, "fault": Stop.FAULT, "budget": Stop.BUDGET}
ACCESS = {"read": Access.READ, "write": Access.WRITE, "fetch": Access.EXECUTE, "misaligned": Access.MISALIGNED}

CONFIGURATIONS = {
    "rv32imac": (32, frozenset({"c"})),
    "rv64imac": (64, frozenset({"c"})),
    "rv32im": (32, frozenset({"ecall"})),
    "rv64 all": (64, frozenset({"c", "b", "zcb", "counters", "ecall"})),
    "rv32 all": (32, frozenset({"c", "b", "zcb", "counters", "ecall"})),
}


def new_machine(case: Case, tier: str, device: str = "cpu") -> Machine:
    program = Program(tuple(Segment(*s) for s in case.segments), case.entry, parse_isa(case.isa))
    m = machine(program, case.lanes, tier, device=device)
    start(case, m)
    return m


def start(case: Case, m: Machine) -> None:
    registers = [case.registers(lane) for lane in range(case.lanes)]
    for i in range(1, 32):
        m.registers[i] = np.array([r[i] for r in registers], np.uint64)
    rows = [np.frombuffer(case.memory(lane), np.uint8) for lane in range(case.lanes)]
    m.memory.write(DATA, np.stack(rows))


def new_reference(case: Case, lane: int) -> Reference:
    return Reference(case.xlen, case.listing, case.entry, case.registers(lane), case.reference_memory(lane))


def check_state(case: Case, m: Machine, harts: list[Reference], tier: str, piece: str) -> None:
    registers, memory, result = m.registers.array(), m.memory.read(DATA, WINDOW), m.stop
    for lane, hart in enumerate(harts):
        got = (int(m.pc[lane]), int(m.retired[lane]), Stop(int(result[lane])).name)
        want = (hart.pc, hart.retired, STOPS[hart.stop or ""].name)
        assert got == want, f"{tier}, lane {lane}, {piece}: (pc, retired, stop) {got}, want {want}"
        wrong = {
            f"x{i}": (hex(int(registers[i, lane])), hex(v))
            for i, v in enumerate(hart.x)
            if int(registers[i, lane]) != v
        }
        assert not wrong, f"{tier}, lane {lane}, {piece}: (got, want)"
        assert memory[lane].tobytes() == bytes(hart.memory.spans[1][1]), f"{tier}, lane {lane}, {piece}: memory"


def check_tier(case: Case, tier: str, device: str = "cpu") -> None:
    harts = [new_reference(case, lane) for lane in range(case.lanes)]
    m = new_machine(case, tier, device)
    # The last piece is repeated: a lane that stopped for good stops there again, having retired nothing.
    for piece, limit in enumerate([*case.schedule, None, None]):
        if tier == "auto":
            settle()
        result = m.run(limit)
        for hart in harts:
            hart.run(limit)
        check_state(case, m, harts, tier, f"piece {piece} ({limit})")
        for lane, hart in enumerate(harts):
            if hart.fault is not None:
                got = (int(result.fault_address[lane]), int(result.fault_access[lane]), int(result.fault_pc[lane]))
                assert got == (hart.fault.address, ACCESS[hart.fault.access], hart.pc), f"{tier}, lane {lane}: fault"


def check_unicorn(case: Case) -> None:
    """The reference itself, to the end and after the schedule's first pieces."""
    for lane, limit in ((0, 0), (1, 0), (0, sum(case.schedule))):
        hart = new_reference(case, lane)
        hart.run(limit or None)
        if hart.stop == "fault" or hart.disputed:
            continue
        emulator = Unicorn(case.xlen, [(CODE, case.code, 5), (DATA, case.memory(lane), 3)])
        outcome = emulator.run(case.registers(lane), case.entry, count=limit)
        assert (outcome.pc, outcome.retired) == (hart.pc, hart.retired), f"unicorn, lane {lane}: (pc, retired)"
        assert outcome.registers == hart.x, f"unicorn, lane {lane}"
        assert emulator.memory(DATA, WINDOW) == bytes(hart.memory.spans[1][1])


class _EvaluatorMemory:
    def __init__(self, case: Case, lane: int) -> None:
        self.memory = case.reference_memory(lane)
        self.xlen = case.xlen

    def read(self, address: int, size: int) -> bytes:
        if any(self.memory.byte((address + i) & (1 << self.xlen) - 1, False) is None for i in range(size)):
            raise Trap("read", address)
        return self.memory.read(address, size, self.xlen).to_bytes(size, "little")

    def write(self, address: int, data: bytes) -> None:
        if any(self.memory.byte((address + i) & (1 << self.xlen) - 1, True) is None for i in range(len(data))):
            raise Trap("write", address)
        self.memory.write(address, int.from_bytes(data, "little"), len(data), self.xlen)


def check_evaluator(case: Case) -> None:
    """The decoder's IR under the reference evaluator."""
    hart = new_reference(case, 0)
    hart.run()
    decoder = Decoder(parse_isa(case.isa))
    memory = _EvaluatorMemory(case, 0)
    registers = [*case.registers(0), 0]
    evaluator = Evaluator(registers, memory)
    pc, stop = case.entry, ""
    blocks = {}
    while not stop:
        if pc not in blocks:
            blocks[pc] = decoder.block(lambda a, n: case.code[a - CODE : a - CODE + n] if a >= CODE else b"", pc)
        try:
            name, pc = evaluator.run(blocks[pc])
        except Trap as trap:
            stop, pc = "fault", evaluator.pc
            assert hart.fault is not None
            assert trap.address == hart.fault.address
            break
        if name == "ecall":
            registers[10], pc = -38 & (1 << case.xlen) - 1, pc + 4
        elif name == "fence_i":
            pc += 4
        elif name == "ebreak":
            stop = "ebreak"
    assert (stop, pc, evaluator.retired) == (hart.stop, hart.pc, hart.retired), "evaluator: (stop, pc, retired)"
    assert registers[:32] == hart.x
    assert bytes(memory.memory.spans[1][1]) == bytes(hart.memory.spans[1][1])


def check_case(case: Case, tiers: tuple[str, ...] = EVERY_CODE) -> None:
    if not case.uses("rdinstret", "rdcycle") and "b_zbc" not in case.isa:
        check_unicorn(case)
    check_evaluator(case)
    for tier in tiers:
        try:
            check_tier(case, tier)
        except AssertionError:
            note(case.reproducer(tier))
            raise


def _make(name: str, examples: int) -> object:
    xlen, extensions = CONFIGURATIONS[name]

    @settings(max_examples=examples)
    @given(cases(xlen, extensions))
    def test(case: Case) -> None:
        check_case(case)

    return test


test_rv32imac = _make("rv32imac", 45)
test_rv64imac = _make("rv64imac", 45)
test_rv32im_without_compressed = _make("rv32im", 30)
test_rv64_all_extensions = _make("rv64 all", 45)
test_rv32_all_extensions = _make("rv32 all", 45)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CONFIGURATIONS))
def test_many(name: str) -> None:
    _make(name, 1500)()  # type: ignore[operator]
