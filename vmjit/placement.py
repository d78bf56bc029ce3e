"""Where a run takes place, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmjit.devices.selection import check_name, find_gpus, is_gpu, open_devices
from vmjit.errors import ArgumentError, DeviceError
from vmjit.ir.registers import RegisterFile
from vmjit.kernels.device_layout import GROUP, frame_bytes

if TYPE_CHECKING:
    from vmjit.decoders.riscv.decoder import Decoder
    from vmjit.devices.interface import Device
    from vmjit.memory_layout import MemoryLayout

# Of a device's free memory, what lanes may fill: drivers, kernels and others need some.
_USABLE = 0.9

# Reasons about single instructions that are listed before the rest is counted.
_LISTED = 16


@dataclass(frozen=True)
class Placement:
    """The answer of `can_execute_on_gpu`: true where a GPU can take the work; `reasons` say why it is as it is.

    device: where the work goes: the name of a GPU, or of several with commas between them, or "cpu".
    """

    on_gpu: bool
    device: str
    reasons: tuple[str, ...]

    def __bool__(self) -> bool:
        return self.on_gpu


def device_of_tier(device: str, tier: str) -> str:
    """The device for a tier; `ArgumentError` where the tier is not the device's."""
    if tier != "simd" or device == "cpu":
        return device
    if device == "auto":
        return "cpu"
    raise ArgumentError(f'tier "simd" is for the CPU\'s vector registers; on {device}, use "auto" or "scalar"')


def choose_device(device: str) -> str:
    """`device` if it can be the name of one. Raises `ArgumentError`."""
    if not isinstance(device, str):
        raise ArgumentError(f"a device is a name such as 'cpu', got {device!r}")
    check_name(device)
    return device


def device_bytes(layout: MemoryLayout, lanes: int, registers: RegisterFile) -> int:
    """Bytes of device memory for so many lanes: groups are whole."""
    return layout.shared_bytes + -(-lanes // GROUP) * _group_bytes(layout, registers)


def _group_bytes(layout: MemoryLayout, registers: RegisterFile) -> int:
    return GROUP * layout.private_bytes + frame_bytes(len(registers), registers.storage.bits)


def place(
    layout: MemoryLayout, lanes: int, registers: RegisterFile, *, device: str = "auto", against: Sequence[str] = ()
) -> Placement:
    """Whether lanes with this memory can and should run on a GPU.

    `device` is "auto" or names the GPUs to look at. `against` are reasons that were found before, in the code; with
    one the answer is no, and the others are found all the same.
    """
    reasons = list(against)
    devices, missing = _devices(device)
    if not devices:
        return Placement(False, "cpu", (*missing, *reasons))
    chosen, why = _with_room(devices, layout, lanes, registers)
    if not chosen:
        return Placement(False, "cpu", (*why, *reasons))
    few = _too_few(chosen[0], lanes, len(chosen), registers.type.bits)
    if few is not None:
        reasons.append(few)
    if reasons:
        return Placement(False, "cpu", tuple(reasons))
    return Placement(True, ",".join(d.name for d in chosen), tuple(why))


def _devices(name: str) -> tuple[list[Device], list[str]]:
    if name == "cpu":
        return [], ["the device asked for is the CPU"]
    if name == "auto":
        found, missing = find_gpus()
        return found, missing if missing or found else ["no GPU back end is registered"]
    if not is_gpu(name):
        return [], [f"{name} is simulated on this computer's processor, it is no GPU"]
    try:
        return open_devices(name), []
    except DeviceError as error:
        return [], [str(error)]


def _with_room(
    devices: Sequence[Device], layout: MemoryLayout, lanes: int, registers: RegisterFile
) -> tuple[list[Device], list[str]]:
    """The device with most free memory if that is enough, else as many of the same kind as it takes; and why."""
    infos = {device.name: device.info() for device in devices}
    by_room = sorted(devices, key=lambda d: infos[d.name].memory_free, reverse=True)
    chosen: list[Device] = []
    most = 0
    for device in by_room:
        if chosen and infos[device.name].kind != infos[chosen[0].name].kind:
            continue
        free = int(infos[device.name].memory_free * _USABLE) - layout.shared_bytes
        most += max(free, 0) // _group_bytes(layout, registers) * GROUP
        chosen.append(device)
        if most >= lanes:
            break
    wanted = device_bytes(layout, lanes, registers)
    free = sum(infos[d.name].memory_free for d in chosen)
    names = ",".join(d.name for d in chosen)
    if most < lanes:
        text = (
            f"memory does not fit: {lanes} lanes need {wanted} bytes, {names} has {free} bytes free; {most} lanes fit"
        )
        return [], [text]
    what = ", ".join(f"{d.name} ({infos[d.name].name})" for d in chosen)
    return chosen, [f"{what}: {lanes} lanes need {wanted} of {free} bytes free"]


def _too_few(device: Device, lanes: int, devices: int, xlen: int) -> str | None:
    """Why so few lanes do not pay on this device, or None."""
    from vmjit.crossover import LANES, crossover

    if lanes < LANES[0]:  # not worth a measurement
        return f"too few lanes: {lanes}; a GPU does not pay for less than {LANES[0]}"
    try:
        found = crossover(device, xlen)
    except DeviceError as error:
        return f"{device.name} failed while it was measured: {error}"
    if found.lanes is None:
        tried = max((lanes for lanes, _, _ in found.measured), default=0)
        return f"{device.name} was slower than the CPU at every number of lanes measured, up to {tried}"
    if lanes < found.lanes * devices:
        return f"too few lanes: {lanes}; {device.name} is faster than the CPU from {found.lanes} lanes on, as measured"
    return None


def reasons_in_code(decoder: Decoder, code: bytes, address: int) -> list[str]:
    """What in this code speaks against a GPU: instructions without a meaning, and system calls in loops."""
    from vmjit.guest_loops import calls_in_loops

    reasons = []
    place_ = 0
    while place_ < len(code):
        instruction = decoder.decode(lambda pc, n: code[pc - address : pc - address + n], address + place_)
        if not decoder.has_meaning(instruction):
            data = code[place_ : place_ + instruction.size].hex(" ")
            text = decoder.text(instruction)
            reasons.append(f"no lowering for the instruction at {address + place_:#x}: {data}  {text}")
        place_ += instruction.size
    if len(reasons) > _LISTED:
        reasons[_LISTED:] = [f"and {len(reasons) - _LISTED} more instructions without a lowering"]
    for pc in calls_in_loops(decoder, code, address):
        reasons.append(f"needs the host at every step: the loop around {pc:#x} makes a system call (ecall)")
    return reasons
