"""Unicorn, QEMU's translator as a library, as a side. It counts instructions in a callback that Numba compiles.

Load-reserved and store-conditional are left to vmjit: a state that is gone back to has no reservation in Unicorn.
"""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache
from typing import Any

import numpy as np

from vmjit.decoders.riscv.registers import FLOAT_STATUS
from vmjit.divergence.foreign import is_left_to_vmjit
from vmjit.divergence.sides import ForeignSide
from vmjit.divergence.unicorn_memory import UnicornMemory
from vmjit.errors import ArgumentError
from vmjit.hooks import X_REGISTERS
from vmjit.machine import Machine


def _unicorn() -> Any:
    try:
        import unicorn
        from unicorn import riscv_const
    except ImportError as error:
        raise ArgumentError('Unicorn is not installed; install it with: pip install "vmjit[debug]"') from error
    return unicorn, riscv_const


def _library() -> Any:
    """Unicorn's library as ctypes has it: a callback that is no Python function has to be registered there."""
    unicorn, _ = _unicorn()
    return sys.modules[unicorn.Uc.__module__].uclib


@lru_cache(maxsize=1)
def _counter() -> Any:
    """A callback for each instruction. block: instructions so far; how many there may be, where it stops Unicorn; the
    address of the last one."""
    import numba
    from numba import types

    address = ctypes.cast(_library().uc_emu_stop, ctypes.c_void_p).value
    assert address is not None
    stop = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(address)

    @numba.cfunc(types.void(types.voidptr, types.uint64, types.uint32, types.voidptr))
    def count(uc, address, size, block):  # type: ignore[no-untyped-def] # pragma: no cover
        numbers = numba.carray(block, 3, np.int64)
        if numbers[0] == numbers[1]:
            stop(uc)
        else:
            numbers[0] += 1
            numbers[2] = address

    return count, stop


class UnicornSide(ForeignSide):
    """`machine` has one lane, of the tier "interpreter" on the CPU."""

    def __init__(self, machine: Machine) -> None:
        super().__init__("unicorn", machine)
        unicorn, constants = _unicorn()
        self._failure = unicorn.UcError
        self._mask = (1 << machine.program.xlen) - 1
        mode = unicorn.UC_MODE_RISCV64 if machine.program.xlen == 64 else unicorn.UC_MODE_RISCV32
        self._uc = unicorn.Uc(unicorn.UC_ARCH_RISCV, mode)
        self._pc = constants.UC_RISCV_REG_PC
        self._registers = {i: constants.UC_RISCV_REG_X0 + i for i in range(1, X_REGISTERS)}
        if machine._engine.decoder.registers.float_status is not None:
            self._uc.reg_write(constants.UC_RISCV_REG_MSTATUS, 3 << 13)  # the float unit on
            self._registers[FLOAT_STATUS] = constants.UC_RISCV_REG_FCSR
            self._registers |= {FLOAT_STATUS + 1 + i: constants.UC_RISCV_REG_F0 + i for i in range(32)}
        self._block = np.zeros(3, np.int64)
        self._interrupted = False
        self._memory = UnicornMemory(machine, self._uc)
        self._hook(unicorn)

    def _hook(self, unicorn: Any) -> None:
        """Have instructions that vmjit is to execute stop Unicorn, and then all counted."""
        uc = self._uc
        for address in self._left_to_vmjit():
            uc.hook_add(unicorn.UC_HOOK_CODE, lambda uc, *_: uc.emu_stop(), begin=address, end=address)
        uc.hook_add(unicorn.UC_HOOK_INTR, self._interrupt)
        count, _ = _counter()
        handle = ctypes.c_size_t()
        status = _library().uc_hook_add(
            uc._uch,
            ctypes.byref(handle),
            unicorn.UC_HOOK_CODE,
            ctypes.c_void_p(count.address),
            ctypes.c_void_p(self._block.ctypes.data),
            ctypes.c_uint64(1),
            ctypes.c_uint64(0),
        )
        if status:
            raise self._failure(status)

    def _left_to_vmjit(self) -> list[int]:
        """Addresses of what looks like such instructions; others stop Unicorn in vain."""
        found = []
        for span in self.machine._layout.spans:
            if span.executable:
                data = span.data
                words = ((at, int.from_bytes(data[at : at + 4], "little")) for at in range(0, len(data) - 1, 2))
                found += [span.lo + at for at, word in words if is_left_to_vmjit(word)]
        return found

    def _interrupt(self, uc: Any, number: int, user: object) -> None:
        self._interrupted = True
        uc.emu_stop()

    def execute(self, limit: int) -> int:
        state, uc, block = self.machine._state, self._uc, self._block
        self._memory.hand_over()
        for index, register in self._registers.items():
            uc.reg_write(register, int(state.registers[index, 0]))
        block[:] = (0, limit, 0)
        self._interrupted = failed = False
        try:
            uc.emu_start(int(state.pc[0]), self._mask - 1)
        except self._failure:
            failed = True
        pc = uc.reg_read(self._pc) & self._mask
        if (self._interrupted or failed) and block[0]:  # the instruction that did it has not retired
            block[0] -= 1
            pc = int(block[2]) & self._mask
        kept = int(np.iinfo(state.registers.dtype).max)
        for index, register in self._registers.items():
            state.registers[index, 0] = uc.reg_read(register) & kept
        self._memory.take_back()
        state.pc[0] = pc
        state.retired[0] += np.uint64(block[0])
        self.changed()
        return int(block[0])
