"""The RISC-V register files."""

from __future__ import annotations

from vmjit.ir.registers import RegisterFile, declare_register_file
from vmjit.ir.types import I32, I64

ABI_NAMES = (
    *("zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1"),
    *("a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7"),
    *("s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6"),
)

# lr keeps the reserved address plus one (0: no reservation), so that address 0 can be reserved too.
RESERVATION = 32

_NAMES = (*(f"x{i}" for i in range(32)), "reservation")
_ALIASES = {name: i for i, name in enumerate(ABI_NAMES)} | {"fp": 8}

REGISTERS = {
    bits: declare_register_file(
        RegisterFile(f"riscv{bits}", type_, _NAMES, 0, _ALIASES, hidden=frozenset({RESERVATION}), stack=2)
    )
    for bits, type_ in ((32, I32), (64, I64))
}
