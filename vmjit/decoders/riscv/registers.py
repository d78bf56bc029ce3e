"""The RISC-V register files."""

from __future__ import annotations

from vmjit.decoders.riscv.isa import Isa
from vmjit.ir.registers import RegisterFile, declare_register_file
from vmjit.ir.types import I32, I64, Type

ABI_NAMES = (
    *("zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1"),
    *("a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7"),
    *("s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6"),
)

FLOAT_ABI_NAMES = (
    *(f"ft{i}" for i in range(8)),
    *("fs0", "fs1"),
    *(f"fa{i}" for i in range(8)),
    *(f"fs{i}" for i in range(2, 12)),
    *(f"ft{i}" for i in range(8, 12)),
)

# lr keeps the reserved address plus one (0: no reservation), so that address 0 can be reserved too.
RESERVATION = 32

# The float status register, fcsr, and the first of the float registers: they come last, so that what programs without
# floats do not have is left out at the end.
FLOAT_STATUS = 33
FLOAT = 34

_NAMES = (*(f"x{i}" for i in range(32)), "reservation")
_FLOAT_NAMES = (*_NAMES, "fcsr", *(f"f{i}" for i in range(32)))
_ALIASES = {name: i for i, name in enumerate(ABI_NAMES)} | {"fp": 8}
_FLOAT_ALIASES = _ALIASES | {name: FLOAT + i for i, name in enumerate(FLOAT_ABI_NAMES)}
_HIDDEN = frozenset({RESERVATION})


def _register_files(type_: Type) -> tuple[RegisterFile, RegisterFile]:
    """The register file without and with floats."""
    plain = RegisterFile(f"riscv{type_.bits}", type_, _NAMES, 0, _ALIASES, hidden=_HIDDEN, stack=2)
    floats = RegisterFile(
        f"riscv{type_.bits}f",
        type_,
        _FLOAT_NAMES,
        0,
        _FLOAT_ALIASES,
        hidden=_HIDDEN,
        stack=2,
        types={FLOAT + i: I64 for i in range(32)},
        float_status=FLOAT_STATUS,
    )
    return declare_register_file(plain), declare_register_file(floats)


REGISTERS: dict[tuple[int, bool], RegisterFile] = {
    (type_.bits, file.float_status is not None): file for type_ in (I32, I64) for file in _register_files(type_)
}
"""By register width, and whether there are floats."""


def registers_of(isa: Isa) -> RegisterFile:
    """The registers of a hart of this ISA."""
    return REGISTERS[isa.xlen, "f" in isa.extensions]
