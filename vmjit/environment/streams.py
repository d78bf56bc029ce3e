"""The lanes' standard streams: an input by lane, and outputs captured by lane, both as flat arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vmjit.checks import shown
from vmjit.environment.saved_streams import SavedInput, SavedOutput
from vmjit.errors import ArgumentError
from vmjit.lane_state import index_of

Bytes = NDArray[np.uint8]
Lanes = NDArray[np.intp]


class InputStreams:
    """Each lane's input is data[start:start + size], read from `position` on."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.clear()

    def clear(self) -> None:
        self.data: Bytes = np.zeros(0, np.uint8)
        self.start = np.zeros(self.lanes, np.int64)
        self.size = np.zeros(self.lanes, np.int64)
        self.position = np.zeros(self.lanes, np.int64)

    def rewind(self) -> None:
        self.position[:] = 0

    def save(self) -> SavedInput:
        """The inputs, which are never changed in place, and how far they are read; for `restore`."""
        return SavedInput(self.data, self.start, self.size, self.position.copy())

    def restore(self, saved: SavedInput) -> None:
        self.data, self.start, self.size = saved.data, saved.start, saved.size
        self.position = saved.position.copy()

    def set(self, inputs: bytes | Sequence[bytes] | Bytes) -> None:
        """One input for all lanes (bytes), or one a lane: a sequence of bytes, or a uint8 array (lanes, n).

        Raises `ArgumentError`, and leaves the inputs as they were.
        """
        data, sizes = self._checked(inputs)
        self.clear()
        self.data = data
        self.size[:] = sizes
        if not isinstance(inputs, bytes | bytearray | memoryview):
            self.start[:] = np.cumsum(self.size) - self.size

    def _checked(self, inputs: object) -> tuple[Bytes, int | list[int]]:
        """(the bytes of all inputs, the size of each or of all)."""
        if isinstance(inputs, bytes | bytearray | memoryview):
            return np.frombuffer(bytes(inputs), np.uint8), len(bytes(inputs))
        if isinstance(inputs, np.ndarray):
            if inputs.dtype != np.uint8 or inputs.ndim != 2 or inputs.shape[0] != self.lanes:
                raise ArgumentError(
                    f"inputs must be a uint8 array of shape ({self.lanes}, n), got {inputs.dtype} {inputs.shape}"
                )
            return inputs.reshape(-1).copy(), int(inputs.shape[1])
        if not isinstance(inputs, Sequence) or isinstance(inputs, str):
            raise ArgumentError(f"inputs are bytes, a sequence of bytes or a uint8 array, got {shown(inputs)}")
        if len(inputs) != self.lanes:
            raise ArgumentError(f"expected {self.lanes} inputs, one a lane, got {len(inputs)}")
        try:
            views = [memoryview(item) for item in inputs]
        except TypeError:
            raise ArgumentError("inputs must be bytes, one a lane") from None
        return np.frombuffer(b"".join(views), np.uint8), [view.nbytes for view in views]

    def take_at(
        self, lanes: Lanes, places: NDArray[np.int64], wanted: NDArray[np.int64]
    ) -> tuple[Bytes, NDArray[np.int64]]:
        """As `take`, from a place of each lane's own."""
        counts = np.clip(np.minimum(self.size[lanes] - places, wanted), 0, None)
        starts = np.cumsum(counts) - counts
        first = np.repeat(self.start[lanes] + places - starts, counts)
        return self.data[first + np.arange(int(counts.sum()))], counts

    def take(self, lanes: Lanes, wanted: NDArray[np.int64]) -> tuple[Bytes, NDArray[np.int64]]:
        """(bytes of the lanes one after the other, how many each lane gets). Does not move the positions."""
        these = index_of(lanes)
        position = self.position[these]
        counts = np.maximum(np.minimum(self.size[these] - position, wanted), 0)
        some = np.flatnonzero(counts)
        if not len(some):
            return self.data[:0], counts
        first = self.start[these] + position
        if (counts[some] == counts[some[0]]).all():  # as lanes that do the same have it
            return self._rows(first[some], int(counts[some[0]])).reshape(-1), counts
        starts = np.cumsum(counts) - counts
        source = np.repeat(first, counts)
        return self.data[source + np.arange(int(counts.sum())) - np.repeat(starts, counts)], counts

    def _rows(self, first: NDArray[np.int64], count: int) -> Bytes:
        """(len(first), count): as many bytes from each place on."""
        step = int(first[1] - first[0]) if len(first) > 1 else 0
        if (first[1:] - first[:-1] == step).all():  # inputs of one size, one after the other
            rows: Bytes = np.lib.stride_tricks.as_strided(self.data[first[0] :], (len(first), count), (step, 1))
            return rows
        found: Bytes = self.data[first[:, None] + np.arange(count)]
        return found


class OutputStreams:
    """What lanes wrote, in the order they did. Put together by lane only when somebody asks."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.clear()

    def clear(self) -> None:
        self._common = b""  # what all lanes have before what they wrote themselves
        self._chunks: list[tuple[Lanes, NDArray[np.int64], Bytes]] = []
        self._joined: dict[int, bytes] | None = None

    def save(self) -> SavedOutput:
        """What was written so far, for `restore`."""
        return SavedOutput(self._common, tuple(self._chunks))

    def restore(self, saved: SavedOutput) -> None:
        self._common, self._chunks = saved.common, list(saved.chunks)
        self._joined = None

    def append(self, lanes: Lanes, sizes: NDArray[np.int64], data: Bytes) -> None:
        """What each of `lanes` wrote, `sizes` bytes each, one after the other in `data`."""
        self._chunks.append((lanes, sizes, data))
        self._joined = None

    def of(self, lane: int) -> bytes:
        """All that a lane wrote."""
        if self._joined is None:
            self._joined = self._join()
        return self._common + self._joined.get(lane, b"")

    def _join(self) -> dict[int, bytes]:
        if not self._chunks:
            return {}
        lanes = np.concatenate([c[0] for c in self._chunks])
        sizes = np.concatenate([c[1] for c in self._chunks])
        data = np.concatenate([c[2] for c in self._chunks])
        # Sort the bytes by lane, keeping each lane's order; then cut.
        owner = np.repeat(lanes, sizes)
        order = np.argsort(owner, kind="stable")
        text = data[order].tobytes()
        totals = np.bincount(owner, minlength=self.lanes)
        ends = np.cumsum(totals)
        found = {int(i): text[ends[i] - totals[i] : ends[i]] for i in np.flatnonzero(totals)}
        self._chunks = [(lanes, sizes, data)]
        return found
