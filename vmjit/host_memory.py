"""Large arrays straight from the operating system: zero until touched, and given back by `discard`."""

from __future__ import annotations

import contextlib
import mmap
import sys

import numpy as np
from numpy.typing import NDArray

from vmjit.errors import MemoryLimitError

# Promise memory that may never be touched. Python's mmap has the name since 3.13; the number is Linux's.
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)

# Above this many bytes per lane, a huge page would be filled for the sake of the few small ones a lane touches.
_SPARSE = 64 << 10


class HostMemory:
    """`size` zero bytes at a fixed address."""

    def __init__(self, size: int, *, sparse_unit: int = 0) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
        try:
            self._map = mmap.mmap(-1, max(size, 1), flags=flags)
        except (OSError, ValueError, OverflowError) as error:
            raise MemoryLimitError(f"the host cannot give {size} bytes of memory: {error}", bytes=size) from error
        self.array: NDArray[np.uint8] = np.frombuffer(self._map, dtype=np.uint8)
        self.view = memoryview(self._map)
        """The same bytes: quicker than the array to write a few of."""
        self.address = int(self.array.ctypes.data)
        if sparse_unit > _SPARSE and hasattr(mmap, "MADV_NOHUGEPAGE"):
            with contextlib.suppress(OSError):  # a kernel without huge pages
                self._map.madvise(mmap.MADV_NOHUGEPAGE)

    def discard(self) -> None:
        """Make every byte zero again, giving the memory back to the operating system where it can be."""
        if hasattr(mmap, "MADV_DONTNEED") and hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED)
        else:
            self.array[:] = 0
