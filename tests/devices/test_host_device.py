"""The device "host": device code against other people's results, the CPU's tiers and the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, note, settings

import vmjit
from tests.cli.conftest import ISAS, guest
from tests.devices.same_as_cpu import check_guest
from tests.differential import asm
from tests.differential.oracles import TIERS, machine, program, settle
from tests.differential.programs import Case, cases
from tests.differential.test_random_programs import CONFIGURATIONS, check_tier
from vmjit import Stop

GUESTS = ("calls", "crc32", "json", "matmul", "montecarlo", "sha256", "sieve", "sort")


@pytest.mark.parametrize(
    ("name", "isa"),
    [
        pytest.param(name, isa, marks=[pytest.mark.slow] * ((name, isa) == ("json", "rv32im")))
        for name in GUESTS
        for isa in ISAS
    ],
)
def test_guests_give_the_same_bits_as_on_the_cpu(name: str, isa: str) -> None:
    """An odd number of lanes, so that a group is not full; the second run is in code compiled meanwhile."""
    check_guest("host", name, isa, "auto", 37)


def _random(name: str, examples: int) -> object:
    xlen, extensions = CONFIGURATIONS[name]

    @settings(max_examples=examples)
    @given(cases(xlen, extensions))
    def test(case: Case) -> None:
        for tier in TIERS:
            try:
                check_tier(case, tier, "host")
            except AssertionError:
                note(case.reproducer(tier).replace("tier=", 'device="host", tier='))
                raise

    return test


test_rv32imac = _random("rv32imac", 12)
test_rv64imac = _random("rv64imac", 12)
test_rv64_all_extensions = _random("rv64 all", 15)
test_rv32_all_extensions = _random("rv32 all", 15)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("xlen", [32, 64])
def test_budgets_are_exact(xlen: int, tier: str) -> None:
    """A loop of three instructions, stopped after each number of them, and run to its end in pieces."""
    loop = asm.encode("addi", xlen, rd=10, rs1=10, imm=1) + asm.encode("addi", xlen, rd=11, rs1=11, imm=-1)
    loop += asm.encode("bne", xlen, rs1=11, imm=-8) + asm.encode("ebreak")
    m = machine(program(f"rv{xlen}i", loop), 40, tier, device="host")
    for limit in (0, 1, 2, 3, 4, 7, 50, 299):
        m.reset()
        m.registers["a0"], m.registers["a1"] = 0, 100
        result = m.run(limit)
        assert result.stops() == {"BUDGET": 40}
        assert (m.retired == limit).all()
        assert (m.registers["a0"] == (limit + 2) // 3).all()
        result = m.run()
        assert result.stops() == {"EBREAK": 40}
        assert (m.retired == 300).all()
        if tier == "auto":
            settle()


@pytest.mark.parametrize("tier", TIERS)
def test_faults_stop_their_lane_only(tier: str) -> None:
    """Lane i runs off its memory at its own iteration; every third lane never does."""
    code = asm.encode("sw", rs1=12, rs2=10, imm=0) + asm.encode("addi", rd=12, rs1=12, imm=4)
    code += asm.encode("addi", rd=10, rs1=10, imm=-1) + asm.encode("bne", rs1=10, imm=-12) + asm.encode("ebreak")
    data = 0x4000_0000
    lanes = 33
    m = machine(program("rv64i", code, data=(data, 256)), lanes, tier, device="host", memory=4096)
    # Heap and stack lie behind the data; what comes after them is not there.
    end = data + 256 + 4096
    steps = np.arange(lanes) % 3 * (np.arange(lanes) + 1)
    m.registers["a2"] = np.uint64(end) - np.uint64(4) * np.maximum(steps, 40).astype(np.uint64)
    m.registers["a0"] = np.where(steps > 0, 1000, 20)
    result = m.run()
    faults = steps > 0
    assert (result.stop == np.where(faults, Stop.FAULT, Stop.EBREAK)).all()
    assert (result.fault_address[faults] == end).all()
    assert (result.fault_pc[faults] == 0x10000).all()
    assert (m.retired[faults] == 4 * np.maximum(steps, 40)[faults]).all()
    assert (m.retired[~faults] == 80).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["counters", "echo", "fault", "lanes", "smc", "syscalls"])
def test_test_guests_end_as_on_the_cpu(name: str, isa: str) -> None:
    prog = vmjit.load(guest(name, isa))
    ended = []
    # Every new version of self-modifying code would be compiled before it runs.
    compiled = "auto" if name == "smc" else "scalar"
    for device, tier in (("cpu", "interpreter"), ("host", "interpreter"), ("host", compiled)):
        m = vmjit.Machine(prog, 35, device, tier, arguments=["guest", "1"])
        m.set_input([bytes([65 + i % 26]) * (i % 7) for i in range(35)])
        result = m.run(2_000_000)
        ended.append(
            (
                result.stop.tolist(),
                result.exit_code.tolist(),
                result.fault_address.tolist(),
                result.fault_pc.tolist(),
                m.retired.tolist(),
                [result.output(i) for i in range(35)],
            )
        )
    assert ended[1] == ended[0]
    assert ended[2] == ended[0]
