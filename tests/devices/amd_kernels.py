"""What kernels for AMD need, as JSON: run in a process of its own, which LLVM ends where it cannot select code.

    python -m tests.devices.amd_kernels gfx90a 64 rv32im "" crc32 …

prints for the interpreter alone ("") and with the region at a guest's `guest_main` the numbers of `AmdResources`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import vmjit
from vmjit.decoders.riscv import parse_isa, registers_of
from vmjit.device_kernels import KERNEL_NAME, interpreter_keys_of
from vmjit.memory_layout import plan_memory
from vmjit.places import code_address
from vmjit.static_code import StaticCode
from vmjit.translators.device_region import DeviceWindowPlan
from vmjit.translators.hip import HipTarget, resources
from vmjit.translators.regions import Region

GUESTS = Path(__file__).resolve().parents[2] / "benchmarks" / "guests" / "bin"


def region_of(guest: str, isa: str) -> tuple[Region, DeviceWindowPlan]:
    """The region at `guest_main`, grown along all static edges, and the windows of a machine with 1 MiB."""
    program = vmjit.load(GUESTS / f"{guest}.{isa}.elf")
    region = StaticCode(program).region(code_address(program, "guest_main"))
    assert region is not None
    layout = plan_memory(program, 1 << 20)
    windows = DeviceWindowPlan(layout.window_plan(), layout.private_window[2], layout.shared_window[2])
    return region, windows


def images(target: HipTarget, isa: str, guest: str) -> list[bytes]:
    """The kernel's images, with the guest's region unless `guest` is empty."""
    registers = registers_of(parse_isa(isa))
    interpreter = target.compile_interpreter(registers, interpreter_keys_of(registers), "interpret")
    if not guest:
        return [target.compile_kernel(registers, "interpret", [], KERNEL_NAME), interpreter]
    region, windows = region_of(guest, isa)
    function = target.compile_region(region, registers, windows, "region")
    return [target.compile_kernel(registers, "interpret", ["region"], KERNEL_NAME), interpreter, function]


def main(architecture: str, wavefront: str, isa: str, *guests: str) -> None:
    target = HipTarget(architecture, int(wavefront))
    found = {}
    for guest in guests:
        found[guest] = dataclasses.asdict(resources(target.assembly(images(target, isa, guest))))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
