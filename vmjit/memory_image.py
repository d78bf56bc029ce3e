"""What a lane's own memory holds when it starts: the pages that hold something, and zero everywhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vmjit.memory_layout import MemoryLayout

PAGE = 4096

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class MemoryImage:
    """`size` bytes, of which page `numbers[i]` holds `contents[i]`.

    numbers: (n,) int64, ascending. contents: (n, 4096) uint8, zero behind `size`. Neither is ever changed: images are
    shared.
    """

    size: int
    numbers: Numbers
    contents: Bytes

    @classmethod
    def of_pages(cls, size: int, numbers: Numbers, contents: Bytes) -> MemoryImage:
        """From pages in any order, some of which may be zero."""
        some = contents.reshape(len(contents), -1).view(np.uint64).any(axis=1) if len(contents) else np.zeros(0, bool)
        order = np.flatnonzero(some)[np.argsort(numbers[some])]
        return cls(size, numbers[order], np.ascontiguousarray(contents[order]))

    @classmethod
    def of_layout(cls, layout: MemoryLayout) -> MemoryImage:
        """The program's data."""
        pages: dict[int, bytearray] = {}
        for span in layout.spans:
            if span.shared:
                continue
            place = 0
            while place < len(span.data):
                number, start = divmod(span.offset + place, PAGE)
                part = span.data[place : place + PAGE - start]
                pages.setdefault(number, bytearray(PAGE))[start : start + len(part)] = part
                place += len(part)
        contents = np.frombuffer(b"".join(bytes(page) for page in pages.values()), np.uint8).reshape(-1, PAGE)
        return cls.of_pages(layout.private_bytes, np.array(list(pages), np.int64), contents)

    @property
    def used_bytes(self) -> int:
        """Bytes in pages that hold something."""
        return self.contents.size

    @cached_property
    def parts(self) -> tuple[tuple[int, Bytes], ...]:
        """What to write over zero to have the image: places, and the bytes of each from its first to its last word that
        is not zero."""
        found = []
        for number, content in zip(self.numbers.tolist(), self.contents, strict=True):
            words = np.flatnonzero(content.view(np.uint64))
            if not len(words):  # in a file from anywhere
                continue
            first, last = int(words[0]) * 8, int(words[-1]) * 8 + 8
            place = number * PAGE + first
            found.append((place, content[first : min(last, self.size - number * PAGE)]))
        return tuple(found)

    def pages(self, numbers: Numbers) -> Bytes:
        """(len(numbers), 4096): what these pages hold."""
        found = np.zeros((len(numbers), PAGE), np.uint8)
        if len(self.numbers):
            place = np.searchsorted(self.numbers, numbers).clip(max=len(self.numbers) - 1)
            there = self.numbers[place] == numbers
            found[there] = self.contents[place[there]]
        return found

    def with_pages(self, numbers: Numbers, contents: Bytes) -> MemoryImage:
        """The image with other pages in place of its own."""
        kept = ~np.isin(self.numbers, numbers)
        return MemoryImage.of_pages(
            self.size,
            np.concatenate([self.numbers[kept], numbers]),
            np.concatenate([self.contents[kept], contents]),
        )

    def unlike(self, lanes: Numbers, read: Callable[[int, int], Bytes]) -> LanePages:
        """The pages in which lanes differ from the image; `read` gives (len(lanes), size) of them from a place on."""
        found = []
        for number, start in enumerate(range(0, self.size, PAGE)):
            part = read(start, min(PAGE, self.size - start))
            block = np.zeros((len(lanes), PAGE), np.uint8)
            block[:, : part.shape[1]] = part
            unlike = np.flatnonzero((block != self.pages(np.array([number]))).any(axis=1))
            found.append(LanePages(lanes[unlike], np.full(len(unlike), number), block[unlike]))
        return LanePages.joined(found)


@dataclass(frozen=True, eq=False)
class LanePages:
    """Pages in which lanes differ from the image that they started from.

    lanes, numbers: (n,) int64, whose page it is and its number in the lane's memory; in the order of lanes.
    contents: (n, 4096) uint8.
    """

    lanes: Numbers
    numbers: Numbers
    contents: Bytes

    @classmethod
    def none(cls) -> LanePages:
        empty = np.zeros(0, np.int64)
        return cls(empty, empty, np.zeros((0, PAGE), np.uint8))

    @classmethod
    def joined(cls, parts: list[LanePages]) -> LanePages:
        if not parts:
            return cls.none()
        lanes = np.concatenate([p.lanes for p in parts])
        order = np.argsort(lanes, kind="stable")
        numbers, contents = np.concatenate([p.numbers for p in parts]), np.concatenate([p.contents for p in parts])
        return cls(lanes[order], numbers[order], contents[order])
