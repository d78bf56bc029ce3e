"""Running launches with compiled kernels: memory for blocks and threads, the call, and what it says when it fails."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vmjit.ptx.assembly.syntax import Function
from vmjit.ptx.errors import PtxFault, PtxUnsupported
from vmjit.ptx.image import MAX_CALL_DEPTH, Image
from vmjit.ptx.launch import Launch, LaunchStatistics
from vmjit.ptx.memory import DeviceMemory, Segment, low_memory
from vmjit.ptx.thread.compiler import CompiledKernel, KernelCompiler
from vmjit.ptx.thread.context import Fault, Word

_ROOM_FOR_RECURSION = 1 << 18  # bytes of local memory


class ThreadEngine:
    """Runs kernels of one image, each compiled when it is first asked for."""

    name = "thread"

    def __init__(self, image: Image, level: int | None) -> None:
        self._image, self._level = image, level
        self._kernels: dict[int, CompiledKernel | PtxUnsupported] = {}
        self._scratch: dict[tuple[str, int], NDArray[np.uint8]] = {}

    def kernel(self, function: Function) -> CompiledKernel:
        """A kernel's code. Raises `PtxUnsupported`, also when asked again."""
        found = self._kernels.get(function.number)
        if found is None:
            try:
                found = KernelCompiler(self._image, function, self._level).compile()
            except PtxUnsupported as error:
                found = error
            self._kernels[function.number] = found
        if isinstance(found, PtxUnsupported):
            raise found.with_traceback(None)
        return found

    def run(self, kernel: CompiledKernel, launch: Launch) -> LaunchStatistics:
        """Runs a launch. Raises `PtxFault`."""
        memory = self._image.memory
        shared = self._image.shared_bytes + launch.dynamic_shared
        local = kernel.local_bytes
        if local and kernel.has_calls and not kernel.has_barriers:
            local = max(local, _ROOM_FOR_RECURSION)
        places = launch.threads if kernel.has_barriers else 1
        context = np.zeros(len(Word), np.int64)
        with memory.temporary():
            context[Word.SHARED] = self._scratch_memory(memory, "shared", shared)
            context[Word.LOCAL] = self._scratch_memory(memory, "local", local * places)
            segments = _table(memory)
            sites = np.zeros(2 * kernel.sites + 1, np.uint64)
            frames = np.zeros(kernel.frame_bytes * launch.threads + 1, np.uint8)
            states = np.zeros(launch.threads, np.int64)
            context[Word.SEGMENTS], context[Word.SEGMENT_COUNT] = segments.ctypes.data, len(memory.segments)
            context[Word.SITES] = sites.ctypes.data
            context[Word.BUDGET] = launch.budget
            context[Word.SHARED_BYTES], context[Word.DYNAMIC_SHARED] = shared, launch.dynamic_shared
            context[Word.LOCAL_STEP] = local if kernel.has_barriers else 0
            context[Word.LOCAL_SIZE], context[Word.LOCAL_BYTES] = local, local * places
            context[Word.POISON] = self._image.poison
            context[Word.NTID : Word.NTID + 3], context[Word.NCTAID : Word.NCTAID + 3] = launch.block, launch.grid
            with _time_limit(context, launch.seconds) as is_over:
                failed = kernel.run(
                    context.ctypes.data,
                    launch.parameters.ctypes.data,
                    0,
                    launch.blocks,
                    frames.ctypes.data,
                    states.ctypes.data,
                )
            if failed:
                raise self._fault(launch, context, is_over.is_set())
        return LaunchStatistics(int(context[Word.COUNT]), None, None, time.monotonic() - launch.started, self.name)

    def _scratch_memory(self, memory: DeviceMemory, space: str, size: int) -> int:
        """Registers memory that is filled anew for every block or thread; the same for every launch of one size."""
        if not size:
            return 0
        content = self._scratch.get((space, size))
        if content is None:
            content = self._scratch[space, size] = low_memory(size)
        return memory.insert(Segment(content, f"{space} memory", space=space)).base

    def _fault(self, launch: Launch, context: NDArray[np.int64], is_over: bool) -> PtxFault:
        function = self._image.functions[int(context[Word.FAULT_FUNCTION])]
        line = int(context[Word.FAULT_LINE])
        kind = Fault(int(context[Word.FAULT]))
        if kind == Fault.BUDGET:
            return launch.over_time(function, line) if is_over else launch.over_budget(function, line)
        address = int(context[Word.FAULT_ADDRESS]) & (2**64 - 1)
        size, store = divmod(int(context[Word.FAULT_SIZE]), 2)
        if kind == Fault.ACCESS:
            message = self._image.memory.explain(address, size, store=bool(store))
        else:
            message = _MESSAGES[kind].format(address=address)
        x, y, z = context[Word.THREAD : Word.THREAD + 3].tolist()
        block_x, block_y, block_z = context[Word.BLOCK : Word.BLOCK + 3].tolist()
        details = {"address": address} if kind in (Fault.ACCESS, Fault.CALL_TARGET) else {}
        return launch.fault(message, function, line, (x, y, z), (block_x, block_y, block_z), **details)


_MESSAGES = {
    Fault.LOCAL_MEMORY: "local memory exhausted",
    Fault.TRAP: "trap",
    Fault.BRANCH_TABLE: "brx.idx index {address} outside its targets",
    Fault.ASSERTION: "assertion failed",
    Fault.CALL_TARGET: "call of {address:#x}, which is no function for such parameters",
    Fault.CALL_DEPTH: f"calls nested more than {MAX_CALL_DEPTH} deep",
    Fault.BARRIERS: "threads of a block wait at different barriers for ever: deadlock",
}


def _table(memory: DeviceMemory) -> NDArray[np.uint64]:
    """What generated code reads of the segments: base, length, writable."""
    rows = [(segment.base, segment.end - segment.base, segment.writable) for segment in memory.segments]
    return np.array(rows, np.uint64).reshape(-1)


@contextlib.contextmanager
def _time_limit(context: NDArray[np.int64], seconds: float | None) -> Iterator[threading.Event]:
    """Takes the budget away after some seconds, while the compiled code runs; the event then says so."""
    is_over = threading.Event()

    def stop() -> None:
        is_over.set()
        context[Word.BUDGET] = 0

    if seconds is None:
        yield is_over
        return
    timer = threading.Timer(seconds, stop)
    timer.start()
    try:
        yield is_over
    finally:
        timer.cancel()
        timer.join()
