"""CUDA: device functions and kernels as Numba `@cuda.jit` code whose bodies are emitted LLVM IR.

A Python function of one line calls an `@intrinsic`, and the intrinsic emits the body through the same lowering table as
every other target; Numba's CUDA compiler and NVVM make PTX of it. Each part is compiled for itself and linked by
name. Works with no GPU and no driver.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import metadata
from typing import Any

from llvmlite import ir
from numba import cuda, types
from numba.extending import intrinsic

from vmjit.errors import CompileError, DeviceMissingError
from vmjit.ir.registers import RegisterFile
from vmjit.kernels import device_copy
from vmjit.kernels.device_lanes import emit_run_lane
from vmjit.kernels.device_memory import I64
from vmjit.translators import cuda_tools
from vmjit.translators.device_interpreter import INTERPRETER_TYPE, DeviceInterpreter
from vmjit.translators.device_region import REGION_TYPE, DeviceRegion, DeviceWindowPlan
from vmjit.translators.guest_locations import GuestLocations
from vmjit.translators.interpreter import TemplateKey
from vmjit.translators.ptx_text import merge
from vmjit.translators.regions import Region

Emit = Callable[[Any, Sequence[Any]], Any]

_ADDRESS, _COUNT = types.uint64, types.int64
_REGION = types.int64(_ADDRESS, _ADDRESS, _ADDRESS, _ADDRESS, _COUNT, types.int32)
_INTERPRETER = types.int64(_ADDRESS, _ADDRESS, _ADDRESS, _ADDRESS, _COUNT)

# Registers a thread may have, by the guest's width: a multiprocessor's 65,536 then hold 21 or 16 warps. Without a bound
# it is 100 to 105 for rv32 and 92 to 148 for rv64, by architecture, most of it the interpreter's.
MAX_REGISTERS = {32: 96, 64: 128}

_ENTRY = re.compile(rb"\.entry\s+([\w$]+)")
_HEAD = re.compile(rb"\.entry\s+[\w$]+\s*\([^)]*\)")

_BYTES, _WORDS = types.Array(types.uint8, 1, "C"), types.Array(types.uint64, 1, "C")
_COPY_KERNELS = {
    "vmjit_gather": (device_copy.vmjit_gather, (_BYTES, _WORDS, _BYTES)),
    "vmjit_scatter": (device_copy.vmjit_scatter, (_BYTES, _WORDS, _BYTES)),
    "vmjit_fill": (device_copy.vmjit_fill, (_WORDS, _WORDS, _COUNT, _COUNT, _COUNT)),
}


class PtxTarget:
    """Images are PTX texts for one architecture, such as sm_90; they are linked where they are loaded.

    Raises ImportError where the compiler is missing.
    """

    links = False

    def __init__(self, architecture: str = "sm_90") -> None:
        self.architecture = architecture
        number = int(architecture.removeprefix("sm_"))
        self.capability = (number // 10, number % 10)
        self.identity: tuple[str, ...] = ("cuda", architecture, numba_cuda_version(), nvvm_version())

    def compile_interpreter(self, registers: RegisterFile, keys: Sequence[TemplateKey], name: str) -> bytes:
        def emit(b: Any, args: Sequence[Any]) -> Any:
            return DeviceInterpreter(registers, list(keys), b, args).emit()

        return self._device_function(emit, _INTERPRETER, name)

    def compile_region(
        self,
        region: Region,
        registers: RegisterFile,
        windows: DeviceWindowPlan,
        name: str,
        locations: GuestLocations | None = None,
    ) -> bytes:
        def emit(b: Any, args: Sequence[Any]) -> Any:
            return DeviceRegion(region, registers, windows, b, args, locations=locations).emit()

        return self._device_function(emit, _REGION, name, located=locations is not None)

    def compile_kernel(self, registers: RegisterFile, interpreter: str, regions: Sequence[str], name: str) -> bytes:
        modules: list[Any] = []
        kernel = lanes_kernel(registers, interpreter, regions, modules)
        text = self._kernel(kernel, types.void(_ADDRESS), name, modules)
        # In the text, the bound holds for ptxas and for the driver's compiler, and for all functions that are called.
        bound = b"\n.maxnreg %d" % MAX_REGISTERS[registers.type.bits]
        return _HEAD.sub(lambda head: head.group(0) + bound, text)

    def copy_kernel(self, name: str) -> bytes:
        """A kernel of `kernels/device_copy.py` by its name, linked."""
        function, arguments = _COPY_KERNELS[name]
        (image,) = self._linked([self._kernel(function, types.void(*arguments), name, [])])
        return image

    def link(self, images: Sequence[bytes], registers: RegisterFile) -> list[bytes]:
        return self._linked(images)

    def report(self, linked: Sequence[bytes]) -> dict[str, int]:
        """What ptxas said that linked code needs (`cuda_tools.Resources`); empty where it was not asked."""
        return {}

    def _linked(self, images: Sequence[bytes]) -> list[bytes]:
        return list(images)

    def _kernel(self, function: Any, signature: Any, name: str, modules: list[Any]) -> bytes:
        text = self._compile(function, signature, name, modules, device=False)
        # Numba names kernels by its own rules, and there is one in the text.
        (given,) = _ENTRY.findall(text)
        return text.replace(given, name.encode())

    def _device_function(self, emit: Emit, signature: Any, name: str, *, located: bool = False) -> bytes:
        modules: list[Any] = []

        def emit_noted(b: Any, args: Sequence[Any]) -> Any:
            modules.append(b.module)
            return emit(b, args)

        function = _function(emit_noted, signature)
        return self._compile(function, signature, name, modules, device=True, located=located)

    def _compile(
        self,
        function: Any,
        signature: Any,
        name: str,
        modules: list[Any],
        *,
        device: bool,
        located: bool = False,
    ) -> bytes:
        """`modules`: where the IR that is emitted while compiling is to be found, for the error. `located`: whether the
        PTX shall tell the debug locations of what it was made of."""
        try:
            ptx, _ = cuda.compile(
                function,
                signature,
                device=device,
                abi="c" if device else "numba",
                abi_info={"abi_name": name} if device else None,
                cc=self.capability,
                output="ptx",
                lineinfo=located,
            )
        except Exception as error:  # NVVM and Numba have many ways of saying no
            raise CompileError(
                f"{name} cannot be compiled for {self.architecture}: {error}",
                log=str(error),
                ir="\n".join(map(str, modules)),
            ) from error
        text: bytes = ptx.encode() if isinstance(ptx, str) else bytes(ptx)
        return text


class CudaTarget(PtxTarget):
    """Links to machine code with ptxas, for GPUs of the architecture's generation.

    Where ptxas is not installed, or with `machine_code=False`, it links to one PTX text for the driver's own compiler.
    """

    links = True

    def __init__(self, architecture: str = "sm_90", *, machine_code: bool = True) -> None:
        super().__init__(architecture)
        self.assembler = ""
        if machine_code:
            with contextlib.suppress(DeviceMissingError):
                self.assembler = cuda_tools.ptxas_version()
        self.identity = (*self.identity, self.assembler or "linked by the driver")
        self._needs: dict[bytes, cuda_tools.Resources] = {}

    def _linked(self, images: Sequence[bytes]) -> list[bytes]:
        # A kernel comes before what it calls, and PTX wants it behind that.
        try:
            text = merge([image.decode() for image in reversed(images)])
        except ValueError as error:
            raise CompileError(f"PTX for {self.architecture} cannot be linked: {error}", log="", ir="") from error
        if not self.assembler:
            return [text.encode()]
        cubin, needs = cuda_tools.assemble(text, self.architecture)
        self._needs[hashlib.sha256(cubin).digest()] = needs
        return [cubin]

    def report(self, linked: Sequence[bytes]) -> dict[str, int]:
        found = [self._needs.get(hashlib.sha256(image).digest()) for image in linked]
        return {name: value for needs in found if needs is not None for name, value in asdict(needs).items()}


def _body(emit: Emit, signature: Any) -> Any:
    """An intrinsic of the signature's arguments whose code is what `emit` writes."""

    def generate(context: Any, builder: Any, given: Any, args: Sequence[Any]) -> Any:
        return emit(builder, args)

    if len(signature.args) == 6:

        @intrinsic
        def region(typing: Any, registers: Any, fields: Any, memory: Any, machine: Any, left: Any, entry: Any) -> Any:
            return signature, generate

        return region

    @intrinsic
    def interpreter(typing: Any, registers: Any, fields: Any, memory: Any, machine: Any, left: Any) -> Any:
        return signature, generate

    return interpreter


def _function(emit: Emit, signature: Any) -> Any:
    """The device function that Numba compiles."""
    body = _body(emit, signature)
    if len(signature.args) == 6:

        def region(registers: Any, fields: Any, memory: Any, machine: Any, left: Any, entry: Any) -> Any:
            return body(registers, fields, memory, machine, left, entry)

        return region

    def interpret(registers: Any, fields: Any, memory: Any, machine: Any, left: Any) -> Any:
        return body(registers, fields, memory, machine, left)

    return interpret


def lanes_kernel(
    registers: RegisterFile, interpreter: str, regions: Sequence[str], modules: list[Any] | None = None
) -> Any:
    """The kernel as a Python function for `@cuda.jit`: one thread, one lane. Its argument is the machine block.

    When it is compiled, the LLVM module that it is emitted into joins `modules`.
    """
    names = tuple(regions)

    def generate(context: Any, builder: Any, given: Any, args: Sequence[Any]) -> Any:
        if modules is not None:
            modules.append(builder.module)
        interpret = ir.Function(builder.module, INTERPRETER_TYPE, interpreter)
        functions = [ir.Function(builder.module, REGION_TYPE, name) for name in names]
        machine, lane = args
        emit_run_lane(
            builder,
            machine,
            lane,
            registers=registers,
            interpret=interpret,
            regions=functions,
        )
        return ir.Constant(I64, 0)

    @intrinsic
    def run_lane(typing: Any, machine: Any, lane: Any) -> Any:
        return types.int64(_ADDRESS, types.uint64), generate

    def vmjit_run_lanes(machine: Any) -> None:
        run_lane(machine, types.uint64(cuda.grid(1)))

    return vmjit_run_lanes


def closest_capability(capability: tuple[int, int]) -> tuple[int, int]:
    """The newest compute capability that can be compiled for and that a GPU of this one runs.

    Raises ImportError where NVIDIA's compiler is missing, ValueError for a GPU that is too old for it.
    """
    from cuda.bindings import nvrtc

    try:
        status, numbers = nvrtc.nvrtcGetSupportedArchs()
    except RuntimeError as error:
        raise ImportError(f"NVRTC cannot be loaded: {error}") from error
    if int(status):
        raise ImportError(f"NVRTC does not say what it compiles for: status {int(status)}")
    known = sorted(divmod(int(number), 10) for number in numbers)
    fitting = [one for one in known if one <= capability]
    if not fitting:
        has, wants = (".".join(map(str, c)) for c in (capability, known[0]))
        raise ValueError(
            f"compute capability {has} is too old for this compiler, which begins at {wants}; "
            'try an older one: pip install "vmjit[cuda12]"'
        )
    return fitting[-1]


def numba_cuda_version() -> str:
    """Raises ImportError where there is only the CUDA support that old releases of Numba brought themselves."""
    try:
        return f"numba-cuda {metadata.version('numba-cuda')}"
    except metadata.PackageNotFoundError:
        raise ImportError("numba-cuda is not installed") from None


def nvvm_version() -> str:
    """The version of NVVM that makes PTX. Raises ImportError where there is none."""
    from numba.cuda.cudadrv.nvvm import NVVM

    try:
        return "nvvm " + ".".join(map(str, NVVM().get_version()))
    except Exception as error:  # Numba raises its own, by release
        raise ImportError(f"NVVM cannot be loaded: {error}") from error
