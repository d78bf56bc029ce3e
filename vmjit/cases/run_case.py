"""Running a case's code on the reference evaluator, and what of an outcome is not as the case says."""

from __future__ import annotations

from vmjit.cases.case_file import (
    CaseFile,
    State,
    decoder_of,
    floats_before,
    parse_listing,
    parse_state,
    patched,
    registers_before,
)
from vmjit.cases.hart import RUNNING, Hart, Memory, Outcome, Span
from vmjit.decoders.riscv.registers import FLOAT_STATUS

_DEFAULT_BUDGET = 100_000


def code_address(case: CaseFile) -> int:
    return int(case.settings.get("at", "0"), 0)


def entry_address(case: CaseFile) -> int:
    return int(case.settings["entry"], 0) if "entry" in case.settings else code_address(case)


def code_bytes(case: CaseFile) -> bytes:
    return b"".join(data for data, _ in parse_listing(case.sections["code"]))


def budget_of(case: CaseFile) -> int:
    """The limit of instructions; a program that goes astray is stopped in any case."""
    return int(case.settings.get("budget", _DEFAULT_BUDGET))


def data_segments(case: CaseFile) -> list[tuple[int, int]]:
    """(address, size) of the data memory."""
    given = case.settings.get("memory")
    return [(int(a, 0), int(n, 0)) for a, n in (part.split() for part in given.split(","))] if given else []


def _part(memory: dict[int, bytes], start: int, size: int) -> dict[int, bytes]:
    return {address: data for address, data in memory.items() if start <= address < start + size}


def spans_of(case: CaseFile, state: State) -> list[Span]:
    """Code and data as they are before."""
    found = []
    if "code" in case.sections:
        writable = case.settings.get("writable") == "yes"
        found.append(Span(code_address(case), bytearray(code_bytes(case)), writable, executable=True))
    for start, size in data_segments(case):
        found.append(Span(start, bytearray(patched(bytes(size), start, _part(state.memory, start, size)))))
    return found


def run_code(case: CaseFile) -> Outcome:
    """What the code does on the reference evaluator."""
    decoder = decoder_of(case.settings["isa"])
    before = parse_state(case.sections["before"], decoder.isa.xlen, code_address(case))
    hart = Hart(
        decoder,
        Memory(spans_of(case, before), decoder.isa.xlen),
        registers_before(before, decoder.isa.xlen),
        retired=before.retired or 0,
        reserved=before.reserved,
        floats=floats_before(before, decoder),
    )
    return hart.run(entry_address(case), budget_of(case))


def differences(case: CaseFile, xlen: int, got: Outcome) -> list[str]:
    """What is not as the case says; where it says nothing, nothing may have changed."""
    before, after = (parse_state(case.sections[s], xlen, code_address(case)) for s in ("before", "after"))
    expected = registers_before(before, xlen)
    for index, value in after.registers.items():
        expected[index] = value
    assert after.stop or after.fault or after.pc is not None
    wanted: list[tuple[str, object, object]] = [
        ("pc", after.pc, got.pc),
        ("stop", "" if after.fault else RUNNING if after.stop in ("", "budget") else after.stop, got.stop),
        ("fault", after.fault, got.fault),
        ("reserved", after.reserved if after.reserved_given else before.reserved, got.reserved),
        *((f"x{i}", expected[i], got.registers[i]) for i in range(32)),
    ]
    if got.floats:
        floats = floats_before(before, decoder_of(case.settings["isa"]))
        for index, value in after.floats.items():
            floats[index - FLOAT_STATUS] = value
        wanted += [(f"f{i - 1}" if i else "fcsr", floats[i], got.floats[i]) for i in range(len(floats))]
    if after.retired is not None:
        wanted.append(("retired", after.retired, got.retired))
    for start, size in data_segments(case):
        data = patched(bytes(size), start, _part(before.memory, start, size))
        then = patched(data, start, _part(after.memory, start, size))
        wanted.append((f"memory at {start:#x}", then.hex(), got.memory[start].hex()))
    return [f"{name} is {actual!r}, expected {value!r}" for name, value, actual in wanted if value != actual]
