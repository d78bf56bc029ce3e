"""`python -m benchmarks.device_compile`: CPU seconds to compile the benchmark guests for GPUs, none of which is needed.

Everything that a guest's first instruction leads to, as the tier "scalar" compiles it. "Assembling" makes machine code
of the regions alone: with ptxas for NVIDIA, for AMD what linking takes more than without them. "Linking" is what a
kernel with all of them takes, the interpreter in it compiled again.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

import vmjit
from benchmarks.contestants import QEMU
from benchmarks.guests.build import BENCHMARKS
from vmjit.bench.guests import elf_path
from vmjit.decoders.riscv import parse_isa, registers_of
from vmjit.device_kernels import KERNEL_NAME, interpreter_keys_of
from vmjit.devices.interface import DeviceTarget
from vmjit.memory_layout import parse_size, plan_memory
from vmjit.static_code import StaticCode
from vmjit.tiering import INLINE_BEFORE_RUNNING
from vmjit.translators.cuda import CudaTarget
from vmjit.translators.cuda_tools import assemble
from vmjit.translators.device_region import DeviceWindowPlan
from vmjit.translators.hip import HipTarget
from vmjit.translators.ptx_text import merge
from vmjit.translators.regions import MAX_REGION_INSTRUCTIONS, Growth, Region, form_region


@dataclass(frozen=True)
class Compiled:
    """CPU seconds for one guest on one architecture."""

    instructions: int
    translating: float
    assembling: float
    linking: float

    @property
    def alone(self) -> float:
        """For the guest's own code."""
        return self.translating + self.assembling


def regions_of(guest: str, isa: str, memory: str = "1MiB") -> tuple[list[Region], DeviceWindowPlan]:
    """The regions of everything that a guest's first instruction leads to along static edges, and its windows."""
    program = vmjit.load(elf_path(guest, isa))
    space = StaticCode(program)
    found: dict[int, Region] = {}
    todo = [program.entry]
    while todo:
        pc = todo.pop()
        if pc in found or not space.executable(pc) or not space.decode(pc):
            continue
        growth = Growth(
            lambda place: space.executable(place) and place not in found,
            MAX_REGION_INSTRUCTIONS,
            INLINE_BEFORE_RUNNING,
            whole_function=True,
        )
        found[pc] = form_region(space, pc, growth)
        todo += [t for t in found[pc].link_targets() if t not in found[pc].blocks]
    layout = plan_memory(program, parse_size(memory))
    return list(found.values()), DeviceWindowPlan(
        layout.window_plan(), layout.private_window[2], layout.shared_window[2]
    )


def seconds() -> float:
    """CPU time of this process and of the tools that it has waited for."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def measure(target: DeviceTarget, guest: str, isa: str, interpreter: bytes, subtracted: float) -> Compiled:
    regions, windows = regions_of(guest, isa)
    registers = registers_of(parse_isa(isa))
    names = [f"region_{i}" for i in range(len(regions))]
    started = seconds()
    images = [target.compile_region(r, registers, windows, n) for r, n in zip(regions, names, strict=True)]
    kernel = target.compile_kernel(registers, "interpret", names, KERNEL_NAME)
    translated = seconds()
    target.link([kernel, interpreter, *images], registers)
    linked = seconds()
    if isinstance(target, CudaTarget):
        assemble(merge([image.decode() for image in images]), target.architecture, relocatable=True)
        assembling = seconds() - linked
    else:
        assembling = max(linked - translated - subtracted, 0.0)
    size = sum(r.size for r in regions)
    return Compiled(size, translated - started, assembling, linked - translated)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.device_compile", description=__doc__)
    parser.add_argument("guests", nargs="*", metavar="guest", help=f"which guests (all: {' '.join(BENCHMARKS)})")
    parser.add_argument("--arch", nargs="+", default=["sm_90", "gfx942"], help="architectures (sm_90 gfx942)")
    options = parser.parse_args(arguments)
    columns = ("instructions", "translating, s", "assembling, s", "both per 1,000", "linking, s")
    table = Table("architecture", "guest", *columns)
    for architecture in options.arch:
        cuda = architecture.startswith("sm_")
        target: DeviceTarget = CudaTarget(architecture) if cuda else HipTarget(architecture)
        for isa in QEMU:
            registers = registers_of(parse_isa(isa))
            keys = interpreter_keys_of(registers)
            interpreter = target.compile_interpreter(registers, keys, "interpret")
            kernel = target.compile_kernel(registers, "interpret", [], KERNEL_NAME)
            started = seconds()
            target.link([kernel, interpreter], registers)
            alone = seconds() - started
            for guest in options.guests or BENCHMARKS:
                found = measure(target, guest, isa, interpreter, alone)
                table.add_row(
                    architecture,
                    f"{guest} {isa}",
                    f"{found.instructions}",
                    f"{found.translating:.2f}",
                    f"{found.assembling:.2f}",
                    f"{found.alone / found.instructions * 1000:.2f}",
                    f"{found.linking:.2f}",
                )
            table.add_row(architecture, f"interpreter {isa}", "", "", "", "", f"{alone:.2f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
