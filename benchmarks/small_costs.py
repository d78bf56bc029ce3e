"""What it costs to get going: import, first instructions, reset, memory. Each is measured in fresh processes.

`python -m benchmarks.small_costs PROBE LANES` makes one measurement and prints it as JSON.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.results_file import Cost, summarise
from vmjit.bench.guests import LANE_MEMORY, elf_path, make_input
from vmjit.bench.machine_info import PROJECT
from vmjit.bench.rounds import Say

SHORT_PROGRAM_INSTRUCTIONS = 5000

_GUEST = ("crc32", "rv64imac")
_RESETS = 9

RESET = "reset after 4 KiB written, per lane"
RUN_AFTER_RESET = "run after a reset that writes 4 KiB, per lane"

Figures = Mapping[str, float]


def short_program() -> bytes:
    """rv64i code that retires exactly 5,000 instructions and exits: 4 instructions 1,249 times, and 4 more."""
    code = (
        0x4E100293,  # li t0, 1249
        0x00530333,  # loop: add t1, t1, t0
        0x0063C3B3,  # xor t2, t2, t1
        0xFFF28293,  # addi t0, t0, -1
        0xFE029AE3,  # bne t0, zero, loop
        0x05D00893,  # li a7, 93 (exit)
        0x00000513,  # li a0, 0
        0x00000073,  # ecall
    )
    return b"".join(word.to_bytes(4, "little") for word in code)


def dirtying_program() -> bytes:
    """rv64i code that writes the last whole page below sp, and exits."""
    code = (
        0x20000293,  # li t0, 512
        0x00C15313,  # srli t1, sp, 12
        0x00C31313,  # slli t1, t1, 12
        0xFF830313,  # loop: addi t1, t1, -8
        0x00533023,  # sd t0, 0(t1)
        0xFFF28293,  # addi t0, t0, -1
        0xFE029AE3,  # bne t0, zero, loop
        0x05D00893,  # li a7, 93 (exit)
        0x00000513,  # li a0, 0
        0x00000073,  # ecall
    )
    return b"".join(word.to_bytes(4, "little") for word in code)


def _probe_import(lanes: int) -> Figures:
    started = time.perf_counter()
    import vmjit

    assert vmjit.__version__
    return {"import vmjit": time.perf_counter() - started}


def _probe_start(lanes: int) -> Figures:
    import vmjit

    program = vmjit.Program.from_bytes(short_program(), "rv64i")
    started = time.perf_counter()
    machine = vmjit.Machine(program, threads=1, memory=LANE_MEMORY)
    made = time.perf_counter()
    result = machine.run()
    ended = time.perf_counter()
    if result.instructions != SHORT_PROGRAM_INSTRUCTIONS:
        raise SystemExit(f"the short program retired {result.instructions} instructions: {result.stops()}")
    return {"first Machine": made - started, "first run, 5,000 instructions": ended - made}


def _probe_reset(lanes: int) -> Figures:
    import vmjit

    machine = vmjit.Machine(vmjit.Program.from_bytes(dirtying_program(), "rv64i"), lanes, memory=LANE_MEMORY)
    resets, runs = [], []
    for _ in range(_RESETS):
        # CPU time, which other processes do not lengthen as they do a few milliseconds of wall time.
        started = time.process_time()
        machine.run()
        ended = time.process_time()
        machine.reset()
        runs.append(ended - started)
        resets.append(time.process_time() - ended)
    machine.run()
    page = machine.memory.read((int(machine.registers["sp"][0]) & -4096) - 4096, 4096)
    if not page.reshape(lanes, -1, 8).any(axis=2).all():
        raise SystemExit("the program does not write what it should")
    # What a reset saves itself, the run behind it may pay: memory given back has to be had again.
    return {RESET: statistics.median(resets) / lanes, RUN_AFTER_RESET: statistics.median(runs[1:]) / lanes}


def resident_bytes(statm: str) -> int:
    """Resident memory by /proc/self/statm's text."""
    return int(statm.split()[1]) * os.sysconf("SC_PAGESIZE")


def _probe_memory(lanes: int) -> Figures:
    import vmjit
    from vmjit.memory_layout import parse_size

    statm = Path("/proc/self/statm")
    program = vmjit.load(elf_path(*_GUEST))
    small = vmjit.Machine(program, 1, memory=LANE_MEMORY)
    small.set_input(make_input(1, 64))
    small.run()
    before = resident_bytes(statm.read_text())
    machine = vmjit.Machine(program, lanes, memory=LANE_MEMORY)
    machine.set_input(make_input(1, 1))
    machine.run()
    grown = resident_bytes(statm.read_text()) - before
    return {
        "memory_per_lane() without `memory`": machine.memory_per_lane() - parse_size(LANE_MEMORY),
        "resident after a run, per lane": grown / lanes,
    }


PROBES: dict[str, Callable[[int], Figures]] = {
    "import": _probe_import,
    "start": _probe_start,
    "reset": _probe_reset,
    "memory": _probe_memory,
}

# Unit of a figure and how many of them are in the probe's own, by the figure's name.
_UNITS = {
    "import vmjit": ("ms", 1e3),
    "first Machine": ("ms", 1e3),
    "first run, 5,000 instructions": ("ms", 1e3),
    RESET: ("µs", 1e6),
    RUN_AFTER_RESET: ("µs", 1e6),
    "memory_per_lane() without `memory`": ("KiB", 1 / 1024),
    "resident after a run, per lane": ("KiB", 1 / 1024),
}


def _run_probe(probe: str, lanes: int) -> Figures:
    command = [sys.executable, "-m", "benchmarks.small_costs", probe, str(lanes)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    figures: Figures = json.loads(done.stdout)
    return figures


def measure_small_costs(lanes: int, runs: int, say: Say) -> tuple[list[Cost], dict[str, str]]:
    """Each probe in `runs` fresh processes, after one that fills the code cache; and what failed, with the reason."""
    costs: list[Cost] = []
    failed = {}
    for probe in PROBES:
        say(f"small costs: {probe}")
        try:
            _run_probe(probe, lanes)
            figures = [_run_probe(probe, lanes) for _ in range(runs)]
        except subprocess.CalledProcessError as error:
            lines = error.stderr.strip().splitlines() or ["no message"]
            failed[f"small costs, {probe}"] = f"failed: {lines[-1]}"
            continue
        for name in figures[0]:
            unit, factor = _UNITS[name]
            costs.append({"name": name, "unit": unit, "value": summarise([f[name] * factor for f in figures])})
    return costs, failed


if __name__ == "__main__":
    print(json.dumps(PROBES[sys.argv[1]](int(sys.argv[2]))))
