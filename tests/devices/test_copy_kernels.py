"""The copy kernels: in Numba's CUDA simulator, in the PTX machine, and through the device's methods."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")

from tests.devices.fake_cuda import FakeCuda, Gpu, device_on
from vmjit.devices import cuda as cuda_module
from vmjit.devices.cuda import CudaDevice
from vmjit.devices.interface import Buffer
from vmjit.devices.ptx import PtxDevice

_SIMULATED = """
import warnings
warnings.simplefilter("ignore")
import numpy as np
from numba import cuda
from vmjit.kernels import device_copy

assert "simulator" in cuda.jit.__module__
gather, scatter, fill = (
    cuda.jit(k) for k in (device_copy.vmjit_gather, device_copy.vmjit_scatter, device_copy.vmjit_fill)
)
rng = np.random.default_rng(1)
for size, count, block in ((1, 0, 1), (1, 1, 32), (7, 7, 3), (100, 41, 32), (256, 256, 64)):
    memory = rng.integers(0, 256, size, np.uint8)
    offsets = rng.permutation(size)[:count].astype(np.uint64)
    found = np.zeros(count, np.uint8)
    gather[count // block + 1, block](memory, offsets, found)
    assert (found == memory[offsets]).all()
    data = rng.integers(0, 256, count, np.uint8)
    want = memory.copy()
    want[offsets] = data
    scatter[count // block + 1, block](memory, offsets, data)
    assert (memory == want).all()
for rows, words, pitch, first, block in ((0, 3, 5, 0, 8), (1, 1, 1, 0, 1), (3, 5, 9, 2, 32), (7, 4, 4, 1, 16)):
    memory = rng.integers(0, 1 << 60, first + rows * pitch + words, np.uint64)
    pattern = rng.integers(0, 1 << 60, words, np.uint64)
    want = memory.copy()
    for row in range(rows):
        want[first + row * pitch : first + row * pitch + words] = pattern
    fill[rows * words // block + 1, block](memory, pattern, first, pitch, rows)
    assert (memory == want).all()
print("simulated")
"""


def test_in_the_simulator(repository: Path) -> None:
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": str(repository)}
    done = subprocess.run(
        [sys.executable, "-c", _SIMULATED], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "simulated", done.stderr


DEVICES = {"ptx": PtxDevice(), "fake": device_on(FakeCuda(Gpu(max_pitch=64)))}


def filled(device: CudaDevice, content: np.ndarray) -> Buffer:
    buffer = device.allocate(len(content))
    device.copy_to(buffer, content)
    return buffer


@pytest.mark.parametrize("name", DEVICES)
@settings(max_examples=40)
@given(st.integers(1, 3000), st.integers(0, 3000), st.integers(0, 1 << 30))
def test_gather_and_scatter(name: str, size: int, count: int, seed: int) -> None:
    device = DEVICES[name]
    rng = np.random.default_rng(seed)
    content = rng.integers(0, 256, size, np.uint8)
    buffer = filled(device, content)
    offsets = rng.permutation(size)[:count]
    assert (device.gather(buffer, offsets) == content[offsets]).all()
    data = rng.integers(0, 256, len(offsets), np.uint8)
    device.scatter(buffer, offsets, data)
    content[offsets] = data
    assert (device.copy_from(buffer, size)[0] == content).all()
    device.free(buffer)


@pytest.mark.parametrize("name", DEVICES)
@settings(max_examples=40)
@given(st.integers(0, 80), st.integers(0, 40), st.integers(0, 6), st.integers(0, 20), st.sampled_from([1, 4, 8]))
def test_fill(name: str, size: int, gap: int, rows: int, offset: int, unit: int) -> None:
    """Words are filled by the kernel, and what is no multiple of words is copied."""
    device = DEVICES[name]
    rng = np.random.default_rng(size)
    size, gap, offset = size * unit, gap * unit, offset * unit
    pitch = size + gap
    content = rng.integers(0, 256, offset + rows * pitch + 8, np.uint8)
    pattern = rng.integers(0, 256, size, np.uint8)
    buffer = filled(device, content)
    device.fill(buffer, pattern, offset, pitch, rows)
    for row in range(rows):
        content[offset + row * pitch : offset + row * pitch + size] = pattern
    assert (device.copy_from(buffer, len(content))[0] == content).all()
    device.free(buffer)


def test_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """More elements than one launch takes, and a pattern too long for the scratch memory."""
    monkeypatch.setattr(cuda_module, "_COPIED_AT_ONCE", 64)
    fake = FakeCuda()
    device = device_on(fake)
    content = np.random.default_rng(3).integers(0, 256, 1000, np.uint8)
    buffer = filled(device, content)
    offsets = np.random.default_rng(4).permutation(1000)[:300]
    assert (device.gather(buffer, offsets) == content[offsets]).all()
    assert [(one.name, one.blocks) for one in fake.log.launches] == [("vmjit_gather", 2)] * 5
    device.scatter(buffer, offsets, content[offsets] ^ 1)
    content[offsets] ^= 1
    device.fill(buffer, content[:128], 200, 400, 2)
    content[200:328] = content[600:728] = content[:128]
    assert (device.copy_from(buffer, 1000)[0] == content).all()
    assert "vmjit_fill" not in {one.name for one in fake.log.launches}


@pytest.mark.parametrize("name", DEVICES)
def test_what_leaves_the_buffer(name: str) -> None:
    device = DEVICES[name]
    buffer = filled(device, np.zeros(100, np.uint8))
    for offsets in ([100], [-1], [3, 1 << 40]):
        with pytest.raises(IndexError, match="leaves a buffer of 100"):
            device.gather(buffer, np.array(offsets))
        with pytest.raises(IndexError, match="leaves a buffer of 100"):
            device.scatter(buffer, np.array(offsets), np.zeros(len(offsets), np.uint8))
    for offset, pitch, rows in ((-8, 8, 1), (96, 8, 1), (0, 48, 3), (0, -8, 2)):
        with pytest.raises(IndexError, match="leave a buffer of 100"):
            device.fill(buffer, np.zeros(8, np.uint8), offset, pitch, rows)
    assert len(device.gather(buffer, np.zeros(0, np.int64))) == 0


def test_copies_are_not_counted_as_lanes() -> None:
    device = PtxDevice()
    buffer = filled(device, np.arange(64, dtype=np.uint8))
    device.gather(buffer, np.arange(64))
    assert device.counts.launches == device.counts.thread_instructions == 0
    assert device.driver.counts["vmjit_gather"].launches == 1
