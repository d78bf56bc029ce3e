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


class _Waiting(NamedTuple):
    """A region that waits for a kernel with it: of `size` guest instructions, entered at (pc, number of the entry)."""

    space: DeviceCodeSpace
    pc: int
    size: int
    entries: list[tuple[int, int]]
    number: int


@lru_cache(maxsize=4)
def interpreter_keys_of(registers: RegisterFile) -> tuple[TemplateKey, ...]:
    """The templates that the device interpreter of this width has cases for."""
    templates = [template_key(t.ops, t.terminator) for t in all_templates(registers)]
    return tuple(device_keys(registers, templates))


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
        self._lock = threading.RLock()
        self._building = threading.Lock()
        self._devices = list(devices)
        self._targets = {device.target.identity: device.target for device in devices}
        self._regions: dict[str, dict[tuple[str, ...], Part]] = {}  # by name, in the order of their numbers
        self._waiting: list[_Waiting] = []
        self._kernels: dict[str, Kernel] = {}  # by device
        self._keys: dict[str, str] = {}  # of the linked code, by device
        self.interpreter_name = f"vmjit_interpret_{registers.name}"

    def _part(self, target: DeviceTarget, kind: str, parts: Sequence[str], make: Callable[[], bytes]) -> Part:
        key = cache_key(f"device {kind}", (*parts, *target.identity))
        return Part(
            key, self.cache.image(key, f"the {kind} for {' '.join(target.identity[:2])}", self.statistics.counted(make))
        )

    def _interpreter(self, target: DeviceTarget) -> Part:
        keys = interpreter_keys_of(self.registers)
        return self._part(
            target,
            "interpreter",
            (self.registers.name,),
            lambda: target.compile_interpreter(self.registers, keys, self.interpreter_name),
        )

    def add(self, space: DeviceCodeSpace, region: Region) -> bool:
        """Translate a region; `bring_in` lets lanes enter it. False where that failed."""
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
            self._refuse(pc, error)
            return False
        entries = [(e, i) for i, e in enumerate(region.entries) if e == pc or not space.has_compiled(e)]
        space.promise(region, [e for e, _ in entries])
        with self._lock:
            self._regions.setdefault(name, images)
            self._waiting.append(_Waiting(space, pc, region.size, entries, list(self._regions).index(name) + 1))
        return True

    def _refuse(self, pc: int, error: Exception) -> None:
        self.statistics.failures += 1
        log.warning("the region at %#x could not be compiled and stays interpreted: %s", pc, error)

    def _compile_region(self, target: DeviceTarget, region: Region, name: str) -> bytes:
        return target.compile_region(region, self.registers, self.windows, name)

    def bring_in(self) -> None:
        """Link the kernels with the regions that were added, load them, and have jumps enter the regions.

        Takes as long as linking does, and holds nobody up meanwhile who runs the kernels that there are. Regions with
        which nothing can be linked or loaded stay interpreted.
        """
        with self._building:
            with self._lock:
                count, waiting = len(self._regions), self._waiting
                self._waiting = []
            if not waiting:
                return
            try:
                made = {device.name: self._load(device, count) for device in self._devices}
            except (CompileError, KernelLoadError) as error:
                self._drop(waiting, error)
                return
            with self._lock:
                self._kernels.update(made)
                for added in waiting:
                    added.space.install([(pc, added.number << 8 | i) for pc, i in added.entries])
                    self.statistics.regions += 1
                    self.statistics.guest_instructions += added.size

    def _drop(self, waiting: Sequence[_Waiting], error: Exception) -> None:
        """Forget regions that no kernel has: they are the last ones."""
        with self._lock:
            dropped = [*waiting, *self._waiting]
            self._waiting = []
            for name in list(self._regions)[min(added.number for added in dropped) - 1 :]:
                del self._regions[name]
        for added in dropped:
            self._refuse(added.pc, error)

    def kernel(self, device: Device) -> Kernel:
        """The device's newest kernel."""
        with self._lock:
            kernel = self._kernels.get(device.name)
        if kernel is None:
            first = self._load(device, 0)
            with self._lock:  # a newer one may have come in from the background meanwhile
                kernel = self._kernels.setdefault(device.name, first)
        return kernel

    def translate(self, target: DeviceTarget, regions: int = 0) -> list[Part]:
        """The kernel with the first so many regions, and what it calls."""
        with self._lock:
            chosen = dict(list(self._regions.items())[:regions])
        names = list(chosen)
        whole = self._part(
            target,
            "kernel",
            (self.interpreter_name, *names),
            lambda: target.compile_kernel(self.registers, self.interpreter_name, names, KERNEL_NAME),
        )
        return [whole, self._interpreter(target), *(by_target[target.identity] for by_target in chosen.values())]

    def _load(self, device: Device, regions: int) -> Kernel:
        target = device.target
        parts = self.translate(target, regions)
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
        what = f"the machine code for {' '.join(target.identity[:2])}"

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
