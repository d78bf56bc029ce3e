"""What each row of the instruction tables costs in machine instructions, by target; nothing runs.

The count is of all instructions that the row's region has more than the one it is compared with (`rows.py`), rare ways
included: what an access does in each memory window and the exit for one that is in none, a second exit for a branch.
For a group it is what all of its lanes take together. The interpreter's is the row's whole handler, with what fetches
its operands and goes on to the next, without the slow version that rare accesses go on in. A count is negative where a
row does nothing in the region but leave to the interpreter. Where rows fill the vector registers, what is spilled
counts too.

CPUs are named, so that counts are the same on every computer that has the same tools.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import llvmlite.binding as llvm

from tests.filetests.rows import WINDOWS, RowRegion
from vmjit.ir.registers import RegisterFile
from vmjit.translators.compile_region import emit_region
from vmjit.translators.cpu import CpuCompiler, llvmlite_version
from vmjit.translators.device_region import DeviceWindowPlan
from vmjit.translators.hip import HipTarget
from vmjit.translators.interpreter import build_interpreter, template_key
from vmjit.translators.ptx_text import merge
from vmjit.translators.regions import Region
from vmjit.translators.simd_region import emit_simd_region
from vmjit.translators.vector_unit import unit_of

X86 = ("x86_64-unknown-linux-gnu", "x86-64-v3")
AARCH64 = ("aarch64-unknown-linux-gnu", "neoverse-n1")
CUDA, AMD = "sm_90", "gfx942"

_DEVICE_WINDOWS = DeviceWindowPlan(WINDOWS, private_offset=0, shared_offset=0)
_LABEL = re.compile(r"^([A-Za-z_][\w$]*):")
_SECTION = re.compile(r"^\s*\.section\s+\.text\.(\w+),", re.MULTILINE)
_PTX_FUNCTION = re.compile(r"^(?:\.visible )?\.func .*?\b(\w+)\(\n.*?^\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_PTX_INSTRUCTION = re.compile(r"^\s*(?:@!?%p\d+\s+)?[a-z][\w.]*(?:\s[^;]*)?;", re.MULTILINE)

# (regions by name, their registers) -> instructions of each
Counter = Callable[[Mapping[str, Region], RegisterFile], dict[str, int]]


@dataclass(frozen=True)
class Target:
    """Where rows are counted: instructions by row, and the versions of the tools that these depend on."""

    name: str
    rows: Callable[[Iterable[RowRegion]], dict[str, int]]
    tools: Callable[[], dict[str, str]]


# -- counting


def instructions_by_label(assembly: str) -> dict[str, int]:
    """Instructions behind each global label of an assembly text of LLVM's, up to the next."""
    found: dict[str, int] = {}
    name = ""
    for line in assembly.splitlines():
        label = _LABEL.match(line)
        if label is not None:
            name = label[1]
        elif name and re.match(r"^\t[a-z]", line):
            found[name] = found.get(name, 0) + 1
        elif line.startswith(".Lfunc_end"):
            name = ""
    return found


def instructions_of_ptx(text: str) -> dict[str, int]:
    return {name: len(_PTX_INSTRUCTION.findall(body)) for name, body in _PTX_FUNCTION.findall(text)}


def difference(rows: Iterable[RowRegion], count: Counter) -> dict[str, int]:
    """What each row's region has more than the one it is compared with."""
    rows = list(rows)
    regions: dict[RegisterFile, dict[str, Region]] = {}
    names = {}
    for number, row in enumerate(rows):
        names[row.name] = f"row_{number}"
        of_file = regions.setdefault(row.registers, {})
        of_file[names[row.name]] = row.region
        of_file[f"without_{row.group}"] = row.without
    counts = {name: n for registers, given in regions.items() for name, n in count(given, registers).items()}
    return {row.name: counts[names[row.name]] - counts[f"without_{row.group}"] for row in rows}


# -- CPUs


def _llvm() -> dict[str, str]:
    return {"llvm": ".".join(map(str, llvm.llvm_version_info)), "llvmlite": llvmlite_version()}


@lru_cache(maxsize=4)
def _compiler(triple: str, cpu: str) -> CpuCompiler:
    return CpuCompiler.of(triple, cpu)


def _instructions(cpu: tuple[str, str], ir: str, symbol: str) -> int:
    return instructions_by_label(_compiler(*cpu).assembly(ir))[symbol]


def _scalar(cpu: tuple[str, str]) -> Counter:
    def count(regions: Mapping[str, Region], registers: RegisterFile) -> dict[str, int]:
        made = {name: emit_region(region, registers, WINDOWS) for name, region in regions.items()}
        return {name: _instructions(cpu, module.ir, module.symbol) for name, module in made.items()}

    return count


def _group(*, masked: bool) -> Counter:
    """A group in 256-bit registers, of whose registers nothing is assumed: every lane has its own values."""

    def count(regions: Mapping[str, Region], registers: RegisterFile) -> dict[str, int]:
        unit, assumed = unit_of("+avx2"), None if masked else {}
        made = {name: emit_simd_region(r, registers, WINDOWS, unit, assumed) for name, r in regions.items()}
        return {name: _instructions(X86, module.ir, module.symbol) for name, module in made.items()}

    return count


def _handlers(rows: Iterable[RowRegion]) -> dict[str, int]:
    """The interpreter's handlers, of the rows alone."""
    keys, counts = {}, {}
    for row in rows:
        template = row.decoder.template(row.instruction)
        keys[row.name] = row.registers, template_key(template.ops, template.terminator)
    for registers in {registers for registers, _ in keys.values()}:
        module = build_interpreter(registers, [key for file, key in keys.values() if file == registers])
        handlers = instructions_by_label(_compiler(*X86).assembly(module.ir))
        counts |= {(registers, key): handlers[f"handler{number}"] for number, key in enumerate(module.keys)}
    return {name: counts[key] for name, key in keys.items()}


# -- GPUs


def _nvidia(rows: Iterable[RowRegion]) -> dict[str, int]:
    """Machine instructions by row, and PTX instructions by `row, PTX`."""
    from vmjit.translators import cuda_tools
    from vmjit.translators.cuda import PtxTarget

    target, texts = PtxTarget(CUDA), []

    def ptx(regions: Mapping[str, Region], registers: RegisterFile) -> dict[str, int]:
        of_file = [target.compile_region(r, registers, _DEVICE_WINDOWS, n).decode() for n, r in regions.items()]
        texts.extend(of_file)
        return {name: n for text in of_file for name, n in instructions_of_ptx(text).items()}

    found = {f"{name}, PTX": n for name, n in difference(rows, ptx).items()}
    # What nothing calls is left out unless it is visible.
    whole = re.sub(r"^\.func", ".visible .func", merge(texts), flags=re.MULTILINE)
    image, _ = cuda_tools.assemble(whole, CUDA, relocatable=True)
    # Functions are filled up with NOPs to a multiple of 128 bytes.
    _, *parts = _SECTION.split(re.sub(r"^.*\bNOP\b.*$", "", cuda_tools.disassemble(image), flags=re.MULTILINE))
    counts = {name: cuda_tools.count_instructions(code) for name, code in zip(parts[::2], parts[1::2], strict=True)}
    return found | difference(rows, lambda regions, registers: {name: counts[name] for name in regions})


def _cuda() -> dict[str, str]:
    from tests.devices.test_cuda_resources import tools

    return tools()


def _amd(regions: Mapping[str, Region], registers: RegisterFile) -> dict[str, int]:
    target = HipTarget(AMD)
    images = [target.compile_kernel(registers, "interpret", list(regions), "run_lanes")]
    images += [target.compile_region(region, registers, _DEVICE_WINDOWS, name) for name, region in regions.items()]
    return instructions_by_label(target.assembly(images))


TARGETS = {
    target.name: target
    for target in (
        Target("x86-64-v3", lambda rows: difference(rows, _scalar(X86)), _llvm),
        Target("x86-64-v3-group", lambda rows: difference(rows, _group(masked=False)), _llvm),
        Target("x86-64-v3-masked", lambda rows: difference(rows, _group(masked=True)), _llvm),
        Target("x86-64-v3-interpreter", _handlers, _llvm),
        Target("aarch64", lambda rows: difference(rows, _scalar(AARCH64)), _llvm),
        Target(CUDA, _nvidia, _cuda),
        Target(AMD, lambda rows: difference(rows, _amd), _llvm),
    )
}
