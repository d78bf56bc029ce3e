"""What a program may do with its pages, and what ends it: as Linux has it, on every tier and device, whatever other
lanes do."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

import vmjit
from tests.differential.oracles import have_qemu
from tests.linux.build import FOLDER, path_of
from vmjit import Access, Stop

XLENS = pytest.mark.parametrize("xlen", [32, 64])
INPUT = b"abcdefgh"

# By the way: what the last access tried, and the permissions that it met.
WAYS = {
    "read-only": (Access.WRITE, "r--"),
    "no-access": (Access.READ, "---"),
    "again": (Access.WRITE, "r--"),
    "unmapped": (Access.WRITE, ""),
    "straddle": (Access.READ, ""),
    "call-data": (Access.EXECUTE, "rw-"),
    "data": (Access.WRITE, "r--"),
    "constants": (Access.WRITE, "r--"),
    "code": (Access.WRITE, "r-x"),
    "null": (Access.READ, ""),
    "heap": (Access.READ, ""),
    "beyond": (Access.READ, ""),
    "stack": (Access.WRITE, ""),
    "written-code": (Access.WRITE, "r-x"),
    "kernel": (Access.READ, ""),
    "no-replace": (Access.WRITE, ""),
}
# QEMU 7.2 leaves memory that is given back by brk mapped, does not know MAP_FIXED_NOREPLACE, and for 32 bits has
# something where a page was unmapped.
OURS_ALONE = (("heap", 32), ("heap", 64), ("no-replace", 32), ("no-replace", 64), ("kernel", 32))


def expected(way: str) -> bytes:
    return (FOLDER / "expected" / f"protect-{way}.txt").read_bytes()


def machine(xlen: int, ways: list[str], **options: object) -> vmjit.Machine:
    program = vmjit.load(path_of("protect", xlen))
    given: dict[str, object] = {"device": "cpu", **options}
    m = vmjit.Machine(program, len(ways), lane_arguments=[["protect", way] for way in ways], **given)  # type: ignore[arg-type]
    m.set_input(INPUT)
    return m


def check(m: vmjit.Machine, r: vmjit.RunResult, ways: list[str]) -> None:
    for lane, way in enumerate(ways):
        access, permissions = WAYS[way]
        assert r.output(lane) == expected(way), way
        assert r.stop[lane] == Stop.FAULT, way
        assert r.signal_name(lane) == "SIGSEGV"
        assert r.fault_access[lane] == access, way
        place = int(r.fault_address[lane])
        assert m.memory.permissions(place, lane) == permissions, way
    for way in set(ways):
        same = [lane for lane, other in enumerate(ways) if other == way]
        for values in (r.pc, r.fault_address, r.retired):
            assert len(np.unique(values[same])) == 1, way


@pytest.mark.parametrize("way", WAYS)
@XLENS
def test_as_qemu_has_it(way: str, xlen: int) -> None:
    if not have_qemu(xlen):
        pytest.skip("QEMU's user mode is not installed")
    command = [f"qemu-riscv{xlen}", str(path_of("protect", xlen)), way]
    done = subprocess.run(command, input=INPUT, capture_output=True, timeout=60)
    if (way, xlen) not in OURS_ALONE:
        assert (done.stdout, done.returncode) == (expected(way), -11)


@pytest.mark.parametrize(
    ("device", "tier"),
    [
        ("cpu", "interpreter"),
        pytest.param("cpu", "scalar", marks=pytest.mark.slow),
        ("cpu", "auto"),
        ("cpu", "simd"),
        ("host", "auto"),
    ],
)
@XLENS
def test_lanes_that_do_different_things(device: str, tier: str, xlen: int) -> None:
    ways = [way for way in WAYS if device == "cpu" or way not in ("kernel", "stack")] * 2
    m = machine(xlen, ways, device=device, tier=tier, fallback=False)
    for run in range(2):
        if run:
            m.reset()
        check(m, m.run(400_000_000), ways)


@pytest.mark.parametrize(
    "way", [way for way in WAYS if way not in ("constants", "code", "null", "kernel", "no-replace")]
)
@XLENS
def test_lanes_that_do_the_same(way: str, xlen: int) -> None:
    """In groups, whose code asks for the pages of all lanes at once."""
    ways = [way] * 33
    m = machine(xlen, ways, tier="simd")
    check(m, m.run(400_000_000), ways)


@XLENS
def test_the_same_instructions_everywhere(xlen: int) -> None:
    """Where each fault is met, and what was done before it, does not depend on the tier."""
    ways = list(WAYS)
    found = []
    for tier in ("interpreter", "auto", "simd"):
        m = machine(xlen, ways, tier=tier)
        r = m.run(400_000_000)
        stops = np.stack([r.pc, r.retired, r.fault_address, r.fault_access.astype(np.uint64)])
        found.append((stops, m.registers.array(), m.snapshot().pages.contents))
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(other, found[0], strict=True))


@pytest.mark.parametrize("way", ["no-access", "data", "written-code"])
def test_the_machine_for_ptx(way: str) -> None:
    m = machine(64, [way] * 2, device="ptx", tier="interpreter", memory="256KiB", fallback=False)
    r = m.run(30_000)
    assert r.device == "ptx"
    assert set(r.stop.tolist()) <= {int(Stop.BUDGET), int(Stop.FAULT)}


@pytest.mark.parametrize("tier", ["interpreter", "auto"])
def test_snapshots_keep_protections(tier: str) -> None:
    """What pages may be used for comes back with a snapshot, for the lane that had it and for all lanes."""
    ways = ["no-access", "unmapped", "data", "written-code", "again"]
    m = machine(64, ways, tier=tier)
    start = m.snapshot()
    r = m.run(400_000_000)
    check(m, r, ways)
    faults = r.fault_address.copy()
    end = m.snapshot()
    m.restore(start)
    check(m, m.run(400_000_000), ways)
    m.restore(end)
    permissions = [m.memory.permissions(int(faults[lane]), lane) for lane in range(len(ways))]
    assert permissions == ["---", "", "r--", "r-x", "r--"]
    lane = m.snapshot(lane=0)
    m.restore(lane)
    assert {m.memory.permissions(int(faults[0]), other) for other in range(len(ways))} == {"---"}
    r = m.run(10)
    assert (r.stop == int(Stop.FAULT)).all()
