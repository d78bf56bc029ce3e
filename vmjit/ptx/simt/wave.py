"""The blocks that run at once, and what all of a launch's waves count."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmjit.ptx.assembly.syntax import Function
from vmjit.ptx.image import FRAME_ALIGNMENT, Image
from vmjit.ptx.launch import Launch
from vmjit.ptx.memory import Segment, low_memory
from vmjit.ptx.simt.geometry import geometry

BARRIERS = 16  # of a block


class Counts:
    """What a launch has executed so far."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self.thread_instructions = 0
        self.steps = 0  # blocks executed: the time that %clock shows
        self._executed: dict[int, tuple[list[int], list[int]]] = {}

    def of(self, function: Function) -> tuple[list[int], list[int]]:
        """How many threads, and how many warps, executed each block of a function: lists to add to."""
        found = self._executed.get(function.number)
        if found is None:
            blocks = len(self._image.flow(function).blocks)
            found = self._executed[function.number] = ([0] * blocks, [0] * blocks)
        return found

    def totals(self) -> tuple[int, dict[str, int]]:
        """Warp instructions, and thread instructions by stem, the most frequent first."""
        warp_instructions = 0
        by_stem: Counter[str] = Counter()
        for number, (threads, warps) in self._executed.items():
            for block in self._image.flow(self._image.functions[number]).blocks:
                warp_instructions += warps[block.index] * block.count
                for stem, count in block.stems.items():
                    by_stem[stem] += threads[block.index] * count
        return warp_instructions, {stem: count for stem, count in by_stem.most_common() if count}


class Wave:
    """Some blocks of a launch with their shared memory and the threads that have ended."""

    def __init__(self, image: Image, launch: Launch, counts: Counts, first: int, end: int) -> None:
        self.launch, self.counts = launch, counts
        self.geometry = geometry(launch.grid, launch.block, first, end)
        self.exited = np.zeros(self.geometry.size, np.bool_)
        self.arrivals = np.zeros(self.geometry.blocks * BARRIERS, np.int64)  # of bar.arrive, by block and barrier
        used = image.shared_bytes + launch.dynamic_shared
        self.uniform = {"%dynamic_smem_size": launch.dynamic_shared, "%total_smem_size": used}
        self.shared: Segment | None = None
        self.shared_address: NDArray[np.uint64] | None = None
        if used:
            self.shared, starts = private_memory(image, "shared memory", "shared", used, self.geometry.blocks)
            self.shared_address = starts[self.geometry.block_of]

    def check_time(self, function: Function, line: int) -> None:
        """Raises `PtxFault` when the launch has had its instructions or its time."""
        if self.counts.thread_instructions > self.launch.budget:
            raise self.launch.over_budget(function, line)
        if self.launch.seconds is not None and time.monotonic() > self.launch.deadline:
            raise self.launch.over_time(function, line)


def private_memory(image: Image, name: str, space: str, used: int, owners: int) -> tuple[Segment, NDArray[Any]]:
    """Memory of `used` bytes for each of many owners, and the address of each one's first byte.

    The pieces are apart from each other, so that running over the end of one is noticed.
    """
    period = max(FRAME_ALIGNMENT, 1 << used.bit_length())
    content = low_memory(period * owners)
    if image.poison:
        content.reshape(owners, period)[:, :used] = image.poison
    segment = Segment(content, name, space=space, period=period, used=used)
    image.memory.insert(segment)
    return segment, np.uint64(segment.base) + np.arange(owners, dtype=np.uint64) * np.uint64(period)
