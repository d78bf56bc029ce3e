"""One lane's memory as the reference evaluator wants it, with its permissions."""

from __future__ import annotations

import numpy as np

from vmjit.ir.evaluate import Trap
from vmjit.kernels.layout import PERMISSION_EXECUTE
from vmjit.machine import Machine

# Bytes of code in one case.
_MOST_CODE = 16 << 10


class LaneBytes:
    """Reads and writes raise `Trap` where the lane may not."""

    def __init__(self, machine: Machine, lane: int = 0) -> None:
        self._machine = machine
        self._lane = np.array([lane], np.int64)

    def read(self, address: int, size: int) -> bytes:
        found = self.peek(address, size, by_host=False)
        if found is None:
            raise Trap("read", address)
        return found

    def write(self, address: int, data: bytes) -> None:
        given, place = np.frombuffer(data, np.uint8), np.array([address], np.uint64)
        if not self._machine._lane_memory.scatter(self._lane, place, np.array([len(data)]), given)[0]:
            raise Trap("write", address)

    def peek(self, address: int, size: int, *, by_host: bool = True) -> bytes | None:
        """What is there, if there is memory; what the lane may do does not count unless asked for."""
        place, wanted = np.array([address], np.uint64), np.array([size])
        data, good = self._machine._lane_memory.gather(self._lane, place, wanted, by_host=by_host)
        return data.tobytes() if good[0] else None

    def fetch(self, pc: int, size: int) -> bytes:
        """The bytes that can be executed from there on, at most `size`."""
        spaces = self._machine.environment.spaces
        for count in (size, size // 2):
            place, wanted = np.array([pc], np.uint64), np.array([count])
            if spaces is not None:
                there = bool(spaces.permitted(self._lane, place, wanted, PERMISSION_EXECUTE)[0])
            else:
                spans = self._machine._layout.spans
                there = any(s.executable and s.lo <= pc and pc + count <= s.end for s in spans)
            if there:
                return self.peek(pc, count) or b""
        return b""

    def fetch_all(self, start: int, end: int) -> bytes:
        """What can be executed in a range; ValueError where it is long or something in it cannot be."""
        if end - start > _MOST_CODE:
            raise ValueError(f"{end - start} bytes of code are too many for one case")
        found = b"".join(self.fetch(place, 2) for place in range(start, end, 2))
        if len(found) != end - start:
            raise ValueError("not all of the code can be executed")
        return found


class RecordedBytes(LaneBytes):
    """The same, of which writes are noted and not done. `touched` has (address, bytes, whether it stores)."""

    def __init__(self, machine: Machine, lane: int = 0) -> None:
        super().__init__(machine, lane)
        self.touched: list[tuple[int, bytes, bool]] = []

    def read(self, address: int, size: int) -> bytes:
        found = super().read(address, size)
        self.touched.append((address, found, False))
        return found

    def write(self, address: int, data: bytes) -> None:
        self.touched.append((address, data, True))
