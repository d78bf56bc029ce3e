"""Where the threads that run at once are: their special registers (PTX ISA, "Special Registers")."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmjit.ptx.launch import Dim3

WARP_SIZE = 32

_AXES = "xyzw"
_CLOCKS = ("%clock", "%clock_hi", "%clock64", "%globaltimer", "%globaltimer_lo", "%globaltimer_hi")

Lanes = NDArray[Any]


class Geometry:
    """The threads of the blocks `first` to `end` of a grid, block by block, one lane each.

    Warps never span blocks. The arrays belong to the geometry and cannot be written to.
    """

    def __init__(self, grid: Dim3, block: Dim3, first: int, end: int) -> None:
        self.blocks = end - first
        self.threads = block[0] * block[1] * block[2]  # of a block
        self.size = self.threads * self.blocks
        self.warps = -(-self.threads // WARP_SIZE)  # of a block
        thread = np.arange(self.threads)
        index = np.arange(first, end)
        self.block_of = self._keep(np.repeat(np.arange(self.blocks), self.threads))
        self.warp_of = self._keep(self.block_of * self.warps + np.tile(thread // WARP_SIZE, self.blocks))
        self.lane_of = self._keep(np.tile(thread % WARP_SIZE, self.blocks))  # place in the warp
        in_block = {
            "%tid.x": thread % block[0],
            "%tid.y": thread // block[0] % block[1],
            "%tid.z": thread // (block[0] * block[1]),
            "%laneid": thread % WARP_SIZE,
            "%warpid": thread // WARP_SIZE,
        }
        of_block = {
            "%ctaid.x": index % grid[0],
            "%ctaid.y": index // grid[0] % grid[1],
            "%ctaid.z": index // (grid[0] * grid[1]),
        }
        self.by_lane: dict[str, Lanes] = {
            **{name: self._keep(np.tile(v.astype(np.uint32), self.blocks)) for name, v in in_block.items()},
            **{name: self._keep(np.repeat(v.astype(np.uint32), self.threads)) for name, v in of_block.items()},
        }
        for name, mask in _LANE_MASKS.items():
            self.by_lane[name] = self._keep(mask(np.uint32(1) << self.by_lane["%laneid"]))
        self.uniform: dict[str, int] = {
            **{f"%ntid.{axis}": size for axis, size in zip(_AXES, (*block, 1), strict=True)},
            **{f"%nctaid.{axis}": size for axis, size in zip(_AXES, (*grid, 1), strict=True)},
            **dict.fromkeys(("%tid.w", "%ctaid.w", "%smid", "%gridid"), 0),
            "%nsmid": 1,
            "%nwarpid": self.warps,
        }

    @staticmethod
    def _keep(array: Lanes) -> Lanes:
        array.flags.writeable = False
        return array

    def thread_at(self, lane: int) -> tuple[Dim3, Dim3]:
        """Coordinates of a lane's thread in its block, and of the block in the grid."""
        x, y, z = (int(self.by_lane[f"%tid.{axis}"][lane]) for axis in "xyz")
        block_x, block_y, block_z = (int(self.by_lane[f"%ctaid.{axis}"][lane]) for axis in "xyz")
        return (x, y, z), (block_x, block_y, block_z)


_ONE = np.uint32(1)
_LANE_MASKS: dict[str, Callable[[Lanes], Lanes]] = {
    "%lanemask_eq": lambda own: own,
    "%lanemask_lt": lambda own: own - _ONE,
    "%lanemask_le": lambda own: own | (own - _ONE),
    "%lanemask_ge": lambda own: ~(own - _ONE),
    "%lanemask_gt": lambda own: ~(own | (own - _ONE)),
}


SPECIAL_REGISTERS = {
    *(f"{register}.{axis}" for register in ("%tid", "%ntid", "%ctaid", "%nctaid") for axis in _AXES),
    *("%laneid", "%warpid", "%nwarpid", "%smid", "%nsmid", "%gridid", "%dynamic_smem_size", "%total_smem_size"),
    *_LANE_MASKS,
    *_CLOCKS,
}


@lru_cache(maxsize=8)
def geometry(grid: Dim3, block: Dim3, first: int, end: int) -> Geometry:
    """The geometry, shared between launches: for small kernels it is most of a launch's cost."""
    return Geometry(grid, block, first, end)
