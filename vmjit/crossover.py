"""From how many lanes on a GPU is worth its launches and transfers: measured once on each device, and kept."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass

from vmjit.cache import CodeCache, cache_key, process_cache
from vmjit.devices.interface import Device, DeviceInfo
from vmjit.program import Program

log = logging.getLogger("vmjit")

LANES = (32, 128, 512, 2048, 8192, 32768)

# Instructions a lane runs: enough to see how fast it goes, few enough to be done in a moment.
_INSTRUCTIONS = 60_000

# A run longer than this is not waited for; the device has lost at that number of lanes.
_MAX_SECONDS = 2.0


@dataclass(frozen=True)
class Crossover:
    """`lanes`: the fewest lanes at which the device was faster than the CPU, and at all measured numbers above; None:
    at none. `measured`: (lanes, seconds on the CPU, seconds on the device) with all copies, compilation apart."""

    lanes: int | None
    measured: tuple[tuple[int, float, float], ...]


def crossing(measured: tuple[tuple[int, float, float], ...]) -> int | None:
    """The fewest lanes from which on the device is faster at every measured number."""
    found = None
    for lanes, on_cpu, on_device in reversed(measured):
        if on_device >= on_cpu:
            break
        found = lanes
    return found


def crossover(device: Device, xlen: int, cache: CodeCache | None = None) -> Crossover:
    """The device's crossover for guests of this width, measured now (some seconds) unless it is known.

    Raises `DeviceError` where the device cannot run the measurement.
    """
    cache = cache or process_cache()
    key = _key(device.info(), xlen)
    kept = cache.disk.get(key)
    if kept is not None:
        found = json.loads(kept)
        return Crossover(found["lanes"], tuple((n, c, d) for n, c, d in found["measured"]))
    log.info("measuring from how many lanes on %s pays; this is done once", device.name)
    result = measure(device.name, xlen)
    keep(device, xlen, result, cache)
    return result


def keep(device: Device, xlen: int, found: Crossover, cache: CodeCache | None = None) -> None:
    """Have `found` as the device's crossover for guests of this width, also in processes to come."""
    cache = cache or process_cache()
    cache.disk.put(_key(device.info(), xlen), json.dumps(asdict(found)).encode())


def _key(info: DeviceInfo, xlen: int) -> str:
    from vmjit.translators.cpu import cpu_target

    what = (info.name, info.kind, info.architecture, str(info.multiprocessors), str(info.clock), str(xlen))
    return cache_key("crossover", (*what, *cpu_target().identity, _cpu_count()))


def _cpu_count() -> str:
    from vmjit.cpu_engine import core_count

    return f"{core_count()} cores"


def measure(device: str, xlen: int, lanes: tuple[int, ...] = LANES) -> Crossover:
    """Run the same work on the CPU and on the device with more and more lanes."""
    program = Program.from_bytes(_work(), f"rv{xlen}im")
    measured = []
    for count in lanes:
        on_cpu = _seconds(program, count, "cpu")
        on_device = _seconds(program, count, device)
        measured.append((count, on_cpu, on_device))
        if on_cpu > _MAX_SECONDS and on_device > on_cpu:
            break
    return Crossover(crossing(tuple(measured)), tuple(measured))


def _seconds(program: Program, lanes: int, device: str) -> float:
    """Of a run in which everything is compiled."""
    from vmjit.compile_thread import COMPILE_THREAD
    from vmjit.machine import Machine

    machine = Machine(program, lanes, device, memory=4096, fallback=False)
    machine.run(_INSTRUCTIONS, max_seconds=_MAX_SECONDS)
    COMPILE_THREAD.wait(_MAX_SECONDS)
    machine.reset()
    started = time.perf_counter()
    result = machine.run(_INSTRUCTIONS, max_seconds=_MAX_SECONDS)
    seconds = time.perf_counter() - started
    done = result.instructions / (lanes * _INSTRUCTIONS)
    return seconds / max(done, 1e-9)


def _work() -> bytes:
    """A hash of a table in memory, for ever: the kind of code that lanes run in step (rv32i and rv64i)."""
    words = (
        0xF0010293,  # addi t0, sp, -256
        0x0F028313,  # addi t1, t0, 240
        0x00028393,  # outer: addi t2, t0, 0
        0x0003AE03,  # inner: lw t3, 0(t2)
        0x00AE4533,  # xor a0, t3, a0
        0x00551E93,  # slli t4, a0, 5
        0x01D50533,  # add a0, a0, t4
        0x01155E93,  # srli t4, a0, 17
        0x01D54533,  # xor a0, a0, t4
        0x00A3A023,  # sw a0, 0(t2)
        0x00438393,  # addi t2, t2, 4
        0xFE6390E3,  # bne t2, t1, inner
        0xFD9FF06F,  # jal x0, outer
    )
    return b"".join(word.to_bytes(4, "little") for word in words)
