"""How often instructions ran: against lanes that are stepped one instruction at a time."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import vmjit
from tests.cli.conftest import guest
from tests.differential.asm import encode
from vmjit.compile_thread import COMPILE_THREAD
from vmjit.explain.counting import count_run, counted_machine
from vmjit.explain.explanation import explain
from vmjit.machine import Machine
from vmjit.static_code import StaticCode
from vmjit.translators.vector_unit import vector_unit
from vmjit.vector_tier import ALWAYS

BASE = 0x1000


def stepped(machine: Machine) -> list[Counter[int]]:
    """By lane, how often it executed what is at an address."""
    found = [Counter[int]() for _ in range(machine.lanes)]
    while True:
        pcs = machine.pc.tolist()
        retired = machine.retired.copy()
        result = machine.run(1)
        for lane in np.flatnonzero(machine.retired != retired).tolist():
            found[lane][pcs[lane]] += 1
        if not (result.stop == vmjit.Stop.BUDGET).any():
            return found


def sums_program(base: int = BASE) -> vmjit.Program:
    """a0 += 1 for a1 down to 0; every other step of odd lanes takes a way round. a1 comes from the lane's number."""
    words = [
        encode("addi", rd=10, rs1=0, imm=0),
        encode("andi", rd=12, rs1=11, imm=1),  # 4: loop
        encode("beq", rs1=12, rs2=0, imm=8),
        encode("addi", rd=10, rs1=10, imm=7),
        encode("addi", rd=10, rs1=10, imm=1),
        encode("addi", rd=11, rs1=11, imm=-2),
        encode("blt", rs1=0, rs2=11, imm=-20),
        encode("ebreak"),
    ]
    return vmjit.Program.from_bytes(b"".join(words), "rv64im", base)


def summing(tier: str, lanes: int = 32) -> Machine:
    machine = Machine(sums_program(), lanes, "cpu", tier, memory="4KiB")
    machine.registers["a1"] = np.arange(lanes, dtype=np.uint64) % 6 + 4000
    return machine


@pytest.mark.parametrize("tier", ["auto", "scalar", "simd"])
def test_every_execution_is_counted(tier: str) -> None:
    explanation = explain(sums_program(), BASE + 4, targets=["ir"], make=summing, tier=tier)
    counts = explanation.counts
    assert counts is not None
    single = [Counter[int]() for _ in range(32)]
    for lane, steps in enumerate(single):
        a1, pc = lane % 6 + 4000, BASE
        odd = bool(a1 & 1)
        steps[pc] += 1
        steps[pc + 28] += 1  # it is come to, though it never retires
        while True:
            for offset in (4, 8, *([12] if odd else []), 16, 20, 24):
                steps[BASE + offset] += 1
            a1 -= 2
            if a1 <= 0:
                break
    for pc, count in counts.instructions.items():
        assert count.total == sum(steps[pc] for steps in single), hex(pc)
        assert count.lanes == sum(steps[pc] > 0 for steps in single), hex(pc)
    total = sum(count.total for count in counts.instructions.values())
    assert counts.lanes == 32
    if tier == "scalar":
        assert sum(count.alone for count in counts.instructions.values()) > 0.9 * total
    beq, blt = counts.branches[BASE + 8], counts.branches[BASE + 24]
    assert (beq.always, beq.never, beq.sometimes) == (16, 16, 0)
    assert beq.parts
    assert blt.sometimes == 32
    assert blt.ways == 4  # 2,000 to 2,003 steps


def test_groups_count_the_lanes_that_take_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmjit.cpu_engine.POLICIES", {"auto": ALWAYS, "simd": ALWAYS})
    lanes, steps = 64, 100_000

    def make(tier: str) -> Machine:
        machine = Machine(sums_program(), lanes, "cpu", tier, memory="4KiB")
        machine.registers["a1"] = np.arange(lanes, dtype=np.uint64) % 2 + 1_000_000
        return machine

    machine, counters = counted_machine(make, "simd")
    tiers = Counter[str]()
    for _ in range(20):
        tiers.update(machine.run(steps).tiers)
        COMPILE_THREAD.wait(30)
    region = StaticCode(sums_program()).region(BASE + 4)
    assert region is not None
    counts = count_run((machine, counters), tiers, make, region, 20 * steps)
    odd, all_ = counts.instructions[BASE + 12], counts.instructions[BASE + 4]
    assert all_.grouped > 0.5 * all_.total
    assert all_.active is not None
    half = vector_unit().lanes / 2
    assert odd.active == half
    assert half <= all_.active <= 2 * half
    assert odd.lanes == lanes // 2
    assert sum(c.grouped for c in counts.instructions.values()) == pytest.approx(counts.tiers["simd"], rel=1e-3)


@pytest.mark.parametrize("isa", ["rv32im", "rv64imac"])
def test_a_program_with_calls(isa: str) -> None:
    program = vmjit.load(guest("sort", isa))

    def make(tier: str) -> Machine:
        return Machine(program, 2, "cpu", tier, memory="64KiB")

    explanation = explain(program, "guest_main", targets=["ir"], make=make, max_instructions=4_000)
    counts = explanation.counts
    assert counts is not None
    machine = make("interpreter")
    found = [Counter[int]() for _ in range(2)]
    for _ in range(4_000):
        pcs, retired = machine.pc.tolist(), machine.retired.copy()
        stop = machine.run(1).stop
        for lane in np.flatnonzero(machine.retired != retired).tolist():
            found[lane][pcs[lane]] += 1
        if not (stop == vmjit.Stop.BUDGET).any():
            break
    for pc, count in counts.instructions.items():
        ran = found[0][pc] + found[1][pc]
        assert ran <= count.total <= ran + 2, hex(pc)  # the budget may end in a block, of each lane


def test_counting_leaves_nothing_in_the_cache() -> None:
    """Code that counts is of no use to others."""
    from vmjit.cache import process_cache

    explain(sums_program(), BASE + 4, targets=["ir"], make=summing, tier="scalar")  # has the interpreter compiled
    before = {path for _, _, path in process_cache().disk.files()}

    def elsewhere(tier: str) -> Machine:
        machine = Machine(sums_program(2 * BASE), 32, "cpu", tier, memory="4KiB")
        machine.registers["a1"] = 4000
        return machine

    counts = explain(sums_program(2 * BASE), 2 * BASE + 4, targets=["ir"], make=elsewhere, tier="scalar").counts
    assert counts is not None
    assert counts.instructions[2 * BASE + 4].alone > 10_000
    after = {path for _, _, path in process_cache().disk.files()}
    assert not [path for path in after - before if b"ELF" in path.read_bytes()]
