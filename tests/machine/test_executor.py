"""The embedding API: the caller owns the loop, the registers and the memory."""

from __future__ import annotations

import _thread
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import vmjit
from tests.differential.asm import encode
from tests.differential.oracles import TIERS
from tests.differential.reference import Instruction, Memory
from tests.machine.harness import A0, A2, A3, A4, A5, RA, S0, T0, ZERO, Assembly, Hart, ins
from vmjit import Access, ArgumentError, ExecutionResult, Executor, IsaError, Stop
from vmjit.devices.selection import find_gpus

CODE = 0x10000
RAM = 0x80000000
SIZE = 256

everywhere = pytest.mark.parametrize("tier", TIERS)
both = pytest.mark.parametrize("xlen", [32, 64])


@pytest.fixture(autouse=True, params=["cpu", "host"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the test's executors work: a device whose memory is not the caller's keeps what the caller gave, too."""
    monkeypatch.setattr(f"{__name__}.DEVICE", request.param)
    return str(request.param)


DEVICE = "cpu"


def executor(xlen: int = 64, tier: str = "auto", letters: str = "imac") -> Executor:
    return Executor(f"rv{xlen}{letters}", DEVICE, tier=tier, fallback=False)


def registers(xlen: int = 64, lanes: int | None = None, **values: object) -> np.ndarray:
    """(32,) or (32, lanes) registers, zero but for those named by x number."""
    rows = np.zeros(32 if lanes is None else (32, lanes), np.uint32 if xlen == 32 else np.uint64)
    for name, value in values.items():
        rows[int(name[1:])] = value
    return rows


def block(xlen: int = 64) -> Assembly:
    """Straight code that uses memory: leaves at its end."""
    a = Assembly(xlen, CODE)
    a.put("lw", T0, A3)
    a.put("add", A0, A0, T0)
    a.put("sw", 0, A3, A0, imm=4)
    a.put("addi", A3, A3, imm=8)
    return a


def looping(xlen: int = 64) -> Assembly:
    """The block, s0 times."""
    a = Assembly(xlen, CODE)
    a.label("loop")
    a.extend(block(xlen).listing.values())
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="loop")
    return a


def shown(outcome: ExecutionResult) -> tuple[list[int], list[str], list[int]]:
    return outcome.pc.tolist(), [Stop(int(s)).name for s in outcome.stop], outcome.retired.tolist()


# -- one lane


@everywhere
@both
def test_one_lane(xlen: int, tier: str) -> None:
    x = registers(xlen, x10=100, x13=RAM + 8, x0=77, x31=5)
    memory = np.arange(SIZE, dtype=np.uint8)
    before = memory.copy()
    outcome = executor(xlen, tier).execute(block(xlen).code, CODE, x, memory, memory_address=RAM)
    assert isinstance(outcome, ExecutionResult)
    assert shown(outcome) == ([CODE + 16], ["LEFT"], [4])
    word = 0x0B0A0908
    assert (int(x[10]), int(x[5]), int(x[13]), int(x[31])) == (100 + word, word, RAM + 16, 5)
    assert memory[12:16].tobytes() == (100 + word).to_bytes(4, "little")
    memory[12:16] = before[12:16]
    assert (memory == before).all()
    assert outcome.return_data.tolist() == [100 + word]
    assert outcome.return_data.dtype == x.dtype
    assert (outcome.success, outcome.error, outcome.executed_on) == (True, None, DEVICE)
    assert outcome.execution_time_ns > 0
    for name, dtype in (
        ("pc", "u8"),
        ("stop", "i4"),
        ("retired", "u8"),
        ("fault_address", "u8"),
        ("fault_access", "u1"),
    ):
        array = getattr(outcome, name)
        assert (array.shape, array.dtype) == ((1,), np.dtype(dtype)), name


@everywhere
@both
def test_a_loop_becomes_compiled_code(xlen: int, tier: str) -> None:
    """The same call again and again, as an emulator makes it."""
    e = executor(xlen, tier)
    code = looping(xlen).code
    for call in range(1, 6):
        x = registers(xlen, x8=30, x13=RAM)
        memory = np.full(SIZE, call, np.uint8)
        outcome = e.execute(code, CODE, x, memory, memory_address=RAM)
        assert shown(outcome) == ([CODE + 24], ["LEFT"], [180])
        word = call * 0x01010101
        assert outcome.return_data.tolist() == [30 * word & (1 << 32) - 1 if xlen == 32 else 30 * word]
        assert memory[4 + 8 * 29 : 8 + 8 * 29].tobytes() == (30 * word & (1 << 32) - 1).to_bytes(4, "little")


def test_registers_of_any_layout() -> None:
    """A column of a larger array is changed in place too; register 0 of the caller's array is left alone."""
    whole = np.zeros((32, 5), np.uint64)
    whole[13], whole[10], whole[0] = RAM, 7, 9
    memory = np.ones(SIZE, np.uint8)
    e = executor()
    e.execute(block().code, CODE, whole[:, 2], memory, memory_address=RAM)
    assert whole[10].tolist() == [7, 7, 7 + 0x01010101, 7, 7]
    assert whole[0].tolist() == [9] * 5
    backwards = np.zeros((3, 32), np.uint64).T
    backwards[13] = RAM
    e.execute(block().code, CODE, backwards, np.ones((3, SIZE), np.uint8), memory_address=RAM)
    assert backwards[10].tolist() == [0x01010101] * 3


@everywhere
def test_where_a_lane_starts(tier: str) -> None:
    e = executor(tier=tier)
    a = Assembly(64, CODE)
    for k in range(6):
        a.put("addi", A0, A0, imm=1 << k)
    for start, wanted in (
        (None, 63),
        (CODE, 63),
        (CODE + 8, 60),
        (CODE + 20, 32),
        (CODE + 24, 0),
        (0, 0),
        (CODE - 4, 0),
    ):
        outcome = e.execute(a.code, CODE, registers(), pc=start)
        assert outcome.return_data.tolist() == [wanted]
        assert shown(outcome)[:2] == ([CODE + 24 if wanted else start], ["LEFT"])
    for pc in (np.array([CODE + 4, CODE + 20]), np.array([CODE + 4, CODE + 20], np.uint64), [CODE + 4, CODE + 20]):
        outcome = e.execute(a.code, CODE, registers(lanes=2), pc=pc)  # type: ignore[arg-type]
        assert outcome.return_data.tolist() == [62, 32]


@everywhere
def test_budgets(tier: str) -> None:
    e = executor(tier=tier)
    code = looping().code
    for budget in range(40):
        x = registers(x8=5, x13=RAM)
        memory = np.ones(SIZE, np.uint8)
        pc: int | None = None
        total = 0
        stops = []
        while not stops or stops[-1] == "BUDGET":
            outcome = e.execute(code, CODE, x, memory, budget + 1, memory_address=RAM, pc=pc)
            pc = int(outcome.pc[0])
            total += int(outcome.retired[0])
            stops.append(Stop(int(outcome.stop[0])).name)
            assert outcome.success
            assert len(stops) < 100
        assert (pc, total, stops[-1]) == (CODE + 24, 30, "LEFT")
        assert int(x[10]) == 5 * 0x01010101
        assert len(stops) in (30 // (budget + 1), 30 // (budget + 1) + 1)
    nothing = e.execute(code, CODE, registers(x8=5, x13=RAM), np.ones(SIZE, np.uint8), 0, memory_address=RAM)
    assert shown(nothing) == ([CODE], ["BUDGET"], [0])


# -- many lanes


@everywhere
@both
def test_many_lanes_against_the_reference(xlen: int, tier: str) -> None:
    """Lanes that leave, fault, break and call, each where it should, with all its state."""
    a = looping(xlen)
    a.put("beq", rs1=A4, to="break")
    a.put("jalr", RA, A5)
    a.label("break")
    a.put("ebreak")
    lanes = 37
    source = random.Random(4)
    e = executor(xlen, tier)
    for _ in range(3):
        x = registers(xlen, lanes)
        x[8] = [1 + k % 29 for k in range(lanes)]
        x[13] = [RAM + 4 * (k % 7) + (64 if k % 5 else SIZE - 40) for k in range(lanes)]
        x[14] = [k % 3 for k in range(lanes)]
        x[15] = [0x1000 + 4 * k for k in range(lanes)]
        memory = np.frombuffer(source.randbytes(lanes * SIZE), np.uint8).reshape(lanes, SIZE).copy()
        harts = []
        for lane in range(lanes):
            spans = [(CODE, bytearray(a.code), False), (RAM, bytearray(memory[lane].tobytes()), True)]
            harts.append(Hart(xlen, a.listing, CODE, [int(v) for v in x[:, lane]], Memory(spans)))
            harts[-1].run()
        outcome = e.execute(a.code, CODE, x, memory, memory_address=RAM)
        seen = set()
        for lane, hart in enumerate(harts):
            assert hart.stop is not None
            left = hart.fault is not None and hart.fault.access == "fetch"
            stop = Stop.LEFT if left else {"fault": Stop.FAULT, "ebreak": Stop.EBREAK}[hart.stop]
            seen.add(stop)
            assert (int(outcome.pc[lane]), int(outcome.retired[lane])) == (hart.pc, hart.retired), lane
            assert Stop(int(outcome.stop[lane])) is stop, lane
            assert x[:, lane].tolist() == hart.x, lane
            assert memory[lane].tobytes() == bytes(hart.memory.spans[1][1]), lane
            if stop is Stop.FAULT and hart.fault is not None:
                assert int(outcome.fault_address[lane]) == hart.fault.address
                assert int(outcome.fault_access[lane]) in (Access.READ, Access.WRITE)
        assert seen == {Stop.LEFT, Stop.FAULT, Stop.EBREAK}
        assert outcome.return_data.tolist() == x[10].tolist()
        assert not outcome.success


@everywhere
def test_numbers_of_lanes_and_sizes_change_from_call_to_call(tier: str) -> None:
    e = executor(tier=tier)
    for lanes, size in ((1, 64), (5, 64), (5, 65), (1, 4096), (300, 17), (5, 64)):
        x = registers(lanes=lanes, x13=RAM)
        x[10] = np.arange(lanes)
        memory = np.tile(np.arange(size, dtype=np.uint8), (lanes, 1))
        outcome = e.execute(block().code, CODE, x, memory, memory_address=RAM)
        assert outcome.return_data.tolist() == [0x03020100 + k for k in range(lanes)]
        assert [int.from_bytes(row[4:8].tobytes(), "little") for row in memory] == outcome.return_data.tolist()


def test_without_memory() -> None:
    a = Assembly(64, CODE)
    a.put("addi", A0, A0, imm=5)
    a.put("lw", A2, ZERO)
    for memory in (None, np.zeros(0, np.uint8)):
        outcome = executor().execute(a.code, CODE, registers(), memory)
        assert shown(outcome) == ([CODE + 4], ["FAULT"], [1])
        assert outcome.fault_address.tolist() == [0]
        assert outcome.fault_access.tolist() == [Access.READ]


def test_memory_at_both_ends() -> None:
    """At address 0, and up to the last byte of the address space."""
    a = Assembly(64, CODE)
    a.put("sd", 0, A3, A4)
    a.put("ld", A0, A3)
    for xlen, address in ((64, 0), (64, (1 << 64) - SIZE)):
        for offset in (0, 100, SIZE - 8, SIZE - 7):
            memory = np.zeros(SIZE, np.uint8)
            x = registers(xlen, x13=(address + offset) % 2**64, x14=0x0102030405060708)
            outcome = executor(xlen).execute(a.code, CODE, x, memory, memory_address=address)
            if offset == SIZE - 7:
                assert shown(outcome)[1] == ["FAULT"]
                assert not memory.any()
            else:
                assert shown(outcome)[1] == ["LEFT"]
                assert memory[offset : offset + 8].tolist() == [8, 7, 6, 5, 4, 3, 2, 1]


# -- code that changes


@everywhere
def test_other_code_at_the_same_address(tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmjit.executor._KEPT_ENGINES", 8)
    e = executor(tier=tier)
    versions = 12  # more than are kept
    for call in range(3 * versions):
        k = call % versions
        a = Assembly(64, CODE)
        a.put("addi", A0, A0, imm=k)
        a.put("addi", A0, A0, imm=1)
        outcome = e.execute(bytearray(a.code) if call % 2 else a.code, CODE, registers(x10=1000))  # type: ignore[arg-type]
        assert outcome.return_data.tolist() == [1001 + k]
        moved = e.execute(a.code, CODE + 0x1000 * (1 + k), registers(x10=2000))
        assert shown(moved) == ([CODE + 0x1000 * (1 + k) + 8], ["LEFT"], [2])


def test_the_guest_cannot_write_its_code() -> None:
    a = Assembly(64, CODE)
    a.put("lw", A0, A3)
    a.put("sw", 0, A3, A4)
    outcome = executor().execute(a.code, CODE, registers(x13=CODE, x14=1))
    assert shown(outcome) == ([CODE + 4], ["FAULT"], [1])
    assert outcome.return_data.tolist() == [int.from_bytes(a.code[:4], "little")]
    assert outcome.fault_access.tolist() == [Access.WRITE]
    assert outcome.fault_address.tolist() == [CODE]


def test_reservations_do_not_outlive_a_call() -> None:
    a = Assembly(64, CODE)
    a.put("lr.w", A0, A3)
    b = Assembly(64, CODE)
    b.put("sc.w", A0, A3, A4)
    memory = np.zeros(SIZE, np.uint8)
    e = executor()
    e.execute(a.code, CODE, registers(x13=RAM), memory, memory_address=RAM)
    outcome = e.execute(b.code, CODE, registers(x13=RAM, x14=5), memory, memory_address=RAM)
    assert outcome.return_data.tolist() == [1]
    assert not memory.any()
    outcome = e.execute(a.code + b.code, CODE, registers(x13=RAM, x14=5), memory, memory_address=RAM)
    assert outcome.return_data.tolist() == [0]
    assert int(memory[0]) == 5


# -- stops and what is said of them


@everywhere
@both
def test_stops(xlen: int, tier: str) -> None:
    e = executor(xlen, tier)
    nop = Instruction("addi")
    for instruction, stop, success in (
        (ins("ecall"), "ECALL", True),
        (ins("ebreak"), "EBREAK", True),
        (ins("jal", RA, imm=-0x100), "LEFT", True),
        (ins("jalr", ZERO, A3), "LEFT", True),
        (ins("lw", A2, A3), "FAULT", False),
        (ins("sw", 0, A3, A2), "FAULT", False),
    ):
        a = Assembly(xlen, CODE)
        a.extend([nop, nop, instruction, nop])
        outcome = e.execute(
            a.code, CODE, registers(xlen, x13=0x4000, x17=93), np.zeros(SIZE, np.uint8), memory_address=RAM
        )
        pc, stops, retired = shown(outcome)
        assert (stops, outcome.success) == ([stop], success)
        if stop == "LEFT":
            assert (pc, retired) == ([0x4000 if instruction.name == "jalr" else CODE + 8 - 0x100], [3])
        else:
            assert (pc, retired) == ([CODE + 8], [2])


def test_an_emulator_that_serves_calls_itself() -> None:
    """The loop of the README: execute, look at why it stopped, serve, go on behind it."""
    a = Assembly(64, CODE)
    a.put("addi", S0, ZERO, imm=10)
    a.label("loop")
    a.put("add", A0, ZERO, S0)
    a.put("ecall")
    a.put("add", A2, A2, A0)
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="loop")
    e = executor()
    x, pc, retired, calls = registers(), CODE, 0, 0
    while True:
        outcome = e.execute(a.code, CODE, x, pc=pc)
        pc, retired = int(outcome.pc[0]), retired + int(outcome.retired[0])
        if outcome.stop[0] != Stop.ECALL:
            break
        calls += 1
        x[10] = int(x[10]) * 100
        pc += 4
    assert Stop(int(outcome.stop[0])) is Stop.LEFT
    assert (calls, retired, int(x[12])) == (10, 1 + 4 * 10, 5500)


def test_an_interrupt_is_not_lost() -> None:
    """Ctrl-C in code without an end comes to the caller, whose loop would go on otherwise; what was done is there."""
    a = Assembly(64, CODE)
    a.put("addi", A0, A0, imm=1)
    a.put("jal", imm=-4)
    rows = registers()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.2, _thread.interrupt_main)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            executor().execute(a.code, CODE, rows)
    finally:
        timer.cancel()
        timer.join()
        signal.signal(signal.SIGINT, before)
    assert int(rows[A0]) > 1000


def test_errors_name_the_instruction() -> None:
    e = executor()
    a = Assembly(64, CODE)
    a.put("addi", A0, A0, imm=1)
    a.put("lw", A2, A3, imm=-4)
    outcome = e.execute(
        a.code, CODE, registers(lanes=3, x13=[0x1000, RAM + 4, 0x2000]), np.zeros((3, 64), np.uint8), memory_address=RAM
    )
    assert outcome.success is False
    assert outcome.error is not None
    for words in ("lane 0", "FAULT", hex(CODE + 4), "lw", "a2", hex(0x1000 - 4), "2 lanes in all"):
        assert words in outcome.error
    assert "\n" not in outcome.error
    a = Assembly(64, CODE)
    a.unknown(b"\xff\xff\xff\xff")
    outcome = e.execute(a.code, CODE, registers())
    assert outcome.stop.tolist() == [Stop.UNSUPPORTED]
    for words in ("lane 0", "UNSUPPORTED", hex(CODE)):
        assert words in str(outcome.error)
    assert "lanes in all" not in str(outcome.error)


def test_an_odd_start_is_a_fault() -> None:
    for letters, pc in (("imac", CODE + 1), ("im", CODE + 2)):
        outcome = executor(letters=letters).execute(block().code, CODE, registers(), pc=pc)
        assert shown(outcome) == ([pc], ["FAULT"], [0])
        assert outcome.fault_access.tolist() == [Access.MISALIGNED_FETCH]
        assert hex(pc) in str(outcome.error)


# -- what it does not take


def refused(match: str, *arguments: object, **named: object) -> None:
    given: list[object] = [block().code, CODE, registers()]
    given[: len(arguments)] = [a if a is not None else g for a, g in zip(arguments, given, strict=False)]
    x = given[2]
    before = x.copy() if isinstance(x, np.ndarray) else None
    with pytest.raises(ArgumentError, match=match) as caught:
        executor().execute(*given, **named)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    if isinstance(x, np.ndarray):
        assert before is not None
        assert (x == before).all()


def test_registers_of_a_wrong_kind() -> None:
    for wrong in (
        np.zeros(32, np.uint32),
        np.zeros(32, np.int64),
        np.zeros(32, np.float64),
        np.zeros(31, np.uint64),
        np.zeros(33, np.uint64),
        np.zeros((32, 0), np.uint64),
        np.zeros((3, 32), np.uint64),
        np.zeros((32, 1, 1), np.uint64),
        np.zeros((), np.uint64),
        [0] * 32,
    ):
        refused("registers must", None, None, wrong)
    fixed = registers()
    fixed.flags.writeable = False
    refused("registers", None, None, fixed)


def test_memory_of_a_wrong_kind() -> None:
    for wrong in (
        np.zeros(64, np.int8),
        np.zeros((1, 64, 1), np.uint8),
        np.zeros((2, 64), np.uint8),
        np.zeros(128, np.uint8)[::2],
        np.zeros((), np.uint8),
        bytes(64),
        bytearray(64),
    ):
        refused("memory must", memory=wrong, memory_address=RAM)
    three = registers(lanes=3)
    for wrong_rows in (np.zeros(64, np.uint8), np.zeros((2, 64), np.uint8), np.zeros((64, 3), np.uint8).T):
        refused("memory must", None, None, three, memory=wrong_rows, memory_address=RAM)


def test_memory_that_cannot_be_written() -> None:
    """Memory of bytes and read-only maps belongs to somebody who relies on it: the guest must not change it."""
    a = Assembly(64, CODE)
    a.put("sw", 0, A3, A4)
    owner = bytes(64)
    try:
        executor().execute(
            a.code, CODE, registers(x13=RAM, x14=-1 % 2**64), np.frombuffer(owner, np.uint8), memory_address=RAM
        )
    except ArgumentError as error:
        assert "memory" in str(error)
    assert owner == bytes(64)


def test_places_that_cannot_be() -> None:
    refused("overlap", memory=np.zeros(64, np.uint8), memory_address=CODE + 8)
    refused("overlap", memory=np.zeros(64, np.uint8), memory_address=CODE - 8)
    refused("address space", memory=np.zeros(64, np.uint8), memory_address=(1 << 64) - 32)
    refused("address space", memory=np.zeros(64, np.uint8), memory_address=-64)
    refused("address space", None, 1 << 64)
    refused("address space", None, -16)
    refused("start at", None, CODE + 1)
    refused("code|executable", b"")


@pytest.mark.parametrize("limit", [1.5, "5", 1 << 63, 1 << 70, True], ids=str)
def test_budgets_of_a_wrong_kind(limit: object) -> None:
    refused("max_instructions", max_instructions=limit)


def test_a_negative_budget() -> None:
    """In a process of its own, which a kernel without an end could take with it."""
    text = (
        "import numpy as np, vmjit\n"
        "try:\n"
        "    vmjit.Executor('rv64imac').execute(bytes(64), 0x10000, np.zeros(32, np.uint64), max_instructions=-1)\n"
        "except vmjit.ArgumentError as error:\n"
        "    print(error)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"status {done.returncode}: {done.stderr}"
    assert "max_instructions" in done.stdout


@pytest.mark.parametrize("pc", [[CODE, CODE], np.zeros((1, 1), np.uint64), 1.5, "0x10000", 1 << 64], ids=str)
def test_pcs_of_a_wrong_kind(pc: object) -> None:
    refused("pc", pc=pc)


def test_executors_of_a_wrong_kind() -> None:
    for isa in ("rv64", "mips", "rv64i_zoo", ""):
        with pytest.raises(IsaError):
            Executor(isa)
    with pytest.raises(ArgumentError, match="no device"):
        Executor("rv64i", device="toaster")
    with pytest.raises(ArgumentError, match="tier must be"):
        Executor("rv64i", tier="turbo")


# -- placement


def test_no_gpu_and_why() -> None:
    if find_gpus()[0]:
        pytest.skip("there is a GPU")
    e = Executor("rv64i")
    answer = e.can_execute_on_gpu(block().code, CODE, lanes=4096)
    assert isinstance(answer, vmjit.Placement)
    assert not answer
    assert (answer.on_gpu, answer.device) == (False, "cpu")
    assert [r for r in answer.reasons if "NVIDIA" in r]
    assert [r for r in answer.reasons if "ROCm" in r]
    # Instructions without a meaning are named: of another extension, unknown, cut off.
    code = encode("addi") + encode("mul", rd=A0) + b"\xff\xff\xff\xff" + encode("ebreak") + encode("addi")[:3]
    reasons = e.can_execute_on_gpu(code, CODE).reasons[len(answer.reasons) :]
    assert [f"{CODE + place:#x}" in reason for place, reason in zip((4, 8, 16), reasons, strict=False)] == [True] * 3
    assert "33 05 00 02" in reasons[0]
    assert "ff ff ff ff" in reasons[1]
    assert "no GPU" in Executor("rv64i", "host").can_execute_on_gpu(block().code, CODE).reasons[0]
    assert not e.can_execute_on_gpu(b"", CODE)


# -- at once


def test_executors_in_threads() -> None:
    """Each thread has its own; they share the process's compiled code."""
    failures: list[str] = []

    def work(seed: int) -> None:
        e = executor()
        for call in range(30):
            x = registers(x8=20, x13=RAM, x10=seed)
            memory = np.full(SIZE, call, np.uint8)
            outcome = e.execute(looping().code, CODE, x, memory, memory_address=RAM)
            if outcome.return_data.tolist() != [seed + 20 * call * 0x01010101]:
                failures.append(f"{seed}, {call}: {outcome}")

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
