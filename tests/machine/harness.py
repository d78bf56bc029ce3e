"""Programs with labels, and their runs beside the reference: one hart a lane, everything compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from tests.differential.oracles import EXECUTE, READ, WRITE, machine, program, settle
from tests.differential.reference import Fault, Instruction, Memory, Reference
from vmjit import Access, Machine, RunResult, Stop
from vmjit.decoders.riscv.isa import parse_isa
from vmjit.program import Program, Segment

CODE = 0x10000
DATA = 0x40000
ARENA = 4096

TIERS = ("interpreter", "scalar", "simd", "auto")
EVERYWHERE = [
    ("cpu", "interpreter"),
    ("cpu", "scalar"),
    ("cpu", "auto"),
    ("host", "interpreter"),
    pytest.param("cpu", "simd", marks=pytest.mark.slow),
    pytest.param("host", "scalar", marks=pytest.mark.slow),
]
"""(device, tier): what every machine has to do the same on; two that have much in common with the others are slow."""

ZERO, RA, SP, T0, T1, T2, S0, S1 = 0, 1, 2, 5, 6, 7, 8, 9
A0, A1, A2, A3, A4, A5, A6, A7 = range(10, 18)
S2, S3, S4, S5 = 18, 19, 20, 21

STOPS = {
    "ebreak": Stop.EBREAK,
    "fault": Stop.FAULT,
    "budget": Stop.BUDGET,
    "unsupported": Stop.UNSUPPORTED,
}
ACCESS = {
    "read": Access.READ,
    "write": Access.WRITE,
    "fetch": Access.EXECUTE,
    "misaligned": Access.MISALIGNED,
    "misaligned fetch": Access.MISALIGNED_FETCH,
}


def ins(name: str, rd: int = 0, rs1: int = 0, rs2: int = 0, imm: int = 0) -> Instruction:
    return Instruction(name, rd, rs1, rs2, imm)


def labelled(a: Assembly, isa: str, data: tuple[int, int] | None = None) -> Program:
    """A program whose symbols are the labels of an assembly; `data` is (address, size) of writable memory."""
    found = program(isa, a.code, data=data)
    return Program(found.segments, found.entry, found.isa_config, dict(a.labels))


@dataclass(frozen=True)
class Unknown(Instruction):
    """Bytes that are no instruction."""

    raw: bytes = b""

    @property
    def size(self) -> int:
        return len(self.raw)

    def data(self, xlen: int) -> bytes:
        return self.raw


class Assembly:
    """A program as it is written down: instructions one after the other, labels, jumps to labels."""

    def __init__(self, xlen: int, base: int = CODE) -> None:
        self.xlen = xlen
        self.base = self.pc = base
        self.labels: dict[str, int] = {}
        self._listing: dict[int, Instruction] = {}
        self._jumps: dict[int, str] = {}

    def put(
        self, name: str, rd: int = 0, rs1: int = 0, rs2: int = 0, imm: int = 0, *, to: str = "", short: str = ""
    ) -> int:
        """Append an instruction; `to` is the label that a branch or jump goes to. Gives its address."""
        if to:
            self._jumps[self.pc] = to
        return self.append(Instruction(name, rd, rs1, rs2, imm, short))

    def append(self, instruction: Instruction) -> int:
        place = self.pc
        self._listing[place] = instruction
        self.pc += instruction.size
        return place

    def extend(self, instructions: Iterable[Instruction]) -> None:
        for i in instructions:
            self.append(i)

    def replace(self, place: int, instruction: Instruction) -> None:
        self._listing[place] = instruction

    def unknown(self, raw: bytes) -> int:
        return self.append(Unknown("unknown", raw=raw))

    def li(self, rd: int, value: int) -> None:
        """Load a constant of up to 32 bits, sign-extended; always two instructions."""
        upper = (value + 0x800) >> 12
        self.put("lui", rd, imm=upper & 0xFFFFF)
        self.put("addi" if self.xlen == 32 else "addiw", rd, rd, imm=value - (upper << 12))

    def label(self, name: str) -> int:
        self.labels[name] = self.pc
        return self.pc

    @property
    def listing(self) -> dict[int, Instruction]:
        found = dict(self._listing)
        for pc, label in self._jumps.items():
            i = found[pc]
            found[pc] = Instruction(i.name, i.rd, i.rs1, i.rs2, self.labels[label] - pc, i.short)
        return found

    @property
    def code(self) -> bytes:
        return b"".join(i.data(self.xlen) for i in self.listing.values())


class Hart(Reference):
    """The reference and what it leaves out: unknown bytes, jumps to where no instruction can start, changing code.

    `alignment` is the mask of address bits that must be zero. `words` gives the instruction for four bytes: `fence.i`
    looks up those that are at `patches` in memory.
    """

    alignment = 1
    words: dict[bytes, Instruction]
    patches: Sequence[int] = ()

    def step(self) -> None:
        i = self.code.get(self.pc)
        if isinstance(i, Unknown):
            self.stop = "unsupported"
            return
        before = (self.pc, list(self.x), self.retired)
        super().step()
        if self.pc & self.alignment:
            target = self.pc
            self.pc, self.x, self.retired = before
            raise Fault("misaligned fetch", target)
        if i is not None and i.name == "fence.i":
            for place in self.patches:
                raw = self.memory.read(place, 4, self.xlen).to_bytes(4, "little")
                self.code[place] = self.words[raw]


@dataclass
class Scene:
    """A program, what its lanes start with, and the guest memory beside the code.

    segments: (address, data, permissions). fills: address -> bytes by lane, written before the start. more: what the
    segments hold of code.
    """

    assembly: Assembly
    lanes: list[dict[int, int]]
    isa: str = ""
    segments: Sequence[tuple[int, bytes, int]] = ((DATA, bytes(256), READ | WRITE),)
    fills: dict[int, list[bytes]] = field(default_factory=dict)
    code_permissions: int = READ | EXECUTE
    words: dict[bytes, Instruction] = field(default_factory=dict)
    patches: Sequence[int] = ()
    arena: int = ARENA
    more: dict[int, Instruction] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.xlen = self.assembly.xlen
        self.isa = self.isa or f"rv{self.xlen}imac_zifencei"

    @property
    def program(self) -> Program:
        code = self.assembly.code
        pieces = [(self.assembly.base, code, self.code_permissions), *self.segments]
        return Program(
            tuple(Segment(a, len(d), d, p) for a, d, p in pieces), self.assembly.base, parse_isa(self.isa), name="scene"
        )

    def machine(self, tier: str, threads: int | None = None) -> Machine:
        m = machine(self.program, len(self.lanes), tier, memory=self.arena, threads=threads)
        self.start(m)
        return m

    def start(self, m: Machine) -> None:
        """Registers and memory of a machine that was just made or reset."""
        for i in range(1, 32):
            if any(i in lane for lane in self.lanes):
                values = [lane.get(i, 0) & (1 << self.xlen) - 1 for lane in self.lanes]
                m.registers[i] = np.array(values, np.uint64)
        for address, rows in self.fills.items():
            m.memory.write(address, np.stack([np.frombuffer(row, np.uint8) for row in rows]))

    def harts(self, m: Machine) -> list[Hart]:
        """References in the state in which the machine's lanes start."""
        listing = {**self.assembly.listing, **self.more}
        found = []
        for lane, registers in enumerate(self.lanes):
            pieces = [(self.assembly.base, self.assembly.code, self.code_permissions), *self.segments]
            spans = [(a, bytearray(d), bool(p & WRITE)) for a, d, p in pieces if p & READ]
            heap = m.environment.heap_start
            spans.append((heap, bytearray(m.environment.stack_top - heap), True))
            memory = Memory(spans)
            for address, rows in self.fills.items():
                for i, byte in enumerate(rows[lane]):
                    data, place = memory.byte(address + i, False) or (bytearray(1), 0)
                    data[place] = byte
            x = [0] * 32
            x[SP], x[A0], x[A1] = m.environment.stack_top, lane, len(self.lanes)
            for i, value in registers.items():
                x[i] = value & (1 << self.xlen) - 1
            hart = Hart(self.xlen, dict(listing), self.assembly.base, x, memory)
            hart.alignment = 1 if "c" in self.isa.partition("_")[0] else 3
            hart.words, hart.patches = self.words, self.patches
            found.append(hart)
        return found


def compare(m: Machine, result: RunResult, harts: Sequence[Hart], what: str) -> None:
    """Everything that can be seen of the lanes is as the reference has it."""
    registers = m.registers.array()
    for lane, hart in enumerate(harts):
        where = f"{m.tier}, lane {lane}, {what}"
        fault = hart.fault
        got = (Stop(int(result.stop[lane])).name, hex(int(result.pc[lane])), int(m.retired[lane]))
        assert got == (STOPS[hart.stop or ""].name, hex(hart.pc), hart.retired), f"{where}: (stop, pc, retired)"
        found = tuple(int(a[lane]) for a in (result.fault_access, result.fault_address, result.fault_pc))
        wanted = (int(ACCESS[fault.access]), fault.address, hart.pc) if fault else (0, 0, 0)
        assert found == wanted, f"{where}: fault (access, address, pc)"
        x = {f"x{i}": hex(int(registers[i, lane])) for i in range(32)}
        assert x == {f"x{i}": hex(v) for i, v in enumerate(hart.x)}, where
    for index in range(len(harts[0].memory.spans)):
        address, data, writable = harts[0].memory.spans[index]
        if writable:
            rows = m.memory.read(address, len(data))
            for lane, hart in enumerate(harts):
                wanted_bytes = bytes(hart.memory.spans[index][1])
                assert rows[lane].tobytes() == wanted_bytes, f"{m.tier}, lane {lane}, {what}: memory at {address:#x}"


def check_on(
    scene: Scene,
    tier: str,
    schedule: Sequence[int | None] = (None,),
    *,
    threads: int | None = None,
    compiles: bool = True,
) -> None:
    """Run the scene in pieces of `schedule` instructions, twice, the second time with what was compiled by the first.

    The last piece is repeated: a lane that stopped for good stops there again, having retired nothing. Unless `compiles`
    is false, some of it must have run as compiled code.
    """
    m = scene.machine(tier, threads)
    compiled = 0
    for attempt in ("first run", "second run"):
        harts = scene.harts(m)
        for piece, limit in enumerate([*schedule, *schedule[-1:]]):
            if tier == "auto":
                settle()
            result = m.run(limit)
            for hart in harts:
                hart.run(limit)
            compare(m, result, harts, f"{attempt}, piece {piece}")
            compiled += result.tiers["scalar"]
            assert sum(result.tiers.values()) == result.instructions
            assert min(result.tiers.values()) >= 0
        settle()
        if attempt == "first run":
            m.reset()
            scene.start(m)
            if tier == "auto":
                compiled = 0
    if compiles or tier == "interpreter":
        assert (compiled > 0) == (tier != "interpreter"), f"{tier}: {compiled} instructions in compiled code"
