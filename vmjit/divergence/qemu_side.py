"""QEMU's user mode as a side, stepped by GDB's remote protocol: some thousand instructions a second.

QEMU has a program of which only the memory counts: the lane's, as it is when the two begin. What either changes is
written to the other where one hands over. System calls, counters and reservations are left to vmjit.
"""

from __future__ import annotations

import contextlib
import shutil
import struct
import subprocess
import tempfile
import weakref
from pathlib import Path

import numpy as np

from vmjit.decoders.riscv.registers import FLOAT_STATUS
from vmjit.divergence.foreign import Bytes, held_by_lane, is_left_to_vmjit, pieces_unlike, runs_of_pages
from vmjit.divergence.sides import ForeignSide
from vmjit.errors import ArgumentError
from vmjit.gdb.client import GdbClient, GdbError
from vmjit.hooks import X_REGISTERS
from vmjit.machine import Machine
from vmjit.memory_image import PAGE
from vmjit.memory_layout import MemorySpan

_READ, _WRITE, _EXECUTE = 4, 2, 1  # of ELF segments


class QemuSide(ForeignSide):
    """`machine` has one lane, of the tier "interpreter" on the CPU."""

    def __init__(self, machine: Machine) -> None:
        super().__init__("qemu", machine)
        xlen = machine.program.xlen
        program = shutil.which(f"qemu-riscv{xlen}")
        if program is None:
            raise ArgumentError(f"QEMU is not installed: there is no qemu-riscv{xlen} (Debian: apt install qemu-user)")
        self._bytes = xlen // 8
        self._mirror = [(span, held_by_lane(machine, span).copy()) for span in machine._layout.spans]
        folder = tempfile.mkdtemp(prefix="vmjit-")
        path = Path(folder)
        (path / "guest").write_bytes(_elf(xlen, self._mirror, int(machine._state.pc[0])))
        (path / "guest").chmod(0o700)
        process = subprocess.Popen(
            [program, "-g", str(path / "gdb"), str(path / "guest")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._gdb = GdbClient(path / "gdb")
        except GdbError as error:
            _end(process, folder)
            raise ArgumentError(f"QEMU cannot be stepped: {error}") from error
        weakref.finalize(self, _end, process, folder, self._gdb)
        self._floats: dict[int, int] = {}
        if machine._engine.decoder.registers.float_status is not None:
            names = machine._engine.decoder.registers.shown_name
            numbers = self._gdb.numbers
            self._floats = {i: numbers[names(i)] for i in range(FLOAT_STATUS, FLOAT_STATUS + 33) if names(i) in numbers}
        self.registers = [i for i in self.registers if i < FLOAT_STATUS or i in self._floats]

    def _hand_over(self) -> None:
        state = self.machine._state
        for span, known in self._mirror:
            held = held_by_lane(self.machine, span)
            for piece in pieces_unlike(known, held):
                self._gdb.write(span.lo + piece.start, held[piece].tobytes())
                known[piece] = held[piece]
        values = [int(v) for v in state.registers[:X_REGISTERS, 0]] + [int(state.pc[0])]
        self._gdb.set_core_registers(b"".join(v.to_bytes(self._bytes, "little") for v in values))
        for index, number in self._floats.items():
            size = self._bytes if index == FLOAT_STATUS else 8
            self._gdb.set_register(number, int(state.registers[index, 0]), size)

    def _take_back(self) -> None:
        state, size = self.machine._state, self._bytes
        core = self._gdb.core_registers()
        values = [int.from_bytes(core[i : i + size], "little") for i in range(0, size * (X_REGISTERS + 1), size)]
        state.registers[1:X_REGISTERS, 0] = np.array(values[1:X_REGISTERS], np.uint64).astype(state.registers.dtype)
        state.pc[0] = values[X_REGISTERS]
        for index, number in self._floats.items():
            state.registers[index, 0] = self._gdb.register(number)
        for span, known in self._mirror:
            if not span.shared:
                known[:] = np.frombuffer(self._gdb.read(span.lo, span.size), np.uint8)
                held = held_by_lane(self.machine, span)
                for piece in pieces_unlike(known, held):
                    held[piece] = known[piece]

    def execute(self, limit: int) -> int:
        self._hand_over()
        pc_number, done = X_REGISTERS, 0
        pc = int(self.machine._state.pc[0])
        while done < limit:
            code = self._fetch(pc)
            if code is None or is_left_to_vmjit(code) or not self._gdb.step():
                break
            done += 1
            pc = self._gdb.register(pc_number)
        self._take_back()
        self.machine._state.pc[0] = pc
        self.machine._state.retired[0] += np.uint64(done)
        self.changed()
        return done

    def _fetch(self, pc: int) -> int | None:
        """The word at a place of the program's code, as it was handed over; None where there is no code."""
        for span, known in self._mirror:
            if span.executable and span.lo <= pc < span.end:
                return int.from_bytes(known[pc - span.lo : pc - span.lo + 4].tobytes(), "little")
        return None


def _end(process: subprocess.Popen[bytes], folder: str, gdb: GdbClient | None = None) -> None:
    if gdb is not None:
        gdb.close()
    with contextlib.suppress(OSError):
        process.kill()
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)


def _elf(xlen: int, parts: list[tuple[MemorySpan, Bytes]], entry: int) -> bytes:
    """A static executable with these bytes in memory, which may be executed and written (System V ABI, chapter 4)."""
    wide = xlen == 64
    header, row = (64, 56) if wide else (52, 32)
    runs = runs_of_pages([span for span, _ in parts])
    held = {span.lo: content for span, content in parts}
    place = -(-(header + row * len(runs)) // PAGE) * PAGE
    rows, body = b"", b""
    for lo, end, run in runs:
        data = bytearray(end - lo)
        for span in run:
            data[span.lo - lo : span.lo - lo + span.size] = held[span.lo].tobytes()
        at, flags = place + len(body), _READ | _WRITE | _EXECUTE
        if wide:
            rows += struct.pack("<IIQQQQQQ", 1, flags, at, lo, lo, len(data), len(data), PAGE)
        else:
            rows += struct.pack("<IIIIIIII", 1, at, lo, lo, len(data), len(data), flags, PAGE)
        body += bytes(data)
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1, 0]) + bytes(8)
    form = "<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH"
    float_abi = 5  # RVC, doubles in registers
    head = ident + struct.pack(form, 2, 243, 1, entry, header, 0, float_abi, header, row, len(runs), 0, 0, 0)
    return (head + rows).ljust(place, b"\0") + body
