"""The HIP back end with a driver in host memory: what reaches the runtime, and what becomes of its errors.

What kernels compute is not tested here: code objects are for GPUs that are not there. `test_amd_regions.py` runs what
is emitted for AMD on this computer.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from vmjit.devices import hip
from vmjit.devices.driver_error import DriverError
from vmjit.devices.hip_driver import HipProperties
from vmjit.devices.registry import BACK_ENDS, open_device
from vmjit.errors import (
    ArgumentError,
    DeviceCopyError,
    DeviceError,
    DeviceInitializationError,
    DeviceMemoryError,
    DeviceMissingError,
    KernelExecutionError,
    KernelLoadError,
)
from vmjit.translators.hip import GATHER, SCATTER, THREADS_PER_BLOCK


class FakeDriver:
    """Device memory is host memory; of kernels it knows the two that copy. `failing`: status by name of the call."""

    def __init__(self, ordinal: int = 0) -> None:
        self.ordinal = ordinal
        self.properties = HipProperties("AMD Instinct", "gfx90a", 104, 1700, 8 << 20, 64 << 30, 64)
        self.memory: dict[int, np.ndarray[Any, np.dtype[np.uint8]]] = {}
        self.modules: set[bytes] = set()
        self.launched: list[tuple[str, int, int, int]] = []
        self.failing: dict[str, str] = {}

    def _maybe_fail(self, call: str) -> None:
        if call in self.failing:
            raise DriverError(self.failing[call], f"{call} failed")

    def memory_free(self) -> int:
        self._maybe_fail("memory_free")
        return 63 << 30

    def allocate(self, size: int) -> int:
        self._maybe_fail("allocate")
        array = np.full(size, 0xAA, np.uint8)
        self.memory[int(array.ctypes.data)] = array
        return int(array.ctypes.data)

    def free(self, address: int) -> None:
        del self.memory[address]

    def clear(self, address: int, size: int) -> None:
        self._maybe_fail("clear")
        ctypes.memset(address, 0, size)

    def _rows(self, address: int, pitch: int, rows: Any) -> Any:
        assert any(a <= address < a + m.size for a, m in self.memory.items())
        assert rows.flags.c_contiguous
        assert len(rows) == 1 or pitch >= rows.shape[1]
        extent = pitch * (len(rows) - 1) + rows.shape[1]
        flat = np.ctypeslib.as_array((ctypes.c_uint8 * extent).from_address(address))
        return np.lib.stride_tricks.as_strided(flat, rows.shape, (pitch, 1))

    def write(self, address: int, pitch: int, rows: Any) -> None:
        self._maybe_fail("write")
        self._rows(address, pitch, rows)[:] = rows

    def read(self, address: int, pitch: int, rows: Any) -> None:
        self._maybe_fail("read")
        rows[:] = self._rows(address, pitch, rows)

    def load(self, images: Sequence[bytes]) -> bytes:
        (image,) = images
        self._maybe_fail("load")
        self.modules.add(image)
        return image

    def unload(self, module: bytes) -> None:
        self.modules.remove(module)

    def function(self, module: bytes, name: str) -> str:
        assert module in self.modules
        self._maybe_fail("function")
        return name

    def launch(self, function: str, groups: int, items: int, argument: int) -> None:
        self._maybe_fail("launch")
        self.launched.append((function, groups, items, argument))
        if function in (GATHER, SCATTER):
            memory, offsets, data, count = (ctypes.c_uint64 * 4).from_address(argument)
            assert groups * items >= count
            for i in range(count):
                place = memory + ctypes.c_int64.from_address(offsets + 8 * i).value
                source, target = (place, data + i) if function == GATHER else (data + i, place)
                ctypes.memmove(target, source, 1)

    def synchronize(self) -> None:
        self._maybe_fail("synchronize")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> hip.HipDevice:
    made = hip.HipDevice("hip:1", open_driver=FakeDriver)
    # Linking wants a linker, and what is in a code object is all the same to this driver.
    monkeypatch.setattr(hip.HipTarget, "copy_kernel", lambda self, name: [name.encode()])
    return made


def driver_of(device: hip.HipDevice) -> Any:
    return device.driver


def test_what_is_known(device: hip.HipDevice) -> None:
    info = device.info()
    assert (device.name, driver_of(device).ordinal) == ("hip:1", 1)
    assert (info.name, info.kind, info.architecture, info.lockstep) == ("AMD Instinct", "hip", "gfx90a", 64)
    assert (info.memory_total, info.memory_free) == (64 << 30, 63 << 30)
    assert (info.multiprocessors, info.clock, info.l2) == (104, 1700, 8 << 20)
    assert device.target.identity[:3] == ("hip", "gfx90a", "+wavefrontsize64")


@pytest.mark.parametrize("name", ["hip:", "hip:-1", "hip:x", "hipp"])
def test_names_of_no_device(name: str) -> None:
    with pytest.raises(ArgumentError, match="there are hip, hip:0"):
        hip.HipDevice(name, open_driver=FakeDriver)


def test_memory_is_cleared_and_given_back(device: hip.HipDevice) -> None:
    driver = driver_of(device)
    buffer = device.allocate(100)
    assert not device.copy_from(buffer, 100).any()
    device.copy_to(buffer, np.full(100, 7, np.uint8))
    device.clear(buffer)
    assert not device.copy_from(buffer, 100).any()
    device.free(buffer)
    device.free(buffer)
    assert not driver.memory
    forgotten = device.allocate(10)
    assert len(driver.memory) == 1
    del forgotten
    gc.collect()
    after = device.allocate(20)  # garbage goes before something is allocated
    assert len(driver.memory) == 1
    device.free(after)
    assert not driver.memory


@pytest.mark.parametrize(("rows", "size", "pitch"), [(1, 5, 0), (4, 3, 10), (4, 3, 3), (3, 6, 2), (2, 0, 4)])
def test_copies_with_a_pitch(device: hip.HipDevice, rows: int, size: int, pitch: int) -> None:
    buffer = device.allocate(64)
    data = np.arange(rows * size, dtype=np.uint8).reshape(rows, size) + 1
    device.copy_to(buffer, data, offset=2, pitch=pitch)
    expected = np.zeros(64, np.uint8)
    for i, row in enumerate(data):
        expected[2 + i * pitch : 2 + i * pitch + size] = row
    np.testing.assert_array_equal(device.copy_from(buffer, 64)[0], expected)
    found = device.copy_from(buffer, size, 2, pitch, rows)
    np.testing.assert_array_equal(found, [expected[2 + i * pitch : 2 + i * pitch + size] for i in range(rows)])


def test_copies_stay_in_their_buffer(device: hip.HipDevice) -> None:
    buffer = device.allocate(16)
    for call in (
        lambda: device.copy_to(buffer, np.zeros(17, np.uint8)),
        lambda: device.copy_to(buffer, np.zeros((3, 2), np.uint8), pitch=8),
        lambda: device.copy_from(buffer, 4, offset=-1),
        lambda: device.gather(buffer, np.array([0, 16])),
        lambda: device.scatter(buffer, np.array([-1]), np.zeros(1, np.uint8)),
    ):
        with pytest.raises(IndexError):
            call()


def test_gather_and_scatter(device: hip.HipDevice) -> None:
    buffer = device.allocate(1000)
    offsets = np.random.default_rng(5).permutation(1000)[:300]
    data = np.arange(300, dtype=np.uint32).astype(np.uint8)
    device.scatter(buffer, offsets, data)
    expected = np.zeros(1000, np.uint8)
    expected[offsets] = data
    np.testing.assert_array_equal(device.copy_from(buffer, 1000)[0], expected)
    np.testing.assert_array_equal(device.gather(buffer, offsets[::-1]), data[::-1])
    assert not len(device.gather(buffer, np.empty(0, np.int64)))
    assert {name for name, *_ in driver_of(device).launched} == {GATHER, SCATTER}


def test_kernels_are_kept_and_launched_in_whole_groups(device: hip.HipDevice) -> None:
    kernel = device.load([b"code"], "vmjit_run_lanes")
    assert device.load([b"code"], "vmjit_run_lanes") is kernel
    device.launch(kernel, 2 * THREADS_PER_BLOCK + 1, 0x1234)
    device.synchronize()
    assert driver_of(device).launched == [("vmjit_run_lanes", 3, THREADS_PER_BLOCK, 0x1234)]
    del kernel
    for i in range(20):
        device.load([b"%d" % i], "k")
    gc.collect()
    assert len(driver_of(device).modules) < 20


@pytest.mark.parametrize(
    ("call", "status", "kind"),
    [
        ("allocate", "hipErrorOutOfMemory", DeviceMemoryError),
        ("clear", "hipErrorInvalidValue", DeviceCopyError),
        ("write", "hipErrorInvalidValue", DeviceCopyError),
        ("read", "hipErrorIllegalAddress", KernelExecutionError),
        ("load", "hipErrorNoBinaryForGpu", KernelLoadError),
        ("function", "hipErrorNotFound", KernelLoadError),
        ("launch", "hipErrorInvalidConfiguration", KernelExecutionError),
        ("synchronize", "hipErrorLaunchFailure", KernelExecutionError),
        ("memory_free", "hipErrorInvalidDevice", DeviceInitializationError),
    ],
)
def test_errors(device: hip.HipDevice, call: str, status: str, kind: type[DeviceError]) -> None:
    buffer = device.allocate(8)
    kernel = device.load([b"first"], "k")
    driver_of(device).failing[call] = status
    ways = {
        "allocate": lambda: device.allocate(8),
        "clear": lambda: device.clear(buffer),
        "write": lambda: device.copy_to(buffer, np.zeros(8, np.uint8)),
        "read": lambda: device.copy_from(buffer, 8),
        "load": lambda: device.load([b"other"], "k"),
        "function": lambda: device.load([b"other"], "k"),
        "launch": lambda: device.launch(kernel, 1, 0),
        "synchronize": device.synchronize,
        "memory_free": device.info,
    }
    with pytest.raises(DeviceError, match=status) as raised:
        ways[call]()
    assert type(raised.value) is kind
    assert (raised.value.device, raised.value.status) == ("hip:1", status)


def test_a_device_that_cannot_be_opened() -> None:
    def fail(ordinal: int) -> Any:
        raise DriverError("hipErrorNotInitialized", "no")

    with pytest.raises(DeviceInitializationError, match=r"hip:0: cannot be opened: hipErrorNotInitialized"):
        hip.HipDevice(open_driver=fail)


@pytest.mark.skipif(importlib.util.find_spec("numba.hip") is not None, reason="numba-hip is installed")
def test_without_rocm() -> None:
    assert "hip" in BACK_ENDS
    with pytest.raises(
        DeviceMissingError, match=r'environment of its own with: pip install "vmjit\[rocm\]"$'
    ) as raised:
        open_device("hip")
    assert raised.value.device == "hip:0"
