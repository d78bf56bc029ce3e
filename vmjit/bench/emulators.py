"""Emulators that are libraries of this process, as contestants: Unicorn and icicle.

They run bare-metal programs, one instance after the other, with the system calls read, write and exit.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from importlib import import_module
from pathlib import Path
from typing import Any

from vmjit.bench.contestants import First, Inputs, Run, answer_of
from vmjit.bench.memory import own_memory
from vmjit.program import Program

_READ, _WRITE, _EXIT, _EXIT_GROUP = 63, 64, 93, 94
_NO_SUCH_CALL = -38
_FAULT = -11
_PAGE = 4096

# Heap and stack, far from where programs are linked to.
_STACK = 0x7F00_0000


class Emulator(ABC):
    """One instance at a time of one program, with `memory` bytes of stack."""

    def __init__(self, name: str, elf: str | Path, memory: int, isa: str | None = None) -> None:
        self.name = name
        self._source = (elf, isa)
        self._memory = -(-memory // _PAGE) * _PAGE
        self._started = False

    def _start_up(self) -> None:
        import vmjit

        if not self._started:
            self._started = True
            self.program = vmjit.load(*self._source)
            self._start(self.program)
            pages = {p for s in self.program.segments for p in range(s.address & -_PAGE, s.end, _PAGE)}
            for page in sorted(pages):
                self._map(page, _PAGE)
            self._map(_STACK, self._memory)
            for segment in self.program.segments:
                self.write(segment.address, segment.data.ljust(segment.size, b"\0"))
            self._writable = [s for s in self.program.segments if s.writable]

    @abstractmethod
    def _start(self, program: Program) -> None:
        """Make the emulator."""

    @abstractmethod
    def _map(self, address: int, size: int) -> None: ...

    @abstractmethod
    def write(self, address: int, data: bytes) -> None: ...

    @abstractmethod
    def read(self, address: int, size: int) -> bytes: ...

    @abstractmethod
    def _run(self, pc: int, sp: int, lane: int, lanes: int, calls: SystemCalls) -> bool:
        """Run until `calls.status` is there; false where the program stopped otherwise."""

    def first(self, inputs: Inputs) -> First:
        before = own_memory()
        started = time.perf_counter()
        self._start_up()
        self.measure(inputs[:1])
        seconds = time.perf_counter() - started
        after = own_memory()
        return First(seconds, None, float(after["own"] - before["own"]) if "own" in before and "own" in after else None)

    def warm(self, inputs: Inputs) -> None:
        self._start_up()
        self.measure(inputs[:1])
        self.measure(inputs[:1])

    def measure(self, inputs: Inputs) -> Run:
        self._start_up()
        phases = dict.fromkeys(("reset", "run"), 0.0)
        answers, cpu_seconds = [], 0.0
        for lane, data in enumerate(inputs):
            started = time.perf_counter()
            for segment in self._writable:
                self.write(segment.address, segment.data.ljust(segment.size, b"\0"))
            self.write(_STACK, bytes(self._memory))
            calls = SystemCalls(self, data)
            reset, before = time.perf_counter(), time.process_time()
            ended = self._run(self.program.entry, _STACK + self._memory - 64, lane, len(inputs), calls)
            cpu_seconds += time.process_time() - before
            phases["reset"] += reset - started
            phases["run"] += time.perf_counter() - reset
            answers.append(answer_of(calls.output, calls.status if ended and calls.status is not None else _FAULT))
        return Run(phases["run"], cpu_seconds, answers, phases=phases)

    def close(self) -> None:
        self._started = False


class SystemCalls:
    """Of one instance: its input, its output, and its exit status once it has one."""

    def __init__(self, memory: Emulator, data: bytes) -> None:
        self._memory, self._left = memory, data
        self.output = b""
        self.status: int | None = None

    def serve(self, number: int, a0: int, a1: int, a2: int) -> int:
        """What a call returns; behind an exit, nothing is to go on."""
        if number == _READ:
            if a0 != 0:
                return -9
            chunk, self._left = self._left[:a2], self._left[a2:]
            if chunk:
                self._memory.write(a1, chunk)
            return len(chunk)
        if number == _WRITE:
            if a0 == 1:
                self.output += self._memory.read(a1, a2)
            return a2
        if number in (_EXIT, _EXIT_GROUP):
            self.status = a0 & 0xFF
            return 0
        return _NO_SUCH_CALL


class Unicorn(Emulator):
    """QEMU's translator as a library."""

    def _start(self, program: Program) -> None:
        unicorn: Any = import_module("unicorn")
        constants: Any = import_module("unicorn.riscv_const")
        mode = unicorn.UC_MODE_RISCV64 if program.xlen == 64 else unicorn.UC_MODE_RISCV32
        self._uc = unicorn.Uc(unicorn.UC_ARCH_RISCV, mode)
        self._failure = unicorn.UcError
        self._mask = (1 << program.xlen) - 1
        self._a0 = [constants.UC_RISCV_REG_A0 + i for i in range(3)]
        self._a7, self._sp = constants.UC_RISCV_REG_A7, constants.UC_RISCV_REG_SP
        self._uc.reg_write(constants.UC_RISCV_REG_MSTATUS, 3 << 13)  # the float unit on
        self._calls: SystemCalls | None = None
        self._uc.hook_add(unicorn.UC_HOOK_INTR, self._interrupted)

    def _interrupted(self, uc: Any, number: int, _: object) -> None:
        calls = self._calls
        if number != 8 or calls is None:  # an environment call from user mode
            uc.emu_stop()
            return
        result = calls.serve(uc.reg_read(self._a7), *(uc.reg_read(r) for r in self._a0))
        uc.reg_write(self._a0[0], result & self._mask)
        if calls.status is not None:
            uc.emu_stop()

    def _map(self, address: int, size: int) -> None:
        self._uc.mem_map(address, size)

    def write(self, address: int, data: bytes) -> None:
        self._uc.mem_write(address, data)

    def read(self, address: int, size: int) -> bytes:
        return bytes(self._uc.mem_read(address, size))

    def _run(self, pc: int, sp: int, lane: int, lanes: int, calls: SystemCalls) -> bool:
        self._calls = calls
        for register, value in ((self._sp, sp), (self._a0[0], lane), (self._a0[1], lanes)):
            self._uc.reg_write(register, value)
        try:
            self._uc.emu_start(pc, 0)
        except self._failure:
            return False
        return calls.status is not None


class Icicle(Emulator):
    """icicle-emu, a fuzzer's emulator: SLEIGH's p-code, compiled."""

    def _start(self, program: Program) -> None:
        self._icicle: Any = import_module("icicle")
        self._vm = self._icicle.Icicle(f"riscv{program.xlen}gc", jit=True)
        self._mask = (1 << program.xlen) - 1

    def _map(self, address: int, size: int) -> None:
        self._vm.mem_map(address, size, self._icicle.MemoryProtection.ExecuteReadWrite)

    def write(self, address: int, data: bytes) -> None:
        self._vm.mem_write(address, data)

    def read(self, address: int, size: int) -> bytes:
        return bytes(self._vm.mem_read(address, size))

    def _run(self, pc: int, sp: int, lane: int, lanes: int, calls: SystemCalls) -> bool:
        vm, icicle = self._vm, self._icicle
        for register, value in (("sp", sp), ("a0", lane), ("a1", lanes)):
            vm.reg_write(register, value)
        vm.pc = pc
        while True:
            status = vm.run()
            stopped = status != icicle.RunStatus.UnhandledException
            if stopped or vm.exception_code != icicle.ExceptionCode.Syscall:
                return False
            result = calls.serve(*(vm.reg_read(name) for name in ("a7", "a0", "a1", "a2")))
            if calls.status is not None:
                return True
            vm.reg_write("a0", result & self._mask)
            vm.pc += 4
