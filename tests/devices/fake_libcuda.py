"""What stands behind `libcuda.c`: the driver's C interface on the fake driver, called by NVIDIA's own bindings.

`python -m tests.devices.fake_libcuda`, with the library's folder in LD_LIBRARY_PATH, uses the device "cuda" through it
and prints what came of it as JSON. A process of its own, since a library can be loaded only once.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from cuda.bindings import driver as api

import vmjit
from tests.cli.conftest import guest
from tests.devices.fake_cuda import FakeCuda, Fault, Gpu
from vmjit.devices.cuda import CudaDevice
from vmjit.devices.cuda_driver import CudaFunction
from vmjit.devices.driver_error import DriverError
from vmjit.devices.registry import open_device
from vmjit.errors import DeviceError, DeviceMemoryError, KernelLoadError
from vmjit.translators.cuda import CudaTarget

UNKNOWN_STATUS = 987_654  # newer than the bindings
DEVICE, CONTEXT, STREAM, OTHER_CONTEXT = 0, 0x1000, 0x2000, 0x3000
NEED_CONTEXT = ("cuMem", "cuModule", "cuFunc", "cuOccupancy", "cuLaunch", "cuStream")


class Rectangle(ctypes.Structure):
    """CUDA_MEMCPY2D_v2 of cuda.h."""

    _fields_ = [
        *((f"src{n}", ctypes.c_size_t) for n in ("X", "Y")),
        ("srcType", ctypes.c_uint),
        *((f"src{n}", ctypes.c_uint64) for n in ("Host", "Device", "Array", "Pitch")),
        *((f"dst{n}", ctypes.c_size_t) for n in ("X", "Y")),
        ("dstType", ctypes.c_uint),
        *((f"dst{n}", ctypes.c_uint64) for n in ("Host", "Device", "Array", "Pitch")),
        *((n, ctypes.c_size_t) for n in ("width", "height")),
    ]


def u32(value: int) -> int:
    return value & 0xFFFFFFFF


def put(address: int, value: int, kind: Any = ctypes.c_uint64) -> None:
    kind.from_address(address).value = value


def host(address: int, rows: int, pitch: int, size: int) -> np.ndarray:
    """Rows of bytes of this process."""
    every = np.ctypeslib.as_array((ctypes.c_uint8 * (pitch * (rows - 1) + size)).from_address(address))
    return np.lib.stride_tricks.as_strided(every, (rows, size), (pitch, 1))


class Library:
    """The functions of the C interface by their names; each gives nothing or raises `DriverError`."""

    def __init__(self, fake: FakeCuda) -> None:
        self.fake = fake
        self.contexts: list[int] = []
        self.things: dict[int, Any] = {}  # modules and functions by their handles
        self.texts: list[Any] = []
        self.deepest = 0

    def call(self, name: str, a: Any) -> int:
        try:
            if name.startswith(NEED_CONTEXT) and self.contexts[-1:] != [CONTEXT]:
                raise DriverError("CUDA_ERROR_INVALID_CONTEXT", "")
            getattr(self, name)(a)
        except DriverError as error:
            return UNKNOWN_STATUS if error.status == "unknown" else int(getattr(api.CUresult, error.status))
        return 0

    def _new(self, thing: Any) -> int:
        handle = 0x10000 + 16 * len(self.things)
        self.things[handle] = thing
        return handle

    # Arguments are in the order of cuda.h.

    def cuInit(self, a: Any) -> None: ...  # noqa: N802

    def cuDriverGetVersion(self, a: Any) -> None:  # noqa: N802
        put(a[0], 13020, ctypes.c_int)

    def cuDeviceGetCount(self, a: Any) -> None:  # noqa: N802
        put(a[0], 1, ctypes.c_int)

    def cuDeviceGet(self, a: Any) -> None:  # noqa: N802
        put(a[0], DEVICE, ctypes.c_int)

    def cuDeviceGetName(self, a: Any) -> None:  # noqa: N802
        text = self.fake.properties.name.encode() + b"\0"
        ctypes.memmove(a[0], text, min(len(text), u32(a[1])))

    def cuDeviceGetAttribute(self, a: Any) -> None:  # noqa: N802
        known = self.fake.properties
        values = {
            "COMPUTE_CAPABILITY_MAJOR": known.capability[0],
            "COMPUTE_CAPABILITY_MINOR": known.capability[1],
            "MULTIPROCESSOR_COUNT": known.multiprocessors,
            "CLOCK_RATE": known.clock * 1000,
            "L2_CACHE_SIZE": known.l2,
            "WARP_SIZE": known.warp,
            "MAX_PITCH": known.max_pitch,
        }
        name = api.CUdevice_attribute(u32(a[1])).name.removeprefix("CU_DEVICE_ATTRIBUTE_")
        put(a[0], values[name], ctypes.c_int)

    def cuDeviceTotalMem(self, a: Any) -> None:  # noqa: N802
        put(a[0], self.fake.properties.memory)

    def cuDevicePrimaryCtxRetain(self, a: Any) -> None:  # noqa: N802
        put(a[0], CONTEXT)

    def cuCtxPushCurrent(self, a: Any) -> None:  # noqa: N802
        self.contexts.append(a[0])
        self.deepest = max(self.deepest, len(self.contexts))

    def cuCtxPopCurrent(self, a: Any) -> None:  # noqa: N802
        put(a[0], self.contexts.pop())

    def cuMemGetInfo(self, a: Any) -> None:  # noqa: N802
        put(a[0], self.fake.memory_free())
        put(a[1], self.fake.properties.memory)

    def cuMemAlloc(self, a: Any) -> None:  # noqa: N802
        put(a[0], self.fake.allocate(a[1]))

    def cuMemFree(self, a: Any) -> None:  # noqa: N802
        self.fake.free(a[0])

    def cuMemsetD8Async(self, a: Any) -> None:  # noqa: N802
        assert (a[1] & 0xFF, a[3]) == (0, STREAM)
        self.fake.clear(a[0], a[2])

    def cuMemcpyHtoDAsync(self, a: Any) -> None:  # noqa: N802
        assert a[3] == STREAM
        self.fake.write(a[0], 0, host(a[1], 1, 0, a[2]))

    def cuMemcpyDtoHAsync(self, a: Any) -> None:  # noqa: N802
        assert a[3] == STREAM
        self.fake.read(a[1], 0, host(a[0], 1, 0, a[2]))

    def cuMemcpy2DAsync(self, a: Any) -> None:  # noqa: N802
        r = Rectangle.from_address(a[0])
        assert a[1] == STREAM
        assert not (r.srcX)
        assert not (r.srcY)
        assert not (r.dstX)
        assert not (r.dstY)
        if (r.srcType, r.dstType) == (1, 2):  # host to device
            self.fake.write(r.dstDevice, r.dstPitch, host(r.srcHost, r.height, r.srcPitch, r.width))
        else:
            assert (r.srcType, r.dstType) == (2, 1)
            self.fake.read(r.srcDevice, r.srcPitch, host(r.dstHost, r.height, r.dstPitch, r.width))

    def cuModuleLoadDataEx(self, a: Any) -> None:  # noqa: N802
        count = u32(a[2])
        keys = (ctypes.c_int * count).from_address(a[3])
        values = (ctypes.c_uint64 * count).from_address(a[4])
        options = dict(zip(keys, values, strict=True))
        try:
            put(a[0], self._new(self.fake.load([ctypes.string_at(a[1])])))
        except DriverError as error:
            room = u32(options[int(api.CUjit_option.CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES)])
            log = error.text.encode()[: room - 1] + b"\0"
            ctypes.memmove(options[int(api.CUjit_option.CU_JIT_ERROR_LOG_BUFFER)], log, len(log))
            raise

    def cuModuleUnload(self, a: Any) -> None:  # noqa: N802
        self.fake.unload(self.things.pop(a[0]))

    def cuModuleGetFunction(self, a: Any) -> None:  # noqa: N802
        put(a[0], self._new(self.fake.function(self.things[a[1]], ctypes.string_at(a[2]).decode())))

    def cuFuncGetAttribute(self, a: Any) -> None:  # noqa: N802
        function: CudaFunction = self.things[a[2]]
        kinds = api.CUfunction_attribute
        values = {
            kinds.CU_FUNC_ATTRIBUTE_NUM_REGS: function.registers,
            kinds.CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES: function.local_bytes,
            kinds.CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: function.max_threads,
        }
        put(a[0], values[kinds(u32(a[1]))], ctypes.c_int)

    def cuOccupancyMaxActiveBlocksPerMultiprocessor(self, a: Any) -> None:  # noqa: N802
        put(a[0], self.fake.resident_blocks(self.things[a[1]], u32(a[2])), ctypes.c_int)

    def cuLaunchKernel(self, a: Any) -> None:  # noqa: N802
        assert [u32(a[n]) for n in (2, 3, 5, 6, 7)] == [1, 1, 1, 1, 0]
        assert (a[8], a[10]) == (STREAM, 0)
        function: CudaFunction = self.things[a[0]]
        count = len(function.handle._kernel(function.name).parameters)
        pointers = (ctypes.c_uint64 * count).from_address(a[9])
        arguments = [ctypes.c_uint64.from_address(pointer).value for pointer in pointers]
        self.fake.launch(function, u32(a[1]), u32(a[4]), arguments)

    def cuStreamCreate(self, a: Any) -> None:  # noqa: N802
        put(a[0], STREAM)

    def cuStreamSynchronize(self, a: Any) -> None:  # noqa: N802
        assert a[0] == STREAM
        self.fake.synchronize()

    def cuGetErrorName(self, a: Any) -> None:  # noqa: N802
        self._text(a[1], api.CUresult(u32(a[0])).name)

    def cuGetErrorString(self, a: Any) -> None:  # noqa: N802
        self._text(a[1], f"the text of {u32(a[0])}")

    def _text(self, place: int, text: str) -> None:
        self.texts.append(ctypes.create_string_buffer(text.encode()))
        put(place, ctypes.addressof(self.texts[-1]))


def install(library: Library) -> Any:
    """Make the library answer calls; what is given back is to be kept."""
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint64))
    handler = kind(lambda name, arguments: library.call(name.decode(), arguments))
    ctypes.CDLL("libcuda.so.1").set_handler(handler)
    return handler


def linking(device: CudaDevice) -> None:
    """Link what is given in parts, as a machine's kernels are where they are not linked before."""
    load = device.load
    device.load = lambda images, name: load(  # type: ignore[method-assign]
        device.target._linked(images) if len(images) > 1 else images, name
    )


def refused(action: Callable[[], Any]) -> dict[str, str]:
    try:
        action()
    except DeviceError as error:
        return {"kind": type(error).__name__, "message": error.message, "log": error.details.get("log", "")}
    return {}


def main() -> None:
    library = Library(FakeCuda(Gpu("Library GPU", multiprocessors=7, memory=1 << 28)))
    kept = install(library)
    library.contexts.append(OTHER_CONTEXT)
    device = open_device("cuda")
    assert isinstance(device, CudaDevice)
    device.target = CudaTarget("sm_90", machine_code=False)
    linking(device)
    info = device.info()
    prog = vmjit.load(guest("echo", "rv64imac"))
    inputs = [bytes([65 + lane % 26]) * (lane % 7) for lane in range(35)]
    outputs = []
    for where in ("cpu", "cuda"):
        m = vmjit.Machine(prog, 35, where, "interpreter", "16KiB")
        m.set_input(inputs)
        outputs.append([m.run().output(lane).hex() for lane in range(35)])
    content = np.arange(6000, dtype=np.uint8)
    buffer = device.allocate(6000)
    device.copy_to(buffer, content.reshape(60, 100)[:, :50], 7, 70)
    places = np.arange(5999, 0, -7)
    found = {
        "info": [info.name, info.architecture, info.multiprocessors, info.clock, info.l2, info.memory_total],
        "free": info.memory_free,
        "driver": device.driver.properties.driver,
        "same": outputs[0] == outputs[1],
        "rows": bool((device.copy_from(buffer, 50, 7, 70, 60) == content.reshape(60, 100)[:, :50]).all()),
        "bytes": bool((device.gather(buffer, places) == device.copy_from(buffer, 6000)[0, places]).all()),
        "launches": sorted({one.name for one in library.fake.log.launches}),
        "other context": library.contexts == [OTHER_CONTEXT],
        "deepest": library.deepest,
        DeviceMemoryError.__name__: refused(lambda: device.allocate(1 << 29)),
        KernelLoadError.__name__: refused(lambda: device.load([b".version 8.0\nnonsense"], "k")),
    }
    library.fake.faults = [Fault("synchronize", library.fake.log.calls["synchronize"] + 1, "unknown")]
    found["unknown"] = refused(device.synchronize)
    found["second"] = refused(lambda: open_device("cuda:1"))
    del kept
    print(json.dumps(found))


if __name__ == "__main__":
    main()
