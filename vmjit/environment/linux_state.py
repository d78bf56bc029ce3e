"""What Linux keeps for each lane: descriptors, mappings, random numbers; and what its system calls share."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmjit.address_spaces import AddressSpaces
from vmjit.environment.bare_metal import BareMetal
from vmjit.environment.call import Call, Lanes, Values
from vmjit.environment.descriptors import STANDARD as STANDARD
from vmjit.environment.descriptors import Descriptors
from vmjit.environment.root_folder import GuestFile, LaneFile, RootFolder
from vmjit.environment.saved import SavedEnvironment
from vmjit.environment.streams import InputStreams
from vmjit.memory_layout import MemoryLayout

MASK64 = (1 << 64) - 1


class LinuxState(BareMetal):
    """What Linux knows of one machine's lanes, whose memory is as `layout` has it."""

    spaces: AddressSpaces

    def __init__(
        self,
        lanes: int,
        xlen: int,
        layout: MemoryLayout,
        *,
        root: str | os.PathLike[str] | None = None,
        seed: int = 0,
    ) -> None:
        assert layout.paged is not None
        self.stack_lo, self.mapped_top = layout.paged.stack_lo, layout.paged.mapped_top
        self.seed = seed
        self.files = RootFolder(root)
        self._opened: list[GuestFile] = []
        self._lane_files: dict[bytes, LaneFile] = {}
        self.lanes = lanes
        self.spaces = AddressSpaces(lanes, layout)
        # The lowest address that was ever mapped, and the highest that the break ever was: what is beyond is zero.
        self.mapped_ever = np.zeros(lanes, np.uint64)
        self.break_ever = np.zeros(lanes, np.uint64)
        self._random = np.zeros(lanes, np.uint64)
        self.descriptors = Descriptors(lanes)
        super().__init__(lanes, xlen, layout.heap_start, layout.stack_top)
        self.break_top = self.mapped_top

    def _by_lane(self) -> dict[str, NDArray[Any]]:
        own: dict[str, NDArray[Any]] = {
            "mapped_ever": self.mapped_ever,
            "break_ever": self.break_ever,
            "random": self._random,
            "mappings": self.spaces.numbers,
        }
        return {**super()._by_lane(), **own, **self.descriptors.by_lane()}

    def reset(self) -> None:
        super().reset()
        self.spaces.reset()
        self.mapped_ever[:] = self.mapped_top
        self.break_ever[:] = self.heap_start
        self._random[:] = 0
        self.descriptors.reset()

    def save(self) -> SavedEnvironment:
        return replace(
            super().save(),
            address_spaces=self.spaces.save(),
            files=tuple(self._opened),
            lane_files={path: file.streams.save() for path, file in self._lane_files.items()},
        )

    def restore(self, saved: SavedEnvironment) -> None:
        before = self.spaces.numbers.copy()
        super().restore(saved)
        self.spaces.numbers[:] = before
        self.spaces.restore(saved.by_lane["mappings"], saved.address_spaces)
        for path, contents in saved.lane_files.items():
            self._lane_file(path).streams.restore(contents)
        for path in self._lane_files.keys() - saved.lane_files.keys():
            del self._lane_files[path]
        self._opened = [self._lane_file(f.path) if isinstance(f, LaneFile) else f for f in saved.files]

    def refuses(self, saved: SavedEnvironment) -> str:
        if wrong := super().refuses(saved):
            return wrong
        if any(self.spaces.refuses(space) for space in saved.address_spaces):
            return "a mapping that cannot be"
        for name, first, last in (
            ("mappings", 0, len(saved.address_spaces) - 1),
            ("mapped_ever", 0, self.mapped_top),
            ("break_ever", self.heap_start, self.mapped_top),
        ):
            values = saved.by_lane[name]
            if values.size and (int(values.min()) < first or int(values.max()) > last):
                return f"its {name} have values that cannot be"
        return self.descriptors.refuses(saved.by_lane, len(saved.files))

    def _has_standard_outputs(self) -> NDArray[np.bool_]:
        lanes, standard = np.arange(self.lanes), np.ones(self.lanes, bool)
        for stream in self.outputs:
            numbers = np.full(self.lanes, stream)
            standard &= self.descriptors.file(lanes, numbers) == numbers
        return standard

    # -- files that are another for each lane

    def set_file(self, path: bytes, contents: bytes | Sequence[bytes] | NDArray[np.uint8]) -> None:
        """Have a file at a guest's path: bytes for every lane, or one for each as `InputStreams.set` takes them."""
        self._lane_file(_absolute(path)).streams.set(contents)

    def _lane_file(self, path: bytes) -> LaneFile:
        found = self._lane_files.get(path)
        if found is None:
            mode = stat.S_IFREG | 0o444
            found = LaneFile(self.files.number(), mode, b"", path=path, streams=InputStreams(self.lanes))
            self._lane_files[path] = found
        return found

    def find(self, path: bytes) -> GuestFile | int:
        """The file at a guest's path, or the error's number."""
        return self._lane_files.get(_absolute(path)) or self.files.find(path)

    def file_sizes(self, numbers: NDArray[np.int64], lanes: Lanes) -> NDArray[np.int64]:
        """Of the files that numbers stand for, as the lanes see them; 0 for streams."""
        sizes = np.zeros(len(numbers), np.int64)
        for number in np.unique(numbers[numbers >= STANDARD]):
            these, file = numbers == number, self.file(int(number))
            sizes[these] = file.streams.size[lanes[these]] if isinstance(file, LaneFile) else len(file.data)
        return sizes

    # -- what handlers use

    def random_words(self, lanes: Lanes, count: int) -> NDArray[np.uint64]:
        """(len(lanes), count): each lane's next random numbers, by the seed (SplitMix64)."""
        lane = lanes.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(
            self.seed * 0xD1342543DE82EF95 & MASK64
        )
        place = self._random[lanes][:, None] + np.arange(1, count + 1, dtype=np.uint64)
        self._random[lanes] += np.uint64(count)
        z = _mixed(lane)[:, None] + place * np.uint64(0x9E3779B97F4A7C15)
        return _mixed(z)

    def open_file(self, file: GuestFile) -> int:
        """The number under which descriptors know a file."""
        for number, known in enumerate(self._opened):
            if known is file:
                return number + STANDARD
        self._opened.append(file)
        return len(self._opened) - 1 + STANDARD

    def file(self, number: int) -> GuestFile:
        return self._opened[number - STANDARD]


def _absolute(path: bytes) -> bytes:
    """A guest's path from the root, without names that lead back."""
    return posixpath.normpath(b"/" + path.lstrip(b"/"))


def _mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed


def linux_of(call: Call) -> LinuxState:
    """The environment of a call's lanes."""
    assert isinstance(call.environment, LinuxState)
    return call.environment


def constant(value: int) -> Callable[[Call], Values]:
    """A call that gives the same to everybody."""
    return lambda call: np.full(len(call.lanes), value, np.int64)


def descriptors_of(call: Call, index: int = 0) -> Values:
    """The descriptors of an argument, 32-bit ints in C."""
    return call.signed(index).astype(np.int32).astype(np.int64)


def open_numbers(call: Call, index: int = 0) -> tuple[Values, Values]:
    """(the descriptors of an argument, what they stand for): `CLOSED` for none."""
    given = descriptors_of(call, index)
    return given, linux_of(call).descriptors.file(call.lanes, given)


def open_files(call: Call) -> tuple[Values, Values]:
    """(the open file descriptions of the first argument's descriptors, what they stand for): `CLOSED` for none."""
    given, opened = descriptors_of(call), linux_of(call).descriptors
    return opened.description(call.lanes, given), opened.file(call.lanes, given)


def part_of(call: Call, chosen: NDArray[np.bool_]) -> Call:
    """The same call for some of its lanes."""
    return Call(call.environment, call.state, call.memory, call.lanes[chosen])


def by_kind(call: Call, numbers: Values, ways: list[tuple[NDArray[np.bool_], Callable[[Call], Values]]]) -> Values:
    """Results of lanes in different ways; -EBADF where none holds."""
    result = np.full(len(call.lanes), -errno.EBADF, np.int64)
    for chosen, way in ways:
        if chosen.any():
            result[chosen] = way(part_of(call, chosen))
    return result
