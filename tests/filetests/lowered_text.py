"""What a block becomes on each target, as the LLVM IR that vmjit emits for it: no pass of LLVM's has run.

Shown is the code behind the check of the budget, up to the ways out of the region, and in front of it what that code
uses of what the region's entry computes. Values are numbered in the order in which they are shown, `%arg1` and so on
are the function's arguments, and registers are named as cells of the region. Vectors of one element are written as
LLVM's `splat`, pointers without what they point to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from llvmlite import ir

from tests.filetests.rows import WINDOWS
from vmjit.decoders.riscv.decoder import Template
from vmjit.ir import Block
from vmjit.ir.registers import RegisterFile
from vmjit.translators import hip
from vmjit.translators.compile_region import emit_region
from vmjit.translators.device_region import DeviceWindowPlan, emit_region_function
from vmjit.translators.interpreter import build_interpreter, template_key
from vmjit.translators.lane_forms import Form
from vmjit.translators.region_body import PageWindows, WindowPlan
from vmjit.translators.regions import Region
from vmjit.translators.simd_region import emit_simd_region
from vmjit.translators.vector_unit import VectorUnit

# Few lanes, so that lines are short.
_UNIT = VectorUnit(4, gathers=True)

_VALUE = re.compile(r'%"[^"]+"|%[\w.$-]+')
_LABEL = re.compile(r'^"?([\w.$-]+)"?:$')
_DEFINITION = re.compile(r'^\s+(%"[^"]+"|%[\w.$-]+) = ')
_POINTER = re.compile(r"(?:<\d+ x \w+>|\b(?:i\d+|half|float|double))( addrspace\(\d+\))?\*")
_SPLAT = re.compile(r"<(\w+ [\w.-]+)(?:, \1)+>")
_METADATA = re.compile(r"^(!\d+) = !{(.*)}$", re.MULTILINE)
_WAYS_OUT = ("exit", "leave_")


# Programs for Linux have a heap that grows and mappings, so most accesses ask how far a lane's memory reaches.
_PAGED = replace(
    WINDOWS,
    private_size=0x40000,
    paged=PageWindows(data_size=0x8000, stack_lo=0x50000, stack_size=0x10000, hull_lo=0x28000, hull_size=0x38000),
)
MEMORY = {"segments": WINDOWS, "pages": _PAGED}
"""What a case's `memory:` may be: all that a lane has is known, or changes by pages, as in programs for Linux."""


@dataclass(frozen=True)
class Lowered:
    """What a case lowers. `template` is its instruction's, if it is one in bytes."""

    block: Block
    windows: WindowPlan
    template: Template | None = None

    @property
    def region(self) -> Region:
        return Region([self.block.pc], {self.block.pc: self.block})

    @property
    def registers(self) -> RegisterFile:
        return self.block.registers

    @property
    def device_windows(self) -> DeviceWindowPlan:
        return DeviceWindowPlan(self.windows, private_offset=0, shared_offset=0)


def _interpreter(given: Lowered) -> str:
    assert given.template is not None, "the interpreter has handlers of single instructions"
    key = template_key(given.template.ops, given.template.terminator)
    return shown(build_interpreter(given.registers, [key]).ir, "handler0", own_from="")


def _scalar(given: Lowered) -> str:
    made = emit_region(given.region, given.registers, given.windows)
    return shown(made.ir, made.symbol)


def _group(given: Lowered, assumed: dict[int, Form] | None) -> str:
    made = emit_simd_region(given.region, given.registers, given.windows, _UNIT, assumed)
    return shown(made.ir, made.symbol)


def _uniform(given: Lowered) -> str:
    return _group(given, {i: Form(uniform=True, narrow=False) for i in range(len(given.registers))})


def _device(given: Lowered) -> str:
    module = ir.Module(name="device")
    emit_region_function(given.region, given.registers, given.device_windows, module, "region")
    return shown(str(module), "region")


def _amd(given: Lowered) -> str:
    module = ir.Module(name="device")
    hip.emit_region(module, given.region, given.registers, given.device_windows, "region")
    return shown(str(module), "region")


TARGETS: dict[str, Callable[[Lowered], str]] = {
    "interpreter": _interpreter,
    "scalar": _scalar,
    "group": lambda given: _group(given, {}),
    "uniform": _uniform,
    "masked": lambda given: _group(given, None),
    "device": _device,
    "amd": _amd,
}
"""interpreter: the handler of an instruction. scalar: one lane on the CPU. group: four lanes in step, each with its own
values; uniform: all with the same; masked: any of them. device: a lane on NVIDIA's GPUs, the PTX machine and the host
device; amd: with registers in memory."""


def shown(module: str, symbol: str, own_from: str = "enough") -> str:
    """The part of a function that is a block's own, in names that do not depend on what is not shown.

    `own_from` is the label that it begins with, if it does not begin with the function.
    """
    arguments, blocks = _function(module, symbol)
    head, *_ = blocks
    first = next(name for name in blocks if _base(name) == own_from) if own_from else head
    if own_from:
        blocks[first] = _paid(blocks[first])
    labels = [name for name in blocks if name in _reached(blocks, first)]
    own = [line for name in labels for line in blocks[name]]
    entry = _used(blocks[head], own) if own_from else []
    names = _Names({argument: f"%arg{number}" for number, argument in enumerate(arguments, 1)}, set(blocks))
    lines = [_line(line, names) for line in entry]
    for label in labels:
        lines.append(f"{names.of('%' + label)[1:]}:")
        lines += [_line(line, names) for line in blocks[label]]
    return _with_metadata(module, "\n".join(lines)) + "\n"


def _function(module: str, symbol: str) -> tuple[list[str], dict[str, list[str]]]:
    """(arguments, lines by label) of a function, quotes around names taken away."""
    found = re.search(rf'^define [^@]*@"?{symbol}"?\((.*?)\)[^\n]*\n{{\n(.*?)^}}', module, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no function {symbol}"
    blocks: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in found[2].splitlines():
        label = _LABEL.match(line)
        if label is not None:
            lines = blocks[label[1]] = []
        else:
            lines.append(_VALUE.sub(lambda value: value[0].replace('"', ""), line))
    return [value.replace('"', "") for value in _VALUE.findall(found[1])], blocks


def _paid(lines: list[str]) -> list[str]:
    """Without what takes the block from the budget, which is the same for all."""
    (place,) = [number for number, line in enumerate(lines[:3]) if re.search(r"store i64 .*%remaining", line)]
    return lines[place + 1 :]


def _base(name: str) -> str:
    """A name without what makes it one of a kind."""
    return re.sub(r"\.\d+$", "", name)


def _reached(blocks: dict[str, list[str]], first: str) -> set[str]:
    """The blocks that are gone to from one, up to the ways out."""
    found, asked = set[str](), [first]
    while asked:
        name = asked.pop()
        text = "\n".join(blocks[name])
        if name not in found and not name.startswith(_WAYS_OUT) and (name == first or "  ret " not in text):
            found.add(name)
            asked += re.findall(r"label %([\w.$-]+)", text)
    return found


def _used(entry: list[str], own: Iterable[str]) -> list[str]:
    """The lines of the entry that compute what other lines use; cells are shown by their names alone."""
    wanted = {value for line in own for value in _VALUE.findall(line)}
    kept = []
    for line in reversed(entry):
        definition = _DEFINITION.match(line)
        if definition is not None and definition[1] in wanted and " = alloca " not in line:
            kept.append(line)
            wanted |= set(_VALUE.findall(line))
    return kept[::-1]


@dataclass
class _Names:
    """Names in the order in which they are asked for. `known` are given ones, `labels` those of blocks."""

    known: dict[str, str]
    labels: set[str]
    taken: dict[str, int] = field(default_factory=dict)
    values: int = 0

    def of(self, value: str) -> str:
        if value not in self.known:
            base = _base(value[1:]).rstrip("_.")
            if value[1:] not in self.labels and (not base or re.fullmatch(r"\.?v?\d+", base)):
                self.known[value] = f"%{self.values}"
                self.values += 1
            else:
                number = self.taken[base] = self.taken.get(base, 0) + 1
                self.known[value] = f"%{base}" if number == 1 else f"%{base}.{number}"
        return self.known[value]


def _line(line: str, names: _Names) -> str:
    text = _VALUE.sub(lambda value: names.of(value[0]), line.strip())
    text = _SPLAT.sub(r"splat (\1)", _POINTER.sub(r"ptr\1", text))
    return "  " + re.sub(r"  +", " ", text)


def _with_metadata(module: str, text: str) -> str:
    """With what is said of branches where it is said."""
    for name, content in _METADATA.findall(module):
        plain = re.sub(r"!(?=\")|\bi32 ", "", content.strip())
        text = re.sub(rf"{name}\b", f"!{{{plain}}}", text)
    return text
