"""Kernels for one machine on a device: the interpreter, its hot regions, and the kernel that goes between them.

Every part is translated once per content and kept in the cache on disk; a kernel is linked anew when a region joins.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from vmjit.cache import CodeCache, cache_key
from vmjit.decoders.riscv.decoder import all_templates
from vmjit.decoders.riscv.registers import REGISTERS
from vmjit.device_code import DeviceCodeSpace
from vmjit.devices.interface import Device, Kernel
from vmjit.errors import CompileError
from vmjit.ir.registers import RegisterFile
from vmjit.kernels.device_layout import MAX_REGION_ENTRIES
from vmjit.tiering import CompileStatistics, region_identity
from vmjit.translators.device_interpreter import device_keys
from vmjit.translators.device_region import DeviceWindowPlan
from vmjit.translators.interpreter import TemplateKey, template_key
from vmjit.translators.regions import Region

log = logging.getLogger("vmjit")

KERNEL_NAME = "vmjit_run_lanes"


@lru_cache(maxsize=4)
def interpreter_keys_of(xlen: int) -> tuple[TemplateKey, ...]:
    """The templates that the device interpreter of this width has cases for."""
    templates = [template_key(t.ops, t.terminator) for t in all_templates(xlen)]
    return tuple(device_keys(REGISTERS[xlen], templates))


@dataclass
class DeviceKernels:
    """What is translated for one machine. Regions join in any thread; `kernel` gives the newest linked one."""

    device: Device
    registers: RegisterFile
    windows: DeviceWindowPlan
    cache: CodeCache
    statistics: CompileStatistics = field(default_factory=CompileStatistics)

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self._regions: dict[str, bytes] = {}  # by name, in the order of their numbers
        self._kernel: Kernel | None = None
        self._linked = -1

    def _image(self, kind: str, parts: Sequence[str]) -> tuple[str, bytes | None]:
        key = cache_key(f"device {kind}", (*parts, *self.device.target.identity))
        return key, self.cache.load_image(key)

    @property
    def interpreter_name(self) -> str:
        return f"vmjit_interpret_{self.registers.name}"

    def _interpreter(self) -> bytes:
        key, image = self._image("interpreter", (self.registers.name,))
        if image is None:
            keys = interpreter_keys_of(self.registers.type.bits)
            image = self.device.target.compile_interpreter(self.registers, keys, self.interpreter_name)
            self.cache.disk.put(key, image)
            self.statistics.compiled += 1
        return image

    def add(self, space: DeviceCodeSpace, region: Region) -> bool:
        """Translate a region and have its blocks enter it from the next launch on. False where that failed."""
        if len(region.entries) > MAX_REGION_ENTRIES:
            region.entries = region.entries[:MAX_REGION_ENTRIES]
        key, image = self._image("region", (region_identity(region), repr(self.windows), self.registers.name))
        name = f"vmjit_region_{key[:16]}"
        if image is None:
            try:
                image = self.device.target.compile_region(region, self.registers, self.windows, name)
            except CompileError as error:
                self.statistics.failures += 1
                pc = region.entries[0]
                log.warning("the region at %#x could not be compiled and stays interpreted: %s", pc, error)
                return False
            self.cache.disk.put(key, image)
            self.statistics.compiled += 1
        with self.lock:
            self._regions.setdefault(name, image)
            number = list(self._regions).index(name) + 1
            first = region.entries[0]
            entries = [
                (pc, number << 8 | i) for i, pc in enumerate(region.entries) if pc == first or not space.entry(pc)
            ]
            space.install(entries)
            space.covered.update({pc: space.visits(pc) for pc in region.blocks})
            self.statistics.regions += 1
            self.statistics.guest_instructions += region.size
        return True

    def kernel(self) -> Kernel:
        """The kernel with every region that has joined."""
        with self.lock:
            if self._kernel is None or self._linked != len(self._regions):
                names = list(self._regions)
                key, image = self._image("kernel", (self.interpreter_name, *names))
                if image is None:
                    image = self.device.target.compile_kernel(self.registers, self.interpreter_name, names, KERNEL_NAME)
                    self.cache.disk.put(key, image)
                images = [image, self._interpreter(), *self._regions.values()]
                self._kernel = self.device.load(images, KERNEL_NAME)
                self._linked = len(names)
            return self._kernel
