"""What CUDA kernels need of a GPU, as ptxas tells: registers, stack, spills and machine instructions.

A kernel has the interpreter and what the scalar tier compiles of every benchmark guest before it runs.
"""

from __future__ import annotations

import re
import subprocess
from functools import lru_cache
from typing import Any

import pytest

import vmjit
from tests.cli.conftest import guest
from tests.devices.golden_values import Golden
from tests.devices.test_ptx_counts import GUESTS, ISAS
from vmjit.cli.translate import _code_space
from vmjit.memory_layout import parse_size, plan_memory
from vmjit.tiering import INLINE_BEFORE_RUNNING
from vmjit.translators import cuda_tools
from vmjit.translators.device_region import DeviceWindowPlan
from vmjit.translators.ptx_text import merge
from vmjit.translators.regions import MAX_REGION_INSTRUCTIONS, Growth, Region, form_region

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
ORDINARY = ("sm_90",)


@lru_cache(maxsize=16)
def regions(name: str, isa: str) -> tuple[tuple[Region, ...], DeviceWindowPlan]:
    """The regions of everything that a guest's first instruction leads to along static edges, and its memory."""
    program = vmjit.load(guest(name, isa))
    space = _code_space(program)
    found: dict[int, Region] = {}
    todo = [program.entry]
    while todo:
        pc = todo.pop()
        if pc in found or not space.executable(pc) or not space.decode(pc):
            continue

        def wanted(target: int) -> bool:
            return space.executable(target) and target not in found

        growth = Growth(wanted, MAX_REGION_INSTRUCTIONS, INLINE_BEFORE_RUNNING, whole_function=True)
        found[pc] = form_region(space, pc, growth)
        todo += [t for t in found[pc].link_targets() if t not in found[pc].blocks]
    layout = plan_memory(program, parse_size("16KiB"))
    return tuple(found.values()), DeviceWindowPlan(
        layout.window_plan(), layout.private_window[2], layout.shared_window[2]
    )


def needed(isa: str, architecture: str) -> dict[str, Any]:
    """What the kernel for all guests needs; machine instructions are those of each guest's regions."""
    from vmjit.decoders.riscv.registers import REGISTERS
    from vmjit.device_kernels import interpreter_keys_of
    from vmjit.translators.cuda import MAX_REGISTERS, CudaTarget

    xlen = int(isa[2:4])
    registers, target = REGISTERS[xlen], CudaTarget(architecture)
    texts, names, instructions = [], [], {}
    for name in GUESTS:
        made, windows = regions(name, isa)
        of_guest = []
        for number, region in enumerate(made):
            names.append(f"{name}_{number}")
            of_guest.append(target.compile_region(region, registers, windows, names[-1]).decode())
        alone, _ = cuda_tools.assemble(merge(of_guest), architecture, relocatable=True)
        instructions[name] = cuda_tools.count_instructions(cuda_tools.disassemble(alone))
        texts += of_guest
    interpreter = target.compile_interpreter(registers, interpreter_keys_of(xlen), "interpret").decode()
    limit = MAX_REGISTERS[xlen]
    needs = _assembled(target, registers, interpreter, names, texts, limit)
    bare = _assembled(target, registers, interpreter, [], [], limit)
    assert needs.registers <= limit
    assert (needs.stack, needs.spill_stores) == (bare.stack, bare.spill_stores), "a region spills"
    return {
        "registers": needs.registers,
        "stack": needs.stack,
        "spill stores": needs.spill_stores,
        "spill loads": needs.spill_loads,
        "instructions": instructions,
    }


def _assembled(
    target: Any, registers: Any, interpreter: str, names: list[str], regions_: list[str], limit: int
) -> cuda_tools.Resources:
    kernel = target.compile_kernel(registers, "interpret", names, "run_lanes").decode()
    whole = merge([interpreter, *regions_, kernel])
    return cuda_tools.assemble(whole, target.architecture, max_registers=limit)[1]


def tools() -> dict[str, str]:
    from vmjit.translators.cuda import nvvm_version

    said = subprocess.run([cuda_tools.find_tool("ptxas"), "--version"], capture_output=True, text=True, check=True)
    (version,) = re.findall(r"V([\d.]+)", said.stdout)
    return {"ptxas": version, "nvvm": nvvm_version()}


CASES = [
    pytest.param(isa, architecture, marks=[] if architecture in ORDINARY else [pytest.mark.slow])
    for architecture in ARCHITECTURES
    for isa in ISAS
]


@pytest.mark.parametrize(("isa", "architecture"), CASES)
def test_regions_fit_without_spills(
    isa: str, architecture: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    found = needed(isa, architecture)
    # Of rv32's interpreter on sm_90; regions add none.
    assert found["spill stores"] <= (16 if (isa, architecture) == ("rv32im", "sm_90") else 0), found
    golden = Golden("cuda_resources.json", request, capsys)
    pinned = golden.pinned(f"{isa}.{architecture}", found, tools())
    if pinned is not None:
        assert found == pinned
