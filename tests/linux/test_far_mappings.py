"""Mappings at addresses far from the program: reserved without memory, accessed on every tier and device, and what
calls, snapshots and the host see of them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vmjit
from tests.differential.asm import encode
from tests.differential.oracles import have_qemu, program
from tests.linux.build import FOLDER, path_of
from tests.linux.caller import Caller
from vmjit import Access, Stop

PAGE = 4096
XLENS = pytest.mark.parametrize("xlen", [32, 64])
FAR = {32: 0x7123_4000, 64: 0x12_3456_7000}
GUARDED = {32: 0x6000_0000, 64: 0x200_0000_0000}
INPUT = b"abcdefgh\n"
MMAP, MUNMAP, MREMAP, MPROTECT, MADVISE, BRK = 222, 215, 216, 226, 233, 214
FIXED, ANYWHERE, NO_REPLACE = 0x32, 0x22, 0x100022
ENOMEM, EFAULT, EEXIST = 12, 14, 17
LIMIT = 100_000_000

# By the way: what it tries at last, and where, from FAR; None: it leaves.
WAYS = {
    "list": None,
    "words": None,
    "file": None,
    "calls": (Access.READ, PAGE),
    "jit": (Access.EXECUTE, 0),
    "guarded": (Access.WRITE, None),
    "reserved": (Access.WRITE, None),
}
# QEMU 7.2 for 32 bits does not let a mapping grow where it is.
OURS_ALONE = (("calls", 32),)


def expected(way: str) -> bytes:
    return (FOLDER / "expected" / f"sparse-{way}.txt").read_bytes()


def root(folder: Path) -> Path:
    (folder / "bytes").write_bytes(bytes(i * i % 251 for i in range(5000)))
    return folder


def machine(xlen: int, ways: list[str], folder: Path, **options: object) -> vmjit.Machine:
    given: dict[str, object] = {"device": "cpu", "root": root(folder), "fallback": False, **options}
    arguments = [["sparse", way, "/bytes"] for way in ways]
    m = vmjit.Machine(vmjit.load(path_of("sparse", xlen)), len(ways), lane_arguments=arguments, **given)  # type: ignore[arg-type]
    m.set_input(INPUT)
    return m


def check(r: vmjit.RunResult, xlen: int, ways: list[str]) -> None:
    for lane, way in enumerate(ways):
        assert r.output(lane) == expected(way), way
        last = WAYS[way]
        assert r.stop[lane] == (Stop.EXIT if last is None else Stop.FAULT), way
        if last is None:
            assert r.exit_code[lane] == 0
            continue
        access, offset = last
        assert r.signal_name(lane) == "SIGSEGV"
        assert r.fault_access[lane] == access, way
        if offset is not None:
            assert r.fault_address[lane] == FAR[xlen] + offset, way
        elif way == "guarded":
            assert r.fault_address[lane] == GUARDED[xlen] + PAGE


@pytest.mark.parametrize("way", WAYS)
@XLENS
def test_as_qemu_has_it(way: str, xlen: int, tmp_path: Path) -> None:
    if not have_qemu(xlen):
        pytest.skip("QEMU's user mode is not installed")
    command = [f"qemu-riscv{xlen}", str(path_of("sparse", xlen)), way, str(root(tmp_path) / "bytes")]
    done = subprocess.run(command, input=INPUT, capture_output=True, timeout=60)
    if (way, xlen) not in OURS_ALONE:
        assert (done.stdout, done.returncode) == (expected(way), 0 if WAYS[way] is None else -11)


def _tiers() -> list[Any]:
    quick = [("cpu", "interpreter", 32), ("cpu", "auto", 64), ("host", "auto", 64)]
    ways = [*((device, tier) for device, tier, _ in quick), ("cpu", "simd"), ("cpu", "scalar")]
    every = [(device, tier, xlen) for device, tier in ways for xlen in (32, 64)]
    return [pytest.param(*case, marks=() if case in quick else pytest.mark.slow) for case in every]


@pytest.mark.parametrize(("device", "tier", "xlen"), _tiers())
def test_lanes_that_do_different_things(device: str, tier: str, xlen: int, tmp_path: Path) -> None:
    ways = [way for way in WAYS if (device, tier) == ("cpu", "auto") or way != "list"] * 2
    m = machine(xlen, ways, tmp_path, device=device, tier=tier)
    for run in range(2):
        if run:
            m.reset()
        check(m.run(LIMIT), xlen, ways)


@pytest.mark.parametrize("way", ["list", "words", "jit", "guarded"])
@XLENS
def test_lanes_that_do_the_same(way: str, xlen: int, tmp_path: Path) -> None:
    ways = [way] * 33
    check(machine(xlen, ways, tmp_path, tier="simd").run(LIMIT), xlen, ways)


@XLENS
def test_the_same_instructions_everywhere(xlen: int, tmp_path: Path) -> None:
    ways = [way for way in WAYS if way != "list"]
    found = []
    for tier in ("interpreter", "auto", "simd"):
        m = machine(xlen, ways, tmp_path, tier=tier)
        r = m.run(LIMIT)
        stops = np.stack([r.pc, r.retired, r.fault_address, r.fault_access.astype(np.uint64)])
        found.append((stops, m.registers.array(), m.snapshot().pages.contents))
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(other, found[0], strict=True))


def _store_and_load(xlen: int) -> vmjit.Program:
    """Map what a0 to a5 say, store there in a loop, over the end of a page too, and load it again."""
    wide = "sd" if xlen == 64 else "sw"
    load = "ld" if xlen == 64 else "lw"
    mapped = 10  # a0
    code = b"".join(
        [
            encode("ecall", xlen),
            encode("addi", xlen, rd=5, rs1=0, imm=40),
            encode("addi", xlen, rd=6, rs1=mapped, imm=2040),
            encode("addi", xlen, rd=6, rs1=6, imm=1900),
            # loop: store t0 at t1, add what is loaded, go on 11 bytes further
            encode(wide, xlen, rs1=6, rs2=5, imm=0),
            encode(load, xlen, rd=7, rs1=6, imm=0),
            encode("lbu", xlen, rd=28, rs1=6, imm=1),
            encode("add", xlen, rd=29, rs1=29, rs2=7),
            encode("add", xlen, rd=29, rs1=29, rs2=28),
            encode("addi", xlen, rd=6, rs1=6, imm=11),
            encode("addi", xlen, rd=5, rs1=5, imm=-1),
            encode("bne", xlen, rs1=5, rs2=0, imm=-28),
            encode("ebreak", xlen),
        ]
    )
    return program(f"rv{xlen}imac", code, 0x10000, data=(0x40000, 0x1000))


@pytest.mark.parametrize(
    ("device", "tier"), [("cpu", "scalar"), ("host", "interpreter"), ("host", "auto"), ("ptx", "interpreter")]
)
@XLENS
def test_accesses_on_devices(device: str, tier: str, xlen: int) -> None:
    """One lane far away, one in its own memory, and both find the same."""
    m = vmjit.Machine(_store_and_load(xlen), 2, device, tier, memory="64KiB", environment="linux", fallback=False)
    arguments = (FAR[xlen], 2 * PAGE, 3, FIXED, (1 << xlen) - 1, 0)
    for index, value in enumerate(arguments):
        m.registers[f"a{index}"] = np.array([value, 0 if index == 0 else value], np.uint64)
    m.registers["a3"] = np.array([FIXED, ANYWHERE], np.uint64)
    m.registers["a7"] = MMAP
    m.pc = 0x10000
    r = m.run(3000)
    assert r.device == device
    assert r.stops() == {"EBREAK": 2}
    assert m.registers["a0"][0] == FAR[xlen]
    assert m.registers["a0"][1] < 0x70000
    assert m.registers["t4"].tolist() == [sum(range(41))] * 2
    places = m.registers["a0"].astype(np.uint64) + np.uint64(3940)
    data, _ = m._residence.memory.gather(np.arange(2), places, np.array([440, 440]))
    first, second = data.reshape(2, -1).tolist()
    assert first == second
    assert first[0] == 40
    assert first[11] == 39


@XLENS
def test_addresses_cost_no_memory(xlen: int) -> None:
    caller = Caller(xlen, 2)
    size = 1 << 29
    (place, other) = caller.call(MMAP, 0, size, 0, ANYWHERE, -1)
    assert place == other
    memory = caller.machine.memory
    assert [memory.permissions(a) for a in (place - 1, place, place + size - 1, place + size)] == ["", "---", "---", ""]
    with pytest.raises(vmjit.GuestAddressError):
        memory.read(place, 4)
    assert caller.call(MPROTECT, place, size, 3) == [-ENOMEM] * 2
    assert memory.permissions(place) == "---"
    assert caller.call(MPROTECT, place + PAGE, PAGE, 3) == [0] * 2
    caller.write(place + PAGE, [b"one lane", b"another "])
    assert caller.read(place + PAGE, 8) == [b"one lane", b"another "]
    # What was accessed keeps its bytes, and its memory.
    assert caller.call(MPROTECT, place + PAGE, PAGE, 0) == [0] * 2
    assert caller.read(place + PAGE, 8) == [b"one lane", b"another "]
    assert caller.call(MADVISE, place, size, 4) == [0] * 2
    assert caller.read(place + PAGE, 8) == [bytes(8)] * 2
    assert caller.call(MUNMAP, place, size) == [0] * 2
    assert memory.permissions(place + PAGE) == ""
    with pytest.raises(vmjit.GuestAddressError):
        memory.write(place + PAGE, b"there is nothing any more")


@XLENS
def test_memory_that_was_used_is_zero_far_away_too(xlen: int) -> None:
    caller = Caller(xlen, 2)
    layout = caller.machine._layout
    assert layout.paged is not None
    size = layout.paged.mapped_top - layout.heap_start
    (place, _) = caller.call(MMAP, 0, size, 3, ANYWHERE, -1)
    caller.write(place, [b"\xff" * size] * 2)
    assert caller.call(MMAP, FAR[xlen], PAGE, 3, FIXED, -1) == [-ENOMEM] * 2
    assert caller.call(MMAP, FAR[xlen], PAGE, 3, NO_REPLACE, -1) == [-ENOMEM] * 2
    assert caller.call(MUNMAP, place, size) == [0] * 2
    assert caller.call(MMAP, FAR[xlen], 8 * PAGE, 3, FIXED, -1) == [FAR[xlen]] * 2
    assert caller.read(FAR[xlen], 8 * PAGE) == [bytes(8 * PAGE)] * 2
    caller.write(FAR[xlen], [b"\xff" * 8 * PAGE] * 2)
    # The memory behind it is not at addresses of its own, and nothing else is mapped there.
    assert caller.call(BRK, layout.paged.mapped_top) == [layout.heap_start] * 2
    assert caller.call(MMAP, layout.heap_start, size, 3, FIXED, -1) == [-ENOMEM] * 2
    assert caller.call(MUNMAP, FAR[xlen], 8 * PAGE) == [0] * 2
    (place, _) = caller.call(MMAP, 0, size, 3, ANYWHERE, -1)
    assert caller.read(place, size) == [bytes(size)] * 2


@XLENS
def test_what_lies_in_pieces(xlen: int) -> None:
    """Calls read and write over the borders of memory that is not in one piece."""
    caller = Caller(xlen, 2)
    far = FAR[xlen]
    for page in (3, 1, 0, 2):
        assert caller.call(MMAP, far + page * PAGE, PAGE, 3, FIXED, -1) == [far + page * PAGE] * 2
        assert caller.call(MMAP, 0, PAGE, 3, ANYWHERE, -1)[0] > 0
    rows = [bytes((lane + i * 7) % 251 for i in range(2 * PAGE + 8)) for lane in range(2)]
    caller.write(far + PAGE - 4, rows)
    assert caller.read(far + PAGE - 4, 2 * PAGE + 8) == rows
    assert caller.call(64, 1, far + PAGE - 4, 2 * PAGE + 8) == [2 * PAGE + 8] * 2
    assert [caller.machine.environment.output(lane) for lane in range(2)] == rows
    moved = GUARDED[xlen]
    assert caller.call(MREMAP, far, 4 * PAGE, 4 * PAGE, 3, moved) == [moved] * 2
    assert caller.read(moved + PAGE - 4, 2 * PAGE + 8) == rows


@pytest.mark.parametrize("tier", ["interpreter", "auto"])
def test_snapshots_keep_them(tier: str, tmp_path: Path) -> None:
    ways = ["guarded", "jit", "calls"]
    m = machine(64, ways, tmp_path, tier=tier)
    check(m.run(LIMIT), 64, ways)
    far, guarded = FAR[64], GUARDED[64]
    end = m.snapshot()
    end.save(tmp_path / "snapshot")
    for snapshot in (end, vmjit.Snapshot.load(tmp_path / "snapshot")):
        m.reset()
        assert m.memory.permissions(guarded) == ""
        m.restore(snapshot)
        assert [m.memory.permissions(guarded + PAGE, lane) for lane in range(3)] == ["r--", "", "rw-"]
        assert [m.memory.permissions(far, lane) for lane in range(3)] == ["", "rw-", "rw-"]
        assert (m.run(10).stop == int(Stop.FAULT)).all()
    m.restore(m.snapshot(lane=1))
    rows = m.memory.read(far, 16)
    assert (rows == rows[0]).all()
    assert rows[0].any()


def test_the_host_changes_far_code(tmp_path: Path) -> None:
    caller = Caller(64, 2)
    far = FAR[64]
    assert caller.call(MMAP, far, PAGE, 7, FIXED, -1) == [far] * 2
    m = caller.machine
    for immediate in (5, 6):
        m.memory.write(far, encode("addi", rd=10, rs1=0, imm=immediate) + encode("ebreak"))
        m.pc = far
        assert m.run(10).stops() == {"EBREAK": 2}
        assert m.registers["a0"].tolist() == [immediate] * 2
