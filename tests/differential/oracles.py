"""Other people's emulators, and vmjit itself, behind one small interface each."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import unicorn
from unicorn import riscv_const as rc

import vmjit
from vmjit.compile_thread import COMPILE_THREAD
from vmjit.cpu_engine import CpuEngine
from vmjit.decoders.riscv.isa import parse_isa
from vmjit.program import Program, Segment
from vmjit.translators.cpu import Effort

TIERS = ("interpreter", "scalar", "auto")

# What is compiled before it runs is compiled quickly; "full" is the tier "scalar" with the code that comes after that.
EVERY_CODE = (*TIERS, "full")
READ, WRITE, EXECUTE = 1, 2, 4
PAGE = 4096

# Visits until a block is hot in the tests of the tier "auto": soon.
HOT = 2


@dataclass
class Outcome:
    """The state of one hart after a run."""

    registers: list[int]
    pc: int
    retired: int
    memory: dict[int, bytes] = field(default_factory=dict)
    error: int = 0


class Unicorn:
    """QEMU's translator as a library. Pages are mapped whole, so faults can be found only a page away."""

    def __init__(self, xlen: int, spans: Sequence[tuple[int, bytes, int]]) -> None:
        mode = unicorn.UC_MODE_RISCV64 if xlen == 64 else unicorn.UC_MODE_RISCV32
        self.uc = unicorn.Uc(unicorn.UC_ARCH_RISCV, mode)
        self.xlen = xlen
        self.retired = 0
        self.calls = 0
        for address, data, permissions in spans:
            lo, end = address & -PAGE, -(-(address + len(data)) // PAGE) * PAGE
            self.uc.mem_map(lo, end - lo, permissions)
            self.uc.mem_write(address, bytes(data))
        self.uc.hook_add(unicorn.UC_HOOK_CODE, self._count)
        self.uc.hook_add(unicorn.UC_HOOK_INTR, self._interrupt)

    def enable_floats(self) -> None:
        """Switch the float unit on (mstatus.FS), which is off at first."""
        self.uc.reg_write(rc.UC_RISCV_REG_MSTATUS, 3 << 13)

    def _count(self, uc: unicorn.Uc, address: int, size: int, user: object) -> None:
        self.retired += 1

    def _interrupt(self, uc: unicorn.Uc, number: int, user: object) -> None:
        if number == 8:  # an environment call; nobody knows its number
            uc.reg_write(rc.UC_RISCV_REG_A0, -38 & (1 << self.xlen) - 1)
        else:
            self.retired -= 1
            uc.emu_stop()

    def run(self, registers: Sequence[int], pc: int, count: int = 0) -> Outcome:
        """Until ebreak, a fault, or `count` instructions."""
        uc = self.uc
        self.retired = 0
        for i in range(1, 32):
            uc.reg_write(rc.UC_RISCV_REG_X0 + i, int(registers[i]))
        error = 0
        try:
            uc.emu_start(pc, (1 << self.xlen) - 2, count=count)
        except unicorn.UcError as failure:
            error = failure.errno
            self.retired -= 1
        mask = (1 << self.xlen) - 1
        values = [uc.reg_read(rc.UC_RISCV_REG_X0 + i) & mask for i in range(32)]
        return Outcome(values, uc.reg_read(rc.UC_RISCV_REG_PC) & mask, self.retired, error=error)

    def memory(self, address: int, size: int) -> bytes:
        return bytes(self.uc.mem_read(address, size))


def program(
    isa: str, code: bytes, base: int = 0x10000, *, data: tuple[int, int] | None = None, writable: bool = False
) -> Program:
    """Code at `base`, and a segment of (address, size) zero bytes."""
    segments = [Segment(base, len(code), code, READ | EXECUTE | (WRITE if writable else 0))]
    if data is not None:
        segments.append(Segment(data[0], data[1], b"", READ | WRITE))
    return Program(tuple(segments), base, parse_isa(isa))


def machine(
    prog: Program,
    lanes: int,
    tier: str,
    *,
    threads: int | None = None,
    memory: int | str = 4096,
    device: str = "cpu",
    fallback: bool = False,
) -> vmjit.Machine:
    """A machine whose blocks are hot after HOT visits in the tier "auto"; `tier` may be one of EVERY_CODE."""
    name = "scalar" if tier == "full" else tier
    m = vmjit.Machine(prog, lanes=lanes, device=device, tier=name, memory=memory, threads=threads, fallback=fallback)
    if tier == "full":
        assert isinstance(m._engine, CpuEngine)
        m._engine.compiler.first_effort = Effort.FULL
    if tier == "auto":
        m._engine.visits_until_hot = HOT
        m._engine.reset_code()
        m._engine.code_was_written = False  # otherwise each reset would drop what was compiled
    return m


def settle() -> None:
    """Wait for the background compiler, so that the next run meets compiled code."""
    assert COMPILE_THREAD.wait(240)


def check_in_pieces(
    expected: vmjit.Machine, found: vmjit.Machine, budgets: Sequence[int | None], address: int, size: int
) -> None:
    """Run two machines by these budgets, and compare all they have after each; `found` has to run compiled code."""
    compiled = 0
    for budget in budgets:
        want, got = expected.run(budget), found.run(budget)
        compiled += got.tiers["scalar"]
        assert (found.pc == expected.pc).all()
        assert (found.retired == expected.retired).all()
        assert (got.stop == want.stop).all()
        assert (found.registers.array() == expected.registers.array()).all()
        assert (found.memory.read(address, size) == expected.memory.read(address, size)).all()
        assert (got.fault_address == want.fault_address).all()
    assert compiled > 0


def set_registers(m: vmjit.Machine, rows: np.ndarray) -> None:
    """(32, lanes) values."""
    for i in range(1, 32):
        m.registers[i] = rows[i]


def have_qemu(xlen: int) -> bool:
    return shutil.which(f"qemu-riscv{xlen}") is not None


def run_qemu(
    xlen: int, elf: bytes, folder: Path, stdin: bytes = b"", cpu: str = ""
) -> subprocess.CompletedProcess[bytes]:
    path = folder / "guest.elf"
    path.write_bytes(elf)
    command = [f"qemu-riscv{xlen}", *(["-cpu", cpu] if cpu else []), str(path)]
    path.chmod(0o755)
    return subprocess.run(command, input=stdin, capture_output=True, timeout=120, check=False)


def write_elf(
    xlen: int, segments: Sequence[tuple[int, bytes, int, int]], entry: int, *, flags: int = 1, machine_number: int = 243
) -> bytes:
    """A static executable. Segments are (address, data, size in memory, permissions as READ | WRITE | EXECUTE)."""
    header_size, ph_size = (64, 56) if xlen == 64 else (52, 32)
    place = -(-(header_size + ph_size * len(segments)) // PAGE) * PAGE
    headers, body = b"", b""
    for address, data, size, permissions in segments:
        pf = sum(b for a, b in ((READ, 4), (WRITE, 2), (EXECUTE, 1)) if permissions & a)
        offset = place + len(body) + (address - place - len(body)) % PAGE
        body = body.ljust(offset - place, b"\0") + data
        if xlen == 64:
            headers += struct.pack("<IIQQQQQQ", 1, pf, offset, address, address, len(data), size, PAGE)
        else:
            headers += struct.pack("<IIIIIIII", 1, offset, address, address, len(data), size, pf, PAGE)
    ident = b"\x7fELF" + bytes([2 if xlen == 64 else 1, 1, 1, 0]) + bytes(8)
    form = "<HHIQQQIHHHHHH" if xlen == 64 else "<HHIIIIIHHHHHH"
    head = ident + struct.pack(
        form, 2, machine_number, 1, entry, header_size, 0, flags, header_size, ph_size, len(segments), 0, 0, 0
    )
    return (head + headers).ljust(place, b"\0") + body


def compile_lanes(count: int, make: Callable[[int], Sequence[int]], xlen: int) -> np.ndarray:
    """(32, count) registers, one lane from each call."""
    dtype = np.uint32 if xlen == 32 else np.uint64
    return np.array([make(i) for i in range(count)], dtype).T.copy()
