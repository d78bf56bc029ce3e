"""The CPU target: LLVM IR to machine code of this host or another CPU, and machine code to callable addresses."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from enum import Enum
from functools import lru_cache
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from vmjit.errors import ArgumentError, CompileError

# llvmlite serialises its calls; this lock keeps the several calls of one compilation together.
_COMPILE_LOCK = threading.Lock()


def _tuning(cpu: str) -> str:
    """What LLVM does not know of a CPU, as features: Zen's SHLD takes six operations, shifts and an addition three."""
    return ",+slow-shld" if cpu.startswith("znver") else ""


class Effort(Enum):
    """How much is done for code: QUICK runs no passes and has registers allocated within blocks only."""

    QUICK = "quick"
    FULL = "full"


class CpuCompiler:
    """Compiles for one CPU, by LLVM's names of it and of its features; what it compiles is not loaded."""

    def __init__(self, triple: str, cpu: str, features: str) -> None:
        self.triple, self.cpu, self.features = triple, cpu, features
        self._machine = self._new_machine()
        self._quick_machine = self._new_machine(opt=0)
        self.identity = (triple, cpu, features, "llvm " + ".".join(map(str, llvm.llvm_version_info)))
        """What machine code depends on besides its IR: part of every cache key."""

    @classmethod
    def of(cls, triple: str, cpu: str, features: str = "") -> CpuCompiler:
        """For a CPU that need not be this computer's. Raises `ArgumentError` where LLVM has no such architecture."""
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        try:
            return cls(triple, cpu, features)
        except RuntimeError as error:
            raise ArgumentError(f"LLVM does not compile for {triple}: {error}") from error

    def _new_machine(self, opt: int = 2) -> Any:
        target = llvm.Target.from_triple(self.triple)
        return target.create_target_machine(
            cpu=self.cpu, features=self.features, opt=opt, reloc="pic", codemodel="small"
        )

    def _parsed(self, text: str) -> Any:
        try:
            module = llvm.parse_assembly(text)
            module.verify()
        except RuntimeError as error:
            raise CompileError(f"LLVM refused a module: {error}", log=str(error), ir=text) from error
        return module

    def _optimised(self, text: str) -> Any:
        module = self._parsed(text)
        builder = llvm.create_pass_builder(self._machine, llvm.create_pipeline_tuning_options(speed_level=2))
        builder.getModulePassManager().run(module, builder)
        return module

    def compile(self, text: str, effort: Effort = Effort.FULL) -> bytes:
        """LLVM IR to an object file. Raises `CompileError`."""
        with _COMPILE_LOCK:
            if effort is Effort.QUICK:
                return bytes(self._quick_machine.emit_object(self._parsed(text)))
            return bytes(self._machine.emit_object(self._optimised(text)))

    def optimised_ir(self, text: str) -> str:
        with _COMPILE_LOCK:
            return str(self._optimised(text))

    def assembly(self, text: str, effort: Effort = Effort.FULL, *, notes: bool = False) -> str:
        """LLVM IR to the CPU's assembly, for reading; `notes` has LLVM say what it spills."""
        with _COMPILE_LOCK:
            if effort is Effort.QUICK:
                return self._assembly(self._quick_machine, self._parsed(text), notes)
            return self._assembly(self._machine, self._optimised(text), notes)

    def optimised_ir_and_assembly(self, text: str) -> tuple[str, str]:
        """LLVM IR as its passes leave it, and the CPU's assembly of that, with notes: read back, the text would get its
        registers in another order."""
        with _COMPILE_LOCK:
            module = self._optimised(text)
            return str(module), self._assembly(self._machine, module, notes=True)

    def _assembly(self, machine: Any, module: Any, notes: bool) -> str:
        machine.set_asm_verbosity(notes)
        return str(machine.emit_assembly(module))


class CpuTarget(CpuCompiler):
    """Compiles for the host's CPU and links into this process. One object a process: `cpu_target()`."""

    def __init__(self) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        cpu = llvm.get_host_cpu_name()
        super().__init__(llvm.get_default_triple(), cpu, llvm.get_host_cpu_features().flatten() + _tuning(cpu))
        # JITLink puts an object's sections side by side. The older linker lets the system choose a place for each, and
        # ends the process where lanes' memory has them more than 2 GiB apart.
        self._jit = llvm.create_lljit_compiler(self._new_machine(), use_jit_link=True)
        self._loaded = 0

    def load(self, image: bytes, symbols: tuple[str, ...]) -> LoadedCode:
        """Link an object file into this process."""
        return self.load_all([image], symbols)

    def load_all(self, images: Sequence[bytes], symbols: tuple[str, ...]) -> LoadedCode:
        """Link object files with each other and into this process."""
        with _COMPILE_LOCK:
            self._loaded += 1
            library = llvm.JITLibraryBuilder()
            for image in images:
                library.add_object_img(image)
            for symbol in symbols:
                library.export_symbol(symbol)
            try:
                tracker = library.link(self._jit, f"code{self._loaded}")
            except RuntimeError as error:
                raise CompileError(f"machine code cannot be loaded: {error}", log=str(error)) from error
        return LoadedCode(tracker, {s: int(tracker[s]) for s in symbols}, sum(map(len, images)))


class LoadedCode:
    """Machine code in this process. It stays while this object does."""

    def __init__(self, tracker: Any, addresses: dict[str, int], size: int) -> None:
        self._tracker = tracker
        self.addresses = addresses
        self.size = size


@lru_cache(maxsize=1)
def cpu_target() -> CpuTarget:
    return CpuTarget()


def llvmlite_version() -> str:
    return str(llvmlite.__version__)
