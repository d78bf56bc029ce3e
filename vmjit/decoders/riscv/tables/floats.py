"""F, D and Zfh (unprivileged specification, chapters "F", "D" and "Zfh").

Float registers have 64 bits, whichever formats there are. A narrower number lies in the low bits with all bits above it
set (NaN boxing); what is not boxed reads as the canonical NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

from vmjit.decoders.riscv.registers import FLOAT_STATUS
from vmjit.decoders.riscv.row import BOTH, RV64, Meaning, Operands, Table
from vmjit.ir.builder import Builder
from vmjit.ir.floats import FORMATS, MODE_SHIFT
from vmjit.ir.types import I16, I32, I64, Type
from vmjit.ir.values import Operand, Register

TABLE = Table("f")
_row = TABLE.row


@dataclass(frozen=True)
class Kind:
    """A format as the instructions name it. `least` is the extension with its loads, stores, moves and conversions."""

    suffix: str
    type: Type
    fmt: str
    width: str  # funct3 of its loads and stores
    extension: str
    least: str

    @property
    def sign(self) -> int:
        return FORMATS[self.type.bits].sign

    def read(self, b: Builder, register: Operand) -> Operand:
        """The number in a register."""
        if self.type is I64:
            return register
        above = b.shr(register, self.type.bits)
        boxed = b.eq(above, I64.mask >> self.type.bits)
        return b.select(boxed, b.trunc(register, self.type), b.const(FORMATS[self.type.bits].nan, self.type))

    def write(self, b: Builder, register: Operand, value: Operand) -> None:
        """Put a number into a register."""
        if self.type is not I64:
            value = b.or_(b.zext(value, I64), I64.mask & ~self.type.mask)
        b.set(register, value)


SINGLE = Kind("s", I32, "00", "010", "f", "f")
DOUBLE = Kind("d", I64, "01", "011", "d", "d")
HALF = Kind("h", I16, "10", "001", "zfh", "zfhmin")
_KINDS = (SINGLE, DOUBLE, HALF)


def _arithmetic(kind: Kind, name: str, *operands: str) -> Meaning:
    def meaning(b: Builder, o: Operands) -> None:
        given = [kind.read(b, getattr(o, operand)) for operand in operands]
        kind.write(b, o.fd, b.float_op(name, kind.type, *given, mode=o.rm))

    return meaning


def _extreme(kind: Kind, name: str) -> Meaning:
    return lambda b, o: kind.write(b, o.fd, b.float_op(name, kind.type, kind.read(b, o.fs1), kind.read(b, o.fs2)))


def _compare(kind: Kind, name: str) -> Meaning:
    def meaning(b: Builder, o: Operands) -> None:
        result = b.float_op(name, kind.type, kind.read(b, o.fs1), kind.read(b, o.fs2))
        b.set(o.rd, b.zext(result))

    return meaning


def _fused(kind: Kind, *, negate_product: bool, negate_addend: bool) -> Meaning:
    """A sign is changed before the operation: that of a NaN does not matter, since results are canonical."""

    def meaning(b: Builder, o: Operands) -> None:
        x, y, z = (kind.read(b, register) for register in (o.fs1, o.fs2, o.fs3))
        if negate_product:
            x = b.xor(x, kind.sign)
        if negate_addend:
            z = b.xor(z, kind.sign)
        kind.write(b, o.fd, b.float_op("fma", kind.type, x, y, z, mode=o.rm))

    return meaning


def _sign(kind: Kind, name: str) -> Meaning:
    """Sign injection changes no other bit and raises nothing."""

    def meaning(b: Builder, o: Operands) -> None:
        x, y = kind.read(b, o.fs1), kind.read(b, o.fs2)
        if name == "fsgnjx":
            result = b.xor(x, b.and_(y, kind.sign))
        else:
            sign = b.and_(b.not_(y) if name == "fsgnjn" else y, kind.sign)
            result = b.or_(b.and_(x, kind.sign - 1), sign)
        kind.write(b, o.fd, result)

    return meaning


def _classify(kind: Kind) -> Meaning:
    """One of ten bits: -inf, negative normal, subnormal, zero, the same positive, signaling NaN, quiet NaN."""

    def meaning(b: Builder, o: Operands) -> None:
        f = FORMATS[kind.type.bits]
        x = kind.read(b, o.fs1)
        magnitude = b.and_(x, f.sign - 1)
        place: Operand = b.const(3)  # where the class stands among those of one sign, from infinity down to zero
        for bound, number in ((1, 2), (1 << f.fraction, 1), (f.infinity, 0)):
            place = b.select(b.geu(magnitude, bound), b.const(number), place)
        negative = b.ne(b.and_(x, f.sign), 0)
        quiet = b.zext(b.ne(b.and_(x, 1 << (f.fraction - 1)), 0))
        class_ = b.select(negative, place, b.sub(7, place))
        class_ = b.select(b.ltu(f.infinity, magnitude), b.add(quiet, 8), class_)
        b.set(o.rd, b.shl(b.const(1), class_))

    return meaning


def _to_integer(kind: Kind, type_: Type, name: str) -> Meaning:
    return lambda b, o: b.set(o.rd, b.sext(b.float_op(name, type_, kind.read(b, o.fs1), mode=o.rm)))


def _from_integer(kind: Kind, type_: Type, name: str) -> Meaning:
    return lambda b, o: kind.write(b, o.fd, b.float_op(name, kind.type, b.trunc(o.rs1, type_), mode=o.rm))


def _convert(source: Kind, target: Kind) -> Meaning:
    return lambda b, o: target.write(b, o.fd, b.float_op("fcvt", target.type, source.read(b, o.fs1), mode=o.rm))


def _load(kind: Kind) -> Meaning:
    return lambda b, o: kind.write(b, o.fd, b.load(b.add(o.rs1, o.imm), kind.type))


def _store(kind: Kind) -> Meaning:
    return lambda b, o: b.store(b.add(o.rs1, o.imm), b.trunc(o.fs2, kind.type))


_RM = "rm!={5,6}"
_OP = "1010011"

for _kind in _KINDS:
    _s, _fmt, _width, _extension, _least = _kind.suffix, _kind.fmt, _kind.width, _kind.extension, _kind.least
    _load_name, _store_name = {"s": ("flw", "fsw"), "d": ("fld", "fsd"), "h": ("flh", "fsh")}[_s]
    _row(_load_name, f"imm[11:0] rs1 {_width} fd 0000111", "fd, imm(rs1)", _load(_kind), extensions=_least)
    _row(_store_name, f"imm[11:5] fs2 rs1 {_width} imm[4:0] 0100111", "fs2, imm(rs1)", _store(_kind),
         extensions=_least)  # fmt: skip
    for _name, _opcode, _product, _addend in (
        ("fmadd", "1000011", False, False),
        ("fmsub", "1000111", False, True),
        ("fnmsub", "1001011", True, False),
        ("fnmadd", "1001111", True, True),
    ):
        _row(f"{_name}.{_s}", f"fs3 {_fmt} fs2 fs1 {_RM} fd {_opcode}", "fd, fs1, fs2, fs3, rm",
             _fused(_kind, negate_product=_product, negate_addend=_addend), extensions=_extension)  # fmt: skip
    for _name, _funct5 in (("fadd", "00000"), ("fsub", "00001"), ("fmul", "00010"), ("fdiv", "00011")):
        _row(f"{_name}.{_s}", f"{_funct5} {_fmt} fs2 fs1 {_RM} fd {_OP}", "fd, fs1, fs2, rm",
             _arithmetic(_kind, _name, "fs1", "fs2"), extensions=_extension)  # fmt: skip
    _row(f"fsqrt.{_s}", f"01011 {_fmt} 00000 fs1 {_RM} fd {_OP}", "fd, fs1, rm", _arithmetic(_kind, "fsqrt", "fs1"),
         extensions=_extension)  # fmt: skip
    for _name, _funct3 in (("fsgnj", "000"), ("fsgnjn", "001"), ("fsgnjx", "010")):
        _row(f"{_name}.{_s}", f"00100 {_fmt} fs2 fs1 {_funct3} fd {_OP}", "fd, fs1, fs2", _sign(_kind, _name),
             extensions=_extension)  # fmt: skip
    for _name, _funct3 in (("fmin", "000"), ("fmax", "001")):
        _row(f"{_name}.{_s}", f"00101 {_fmt} fs2 fs1 {_funct3} fd {_OP}", "fd, fs1, fs2", _extreme(_kind, _name),
             extensions=_extension)  # fmt: skip
    for _name, _funct3 in (("fle", "000"), ("flt", "001"), ("feq", "010")):
        _row(f"{_name}.{_s}", f"10100 {_fmt} fs2 fs1 {_funct3} rd {_OP}", "rd, fs1, fs2", _compare(_kind, _name),
             extensions=_extension)  # fmt: skip
    _row(f"fclass.{_s}", f"11100 {_fmt} 00000 fs1 001 rd {_OP}", "rd, fs1", _classify(_kind), extensions=_extension)
    for _which, (_letter, _type, _xlens, _to, _from) in enumerate(
        (
            ("w", I32, BOTH, "ftos", "stof"),
            ("wu", I32, BOTH, "ftou", "utof"),
            ("l", I64, RV64, "ftos", "stof"),
            ("lu", I64, RV64, "ftou", "utof"),
        )
    ):
        _row(f"fcvt.{_letter}.{_s}", f"11000 {_fmt} {_which:05b} fs1 {_RM} rd {_OP}", "rd, fs1, rm",
             _to_integer(_kind, _type, _to), xlens=_xlens, extensions=_extension)  # fmt: skip
        _row(f"fcvt.{_s}.{_letter}", f"11010 {_fmt} {_which:05b} rs1 {_RM} fd {_OP}", "fd, rs1, rm",
             _from_integer(_kind, _type, _from), xlens=_xlens, extensions=_extension)  # fmt: skip
    for _other in _KINDS:
        if _other is not _kind:
            _needs = f"{_kind.least}+{_other.least}"
            _row(f"fcvt.{_s}.{_other.suffix}", f"01000 {_fmt} 000{_other.fmt} fs1 {_RM} fd {_OP}", "fd, fs1, rm",
                 _convert(_other, _kind), extensions=_needs)  # fmt: skip


def _move_out(kind: Kind) -> Meaning:
    """The low bits as they are, boxed or not."""
    return lambda b, o: b.set(o.rd, b.sext(b.trunc(o.fs1, kind.type)))


def _move_in(kind: Kind) -> Meaning:
    return lambda b, o: kind.write(b, o.fd, b.trunc(o.rs1, kind.type))


for _kind, _letter, _xlens in ((SINGLE, "w", BOTH), (DOUBLE, "d", RV64), (HALF, "h", BOTH)):
    _row(f"fmv.x.{_letter}", f"11100 {_kind.fmt} 00000 fs1 000 rd {_OP}", "rd, fs1", _move_out(_kind), xlens=_xlens,
         extensions=_kind.least)  # fmt: skip
    _row(f"fmv.{_letter}.x", f"11110 {_kind.fmt} 00000 rs1 000 fd {_OP}", "fd, rs1", _move_in(_kind), xlens=_xlens,
         extensions=_kind.least)  # fmt: skip


# The float status register and its two parts, by number, name, place and width.
_STATUS = Register(FLOAT_STATUS)
_CSRS = ((1, "fflags", 0, MODE_SHIFT), (2, "frm", MODE_SHIFT, 3), (3, "fcsr", 0, MODE_SHIFT + 3))


def _access(place: int, width: int, change: str, source: str) -> Meaning:
    """Read a part of the status register and write it: all of it, or the bits that are set in the operand."""
    mask = (1 << width) - 1

    def meaning(b: Builder, o: Operands) -> None:
        old = b.and_(b.shr(_STATUS, place) if place else _STATUS, mask)
        given: Operand = b.and_(getattr(o, source), mask)
        if change == "s":
            given = b.or_(old, given)
        elif change == "c":
            given = b.and_(old, b.not_(given))
        kept = b.and_(_STATUS, 0xFF & ~(mask << place))
        b.set(_STATUS, b.or_(kept, b.shl(given, place) if place else given))
        b.set(o.rd, old)

    return meaning


for _number, _name, _place, _bits in _CSRS:
    for _change, _funct2 in (("w", "01"), ("s", "10"), ("c", "11")):
        _row(f"csrr{_change}", f"{_number:012b} rs1 0{_funct2} rd 1110011", f"rd, {_name}, rs1",
             _access(_place, _bits, _change, "rs1"))  # fmt: skip
        _row(f"csrr{_change}i", f"{_number:012b} zimm 1{_funct2} rd 1110011", f"rd, {_name}, zimm",
             _access(_place, _bits, _change, "zimm"))  # fmt: skip
