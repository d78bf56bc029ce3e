"""M and Zmmul (unprivileged specification, chapter "M")."""

from __future__ import annotations

from vmjit.decoders.riscv.row import RV64, Table
from vmjit.decoders.riscv.tables.base import with_register, word
from vmjit.ir.builder import Builder

TABLE = Table("m")

for _name, _funct3, _compute, _extension in (
    ("mul", "000", Builder.mul, "zmmul"),
    ("mulh", "001", Builder.mulhs, "zmmul"),
    ("mulhsu", "010", Builder.mulhsu, "zmmul"),
    ("mulhu", "011", Builder.mulhu, "zmmul"),
    ("div", "100", Builder.divs, "m"),
    ("divu", "101", Builder.divu, "m"),
    ("rem", "110", Builder.rems, "m"),
    ("remu", "111", Builder.remu, "m"),
):
    TABLE.row(_name, f"0000001 rs2 rs1 {_funct3} rd 0110011", "rd, rs1, rs2", with_register(_compute),
              extensions=_extension)  # fmt: skip
    if not _name.startswith("mulh"):
        # The *W forms of mulh do not exist: mul of the 64-bit registers holds the whole 32-bit product.
        _word_name = _name[:-1] + "uw" if _name.endswith("u") else _name + "w"
        TABLE.row(_word_name, f"0000001 rs2 rs1 {_funct3} rd 0111011", "rd, rs1, rs2", with_register(word(_compute)),
                  xlens=RV64, extensions=_extension)  # fmt: skip
