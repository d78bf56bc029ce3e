"""Which regions a program's hot code was compiled as, kept with the code itself.

What is hot first, and so how regions are cut, depends on timing. A later process takes the regions that an earlier one
chose, and finds all of them compiled in the cache.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from vmjit.cache import DiskCache, cache_key
from vmjit.guest_code import GuestCode
from vmjit.translators.origins import SeenPointers
from vmjit.translators.regions import Region, split_blocks

# Regions of one program that are remembered.
_MOST = 1024


@dataclass(frozen=True)
class _Shape:
    """A region without its IR, which its addresses and the code give. Of what was seen of pointers, the first is kept:
    it is a guess, and another would be other code."""

    entries: tuple[int, ...]
    blocks: tuple[int, ...]
    returns: tuple[int, ...]
    indirect: tuple[tuple[int, tuple[int, ...]], ...]
    seen: tuple[tuple[int, SeenPointers], ...] = field(default=(), compare=False)

    @classmethod
    def of(cls, region: Region) -> _Shape:
        goals = tuple((pc, tuple(found)) for pc, found in region.indirect.items())
        seen = tuple(region.seen.items())
        return cls(tuple(region.entries), tuple(region.blocks), tuple(sorted(region.returns)), goals, seen)

    def region(self, code: GuestCode) -> Region:
        blocks = split_blocks({pc: code.block(pc) for pc in self.blocks})
        indirect = {pc: list(goals) for pc, goals in self.indirect}
        return Region(list(self.entries), blocks, set(self.returns), indirect, seen=dict(self.seen))

    def fits(self, code: GuestCode) -> bool:
        return bool(self.entries) and set(self.entries) <= set(self.blocks) and all(map(code.executable, self.blocks))


class RegionMemory:
    """The regions of code spaces that were compiled with the same options. Safe for several threads of one process."""

    def __init__(self, disk: DiskCache, options: Iterable[str]) -> None:
        self._disk = disk
        self._options = tuple(options)
        self._shapes: weakref.WeakKeyDictionary[GuestCode, tuple[str, dict[_Shape, None]]] = weakref.WeakKeyDictionary()

    def all(self, code: GuestCode) -> list[Region]:
        """Every remembered region, in the order in which they were compiled."""
        return [shape.region(code) for shape in self._of(code)[1]]

    def find(self, code: GuestCode, pc: int, compiled: Callable[[int], bool]) -> Region | None:
        """A remembered region for a hot block: one that begins there, else one that has it.

        None if there is none but those that are there already, as `compiled` says of their first entries.
        """
        _, shapes = self._of(code)
        missing = [s for s in shapes if pc in s.blocks and not compiled(s.entries[0])]
        best = min(missing, key=lambda s: (s.entries[0] != pc, pc not in s.entries), default=None)
        return None if best is None else best.region(code)

    def add(self, code: GuestCode, region: Region) -> None:
        """Remember a region that was compiled."""
        key, shapes = self._of(code)
        shape = _Shape.of(region)
        if shape not in shapes and len(shapes) < _MOST:
            shapes[shape] = None
            self._disk.put(key, _written(shapes))

    def _of(self, code: GuestCode) -> tuple[str, dict[_Shape, None]]:
        found = self._shapes.get(code)
        if found is None:
            digest = hashlib.blake2b(digest_size=16)
            for span in code.spans:
                digest.update(span.lo.to_bytes(8, "little") + span.data)
            key = cache_key("regions of a program", (digest.hexdigest(), code.decoder.isa.name, *self._options))
            data = self._disk.get(key)
            shapes = [] if data is None else _read(data)
            found = self._shapes[code] = (key, dict.fromkeys(s for s in shapes if s.fits(code)))
        return found


def _written(shapes: Iterable[_Shape]) -> bytes:
    return json.dumps([[s.entries, s.blocks, s.returns, s.indirect, s.seen] for s in shapes]).encode()


def _read(data: bytes) -> list[_Shape]:
    rows: list[Any] = json.loads(data)
    return [
        _Shape(
            tuple(entries),
            tuple(blocks),
            tuple(returns),
            tuple((pc, tuple(goals)) for pc, goals in indirect),
            tuple((pc, SeenPointers(*bits)) for pc, bits in seen),
        )
        for entries, blocks, returns, indirect, seen in rows
    ]
