"""From how many lanes on a device is quicker than the CPU, read off a sweep, and handed to the placement."""

from __future__ import annotations

from collections.abc import Sequence

from vmjit.bench.results_file import Crossing, Row
from vmjit.bench.spread import geometric_mean
from vmjit.crossover import Crossover, crossing, keep
from vmjit.devices.registry import open_device
from vmjit.devices.selection import is_gpu


def crossings_of(rows: Sequence[Row], devices: Sequence[str], tier: str) -> list[Crossing]:
    """One for each device and width of guests; times are those of runs, with all copies."""
    found: list[Crossing] = []
    for device in devices:
        for xlen in (32, 64):
            measured = []
            for lanes in sorted({row["lanes"] for row in rows}):
                of = [row for row in rows if row["lanes"] == lanes and row["isa"].startswith(f"rv{xlen}")]
                pairs = [(f"vmjit {tier}", f"vmjit {tier} on {device}")] * len(of)
                both = [
                    (row["entries"][cpu]["phases"]["run"], row["entries"][ours]["phases"]["run"])
                    for row, (cpu, ours) in zip(of, pairs, strict=True)
                    if row["agree"] and cpu in row["entries"] and ours in row["entries"]
                ]
                on_cpu, on_device = (geometric_mean([lanes * pair[side] for pair in both]) for side in (0, 1))
                if on_cpu is not None and on_device is not None:
                    measured.append((lanes, on_cpu, on_device))
            if measured:
                found.append({"device": device, "xlen": xlen, "lanes": crossing(tuple(measured)), "measured": measured})
    return found


def feed_placement(crossings: Sequence[Crossing], *, simulated: bool) -> list[str]:
    """Have the placement know them, those of real GPUs or of all devices; says in words what it was told.

    One number of lanes makes no crossover.
    """
    told = []
    for found in crossings:
        if len(found["measured"]) > 1 and (simulated or is_gpu(found["device"])):
            measured = tuple((lanes, cpu, device) for lanes, cpu, device in found["measured"])
            keep(open_device(found["device"]), found["xlen"], Crossover(found["lanes"], measured))
            told.append(f"kept for the choice of devices: {words(found)}")
    return told


def words(found: Crossing) -> str:
    most = max(lanes for lanes, _, _ in found["measured"])
    what = f"{found['device']}, rv{found['xlen']}"
    if found["lanes"] is None:
        return f"{what}: the CPU is faster at every number of lanes measured, up to {most:,}"
    return f"{what}: faster than the CPU from {found['lanes']:,} lanes on"
