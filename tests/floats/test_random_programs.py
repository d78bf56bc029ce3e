"""Random float programs on every tier: loops of operations that hand values and exceptions on, changes of the rounding
mode in between, and branches on comparisons, so that lanes part.

The oracle is a hart of a few lines over `encoding.INSTRUCTIONS`, which `test_vectors.py` compares with QEMU.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from tests.differential.asm import encode
from tests.differential.oracles import EVERY_CODE, machine, program, settle
from tests.floats.encoding import INSTRUCTIONS, FloatInstruction, boxed, read_status, write_status
from tests.floats.numbers import Numbers
from vmjit import Machine, vector_tier
from vmjit.decoders.riscv.registers import FLOAT, FLOAT_STATUS
from vmjit.ir.floats import effective_mode
from vmjit.translators.vector_unit import vector_unit

CODE = 0x10000
FLOATS, INTEGERS = tuple(range(8)), (10, 11, 12, 13)
_COUNTER, _SCRATCH = 9, 14
_BY_NAME = {i.name: i for i in INSTRUCTIONS}


@dataclass(frozen=True)
class Compute:
    instruction: FloatInstruction
    rd: int
    sources: tuple[int, ...]
    mode: int


@dataclass(frozen=True)
class SetStatus:
    """fcsr = `value`."""

    value: int


@dataclass(frozen=True)
class ReadStatus:
    """x = fcsr"""

    rd: int


@dataclass(frozen=True)
class SkipIf:
    """Skip the next items if a register is not zero."""

    register: int
    count: int


Item = Compute | SetStatus | ReadStatus | SkipIf


@dataclass(frozen=True)
class Case:
    xlen: int
    items: tuple[Item, ...]
    rounds: int
    seed: int
    lanes: int

    @property
    def isa(self) -> str:
        return f"rv{self.xlen}imafdc_zfh"

    def _encoded(self) -> list[bytes]:
        pieces: list[bytes] = []
        for item in self.items:
            match item:
                case Compute(instruction, rd, sources, mode):
                    pieces.append(instruction.encode(rd, list(sources), mode))
                case SetStatus(value):
                    pieces.append(encode("addi", rd=_SCRATCH, imm=value) + write_status(_SCRATCH))
                case ReadStatus(rd):
                    pieces.append(read_status(rd))
                case SkipIf():
                    pieces.append(bytes(4))
        for i, item in enumerate(self.items):
            if isinstance(item, SkipIf):
                over = sum(len(p) for p in pieces[i : i + 1 + item.count])
                pieces[i] = encode("bne", rs1=item.register, rs2=0, imm=over)
        return pieces

    def code(self) -> bytes:
        body = b"".join(self._encoded()) + encode("addi", rd=_COUNTER, rs1=_COUNTER, imm=-1)
        start = encode("addi", rd=_COUNTER, imm=self.rounds)
        return start + body + encode("bne", rs1=_COUNTER, rs2=0, imm=-len(body)) + encode("ebreak")

    def start(self, lane: int) -> tuple[list[int], list[int], int]:
        """(integer registers, float registers, fcsr) of a lane."""
        numbers = Numbers(1000 * self.seed + lane)
        mask = (1 << self.xlen) - 1
        x = [0, *(numbers.integer(self.xlen) & mask for _ in range(31))]
        bits = [numbers.random.choice([16, 32, 64]) for _ in range(32)]
        f = [boxed(b, numbers.number(b)) for b in bits]
        return x, f, numbers.random.choice([0, 1, 1, 1, 31, 0x21, 0x80])

    def reproducer(self, tier: str) -> str:
        starts = [self.start(lane) for lane in range(self.lanes)]
        return f"""# --- reproducer: {self.items}
import numpy as np, vmjit
from vmjit.decoders.riscv.isa import parse_isa
from vmjit.program import Program
p = Program.from_bytes(bytes.fromhex("{self.code().hex()}"), "{self.isa}", {CODE:#x})
m = vmjit.Machine(p, lanes={self.lanes}, tier="{tier}")
starts = {starts}
for i in range(1, 32):
    m.registers[i] = np.array([s[0][i] for s in starts], np.uint64)
for i in range(32):
    m.registers[f"f{{i}}"] = np.array([s[1][i] for s in starts], np.uint64)
m.registers["fcsr"] = [s[2] for s in starts]
print(m.run().stops(), m.registers["fcsr"], [m.registers[f"f{{i}}"] for i in range(8)])
# ---"""


@dataclass
class Hart:
    """The oracle."""

    case: Case
    x: list[int]
    f: list[int]
    fcsr: int
    stop: str = "EBREAK"
    at: int = field(default=0)

    def run(self) -> None:
        for _ in range(self.case.rounds):
            i = 0
            while i < len(self.case.items):
                item = self.case.items[i]
                i += 1
                match item:
                    case Compute():
                        if not self._compute(item):
                            self.stop = "UNSUPPORTED"
                            return
                    case SetStatus(value):
                        self.x[_SCRATCH] = value
                        self.fcsr = value
                    case ReadStatus(rd):
                        self.x[rd] = self.fcsr
                    case SkipIf(register, count):
                        if self.x[register]:
                            i += count

    def _compute(self, item: Compute) -> bool:
        instruction = item.instruction
        mode = effective_mode(item.mode, self.fcsr) if instruction.rounds else effective_mode(0, 0)
        if mode is None:
            return False
        kinds = zip(instruction.operands, item.sources, strict=True)
        result, flags = instruction.compute([self.x[s] if k == "x" else self.f[s] for k, s in kinds], mode)
        self.fcsr |= int(flags)
        if instruction.result == "x":
            self.x[item.rd] = result % (1 << self.case.xlen)
        else:
            self.f[item.rd] = result
        return True


@st.composite
def items(draw: st.DrawFn, xlen: int) -> Item:
    kind = draw(st.integers(0, 19))
    if kind == 0:
        # Rounding modes 5 to 7 are none.
        mode = draw(st.sampled_from([0, 0, 0, 0, 1, 2, 3, 4, 5, 7]))
        return SetStatus(mode << 5 | draw(st.sampled_from([0, 1, 1, 31])))
    if kind == 1:
        return ReadStatus(draw(st.sampled_from(INTEGERS)))
    if kind == 2:
        return SkipIf(draw(st.sampled_from(INTEGERS)), draw(st.integers(1, 4)))
    names = [n for n, i in _BY_NAME.items() if xlen == 64 or not i.only64]
    usual = [n for n in names if n.split(".")[0] in ("fadd", "fsub", "fmul", "fmadd", "flt", "fle")]
    instruction = _BY_NAME[draw(st.sampled_from(names if draw(st.booleans()) else usual))]
    registers = {"x": st.sampled_from(INTEGERS), "f": st.sampled_from(FLOATS)}
    mode = draw(st.sampled_from([7, 7, 7, 0, 0, 1, 2, 3, 4])) if instruction.rounds else 7
    return Compute(
        instruction,
        draw(registers[instruction.result]),
        tuple(draw(registers[k]) for k in instruction.operands),
        mode,
    )


@st.composite
def cases(draw: st.DrawFn, xlen: int, lanes: int) -> Case:
    body = tuple(draw(st.lists(items(xlen), min_size=1, max_size=20)))
    # No skip leads out of the loop's body.
    fitted = tuple(
        SkipIf(i.register, min(i.count, len(body) - 1 - n)) if isinstance(i, SkipIf) else i for n, i in enumerate(body)
    )
    return Case(xlen, fitted, draw(st.integers(1, 12)), draw(st.integers(0, 1000)), lanes)


def start(case: Case, m: Machine) -> None:
    starts = [case.start(lane) for lane in range(case.lanes)]
    for i in range(1, 32):
        m.registers[i] = np.array([s[0][i] for s in starts], np.uint64)
    for i in range(32):
        m.registers[f"f{i}"] = np.array([s[1][i] for s in starts], np.uint64)
    m.registers["fcsr"] = [s[2] for s in starts]


def check(case: Case, tier: str, device: str = "cpu", runs: int = 1) -> int:
    """Compare a machine's lanes with the oracle's harts; gives the instructions in SIMD registers."""
    prog = program(case.isa, case.code(), CODE)
    m = machine(prog, case.lanes, tier, device=device, threads=1)
    harts = [Hart(case, *case.start(lane)) for lane in range(case.lanes)]
    for hart in harts:
        hart.run()
    vectored = 0
    for run in range(runs):
        if run:
            settle()
            m.reset()
        start(case, m)
        result = m.run()
        vectored += result.tiers["simd"]
        state = m._state.registers
        for lane, hart in enumerate(harts):
            place = f"{tier}, run {run}, lane {lane}"
            assert int(result.stop[lane]) == {"EBREAK": 3, "UNSUPPORTED": 6}[hart.stop], place
            got = [int(v) for v in state[FLOAT:, lane]]
            wrong = {f"f{i}": (hex(g), hex(w)) for i, (g, w) in enumerate(zip(got, hart.f, strict=True)) if g != w}
            assert not wrong, f"{place}: (got, want) {wrong}"
            assert int(state[FLOAT_STATUS, lane]) == hart.fcsr, f"{place}: fcsr"
            integers = {i: int(state[i, lane]) for i in INTEGERS}
            assert integers == {i: hart.x[i] for i in INTEGERS}, place
    return vectored


def check_all(case: Case, tiers: tuple[str, ...], device: str = "cpu", runs: int = 1) -> None:
    for tier in tiers:
        try:
            check(case, tier, device, 3 if tier == "auto" else runs)
        except AssertionError:
            note(case.reproducer(tier))
            raise


@pytest.mark.parametrize("xlen", [32, 64])
def test_tiers(xlen: int) -> None:
    @settings(max_examples=40)
    @given(cases(xlen, 3))
    def test(case: Case) -> None:
        check_all(case, EVERY_CODE)

    test()


@pytest.mark.parametrize("xlen", [32, 64])
def test_device_kernels(xlen: int) -> None:
    @settings(max_examples=10)
    @given(cases(xlen, 3))
    def test(case: Case) -> None:
        check_all(case, ("scalar",), "host")

    test()


@pytest.mark.parametrize("xlen", [32, 64])
def test_lane_groups(xlen: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vector_tier.POLICIES, "auto", vector_tier.ALWAYS)
    vectored = 0

    @settings(max_examples=8)
    @given(cases(xlen, vector_unit().lanes))
    def test(case: Case) -> None:
        nonlocal vectored
        try:
            vectored += check(case, "auto", runs=4)
        except AssertionError:
            note(case.reproducer("auto"))
            raise

    test()
    assert vectored > 0


@pytest.mark.slow
@pytest.mark.parametrize("xlen", [32, 64])
def test_many(xlen: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vector_tier.POLICIES, "auto", vector_tier.ALWAYS)

    @settings(max_examples=400)
    @given(cases(xlen, vector_unit().lanes))
    def test(case: Case) -> None:
        check_all(case, EVERY_CODE, runs=4)

    test()
