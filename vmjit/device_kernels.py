"""Kernels for one machine on a device: the interpreter, its hot regions, and the kernel that goes between them.

Every part is translated once per content and kept in the cache on disk; a kernel is linked anew when a region joins.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

from vmjit.cache import CodeCache, cache_key
from vmjit.decoders.riscv.decoder import all_templates
from vmjit.decoders.riscv.registers import REGISTERS
from vmjit.device_code import DeviceCodeSpace
from vmjit.devices.interface import Device, DeviceTarget, Kernel
from vmjit.errors import CompileError, KernelLoadError
from vmjit.ir.registers import RegisterFile
from vmjit.kernels.device_layout import MAX_REGION_ENTRIES
from vmjit.tiering import CompileStatistics, region_identity
from vmjit.translators.device_interpreter import device_keys
from vmjit.translators.device_region import DeviceWindowPlan
from vmjit.translators.interpreter import TemplateKey, template_key
from vmjit.translators.regions import Region

log = logging.getLogger("vmjit")

KERNEL_NAME = "vmjit_run_lanes"


class Part(NamedTuple):
    """A translated part, and the key that says all of what it was translated from."""

    key: str
    image: bytes


@lru_cache(maxsize=4)
def interpreter_keys_of(xlen: int) -> tuple[TemplateKey, ...]:
    """The templates that the device interpreter of this width has cases for."""
    templates = [template_key(t.ops, t.terminator) for t in all_templates(xlen)]
    return tuple(device_keys(REGISTERS[xlen], templates))


class DeviceKernels:
    """What is translated for one machine, for all of its devices. Regions join in any thread.

    A region has the same number and name on every device; what it is there depends on the device's target.
    """

    def __init__(
        self, devices: Sequence[Device], registers: RegisterFile, windows: DeviceWindowPlan, cache: CodeCache
    ) -> None:
        self.registers = registers
        self.windows = windows
        self.cache = cache
        self.statistics = CompileStatistics()
        self.lock = threading.RLock()
        self._targets = {device.target.identity: device.target for device in devices}
        self._regions: dict[str, dict[tuple[str, ...], Part]] = {}  # by name, in the order of their numbers
        self._kernels: dict[str, tuple[int, Kernel]] = {}  # by device, and with how many regions
        self._keys: dict[str, str] = {}  # of the linked code, by device
        self.interpreter_name = f"vmjit_interpret_{registers.name}"

    def _part(self, target: DeviceTarget, kind: str, parts: Sequence[str], make: Callable[[], bytes]) -> Part:
        key = cache_key(f"device {kind}", (*parts, *target.identity))
        return Part(
            key, self.cache.image(key, f"the {kind} for {' '.join(target.identity)}", self.statistics.counted(make))
        )

    def _interpreter(self, target: DeviceTarget) -> Part:
        keys = interpreter_keys_of(self.registers.type.bits)
        return self._part(
            target,
            "interpreter",
            (self.registers.name,),
            lambda: target.compile_interpreter(self.registers, keys, self.interpreter_name),
        )

    def add(self, space: DeviceCodeSpace, region: Region) -> bool:
        """Translate a region and have its blocks enter it from the next launch on. False where that failed."""
        if len(region.entries) > MAX_REGION_ENTRIES:
            region.entries = region.entries[:MAX_REGION_ENTRIES]
        content = (region_identity(region), repr(self.windows), self.registers.name)
        name = f"vmjit_region_{cache_key('device region name', content)[:16]}"
        pc = region.entries[0]
        try:
            images = {
                identity: self._part(
                    target, f"region at {pc:#x}", content, partial(self._compile_region, target, region, name)
                )
                for identity, target in self._targets.items()
            }
        except CompileError as error:
            self.statistics.failures += 1
            log.warning("the region at %#x could not be compiled and stays interpreted: %s", pc, error)
            return False
        with self.lock:
            self._regions.setdefault(name, images)
            number = list(self._regions).index(name) + 1
            entries = [(e, number << 8 | i) for i, e in enumerate(region.entries) if e == pc or not space.entry(e)]
            space.install(entries)
            space.covered.update({e: space.visits(e) for e in region.blocks})
            self.statistics.regions += 1
            self.statistics.guest_instructions += region.size
        return True

    def _compile_region(self, target: DeviceTarget, region: Region, name: str) -> bytes:
        return target.compile_region(region, self.registers, self.windows, name)

    def kernel(self, device: Device) -> Kernel:
        """The device's kernel with every region that has joined."""
        with self.lock:
            regions, kernel = self._kernels.get(device.name, (-1, None))
            if kernel is None or regions != len(self._regions):
                kernel = self._load(device)
                self._kernels[device.name] = (len(self._regions), kernel)
            return kernel

    def translate(self, target: DeviceTarget) -> list[Part]:
        """The kernel, and what it calls."""
        names = list(self._regions)
        whole = self._part(
            target,
            "kernel",
            (self.interpreter_name, *names),
            lambda: target.compile_kernel(self.registers, self.interpreter_name, names, KERNEL_NAME),
        )
        return [whole, self._interpreter(target), *(by_target[target.identity] for by_target in self._regions.values())]

    def _load(self, device: Device) -> Kernel:
        target = device.target
        parts = self.translate(target)
        images = [part.image for part in parts]
        if not target.links:
            return device.load(images, KERNEL_NAME)
        key = self._keys[device.name] = cache_key("device code", tuple(part.key for part in parts))
        try:
            return device.load([self._linked(target, key, images)], KERNEL_NAME)
        except KernelLoadError as error:
            # What the cache had may be damaged in a way that only the device sees.
            log.warning("%s; it is linked anew", error)
            self.cache.disk.remove(key)
            return device.load([self._linked(target, key, images)], KERNEL_NAME)

    def _linked(self, target: DeviceTarget, key: str, images: Sequence[bytes]) -> bytes:
        what = f"the machine code for {' '.join(target.identity)}"

        def link() -> bytes:
            (image,) = target.link(images, self.registers)
            self.cache.disk.put(_report_key(key), json.dumps(target.report([image])).encode())
            return image

        return self.cache.image(key, what, self.statistics.counted(link))

    def report(self, device: Device) -> dict[str, int]:
        """What the device's newest kernel needs, by name; empty where nobody says."""
        key = self._keys.get(device.name)
        data = None if key is None else self.cache.disk.get(_report_key(key))
        found: dict[str, int] = {} if data is None else json.loads(data)
        return found


def _report_key(key: str) -> str:
    return cache_key("device report", (key,))
