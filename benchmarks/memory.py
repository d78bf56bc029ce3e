"""What memory at scale costs: ``python -m benchmarks.memory``.

A program (`guests/linux/fork.c`) runs its start-up once, its state is given to all lanes, and from there each runs on
an input of its own and dirties 8 KiB. Measured are the fork, the run, going back, and what is resident then.

The committed programs were built by `python -m ziglang cc -target riscv64-linux-musl -static -O2 -g -fno-sanitize=all
fork.c -o fork.rv64.elf` and `riscv64-linux-gnu-strip --strip-debug fork.rv64.elf`, and with 32 for the other.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import vmjit
from vmjit.bench.memory import own_memory

GUESTS = Path(__file__).resolve().parent / "guests" / "linux"


def timed(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def expected(inputs: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> list[bytes]:
    """What lanes with these inputs write."""
    numbers = np.arange(1 << 20, dtype=np.uint32)
    table = (numbers * np.uint32(2654435761) >> np.uint32(24)).astype(np.uint64)
    results = []
    for row in inputs.tolist():
        place = 0
        for byte in row:
            place = (place * 31 + byte) & 0xFFFFFFFF
        total = 0
        for value in table[(place + np.arange(8192, dtype=np.uint64) * 127) % (1 << 20)].tolist():
            total = (total * 33 + value) & 0xFFFFFFFF
        results.append(b"%d\n" % total)
    return results


def measure(xlen: int, lanes: int) -> dict[str, float]:
    program = vmjit.load(GUESTS / f"fork.rv{xlen}.elf")
    one = vmjit.Machine(program)
    one.run_until("ready")
    snapshot = one.snapshot(lane=0)
    before = own_memory()
    machine = vmjit.Machine(program, lanes, "cpu")
    inputs = np.arange(lanes, dtype=np.uint32).view(np.uint8).reshape(lanes, 4)
    found: dict[str, float] = {"xlen": xlen, "lanes": lanes}
    found["fork_s"] = timed(lambda: machine.restore(snapshot))
    machine.set_input(inputs)
    found["first_run_s"] = timed(machine.run)
    after = own_memory()
    for name, value in after.items():
        found[f"{name}_bytes"] = value - before[name]
    found["restore_s"] = timed(lambda: machine.restore(snapshot))
    machine.set_input(inputs)
    run: list[vmjit.RunResult] = []
    found["next_run_s"] = timed(lambda: run.append(machine.run()))
    some = [0, 1, lanes // 2, lanes - 1]
    if [run[0].output(lane) for lane in some] != expected(inputs[some]) or run[0].stops() != {"EXIT": lanes}:
        raise SystemExit("lanes gave wrong results")
    machine.restore(snapshot)
    found["restore_clean_us_per_lane"] = 1e6 * timed(lambda: machine.restore(snapshot)) / lanes
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure forks, restores and memory of many lanes.")
    parser.add_argument("--lanes", type=int, default=100_000)
    parser.add_argument("--json", metavar="FILE", help="save the figures there")
    parser.add_argument("--xlen", type=int, choices=(32, 64), help="measure this one alone, and print JSON")
    options = parser.parse_args()
    if options.xlen:
        print(json.dumps(measure(options.xlen, options.lanes)))
        return
    # A process for each: what the first has freed would be the second's.
    command = [sys.executable, "-m", "benchmarks.memory", "--lanes", str(options.lanes), "--xlen"]
    runs = [subprocess.run([*command, str(xlen)], capture_output=True, check=True) for xlen in (32, 64)]
    results = [json.loads(run.stdout) for run in runs]
    for name in results[0]:
        values = [f"{r[name] / 2**20:,.0f} MiB" if name.endswith("_bytes") else f"{r[name]:,.4g}" for r in results]
        print(f"{name.removesuffix('_bytes'):28} {values[0]:>14} {values[1]:>14}")
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
