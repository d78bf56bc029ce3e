"""What a machine may be asked for: arguments that make no sense, limits, and what it costs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import vmjit
from tests.differential.oracles import READ, WRITE, program
from tests.machine.harness import CODE, DATA, S0, SP, T0, ZERO, Assembly
from vmjit import ArgumentError, Machine, MemoryLimitError
from vmjit.decoders.riscv.isa import parse_isa
from vmjit.memory_layout import parse_size
from vmjit.program import Program, Segment


def short(xlen: int = 64) -> Program:
    a = Assembly(xlen)
    a.put("addi", T0, T0, imm=1)
    a.put("ebreak")
    return program(f"rv{xlen}imac", a.code)


def message(**arguments: object) -> str:
    """What the machine says to arguments that make no sense: one line of its own words."""
    with pytest.raises((ArgumentError, MemoryLimitError)) as caught:
        Machine(short(), **arguments)  # type: ignore[arg-type]
    text = str(caught.value)
    assert text
    assert "\n" not in text
    assert len(text) < 300
    return text


@pytest.mark.parametrize("lanes", [0, -1, True, False, 2**40, 10**30, "3", 1.0, None, [1], float("nan"), np.float64(2)])
def test_lanes_that_are_none(lanes: object) -> None:
    assert message(lanes=lanes).startswith("lanes must be a number from 1 to")


@pytest.mark.parametrize("lanes", [1, np.int64(3), np.uint8(2)])
def test_lanes(lanes: int) -> None:
    m = Machine(short(), lanes=lanes, memory=256)
    assert m.lanes == int(lanes)
    assert m.run().stops() == {"EBREAK": int(lanes)}


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        (0, "at least 256 bytes"),
        (-5, "at least 256 bytes"),
        (255, "at least 256 bytes"),
        ("1", "at least 256 bytes"),
        ("12XB", "cannot read the memory size '12XB'"),
        ("1e9", "cannot read the memory size"),
        ("-5", "cannot read the memory size"),
        ("", "cannot read the memory size"),
        ("KiB", "cannot read the memory size"),
        ("1.5MiB", "cannot read the memory size"),
        ("1 Mi B", "cannot read the memory size"),
        ("0x1000", "cannot read the memory size"),
        ("9" * 5000, "memory size"),
        ("9" * 5000 + "KiB", "memory size"),
        ("9" * 100, "memory size"),
        (2**64, "more than can be addressed"),
        (2**63, "more than can be addressed"),
        ("99999999GiB", "more than can be addressed"),
        (True, "a memory size is a number of bytes or text"),
        (1e6, "a memory size is a number of bytes or text"),
        ([1024], "a memory size is a number of bytes or text"),
        (b"1MiB", "a memory size is a number of bytes or text"),
    ],
    ids=lambda value: str(value)[:20] if not isinstance(value, int) or value < 1 << 70 else "huge",
)
def test_memory_that_cannot_be(memory: object, words: str) -> None:
    assert words in message(memory=memory)


def test_memory_above_a_narrow_address_space() -> None:
    for memory in (1 << 32, "4GiB", "5G"):
        with pytest.raises(ArgumentError, match="more than can be addressed"):
            Machine(short(32), memory=memory)
    # As large as it can be, but then there is no room beside the program.
    with pytest.raises(
        ArgumentError, match="no room for 0xffffffff bytes of heap and stack in the 32-bit address space"
    ):
        Machine(short(32), memory=(1 << 32) - 1)


def test_absurd_totals() -> None:
    """Each lane's memory can be had, all together cannot; that is said at once."""
    started = time.perf_counter()
    assert "more than can be addressed" in message(lanes=1 << 26, memory="1GiB")
    assert "more than can be addressed" in message(lanes=1 << 20, memory="1024GiB")
    assert time.perf_counter() - started < 1
    assert Machine(short(), 3).run().stops() == {"EBREAK": 3}


def test_segments_count_too() -> None:
    """A segment of a program can be larger than any host's memory, though its file is small."""
    code = Segment(CODE, 4, b"\x73\x00\x10\x00", 5)
    for size, permissions in ((1 << 62, READ | WRITE), (1 << 62, READ), (1 << 50, READ | WRITE)):
        big = Program((code, Segment(1 << 63, size, b"", permissions)), CODE, parse_isa("rv64imac"))
        with pytest.raises((MemoryLimitError, ArgumentError)) as caught:
            Machine(big, lanes=4)
        assert "memory" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("256", 256), ("256B", 256), ("1KiB", 1024), ("1k", 1024), ("1kB", 1000), ("1MiB", 1 << 20),
     ("2 MB", 2_000_000), (" 3gib ", 3 << 30), ("2G", 2 << 30), ("1GB", 10**9), (77, 77)],
)  # fmt: skip
def test_sizes(text: int | str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("threads", [0, -1, 10**9, 1 << 70, True, False, "2", 1.5, np.float64(2), []])
def test_threads_that_are_none(threads: object) -> None:
    assert "threads" in message(threads=threads)


def test_threads() -> None:
    for threads in (None, 1, 64, np.int64(2)):
        assert Machine(short(), lanes=5, threads=threads).run().stops() == {"EBREAK": 5}  # type: ignore[arg-type]


def test_tiers_and_devices() -> None:
    assert message(tier="turbo") == "tier must be one of auto, interpreter, scalar, simd, got 'turbo'"
    assert "got None" in message(tier=None)
    assert "got 5" in message(tier=5)
    assert message(device="toaster").startswith("no device 'toaster'")
    assert "device" in message(device=None)
    for device in ("auto", "cpu"):
        assert Machine(short(), device=device).device == "cpu"


@pytest.mark.parametrize(
    "limit", [-1, -(10**30), 1 << 62, 1 << 64, 10**30, 1.0, float("inf"), float("nan"), True, "5", [5], np.float64(5)]
)
def test_limits_that_are_none(limit: object) -> None:
    m = Machine(short(), 2)
    with pytest.raises(ArgumentError, match="max_instructions must be"):
        m.run(limit)  # type: ignore[arg-type]
    assert m.retired.tolist() == [0, 0]
    assert m.run(np.int64(1)).retired.tolist() == [1, 1]  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [[5], [None], 5, [1.5], [["a"]]])
def test_arguments_that_are_no_text(arguments: object) -> None:
    with pytest.raises((ArgumentError, TypeError)):
        Machine(short(), arguments=arguments)  # type: ignore[arg-type]


def test_numbers_too_long_to_be_printed() -> None:
    """Python refuses to write numbers of more than 4,300 digits in decimal."""
    for name in ("lanes", "threads", "memory"):
        with pytest.raises(ArgumentError, match=name):
            Machine(short(), **{name: 10**5000})  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="max_instructions"):
        Machine(short()).run(10**5000)


# -- what a machine costs


@pytest.mark.parametrize("xlen", [32, 64])
@pytest.mark.parametrize("memory", [256, 4096, 1 << 20])
def test_memory_of_a_lane(xlen: int, memory: int) -> None:
    """Beside the guest's own memory, a lane needs less than 1 KiB; large memory is whole pages."""
    data = 1000
    room = 1024 + (2 * 4096 if memory > 1 << 14 else 0)
    a = Assembly(xlen)
    a.put("ebreak")
    m = Machine(program(f"rv{xlen}imac", a.code, data=(DATA, data)), 10, memory=memory)
    assert memory + data <= m.memory_per_lane() < memory + data + room
    assert m._lane_memory.rows.strides[0] < memory + data + room


_MEASURE = """
import os, sys
import numpy as np
import vmjit
from vmjit.program import Program
from vmjit.compile_thread import COMPILE_THREAD

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

code, lanes, tier = bytes.fromhex(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
program = Program.from_bytes(code, "rv64imac", writable=False)

def run(lanes):
    machine = vmjit.Machine(program, lanes, tier=tier, memory="1MiB")
    result = machine.run()
    assert result.stops() == {"EXIT": lanes}, result.stops()
    assert int(result.retired.min()) > 400
    assert result.output(lanes - 1) == bytes(8)
    return machine

run(4096)
COMPILE_THREAD.wait(60)
kept = run(10)
before = resident()
machine = run(lanes)
COMPILE_THREAD.wait(60)
print(resident() - before, machine.memory_per_lane())
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's /proc")
@pytest.mark.parametrize("tier", ["interpreter", "auto"])
def test_resident_memory_of_many_lanes(tier: str) -> None:
    """16,384 lanes of 1 MiB that touch one page each cost that page and less than 1 KiB."""
    lanes = 16_384
    a = Assembly(64)
    a.put("addi", S0, ZERO, imm=100)
    a.label("loop")
    a.put("sd", 0, SP, ZERO, imm=-8)
    a.put("ld", T0, SP, imm=-16)
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="loop")
    for register, value in ((10, 1), (12, 8), (17, 64)):
        a.put("addi", register, ZERO, imm=value)
    a.put("addi", 11, SP, imm=-8)
    a.put("ecall")
    a.put("addi", 17, ZERO, imm=93)
    a.put("ecall")
    command = [sys.executable, "-c", _MEASURE, a.code.hex(), str(lanes), tier]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    grown, per_lane = (int(word) for word in done.stdout.split())
    touched = os.sysconf("SC_PAGE_SIZE")
    assert touched * lanes * 0.9 < grown < (touched + 1024) * lanes, f"{grown / lanes:.0f} bytes a lane"
    assert (1 << 20) < per_lane < (1 << 20) + touched + 1024, "in whole pages"


@pytest.mark.skipif(
    not hasattr(os, "sysconf") or not Path("/proc/sys/vm/overcommit_memory").exists(), reason="needs Linux's /proc"
)
def test_memory_that_no_lane_touches_is_not_asked_for() -> None:
    """Lanes that could come to need twice what the host has, and do not."""
    if Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2":
        pytest.skip("this host refuses to promise more memory than it has")
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    lanes = 64
    m = Machine(short(), lanes, memory=min(2 * host // lanes, 1 << 39) & -4096)
    assert m.run().stops() == {"EBREAK": lanes}


def test_importing_is_light() -> None:
    """`import vmjit` brings in neither LLVM nor Numba, nor does looking at a program."""
    text = (
        "import sys, vmjit\n"
        "vmjit.load(sys.argv[1])\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('llvmlite', 'numba', 'rich')]\n"
        "assert not bad, bad\n"
        "assert 'kernels' not in sys.modules and 'translators' not in sys.modules\n"
    )
    root = Path(__file__).resolve().parents[2]
    elf = root / "tests" / "guests" / "bin" / "hello.rv64imac.elf"
    subprocess.run([sys.executable, "-c", text, str(elf)], cwd=root, check=True, timeout=60)


def test_names_of_the_package() -> None:
    for name in vmjit.__all__:
        assert getattr(vmjit, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        vmjit.nothing  # noqa: B018
