"""Zicsr and the user counters (unprivileged specification, chapters "Zicsr" and "Counters").

Only cycle, time and instret (and their upper halves on RV32) are there, and they are read-only: reading one needs a
form that does not write (csrrs or csrrc with x0, csrrsi or csrrci with 0). All three count retired instructions:
one instruction takes one cycle, and time ticks once a cycle, so that a run gives the same numbers everywhere.
"""

from __future__ import annotations

from vmjit.decoders.riscv.row import BOTH, RV32, Meaning, Operands, Table
from vmjit.ir.builder import Builder
from vmjit.ir.types import I64

TABLE = Table("zicsr")


def _counter(*, high: bool) -> Meaning:
    def meaning(b: Builder, o: Operands) -> None:
        count = b.retired(I64)
        b.set(o.rd, b.trunc(b.shr(count, 32) if high else count, b.xlen))

    return meaning


for _number, _name in ((0xC00, "cycle"), (0xC01, "time"), (0xC02, "instret")):
    # funct3 010, 011, 110, 111: all but the writing csrrw and csrrwi.
    TABLE.row(f"rd{_name}", f"{_number:012b} 00000 -1- rd 1110011", "rd", _counter(high=False), xlens=BOTH)
    TABLE.row(f"rd{_name}h", f"{_number + 0x80:012b} 00000 -1- rd 1110011", "rd", _counter(high=True), xlens=RV32)

# Every other access is an illegal instruction; the rows give it a name in the disassembly.
for _name, _funct3 in (("csrrw", "001"), ("csrrs", "010"), ("csrrc", "011")):
    TABLE.row(_name, f"csr rs1 {_funct3} rd 1110011", "rd, csr, rs1", None)
    TABLE.row(f"{_name}i", f"csr zimm 1{_funct3[1:]} rd 1110011", "rd, csr, zimm", None)
