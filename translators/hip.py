"""AMD: device functions and kernels through LLVM's AMDGPU target, with no GPU and no ROCm.

The same bodies as for CUDA. Images are LLVM IR texts, so that a kernel and the functions it calls are compiled as one
module; `assembly` and `object_file` make them what a loader takes, `link` a code object (.hsaco).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import llvmlite.binding as llvm
from llvmlite import ir

from vmjit.errors import CompileError, DeviceMissingError
from vmjit.ir.registers import RegisterFile
from vmjit.kernels.device_lanes import emit_run_lane
from vmjit.kernels.device_layout import register_offset
from vmjit.kernels.device_memory import I8, I32, I64, load_global, store_global
from vmjit.translators.control_flow import go_through_one_head, has_loops_of_several_heads
from vmjit.translators.cpu import llvmlite_version
from vmjit.translators.device_interpreter import INTERPRETER_TYPE, emit_interpreter_function
from vmjit.translators.device_region import REGION_TYPE, DeviceRegion, DeviceWindowPlan
from vmjit.translators.guest_locations import GuestLocations
from vmjit.translators.interpreter import TemplateKey
from vmjit.translators.regions import Region
from vmjit.translators.registers_in_memory import keep_registers_in_memory
from vmjit.translators.waterfall import take_turns

TRIPLE = "amdgcn-amd-amdhsa"
ARCHITECTURES = ("gfx90a", "gfx942", "gfx1100", "gfx1201")
THREADS_PER_BLOCK = 128

# Before this release LLVM may end the process over loops of several heads; LLVM 20, which numba-hip needs, does.
_LLVM_WITH_ANY_LOOPS = 22

# Blocks of a region from which on LLVM takes twice as long for loops of several heads.
_LARGE = 60

Code = TypeVar("Code", str, bytes)

GATHER, SCATTER = "vmjit_gather", "vmjit_scatter"

# Older than what LLVM writes by itself, so that ROCm 6 loads it too.
_CODE_OBJECT = """
!llvm.module.flags = !{!0}
!0 = !{i32 1, !"amdhsa_code_object_version", i32 500}
"""

# Waves that a SIMD unit shall hold at least, which bounds registers: 128 on CDNA. Memory in their place costs more than
# a wave less does.
_WAVES, _FEWEST_WAVES = 4, 3


@dataclass(frozen=True)
class AmdResources:
    """What a kernel needs: registers by kind, bytes of scratch memory, spilled registers, lanes of a wavefront.

    Registers and scratch memory are the most that the kernel or anything it calls needs, spilled registers the kernel's
    own: what a function spills or saves shows in the scratch memory.
    """

    vgprs: int
    sgprs: int
    scratch: int
    vgpr_spills: int
    sgpr_spills: int
    wavefront: int


class HipTarget:
    """Translates for one architecture. `wavefront` is 32 or 64; None: the architecture's own."""

    links = True

    def __init__(self, architecture: str, wavefront: int | None = None) -> None:
        self.architecture = architecture
        self.features = "" if wavefront is None else f"+wavefrontsize{wavefront}"
        self.identity: tuple[str, ...] = ("hip", architecture, self.features, f"llvmlite {llvmlite_version()}")

    # -- DeviceTarget

    def compile_interpreter(self, registers: RegisterFile, keys: Sequence[TemplateKey], name: str) -> bytes:
        return _image(lambda module: emit_interpreter_function(registers, list(keys), module, name, take_turns))

    def compile_region(
        self,
        region: Region,
        registers: RegisterFile,
        windows: DeviceWindowPlan,
        name: str,
        locations: GuestLocations | None = None,
    ) -> bytes:
        return _image(lambda module: emit_region(module, region, registers, windows, name, locations))

    def compile_kernel(self, registers: RegisterFile, interpreter: str, regions: Sequence[str], name: str) -> bytes:
        return _image(lambda module: _emit_kernel(module, registers, interpreter, regions, name))

    def link(self, images: Sequence[bytes], registers: RegisterFile) -> list[bytes]:
        """One code object (.hsaco) of a kernel and all it calls. Raises `CompileError`, or `DeviceMissingError`."""
        return [link(self.object_file(images))]

    def report(self, linked: Sequence[bytes]) -> dict[str, int]:
        (image,) = linked
        return asdict(resources_of_code(image))

    @lru_cache(maxsize=4)
    def copy_kernel(self, name: str) -> list[bytes]:
        """What `Device.load` takes for GATHER or SCATTER."""
        return [link(self.object_file([_copy_image(name)]))]

    def copy_assembly(self, name: str) -> str:
        """GATHER or SCATTER as assembly."""
        return self.assembly([_copy_image(name)])

    # -- machine code

    def assembly(self, images: Sequence[bytes]) -> str:
        """The images as one module of assembly."""
        return self._emitted(images, lambda machine, module: str(machine.emit_assembly(module)), resources)

    def function_assembly(self, image: bytes) -> str:
        """One device function as assembly, for reading: as it is compiled beside a kernel, but for what it inlines."""
        module, machine = self._module([image], _WAVES, keep=True)
        machine.set_asm_verbosity(True)
        text = str(machine.emit_assembly(module))
        machine.set_asm_verbosity(False)  # others share it
        return text

    def object_file(self, images: Sequence[bytes]) -> bytes:
        """The images as one relocatable object."""
        return self._emitted(images, lambda machine, module: bytes(machine.emit_object(module)), resources_of_code)

    def _emitted(
        self, images: Sequence[bytes], emit: Callable[[Any, Any], Code], needs: Callable[[Code], AmdResources]
    ) -> Code:
        """Code for as many waves as can be without spilled registers."""
        for waves in range(_WAVES, _FEWEST_WAVES - 1, -1):
            module, machine = self._module(images, waves)
            found = emit(machine, module)
            if not needs(found).vgpr_spills:
                break
        return found

    def _module(self, images: Sequence[bytes], waves: int, *, keep: bool = False) -> tuple[Any, Any]:
        """One optimised module of all images, for so many waves at least. `keep`: functions that no kernel calls too.

        A kernel's descriptor says what it and all it calls need of registers and scratch memory, and LLVM knows that
        only of functions in the same module: the interpreter cannot be an object that is compiled once.
        """
        machine = _machine(self.architecture, self.features)
        header = f'target triple = "{TRIPLE}"\ntarget datalayout = "{machine.target_data}"\n'
        try:
            first = llvm.parse_assembly(header + _CODE_OBJECT)
            for image in images:
                text = image.decode().replace(_attribute(_WAVES), _attribute(waves))
                first.link_in(llvm.parse_assembly(header + text))
            for function in first.functions:
                if not keep and not function.is_declaration and "amdgpu_kernel" not in str(function).partition("(")[0]:
                    function.linkage = "internal"
            first.verify()
        except RuntimeError as error:
            raise CompileError(
                f"LLVM refused a module for {self.architecture}: {error}", log=str(error), ir=""
            ) from error
        builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
        builder.getModulePassManager().run(first, builder)
        return first, machine


@lru_cache(maxsize=16)
def _machine(architecture: str, features: str) -> Any:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple(TRIPLE)
    return target.create_target_machine(cpu=architecture, features=features, opt=2, reloc="pic", codemodel="small")


def _image(emit: Callable[[Any], Any]) -> bytes:
    """A module's IR without stack slots, whose address space is another on AMD: they become SSA values here."""
    module = ir.Module(name="device")
    emit(module)
    try:
        parsed = llvm.parse_assembly(str(module))
        parsed.verify()
    except RuntimeError as error:
        raise CompileError(f"LLVM refused a module: {error}", log=str(error), ir=str(module)) from error
    passes = llvm.create_new_module_pass_manager()
    passes.add_sroa_pass()
    passes.run(parsed, _host_pass_builder())
    text = re.sub(r"^target (?:triple|datalayout) = .*\n", "", str(parsed), flags=re.MULTILINE)
    # Without the size of its groups LLVM takes a kernel to have 1,024 work items, and fewer registers to be there.
    size = f"{THREADS_PER_BLOCK},{THREADS_PER_BLOCK}"
    attributes = f'"amdgpu-flat-work-group-size"="{size}" {_attribute(_WAVES)}'
    text = re.sub(r"^(attributes #\d+ = \{.* nounwind )", rf"\1{attributes} ", text, flags=re.MULTILINE)
    return text.encode()


def _attribute(waves: int) -> str:
    return f'"amdgpu-waves-per-eu"="{waves}"'


@lru_cache(maxsize=1)
def _host_pass_builder() -> Any:
    llvm.initialize_native_target()
    machine = llvm.Target.from_default_triple().create_target_machine()
    return llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))


def emit_region(
    module: Any,
    region: Region,
    registers: RegisterFile,
    windows: DeviceWindowPlan,
    name: str,
    locations: GuestLocations | None = None,
) -> None:
    """Define the region as an LLVM function whose registers are in the lane's frame."""
    function = ir.Function(module, REGION_TYPE, name)
    # In the kernel it would cost every lane's registers while another one runs.
    for attribute in ("noinline", "nounwind"):
        function.attributes.add(attribute)
    b = ir.IRBuilder(function.append_basic_block("entry"))
    # Several iterations in a row take registers that AMD's compilers have too few of, and twice the time to compile.
    body = DeviceRegion(region, registers, windows, b, function.args, unroll=False, locations=locations)
    rows = {
        cell: b.inttoptr(
            b.add(function.args[0], ir.Constant(I64, register_offset(i, registers.storage.bits))),
            ir.PointerType(body.cell_type(i), 1),
        )
        for i, cell in body.cells.items()
    }
    b.ret(body.emit())
    one_head = len(region.blocks) > _LARGE or llvm.llvm_version_info[0] < _LLVM_WITH_ANY_LOOPS
    if one_head and has_loops_of_several_heads(function):
        go_through_one_head(function, body.starts.values())
    keep_registers_in_memory(function, rows)


def _emit_kernel(module: Any, registers: RegisterFile, interpreter: str, regions: Sequence[str], name: str) -> None:
    """`name(machine)`: one work item, one lane."""
    interpret = ir.Function(module, INTERPRETER_TYPE, interpreter)
    functions = [ir.Function(module, REGION_TYPE, region) for region in regions]
    b, machine, lane = _kernel(module, name)
    emit_run_lane(
        b,
        machine,
        lane,
        registers=registers,
        interpret=interpret,
        regions=functions,
    )
    b.ret_void()


def _copy_image(name: str) -> bytes:
    return _image(lambda module: _emit_copy(module, name))


def _emit_copy(module: Any, name: str) -> None:
    """`name(block)`: one work item, one byte. The block: memory, offsets, data, count, 64 bits each."""
    b, block, i = _kernel(module, name)
    memory, offsets, data, count = (load_global(b, block, offset=8 * k) for k in range(4))
    with b.if_then(b.icmp_unsigned("<", i, count)):
        place = b.add(memory, load_global(b, b.add(offsets, b.mul(i, ir.Constant(I64, 8)))))
        source, target = (place, b.add(data, i)) if name == GATHER else (b.add(data, i), place)
        store_global(b, load_global(b, source, I8), target)
    b.ret_void()


def _kernel(module: Any, name: str) -> tuple[Any, Any, Any]:
    """(builder in it, its argument, the number of the work item) of a kernel with one 64-bit argument."""
    kernel = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64]), name)
    kernel.calling_convention = "amdgpu_kernel"
    kernel.attributes.add("nounwind")
    b = ir.IRBuilder(kernel.append_basic_block("entry"))
    group, item = (
        b.zext(b.call(ir.Function(module, ir.FunctionType(I32, []), f"llvm.amdgcn.{which}.id.x"), []), I64)
        for which in ("workgroup", "workitem")
    )
    return b, kernel.args[0], b.add(b.mul(group, ir.Constant(I64, THREADS_PER_BLOCK)), item)


_FUNCTION_RESOURCES = {"VGPRs": "num_vgpr", "SGPRs": "numbered_sgpr", "scratch, bytes": "private_seg_size"}
"""Words for readers and the symbols of a function's assembly."""


def function_resources(assembly: str, function: str) -> dict[str, int]:
    """What a function's assembly says it needs, by words for readers; less where LLVM does not say."""
    found = {}
    for what, symbol in _FUNCTION_RESOURCES.items():
        number = re.search(rf"^\s*\.set {function}\.{symbol}, (\d+)", assembly, re.MULTILINE)
        if number:
            found[what] = int(number[1])
    return found


_RESOURCES = {
    "vgprs": "vgpr_count",
    "sgprs": "sgpr_count",
    "scratch": "private_segment_fixed_size",
    "vgpr_spills": "vgpr_spill_count",
    "sgpr_spills": "sgpr_spill_count",
    "wavefront": "wavefront_size",
}
"""Our names and those of a kernel's metadata."""


def resources(assembly: str) -> AmdResources:
    """What the metadata of a kernel's assembly says it needs."""

    def number(key: str) -> int:
        found = re.search(rf"^\s*\.{key}:\s*(\d+)", assembly, re.MULTILINE)
        return int(found[1]) if found else 0

    return AmdResources(**{name: number(key) for name, key in _RESOURCES.items()})


def resources_of_code(image: bytes) -> AmdResources:
    """The same from an object or a code object, whose note has the metadata as MessagePack: a key, then its number."""

    def number(key: str) -> int:
        _, found, behind = image.partition(f".{key}".encode())
        if not found:
            return 0
        size = {0xCC: 1, 0xCD: 2, 0xCE: 4}.get(behind[0], 0)  # unsigned of 8, 16 and 32 bits; else the byte itself
        return int.from_bytes(behind[1 : 1 + size], "big") if size else behind[0]

    return AmdResources(**{name: number(key) for name, key in _RESOURCES.items()})


def link(object_file: bytes) -> bytes:
    """An object as a code object that a driver loads (.hsaco). Raises `DeviceMissingError` without a linker."""
    with tempfile.TemporaryDirectory(prefix="vmjit-") as folder:
        source, result = Path(folder, "code.o"), Path(folder, "code.hsaco")
        source.write_bytes(object_file)
        done = subprocess.run(
            [*_linker(), "-shared", str(source), "-o", str(result)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise CompileError("the linker refused an AMD object", log=done.stderr, ir="")
        return result.read_bytes()


def _linker() -> list[str]:
    """LLVM's linker: from PyPI, the system's or ROCm's."""
    if find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "ld.lld"]
    rocm = Path(os.environ.get("ROCM_PATH", "/opt/rocm"), "llvm", "bin")
    found = shutil.which("ld.lld") or shutil.which("ld.lld", path=str(rocm))
    if found is None:
        raise DeviceMissingError(
            'no linker for AMD code objects; install one with: pip install "vmjit[rocm-offline]"', device="hip"
        )
    return [found]
