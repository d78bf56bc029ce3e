"""Which order lanes are given, what it promises, and rows of memory that change places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vmjit.decoders.riscv import REGISTERS
from vmjit.host_memory import HostMemory
from vmjit.lane_state import LaneState
from vmjit.regrouping import agreement, order_by, promises
from vmjit.resident_pages import resident_pages
from vmjit.row_rotation import cycles_of, rotate_rows

GROUP = 4


def test_agreement_is_the_part_of_the_most_frequent_key() -> None:
    assert agreement(np.array([[1, 1, 1, 1, 2, 2, 3, 3]]), GROUP) == (4 + 2) / 8
    assert agreement(np.array([[0, 1, 2, 3], [5, 5, 5, 6]]), GROUP) == (1 + 3) / 8


def test_lanes_that_do_not_run_do_not_count() -> None:
    assert agreement(np.array([[7, -1, 7, -2, -3, -4, -5, -6]]), GROUP) == 1
    assert agreement(np.array([[7, -1, 8, -2]]), GROUP) == 1 / 2
    assert agreement(np.array([[-1, -2, -3, -4]]), GROUP) == 0


def test_the_first_sample_counts_most_and_stopped_lanes_come_last() -> None:
    keys = np.array([[2, 1, -3, 1, 2, 1], [0, 9, 5, 3, 0, 9]])
    assert order_by(keys).tolist() == [3, 1, 5, 0, 4, 2]


def test_equal_lanes_keep_their_order() -> None:
    assert order_by(np.zeros((2, 9), np.int64)).tolist() == list(range(9))


def test_modes_by_lane_promise() -> None:
    modes = np.arange(64) % 4
    assert promises(np.array([modes, modes, modes]), GROUP)
    assert promises(np.array([modes, modes + 4, modes + 8]), GROUP)


@pytest.mark.parametrize("places", [1, 2, 4, 40])
def test_lanes_that_change_places_all_the_time_do_not_promise(places: int) -> None:
    """An order by where they were tells nothing of where they will be."""
    keys = np.random.default_rng(places).integers(0, places, (3, 512))
    assert not promises(keys, 16)


def test_groups_that_agree_already_do_not_promise() -> None:
    keys = np.repeat(np.arange(8), 16)
    assert not promises(np.array([keys, keys, keys]), 16)


def test_cycles_cover_what_moves() -> None:
    order = np.random.default_rng(1).permutation(100)
    order[order == 17] = order[17]
    order[17] = 17
    rows, ends = cycles_of(order)
    assert sorted(rows.tolist()) == [i for i in range(100) if order[i] != i]
    for first, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        cycle = rows[first:end]
        np.testing.assert_array_equal(order[cycle], np.roll(cycle, -1))
    assert [len(part) for part in cycles_of(np.arange(5))] == [0, 0]


@pytest.mark.parametrize("stride", [64, 4096 - 64, 4096, 3 * 4096 + 192])
def test_rows_change_places(stride: int) -> None:
    source = np.random.default_rng(stride)
    count = 37
    memory = HostMemory(count * stride, sparse_unit=stride)
    rows = memory.array.reshape(count, stride)
    # Some bytes of some rows, so that pages hold nothing and units are zero in between.
    for _ in range(60):
        row, at = source.integers(count), source.integers(stride)
        rows[row, at : at + source.integers(1, 300)] = source.integers(1, 256)
    wanted, order = rows.copy(), source.permutation(count)
    pages = -(-memory.array.size // 4096) + 1
    there = np.zeros(pages, bool)
    flat = np.append(memory.array, np.zeros(pages * 4096 - memory.array.size, np.uint8))
    there[:] = flat.reshape(-1, 4096).any(axis=1)
    rotate_rows(memory.address, stride, there, order)
    np.testing.assert_array_equal(rows, wanted[order])


@pytest.mark.skipif(not Path("/proc/self/pagemap").exists(), reason="needs Linux")
def test_pages_that_hold_nothing_stay_away() -> None:
    stride, count = 1 << 20, 16
    memory = HostMemory(count * stride, sparse_unit=stride)
    rows = memory.array.reshape(count, stride)
    rows[:, 5000] = np.arange(1, count + 1)
    before = resident_pages(memory.address, memory.array.size)
    if before is None:
        pytest.skip("this kernel does not tell which pages are there")
    there = np.zeros(count * stride // 4096 + 1, bool)
    there[before] = True
    order = np.roll(np.arange(count), 3)
    rotate_rows(memory.address, stride, there, order)
    np.testing.assert_array_equal(rows[:, 5000], order + 1)
    after = resident_pages(memory.address, memory.array.size)
    assert after is not None
    assert len(after) == len(before)


def test_all_that_is_known_of_a_lane_moves() -> None:
    state = LaneState(6, REGISTERS[64, False])
    order = np.array([5, 0, 3, 1, 4, 2])
    for name in LaneState.BY_LANE:
        getattr(state, name)[...] = np.arange(6)
    state.rearrange(order)
    for name in LaneState.BY_LANE:
        np.testing.assert_array_equal(getattr(state, name), np.broadcast_to(order, getattr(state, name).shape), name)
