"""Memory on devices: interleaved, and yet the same as memory on this computer."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.differential.oracles import READ, WRITE
from vmjit.decoders.riscv.isa import parse_isa
from vmjit.device_lane_memory import DeviceLaneMemory, deinterleave, interleave
from vmjit.devices.host import HostDevice
from vmjit.lane_memory import LaneMemory
from vmjit.memory_layout import MemoryLayout, plan_memory
from vmjit.program import Program, Segment
from vmjit.split_lane_memory import SplitLaneMemory, shares


@pytest.mark.parametrize("word", [4, 8])
def test_interleaving(word: int) -> None:
    """Word k of lane i is element 32 k + i of the group's memory."""
    rows = np.random.default_rng(word).integers(0, 256, (32, 10 * word), np.uint8)
    data = interleave(rows, word)
    for lane, k in ((0, 0), (1, 0), (31, 9), (17, 3)):
        place = (32 * k + lane) * word
        assert data[place : place + word].tobytes() == rows[lane, k * word : (k + 1) * word].tobytes()
    assert (deinterleave(data[None], word) == rows).all()


def _there(layout: MemoryLayout, lanes: int, devices: int, xlen: int) -> DeviceLaneMemory | SplitLaneMemory:
    if devices == 1:
        return DeviceLaneMemory(layout, lanes, HostDevice(), xlen)
    return SplitLaneMemory(layout, lanes, [HostDevice(f"host:{i}") for i in range(devices)], xlen)


def _both(xlen: int, lanes: int, devices: int) -> tuple[LaneMemory, DeviceLaneMemory | SplitLaneMemory]:
    code = bytes(range(256)) * 2
    segments = (
        Segment(0x10002, len(code), code, READ | 4),
        Segment(0x20005, 77, bytes(range(70)), READ | WRITE),
        Segment(0x30000, 64, b"constant", READ),
    )
    program = Program(segments, 0x10002, parse_isa(f"rv{xlen}imac"))
    layout = plan_memory(program, 1000, lanes)
    return LaneMemory(layout, lanes), _there(layout, lanes, devices, xlen)


@settings(max_examples=60)
@given(st.sampled_from([32, 64]), st.sampled_from([1, 31, 32, 33, 70, 100]), st.sampled_from([1, 2, 3]), st.data())
def test_the_same_as_on_the_host(xlen: int, lanes: int, devices: int, data: st.DataObject) -> None:
    here, there = _both(xlen, lanes, devices)
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    for _ in range(data.draw(st.integers(1, 6))):
        kind = data.draw(st.sampled_from(["write", "row", "scatter", "gather", "reset"]))
        if kind == "reset":
            here.reset()
            there.reset()
        elif kind in ("write", "row"):
            offset = data.draw(st.integers(0, 300))
            size = data.draw(st.integers(0, 77 if offset == 0 else 40))
            content = rng.integers(0, 256, (lanes, size) if kind == "row" else size, np.uint8)
            address = 0x20005 + offset
            assert here.write(address, content) == there.write(address, content)
        else:
            some = np.flatnonzero(rng.random(lanes) < 0.7)
            addresses = rng.integers(0x1FFF0, 0x20200, len(some)).astype(np.uint64)
            sizes = rng.integers(0, 50, len(some)).astype(np.int64)
            if kind == "gather":
                for one, other in zip(
                    here.gather(some, addresses, sizes), there.gather(some, addresses, sizes), strict=True
                ):
                    assert (one == other).all()
            else:
                content = rng.integers(0, 256, int(sizes.sum()), np.uint8)
                good = here.scatter(some, addresses, sizes, content)
                assert (good == there.scatter(some, addresses, sizes, content)).all()
    for span in here.layout.spans:
        assert (here.read(span.lo, span.size) == there.read(span.lo, span.size)).all()
        if not span.shared:
            some = np.flatnonzero(rng.random(lanes) < 0.5)
            if len(some):
                assert (here.own_bytes(span, some) == there.own_bytes(span, some)).all()
    copy = LaneMemory(here.layout, lanes)
    there.download(copy)
    assert (copy.rows == here.rows).all()
    fresh = _there(here.layout, lanes, devices, xlen)
    fresh.upload(here)
    assert (fresh.read(0x20005, 77) == here.read(0x20005, 77)).all()


@pytest.mark.parametrize(
    ("lanes", "weights", "expected"),
    [
        (100, [1, 1], [(0, 64), (64, 100)]),
        (64, [1, 1], [(0, 32), (32, 64)]),
        (1, [1, 1], [(0, 0), (0, 1)]),
        (320, [1, 4], [(0, 64), (64, 320)]),
        (33, [1, 1, 1], [(0, 32), (32, 32), (32, 33)]),
        (1000, [7], [(0, 1000)]),
    ],
)
def test_shares(lanes: int, weights: list[int], expected: list[tuple[int, int]]) -> None:
    assert shares(lanes, weights) == expected


@given(st.integers(1, 3000), st.lists(st.integers(1, 200), min_size=1, max_size=9))
def test_shares_cover_all_lanes(lanes: int, weights: list[int]) -> None:
    found = shares(lanes, weights)
    assert found[0][0] == 0
    assert found[-1][1] == lanes
    assert all(a[1] == b[0] and (a[1] % 32 == 0 or a[1] == lanes) for a, b in pairwise(found))
    assert all(last >= first for first, last in found)
    assert len(found) == len(weights)
