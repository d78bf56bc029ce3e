"""A kernel and what it calls, through LLVM to machine code."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm

from vmjit.errors import CompileError
from vmjit.ptx.assembly.syntax import Function
from vmjit.ptx.image import Image
from vmjit.ptx.thread.codegen import FunctionCode
from vmjit.ptx.thread.codegen_control import end_block
from vmjit.ptx.thread.driver import FIND_SEGMENT, driver
from vmjit.ptx.thread.opcodes import OPCODES

# From here on LLVM's first level of optimization takes longer than it saves in most launches: compiling 600
# instructions took 0.2 s instead of 1.1 s without it, 1,700 instructions 0.5 s instead of 6 s.
_MANY_INSTRUCTIONS = 500

_DRIVER = "drive"
_SIGNATURE = ctypes.CFUNCTYPE(
    ctypes.c_int64,
    ctypes.c_void_p,  # context
    ctypes.c_void_p,  # parameters
    ctypes.c_int64,  # first block
    ctypes.c_int64,  # end of blocks
    ctypes.c_void_p,  # frames
    ctypes.c_void_p,  # states
)
_INTRINSIC = re.compile(r"call (\w+) (@llvm\.[\w.]+)\(([^)]*)\)")


@dataclass(slots=True, eq=False)
class CompiledKernel:
    """Machine code that runs whole blocks of one kernel."""

    run: Callable[[int, int, int, int, int, int], int]
    keeps_alive: Any  # LLVM's engine, which owns the code
    has_barriers: bool
    frame_bytes: int  # of a thread, in a kernel with barriers
    sites: int  # accesses in the code
    local_bytes: int  # of one thread: its kernel and every function once
    has_calls: bool


class KernelCompiler:
    """Compiles one kernel; the functions it calls are found on the way."""

    def __init__(self, image: Image, kernel: Function, level: int | None) -> None:
        self._image, self._kernel, self._level = image, kernel, level
        self._found = [kernel]
        self._sites = 0

    def need(self, function: Function) -> None:
        """Asks for a function to be compiled too."""
        if function not in self._found:
            self._found.append(function)

    def new_site(self) -> int:
        """A number for an access in the code."""
        self._sites += 1
        return self._sites - 1

    def compile(self) -> CompiledKernel:
        """Raises `PtxUnsupported` for what the thread engine does not do."""
        writer = FunctionCode(self, self._image, self._kernel)
        functions = [writer.build(OPCODES, end_block)]
        for function in self._found:  # grows meanwhile
            if function is not self._kernel:
                functions.append(FunctionCode(self, self._image, function).build(OPCODES, end_block))
        text = "\n".join([*functions, FIND_SEGMENT, driver(_DRIVER, self._kernel, writer.frame_bytes)])
        engine = _machine_code(f"{text}\n{_declarations(text)}\n", self._optimization_level())
        return CompiledKernel(
            _SIGNATURE(engine.get_function_address(_DRIVER)),
            engine,
            writer.has_barriers,
            writer.frame_bytes,
            self._sites,
            sum(self._image.local_memory(function).bytes for function in self._found),
            len(self._found) > 1,
        )

    def _optimization_level(self) -> int:
        if self._level is not None:
            return self._level
        return 1 if sum(len(function.code) for function in self._found) < _MANY_INSTRUCTIONS else 0


def _declarations(text: str) -> str:
    """Declarations of the intrinsics that the text calls."""
    found = {}
    for result, name, arguments in _INTRINSIC.findall(text):
        if "memset" not in name:
            types = ", ".join(argument.split()[0] for argument in arguments.split(","))
            found[name] = f"declare {result} {name}({types})"
    return "\n".join(found.values())


def _machine_code(text: str, level: int) -> Any:
    """LLVM's engine with the optimized module. Level 0 does no more than make values of allocas."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    try:
        module = llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as error:
        raise CompileError(f"LLVM refused a kernel: {error}", log=str(error), ir=text) from error
    machine = llvm.Target.from_default_triple().create_target_machine(
        opt=level, cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten()
    )
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=level))
    if level:
        passes = builder.getModulePassManager()
    else:
        passes = llvm.create_new_module_pass_manager()
        passes.add_sroa_pass()
    passes.run(module, builder)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return engine
