"""Machine code is loaded where memory is scarce but for far apart pieces, as beside the memory of many lanes."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_SCRIPT = """
import ctypes
from vmjit.translators.cpu import cpu_target

target = cpu_target()
steps = "\\n".join(f"  %x{i} = fmul double %x{i - 1}, %p" for i in range(1, 4000))
image = target.compile(f"define double @f(double %p) {{\\n %x0 = fadd double %p, 0.1\\n{steps}\\n ret double %x3999\\n}}")

libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
taken = lambda size: libc.mmap(None, size, 3, 0x4022, -1, 0)

# 16 GiB, and whatever is free above is filled, but for one page: room for a constant, not for code.
far = taken(16 << 30)
for shift in (30, 20, 16, 14, 13, 12):
    while (place := taken(1 << shift)) > far:
        last = place
    libc.munmap(place, 1 << shift)
libc.munmap(last, 4096)
code = target.load(image, ("f",))
print(ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(code.addresses["f"])(1.0))
"""


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="places of mappings are Linux's, for x86-64"
)
def test_code_and_its_constants_stay_together() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1.1\n"), done.stderr
