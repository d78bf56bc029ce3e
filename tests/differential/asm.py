"""A small RISC-V assembler, written from the specification apart from the decoder's tables.

`encode("addi", rd=1, rs1=2, imm=-3)` gives bytes; compressed instructions are named `c.…`. `EXTENSION` says which
extension a name needs, `ONLY64` which names RV32 lacks.
"""

from __future__ import annotations

_R = {  # name: (opcode, funct3, funct7)
    "add": (0x33, 0, 0x00), "sub": (0x33, 0, 0x20), "sll": (0x33, 1, 0x00), "slt": (0x33, 2, 0x00),
    "sltu": (0x33, 3, 0x00), "xor": (0x33, 4, 0x00), "srl": (0x33, 5, 0x00), "sra": (0x33, 5, 0x20),
    "or": (0x33, 6, 0x00), "and": (0x33, 7, 0x00),
    "addw": (0x3B, 0, 0x00), "subw": (0x3B, 0, 0x20), "sllw": (0x3B, 1, 0x00), "srlw": (0x3B, 5, 0x00),
    "sraw": (0x3B, 5, 0x20),
    "mul": (0x33, 0, 1), "mulh": (0x33, 1, 1), "mulhsu": (0x33, 2, 1), "mulhu": (0x33, 3, 1),
    "div": (0x33, 4, 1), "divu": (0x33, 5, 1), "rem": (0x33, 6, 1), "remu": (0x33, 7, 1),
    "mulw": (0x3B, 0, 1), "divw": (0x3B, 4, 1), "divuw": (0x3B, 5, 1), "remw": (0x3B, 6, 1), "remuw": (0x3B, 7, 1),
    "sh1add": (0x33, 2, 0x10), "sh2add": (0x33, 4, 0x10), "sh3add": (0x33, 6, 0x10),
    "add.uw": (0x3B, 0, 0x04), "sh1add.uw": (0x3B, 2, 0x10), "sh2add.uw": (0x3B, 4, 0x10),
    "sh3add.uw": (0x3B, 6, 0x10),
    "andn": (0x33, 7, 0x20), "orn": (0x33, 6, 0x20), "xnor": (0x33, 4, 0x20),
    "min": (0x33, 4, 0x05), "minu": (0x33, 5, 0x05), "max": (0x33, 6, 0x05), "maxu": (0x33, 7, 0x05),
    "rol": (0x33, 1, 0x30), "ror": (0x33, 5, 0x30), "rolw": (0x3B, 1, 0x30), "rorw": (0x3B, 5, 0x30),
    "bclr": (0x33, 1, 0x24), "bext": (0x33, 5, 0x24), "binv": (0x33, 1, 0x34), "bset": (0x33, 1, 0x14),
    "clmul": (0x33, 1, 0x05), "clmulr": (0x33, 2, 0x05), "clmulh": (0x33, 3, 0x05),
    "czero.eqz": (0x33, 5, 0x07), "czero.nez": (0x33, 7, 0x07),
}  # fmt: skip

_I = {"addi": (0x13, 0), "slti": (0x13, 2), "sltiu": (0x13, 3), "xori": (0x13, 4), "ori": (0x13, 6),
      "andi": (0x13, 7), "addiw": (0x1B, 0), "jalr": (0x67, 0),
      "lb": (0x03, 0), "lh": (0x03, 1), "lw": (0x03, 2), "ld": (0x03, 3), "lbu": (0x03, 4), "lhu": (0x03, 5),
      "lwu": (0x03, 6)}  # fmt: skip
_SHIFT = {"slli": (0x13, 1, 0x00), "srli": (0x13, 5, 0x00), "srai": (0x13, 5, 0x10),
          "slliw": (0x1B, 1, 0x00), "srliw": (0x1B, 5, 0x00), "sraiw": (0x1B, 5, 0x10), "slli.uw": (0x1B, 1, 0x02),
          "rori": (0x13, 5, 0x18), "roriw": (0x1B, 5, 0x18),
          "bclri": (0x13, 1, 0x12), "bexti": (0x13, 5, 0x12), "binvi": (0x13, 1, 0x1A),
          "bseti": (0x13, 1, 0x0A)}  # funct6  # fmt: skip
_UNARY = {"clz": (0x13, 1, 0x600), "ctz": (0x13, 1, 0x601), "cpop": (0x13, 1, 0x602), "sext.b": (0x13, 1, 0x604),
          "sext.h": (0x13, 1, 0x605), "clzw": (0x1B, 1, 0x600), "ctzw": (0x1B, 1, 0x601), "cpopw": (0x1B, 1, 0x602),
          "orc.b": (0x13, 5, 0x287)}  # fmt: skip
_UNARY_BY_XLEN = {("rev8", 32): (0x13, 5, 0x698), ("rev8", 64): (0x13, 5, 0x6B8),
                  ("zext.h", 32): (0x33, 4, 0x080), ("zext.h", 64): (0x3B, 4, 0x080)}  # fmt: skip
_S = {"sb": 0, "sh": 1, "sw": 2, "sd": 3}
_B = {"beq": 0, "bne": 1, "blt": 4, "bge": 5, "bltu": 6, "bgeu": 7}
_AMO = {"lr": 0x02, "sc": 0x03, "amoswap": 0x01, "amoadd": 0x00, "amoxor": 0x04, "amoand": 0x0C, "amoor": 0x08,
        "amomin": 0x10, "amomax": 0x14, "amominu": 0x18, "amomaxu": 0x1C}  # fmt: skip
_FIXED = {"ecall": 0x00000073, "ebreak": 0x00100073, "fence": 0x0FF0000F, "fence.i": 0x0000100F}
_COUNTERS = {"rdcycle": 0xC00, "rdtime": 0xC01, "rdinstret": 0xC02,
             "rdcycleh": 0xC80, "rdtimeh": 0xC81, "rdinstreth": 0xC82}  # fmt: skip

ONLY64 = {"addw", "subw", "sllw", "srlw", "sraw", "addiw", "slliw", "srliw", "sraiw", "ld", "lwu", "sd",
          "mulw", "divw", "divuw", "remw", "remuw", "add.uw", "sh1add.uw", "sh2add.uw", "sh3add.uw", "slli.uw",
          "rolw", "rorw", "roriw", "clzw", "ctzw", "cpopw",
          *(f"{n}.d" for n in _AMO)}  # fmt: skip

ZBA = {"sh1add", "sh2add", "sh3add", "add.uw", "sh1add.uw", "sh2add.uw", "sh3add.uw", "slli.uw"}
ZBB = {"andn", "orn", "xnor", "min", "minu", "max", "maxu", "rol", "ror", "rolw", "rorw", "rori", "roriw", "clz", "ctz",
       "cpop", "clzw", "ctzw", "cpopw", "sext.b", "sext.h", "zext.h", "orc.b", "rev8"}  # fmt: skip
ZBS = {"bclr", "bext", "binv", "bset", "bclri", "bexti", "binvi", "bseti"}
ZBC = {"clmul", "clmulr", "clmulh"}
ZICOND = {"czero.eqz", "czero.nez"}
BITMANIP = ZBA | ZBB | ZBS | ZBC
REGISTER = tuple(_R)
IMMEDIATE = tuple(n for n, (opcode, _) in _I.items() if opcode in (0x13, 0x1B))
SHIFT = tuple(_SHIFT)
UNARY = (*_UNARY, "rev8", "zext.h")
LOADS = tuple(n for n, (opcode, _) in _I.items() if opcode == 0x03)
STORES = tuple(_S)
BRANCHES = tuple(_B)
AMOS = tuple(f"{n}.{w}" for n in _AMO if n not in ("lr", "sc") for w in "wd")


def _bits(value: int, high: int, low: int) -> int:
    return (value >> low) & ((1 << (high - low + 1)) - 1)


def _scatter(value: int, *places: tuple[int, int, int]) -> int:
    """Bits high..low of the value at each place's position: (high, low, position)."""
    return sum(_bits(value, high, low) << position for high, low, position in places)


def encode(name: str, xlen: int = 64, *, rd: int = 0, rs1: int = 0, rs2: int = 0, imm: int = 0) -> bytes:
    if name.startswith("c."):
        return compressed(name, xlen, rd=rd, rs1=rs1, rs2=rs2, imm=imm).to_bytes(2, "little")
    return _word(name, xlen, rd, rs1, rs2, imm).to_bytes(4, "little")


def _word(name: str, xlen: int, rd: int, rs1: int, rs2: int, imm: int) -> int:
    registers = rs2 << 20 | rs1 << 15 | rd << 7
    if name in _FIXED:
        return _FIXED[name]
    if name in _R:
        opcode, funct3, funct7 = _R[name]
        return funct7 << 25 | registers | funct3 << 12 | opcode
    if name in _I:
        opcode, funct3 = _I[name]
        assert -2048 <= imm < 2048
        return (imm & 0xFFF) << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode
    if name in _SHIFT:
        opcode, funct3, funct6 = _SHIFT[name]
        assert 0 <= imm < (64 if xlen == 64 and (opcode == 0x13 or name == "slli.uw") else 32)
        return funct6 << 26 | imm << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode
    if name in _UNARY or (name, xlen) in _UNARY_BY_XLEN:
        opcode, funct3, top = _UNARY.get(name) or _UNARY_BY_XLEN[name, xlen]
        return top << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode
    if name in _S:
        assert -2048 <= imm < 2048
        return _scatter(imm, (11, 5, 25), (4, 0, 7)) | rs2 << 20 | rs1 << 15 | _S[name] << 12 | 0x23
    if name in _B:
        assert -4096 <= imm < 4096
        where = _scatter(imm, (12, 12, 31), (10, 5, 25), (4, 1, 8), (11, 11, 7))
        return where | rs2 << 20 | rs1 << 15 | _B[name] << 12 | 0x63
    if name in ("lui", "auipc"):
        return (imm & 0xFFFFF) << 12 | rd << 7 | (0x37 if name == "lui" else 0x17)
    if name == "jal":
        return _scatter(imm, (20, 20, 31), (10, 1, 21), (11, 11, 20), (19, 12, 12)) | rd << 7 | 0x6F
    if name in _COUNTERS:
        return _COUNTERS[name] << 20 | 2 << 12 | rd << 7 | 0x73
    stem, _, width = name.partition(".")
    if stem in _AMO and width in ("w", "d"):
        return _AMO[stem] << 27 | registers | (2 if width == "w" else 3) << 12 | 0x2F
    raise KeyError(name)


def _short(register: int) -> int:
    assert 8 <= register <= 15
    return register - 8


def compressed(name: str, xlen: int, *, rd: int = 0, rs1: int = 0, rs2: int = 0, imm: int = 0) -> int:
    """A 16-bit instruction word (specification, chapter "C", "RVC Instruction Set Listings")."""
    six = _scatter(imm, (5, 5, 12), (4, 0, 2))
    match name:
        case "c.addi4spn":
            return _scatter(imm, (5, 4, 11), (9, 6, 7), (2, 2, 6), (3, 3, 5)) | _short(rd) << 2
        case "c.lw":
            return 0x4000 | _scatter(imm, (5, 3, 10), (2, 2, 6), (6, 6, 5)) | _short(rs1) << 7 | _short(rd) << 2
        case "c.sw":
            return 0xC000 | _scatter(imm, (5, 3, 10), (2, 2, 6), (6, 6, 5)) | _short(rs1) << 7 | _short(rs2) << 2
        case "c.ld":
            return 0x6000 | _scatter(imm, (5, 3, 10), (7, 6, 5)) | _short(rs1) << 7 | _short(rd) << 2
        case "c.sd":
            return 0xE000 | _scatter(imm, (5, 3, 10), (7, 6, 5)) | _short(rs1) << 7 | _short(rs2) << 2
        case "c.nop":
            return 0x0001
        case "c.addi":
            return 0x0001 | six | rd << 7
        case "c.addiw":
            return 0x2001 | six | rd << 7
        case "c.li":
            return 0x4001 | six | rd << 7
        case "c.addi16sp":
            return 0x6101 | _scatter(imm, (9, 9, 12), (4, 4, 6), (6, 6, 5), (8, 7, 3), (5, 5, 2))
        case "c.lui":  # imm: the value of bits 17 to 12
            return 0x6001 | six | rd << 7
        case "c.srli":
            return 0x8001 | six | _short(rd) << 7
        case "c.srai":
            return 0x8401 | six | _short(rd) << 7
        case "c.andi":
            return 0x8801 | six | _short(rd) << 7
        case "c.sub" | "c.xor" | "c.or" | "c.and":
            return 0x8C01 | ("c.sub", "c.xor", "c.or", "c.and").index(name) << 5 | _short(rd) << 7 | _short(rs2) << 2
        case "c.subw" | "c.addw":
            return 0x9C01 | ("c.subw", "c.addw").index(name) << 5 | _short(rd) << 7 | _short(rs2) << 2
        case "c.j" | "c.jal":
            where = _scatter(imm, (11, 11, 12), (4, 4, 11), (9, 8, 9), (10, 10, 8), (6, 6, 7), (7, 7, 6), (3, 1, 3),
                             (5, 5, 2))  # fmt: skip
            return (0xA001 if name == "c.j" else 0x2001) | where
        case "c.beqz" | "c.bnez":
            where = _scatter(imm, (8, 8, 12), (4, 3, 10), (7, 6, 5), (2, 1, 3), (5, 5, 2))
            return (0xC001 if name == "c.beqz" else 0xE001) | where | _short(rs1) << 7
        case "c.slli":
            return 0x0002 | six | rd << 7
        case "c.lwsp":
            return 0x4002 | _scatter(imm, (5, 5, 12), (4, 2, 4), (7, 6, 2)) | rd << 7
        case "c.ldsp":
            return 0x6002 | _scatter(imm, (5, 5, 12), (4, 3, 5), (8, 6, 2)) | rd << 7
        case "c.swsp":
            return 0xC002 | _scatter(imm, (5, 2, 9), (7, 6, 7)) | rs2 << 2
        case "c.sdsp":
            return 0xE002 | _scatter(imm, (5, 3, 10), (8, 6, 7)) | rs2 << 2
        case "c.jr":
            return 0x8002 | rs1 << 7
        case "c.mv":
            return 0x8002 | rd << 7 | rs2 << 2
        case "c.ebreak":
            return 0x9002
        case "c.jalr":
            return 0x9002 | rs1 << 7
        case "c.add":
            return 0x9002 | rd << 7 | rs2 << 2
        # Zcb
        case "c.lbu":
            return 0x8000 | _scatter(imm, (0, 0, 6), (1, 1, 5)) | _short(rs1) << 7 | _short(rd) << 2
        case "c.lhu":
            return 0x8400 | _scatter(imm, (1, 1, 5)) | _short(rs1) << 7 | _short(rd) << 2
        case "c.lh":
            return 0x8440 | _scatter(imm, (1, 1, 5)) | _short(rs1) << 7 | _short(rd) << 2
        case "c.sb":
            return 0x8800 | _scatter(imm, (0, 0, 6), (1, 1, 5)) | _short(rs1) << 7 | _short(rs2) << 2
        case "c.sh":
            return 0x8C00 | _scatter(imm, (1, 1, 5)) | _short(rs1) << 7 | _short(rs2) << 2
        case "c.mul":
            return 0x9C41 | _short(rd) << 7 | _short(rs2) << 2
    zcb = ("c.zext.b", "c.sext.b", "c.zext.h", "c.sext.h", "c.zext.w", "c.not")
    return 0x9C61 | zcb.index(name) << 2 | _short(rd) << 7
