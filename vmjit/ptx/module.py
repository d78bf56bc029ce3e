"""What users of the PTX machine meet: modules, and launching their kernels."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vmjit.errors import ArgumentError
from vmjit.ptx.arguments import pack
from vmjit.ptx.assembly.linker import link
from vmjit.ptx.assembly.parser import parse
from vmjit.ptx.assembly.syntax import Function
from vmjit.ptx.errors import PtxError, PtxUnsupported
from vmjit.ptx.image import Image
from vmjit.ptx.launch import Dim3, Launch, LaunchStatistics
from vmjit.ptx.memory import DeviceMemory, Segment
from vmjit.ptx.simt.engine import SimtEngine

if TYPE_CHECKING:
    from vmjit.ptx.thread.engine import ThreadEngine

ENGINES = ("auto", "simt", "thread")
MAX_THREADS = 1024  # of a block, on every device (CUDA C++ Programming Guide, "Compute Capabilities")

DEFAULT_BUDGET = 10**12


class Module:
    """PTX of one or several texts, linked and ready to be launched.

    `texts`: one PTX text, or several whose `.extern` declarations and `.visible` definitions belong together.
    `memory`: the device memory its kernels reach; several modules may share one, and arrays registered there stay
    between launches. `poison`: the byte that fresh local and shared memory is filled with. `budget`: thread
    instructions after which a launch is stopped, for launches that name none. `jit_opt`: LLVM's optimization level for
    the thread engine, 0 to 3; None takes 1, and 0 for kernels of 500 instructions and more, which then compile five to
    ten times faster and run two to five times slower.

    Raises `PtxError` and `PtxUnsupported` for texts that cannot be read or linked; both name the line. Its variables
    leave the memory with `close`, or when the module is gone. A module is for one thread at a time.
    """

    def __init__(
        self,
        texts: str | Sequence[str],
        *,
        memory: DeviceMemory | None = None,
        poison: int = 0xCB,
        budget: int = DEFAULT_BUDGET,
        jit_opt: int | None = None,
    ) -> None:
        texts = [texts] if isinstance(texts, str) else list(texts)
        if jit_opt not in (None, 0, 1, 2, 3):
            raise ArgumentError(f"jit_opt is 0 to 3 or None, not {jit_opt!r}")
        sources = [f"text {k}" if len(texts) > 1 else "" for k in range(1, len(texts) + 1)]
        units = [parse(text, source) for text, source in zip(texts, sources, strict=True)]
        self.version = units[0].version if units else ""
        self.target = units[0].target if units else ""
        self.memory = DeviceMemory() if memory is None else memory
        self.budget = budget
        self._image = Image(link(units), self.memory, poison)
        self._finalizer = weakref.finalize(self, self._image.remove)
        self._jit_opt = jit_opt
        self._simt = SimtEngine(self._image)
        self._thread: ThreadEngine | None = None

    @property
    def entries(self) -> list[str]:
        """The names of the kernels."""
        return [function.name for function in self._image.functions if function.is_entry]

    @property
    def printed(self) -> list[tuple[bytes, int]]:
        """What kernels printed with the SIMT engine: format and number of threads of each call, not formatted."""
        return self._simt.printed

    def variable(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a global or constant variable, to read and to set. Raises `ArgumentError` for no such one."""
        segment: Segment | None = self._image.segments.get(name)
        if segment is None:
            raise ArgumentError(f"no variable {name!r}; there is: {', '.join(self._image.segments) or 'none'}")
        return segment.bytes

    def address_of(self, name: str) -> int:
        """The address of a global or constant variable, or of a function."""
        function = self._image.program.functions.get(name)
        if function is not None:
            return self._image.function_address(function)
        return int(self.variable(name).ctypes.data)

    def close(self) -> None:
        """Takes the module's variables out of the memory. It cannot be launched afterwards."""
        self._finalizer()

    def launch(
        self,
        kernel: str | None,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        args: Sequence[Any] = (),
        shared: int = 0,
        engine: str = "auto",
        mem: Iterable[NDArray[Any]] = (),
        *,
        budget: int | None = None,
        seconds: float | None = None,
        max_lanes: int = 1 << 17,
    ) -> LaunchStatistics:
        """Runs a kernel to its end.

        `kernel`: its name, a part of it that no other kernel has, or None for the only one. `grid` and `block`: up to
        three sizes. `args`: arrays (passed as Numba passes them: seven values and more), `Ptr(array)`, numbers, bytes
        of structures, tuples of these; an address is a number. `shared`: bytes of dynamic shared memory. `engine`: see
        the package; "auto" is the thread engine, or the SIMT engine for what that cannot do. `mem`: arrays that the
        kernel may reach besides its arguments and what is registered in `memory`. `budget`: thread instructions.
        `seconds`: a limit on the wall clock, compilation not counted by the thread engine; both engines look at it
        where control may loop. `max_lanes`: threads that the SIMT engine runs at once; whole blocks, one at least.

        Raises `PtxFault` for what a device would not survive, with line and thread, or for an exceeded limit; what the
        kernel had stored by then stays stored. Raises `PtxUnsupported` for what the engine does not execute, and
        `ArgumentError` or `PtxError` for a launch that makes no sense.
        """
        if engine not in ENGINES:
            raise ArgumentError(f"no engine {engine!r}; there is: {', '.join(ENGINES)}")
        if not self._finalizer.alive:
            raise PtxError("the module is closed")
        function = self._kernel(kernel)
        grid, block = _sizes(grid, "grid"), _sizes(block, "block")
        _check_block(function, block)
        if shared < 0:
            raise ArgumentError(f"{shared} bytes of shared memory")
        parameters, arrays = pack(function, args)
        launch = Launch(
            function,
            grid,
            block,
            parameters,
            shared,
            self.budget if budget is None else budget,
            seconds,
            max_lanes,
        )
        with self.memory.temporary():
            for array in (*arrays, *mem):
                self.memory.add(array)
            self.memory.insert(Segment(parameters, "kernel parameters", space="param", writable=False))
            return self._run(launch, engine)

    def _run(self, launch: Launch, engine: str) -> LaunchStatistics:
        if engine != "simt":
            try:
                from vmjit.ptx.thread.engine import ThreadEngine  # imports llvmlite

                if self._thread is None:
                    self._thread = ThreadEngine(self._image, self._jit_opt)
                kernel = self._thread.kernel(launch.function)
            except (PtxUnsupported, ImportError):
                if engine == "thread":
                    raise
            else:
                return self._thread.run(kernel, launch)
        return self._simt.run(launch)

    def _kernel(self, name: str | None) -> Function:
        functions = {f.name: f for f in self._image.functions if f.is_entry and f.has_body}
        if name is not None and name in functions:
            return functions[name]
        matching = [f for f in functions.values() if name is None or name in f.name]
        if len(matching) != 1:
            kind = "no kernel" if not matching else "more than one kernel"
            raise PtxError(f"{kind} {'' if name is None else repr(name)}; entries: {', '.join(functions) or 'none'}")
        return matching[0]


def _sizes(sizes: int | Sequence[int], what: str) -> Dim3:
    given = tuple(int(size) for size in sizes) if isinstance(sizes, Iterable) else (int(sizes),)
    if not 1 <= len(given) <= 3 or min(given) < 1:
        raise ArgumentError(f"a {what} has one to three positive sizes, not {sizes!r}")
    x, y, z = (*given, 1, 1)[:3]
    return x, y, z


def _check_block(function: Function, block: Dim3) -> None:
    threads = block[0] * block[1] * block[2]
    if threads > MAX_THREADS:
        raise ArgumentError(f"a block of {threads} threads; devices take up to {MAX_THREADS}")
    required = (*function.required_threads, 1, 1)[:3]
    if function.required_threads and block != required:
        raise PtxError(f"{function.name} requires blocks of {required} threads (.reqntid), not {block}")
    most = int(np.prod(function.max_threads or (MAX_THREADS,)))
    if threads > most:
        raise PtxError(f"{function.name} takes blocks of up to {most} threads (.maxntid), not {threads}")
