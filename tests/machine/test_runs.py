"""Runs: going on after each kind of stop, what a result holds, lanes and threads, the GIL, Ctrl-C."""

from __future__ import annotations

import _thread
import contextlib
import json
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vmjit
from tests.differential.oracles import TIERS, machine, program, settle
from tests.machine.harness import A0, A2, A3, A7, CODE, DATA, RA, S0, S1, T0, ZERO, Assembly, Scene, check_on
from tests.machine.interrupted import COUNT, LANES, new_writer
from vmjit import Machine, RunResult, Stop

GUESTS = Path(__file__).resolve().parents[2] / "benchmarks" / "guests" / "bin"

everywhere = pytest.mark.parametrize("tier", TIERS)


def spinner(iterations: int) -> Assembly:
    """a2 = a2 * a3 + 5, `iterations` times: four instructions each, two before the loop."""
    a = Assembly(64)
    a.li(S0, iterations)
    a.label("loop")
    a.put("mul", A2, A2, A3)
    a.put("addi", A2, A2, imm=5)
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="loop")
    a.put("ebreak")
    return a


def spun(factor: int, iterations: int) -> int:
    """What a spinner with this a3 ends with: an affine map, composed with itself by squaring."""
    total, step = (1, 0), (factor, 5)
    while iterations:
        if iterations & 1:
            total = (step[0] * total[0], step[0] * total[1] + step[1])
        step = (step[0] * step[0], step[0] * step[1] + step[1])
        total, step = tuple(v % 2**64 for v in total), tuple(v % 2**64 for v in step)  # type: ignore[assignment]
        iterations >>= 1
    return total[1]


# -- going on


@everywhere
def test_a_lane_that_exited_stays_so(tier: str) -> None:
    """Lane 0 exits at once, the others loop; runs go on with those only."""
    a = Assembly(64)
    a.put("addi", S0, ZERO, imm=60)
    a.put("beq", rs1=A0, to="exit")
    a.label("loop")
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="loop")
    a.label("exit")
    a.put("addi", A0, A0, imm=40)
    a.put("addi", A7, ZERO, imm=93)
    a.put("ecall")
    m = machine(program("rv64imac", a.code), 3, tier)
    first = m.run(50)
    assert first.stops() == {"EXIT": 1, "BUDGET": 2}
    assert first.exit_code.tolist() == [40, -1, -1]
    assert first.retired.tolist() == [5, 50, 50]
    second = m.run()
    assert second.stops() == {"EXIT": 3}
    assert second.exit_code.tolist() == [40, 41, 42]
    assert second.retired.tolist() == [0, 75, 75]
    assert m.retired.tolist() == [5, 125, 125]
    third = m.run()
    assert third.stops() == {"EXIT": 3}
    assert third.exit_code.tolist() == [40, 41, 42]
    assert third.instructions == 0
    assert third.pc.tolist() == second.pc.tolist() == [CODE + 24] * 3


@everywhere
def test_a_breakpoint_is_met_again_until_the_pc_is_moved(tier: str) -> None:
    a = spinner(30)
    end = a.pc - 4
    m = machine(program("rv64imac", a.code), 2, tier)
    for retired in (122, 0, 0):
        result = m.run()
        assert result.stops() == {"EBREAK": 2}
        assert (result.pc.tolist(), result.retired.tolist()) == ([end] * 2, [retired] * 2)
    m.pc = CODE
    assert m.run(10).stops() == {"BUDGET": 2}
    assert m.retired.tolist() == [132] * 2


@everywhere
def test_a_run_of_nothing(tier: str) -> None:
    m = machine(program("rv64imac", spinner(30).code), 2, tier)
    for _ in range(2):
        result = m.run(0)
        assert result.stops() == {"BUDGET": 2}
        assert result.instructions == 0
        assert result.pc.tolist() == [CODE] * 2


# -- results


@everywhere
def test_fields_of_a_result(tier: str) -> None:
    """Shapes and dtypes as documented; lanes that exit, fault, break and use their budget side by side."""
    a = Assembly(32)
    a.put("addi", S0, ZERO, imm=50)
    a.label("loop")
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="loop")
    a.put("jalr", RA, A3)
    exits, loads, breaks, loops = (a.pc + 4 * i for i in (0, 3, 4, 5))
    a.put("addi", A7, ZERO, imm=94)
    a.put("addi", A0, ZERO, imm=-2)
    a.put("ecall")
    a.put("lw", T0, ZERO, imm=0x20)
    a.put("ebreak")
    a.put("jal", imm=0)
    m = machine(program("rv32imac", a.code), 4, tier)
    m.registers["a3"] = [exits, loads, breaks, loops]
    result = m.run(1000)
    assert isinstance(result, RunResult)
    for name, dtype in (
        ("stop", np.int32),
        ("exit_code", np.int64),
        ("retired", np.uint64),
        ("fault_address", np.uint64),
        ("fault_pc", np.uint64),
        ("fault_access", np.uint8),
        ("pc", np.uint64),
    ):
        array = getattr(result, name)
        assert (array.shape, array.dtype) == ((4,), dtype), name
    assert result.stop.tolist() == [Stop.EXIT, Stop.FAULT, Stop.EBREAK, Stop.BUDGET]
    assert result.stops() == {"EXIT": 1, "FAULT": 1, "EBREAK": 1, "BUDGET": 1}
    assert result.exit_code.tolist() == [254, -1, -1, -1]
    assert result.retired.tolist() == [105, 102, 102, 1000]
    assert result.fault_address.tolist() == [0, 0x20, 0, 0]
    assert result.fault_pc.tolist() == [0, loads, 0, 0]
    assert result.fault_access.tolist() == [0, 1, 0, 0]
    assert result.pc.tolist() == [exits + 8, loads, breaks, loops]
    assert result.seconds > 0
    assert set(result.tiers) == {"interpreter", "scalar", "simd"}
    assert sum(result.tiers.values()) == result.instructions == 1309
    assert result.mips == pytest.approx(1309 / result.seconds / 1e6)
    assert (result.unknown_calls, result.device, result.interrupted) == ({}, "cpu", False)
    assert result.output(0) == result.output(-1) == result.error_output(3) == b""
    for lane in (4, -5):
        with pytest.raises(IndexError):
            result.output(lane)
    # A result is of its run: what comes later does not change it.
    m.registers["a3"] = 0
    m.reset()
    m.run()
    assert result.retired.tolist() == [105, 102, 102, 1000]
    assert result.stop.tolist() == [Stop.EXIT, Stop.FAULT, Stop.EBREAK, Stop.BUDGET]


@everywhere
def test_tiers_sum_up_to_what_was_retired(tier: str) -> None:
    m = machine(vmjit.load(GUESTS / "crc32.rv64imac.elf"), 8, tier, memory="16KiB")
    m.set_input([struct.pack("<II", k, 1) for k in range(8)])
    total = 0
    for limit in (1, 10, 1000, 50_000, None, None):
        result = m.run(limit)
        assert sum(result.tiers.values()) == result.instructions
        assert min(result.tiers.values()) >= 0
        total += result.instructions
        settle()
    assert total == int(m.retired.sum())
    m.reset()
    scalar = m.run().tiers["scalar"]
    assert scalar == 0 if tier == "interpreter" else scalar > total * 0.9


def test_results_print_briefly() -> None:
    m = machine(program("rv64imac", spinner(5).code), 3, "interpreter")
    assert "RunResult" in repr(m.run())


# -- lanes and threads


def many(lanes: int, tier: str, threads: int | None) -> tuple[Machine, RunResult]:
    """Lanes with other data and other numbers of iterations each, with calls between."""
    a = Assembly(64)
    a.put("andi", S0, A0, imm=63)
    a.put("addi", S0, S0, imm=1)
    a.label("outer")
    a.put("addi", S1, ZERO, imm=20)
    a.label("loop")
    a.put("mul", A2, A2, A3)
    a.put("add", A2, A2, A0)
    a.put("sd", 0, A3, A2, imm=1)
    a.put("addi", S1, S1, imm=-1)
    a.put("bne", rs1=S1, to="loop")
    a.put("addi", A7, ZERO, imm=1000)
    a.put("add", T0, ZERO, A0)
    a.put("ecall")
    a.put("add", A0, ZERO, T0)
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="outer")
    a.put("ebreak")
    m = machine(program("rv64imac", a.code, data=(DATA, 64)), lanes, tier, threads=threads)
    m.registers["a3"] = DATA + np.arange(lanes) % 24
    m.registers["a2"] = np.arange(lanes) * 7919
    return m, m.run()


def everything(m: Machine, result: RunResult) -> list[Any]:
    return [m.registers.array().tobytes(), m.memory.read(DATA, 64).tobytes(), m.retired.tobytes(), m.pc.tobytes(),
            result.stop.tobytes(), dict(result.unknown_calls)]  # fmt: skip


@everywhere
def test_numbers_of_lanes_and_threads_change_nothing(tier: str) -> None:
    wanted: list[Any] | None = None
    for threads in (1, 2, 8, None):
        found = everything(*many(4096, tier, threads))
        wanted = wanted or found
        assert found == wanted, f"{threads} threads"
        settle()
    assert wanted is not None
    assert wanted[-1] == {1000: sum(i % 64 + 1 for i in range(4096))}
    large, _ = many(4096, tier, None)
    for lanes in (1, 3, 65):
        few, result = many(lanes, tier, 3)
        assert result.stops() == {"EBREAK": lanes}
        whole = large.registers.array()[:, :lanes].copy()
        whole[11] = lanes  # a1, the number of lanes
        assert (few.registers.array() == whole).all()
        assert few.retired.tolist() == large.retired[:lanes].tolist()
        assert (few.memory.read(DATA, 64) == large.memory.read(DATA, 64)[:lanes]).all()


@everywhere
def test_two_machines_in_two_threads(tier: str) -> None:
    """They share the process's code and workers and nothing of their lanes."""
    loaded = vmjit.load(GUESTS / "sort.rv64imac.elf")

    def outputs(first: int) -> list[bytes]:
        m = machine(loaded, 20, tier, memory="16KiB", threads=2)
        m.set_input([struct.pack("<II", first + k, 1) for k in range(20)])
        result = m.run()
        while set(result.stops()) != {"EXIT"}:
            result = m.run(20_000)
        return [result.output(k) for k in range(20)]

    wanted = [outputs(first) for first in (0, 1000)]
    found: list[list[bytes] | None] = [None] * 4

    def work(i: int) -> None:
        for _ in range(3):
            found[i] = outputs(1000 * (i % 2))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == wanted * 2
    assert wanted[0] != wanted[1]


@everywhere
def test_a_program_of_many_lanes_against_the_reference(tier: str) -> None:
    """Lanes take their own ways through two loops; budgets cut them at different places."""
    a = Assembly(64)
    a.put("add", S0, ZERO, A2)
    a.label("outer")
    a.put("andi", S1, S0, imm=7)
    a.label("inner")
    a.put("add", A3, A3, S1)
    a.put("addi", S1, S1, imm=-1)
    a.put("bge", rs1=S1, to="inner")
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="outer")
    a.put("ebreak")
    scene = Scene(a, [{A2: 1 + (k * 13) % 17, A3: k << 40} for k in range(40)])
    check_on(scene, tier, [5, 0, 17, 100, None], threads=2)


# -- the GIL


@everywhere
def test_python_threads_go_on_while_guests_run(tier: str) -> None:
    """In a run that stays in the guests' code all the time, another thread wakes up all the time."""
    m = machine(program("rv64imac", spinner(1 << 30).code), 2, tier, threads=2)
    m.run(1000)
    settle()
    ticks: list[float] = []
    over = threading.Event()

    def tick() -> None:
        while not over.wait(0.002):
            ticks.append(time.perf_counter())

    thread = threading.Thread(target=tick)
    thread.start()
    started = time.perf_counter()
    m.run(150_000_000 if tier == "interpreter" else 500_000_000)
    ended = time.perf_counter()
    over.set()
    thread.join(10)
    during = [t for t in ticks if started < t < ended]
    assert ended - started > 0.05
    # A quarter of what an idle machine would give.
    assert len(during) > (ended - started) / 0.002 / 4


# -- Ctrl-C


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also where the tests were started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted_run(m: Machine, after: float) -> tuple[RunResult, float]:
    """Run with a Ctrl-C after some seconds; gives the seconds from it to the end of the run too."""
    pressed: list[float] = []

    def press() -> None:
        pressed.append(time.perf_counter())
        _thread.interrupt_main()

    timer = threading.Timer(after, press)
    timer.start()
    try:
        result = m.run()
        ended = time.perf_counter()
    finally:
        timer.cancel()
        timer.join()
    return result, ended - pressed[0] if pressed else 0.0


@everywhere
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_run_ends_soon_and_goes_on(threads: int, tier: str) -> None:
    iterations = 100_000_000 if tier == "interpreter" else 300_000_000
    m = machine(program("rv64imac", spinner(iterations).code), 3, tier, threads=threads)
    m.registers["a3"] = factors = np.array([3, 12345, 0xDEADBEEF], np.uint64)
    m.run(100)
    settle()
    result, seconds = interrupted_run(m, 0.1)
    assert result.interrupted
    assert seconds < 1
    assert set(result.stops()) <= {"RUNNING", "EBREAK"}
    assert "RUNNING" in result.stops()
    assert (m.stop == result.stop).all()
    assert sum(result.tiers.values()) == result.instructions
    # Stopped lanes can be looked at: the pc is in the loop, and all the state is of one moment.
    for lane in range(3):
        done = int(m.retired[lane]) - 2
        if result.stop[lane] == Stop.RUNNING and done > 0 and done % 4 == 0:
            assert int(m.registers["a2"][lane]) == spun(int(factors[lane]), done // 4)
            assert int(m.registers["s0"][lane]) == iterations - done // 4
    result = m.run()
    assert not result.interrupted
    assert result.stops() == {"EBREAK": 3}
    assert m.retired.tolist() == [2 + 4 * iterations] * 3
    assert m.registers["a2"].tolist() == [spun(int(f), iterations) for f in factors]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_while_calls_are_served(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes while Python serves a call: the call is made once, neither never nor twice."""
    m = new_writer(5, "interpreter")
    serve = m.environment.serve
    left = [1]

    def interrupted_serve(*arguments: Any) -> Any:
        if moment == "before" and left and left.pop():
            signal.raise_signal(signal.SIGINT)
        found = serve(*arguments)
        if moment == "after" and left and left.pop():
            signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr(m.environment, "serve", interrupted_serve)
    result = m.run()
    assert result.interrupted
    assert m.run().stops() == {"EXIT": 2}
    assert [result.output(lane) for lane in (0, 1)] == [bytes([5, 4, 3, 2, 1])] * 2
    assert m.retired.tolist() == [2 + 5 * 8 + 3] * 2


@pytest.mark.usefixtures("interruptible")
def test_the_second_interrupt_breaks_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """For something that does not come to its end: the first Ctrl-C waits for it, the second does not."""
    m = new_writer(5, "interpreter")

    def stuck(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("goes on after two interrupts")

    with monkeypatch.context() as patch:
        patch.setattr(m.environment, "serve", stuck)
        with contextlib.suppress(KeyboardInterrupt):
            assert m.run().interrupted
    m.reset()
    m.registers["s1"] = DATA
    assert m.run().stops() == {"EXIT": 2}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_many_interrupts_at_any_moment() -> None:
    """Wherever a Ctrl-C comes, in guest code, between passes or while calls are served, nothing is lost or doubled."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "tests.machine.interrupted", "auto"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["interrupted"] > 100
    assert found["exit codes"] == [7] * LANES
    assert found["retired"] == [2 + 8 * COUNT + 3] * LANES
    for output in found["outputs"]:
        assert len(output) == 2 * COUNT
        assert output == bytes(k & 255 for k in range(COUNT, 0, -1)).hex()


# -- progress


@everywhere
def test_progress_is_told(tier: str) -> None:
    seen: list[tuple[int, int]] = []
    m = machine(program("rv64imac", spinner(20_000_000).code), 2, tier, threads=2)
    result = m.run(progress=lambda stopped, retired: seen.append((stopped, retired)))
    assert seen == sorted(seen)
    assert seen[-1] == (2, result.instructions)
    assert all(0 <= stopped <= 2 for stopped, _ in seen)


def test_an_error_in_progress_ends_the_run_and_the_machine_goes_on() -> None:
    m = machine(program("rv64imac", spinner(20_000_000).code), 2, "interpreter", threads=2)

    def fail(stopped: int, retired: int) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        m.run(progress=fail)
    assert m.run().stops() == {"EBREAK": 2}
    assert m.retired.tolist() == [2 + 4 * 20_000_000] * 2


def test_progress_may_look_at_the_machine() -> None:
    """It is called in the thread of the run."""
    m = machine(program("rv64imac", spinner(1000).code), 2, "interpreter")
    threads: list[int] = []
    look: Callable[[int, int], None] = lambda stopped, retired: threads.append(threading.get_ident())  # noqa: E731
    m.run(progress=look)
    assert set(threads) == {threading.get_ident()}
