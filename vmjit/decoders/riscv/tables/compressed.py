"""C (Zca) and Zcb (unprivileged specification, chapters "C" and "Zc").

A compressed instruction is its expansion. Encodings the specification reserves have no row or exclude the values;
its hints (a destination of x0, a shift by zero) expand to instructions without effect.
"""

from __future__ import annotations

from vmjit.decoders.riscv.row import RV32, RV64, Table

TABLE = Table("zca")
_row = TABLE.compressed

# Quadrant 0
_row("c.addi4spn", "000 nzuimm[5:4|9:6|2|3] rd' 00", "rd, x2, uimm", "addi rd, x2, uimm")
_row("c.lw", "010 uimm[5:3] rs1' uimm[2|6] rd' 00", "rd, uimm(rs1)", "lw rd, uimm(rs1)")
_row("c.ld", "011 uimm[5:3] rs1' uimm[7:6] rd' 00", "rd, uimm(rs1)", "ld rd, uimm(rs1)", xlens=RV64)
_row("c.sw", "110 uimm[5:3] rs1' uimm[2|6] rs2' 00", "rs2, uimm(rs1)", "sw rs2, uimm(rs1)")
_row("c.sd", "111 uimm[5:3] rs1' uimm[7:6] rs2' 00", "rs2, uimm(rs1)", "sd rs2, uimm(rs1)", xlens=RV64)
_row("c.fld", "001 uimm[5:3] rs1' uimm[7:6] fd' 00", "fd, uimm(rs1)", "fld fd, uimm(rs1)", extensions="zcd")
_row("c.flw", "011 uimm[5:3] rs1' uimm[2|6] fd' 00", "fd, uimm(rs1)", "flw fd, uimm(rs1)", xlens=RV32,
     extensions="zcf")  # fmt: skip
_row("c.fsd", "101 uimm[5:3] rs1' uimm[7:6] fs2' 00", "fs2, uimm(rs1)", "fsd fs2, uimm(rs1)", extensions="zcd")
_row("c.fsw", "111 uimm[5:3] rs1' uimm[2|6] fs2' 00", "fs2, uimm(rs1)", "fsw fs2, uimm(rs1)", xlens=RV32,
     extensions="zcf")  # fmt: skip
# Quadrant 1
_row("c.nop", "000 imm[5] 00000 imm[4:0] 01", "", "addi x0, x0, 0")
_row("c.addi", "000 imm[5] rd!=0 imm[4:0] 01", "rd, imm", "addi rd, rd, imm")
_row("c.jal", "001 imm[11|4|9:8|10|6|7|3:1|5] 01", "imm", "jal x1, imm", xlens=RV32)
_row("c.addiw", "001 imm[5] rd!=0 imm[4:0] 01", "rd, imm", "addiw rd, rd, imm", xlens=RV64)
_row("c.li", "010 imm[5] rd imm[4:0] 01", "rd, imm", "addi rd, x0, imm")
_row("c.addi16sp", "011 nzimm[9] 00010 nzimm[4|6|8:7|5] 01", "x2, imm", "addi x2, x2, imm")
_row("c.lui", "011 nzimm[17] rd!=2 nzimm[16:12] 01", "rd, imm", "lui rd, imm")
_row("c.srli", "100 0 00 rd' shamt[4:0] 01", "rd, shamt", "srli rd, rd, shamt", xlens=RV32)
_row("c.srli", "100 shamt[5] 00 rd' shamt[4:0] 01", "rd, shamt", "srli rd, rd, shamt", xlens=RV64)
_row("c.srai", "100 0 01 rd' shamt[4:0] 01", "rd, shamt", "srai rd, rd, shamt", xlens=RV32)
_row("c.srai", "100 shamt[5] 01 rd' shamt[4:0] 01", "rd, shamt", "srai rd, rd, shamt", xlens=RV64)
_row("c.andi", "100 imm[5] 10 rd' imm[4:0] 01", "rd, imm", "andi rd, rd, imm")
_row("c.sub", "100 0 11 rd' 00 rs2' 01", "rd, rs2", "sub rd, rd, rs2")
_row("c.xor", "100 0 11 rd' 01 rs2' 01", "rd, rs2", "xor rd, rd, rs2")
_row("c.or", "100 0 11 rd' 10 rs2' 01", "rd, rs2", "or rd, rd, rs2")
_row("c.and", "100 0 11 rd' 11 rs2' 01", "rd, rs2", "and rd, rd, rs2")
_row("c.subw", "100 1 11 rd' 00 rs2' 01", "rd, rs2", "subw rd, rd, rs2", xlens=RV64)
_row("c.addw", "100 1 11 rd' 01 rs2' 01", "rd, rs2", "addw rd, rd, rs2", xlens=RV64)
_row("c.j", "101 imm[11|4|9:8|10|6|7|3:1|5] 01", "imm", "jal x0, imm")
_row("c.beqz", "110 imm[8|4:3] rs1' imm[7:6|2:1|5] 01", "rs1, imm", "beq rs1, x0, imm")
_row("c.bnez", "111 imm[8|4:3] rs1' imm[7:6|2:1|5] 01", "rs1, imm", "bne rs1, x0, imm")
# Quadrant 2
_row("c.slli", "000 0 rd shamt[4:0] 10", "rd, shamt", "slli rd, rd, shamt", xlens=RV32)
_row("c.slli", "000 shamt[5] rd shamt[4:0] 10", "rd, shamt", "slli rd, rd, shamt", xlens=RV64)
_row("c.lwsp", "010 uimm[5] rd!=0 uimm[4:2|7:6] 10", "rd, uimm(x2)", "lw rd, uimm(x2)")
_row("c.ldsp", "011 uimm[5] rd!=0 uimm[4:3|8:6] 10", "rd, uimm(x2)", "ld rd, uimm(x2)", xlens=RV64)
_row("c.jr", "100 0 rs1!=0 00000 10", "rs1", "jalr x0, 0(rs1)")
_row("c.mv", "100 0 rd rs2!=0 10", "rd, rs2", "add rd, x0, rs2")
_row("c.ebreak", "100 1 00000 00000 10", "", "ebreak")
_row("c.jalr", "100 1 rs1!=0 00000 10", "rs1", "jalr x1, 0(rs1)")
_row("c.add", "100 1 rd rs2!=0 10", "rd, rs2", "add rd, rd, rs2")
_row("c.swsp", "110 uimm[5:2|7:6] rs2 10", "rs2, uimm(x2)", "sw rs2, uimm(x2)")
_row("c.sdsp", "111 uimm[5:3|8:6] rs2 10", "rs2, uimm(x2)", "sd rs2, uimm(x2)", xlens=RV64)
_row("c.fldsp", "001 uimm[5] fd uimm[4:3|8:6] 10", "fd, uimm(x2)", "fld fd, uimm(x2)", extensions="zcd")
_row("c.flwsp", "011 uimm[5] fd uimm[4:2|7:6] 10", "fd, uimm(x2)", "flw fd, uimm(x2)", xlens=RV32, extensions="zcf")
_row("c.fsdsp", "101 uimm[5:3|8:6] fs2 10", "fs2, uimm(x2)", "fsd fs2, uimm(x2)", extensions="zcd")
_row("c.fswsp", "111 uimm[5:2|7:6] fs2 10", "fs2, uimm(x2)", "fsw fs2, uimm(x2)", xlens=RV32, extensions="zcf")

# Zcb
_row("c.lbu", "100 000 rs1' uimm[0|1] rd' 00", "rd, uimm(rs1)", "lbu rd, uimm(rs1)", extensions="zcb")
_row("c.lhu", "100 001 rs1' 0 uimm[1] rd' 00", "rd, uimm(rs1)", "lhu rd, uimm(rs1)", extensions="zcb")
_row("c.lh", "100 001 rs1' 1 uimm[1] rd' 00", "rd, uimm(rs1)", "lh rd, uimm(rs1)", extensions="zcb")
_row("c.sb", "100 010 rs1' uimm[0|1] rs2' 00", "rs2, uimm(rs1)", "sb rs2, uimm(rs1)", extensions="zcb")
_row("c.sh", "100 011 rs1' 0 uimm[1] rs2' 00", "rs2, uimm(rs1)", "sh rs2, uimm(rs1)", extensions="zcb")
_row("c.zext.b", "100 111 rd' 11 000 01", "rd", "andi rd, rd, 255", extensions="zcb")
_row("c.sext.b", "100 111 rd' 11 001 01", "rd", "sext.b rd, rd", extensions="zcb+zbb")
_row("c.zext.h", "100 111 rd' 11 010 01", "rd", "zext.h rd, rd", extensions="zcb+zbb")
_row("c.sext.h", "100 111 rd' 11 011 01", "rd", "sext.h rd, rd", extensions="zcb+zbb")
_row("c.zext.w", "100 111 rd' 11 100 01", "rd", "add.uw rd, rd, x0", xlens=RV64, extensions="zcb+zba")
_row("c.not", "100 111 rd' 11 101 01", "rd", "xori rd, rd, -1", extensions="zcb")
_row("c.mul", "100 111 rd' 10 rs2' 01", "rd, rs2", "mul rd, rd, rs2", extensions="zcb+zmmul")
