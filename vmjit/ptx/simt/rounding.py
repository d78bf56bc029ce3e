"""NumPy's floating-point arithmetic in a directed rounding mode, through the C library of the host."""

from __future__ import annotations

import ctypes
import platform
from types import TracebackType
from typing import Any

from vmjit.ptx.errors import PtxUnsupported

# The values of FE_TONEAREST, FE_DOWNWARD, FE_UPWARD and FE_TOWARDZERO in <fenv.h>.
_MODES_BY_MACHINE = {
    "x86_64": (0, 0x400, 0x800, 0xC00),
    "AMD64": (0, 0x400, 0x800, 0xC00),
    "aarch64": (0, 0x800000, 0x400000, 0xC00000),
    "arm64": (0, 0x800000, 0x400000, 0xC00000),
}
_ORDER = {"rn": 0, "rni": 0, "rm": 1, "rmi": 1, "rp": 2, "rpi": 2, "rz": 3, "rzi": 3}

_library: Any = None


def c_library() -> Any:
    """The C library that this process has loaded."""
    global _library
    if _library is None:
        _library = ctypes.CDLL(None)
        _library.fma.restype = ctypes.c_double
        _library.fma.argtypes = [ctypes.c_double] * 3
    return _library


class Rounding:
    """`with Rounding("rz"):` arithmetic of this thread rounds that way. Raises `PtxUnsupported` where it cannot."""

    def __init__(self, mode: str) -> None:
        modes = _MODES_BY_MACHINE.get(platform.machine())
        if modes is None:
            raise PtxUnsupported(f"directed rounding on {platform.machine()}")
        self._mode = modes[_ORDER[mode]]

    def __enter__(self) -> None:
        self._before = c_library().fegetround()
        if c_library().fesetround(self._mode):
            raise PtxUnsupported("this host does not round in a directed mode")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        c_library().fesetround(self._before)
