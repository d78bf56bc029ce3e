"""`vmjit translate` for GPUs: what a region becomes for an architecture, with no GPU."""

from __future__ import annotations

import re

from vmjit.errors import ArgumentError, DeviceMissingError
from vmjit.ir.registers import RegisterFile
from vmjit.memory_layout import MemoryLayout
from vmjit.translators.device_region import DeviceWindowPlan
from vmjit.translators.regions import Region

REGION_NAME = "vmjit_region"
INTERPRETER_NAME = "vmjit_interpret"
KERNEL_NAME = "vmjit_run_lanes"

_OF_CUDA = ("ptx", "cubin", "sass", "resources")
_OF_AMD = ("amdgcn", "hsaco", "resources")


def translate_for_gpu(
    region: Region, registers: RegisterFile, layout: MemoryLayout, emit: str, architecture: str
) -> bytes:
    """The region for `architecture` as `emit` says. Raises `ArgumentError` where the two do not go together."""
    windows = DeviceWindowPlan(layout.window_plan(), layout.private_window[2], layout.shared_window[2])
    if re.fullmatch(r"sm_[0-9]{2,3}", architecture):
        if emit not in _OF_CUDA:
            raise ArgumentError(f"{emit} is for AMD: --arch gfx942 or another gfx name, not {architecture}")
        return _for_cuda(region, registers, windows, emit, architecture)
    if re.fullmatch(r"gfx[0-9a-f]{3,4}", architecture):
        if emit not in _OF_AMD:
            raise ArgumentError(f"{emit} is for NVIDIA: --arch sm_90 or another sm number, not {architecture}")
        return _for_amd(region, registers, windows, emit, architecture)
    raise ArgumentError(f"no architecture {architecture!r}; there are sm_75, sm_90, … and gfx90a, gfx942, …")


def _for_cuda(
    region: Region, registers: RegisterFile, windows: DeviceWindowPlan, emit: str, architecture: str
) -> bytes:
    try:
        from vmjit.translators.cuda import MAX_REGISTERS, CudaTarget
    except ImportError as error:
        raise _missing(error) from error
    from vmjit.device_kernels import interpreter_keys_of
    from vmjit.translators import cuda_tools
    from vmjit.translators.ptx_text import merge

    try:
        target = CudaTarget(architecture)
    except ImportError as error:
        raise _missing(error) from error
    function = target.compile_region(region, registers, windows, REGION_NAME).decode()
    if emit == "ptx":
        return function.encode()
    alone, _ = cuda_tools.assemble(function, architecture, relocatable=True)
    if emit == "sass":
        return cuda_tools.disassemble(alone).encode()
    keys = interpreter_keys_of(registers)
    interpreter = target.compile_interpreter(registers, keys, INTERPRETER_NAME).decode()
    kernel = target.compile_kernel(registers, INTERPRETER_NAME, [REGION_NAME], KERNEL_NAME).decode()
    whole = merge([interpreter, function, kernel])
    image, needs = cuda_tools.assemble(whole, architecture, max_registers=MAX_REGISTERS[registers.type.bits])
    if emit == "cubin":
        return image
    instructions = cuda_tools.count_instructions(cuda_tools.disassemble(alone))
    return _listed(
        {
            "architecture": architecture,
            "guest instructions": region.size,
            "PTX lines of the region": function.count("\n"),
            "machine instructions of the region": instructions,
            "registers a thread": needs.registers,
            "stack, bytes": needs.stack,
            "spill stores, bytes": needs.spill_stores,
            "spill loads, bytes": needs.spill_loads,
        }
    )


def _missing(error: ImportError) -> DeviceMissingError:
    return DeviceMissingError(f'{error}; install what is missing with: pip install "vmjit[cuda13]"', device="cuda")


def _for_amd(region: Region, registers: RegisterFile, windows: DeviceWindowPlan, emit: str, architecture: str) -> bytes:
    from vmjit.device_kernels import interpreter_keys_of
    from vmjit.translators import hip

    target = hip.HipTarget(architecture)
    keys = interpreter_keys_of(registers)
    images = [
        target.compile_kernel(registers, INTERPRETER_NAME, [REGION_NAME], KERNEL_NAME),
        target.compile_interpreter(registers, keys, INTERPRETER_NAME),
        target.compile_region(region, registers, windows, REGION_NAME),
    ]
    if emit == "hsaco":
        (code,) = target.link(images, registers)
        return code
    assembly = target.assembly(images)
    if emit == "amdgcn":
        return assembly.encode()
    needs = hip.resources(assembly)
    return _listed(
        {
            "architecture": architecture,
            "guest instructions": region.size,
            "VGPRs": needs.vgprs,
            "SGPRs": needs.sgprs,
            "scratch, bytes": needs.scratch,
            "spilled VGPRs": needs.vgpr_spills,
            "spilled SGPRs": needs.sgpr_spills,
            "lanes of a wavefront": needs.wavefront,
        }
    )


def _listed(values: dict[str, object]) -> bytes:
    width = max(map(len, values))
    return "".join(f"{name:{width}}  {value}\n" for name, value in values.items()).encode()
