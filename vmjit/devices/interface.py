"""What a device is to vmjit: memory, copies, kernels of one argument, and what is known about it.

A device implements `Device`; the translator of its kernels implements `DeviceTarget`. Every method may raise a
`DeviceError`, which ends the run on that device and nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vmjit.ir.registers import RegisterFile
from vmjit.translators.device_region import DeviceWindowPlan
from vmjit.translators.interpreter import TemplateKey
from vmjit.translators.regions import Region

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class DeviceInfo:
    """What is known about a device; 0 or "" where something is not known.

    memory_total, memory_free, l2: bytes. clock: MHz. architecture: compute capability (sm_90) or gfx name. lockstep:
    lanes of a warp or wavefront, which move together.
    """

    name: str
    kind: str
    architecture: str = ""
    memory_total: int = 0
    memory_free: int = 0
    multiprocessors: int = 0
    clock: int = 0
    l2: int = 0
    lockstep: int = 1


@dataclass(frozen=True)
class Buffer:
    """`size` bytes of device memory at `address`; `handle` is the device's own."""

    address: int
    size: int
    handle: Any


def check_range(buffer: Buffer, size: int, offset: int, pitch: int = 0, rows: int = 1) -> None:
    """Raises IndexError where so many rows of `size` bytes, `pitch` bytes apart, leave the buffer."""
    end = offset + (pitch * (rows - 1) + size if rows else 0)
    if min(offset, size, pitch, rows) < 0 or end > buffer.size:
        raise IndexError(f"{rows} rows of {size} bytes at {offset} leave a buffer of {buffer.size}")


def check_offsets(buffer: Buffer, offsets: NDArray[np.int64]) -> None:
    """Raises IndexError where one of the offsets is not in the buffer."""
    if len(offsets) and (int(offsets.min()) < 0 or int(offsets.max()) >= buffer.size):
        raise IndexError(f"an offset between {offsets.min()} and {offsets.max()} leaves a buffer of {buffer.size}")


@dataclass(frozen=True)
class Kernel:
    """Loaded code that can be launched; `handle` is the device's own."""

    name: str
    handle: Any


class DeviceTarget(Protocol):
    """Translates for one kind of device. Images are PTX, object files, whatever its `link` understands."""

    identity: tuple[str, ...]
    """What images depend on besides the IR: part of every cache key."""

    def compile_interpreter(self, registers: RegisterFile, keys: Sequence[TemplateKey], name: str) -> bytes: ...

    def compile_region(
        self, region: Region, registers: RegisterFile, windows: DeviceWindowPlan, name: str
    ) -> bytes: ...

    def compile_kernel(self, registers: RegisterFile, interpreter: str, regions: Sequence[str], name: str) -> bytes:
        """The kernel: lane by lane between the interpreter and regions, which are in other images."""

    links: bool
    """Whether `link` makes one image that is worth keeping; else it gives the images as they are."""

    def link(self, images: Sequence[bytes], registers: RegisterFile) -> list[bytes]:
        """What `Device.load` takes, from a kernel's image and those it needs; the same for the same `identity`.

        Raises `CompileError`.
        """

    def report(self, linked: Sequence[bytes]) -> dict[str, int]:
        """What linked code needs of a device, by name, as far as it was told when it was linked."""


class Device(ABC):
    """One device. Its `name` is what users write, such as `cuda:0`."""

    name: str
    target: DeviceTarget

    @abstractmethod
    def info(self) -> DeviceInfo: ...

    @abstractmethod
    def allocate(self, size: int) -> Buffer:
        """`size` zero bytes. Raises `DeviceMemoryError`."""

    @abstractmethod
    def free(self, buffer: Buffer) -> None:
        """Give the memory back now. Without, it goes when nobody has the buffer any more."""

    @abstractmethod
    def clear(self, buffer: Buffer) -> None:
        """Make every byte zero."""

    @abstractmethod
    def copy_to(self, buffer: Buffer, data: Bytes, offset: int = 0, pitch: int = 0) -> None:
        """Copy (n,) bytes to an offset, or the rows of (rows, n) to offsets that are `pitch` bytes apart.

        Raises IndexError where that leaves the buffer, as do the other accesses.
        """

    def fill(self, buffer: Buffer, data: Bytes, offset: int, pitch: int, rows: int) -> None:
        """Copy the same (n,) bytes to `rows` offsets that are `pitch` bytes apart."""
        self.copy_to(buffer, np.broadcast_to(data, (rows, len(data))), offset, pitch)

    @abstractmethod
    def copy_from(self, buffer: Buffer, size: int, offset: int = 0, pitch: int = 0, rows: int = 1) -> Bytes:
        """(rows, size) bytes from offsets that are `pitch` bytes apart."""

    @abstractmethod
    def gather(self, buffer: Buffer, offsets: NDArray[np.int64]) -> Bytes:
        """The bytes at these offsets, (n,)."""

    @abstractmethod
    def scatter(self, buffer: Buffer, offsets: NDArray[np.int64], data: Bytes) -> None:
        """Write bytes to these offsets, which are all different."""

    @abstractmethod
    def load(self, images: Sequence[bytes], name: str) -> Kernel:
        """Load the kernel called `name` from linked images. Raises `KernelLoadError`."""

    @abstractmethod
    def launch(self, kernel: Kernel, threads: int, argument: int) -> None:
        """Start the kernel with at least `threads` threads and one 64-bit argument."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for what was launched. Raises `KernelExecutionError`."""
