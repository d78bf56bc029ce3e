"""One-line tests of single instructions: `[aa 87] "c.mv a5, a0"  a0=0x10, a5=0x20 => a5=0x10`.

Each line is decoded, disassembled and executed by the reference evaluator and by every tier. What a line does not name
must not change; `pc` goes to the next instruction, and nothing stops, unless the line says so.

On the tiers a file is one program and a line is one lane: its instruction stands in a slot of breakpoints, which stop
the lane behind it and at the targets of its jumps.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.differential.oracles import EXECUTE, READ, TIERS, WRITE
from tests.filetests.files import case_files, case_id
from tests.filetests.tiers import Start, run_on_tier
from vmjit.cases.case_file import (
    CaseFile,
    Line,
    decoder_of,
    floats_before,
    parse_state,
    patched,
    read_case,
    registers_before,
)
from vmjit.cases.hart import RUNNING, Hart, Memory, Outcome, Span
from vmjit.decoders.riscv import REGISTERS, Decoder, parse_isa
from vmjit.decoders.riscv.registers import FLOAT_STATUS
from vmjit.decoders.riscv.row import Row
from vmjit.decoders.riscv.tables import ALL_ROWS
from vmjit.program import Program, Segment

FILES = case_files("instructions")

# Where the disassembly in a line stands, and the memory that its loads and stores may use.
PC, DATA, DATA_SIZE = 0x1000, 0x20000, 0x1000
# On the tiers: where the first line's slot is, and how large slots are where the file does not say. The instruction
# stands in the middle of its slot.
BASE, SLOT = 0x100000, 128
# A lane that went astray is stopped.
LIMIT = 100

_FLOAT_NAMES = REGISTERS[64, True].names[FLOAT_STATUS:]

C_EBREAK, EBREAK = bytes.fromhex("0290"), bytes.fromhex("73001000")


def _decoder(case: CaseFile) -> Decoder:
    return decoder_of(case.settings["isa"])


def differences(line: Line, decoder: Decoder, pc: int, got: Outcome) -> list[str]:
    """What is not as the line says, after one instruction at `pc` (and the breakpoint behind it, if it got there)."""
    xlen = decoder.isa.xlen
    before, after = parse_state(line.before, xlen, pc), parse_state(line.after, xlen, pc)
    stops = bool(after.stop or after.fault)
    expected = registers_before(before, xlen)
    for index, value in after.registers.items():
        expected[index] = value
    floats = floats_before(before, decoder)
    for index, value in after.floats.items():
        floats[index - FLOAT_STATUS] = value
    data = patched(patched(bytes(DATA_SIZE), DATA, before.memory), DATA, after.memory)
    wanted: list[tuple[str, object, object]] = [
        ("pc", after.pc if after.pc is not None else pc if stops else (pc + len(line.data)) % (1 << xlen), got.pc),
        ("stop", after.stop or (RUNNING if not after.fault else ""), got.stop),
        ("fault", after.fault, got.fault),
        ("retired", (before.retired or 0) + (not stops), got.retired),
        ("reserved", after.reserved if after.reserved_given else before.reserved, got.reserved),
        *((f"x{i}", expected[i], got.registers[i]) for i in range(32)),
        *((_FLOAT_NAMES[i], value, got.floats[i]) for i, value in enumerate(floats)),
    ]
    found = [
        f"{name} is {_shown(actual)}, expected {_shown(value)}" for name, value, actual in wanted if value != actual
    ]
    if got.memory[DATA] != data:
        i = next(i for i in range(DATA_SIZE) if got.memory[DATA][i] != data[i])
        found.append(f"mem[{DATA + i:#x}] is {got.memory[DATA][i : i + 8].hex()}.., expected {data[i : i + 8].hex()}..")
    return found


def _shown(value: object) -> str:
    return hex(value) if isinstance(value, int) else repr(value)


def run_by_evaluator(case: CaseFile, line: Line) -> Outcome:
    decoder = _decoder(case)
    before = parse_state(line.before, decoder.isa.xlen, PC)
    memory = Memory(
        [
            Span(PC, bytearray(line.data), writable=False, executable=True),
            Span(DATA, bytearray(patched(bytes(DATA_SIZE), DATA, before.memory))),
        ],
        decoder.isa.xlen,
    )
    registers = registers_before(before, decoder.isa.xlen)
    hart = Hart(
        decoder,
        memory,
        registers,
        retired=before.retired or 0,
        reserved=before.reserved,
        floats=floats_before(before, decoder),
    )
    return hart.run(PC, 1)


def program_of(case: CaseFile) -> Program:
    """All lines of a file, each in its slot of breakpoints."""
    isa = parse_isa(case.settings["isa"])
    half = slot_of(case) // 2
    stop = (C_EBREAK if isa.compressed else EBREAK) * half
    code = b"".join(stop[:half] + (line.data + stop)[:half] for line in case.lines)
    segments = (Segment(BASE, len(code), code, READ | EXECUTE), Segment(DATA, DATA_SIZE, b"", READ | WRITE))
    return Program(segments, BASE, isa)


def slot_of(case: CaseFile) -> int:
    return int(case.settings.get("slot", SLOT))


def complaints_of_tier(case: CaseFile, tier: str) -> list[str]:
    """Every line of a file on one tier: what is not as expected."""
    decoder = _decoder(case)
    xlen = decoder.isa.xlen
    slot = slot_of(case)
    places = [BASE + slot * i + slot // 2 for i in range(len(case.lines))]
    starts = []
    for line, place in zip(case.lines, places, strict=True):
        before = parse_state(line.before, xlen, place)
        starts.append(
            Start(
                place,
                registers_before(before, xlen),
                before.memory,
                before.retired or 0,
                before.reserved,
                floats_before(before, decoder),
            )
        )
    found = []
    compiled = 0
    for run in run_on_tier(program_of(case), starts, tier, LIMIT):
        compiled = run.compiled
        for line, place, got in zip(case.lines, places, run.outcomes, strict=True):
            after = parse_state(line.after, xlen, place)
            if not after.stop and not after.fault:
                # It went on to a breakpoint of its slot.
                assert -slot // 2 <= got.pc - place < slot // 2 or got.stop != "ebreak"
                got.stop = RUNNING if got.stop == "ebreak" else got.stop
            found += [f"{line.place} ({run.label}) {line.text}: {d}" for d in differences(line, decoder, place, got)]
    if tier != "interpreter":
        assert compiled > 0, "no compiled code ran"
    return found


@pytest.mark.parametrize("path", FILES, ids=case_id)
def test_bytes_and_disassembly(path: Path) -> None:
    case = read_case(path)
    decoder = _decoder(case)
    found = []
    for line in case.lines:
        instruction = decoder.decode(lambda pc, n, line=line: line.data[pc - PC : pc - PC + n], PC)
        if (instruction.size, decoder.text(instruction)) != (len(line.data), line.text):
            found.append(f"{line.place}: {line.data.hex(' ')} is {decoder.text(instruction)!r}, not {line.text!r}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", FILES, ids=case_id)
def test_evaluator(path: Path) -> None:
    case = read_case(path)
    found = []
    for line in case.lines:
        got = run_by_evaluator(case, line)
        found += [f"{line.place} {line.text}: {d}" for d in differences(line, _decoder(case), PC, got)]
    assert not found, "\n".join(found)


def _files_and_tiers() -> list[tuple[Path, str]]:
    """Every file on every tier, unless it says `tiers: …`: where bits go in a word is the same matter on all of them."""
    found = []
    for path in FILES:
        given = read_case(path).settings.get("tiers")
        found += [(path, tier) for tier in (given.split(", ") if given else TIERS)]
    return found


@pytest.mark.parametrize(("path", "tier"), _files_and_tiers(), ids=lambda v: v if isinstance(v, str) else case_id(v))
def test_tiers(path: Path, tier: str) -> None:
    found = complaints_of_tier(read_case(path), tier)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("xlen", [32, 64])
def test_every_row_of_the_tables_has_a_line(xlen: int) -> None:
    covered: set[Row] = set()
    for case in map(read_case, FILES):
        decoder = _decoder(case)
        if decoder.isa.xlen != xlen:
            continue
        for line in case.lines:
            matched = decoder.decode(lambda pc, n, line=line: line.data[pc - PC : pc - PC + n], PC).matched
            if matched is not None:
                covered.add(matched.row)
    missing = [f"{row.name} ({row.extensions})" for row in ALL_ROWS if xlen in row.xlens and row not in covered]
    assert not missing


WRONG_LINES = (
    '[aa 87] "c.mv a5, a0" a0=0x10, a5=0x20 => a5=0x11',
    '[aa 87] "c.mv a5, a0" a0=0x10, a5=0x20 => a5=0x10, a0=0x11',
    '[aa 87] "c.mv a5, a0" a0=0x10, a5=0x20 =>',
    '[aa 87] "c.mv a5, a0" a0=0x10 => a5=0x10, pc=pc+4',
    '[aa 87] "c.mv a5, a0" a0=0x10 => a5=0x10, stop=ebreak',
    '[02 90] "c.ebreak" =>',
    '[88 c1] "c.sw a0, 0(a1)" a0=1, a1=0x20000 => mem[0x20000]=02',
    '[88 c1] "c.sw a0, 0(a1)" a0=1, a1=0x20000 => mem[0x20000]=0100000001',
    '[88 c1] "c.sw a0, 0(a1)" a0=1, a1=0x50000 => fault=write:0x50004',
    '[88 c1] "c.sw a0, 0(a1)" a0=1, a1=0x50000 => fault=read:0x50000',
    '[2f a5 05 10] "lr.w a0, (a1)" a1=0x20000 => a0=0, reserved=none',
)


def test_wrong_lines_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "wrong.test"
    path.write_text("isa: rv32imac\n\n" + "\n".join(WRONG_LINES) + "\n", encoding="utf-8")
    case = read_case(path)
    assert len(case.lines) == len(WRONG_LINES)
    for line in case.lines:
        assert differences(line, _decoder(case), PC, run_by_evaluator(case, line)), line
    reported = {text.split()[0] for text in complaints_of_tier(case, "interpreter")}
    assert reported == {line.place for line in case.lines}
