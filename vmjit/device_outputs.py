"""What a part's lanes write while a launch runs: buffers on the device, and the records in them by stream."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vmjit.device_buffers import DeviceBuffers
from vmjit.devices.interface import Buffer
from vmjit.errors import DeviceMemoryError
from vmjit.kernels.device_layout import OUTPUT_HEADER, OUTPUT_STREAM_SHIFT, OUTPUT_WRITES_SHIFT

# Bytes for all lanes of a part, and for one of them: less than 64 KiB, so that a record's header can say its size.
_MOST = 64 << 20
_MOST_OF_LANE, _LEAST_OF_LANE = 4096, 128

_SIZE, _WRITES = (1 << OUTPUT_WRITES_SHIFT) - 1, (1 << OUTPUT_STREAM_SHIFT - OUTPUT_WRITES_SHIFT) - 1
_STREAMS = (1, 2)


class Written(NamedTuple):
    """What lanes wrote to one stream: `sizes` bytes each, in so many `writes`, one lane's after the other in `data`."""

    stream: int
    lanes: NDArray[np.intp]
    sizes: NDArray[np.int64]
    writes: NDArray[np.int64]
    data: NDArray[np.uint8]


def bytes_of_lane(lanes: int) -> int:
    """The size of a lane's buffer where there are so many; 0: none has one."""
    size = min(_MOST // max(lanes, 1), _MOST_OF_LANE) & -4
    return size if size >= _LEAST_OF_LANE else 0


class DeviceOutputs:
    """The buffers of `lanes` lanes, one behind the other; of none where the device has no memory for them."""

    def __init__(self, buffers: DeviceBuffers, lanes: int) -> None:
        self._device = buffers.device
        self.size = bytes_of_lane(lanes)
        self._buffer: Buffer | None = None
        if self.size:
            try:
                self._buffer = buffers.allocate(lanes * self.size)
            except DeviceMemoryError:  # the host serves every write then
                self.size = 0
        first = self._buffer.address if self._buffer is not None else 0
        self.starts = np.uint64(first) + np.arange(lanes, dtype=np.uint64) * np.uint64(self.size)
        """Where the lanes' buffers are."""

    def ends(self, room: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Where the parts of the lanes' buffers end that they may use: `room` bytes at most."""
        ends: NDArray[np.uint64] = self.starts + (np.minimum(room, self.size) & -4).astype(np.uint64)
        return ends

    def download(self, ends: NDArray[np.uint64]) -> list[Written]:
        """The records up to each lane's end."""
        used = (ends - self.starts).astype(np.int64)
        having = np.flatnonzero(used)
        if self._buffer is None or not len(having):
            return []
        first, last = int(having[0]), int(having[-1]) + 1
        used = used[first:last]
        rows = self._device.copy_from(self._buffer, int(used.max()), first * self.size, self.size, last - first)
        return read_records(rows, used, first)


def read_records(rows: NDArray[np.uint8], used: NDArray[np.int64], first: int) -> list[Written]:
    """The records in (lanes, n) bytes of the lanes from `first` on, in each as many as are `used`."""
    words = rows.view(np.uint32)
    # The number of the stream that a byte is for, at first where that changes.
    stream_of = np.zeros((len(rows), rows.shape[1] + 1), np.int8)
    sizes, writes = (np.zeros((max(_STREAMS) + 1, len(rows)), np.int64) for _ in range(2))
    lanes, places = np.flatnonzero(used), np.zeros(len(rows), np.int64)
    while len(lanes):  # the next record of all lanes that have one more
        start = places[lanes]
        headers = words[lanes, start // 4].astype(np.int64)
        size, vectors = headers & _SIZE, headers >> OUTPUT_WRITES_SHIFT & _WRITES
        streams = headers >> OUTPUT_STREAM_SHIFT
        start += OUTPUT_HEADER * vectors
        stream_of[lanes, start] += streams.astype(np.int8)
        stream_of[lanes, start + size] -= streams.astype(np.int8)
        sizes[streams, lanes] += size
        writes[streams, lanes] += vectors
        places[lanes] = (start + size + 3) & -4
        lanes = lanes[places[lanes] < used[lanes]]
    np.cumsum(stream_of, axis=1, dtype=np.int8, out=stream_of)
    found = []
    for stream in _STREAMS:
        having = np.flatnonzero(writes[stream])
        if len(having):
            data: NDArray[np.uint8] = rows[stream_of[:, :-1] == stream]
            found.append(Written(stream, having + first, sizes[stream, having], writes[stream, having], data))
    return found
