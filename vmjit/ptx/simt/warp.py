"""The collectives of a warp, for all warps that come to one at once.

PTX ISA: "shfl.sync", "vote.sync", "match.sync", "redux.sync", "elect.sync", "bar.warp.sync", "activemask".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vmjit.ptx.errors import LaneFault
from vmjit.ptx.simt.geometry import WARP_SIZE
from vmjit.ptx.simt.numpy_atomic import ACCUMULATIONS

if TYPE_CHECKING:
    from vmjit.ptx.simt.activation import Activation

Lanes = NDArray[Any]

_U32 = np.uint32


class Incomplete(Exception):
    """Lanes wait for others of their member mask. `waiting` says which; `fault` is what it is if none can come."""

    def __init__(self, waiting: NDArray[np.bool_], fault: LaneFault) -> None:
        super().__init__()
        self.waiting, self.fault = waiting, fault


class Collective:
    """The lanes of an activation that execute a collective together, in groups.

    A group is the lanes of a warp that are here, or with a member mask those of them that have the same mask. Raises
    `LaneFault` for a lane that is not in its own mask, which the ISA leaves undefined, and `Incomplete` where a lane
    waits for one that is not here.
    """

    def __init__(self, activation: Activation, lanes: NDArray[np.intp] | None, mask: Lanes | None) -> None:
        geometry = activation.wave.geometry
        self._warp = activation.pick(geometry.warp_of, lanes)
        self._lane = activation.pick(geometry.lane_of, lanes)
        self._bit = _U32(1) << self._lane.astype(_U32)
        self._group, self._groups = self._warp, geometry.warps * geometry.blocks
        if mask is not None:
            self._check(activation, mask)
            self._group_by(mask)

    def _check(self, activation: Activation, mask: Lanes) -> None:
        outside = (mask & self._bit) == 0
        if outside.any():
            position = int(np.flatnonzero(outside)[0])
            raise LaneFault(f"a thread that is not in the member mask {int(mask[position]):#x}", position)
        missing = mask & ~self.present_mask() & ~activation.ended_lanes()[self._warp]
        if missing.any():
            position = int(np.flatnonzero(missing)[0])
            text = f"lanes {int(missing[position]):#x} of the member mask {int(mask[position]):#x} do not come here"
            raise Incomplete(missing != 0, LaneFault(text, position))

    def _group_by(self, mask: Lanes) -> None:
        if ((mask & self.present_mask()) == self.present_mask()).all():
            return  # one group for each warp
        keys = (self._warp.astype(np.uint64) << np.uint64(32)) | mask
        unique, self._group = np.unique(keys, return_inverse=True)
        self._groups = len(unique)

    def _combine(self, values: Lanes) -> Lanes:
        """For every lane the bitwise or of u32 values over its group."""
        result = np.zeros(self._groups, _U32)
        np.bitwise_or.at(result, self._group, values)
        return result[self._group]

    def present_mask(self) -> Lanes:
        """For every lane the mask of its group's lanes."""
        return self._combine(self._bit)

    def vote(self, mode: str, predicate: Lanes) -> Lanes:
        """all, any and uni as booleans, ballot as a mask."""
        ballot = self._combine(np.where(predicate, self._bit, _U32(0)))
        if mode == "ballot":
            return ballot
        someone: Lanes = ballot != 0
        if mode == "any":
            return someone
        everyone: Lanes = ballot == self.present_mask()
        return everyone if mode == "all" else everyone | ~someone

    def shuffle(self, mode: str, values: Lanes, lane: Lanes, control: Lanes) -> tuple[Lanes, Lanes]:
        """Values of other lanes, and whether the source was in range; a lane's own value where it was not.

        A source that takes no part gives the lane its own value too; the ISA leaves it undefined.
        """
        own = self._lane
        lane, control = lane.astype(np.int64) & 31, control.astype(np.int64)
        clamp, segment = control & 31, (control >> 8) & 31
        first, last = own & segment, (own & segment) | (clamp & ~segment & 31)
        if mode == "up":
            source = own - lane
            in_range = source >= last
        else:
            source = {"down": own + lane, "bfly": own ^ lane, "idx": first | (lane & ~segment & 31)}[mode]
            in_range = source <= last
        source = np.where(in_range, source, own)
        here = np.full(self._groups * WARP_SIZE, -1, np.int64)
        here[self._group * WARP_SIZE + own] = np.arange(len(own))
        found = here[self._group * WARP_SIZE + source]
        return np.where(found >= 0, values[np.maximum(found, 0)], values), in_range

    def match(self, mode: str, values: Lanes) -> tuple[Lanes, Lanes]:
        """any: the mask of lanes with the same value. all: the group's mask if all are the same, and if they are."""
        if mode == "any":
            _, kinds = np.unique(values, return_inverse=True)
            _, classes = np.unique(self._group * (len(values) + 1) + kinds, return_inverse=True)
            masks = np.zeros(len(values), _U32)
            np.bitwise_or.at(masks, classes, self._bit)
            return masks[classes], np.ones(len(values), np.bool_)
        same = self.reduce("max", values) == self.reduce("min", values)
        return np.where(same, self.present_mask(), _U32(0)), same

    def reduce(self, operation: str, values: Lanes) -> Lanes:
        """For every lane the combined values of its group."""
        order = np.argsort(self._group, kind="stable")
        groups = self._group[order]
        starts = np.flatnonzero(np.concatenate([[True], groups[1:] != groups[:-1]]))
        combined = ACCUMULATIONS[operation].reduceat(values[order], starts, dtype=values.dtype)
        result = np.empty(self._groups, values.dtype)
        result[groups[starts]] = combined
        return result[self._group]

    def elect(self) -> tuple[Lanes, Lanes]:
        """The lowest lane of the group, and whether it is this one."""
        leader = np.full(self._groups, WARP_SIZE)
        np.minimum.at(leader, self._group, self._lane)
        chosen = leader[self._group]
        return chosen.astype(_U32), chosen == self._lane
