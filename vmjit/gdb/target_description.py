"""The registers as GDB wants them described (GDB manual, "RISC-V Features")."""

from __future__ import annotations

from dataclasses import dataclass

from vmjit.decoders.riscv.registers import FLOAT_STATUS
from vmjit.ir.registers import RegisterFile

_X_REGISTERS = 32
PC = 32
"""GDB's number of the pc; x0 to x31 come before it."""
_FIRST_FLOAT, _FIRST_CSR = 33, 66
_FLAGS, _MODE = 0x1F, 5


@dataclass(frozen=True)
class TargetRegister:
    """A register of GDB's: which of ours it is, None for the pc, and which of its bits."""

    number: int
    name: str
    bits: int
    index: int | None
    shift: int = 0
    mask: int = -1


def target_registers(file: RegisterFile) -> dict[int, TargetRegister]:
    """By GDB's number."""
    xlen = file.type.bits
    found = [TargetRegister(i, file.shown_name(i), xlen, i) for i in range(_X_REGISTERS)]
    found[8] = TargetRegister(8, "fp", xlen, 8)
    found.append(TargetRegister(PC, "pc", xlen, None))
    if file.float_status is not None:
        found += [
            TargetRegister(_FIRST_FLOAT + i, file.shown_name(FLOAT_STATUS + 1 + i), 64, FLOAT_STATUS + 1 + i)
            for i in range(32)
        ]
        parts = (("fflags", 0, _FLAGS), ("frm", _MODE, 7), ("fcsr", 0, 0xFF))
        found += [
            TargetRegister(_FIRST_CSR + i, name, 32, FLOAT_STATUS, shift, mask)
            for i, (name, shift, mask) in enumerate(parts)
        ]
    return {register.number: register for register in found}


def description(file: RegisterFile) -> str:
    """The file target.xml."""
    registers = target_registers(file)
    core = "".join(_row(r, "code_ptr" if r.number in (1, PC) else "int") for n, r in registers.items() if n <= PC)
    text = f'<feature name="org.gnu.gdb.riscv.cpu">{core}</feature>'
    floats = "".join(_row(r, "ieee_double") for n, r in registers.items() if _FIRST_FLOAT <= n < _FIRST_CSR)
    if floats:
        floats += "".join(_row(r, "int") for n, r in registers.items() if n >= _FIRST_CSR)
        text += f'<feature name="org.gnu.gdb.riscv.fpu">{floats}</feature>'
    head = '<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd">'
    return f'{head}<target version="1.0"><architecture>riscv:rv{file.type.bits}</architecture>{text}</target>'


def _row(register: TargetRegister, type_: str) -> str:
    return f'<reg name="{register.name}" bitsize="{register.bits}" type="{type_}" regnum="{register.number}"/>'
