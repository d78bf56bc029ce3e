"""Lane groups in SIMD registers against the references: random programs, instructions on operands that matter, guests.

Groups run in SIMD registers whenever they can here, whether that pays or not, so that lanes part, wait, and leave to the
interpreter in every way there is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings

import vmjit
from tests.cli.conftest import guest
from tests.differential.oracles import machine, program, settle
from tests.differential.programs import DATA, Case, cases
from tests.differential.reference import Reference
from tests.differential.test_edge_operands import CODE, ISA, asm, built, check_computing, operands
from tests.differential.test_random_programs import CONFIGURATIONS, check_state, new_reference
from vmjit import Machine, vector_tier
from vmjit.decoders.riscv.isa import parse_isa
from vmjit.program import Program, Segment
from vmjit.translators.vector_unit import vector_unit

LANES = vector_unit().lanes

# Runs until code for groups is there: hot, met, compiled, and one that uses it.
RUNS = 4


@pytest.fixture(autouse=True, scope="module")
def _always() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vector_tier.POLICIES, "auto", vector_tier.ALWAYS)
        yield


def start(case: Case, m: Machine) -> None:
    """Lane i is the case's lane i, and again from the first where there are no more."""
    rows = [case.registers(lane % case.lanes) for lane in range(m.lanes)]
    for i in range(1, 32):
        m.registers[i] = np.array([r[i] for r in rows], np.uint64)
    memory = [np.frombuffer(case.memory(lane % case.lanes), np.uint8) for lane in range(m.lanes)]
    m.memory.write(DATA, np.stack(memory))


class _Lanes:
    """A case as `check_state` sees it, with the lanes of a whole machine."""

    def __init__(self, case: Case, lanes: int) -> None:
        self.case = case
        self.lanes = lanes

    def __getattr__(self, name: str) -> object:
        return getattr(self.case, name)


def check_groups(case: Case, lanes: int) -> int:
    """Every piece of every run against the reference; gives the instructions retired in SIMD registers."""
    prog = Program(tuple(Segment(*s) for s in case.segments), case.entry, parse_isa(case.isa))
    m = machine(prog, lanes, "auto", threads=1)
    vectored = 0
    for run in range(RUNS):
        if run:
            settle()
            m.reset()
        start(case, m)
        harts: list[Reference] = [new_reference(case, lane) for lane in range(case.lanes)]
        schedule = case.schedule if run % 2 else []
        for piece, limit in enumerate([*schedule, None]):
            result = m.run(limit)
            vectored += result.tiers["simd"]
            for hart in harts:
                hart.run(limit)
            shown = [harts[lane % case.lanes] for lane in range(lanes)]
            check_state(_Lanes(case, lanes), m, shown, "auto", f"run {run}, piece {piece} ({limit})")  # type: ignore[arg-type]
            for lane, hart in enumerate(shown):
                if hart.fault is not None:
                    got = (int(result.fault_address[lane]), int(result.fault_pc[lane]))
                    assert got == (hart.fault.address, hart.pc), f"lane {lane}: fault"
    return vectored


_vectored = 0


def _make(name: str, examples: int) -> object:
    xlen, extensions = CONFIGURATIONS[name]

    @settings(max_examples=examples, suppress_health_check=[HealthCheck.too_slow])
    @given(cases(xlen, extensions))
    def test(case: Case) -> None:
        global _vectored
        try:
            _vectored += check_groups(case, LANES + 3)
        except AssertionError:
            note(case.reproducer("auto"))
            raise

    return test


test_rv32 = _make("rv32imac", 2)
test_rv64 = _make("rv64 all", 2)


def test_they_ran_in_groups() -> None:
    """The random programs above did what they are for."""
    assert _vectored > 1000


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CONFIGURATIONS))
def test_many(name: str) -> None:
    _make(name, 600)()  # type: ignore[operator]


@pytest.mark.parametrize("xlen", [32, pytest.param(64, marks=pytest.mark.slow)])
def test_computing_instructions(xlen: int) -> None:
    code, listed = built(xlen)
    pairs = operands(xlen)
    size = len(listed) * xlen // 8
    prog = program(f"rv{xlen}{ISA}", code + asm.encode("ebreak"), CODE, data=(DATA, size))
    m = machine(prog, len(pairs), "auto")
    for _ in range(RUNS + 1):
        settle()
        m.reset()
        result = check_computing(m, xlen, "auto")
    assert result.tiers["simd"] > len(pairs) // LANES * LANES * len(listed) // 2


@pytest.mark.parametrize("isa", ["rv32im", "rv64imac"])
@pytest.mark.parametrize(
    "name", ["crc32", *(pytest.param(n, marks=pytest.mark.slow) for n in ("sort", "json", "calls"))]
)
def test_guests(name: str, isa: str) -> None:
    """Lanes with other inputs and of other lengths, in one go and in pieces, on two threads."""
    lanes = 2 * LANES + 5
    prog = vmjit.load(guest(name, isa))
    inputs = [struct.pack("<II", 7 + lane, 1 + lane % 3 // 2) for lane in range(lanes)]
    expected = Machine(prog, lanes, "cpu", "interpreter", "16KiB")
    expected.set_input(inputs)
    expected.run()
    place = prog.symbols["input_buffer"]
    m = Machine(prog, lanes, "cpu", "auto", "16KiB", threads=2)
    for run in range(RUNS):
        m.reset()
        m.set_input(inputs)
        vectored = sum(m.run(limit).tiers["simd"] for limit in ([1000, 54_321, 7, None] if run % 2 else [None]))
        assert (m.retired == expected.retired).all()
        assert (m.registers.array() == expected.registers.array()).all()
        assert (m.memory.read(place, 4096) == expected.memory.read(place, 4096)).all()
        settle()
    assert vectored > 0
