"""What CUDA kernels need of a GPU, as ptxas tells: registers, stack, spills and machine instructions.

A kernel has the interpreter and what the scalar tier compiles of one benchmark guest before it runs.
"""

from __future__ import annotations

import re
import subprocess
from functools import lru_cache

import pytest

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")

from benchmarks.device_compile import regions_of
from tests.devices.golden_values import Golden
from tests.devices.test_ptx_counts import GUESTS, ISAS
from vmjit.translators import cuda_tools
from vmjit.translators.device_region import DeviceWindowPlan
from vmjit.translators.ptx_text import merge
from vmjit.translators.regions import Region

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")

# Every architecture and every kind of guest once; the others are slow tests.
ORDINARY = {
    ("sha256", "rv32im", "sm_75"),
    ("json", "rv64imac", "sm_75"),
    ("sort", "rv32im", "sm_80"),
    ("matmul", "rv64imac", "sm_86"),
    ("calls", "rv32im", "sm_89"),
    ("crc32", "rv64imac", "sm_90"),
    ("sieve", "rv32im", "sm_100"),
    ("montecarlo", "rv64imac", "sm_120"),
}


@lru_cache(maxsize=16)
def regions(name: str, isa: str) -> tuple[list[Region], DeviceWindowPlan]:
    return regions_of(name, isa, "16KiB")


def needed(name: str, isa: str, architecture: str) -> dict[str, int]:
    """What the kernel for a guest needs; machine instructions are those of its regions."""
    from vmjit.decoders.riscv.registers import REGISTERS
    from vmjit.device_kernels import interpreter_keys_of
    from vmjit.translators.cuda import MAX_REGISTERS, CudaTarget

    xlen = int(isa[2:4])
    registers, target = REGISTERS[xlen, False], CudaTarget(architecture)
    made, windows = regions(name, isa)
    names = [f"{name}_{number}" for number in range(len(made))]
    texts = [target.compile_region(r, registers, windows, n).decode() for r, n in zip(made, names, strict=True)]
    alone, _ = cuda_tools.assemble(merge(texts), architecture, relocatable=True)
    instructions = cuda_tools.count_instructions(cuda_tools.disassemble(alone))
    interpreter = target.compile_interpreter(registers, interpreter_keys_of(registers), "interpret").decode()
    limit = MAX_REGISTERS[xlen]
    kernel = target.compile_kernel(registers, "interpret", names, "run_lanes").decode()
    _, needs = cuda_tools.assemble(merge([interpreter, *texts, kernel]), architecture, max_registers=limit)
    assert needs.registers <= limit
    return {
        "registers": needs.registers,
        "stack": needs.stack,
        "spill stores": needs.spill_stores,
        "spill loads": needs.spill_loads,
        "instructions": instructions,
    }


def tools() -> dict[str, str]:
    from vmjit.translators.cuda import nvvm_version

    said = subprocess.run([cuda_tools.find_tool("ptxas"), "--version"], capture_output=True, text=True, check=True)
    (version,) = re.findall(r"V([\d.]+)", said.stdout)
    return {"ptxas": version, "nvvm": nvvm_version()}


CASES = [
    pytest.param(name, isa, architecture, marks=[] if (name, isa, architecture) in ORDINARY else [pytest.mark.slow])
    for architecture in ARCHITECTURES
    for isa in ISAS
    for name in GUESTS
]


@pytest.mark.parametrize(("name", "isa", "architecture"), CASES)
def test_kernels_fit_without_spills(
    name: str, isa: str, architecture: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    found = needed(name, isa, architecture)
    assert (found["spill stores"], found["spill loads"]) == (0, 0), found
    pinned = Golden("cuda_resources.json", request, capsys).pinned(f"{name}.{isa}.{architecture}", found, tools())
    if pinned is not None:
        assert found == pinned
