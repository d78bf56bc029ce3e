"""A plain-Python RISC-V machine, written from the unprivileged specification: the oracle for what Unicorn lacks.

It runs symbolic instructions (`Instruction`), not bytes, so that it shares neither tables nor decoder with vmjit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.differential.asm import encode


def signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _div(a: int, b: int, n: int) -> int:
    x, y = signed(a, n), signed(b, n)
    if y == 0:
        return -1
    quotient = abs(x) // abs(y)
    return quotient if (x < 0) == (y < 0) else -quotient


def _rem(a: int, b: int, n: int) -> int:
    x, y = signed(a, n), signed(b, n)
    if y == 0:
        return x
    remainder = abs(x) % abs(y)
    return -remainder if x < 0 else remainder


def _carryless(a: int, b: int) -> int:
    product = 0
    for i in range(b.bit_length()):
        if b >> i & 1:
            product ^= a << i
    return product


def _rol(a: int, amount: int, n: int) -> int:
    amount %= n
    return (a << amount | a >> (n - amount)) & ((1 << n) - 1)


def _clz(a: int, n: int) -> int:
    return len(f"{a:0{n}b}") - len(f"{a:0{n}b}".lstrip("0"))


def _ctz(a: int, n: int) -> int:
    text = f"{a:0{n}b}"
    return n - len(text.rstrip("0"))


def _bytes(a: int, n: int) -> bytes:
    return a.to_bytes(n // 8, "little")


# Two operands of n bits, as unsigned numbers; the result is taken modulo 2^n.
BINARY: dict[str, Callable[[int, int, int], int]] = {
    "add": lambda a, b, n: a + b,
    "sub": lambda a, b, n: a - b,
    "sll": lambda a, b, n: a << (b % n),
    "slt": lambda a, b, n: signed(a, n) < signed(b, n),
    "sltu": lambda a, b, n: a < b,
    "xor": lambda a, b, n: a ^ b,
    "srl": lambda a, b, n: a >> (b % n),
    "sra": lambda a, b, n: signed(a, n) >> (b % n),
    "or": lambda a, b, n: a | b,
    "and": lambda a, b, n: a & b,
    "mul": lambda a, b, n: a * b,
    "mulh": lambda a, b, n: signed(a, n) * signed(b, n) >> n,
    "mulhsu": lambda a, b, n: signed(a, n) * b >> n,
    "mulhu": lambda a, b, n: a * b >> n,
    "div": _div,
    "divu": lambda a, b, n: a // b if b else -1,
    "rem": _rem,
    "remu": lambda a, b, n: a % b if b else a,
    "sh1add": lambda a, b, n: (a << 1) + b,
    "sh2add": lambda a, b, n: (a << 2) + b,
    "sh3add": lambda a, b, n: (a << 3) + b,
    "add.uw": lambda a, b, n: (a & 0xFFFFFFFF) + b,
    "sh1add.uw": lambda a, b, n: ((a & 0xFFFFFFFF) << 1) + b,
    "sh2add.uw": lambda a, b, n: ((a & 0xFFFFFFFF) << 2) + b,
    "sh3add.uw": lambda a, b, n: ((a & 0xFFFFFFFF) << 3) + b,
    "slli.uw": lambda a, b, n: (a & 0xFFFFFFFF) << b,
    "andn": lambda a, b, n: a & ~b,
    "orn": lambda a, b, n: a | ~b,
    "xnor": lambda a, b, n: ~(a ^ b),
    "min": lambda a, b, n: min(signed(a, n), signed(b, n)),
    "minu": lambda a, b, n: min(a, b),
    "max": lambda a, b, n: max(signed(a, n), signed(b, n)),
    "maxu": lambda a, b, n: max(a, b),
    "rol": _rol,
    "ror": lambda a, b, n: _rol(a, n - b % n, n),
    "bclr": lambda a, b, n: a & ~(1 << b % n),
    "bext": lambda a, b, n: a >> (b % n) & 1,
    "binv": lambda a, b, n: a ^ 1 << b % n,
    "bset": lambda a, b, n: a | 1 << b % n,
    "clmul": lambda a, b, n: _carryless(a, b),
    "clmulh": lambda a, b, n: _carryless(a, b) >> n,
    "clmulr": lambda a, b, n: _carryless(a, b) >> (n - 1),
    "czero.eqz": lambda a, b, n: 0 if b == 0 else a,
    "czero.nez": lambda a, b, n: 0 if b != 0 else a,
}
UNARY: dict[str, Callable[[int, int], int]] = {
    "clz": _clz,
    "ctz": _ctz,
    "cpop": lambda a, n: f"{a:b}".count("1"),
    "sext.b": lambda a, n: signed(a, 8),
    "sext.h": lambda a, n: signed(a, 16),
    "zext.h": lambda a, n: a % 65536,
    "orc.b": lambda a, n: int.from_bytes(bytes(255 if x else 0 for x in _bytes(a, n)), "little"),
    "rev8": lambda a, n: int.from_bytes(_bytes(a, n)[::-1], "little"),
}
# On the low 32 bits, the result sign-extended.
WORD = {
    **{f"{n}w": n for n in ("add", "sub", "sll", "srl", "sra", "mul", "div", "rem", "rol", "ror")},
    "divuw": "divu", "remuw": "remu", "clzw": "clz", "ctzw": "ctz", "cpopw": "cpop",
}  # fmt: skip
IMMEDIATE = {
    **{f"{n}i": n for n in ("add", "slt", "xor", "or", "and", "sll", "srl", "sra", "bclr", "bext", "binv", "bset")},
    "sltiu": "sltu", "addiw": "addw", "slliw": "sllw", "srliw": "srlw", "sraiw": "sraw",
    "rori": "ror", "roriw": "rorw", "slli.uw": "slli.uw",
}  # fmt: skip
BRANCHES: dict[str, Callable[[int, int, int], bool]] = {
    "beq": lambda a, b, n: a == b,
    "bne": lambda a, b, n: a != b,
    "blt": lambda a, b, n: signed(a, n) < signed(b, n),
    "bge": lambda a, b, n: signed(a, n) >= signed(b, n),
    "bltu": lambda a, b, n: a < b,
    "bgeu": lambda a, b, n: a >= b,
}
LOADS = {"lb": (1, True), "lh": (2, True), "lw": (4, True), "ld": (8, True), "lbu": (1, False), "lhu": (2, False),
         "lwu": (4, False)}  # fmt: skip
STORES = {"sb": 1, "sh": 2, "sw": 4, "sd": 8}
AMO: dict[str, Callable[[int, int, int], int]] = {
    "amoswap": lambda a, b, n: b,
    "amoadd": lambda a, b, n: a + b,
    "amoxor": lambda a, b, n: a ^ b,
    "amoand": lambda a, b, n: a & b,
    "amoor": lambda a, b, n: a | b,
    "amomin": lambda a, b, n: min(signed(a, n), signed(b, n)),
    "amomax": lambda a, b, n: max(signed(a, n), signed(b, n)),
    "amominu": lambda a, b, n: min(a, b),
    "amomaxu": lambda a, b, n: max(a, b),
}


def compute(name: str, a: int, b: int, xlen: int) -> int:
    """The result of an instruction that only computes, from its operands (an immediate as a signed number)."""
    name = IMMEDIATE.get(name, name)
    bits = xlen
    if name in WORD:
        name, bits = WORD[name], 32
    mask = (1 << bits) - 1
    a, b = a & mask, b & mask
    result = int(UNARY[name](a, bits) if name in UNARY else BINARY[name](a, b, bits))
    return (signed(result, 32) if bits == 32 else result) & ((1 << xlen) - 1)


@dataclass(frozen=True)
class Instruction:
    """`name` and operands say what it does; `short` names the compressed form it is written in, if any.

    Targets of branches and jumps are byte offsets in `imm`; `lui` and `auipc` have the upper 20 bits there.
    """

    name: str
    rd: int = 0
    rs1: int = 0
    rs2: int = 0
    imm: int = 0
    short: str = ""

    @property
    def size(self) -> int:
        return 2 if self.short else 4

    def data(self, xlen: int) -> bytes:
        imm = self.imm
        if self.short == "c.lui":
            imm &= 0x3F
        return encode(self.short or self.name, xlen, rd=self.rd, rs1=self.rs1, rs2=self.rs2, imm=imm)


class Fault(Exception):
    def __init__(self, access: str, address: int) -> None:
        super().__init__(f"{access} {address:#x}")
        self.access = access
        self.address = address


@dataclass
class Memory:
    """Spans of guest memory: start address, bytes, writable."""

    spans: list[tuple[int, bytearray, bool]] = field(default_factory=list)

    def byte(self, address: int, write: bool) -> tuple[bytearray, int] | None:
        for start, data, writable in self.spans:
            if start <= address < start + len(data) and (writable or not write):
                return data, address - start
        return None

    def places(self, address: int, size: int, xlen: int, write: bool) -> list[tuple[bytearray, int]]:
        found = [self.byte((address + i) & ((1 << xlen) - 1), write) for i in range(size)]
        if None in found:
            raise Fault("write" if write else "read", address)
        return found  # type: ignore[return-value]

    def read(self, address: int, size: int, xlen: int) -> int:
        return int.from_bytes(bytes(d[i] for d, i in self.places(address, size, xlen, False)), "little")

    def write(self, address: int, value: int, size: int, xlen: int) -> None:
        for (data, i), byte in zip(self.places(address, size, xlen, True), (value & (1 << 8 * size) - 1).to_bytes(size, "little"), strict=True):  # fmt: skip
            data[i] = byte


class Reference:
    """One hart. `code` maps addresses to instructions; `stop` is None, "ebreak", "fault", "budget"."""

    def __init__(self, xlen: int, code: dict[int, Instruction], pc: int, registers: list[int], memory: Memory) -> None:
        self.xlen = xlen
        self.mask = (1 << xlen) - 1
        self.code = code
        self.pc = pc
        self.x = list(registers)
        self.x[0] = 0
        self.memory = memory
        self.retired = 0
        self.reservation: int | None = None
        self.reserved_value = 0
        # An sc found its reservation held and another value there, which this hart itself had stored meanwhile. The
        # specification leaves open whether it succeeds: here it does, QEMU compares values and lets it fail.
        self.disputed = False
        self.stop: str | None = None
        self.fault: Fault | None = None

    def run(self, limit: int | None = None) -> None:
        """Until something stops it, or `limit` more instructions are retired."""
        end = None if limit is None else self.retired + limit
        self.stop = self.fault = None
        while self.stop is None:
            if end is not None and self.retired >= end:
                self.stop = "budget"
                return
            try:
                self.step()
            except Fault as fault:
                self.stop, self.fault = "fault", fault

    def step(self) -> None:
        i = self.code.get(self.pc)
        if i is None:
            raise Fault("fetch", self.pc)
        following = self.pc + i.size
        a, b = self.x[i.rs1], self.x[i.rs2]
        result: int | None = None
        n, xlen = i.name, self.xlen
        if n in BRANCHES:
            if BRANCHES[n](a, b, xlen):
                following = self.pc + i.imm
        elif n in LOADS:
            size, is_signed = LOADS[n]
            result = self.memory.read((a + i.imm) & self.mask, size, xlen)
            result = signed(result, 8 * size) if is_signed else result
        elif n in STORES:
            self.memory.write((a + i.imm) & self.mask, b, STORES[n], xlen)
        elif n == "lui":
            result = signed(i.imm << 12, 32)
        elif n == "auipc":
            result = self.pc + signed(i.imm << 12, 32)
        elif n == "jal":
            result, following = following, self.pc + i.imm
        elif n == "jalr":
            result, following = following, (a + i.imm) & ~1
        elif n == "ebreak":
            self.stop = "ebreak"
            return
        elif n == "ecall":  # only calls that nobody knows
            self.x[10] = -38 & self.mask
        elif n in ("fence", "fence.i"):
            pass
        elif n in ("rdinstret", "rdcycle", "rdtime"):
            result = self.retired
        elif n.partition(".")[2] in ("w", "d") and n.partition(".")[0] in (*AMO, "lr", "sc"):
            result = self._atomic(n, a, b)
        else:
            result = compute(n, a, i.imm if n in IMMEDIATE else b, xlen)
        if result is not None and i.rd:
            self.x[i.rd] = result & self.mask
        self.pc = following & self.mask
        self.retired += 1

    def _atomic(self, name: str, a: int, b: int) -> int:
        stem, _, width = name.partition(".")
        size = 4 if width == "w" else 8
        if a % size:
            raise Fault("misaligned", a)
        if stem == "sc":
            held = self.reservation == a
            if held:
                self.disputed |= self.memory.read(a, size, self.xlen) != self.reserved_value % (1 << 8 * size)
                self.memory.write(a, b, size, self.xlen)
            self.reservation = None
            return 0 if held else 1
        old = self.memory.read(a, size, self.xlen)
        if stem == "lr":
            self.reservation, self.reserved_value = a, old
        else:
            bits = 8 * size
            self.memory.write(a, AMO[stem](old, b & (1 << bits) - 1, bits), size, self.xlen)
        return signed(old, 8 * size)
