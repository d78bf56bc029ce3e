"""Machines whose lanes are regrouped, beside the same machine in the interpreter: everything that can be seen of them.

Lanes are regrouped here as soon as that can be, whatever it costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tests.differential.oracles import machine, settle
from tests.machine.harness import A0, A2, A3, A4, A5, A7, S0, S1, T0, T1, T2, ZERO, Assembly, ins
from tests.machine.test_lane_groups import LANES, PLACE, RWX, both, compare, counted, interrupted, program, work
from vmjit import Machine, cpu_engine, regrouping, vector_tier
from vmjit.program import Program

MODES = 4
ROUNDS = 30_000
RUNS = 4
MOST_RUNS = 24
SECONDS = 60.0
COUNT = 6 * LANES + 3


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vector_tier.POLICIES, "auto", vector_tier.ALWAYS)
    for name, value in (("_FIRST_LOOK", 0.0), ("_SETTLING", 0.0), ("_TELLING", 1), ("_OF_SPENT", 1e9)):
        monkeypatch.setattr(regrouping, name, value)
    for name in ("_POLL_SECONDS", "_QUIET_POLL_SECONDS"):
        monkeypatch.setattr(cpu_engine, name, 0.0005)


def modes(xlen: int, ends: Callable[[Assembly], None]) -> Assembly:
    """Lanes do A3 rounds of work in the loop that A2 says, then go on to `ends`."""
    a = Assembly(xlen)
    a.li(S1, PLACE)
    a.put("add", T0, ZERO, A3)
    for i in range(MODES - 1):
        a.put("addi", T1, ZERO, imm=i)
        a.put("beq", 0, A2, T1, to=f"mode {i}")
    for i in reversed(range(MODES)):

        def body(number: int = i) -> None:
            work(a)
            a.put("addi", S0, S0, imm=number + 1)
            a.put("mul", S0, S0, S0)
            a.put("xor", S0, S0, T0)

        counted(a, f"mode {i}", body)
        a.put("jal", 0, to="end")
    a.label("end")
    ends(a)
    return a


def stop(a: Assembly) -> None:
    a.put("ebreak")


def by_lane(m: Machine) -> None:
    m.registers[A2] = np.arange(m.lanes) % MODES
    m.registers[A3] = ROUNDS


def check(
    prog: Program,
    lanes: int = COUNT,
    schedule: Sequence[int | None] = (None,),
    *,
    start: Callable[[Machine], None] = by_lane,
    threads: int = 1,
    memory: int = 4096,
) -> None:
    """Run in pieces, again and again while hot loops become known; in the end lanes must have been regrouped."""
    m = machine(prog, lanes, "auto", threads=threads, memory=memory)
    twin = machine(prog, lanes, "interpreter", threads=1, memory=memory)
    for run in range(MOST_RUNS):
        for each in (m, twin):
            if run:
                each.reset()
            start(each)
        for piece, limit in enumerate(schedule):
            got, wanted = m.run(limit, max_seconds=SECONDS), twin.run(limit)
            compare(m, got, twin, wanted, f"run {run}, piece {piece} ({limit})")
        settle()
        if m.statistics.regroupings > 1:
            return
    raise AssertionError("the lanes were never regrouped")


@both
@pytest.mark.parametrize("threads", [1, 2])
def test_lanes_in_four_loops(xlen: int, threads: int) -> None:
    check(program(modes(xlen, stop)), threads=threads)


@pytest.mark.parametrize(("lanes", "memory"), [(8 * LANES, 4096 + 64), (9 * LANES - 1, 70_000)])
def test_lane_counts_and_sizes_of_memory(lanes: int, memory: int) -> None:
    check(program(modes(32, stop)), lanes, memory=memory)


def test_groups_run_in_simd_registers_once_they_are_regrouped() -> None:
    m = machine(program(modes(32, stop)), 8 * LANES, "auto", threads=1)
    share = 0.0
    for _ in range(2 * RUNS):
        by_lane(m)
        m.registers[A3] = 4 * ROUNDS
        result = m.run()
        share = max(share, result.tiers["simd"] / result.instructions)
        settle()
        m.reset()
    assert share > 0.5


def test_budgets_end_while_lanes_are_regrouped() -> None:
    check(program(modes(32, stop)), schedule=(40_000, 50_001, 3, None))


def test_lanes_that_end_in_different_ways() -> None:
    """Faults, breakpoints, exits and output, each lane after rounds of its own."""

    def ends(a: Assembly) -> None:
        for number, name in enumerate(("breakpoint", "fault", "unknown")):
            a.put("addi", T1, ZERO, imm=number)
            a.put("beq", 0, A5, T1, to=name)
        a.put("addi", A0, ZERO, imm=1)
        a.put("addi", 11, S1, imm=2)
        a.put("addi", A2, ZERO, imm=12)
        a.put("addi", A7, ZERO, imm=64)
        a.put("ecall")
        a.put("andi", A0, S0, imm=63)
        a.put("addi", A7, ZERO, imm=93)
        a.put("ecall")
        a.label("fault")
        a.put("sw", 0, S1, S0, -8)
        a.label("unknown")
        a.unknown(b"\xff\xff\xff\xff")
        a.label("breakpoint")
        a.put("ebreak")

    def start(m: Machine) -> None:
        by_lane(m)
        m.registers[A3] = np.where(np.arange(m.lanes) % 7 == 0, 5, ROUNDS) + np.arange(m.lanes)
        m.registers[A5] = np.arange(m.lanes) // 3 % 5

    check(program(modes(64, ends)), start=start)


def test_lanes_whose_code_differs() -> None:
    """Each lane patches its loops before it works, in one of three ways, and lanes of each way share code."""
    words = [ins("xori", S0, S0, imm=i).data(32) for i in range(3)]
    a = Assembly(32)
    a.li(S1, PLACE)
    a.li(T2, 0)
    a.put("sw", 0, T2, A4)
    a.put("fence.i")
    a.put("add", T0, ZERO, A3)

    def body() -> None:
        work(a)
        a.label("patched")
        a.put("addi", S0, S0, imm=1)
        a.put("mul", S0, S0, S0)

    counted(a, "loop", body)
    a.put("ebreak")
    place = a.labels["patched"]
    upper = (place + 0x800) >> 12
    a.replace(a.base + 8, ins("lui", T2, imm=upper))
    a.replace(a.base + 12, ins("addi", T2, T2, imm=place - (upper << 12)))

    def start(m: Machine) -> None:
        chosen = [int.from_bytes(words[lane % 3], "little") for lane in range(m.lanes)]
        m.registers[A4] = np.array(chosen, np.uint64)
        m.registers[A3] = ROUNDS

    check(program(a, RWX), start=start)


def endless() -> Program:
    """T0 counts the turns of one of four endless loops of four instructions, which A2 says."""
    a = Assembly(32)
    for i in range(MODES - 1):
        a.put("addi", T2, ZERO, imm=i)
        a.put("beq", 0, A2, T2, to=f"mode {i}")
    for i in reversed(range(MODES)):
        a.label(f"mode {i}")
        a.put("addi", T0, T0, imm=1)
        a.put("mul", T1, T1, T0)
        a.put("addi", T1, T1, imm=i)
        a.put("jal", 0, to=f"mode {i}")
    return program(a)


def check_endless(m: Machine) -> None:
    """Lanes stand where as many instructions take them as they retired."""
    mode = np.arange(m.lanes) % MODES
    np.testing.assert_array_equal(m.registers[A2], mode)
    np.testing.assert_array_equal(m.registers[A0], np.arange(m.lanes))
    turning = m.retired - np.minimum(mode + 1, MODES - 1) * 2
    np.testing.assert_array_equal(m.registers[T0], ((turning + 3) // 4).astype(np.uint32))


def regrouped_endless(threads: int) -> Machine:
    m = machine(endless(), COUNT, "auto", threads=threads)
    m.registers[A2] = np.arange(m.lanes) % MODES
    for _ in range(RUNS):
        result = m.run(200_001)
        assert (result.retired == 200_001).all()
        check_endless(m)
        settle()
    return m


@pytest.mark.parametrize("threads", [1, 2])
def test_the_time_limit_comes_while_lanes_are_regrouped(threads: int) -> None:
    m = regrouped_endless(threads)
    result = m.run(max_seconds=1.0)
    assert result.timed_out
    assert result.seconds < 20
    assert m.statistics.regroupings > 0
    check_endless(m)


def test_ctrl_c_comes_while_lanes_are_regrouped() -> None:
    m = regrouped_endless(2)
    for _ in range(3):
        interrupted(m, 0.5)
        check_endless(m)
    assert m.statistics.regroupings > 0


def test_what_a_callback_raises_finds_the_lanes_in_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regrouping, "_SETTLING", 10.0)
    m = regrouped_endless(1)
    engine = m._engine.regrouping  # type: ignore[union-attr]
    assert engine is not None
    seen = []

    def progress(stopped: int, instructions: int) -> None:
        seen.append(engine.displaced)
        if engine.displaced:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        m.run(max_seconds=20, progress=progress)
    assert seen[-1]
    assert not engine.displaced
    check_endless(m)
