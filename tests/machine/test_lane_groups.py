"""Machines whose lanes run in groups, beside the same machine in the interpreter: everything that can be seen of them.

Groups run in SIMD registers whenever they can here, whether that pays or not.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import guest
from tests.differential.oracles import EXECUTE, READ, WRITE, machine, settle
from tests.machine.harness import (
    A0,
    A1,
    A2,
    A3,
    A4,
    A5,
    A7,
    CODE,
    DATA,
    S0,
    S1,
    SP,
    T0,
    T1,
    T2,
    ZERO,
    Assembly,
    ins,
)
from vmjit import Machine, RunResult, vector_tier
from vmjit.decoders.riscv.isa import parse_isa
from vmjit.kernels.layout import GroupState
from vmjit.program import Program, Segment
from vmjit.translators.vector_unit import vector_unit

both = pytest.mark.parametrize("xlen", [32, 64])
LANES = vector_unit().lanes
PLACE = DATA + 2  # the data begins in the middle of a word
BYTES = 256
RWX = READ | WRITE | EXECUTE
SECONDS = 60.0

# Runs until code for groups is there: hot, met, compiled, and one that uses it.
RUNS = 4


@pytest.fixture(autouse=True, scope="module")
def _always() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vector_tier.POLICIES, "auto", vector_tier.ALWAYS)
        yield


def program(assembly: Assembly, permissions: int = READ | EXECUTE) -> Program:
    code = assembly.code
    data = bytes(random.Random(5).randbytes(BYTES))
    segments = (Segment(CODE, len(code), code, permissions), Segment(PLACE, BYTES, data, READ | WRITE))
    return Program(segments, CODE, parse_isa(f"rv{assembly.xlen}imac_zifencei"), name="groups")


def interleaved(m: Machine) -> np.ndarray:
    """By group, whether its memory is interleaved now."""
    return m._engine.lane_memory.groups[: m.lanes // LANES, GroupState.INTERLEAVED // 8] != 0


def compare(m: Machine, got: RunResult, twin: Machine, wanted: RunResult, what: str) -> None:
    assert not got.timed_out, what
    for field in ("stop", "pc", "retired", "exit_code", "fault_address", "fault_pc", "fault_access"):
        np.testing.assert_array_equal(getattr(got, field), getattr(wanted, field), f"{what}: {field}")
    np.testing.assert_array_equal(m.retired, twin.retired, f"{what}: retired")
    np.testing.assert_array_equal(m.registers.array(), twin.registers.array(), f"{what}: registers")
    for span in m._engine.lane_memory.layout.spans:
        if not span.shared:
            mine, others = (x.memory.read(span.lo, span.size) for x in (m, twin))
            np.testing.assert_array_equal(mine, others, f"{what}: memory at {span.lo:#x}")
    assert [got.output(i) for i in range(m.lanes)] == [wanted.output(i) for i in range(m.lanes)], what


def check(
    prog: Program,
    lanes: int,
    schedule: Sequence[int | None] = (None,),
    *,
    start: Callable[[Machine], None] = lambda m: None,
    between: Callable[[Machine, int], None] = lambda m, piece: None,
    threads: int = 1,
    memory: int = 4096,
) -> int:
    """Run in pieces, again and again while code for groups comes to be; gives what ran in SIMD registers last."""
    m = machine(prog, lanes, "auto", threads=threads, memory=memory)
    twin = machine(prog, lanes, "interpreter", threads=1, memory=memory)
    vectored = 0
    for run in range(RUNS):
        for each in (m, twin):
            if run:
                each.reset()
            start(each)
        vectored = 0
        for piece, limit in enumerate(schedule):
            for each in (m, twin):
                between(each, piece)
            got, wanted = m.run(limit, max_seconds=SECONDS), twin.run(limit)
            compare(m, got, twin, wanted, f"run {run}, piece {piece} ({limit})")
            vectored += got.tiers["simd"]
        settle()
    return vectored


def counted(a: Assembly, name: str, body: Callable[[], None], count: int = T0) -> None:
    """A loop that runs its body `count` times."""
    a.label(name)
    body()
    a.put("addi", count, count, imm=-1)
    a.put("bne", 0, count, ZERO, to=name)


def work(a: Assembly) -> None:
    """Something with memory, some at each lane's own address, and a checksum in S0."""
    a.put("andi", T1, S0, imm=0x7C)
    a.put("add", T1, T1, S1)
    a.put("lw", T2, T1, imm=2)
    a.put("add", S0, S0, T2)
    a.put("sw", 0, T1, S0, 2)
    a.put("lbu", T2, S1, imm=9)
    a.put("sb", 0, S1, S0, 9)
    a.put("xor", S0, S0, T2)
    a.put("sh", 0, S1, S0, 12)
    a.put("sw", 0, SP, S0, -16)


ENDS = ("exit", "breakpoint", "bad load", "bad store", "unknown", "jump away", "misaligned jump", "read", "write")


def ending(xlen: int) -> Assembly:
    """Lanes do A3 rounds of work, then what A2 says, then the same with other numbers, until they stop for good."""
    a = Assembly(xlen)
    a.li(S1, PLACE)
    a.label("again")
    a.put("add", T0, ZERO, A3)
    counted(a, "rounds", lambda: work(a))
    for number, name in enumerate(ENDS):
        a.put("addi", T1, ZERO, imm=number)
        a.put("beq", 0, A2, T1, to=name)
    a.label("endless")
    work(a)
    a.put("jal", 0, to="endless")
    a.label("exit")
    a.put("andi", A0, S0, imm=63)
    a.put("addi", A7, ZERO, imm=93)
    a.put("ecall")
    a.label("breakpoint")
    a.put("ebreak")
    a.label("bad load")
    a.put("lw", A0, ZERO, imm=4)
    a.label("bad store")
    a.put("sw", 0, S1, S0, -8)
    a.label("unknown")
    a.unknown(b"\xff\xff\xff\xff")
    a.label("jump away")
    a.put("jalr", 0, S1)
    a.label("misaligned jump")
    a.put("jalr", 0, S0)
    for name, number, first in (("read", 63, 0), ("write", 64, 1)):
        a.label(name)
        a.put("addi", A0, ZERO, imm=first)
        a.put("addi", A1, S1, imm=33)
        a.put("addi", A4, A2, imm=-6)
        a.put("add", A2, ZERO, A4)
        a.put("addi", A7, ZERO, imm=number)
        a.put("ecall")
        a.put("add", S0, S0, A0)
        a.put("lbu", T1, S1, imm=33)
        a.put("add", S0, S0, T1)
        # Every one of these goes on to something else: read, write, exit.
        a.put("addi", A2, ZERO, imm=8 if name == "read" else 0)
        a.put("jal", 0, to="again")
    return a


@pytest.mark.parametrize(
    ("xlen", "schedule"),
    [
        (32, (0, 1, 50, 333, 1, 2000)),
        pytest.param(64, (0, 1, 50, 333, 1, 2000), marks=pytest.mark.slow),
        pytest.param(64, (400, 2000, 2000), marks=pytest.mark.slow),
    ],
    ids=["short32", "short64", "long64"],
)
def test_lanes_that_stop_for_different_reasons(xlen: int, schedule: tuple[int, ...]) -> None:
    """Some have stopped for good while the rest of their group goes on; calls are served meanwhile."""
    lanes = 3 * LANES + 2

    def start(m: Machine) -> None:
        m.registers[A2] = np.array([lane % (len(ENDS) + 1) for lane in range(lanes)], np.uint64)
        # In the first group all do the same, in the second they part at the end, then all along.
        rounds = [9 if lane < 2 * LANES else 3 + lane % 5 for lane in range(lanes)]
        m.registers[A3] = np.array(rounds, np.uint64)
        m.set_input([bytes([lane, 7, lane ^ 0x55] * 4) for lane in range(lanes)])

    assert check(program(ending(xlen)), lanes, schedule, start=start)


@both
def test_one_lane_faults_while_the_others_go_on(xlen: int) -> None:
    """In the middle of a loop that is compiled for the group: a lane's pointer leaves memory."""
    a = Assembly(xlen)
    a.li(S1, PLACE)
    a.put("addi", T0, ZERO, imm=200)

    def body() -> None:
        a.put("lw", T1, A2)
        a.put("add", A2, A2, A3)
        a.put("add", S0, S0, T1)
        a.put("sw", 0, S1, S0, 2)

    counted(a, "loop", body)
    a.put("ebreak")

    def start(m: Machine) -> None:
        m.registers[A2] = PLACE + 2
        m.registers[A3] = np.array([4 if lane % LANES == 5 else 0 for lane in range(m.lanes)], np.uint64)

    assert check(program(a), 2 * LANES, (17, 100, None), start=start)


def patching(xlen: int) -> Assembly:
    """Work, then patch an instruction of the loop with the word in A4 if A5 is not zero, and work again."""
    a = Assembly(xlen)
    a.li(S1, PLACE)
    a.li(A3, 0)
    a.put("addi", A1, ZERO, imm=4)
    a.label("again")
    a.put("addi", T0, ZERO, imm=30)

    def body() -> None:
        work(a)
        a.label("patched")
        a.put("addi", S0, S0, imm=1)

    counted(a, "rounds", body)
    a.put("beq", 0, A5, ZERO, to="same")
    a.put("sw", 0, A3, A4)
    a.put("fence.i")
    a.label("same")
    a.put("addi", A1, A1, imm=-1)
    a.put("bne", 0, A1, ZERO, to="again")
    a.put("ebreak")
    place = a.labels["patched"]
    upper = (place + 0x800) >> 12
    a.replace(CODE + 8, ins("lui", A3, imm=upper))
    a.replace(CODE + 12, ins("addi" if xlen == 32 else "addiw", A3, A3, imm=place - (upper << 12)))
    return a


@both
@pytest.mark.parametrize("kinds", [1, 2, 5], ids=["alike", "two kinds", "many kinds"])
def test_code_that_changes_itself(xlen: int, kinds: int) -> None:
    """Lanes of a group have the same new code, or each its own."""
    words = [ins("xori", S0, S0, imm=i).data(xlen) for i in range(kinds)]

    def start(m: Machine) -> None:
        chosen = [int.from_bytes(words[lane % kinds], "little") for lane in range(m.lanes)]
        m.registers[A4] = np.array(chosen, np.uint64)
        m.registers[A5] = np.array([kinds == 1 or lane % 3 for lane in range(m.lanes)], np.uint64)

    check(program(patching(xlen), RWX), 2 * LANES + 1, start=start)


@pytest.mark.parametrize(
    ("lanes", "threads"),
    [(LANES - 1, 2), (LANES, 1), (LANES + 1, 2), (2 * LANES - 1, 1), (2 * LANES, 2), (4 * LANES + 3, 2)],
)
def test_lane_counts_around_multiples_of_the_group(lanes: int, threads: int) -> None:
    a = Assembly(32)
    a.li(S1, PLACE)
    a.put("andi", T0, A0, imm=3)
    a.put("addi", T0, T0, imm=20)
    counted(a, "loop", lambda: work(a))
    a.put("ebreak")
    vectored = check(program(a), lanes, (100, None), threads=threads)
    assert (vectored > 0) == (lanes >= LANES)


# Sizes of heap and stack around those of a page and of what is laid out at once; the data before them adds 256 bytes.
@pytest.mark.parametrize(
    "memory", [256, 4096 + 64, *(pytest.param(n, marks=pytest.mark.slow) for n in (4096 - 320, 4096, 16_576, 300_000))]
)
def test_memory_of_any_size_is_laid_out_and_back(memory: int) -> None:
    """Guests and host write all over it, in turns, whichever way it lies."""
    a = Assembly(32)
    a.li(S1, PLACE)
    a.put("addi", T0, ZERO, imm=40)

    def body() -> None:
        work(a)
        a.put("add", A2, A2, A3)
        a.put("bltu", 0, A2, SP, to="inside")
        a.put("addi", A2, S1, imm=2)
        a.label("inside")
        a.put("sw", 0, A2, S0)

    counted(a, "loop", body)
    a.put("ebreak")
    seen = set()

    def between(m: Machine, piece: int) -> None:
        source = random.Random(f"{memory} {piece}")
        if m.tier == "auto":
            seen.update(interleaved(m).tolist())
        end = m.environment.stack_top
        m.memory.write(end - 24, np.frombuffer(source.randbytes(24 * m.lanes), np.uint8).reshape(m.lanes, 24))
        for _ in range(6):
            size = source.choice([1, 2, 3, 4, 7, 64, 129])
            at = source.randrange(PLACE, end - size)
            m.memory.write(at, np.frombuffer(source.randbytes(size * m.lanes), np.uint8).reshape(m.lanes, size))
            at = source.randrange(PLACE, end - size)
            m.memory.write(at, source.randbytes(size))

    def start(m: Machine) -> None:
        m.registers[A2] = PLACE + 2
        m.registers[A3] = (memory // 23 + 7) & -4

    lanes = 2 * LANES + 1
    assert check(program(a), lanes, (90, 33, 200, None), start=start, between=between, memory=memory)
    assert seen == {False, True}


def test_memory_is_laid_out_back_where_lanes_part() -> None:
    """All lanes together, then for long in four loops, then together."""
    a = Assembly(32)
    loops = 4
    a.li(S1, PLACE)
    a.label("again")
    a.put("addi", T0, ZERO, imm=60)
    counted(a, "together", lambda: work(a))
    a.put("addi", T0, ZERO, imm=400)
    a.put("andi", A2, A0, imm=loops - 1)
    for i in range(loops):
        a.put("addi", T1, ZERO, imm=i)
        a.put("beq", 0, A2, T1, to=f"own {i}")
    for i in range(loops):
        counted(a, f"own {i}", lambda: work(a))
        a.put("jal", 0, to="again")
    lay: list[list[bool]] = []

    def between(m: Machine, piece: int) -> None:
        if m.tier == "auto":
            lay.append(interleaved(m).tolist())

    assert check(program(a), 2 * LANES, (500, 600, 2000, 2000, 1500, 5000), between=between)
    for group in range(2):
        turns = {(was[group], now[group]) for was, now in itertools.pairwise(lay)}
        assert {(False, True), (True, False)} <= turns


def test_reset_of_interleaved_memory() -> None:
    a = Assembly(64)
    a.li(S1, PLACE)
    a.put("addi", T0, ZERO, imm=50)
    counted(a, "loop", lambda: work(a))
    a.put("ebreak")
    m = machine(program(a), 2 * LANES, "auto", threads=1)
    fresh = m.memory.read(PLACE, BYTES)
    was = []
    for _ in range(RUNS):
        m.run(300)
        settle()
        m.run()
        was.append(bool(interleaved(m).any()))
        m.reset()
        np.testing.assert_array_equal(m.memory.read(PLACE, BYTES), fresh)
        assert not m.memory.read(m.environment.heap_start, m.environment.stack_top - m.environment.heap_start).any()
    assert any(was)


def endless(xlen: int) -> Program:
    """T0 counts the turns of an endless loop of four instructions, which no compiler can foresee."""
    a = Assembly(xlen)
    a.label("loop")
    a.put("addi", T0, T0, imm=1)
    a.put("mul", T1, T1, T0)
    a.put("add", T1, T1, T0)
    a.put("jal", 0, to="loop")
    return program(a)


def check_endless(m: Machine) -> None:
    """Lanes stand where as many instructions take them as they retired."""
    turns = (m.retired + np.uint64(3)) // np.uint64(4)
    np.testing.assert_array_equal(m.registers[T0], turns.astype(m.registers[T0].dtype))
    np.testing.assert_array_equal(m.pc, CODE + m.retired % 4 * 4)


@both
@pytest.mark.parametrize("threads", [1, 2])
def test_the_time_limit_comes_while_groups_run(xlen: int, threads: int) -> None:
    m = machine(endless(xlen), 3 * LANES + 1, "auto", threads=threads)
    for _ in range(RUNS):
        result = m.run(5001)
        assert result.stops() == {"BUDGET": m.lanes}
        assert (result.retired == 5001).all()
        check_endless(m)
        settle()
    result = m.run(max_seconds=0.2)
    assert result.timed_out
    assert result.seconds < 10
    assert result.tiers["simd"] > 0
    check_endless(m)


def interrupted(m: Machine, seconds: float) -> RunResult:
    """A run that Ctrl-C ends after some seconds."""
    press = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    press.start()
    result = m.run(max_seconds=SECONDS)
    press.join()
    assert result.interrupted
    return result


def test_ctrl_c_comes_while_groups_run() -> None:
    m = machine(endless(32), 2 * LANES, "auto", threads=2)
    for _ in range(RUNS):
        m.run(5000)
        settle()
    for _ in range(3):
        result = interrupted(m, 0.1)
        assert not result.timed_out
        assert result.tiers["simd"] > 0
        check_endless(m)


def test_lanes_of_a_group_that_the_host_set_apart() -> None:
    """Registers, pcs and stops that the host changes between runs."""
    a = Assembly(32)
    a.li(S1, PLACE)
    a.label("loop")
    work(a)
    a.put("addi", T0, T0, imm=-1)
    a.put("bne", 0, T0, ZERO, to="loop")
    a.put("ebreak")
    loop = a.labels["loop"]

    def between(m: Machine, piece: int) -> None:
        source = random.Random(piece)
        row = m.registers[T0]
        row[:] = [source.randrange(1, 60) for _ in range(m.lanes)]
        m.registers[T0] = row
        if piece:
            places = [loop, loop + 4, CODE, loop + 12]
            m.pc = np.array([source.choice(places) if source.random() < 0.3 else loop for _ in range(m.lanes)])
            m.registers[SP] = m.environment.stack_top - 64 * source.randrange(2)

    assert check(program(a), 2 * LANES, (100, 150, 1000, 77, 500), between=between)


def test_lanes_that_share_a_read_only_image() -> None:
    """Read by all at one address, at each lane's own, and across its end, where it is a fault."""
    a = Assembly(32)
    table = 0x60000
    a.li(S1, table)
    a.put("addi", T0, ZERO, imm=64)

    def body() -> None:
        a.put("andi", T1, S0, imm=0xFC)
        a.put("add", T1, T1, S1)
        for name, at in itertools.product(("lw", "lh", "lbu"), (0, 1)):
            a.put(name, T2, T1, imm=at)
            a.put("add", S0, S0, T2)
            a.put(name, T2, S1, imm=at)
            a.put("xor", S0, S0, T2)

    counted(a, "loop", body)
    a.put("add", S1, S1, A2)
    a.put("lw", T2, S1)
    a.put("ebreak")
    code = a.code
    image = random.Random(9).randbytes(260)
    segments = (
        Segment(CODE, len(code), code, READ | EXECUTE),
        Segment(table, len(image), image, READ),
        Segment(PLACE, BYTES, b"", READ | WRITE),
    )
    prog = Program(segments, CODE, parse_isa("rv32imac"), name="table")

    def start(m: Machine) -> None:
        m.registers[A2] = np.array([256 + lane % 3 for lane in range(m.lanes)], np.uint64)
        m.registers[S0] = np.array([lane // LANES * lane for lane in range(m.lanes)], np.uint64)

    assert check(prog, 2 * LANES, start=start)


def test_code_in_several_places() -> None:
    """A loop in the second of two executable segments, too far from the first one for one table."""
    a, far = Assembly(32), Assembly(32, base=0x70000000)
    a.li(S1, PLACE)
    a.li(A3, far.base)
    a.put("jalr", 0, A3)
    far.put("addi", A2, ZERO, imm=6)
    far.label("again")
    far.put("addi", T0, ZERO, imm=40)
    counted(far, "loop", lambda: work(far))
    far.put("addi", A2, A2, imm=-1)
    far.put("bne", 0, A2, ZERO, to="again")
    far.put("ebreak")
    segments = (
        Segment(CODE, 256, a.code, READ | EXECUTE),  # the larger one comes first
        Segment(PLACE, BYTES, b"", READ | WRITE),
        Segment(far.base, len(far.code), far.code, READ | EXECUTE),
    )
    prog = Program(segments, CODE, parse_isa("rv32imac"), name="two places")
    assert check(prog, LANES + 1, (200, None))


_TWICE = """
import json, struct, sys
import vmjit
from vmjit import vector_tier
from vmjit.compile_thread import COMPILE_THREAD

path, runs = sys.argv[1:]
vector_tier.POLICIES["auto"] = vector_tier.ALWAYS
m = vmjit.Machine(vmjit.load(path), 40, "cpu", "auto", "16KiB", threads=1)
simd = 0
for _ in range(int(runs)):
    m.reset()
    m.set_input([struct.pack("<II", seed, 1) for seed in range(40)])
    r = m.run()
    simd += r.tiers["simd"]
    COMPILE_THREAD.wait()
s = m.statistics
print(json.dumps([s.compiles, s.cache.compiles, simd, [r.output(i).hex() for i in range(40)]]))
"""


def test_a_second_process_compiles_nothing_for_groups(tmp_path: Path) -> None:
    def run(runs: int, forbid: int) -> list[object]:
        environment = {**os.environ, "VMJIT_CACHE_DIR": str(tmp_path), "VMJIT_FORBID_COMPILE": str(forbid)}
        command = [sys.executable, "-c", _TWICE, guest("crc32", "rv32im"), str(runs)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        found: list[object] = json.loads(done.stdout)
        return found

    cold, warm = run(RUNS + 2, 0), run(3, 1)
    assert cold[0] > 0  # type: ignore[operator]
    assert warm[:2] == [0, 0]
    assert warm[2] > 0  # type: ignore[operator]
    assert warm[3] == cold[3]


_OTHER_UNIT = """
import sys
import vmjit.translators.vector_unit as unit

found = unit.VectorUnit(int(sys.argv[1]), gathers=False)
unit.vector_unit = lambda: found  # before anything asks
import pytest

tests = "test_memory or test_lanes_that_stop or share_a_read_only"
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", sys.argv[2], "-k", tests]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [4, 8, 16, 32])
def test_groups_as_on_other_computers(lanes: int, tmp_path: Path) -> None:
    """Some of these tests with as many lanes as other vector registers have."""
    environment = {**os.environ, "VMJIT_CACHE_DIR": str(tmp_path), "VMJIT_TEST_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", _OTHER_UNIT, str(lanes), __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout
