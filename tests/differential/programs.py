"""Random programs: straight code, forward branches, bounded loops, calls, computed jumps, memory, compressed forms."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import strategies as st

from tests.differential import asm
from tests.differential.reference import Instruction, Memory

CODE = 0x10000
DATA = 0x40000
WINDOW = 256
POINTER_AT = 64
GUARD = 16  # bytes behind the window that keep heap and stack away from it: readable in every other case
UNKNOWN_CALL = 1000

RA, SP, OUTER, INNER, IN_FUNCTION, POINTER = 1, 2, 8, 9, 14, 15
_COUNTERS = (OUTER, INNER, IN_FUNCTION)  # by nesting; functions start at the third
_DESTINATIONS = st.sampled_from([10, 11, 12, 13, 5, 6, 7, 3, 17, 31, 0])
_SOURCES = st.sampled_from([10, 11, 12, 13, 5, 6, 7, 3, 17, 31, 0, RA, SP, OUTER, INNER, POINTER])
_SHORT = st.sampled_from([10, 11, 12, 13])
_SHORT_SOURCES = st.sampled_from([10, 11, 12, 13, OUTER, INNER, POINTER])
_IMM12 = st.one_of(st.integers(-16, 16), st.integers(-2048, 2047))
_INTERESTING = [0, 1, 2, 31, 32, 63, 64, 0x7F, 0x80, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, 1 << 63]


@dataclass(frozen=True)
class Jump:
    """An instruction whose target is behind `body`: a forward branch, a jump or a computed jump."""

    kind: str
    instruction: Instruction
    body: tuple[object, ...]


@dataclass(frozen=True)
class Loop:
    count: int
    body: tuple[object, ...]
    short: bool


@dataclass(frozen=True)
class Call:
    function: int
    kind: str


@dataclass
class Case:
    """A program as symbolic instructions by address, its bytes, and what each lane starts with."""

    xlen: int
    isa: str
    listing: dict[int, Instruction]
    code: bytes
    entry: int
    seed: int
    lanes: int
    schedule: list[int] = field(default_factory=list)

    def registers(self, lane: int) -> list[int]:
        source = random.Random(self.seed * 1000 + lane)
        mask = (1 << self.xlen) - 1
        values = [0]
        for _ in range(31):
            kind = source.randrange(4)
            value = source.choice(_INTERESTING) if kind < 2 else source.getrandbits(64)
            values.append((-value if kind == 1 else value) & mask)
        values[SP], values[POINTER] = DATA, DATA + POINTER_AT
        return values

    def memory(self, lane: int) -> bytes:
        return random.Random(self.seed * 1000 + lane + 500).randbytes(WINDOW)

    def reference_memory(self, lane: int) -> Memory:
        spans = [(CODE, bytearray(self.code), False), (DATA, bytearray(self.memory(lane)), True)]
        if self.guard_permissions:
            spans.append((DATA + WINDOW, bytearray(GUARD), False))
        return Memory(spans)

    @property
    def guard_permissions(self) -> int:
        return self.seed % 2

    @property
    def segments(self) -> list[tuple[int, int, bytes, int]]:
        """(address, size, data, permissions) of what a machine loads."""
        return [
            (CODE, len(self.code), self.code, 5),
            (DATA, WINDOW, b"", 3),
            (DATA + WINDOW, GUARD, b"", self.guard_permissions),
        ]

    def uses(self, *names: str) -> bool:
        return any(i.name in names for i in self.listing.values())

    def reproducer(self, tier: str) -> str:
        """A test case in one file: what ran, on which tier."""
        listing = "\n".join(
            f"#   {pc:#x}: {i.data(self.xlen)[::-1].hex():8} {i.short or i.name} rd=x{i.rd} rs1=x{i.rs1} rs2=x{i.rs2} imm={i.imm}"
            for pc, i in self.listing.items()
        )
        return f"""# --- reproducer
import numpy as np, vmjit
from vmjit.decoders.riscv.isa import parse_isa
from vmjit.program import Program, Segment
{listing}
code = bytes.fromhex("{self.code.hex()}")
segments = (Segment({CODE:#x}, len(code), code, 5), Segment({DATA:#x}, {WINDOW}, b"", 3), Segment({DATA + WINDOW:#x}, {GUARD}, b"", {self.guard_permissions}))
program = Program(segments, {self.entry:#x}, parse_isa("{self.isa}"))
m = vmjit.Machine(program, lanes={self.lanes}, tier="{tier}", memory=4096)
registers = {[self.registers(lane) for lane in range(self.lanes)]}
for i in range(1, 32):
    m.registers[i] = np.array([r[i] for r in registers], np.uint64)
memory = {[self.memory(lane).hex() for lane in range(self.lanes)]}
m.memory.write({DATA:#x}, np.frombuffer(b"".join(map(bytes.fromhex, memory)), np.uint8).reshape({self.lanes}, -1))
for k in {[*self.schedule, None]}:
    r = m.run(k)
    print(r.stops(), r.pc, m.retired)
print(m.registers.array())
# ---"""


# -- single instructions


def _compressed(xlen: int, zcb: bool, bitmanip: bool) -> st.SearchStrategy[Instruction]:
    n = xlen // 8
    six = st.integers(-32, 31)
    shamt = st.integers(1, xlen - 1)
    forms = [
        st.builds(lambda d, s: Instruction("add", d, 0, s, short="c.mv"), _DESTINATIONS, st.sampled_from([10, 11, 5, 31, SP, RA])),
        st.builds(lambda d, s: Instruction("add", d, d, s, short="c.add"), _DESTINATIONS, st.sampled_from([10, 11, 5, 31, SP, RA])),
        st.builds(lambda d, i: Instruction("addi", d, d, imm=i, short="c.addi"), _DESTINATIONS.filter(bool), six),
        st.builds(lambda d, i: Instruction("addi", d, 0, imm=i, short="c.li"), _DESTINATIONS, six),
        st.builds(lambda d, i: Instruction("lui", d, imm=i & 0xFFFFF, short="c.lui"), _DESTINATIONS, six.filter(bool)),
        st.builds(lambda d, i: Instruction("slli", d, d, imm=i, short="c.slli"), _DESTINATIONS, shamt),
        st.builds(lambda d, i: Instruction("srli", d, d, imm=i, short="c.srli"), _SHORT, shamt),
        st.builds(lambda d, i: Instruction("srai", d, d, imm=i, short="c.srai"), _SHORT, shamt),
        st.builds(lambda d, i: Instruction("andi", d, d, imm=i, short="c.andi"), _SHORT, six),
        st.builds(lambda k, d, s: Instruction(k, d, d, s, short=f"c.{k}"),
                  st.sampled_from(["sub", "xor", "or", "and"]), _SHORT, _SHORT_SOURCES),
        st.builds(lambda d, i: Instruction("addi", d, SP, imm=4 * i, short="c.addi4spn"), _SHORT, st.integers(1, 255)),
        st.builds(lambda d, i: Instruction("lw", d, POINTER, imm=4 * i, short="c.lw"), _SHORT, st.integers(0, 31)),
        st.builds(lambda s, i: Instruction("sw", rs1=POINTER, rs2=s, imm=4 * i, short="c.sw"), _SHORT_SOURCES, st.integers(0, 31)),
        st.builds(lambda d, i: Instruction("lw", d, SP, imm=4 * i, short="c.lwsp"), _DESTINATIONS.filter(bool), st.integers(0, 63)),
        st.builds(lambda s, i: Instruction("sw", rs1=SP, rs2=s, imm=4 * i, short="c.swsp"), _SOURCES, st.integers(0, 63)),
        st.just(Instruction("addi", short="c.nop")),
    ]  # fmt: skip
    if xlen == 64:
        forms += [
            st.builds(lambda d, i: Instruction("addiw", d, d, imm=i, short="c.addiw"), _DESTINATIONS.filter(bool), six),
            st.builds(lambda k, d, s: Instruction(k, d, d, s, short=f"c.{k}"), st.sampled_from(["subw", "addw"]), _SHORT,
                      _SHORT_SOURCES),
            st.builds(lambda d, i: Instruction("ld", d, POINTER, imm=n * i, short="c.ld"), _SHORT, st.integers(0, 23)),
            st.builds(lambda s, i: Instruction("sd", rs1=POINTER, rs2=s, imm=n * i, short="c.sd"), _SHORT_SOURCES, st.integers(0, 23)),
            st.builds(lambda d, i: Instruction("ld", d, SP, imm=n * i, short="c.ldsp"), _DESTINATIONS.filter(bool), st.integers(0, 31)),
            st.builds(lambda s, i: Instruction("sd", rs1=SP, rs2=s, imm=n * i, short="c.sdsp"), _SOURCES, st.integers(0, 31)),
        ]  # fmt: skip
    if zcb:
        forms += [
            st.builds(lambda d, i: Instruction("lbu", d, POINTER, imm=i, short="c.lbu"), _SHORT, st.integers(0, 3)),
            st.builds(lambda d, i: Instruction("lhu", d, POINTER, imm=2 * i, short="c.lhu"), _SHORT, st.integers(0, 1)),
            st.builds(lambda d, i: Instruction("lh", d, POINTER, imm=2 * i, short="c.lh"), _SHORT, st.integers(0, 1)),
            st.builds(lambda s, i: Instruction("sb", rs1=POINTER, rs2=s, imm=i, short="c.sb"), _SHORT_SOURCES, st.integers(0, 3)),
            st.builds(lambda s, i: Instruction("sh", rs1=POINTER, rs2=s, imm=2 * i, short="c.sh"), _SHORT_SOURCES, st.integers(0, 1)),
            st.builds(lambda d: Instruction("andi", d, d, imm=255, short="c.zext.b"), _SHORT),
            st.builds(lambda d: Instruction("xori", d, d, imm=-1, short="c.not"), _SHORT),
            st.builds(lambda d, s: Instruction("mul", d, d, s, short="c.mul"), _SHORT, _SHORT_SOURCES),
        ]  # fmt: skip
        if bitmanip:
            forms.append(
                st.builds(
                    lambda k, d: Instruction(k, d, d, short=f"c.{k}"),
                    st.sampled_from(["sext.b", "sext.h", "zext.h"]),
                    _SHORT,
                )
            )
            if xlen == 64:
                forms.append(st.builds(lambda d: Instruction("add.uw", d, d, 0, short="c.zext.w"), _SHORT))
    return st.one_of(forms)


def _single(xlen: int, extensions: set[str]) -> st.SearchStrategy[Instruction]:
    def there(name: str) -> bool:
        if xlen == 32 and name in asm.ONLY64:
            return False
        if name in asm.BITMANIP | asm.ZICOND:
            return "b" in extensions
        return True

    register = st.sampled_from([n for n in asm.REGISTER if there(n)])
    immediate = st.sampled_from([n for n in asm.IMMEDIATE if there(n)])
    shift = st.sampled_from([n for n in asm.SHIFT if there(n)])
    unary = [n for n in asm.UNARY if there(n)]
    load, store = (st.sampled_from([n for n in group if there(n)]) for group in (asm.LOADS, asm.STORES))
    amo = st.sampled_from([n for n in asm.AMOS if there(n)])
    width = st.sampled_from(["w", "d"] if xlen == 64 else ["w"])
    offset = st.one_of(
        st.integers(-POINTER_AT, WINDOW - POINTER_AT - 8), st.integers(-POINTER_AT - 2, WINDOW - POINTER_AT)
    )
    base = st.sampled_from([POINTER, POINTER, SP])
    forms = [
        st.builds(Instruction, register, _DESTINATIONS, _SOURCES, _SOURCES),
        st.builds(lambda n, d, s, i: Instruction(n, d, s, imm=i), immediate, _DESTINATIONS, _SOURCES, _IMM12),
        st.builds(lambda n, d, s, i: Instruction(n, d, s, imm=i % (32 if xlen == 32 or n in ("slliw", "srliw", "sraiw", "roriw") else 64)),
                  shift, _DESTINATIONS, _SOURCES, st.integers(0, 63)),
        st.builds(lambda n, d, i: Instruction(n, d, imm=i), st.sampled_from(["lui", "auipc"]), _DESTINATIONS, st.integers(0, 0xFFFFF)),
        st.builds(lambda n, d, i: Instruction(n, d, POINTER, imm=i), load, _DESTINATIONS, offset),
        st.builds(lambda n, s, i: Instruction(n, rs1=POINTER, rs2=s, imm=i), store, _SOURCES, offset),
        st.builds(lambda n, d, b, s: Instruction(n, d, b, s), amo, _DESTINATIONS, base, _SOURCES),
        st.builds(lambda w, d, b: Instruction(f"lr.{w}", d, b), width, _DESTINATIONS, base),
        st.builds(lambda w, d, b, s: Instruction(f"sc.{w}", d, b, s), width, _DESTINATIONS, base, _SOURCES),
        st.sampled_from([Instruction("fence"), Instruction("fence.i")]),
    ]  # fmt: skip
    if "counters" in extensions:
        forms.append(
            st.builds(lambda n, d: Instruction(n, d), st.sampled_from(["rdinstret", "rdcycle"]), _DESTINATIONS)
        )
    if "ecall" in extensions:
        forms.append(st.just(Instruction("ecall")))
    if unary:
        forms.append(st.builds(lambda n, d, s: Instruction(n, d, s), st.sampled_from(unary), _DESTINATIONS, _SOURCES))
    plain = st.one_of(forms)
    if "c" in extensions:
        short = _compressed(xlen, "zcb" in extensions, "b" in extensions)
        return st.one_of(plain, short)
    return plain


# -- control flow


@st.composite
def _items(
    draw: st.DrawFn, single: st.SearchStrategy[Instruction], depth: int, functions: int, most: int = 12
) -> tuple[object, ...]:
    """A sequence of instructions and control flow. Kinds are drawn first: hypothesis would weigh them by branches."""
    kinds = ["single"] * 5 + ["call"] * (2 if functions else 0)
    kinds += ["branch", "branch", "loop", "loop", "jal", "jalr"] if depth else []
    found: list[object] = []
    for _ in range(draw(st.integers(1, most))):
        kind = draw(st.sampled_from(kinds))
        if kind == "single":
            found.append(draw(single))
            continue
        if kind == "call":
            found.append(Call(draw(st.integers(0, functions - 1)), draw(st.sampled_from(["jal", "jalr"]))))
            continue
        body = draw(_items(single, depth - 1, functions, 6))
        if kind == "loop":
            found.append(Loop(draw(st.integers(1, 9)), body, draw(st.booleans())))
        elif kind == "branch":
            name = draw(st.sampled_from(asm.BRANCHES))
            found.append(Jump(kind, Instruction(name, rs1=draw(_SOURCES), rs2=draw(_SOURCES)), body))
        else:
            found.append(Jump(kind, Instruction(kind, draw(_DESTINATIONS), 5 if kind == "jalr" else 0), body))
    return tuple(found)


class _Layout:
    def __init__(self, xlen: int, compressed: bool) -> None:
        self.xlen = xlen
        self.compressed = compressed
        self.listing: dict[int, Instruction] = {}
        self.pc = CODE
        self.functions: list[int] = []

    def put(self, i: Instruction) -> None:
        if i.name == "ecall":  # whatever the program has in a7, the call is one that nobody knows
            self.put(Instruction("addi", 17, 0, imm=UNKNOWN_CALL))
        self.listing[self.pc] = i
        self.pc += i.size

    def size(self, items: tuple[object, ...], level: int) -> int:
        probe = _Layout(self.xlen, self.compressed)
        probe.pc, probe.functions = self.pc, self.functions
        start = probe.pc
        probe.items(items, level)
        return probe.pc - start

    def items(self, items: tuple[object, ...], level: int = 0) -> None:
        for item in items:
            if isinstance(item, Instruction):
                self.put(item)
            elif isinstance(item, Jump):
                self._jump(item, level)
            elif isinstance(item, Loop):
                self._loop(item, level)
            elif isinstance(item, Call) and self.functions:
                self._call(item)

    def _jump(self, item: Jump, level: int) -> None:
        size = self.size(item.body, level)
        i = item.instruction
        if item.kind == "jalr":  # the target is computed: auipc, addi
            self.put(Instruction("auipc", 5))
            self.put(Instruction("addi", 5, 5, imm=min(12 + size, 2047)))
            if 12 + size > 2047:
                return
            self.put(i)
        else:
            self.put(Instruction(i.name, i.rd, i.rs1, i.rs2, 4 + size))
        self.items(item.body, level)

    def _loop(self, item: Loop, level: int) -> None:
        if level >= len(_COUNTERS):
            self.items(item.body, level)
            return
        counter = _COUNTERS[level]
        short = self.compressed and item.short
        self.put(Instruction("addi", counter, 0, imm=item.count, short="c.li" if short else ""))
        start = self.pc
        self.items(item.body, level + 1)
        self.put(Instruction("addi", counter, counter, imm=-1, short="c.addi" if short else ""))
        back = start - self.pc
        near = short and back >= -256
        self.put(Instruction("bne", rs1=counter, imm=back, short="c.bnez" if near else ""))

    def _call(self, item: Call) -> None:
        goal = self.functions[item.function % len(self.functions)]
        if item.kind == "jal" and self.compressed and self.xlen == 32 and goal - self.pc >= -2048:
            self.put(Instruction("jal", RA, imm=goal - self.pc, short="c.jal"))
        elif item.kind == "jal":
            self.put(Instruction("jal", RA, imm=goal - self.pc))
        else:
            back = self.pc - goal
            self.put(Instruction("auipc", 6, imm=0 if back <= 2047 else -(back >> 12) - 1 & 0xFFFFF))
            if back <= 2047:
                self.put(Instruction("jalr", RA, 6, imm=-back))
            else:
                self.put(Instruction("addi", 6, 6, imm=0))
                self.put(Instruction("jal", RA, imm=goal - self.pc))


@st.composite
def cases(draw: st.DrawFn, xlen: int, extensions: frozenset[str], *, lanes: int = 3) -> Case:
    single = _single(xlen, set(extensions))
    functions = [draw(_items(single, draw(st.integers(0, 1)), 0, 5)) for _ in range(draw(st.integers(0, 2)))]
    body = draw(_items(single, 2, len(functions)))
    layout = _Layout(xlen, "c" in extensions)
    for function in functions:
        start = layout.pc
        layout.items(function, 2)
        short = "c.jr" if "c" in extensions and len(function) % 2 else ""
        layout.put(Instruction("jalr", 0, RA, short=short))
        layout.functions.append(start)
    entry = layout.pc
    layout.items(body)
    layout.put(Instruction("ebreak", short="c.ebreak" if "c" in extensions and len(body) % 2 else ""))
    isa = f"rv{xlen}ima" + ("c" if "c" in extensions else "") + ("b_zbc_zicond" if "b" in extensions else "")
    isa += "_zifencei" + ("_zcb" if "zcb" in extensions else "") + ("_zicntr" if "counters" in extensions else "")
    return Case(
        xlen,
        isa,
        layout.listing,
        b"".join(i.data(xlen) for i in layout.listing.values()),
        entry,
        draw(st.integers(0, 1 << 16)),
        lanes,
        [draw(st.integers(0, 120)) for _ in range(draw(st.integers(0, 4)))],
    )
