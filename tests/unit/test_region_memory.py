"""Regions that are remembered: the same ones come back, and nothing that does not fit the code."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import vmjit
from tests.cli.conftest import guest
from vmjit.cache import DiskCache
from vmjit.decoders.riscv import registers_of
from vmjit.decoders.riscv.decoder import Decoder
from vmjit.device_code import DeviceCodeSpace
from vmjit.device_kernels import interpreter_keys_of
from vmjit.guest_code import CodeSpan
from vmjit.region_memory import RegionMemory, _Shape, _written
from vmjit.tiering import region_identity
from vmjit.translators.origins import SeenPointers
from vmjit.translators.regions import Growth, Region, form_region

GUESTS = ("calls", "crc32", "json", "sort")


def code_of(name: str, isa: str = "rv64imac") -> tuple[DeviceCodeSpace, int]:
    prog = vmjit.load(guest(name, isa))
    spans = [CodeSpan(s.address, s.data.ljust(s.size, b"\0")) for s in prog.segments if s.executable]
    numbers = {key: i for i, key in enumerate(interpreter_keys_of(registers_of(prog.isa_config)))}
    return DeviceCodeSpace(Decoder(prog.isa_config), numbers, spans), prog.entry


def formed(space: DeviceCodeSpace, pc: int, size: int = 512) -> Region:
    space.decode(pc)
    return form_region(space, pc, Growth(space.executable, size))


@pytest.mark.parametrize("name", GUESTS)
def test_a_region_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    """Cut blocks, entries, return points and the goals of computed jumps: its code in the cache is found again."""
    space, entry = code_of(name)
    memory = RegionMemory(DiskCache(tmp_path), ("a",))
    regions = [formed(space, entry, size) for size in (5, 60, 512)]
    regions[-1].indirect = {pc: list(regions[-1].blocks)[:2] for pc in list(regions[-1].blocks)[:1]}
    regions[1].seen = {entry: SeenPointers(stack=4, data=1 << 31)}
    for region in regions:
        memory.add(space, region)
    fresh, _ = code_of(name)
    again = RegionMemory(DiskCache(tmp_path), ("a",)).all(fresh)
    assert [region_identity(r) for r in again] == [region_identity(r) for r in regions]
    assert RegionMemory(DiskCache(tmp_path), ("b",)).all(fresh) == []
    other, _ = code_of("matmul")
    assert RegionMemory(DiskCache(tmp_path), ("a",)).all(other) == []


def test_which_region_is_found(tmp_path: Path) -> None:
    space, entry = code_of("crc32")
    memory = RegionMemory(DiskCache(tmp_path), ())
    assert memory.find(space, entry, lambda pc: False) is None
    whole = formed(space, entry)
    inner = formed(space, list(whole.blocks)[3], 30)
    memory.add(space, whole)
    memory.add(space, inner)
    first = inner.entries[0]
    assert first in whole.blocks

    def found(pc: int, *compiled: int) -> list[int] | None:
        region = memory.find(space, pc, lambda place: place in compiled)
        return None if region is None else region.entries

    assert found(entry) == whole.entries
    assert found(first) == inner.entries
    assert found(first, first) == whole.entries
    assert found(first, first, entry) is None
    assert found(1) is None


def test_what_was_seen_first_is_kept(tmp_path: Path) -> None:
    space, entry = code_of("crc32")
    memory = RegionMemory(DiskCache(tmp_path), ())
    first, other = (replace(formed(space, entry), seen={entry: SeenPointers(stack=bits)}) for bits in (4, 8))
    memory.add(space, first)
    memory.add(space, other)
    assert [region.seen for region in memory.all(space)] == [first.seen]


def test_what_does_not_fit_is_left_out(tmp_path: Path) -> None:
    space, entry = code_of("crc32")
    disk = DiskCache(tmp_path)
    memory = RegionMemory(disk, ())
    memory.add(space, formed(space, entry))
    key = memory._of(space)[0]
    good = _Shape.of(formed(space, entry))
    odd = [_Shape((), (entry,), (), ()), _Shape((entry,), (), (), ()), _Shape((4,), (4,), (), ())]
    disk.put(key, _written([*odd, good]))
    fresh, _ = code_of("crc32")
    assert len(RegionMemory(disk, ()).all(fresh)) == 1
    assert json.loads(_written([good]))[0][0][0] == entry
