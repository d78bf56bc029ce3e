"""Running launches on NumPy: wave after wave of thread blocks, translated blocks kept for the next launch."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from types import CodeType, TracebackType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from vmjit.ptx.assembly.blocks import Block
from vmjit.ptx.assembly.syntax import Function
from vmjit.ptx.errors import LaneFault, PtxUnsupported
from vmjit.ptx.image import MAX_CALL_DEPTH, Image
from vmjit.ptx.launch import Launch, LaunchStatistics
from vmjit.ptx.simt import numpy_atomic, numpy_float, numpy_integer, warp
from vmjit.ptx.simt.activation import Activation, Transfer
from vmjit.ptx.simt.codegen import BlockCode, Constants
from vmjit.ptx.simt.codegen_control import end_block
from vmjit.ptx.simt.opcodes import OPCODES
from vmjit.ptx.simt.wave import Counts, Wave

Run = Callable[[Activation, Any], Transfer]

_NAMES = {
    "np": np,
    "integer": numpy_integer,
    "floating": numpy_float,
    "atomic": numpy_atomic,
    "warp": warp,
    "LaneFault": LaneFault,
}


_PYTHON_FRAMES_OF_A_CALL = 8


@contextlib.contextmanager
def _room_for_calls() -> Iterator[None]:
    """Lets calls nest as deep as the image allows: each is some calls of Python's."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(before + MAX_CALL_DEPTH * _PYTHON_FRAMES_OF_A_CALL)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


class CompiledBlock:
    """A block that is translated when lanes first come to it. `run` executes it for an activation's lanes."""

    __slots__ = ("_block", "_code", "_engine", "_function", "_lines", "run")

    def __init__(self, engine: SimtEngine, function: Function, block: Block) -> None:
        self._engine, self._function, self._block = engine, function, block
        self._code: CodeType | None = None
        self._lines: list[int] = []
        self.run: Run = self._translate_and_run

    def _translate_and_run(self, activation: Activation, lanes: Any) -> Transfer:
        image, constants = self._engine.image, self._engine.constants
        writer = BlockCode(image, constants, self._function, image.flow(self._function), self._block)
        source, self._lines = writer.build(OPCODES, end_block)
        exec(compile(source, f"<ptx {self._function.name[:60]} block {self._block.index}>", "exec"), constants.names)
        self.run = cast(Run, constants.names.pop("block"))
        self._code = self.run.__code__
        return self.run(activation, lanes)

    def line_of(self, traceback: TracebackType | None) -> int:
        """The PTX line that was executed when an exception was raised."""
        while traceback is not None:
            if traceback.tb_frame.f_code is self._code:
                return self._lines[traceback.tb_lineno - 1]
            traceback = traceback.tb_next
        return self._block.instructions[0].line


class SimtEngine:
    """Runs kernels of one image. `printed` collects what they print: format and number of threads of each call."""

    name = "simt"

    def __init__(self, image: Image) -> None:
        self.image = image
        self.constants = Constants(_NAMES)
        self.printed: list[tuple[bytes, int]] = []
        self._blocks: dict[int, list[CompiledBlock]] = {}

    def blocks_of(self, function: Function) -> list[CompiledBlock]:
        found = self._blocks.get(function.number)
        if found is None:
            found = [CompiledBlock(self, function, block) for block in self.image.flow(function).blocks]
            self._blocks[function.number] = found
        return found

    def run(self, launch: Launch) -> LaunchStatistics:
        """Runs a launch. Raises `PtxFault`, and `PtxUnsupported` when it comes to what this engine does not do."""
        counts = Counts(self.image)
        blocks_at_once = max(1, launch.max_lanes // launch.threads)
        with np.errstate(all="ignore"), _room_for_calls():
            for first in range(0, launch.blocks, blocks_at_once):
                with self.image.memory.temporary():
                    end = min(launch.blocks, first + blocks_at_once)
                    Activation(self, launch.function, Wave(self.image, launch, counts, first, end)).run()
        warp_instructions, by_opcode = counts.totals()
        seconds = time.monotonic() - launch.started
        return LaunchStatistics(counts.thread_instructions, warp_instructions, by_opcode, seconds, self.name)

    def call_external(
        self, function: Function, lanes: int, arguments: list[NDArray[np.uint8]]
    ) -> list[NDArray[np.uint8]]:
        """The functions that a device has without their being defined. Raises `LaneFault`, `PtxUnsupported`."""
        if function.name == "vprintf":
            self.printed.append((self._text(arguments[0]), lanes))
            return [np.zeros((lanes, 4), np.uint8)]
        if function.name == "__assertfail":
            raise LaneFault(f"assertion failed: {self._text(arguments[0]).decode(errors='replace')}")
        raise PtxUnsupported(f"call of {function.name}, which is declared and defined nowhere")

    def _text(self, pointers: NDArray[np.uint8]) -> bytes:
        """The text that the first lane's pointer points to."""
        return self.image.memory.read_text(int(pointers[:1].copy().view(np.uint64)[0, 0]))
