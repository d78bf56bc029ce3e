"""RV32I, RV64I and Zifencei (unprivileged specification, chapters "RV32I", "RV64I", "Zifencei")."""

from __future__ import annotations

from collections.abc import Callable

from vmjit.decoders.riscv.row import RV32, RV64, Meaning, Operands, Table
from vmjit.ir.builder import Builder
from vmjit.ir.types import I8, I16, I32, I64, Type
from vmjit.ir.values import Operand, Register, Temp

TABLE = Table("i")
_row = TABLE.row

Binary = Callable[[Builder, Operand, Operand], Operand]


def with_register(compute: Binary) -> Meaning:
    return lambda b, o: b.set(o.rd, compute(b, o.rs1, o.rs2))


def with_immediate(compute: Binary) -> Meaning:
    return lambda b, o: b.set(o.rd, compute(b, o.rs1, o.imm))


def with_shamt(compute: Binary) -> Meaning:
    return lambda b, o: b.set(o.rd, compute(b, o.rs1, o.shamt))


def word(compute: Binary) -> Binary:
    """The RV64 *W forms: on the low 32 bits, the result sign-extended."""
    return lambda b, x, y: b.sext(compute(b, b.trunc(x, I32), b.trunc(y, I32)))


def flag(compare: Callable[[Builder, Operand, Operand], Temp]) -> Binary:
    return lambda b, x, y: b.zext(compare(b, x, y))


def _lui(b: Builder, o: Operands) -> None:
    b.set(o.rd, o.imm)


def _auipc(b: Builder, o: Operands) -> None:
    b.set(o.rd, o.target)


def _jal(b: Builder, o: Operands) -> None:
    if o.misaligned:
        b.trap("misaligned_fetch", o.target)
        return
    b.set(o.rd, o.next_pc)
    b.jump(o.target)


LINK_REGISTERS = frozenset({1, 5})


def _hint(o: Operands) -> str:
    """Calls and returns by their link registers (specification, "Return-address stack prediction hints")."""
    if isinstance(o.rd, Register) and o.rd.index in LINK_REGISTERS:
        return "call"
    return "return" if isinstance(o.rs1, Register) and o.rs1.index in LINK_REGISTERS else ""


def _jalr(*, aligned: bool) -> Meaning:
    def meaning(b: Builder, o: Operands) -> None:
        address = b.and_(b.add(o.rs1, o.imm), -2)
        if not aligned:
            b.trap_if(b.ne(b.and_(address, 2), 0), "misaligned_fetch", address)
        b.set(o.rd, o.next_pc)
        b.indirect(address, _hint(o))

    return meaning


def _branch(compare: Callable[[Builder, Operand, Operand], Temp]) -> Meaning:
    def meaning(b: Builder, o: Operands) -> None:
        condition = compare(b, o.rs1, o.rs2)
        if o.misaligned:
            b.trap_if(condition, "misaligned_fetch", o.target)
        else:
            b.branch(condition, o.target, o.next_pc)

    return meaning


def load(type_: Type, *, signed: bool, offset: str = "imm") -> Meaning:
    def meaning(b: Builder, o: Operands) -> None:
        value = b.load(b.add(o.rs1, getattr(o, offset)), type_)
        b.set(o.rd, b.sext(value) if signed else b.zext(value))

    return meaning


def store(type_: Type, offset: str = "imm") -> Meaning:
    return lambda b, o: b.store(b.add(o.rs1, getattr(o, offset)), b.trunc(o.rs2, type_))


def nothing(b: Builder, o: Operands) -> None:
    """Hints and fences: one hart per lane sees its own accesses in order."""


_row("lui", "imm[31:12] rd 0110111", "rd, imm", _lui)
_row("auipc", "imm[31:12] rd 0010111", "rd, imm", _auipc)
_row("jal", "imm[20|10:1|11|19:12] rd 1101111", "rd, imm", _jal)
_row("jalr", "imm[11:0] rs1 000 rd 1100111", "rd, imm(rs1)", _jalr(aligned=True), extensions="zca")
_row("jalr", "imm[11:0] rs1 000 rd 1100111", "rd, imm(rs1)", _jalr(aligned=False), extensions="!zca")

for _name, _funct3, _compare in (
    ("beq", "000", Builder.eq),
    ("bne", "001", Builder.ne),
    ("blt", "100", Builder.lts),
    ("bge", "101", Builder.ges),
    ("bltu", "110", Builder.ltu),
    ("bgeu", "111", Builder.geu),
):
    _row(_name, f"imm[12|10:5] rs2 rs1 {_funct3} imm[4:1|11] 1100011", "rs1, rs2, imm", _branch(_compare))

for _name, _funct3, _type, _signed, _xlens in (
    ("lb", "000", I8, True, RV32 | RV64),
    ("lh", "001", I16, True, RV32 | RV64),
    ("lw", "010", I32, True, RV32 | RV64),
    ("ld", "011", I64, True, RV64),
    ("lbu", "100", I8, False, RV32 | RV64),
    ("lhu", "101", I16, False, RV32 | RV64),
    ("lwu", "110", I32, False, RV64),
):
    _row(_name, f"imm[11:0] rs1 {_funct3} rd 0000011", "rd, imm(rs1)", load(_type, signed=_signed), xlens=_xlens)

for _name, _funct3, _type, _xlens in (
    ("sb", "000", I8, RV32 | RV64),
    ("sh", "001", I16, RV32 | RV64),
    ("sw", "010", I32, RV32 | RV64),
    ("sd", "011", I64, RV64),
):
    _row(_name, f"imm[11:5] rs2 rs1 {_funct3} imm[4:0] 0100011", "rs2, imm(rs1)", store(_type), xlens=_xlens)

for _name, _funct3, _compute in (
    ("addi", "000", Builder.add),
    ("slti", "010", flag(Builder.lts)),
    ("sltiu", "011", flag(Builder.ltu)),
    ("xori", "100", Builder.xor),
    ("ori", "110", Builder.or_),
    ("andi", "111", Builder.and_),
):
    _row(_name, f"imm[11:0] rs1 {_funct3} rd 0010011", "rd, rs1, imm", with_immediate(_compute))

for _name, _top, _funct3, _compute in (
    ("slli", "000000", "001", Builder.shl),
    ("srli", "000000", "101", Builder.shr),
    ("srai", "010000", "101", Builder.sar),
):
    _row(_name, f"{_top}0 shamt[4:0] rs1 {_funct3} rd 0010011", "rd, rs1, shamt", with_shamt(_compute), xlens=RV32)
    _row(_name, f"{_top} shamt[5:0] rs1 {_funct3} rd 0010011", "rd, rs1, shamt", with_shamt(_compute), xlens=RV64)
    _row(f"{_name}w", f"{_top}0 shamt[4:0] rs1 {_funct3} rd 0011011", "rd, rs1, shamt",
         with_shamt(word(_compute)), xlens=RV64)  # fmt: skip

for _name, _funct7, _funct3, _compute in (
    ("add", "0000000", "000", Builder.add),
    ("sub", "0100000", "000", Builder.sub),
    ("sll", "0000000", "001", Builder.shl),
    ("slt", "0000000", "010", flag(Builder.lts)),
    ("sltu", "0000000", "011", flag(Builder.ltu)),
    ("xor", "0000000", "100", Builder.xor),
    ("srl", "0000000", "101", Builder.shr),
    ("sra", "0100000", "101", Builder.sar),
    ("or", "0000000", "110", Builder.or_),
    ("and", "0000000", "111", Builder.and_),
):
    _row(_name, f"{_funct7} rs2 rs1 {_funct3} rd 0110011", "rd, rs1, rs2", with_register(_compute))

_row("addiw", "imm[11:0] rs1 000 rd 0011011", "rd, rs1, imm", with_immediate(word(Builder.add)), xlens=RV64)
for _name, _funct7, _funct3, _compute in (
    ("addw", "0000000", "000", Builder.add),
    ("subw", "0100000", "000", Builder.sub),
    ("sllw", "0000000", "001", Builder.shl),
    ("srlw", "0000000", "101", Builder.shr),
    ("sraw", "0100000", "101", Builder.sar),
):
    _row(_name, f"{_funct7} rs2 rs1 {_funct3} rd 0111011", "rd, rs1, rs2", with_register(word(_compute)), xlens=RV64)

_row("fence", "---- pred succ ----- 000 ----- 0001111", "", nothing)
_row("fence.i", "------------ ----- 001 ----- 0001111", "", lambda b, o: b.stop("fence_i", o.next_pc),
     extensions="zifencei")  # fmt: skip
_row("ecall", "000000000000 00000 000 00000 1110011", "", lambda b, o: b.stop("ecall", o.next_pc))
_row("ebreak", "000000000001 00000 000 00000 1110011", "", lambda b, o: b.stop("ebreak"))
