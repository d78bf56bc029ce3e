"""Code as lines that know their guest instruction: reading what compilers and disassemblers print.

All of them pass on the debug locations of `translators/guest_locations.py`: LLVM IR names them in each instruction,
assemblers' texts set one for what follows with `.loc`, NVIDIA's disassembler with a comment.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from vmjit.translators.guest_locations import GuestLocations


@dataclass(frozen=True, slots=True)
class Line:
    """One line. pc: the guest instruction that it comes from, None for what belongs to none of them. instruction:
    whether it is an instruction, and no label."""

    text: str
    pc: int | None
    instruction: bool = True


@dataclass(frozen=True)
class Listing:
    """A region as code of one kind. `facts` are numbers and words about the whole, by name."""

    name: str
    title: str
    lines: tuple[Line, ...]
    facts: Mapping[str, int | str] = field(default_factory=dict)

    @property
    def instructions(self) -> int:
        return sum(line.instruction for line in self.lines)

    def by_instruction(self) -> Counter[int]:
        """Lines that are instructions by the guest instruction that they come from."""
        return Counter(line.pc for line in self.lines if line.instruction and line.pc is not None)


_DBG = re.compile(r",? !dbg !(\d+)")
_LOCATION = re.compile(r"^!(\d+) = (?:distinct )?!DILocation\(.*?\bline: (\d+)", re.MULTILINE)
_METADATA = re.compile(r", ![\w.]+ !\d+")


def llvm_lines(text: str, function: str, locations: GuestLocations) -> Iterator[Line]:
    """The body of a function in LLVM IR."""
    lines = {number: int(line) for number, line in _LOCATION.findall(text)}
    inside = False
    for line in text.splitlines():
        if not inside:
            inside = line.startswith("define ") and f"@{function}(" in line.replace('"', "")
            continue
        if line == "{":
            continue
        if line == "}":
            return
        if not line.strip():
            continue
        found = _DBG.search(line)
        pc = locations.pc_of(lines.get(found[1], 0)) if found else None
        is_instruction = line.startswith(" ") and not line.lstrip().startswith("]")
        yield Line(_METADATA.sub("", _DBG.sub("", line)).rstrip(), pc, is_instruction)


def _behind(text: str, begins: Callable[[str], bool]) -> Iterator[str]:
    """The lines behind the first of which something holds."""
    lines = iter(text.splitlines())
    any(map(begins, lines))
    return lines


_LOC = re.compile(r"\s*\.loc\s+\d+\s+(\d+)")
_LABEL = re.compile(r"[\w.$]+:")
_SPILL = re.compile(r"\S*[- ](?:byte|Folded) (?:Folded )?(?:Spill|Reload)")

# How comments begin, by the architecture in a target's triple; elsewhere as on x86.
_COMMENTS = {"amdgcn": ";", "aarch64": "//", "arm64": "//"}


def assembly_lines(text: str, function: str, locations: GuestLocations, triple: str) -> Iterator[Line]:
    """The body of a function in LLVM's assembly; of its comments, those that tell of spilled registers stay."""
    comment = _COMMENTS.get(triple.partition("-")[0], "#")
    pc: int | None = None
    for line in _behind(text, lambda line: line.startswith(f"{function}:")):
        if line.startswith("\t."):
            if found := _LOC.match(line):
                pc = locations.pc_of(int(found[1]))
            continue
        if line.startswith("\t"):
            code, _, remark = line.partition(comment)
            if code := code.strip():
                spill = _SPILL.search(remark) if remark else None
                yield Line("  " + code.replace("\t", " ") + (f"  {comment} {spill[0]}" if spill else ""), pc)
        elif line.startswith(".Lfunc_end"):
            return
        elif (label := _LABEL.match(line)) and not line.startswith((".Ltmp", ".Lfunc_begin")):
            yield Line(label[0], pc, instruction=False)


_PTX_SKIPPED = re.compile(r"\s*(?:\.(?!loc)|[{}()]|//|$)")


def ptx_lines(text: str, function: str, locations: GuestLocations) -> Iterator[Line]:
    """The body of a function in PTX."""
    pc: int | None = None
    for line in _behind(text, lambda line: ".func" in line and f" {function}(" in line):
        if line.startswith("}"):
            return
        if found := _LOC.match(line):
            pc = locations.pc_of(int(found[1]))
        elif line.lstrip().startswith("$L"):
            if not line.lstrip().startswith("$L__tmp"):
                yield Line(line.strip(), pc, instruction=False)
        elif not _PTX_SKIPPED.match(line):
            yield Line("  " + line.strip().replace("\t", " "), pc)


_SASS_LINE = re.compile(r'\s*//## File "[^"]*", line (\d+)')
_SASS_CODE = re.compile(r"\s*(?:/\*[0-9a-f]+\*/)?\s*(\S.*;)\s*$")


def sass_lines(text: str, function: str, locations: GuestLocations) -> Iterator[Line]:
    """The body of a function as NVIDIA's disassembler prints it with line information."""
    pc: int | None = None
    for line in _behind(text, lambda line: line.startswith(f".text.{function}:")):
        if line.startswith("//---"):
            return
        if found := _SASS_LINE.match(line):
            pc = locations.pc_of(int(found[1]))
        elif line.startswith(".L_"):
            yield Line(line.strip(), pc, instruction=False)
        elif found := _SASS_CODE.match(line):
            yield Line("  " + found[1], pc)
