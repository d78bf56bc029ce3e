"""What a region is shown as: a table of targets, each with what makes its listing."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from vmjit.cache import collecting_later
from vmjit.errors import DeviceMissingError
from vmjit.explain.listings import (
    Line,
    Listing,
    assembly_lines,
    llvm_lines,
    ptx_lines,
    sass_lines,
)
from vmjit.ir.registers import RegisterFile
from vmjit.ir.text import format_op, format_terminator
from vmjit.memory_layout import MemoryLayout
from vmjit.translators.cpu import Effort, cpu_target
from vmjit.translators.guest_locations import GuestLocations
from vmjit.translators.regions import Region

if TYPE_CHECKING:
    from vmjit.translators.device_region import DeviceWindowPlan
    from vmjit.translators.region_body import WindowPlan

_FUNCTION = "vmjit_region"

CUDA_ARCHITECTURE = "sm_90"
AMD_ARCHITECTURE = "gfx942"


@dataclass(frozen=True)
class Assumed:
    """What the code for whole groups assumes of registers, a bit each: that they are the same in all lanes, and that
    they are sign extensions of their low 32 bits."""

    uniform: int
    narrow: int = 0


class Subject:
    """A region that is translated, and all that the translations depend on.

    group_region: the same for lane groups, with the short ways beside it.
    """

    def __init__(
        self,
        region: Region,
        group_region: Region,
        registers: RegisterFile,
        layout: MemoryLayout,
        assumed: Assumed,
        cuda: str = CUDA_ARCHITECTURE,
        amd: str = AMD_ARCHITECTURE,
    ) -> None:
        self.region = region
        self.group_region = group_region
        self.registers = registers
        self.layout = layout
        self.assumed = assumed
        self.cuda = cuda
        self.amd = amd

    @property
    def windows(self) -> WindowPlan:
        return self.layout.window_plan()

    @property
    def device_windows(self) -> DeviceWindowPlan:
        from vmjit.translators.device_region import DeviceWindowPlan

        return DeviceWindowPlan(self.windows, self.layout.private_window[2], self.layout.shared_window[2])

    @cached_property
    def locations(self) -> GuestLocations:
        return GuestLocations(self.region)

    @cached_property
    def scalar(self) -> tuple[str, str]:
        """LLVM IR for one lane, as LLVM's passes leave it, and its assembly."""
        from vmjit.translators.compile_region import emit_region

        made = emit_region(self.region, self.registers, self.windows, self.locations)
        return cpu_target().optimised_ir_and_assembly(made.ir)

    @cached_property
    def ptx(self) -> str:
        """Raises ImportError or `DeviceMissingError` where the compiler is missing."""
        from vmjit.translators.cuda import PtxTarget

        target = PtxTarget(self.cuda)
        made = target.compile_region(self.region, self.registers, self.device_windows, _FUNCTION, self.locations)
        return made.decode()


# -- guest IR


def _ir(subject: Subject) -> Listing:
    lines: list[Line] = []
    for start in sorted(subject.region.blocks):
        block = subject.region.blocks[start]
        lines.append(Line(f"block {start:#x}", block.instructions[0].pc if block.instructions else None, False))
        pc: int | None = None
        for instruction in block.instructions:
            pc = instruction.pc
            lines += [Line("  " + format_op(op, block.registers), pc) for op in instruction.ops]
        lines.append(Line("  " + format_terminator(block.terminator, block.registers), pc))
    return Listing("ir", "IR", tuple(lines))


# -- this computer's processor


def _emitted(subject: Subject) -> Listing:
    from vmjit.translators.compile_region import REGION_SYMBOL, emit_region

    locations = subject.locations
    text = emit_region(subject.region, subject.registers, subject.windows, locations).ir
    return Listing("emitted", "one lane: LLVM IR as emitted", tuple(llvm_lines(text, REGION_SYMBOL, locations)))


def _llvm(subject: Subject) -> Listing:
    from vmjit.translators.compile_region import REGION_SYMBOL

    lines = llvm_lines(subject.scalar[0], REGION_SYMBOL, subject.locations)
    return Listing("llvm", "one lane: LLVM IR", tuple(lines))


def _scalar(subject: Subject) -> Listing:
    from vmjit.translators.compile_region import REGION_SYMBOL

    return _assembled(subject.scalar[1], REGION_SYMBOL, subject.locations, "scalar", "one lane", {})


def _quick(subject: Subject) -> Listing:
    from vmjit.translators.compile_quickly import emit_quick_region
    from vmjit.translators.compile_region import REGION_SYMBOL

    made = emit_quick_region(subject.region, subject.registers, subject.windows, subject.locations)
    text = cpu_target().assembly(made.ir, Effort.QUICK, notes=True)
    return _assembled(text, REGION_SYMBOL, subject.locations, "quick", "one lane, first code", {})


def _simd(subject: Subject) -> Listing:
    same, narrow = subject.assumed.uniform, subject.assumed.narrow
    used = _names(subject, same)
    facts: dict[str, int | str] = {"the same in all lanes": used or "nothing"}
    if subject.registers.type.bits > 32:
        facts["32 bits wide"] = _names(subject, narrow) or "nothing"
    return _vectors(subject, Assumed(same, narrow), "simd", "a whole group", facts)


def _masked(subject: Subject) -> Listing:
    return _vectors(subject, None, "masked", "some lanes of a group", {})


def _names(subject: Subject, bits: int) -> str:
    from vmjit.translators.region_body import registers_used

    read, written = registers_used(subject.group_region, subject.registers)
    return " ".join(subject.registers.names[i] for i in sorted(read | written) if bits >> i & 1)


def _vectors(subject: Subject, assumed: Assumed | None, name: str, what: str, facts: dict[str, int | str]) -> Listing:
    from vmjit.translators.lane_forms import assumed_forms
    from vmjit.translators.simd_region import emit_simd_region
    from vmjit.translators.vector_unit import vector_unit

    unit, registers = vector_unit(), subject.registers
    forms = None if assumed is None else assumed_forms(registers, assumed.uniform, assumed.narrow)
    locations = GuestLocations(subject.group_region)
    made = emit_simd_region(subject.group_region, registers, subject.windows, unit, forms, locations)
    text = cpu_target().assembly(made.ir, notes=True)
    return _assembled(text, made.symbol, locations, name, f"SIMD, {what} of {unit.lanes}", facts)


def _assembled(
    text: str,
    symbol: str,
    locations: GuestLocations,
    name: str,
    what: str,
    facts: dict[str, int | str],
) -> Listing:
    target = cpu_target()
    lines = tuple(assembly_lines(text, symbol, locations, target.triple))
    machine = target.triple.partition("-")[0]
    if machine == "x86_64":
        facts |= _x86_registers(lines)
    stores, loads = (sum(word in line.text for line in lines) for word in ("Spill", "Reload"))
    facts |= {"spills": stores, "reloads": loads}
    return Listing(name, f"{what}: {machine} ({target.cpu})", lines, facts)


_VECTOR_REGISTER = re.compile(r"%[xyz]mm(\d+)")
_MASK_REGISTER = re.compile(r"%k([0-7])\b")
_GENERAL_REGISTER = re.compile(r"%(?:[er]?([abcd])[xlh]|[er]?(si|di|bp|sp)l?|r(\d+)[dwb]?)\b")


def _x86_registers(lines: Sequence[Line]) -> dict[str, int | str]:
    code = "\n".join(line.text for line in lines if line.instruction)
    found: dict[str, int | str] = {"general registers": len({"".join(m) for m in _GENERAL_REGISTER.findall(code)})}
    vectors, masks = (len(set(of.findall(code))) for of in (_VECTOR_REGISTER, _MASK_REGISTER))
    if vectors:
        found["vector registers"] = vectors
    if masks:
        found["mask registers"] = masks
    return found


# -- GPUs


def _ptx(subject: Subject) -> Listing:
    lines = tuple(ptx_lines(subject.ptx, _FUNCTION, subject.locations))
    return Listing("ptx", f"a thread: PTX ({subject.cuda})", lines)


def _sass(subject: Subject) -> Listing:
    from vmjit.translators import cuda_tools

    cubin, needs = cuda_tools.assemble(subject.ptx, subject.cuda, relocatable=True, lines=True)
    text = cuda_tools.disassemble(cubin, lines=True)
    lines = tuple(sass_lines(text, _FUNCTION, subject.locations))
    registers = {int(n) for line in lines for n in re.findall(r"\bR(\d+)\b", line.text)}
    facts: dict[str, int | str] = {
        "registers": max(registers, default=-1) + 1,
        "stack, bytes": needs.stack,
        "spill stores, bytes": needs.spill_stores,
        "spill loads, bytes": needs.spill_loads,
    }
    return Listing("sass", f"a thread: SASS ({subject.cuda})", lines, facts)


def _amdgcn(subject: Subject) -> Listing:
    from vmjit.translators import hip

    target = hip.HipTarget(subject.amd)
    image = target.compile_region(
        subject.region, subject.registers, subject.device_windows, _FUNCTION, subject.locations
    )
    text = target.function_assembly(image)
    lines = tuple(assembly_lines(text, _FUNCTION, subject.locations, hip.TRIPLE))
    facts: dict[str, int | str] = dict(hip.function_resources(text, _FUNCTION))
    return Listing("amdgcn", f"a work item: AMDGCN ({subject.amd})", lines, facts)


@dataclass(frozen=True)
class Target:
    """make: raises ImportError or `DeviceMissingError` where a tool is missing. usual: shown if nothing is asked for.
    maker: for GPUs, whose: such listings are made beside the others. slow: whether it is worth keeping."""

    make: Callable[[Subject], Listing]
    what: str
    usual: bool = True
    maker: str | None = None
    slow: bool = True


TARGETS = {
    "ir": Target(_ir, "vmjit's IR", slow=False),
    "emitted": Target(_emitted, "LLVM IR before LLVM's passes", usual=False),
    "llvm": Target(_llvm, "optimised LLVM IR for one lane"),
    "scalar": Target(_scalar, "this computer's code for one lane"),
    "quick": Target(_quick, "the same as compiled at first, quickly", usual=False),
    "simd": Target(_simd, "this computer's code for a lane group in SIMD registers"),
    "masked": Target(_masked, "the same for lanes that parted; takes long", usual=False),
    "ptx": Target(_ptx, "PTX for NVIDIA", maker="NVIDIA"),
    "sass": Target(_sass, "NVIDIA's machine code, where ptxas and nvdisasm are installed", maker="NVIDIA"),
    "amdgcn": Target(_amdgcn, "AMD's machine code", maker="AMD"),
}
USUAL = tuple(name for name, target in TARGETS.items() if target.usual)


def listings_of(subject: Subject, names: Sequence[str]) -> tuple[dict[str, Listing], dict[str, str]]:
    """(listings by target, for the others why there is none)."""
    found: dict[str, Listing] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            with collecting_later():
                found[name] = TARGETS[name].make(subject)
        except (ImportError, DeviceMissingError) as error:
            missing[name] = str(error)
    return found, missing
