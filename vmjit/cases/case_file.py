"""Reading case files.

A file starts with settings, `name: value` lines, and comments behind `#`. Behind them stand either instruction lines

    [aa 87] "c.mv a5, a0"  a0=0x10, a5=0x20 => a5=0x10

or sections, `name:` on a line of its own (a name may be two words) with indented lines below. Guest state is written as
`name=value` items with commas between them:

    a0=5, x11=-1      registers; numbers are taken modulo the register width
    fa0=0x40, fcsr=1  float registers as their 64 bits, and the float status
    pc=pc+4           `pc` in a value is the address of the instruction (of the first one in a section)
    mem[0x20000]=0102 bytes in the order of their addresses
    reserved=0x20000  the address that a load-reserved holds, or `none`
    retired=3         instructions retired
    stop=ebreak       why the lane stopped: ebreak, ecall, unsupported, budget
    fault=read:0x40   a fault: read, write, fetch, misaligned_access, misaligned_fetch, and its address
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from vmjit.cases.hart import RUNNING, Outcome
from vmjit.decoders.riscv import REGISTERS, Decoder, parse_isa
from vmjit.decoders.riscv.registers import FLOAT_STATUS
from vmjit.errors import ArgumentError

# Characters of a line of items.
_LINE_LENGTH = 100

STOPS = ("ebreak", "ecall", "unsupported", "budget")
FAULTS = ("read", "write", "fetch", "misaligned_access", "misaligned_fetch")

_SETTING = re.compile(r"([a-z]+): (\S.*)$")
_SECTION = re.compile(r"([a-z]+(?: [a-z]+)?):$")
_LINE = re.compile(r'\[([0-9a-f ]+)\] "([^"]+)"([^>]*)=>(.*)$')
_ITEM = re.compile(r"(\w+)(?:\[(0x[0-9a-f]+)\])?=(.+)$")
_NUMBER = re.compile(r"(pc)?(?:([+-]?)(0x[0-9a-f]+|\d+))?$")


class CaseError(ArgumentError):
    """A case file that cannot be read; the message names file and line."""


@dataclass(frozen=True)
class State:
    """What a case says about guest state. Registers by index, memory as bytes by address."""

    registers: dict[int, int] = field(default_factory=dict)
    floats: dict[int, int] = field(default_factory=dict)  # by index, too
    memory: dict[int, bytes] = field(default_factory=dict)
    pc: int | None = None
    reserved: int | None = None
    reserved_given: bool = False
    retired: int | None = None
    stop: str = ""
    fault: tuple[str, int] | None = None


@dataclass(frozen=True)
class Line:
    """One instruction with the state before and what changes; numbers are relative to `pc`, where it says so."""

    place: str
    data: bytes
    text: str
    before: str
    after: str


@dataclass(frozen=True)
class CaseFile:
    path: Path
    settings: dict[str, str]
    lines: tuple[Line, ...]
    sections: dict[str, tuple[str, ...]]


def read_case(path: Path) -> CaseFile:
    settings: dict[str, str] = {}
    lines: list[Line] = []
    sections: dict[str, list[str]] = {}
    section: list[str] | None = None
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        place = f"{path.name}:{number}"
        if not raw.strip() or raw.lstrip().startswith("#"):
            continue
        if raw.startswith("  "):
            if section is None:
                raise CaseError(f"{place}: an indented line outside a section")
            section.append(raw[2:])
        elif match := _SECTION.match(raw):
            if match[1] in sections:
                raise CaseError(f"{place}: a second section {match[1]!r}")
            section = sections[match[1]] = []
        elif match := _LINE.match(raw):
            lines.append(Line(place, bytes.fromhex(match[1]), match[2], match[3], match[4]))
        elif (match := _SETTING.match(raw)) and section is None and not lines:
            settings[match[1]] = match[2]
        else:
            raise CaseError(f"{place}: cannot read {raw!r}")
    return CaseFile(path, settings, tuple(lines), {name: tuple(body) for name, body in sections.items()})


def parse_state(items: str | Iterable[str], xlen: int, pc: int) -> State:
    """Read `name=value` items. ValueError for what is none."""
    text = items if isinstance(items, str) else ",".join(items)
    registers: dict[int, int] = {}
    floats: dict[int, int] = {}
    memory: dict[int, bytes] = {}
    rest: dict[str, object] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        match = _ITEM.match(item)
        if match is None:
            raise ValueError(f"cannot read {item!r}")
        name, address, value = match.groups()
        if name == "mem" and address:
            memory[int(address, 16)] = bytes.fromhex(value)
        elif name == "stop" and value in STOPS:
            rest["stop"] = value
        elif name == "fault" and value.partition(":")[0] in FAULTS:
            kind, _, where = value.partition(":")
            rest["fault"] = (kind, _number(where, xlen, pc))
        elif name == "reserved":
            rest["reserved_given"] = True
            rest["reserved"] = None if value == "none" else _number(value, xlen, pc)
        elif name == "retired":
            rest["retired"] = int(value, 0)
        elif name == "pc":
            rest["pc"] = _number(value, xlen, pc)
        else:
            index = REGISTERS[xlen, True].index(name)
            if index < FLOAT_STATUS:
                registers[index] = _number(value, xlen, pc)
            else:
                floats[index] = _number(value, 64, pc)
    return State(registers, floats, memory, **rest)  # type: ignore[arg-type]


def _number(text: str, xlen: int, pc: int) -> int:
    match = _NUMBER.match(text)
    if match is None or not text:
        raise ValueError(f"cannot read the number {text!r}")
    value = int(match[3], 0) if match[3] else 0
    value = -value if match[2] == "-" else value
    return (value + (pc if match[1] else 0)) % (1 << xlen)


def parse_listing(lines: Iterable[str]) -> list[tuple[bytes, str]]:
    """A section with an instruction listing: (bytes, disassembly or nothing) a line."""
    found = []
    for line in lines:
        data, _, text = line.partition(";")
        try:
            found.append((bytes.fromhex(data), text.strip()))
        except ValueError:
            raise ValueError(f"cannot read the bytes {data.strip()!r}") from None
    return found


@lru_cache(maxsize=64)
def decoder_of(isa: str) -> Decoder:
    return Decoder(parse_isa(isa))


def registers_before(state: State, xlen: int) -> list[int]:
    """Registers that a case does not name hold something, so that reading or writing a wrong one shows."""
    junk = [0, *(int.from_bytes(bytes([0x5A, 0xA5, 0xC3, i] * 2), "little") % (1 << xlen) for i in range(1, 32))]
    return [state.registers.get(i, value) for i, value in enumerate(junk)]


def floats_before(state: State, decoder: Decoder) -> list[int]:
    """The float status and the float registers, if the hart has them."""
    if decoder.registers.float_status is None:
        return []
    junk = [0, *(int.from_bytes(bytes([0x3C, 0xC3, 0x96, i] * 2), "little") for i in range(32))]
    return [state.floats.get(FLOAT_STATUS + i, value) for i, value in enumerate(junk)]


def patched(base: bytes, start: int, memory: dict[int, bytes]) -> bytes:
    """`base`, which stands at `start`, with other bytes at some addresses."""
    data = bytearray(base)
    for address, new in memory.items():
        assert start <= address
        assert address + len(new) <= start + len(base)
        data[address - start : address - start + len(new)] = new
    return bytes(data)


# -- writing


def written_lines(items: Iterable[str]) -> list[str]:
    """Items as the indented lines of a section, with commas between them."""
    lines, line = [], ""
    for item in items:
        if line and len(line) + len(item) > _LINE_LENGTH:
            lines.append(f"  {line.rstrip()}")
            line = ""
        line += f"{item}, "
    return [*lines, f"  {line.rstrip(', ')}"]


def state_items(
    decoder: Decoder, before: State, registers: list[int], outcome: Outcome, segments: list[tuple[int, int]]
) -> list[str]:
    """What is not as before, as `name=value` items: of an outcome, where `registers` were there before."""
    name = decoder.registers.shown_name
    items = [f"{name(i)}={v:#x}" for i, v in enumerate(outcome.registers) if v != registers[i]]
    floats = floats_before(before, decoder)
    after = outcome.floats[: len(floats)]
    items += [f"{name(FLOAT_STATUS + i)}={v:#x}" for i, v in enumerate(after) if v != floats[i]]
    for start, size in segments:
        data = patched(bytes(size), start, {a: d for a, d in before.memory.items() if start <= a < start + size})
        then = outcome.memory[start]
        changed = [i for i in range(size) if data[i] != then[i]]
        if changed:
            first, last = changed[0], changed[-1] + 1
            items.append(f"mem[{start + first:#x}]={then[first:last].hex()}")
    if outcome.reserved != before.reserved:
        items.append("reserved=none" if outcome.reserved is None else f"reserved={outcome.reserved:#x}")
    items.append(f"pc={outcome.pc:#x}")
    if outcome.fault is not None:
        items.append(f"fault={outcome.fault[0]}:{outcome.fault[1]:#x}")
    else:
        items.append(f"stop={'budget' if outcome.stop == RUNNING else outcome.stop}")
    return [*items, f"retired={outcome.retired}"]
