"""`python -m benchmarks.gpu`: a GPU beside all cores of the CPU, at growing numbers of lanes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.contestants import QEMU
from benchmarks.guests.build import BENCHMARKS
from benchmarks.measure import make_row
from benchmarks.report import print_report
from benchmarks.results_file import RESULTS_DIR, Results, Row, all_agree, empty_results, save
from vmjit.bench.guests import LANE_MEMORY, elf_path, seeded_inputs
from vmjit.bench.machine_info import machine_info
from vmjit.bench.machines import MachineContestant
from vmjit.bench.rounds import choose_repeat, run_rounds
from vmjit.devices.interface import DeviceInfo
from vmjit.devices.registry import open_device
from vmjit.errors import DeviceError


def contestant(device: str, elf: Path, lanes: int) -> MachineContestant:
    """A machine on a device, or on all cores of the CPU."""
    return MachineContestant(device, elf, lanes, {"device": device, "memory": LANE_MEMORY, "fallback": False})


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("guests", nargs="*", metavar="guest", help=f"which guests (all: {' '.join(BENCHMARKS)})")
    parser.add_argument("--device", default="cuda", help="what is compared with the CPU (cuda)")
    parser.add_argument("--isa", nargs="+", choices=tuple(QEMU), default=list(QEMU), help="guest ISAs (both)")
    parser.add_argument("--lanes", nargs="+", type=int, default=[1024, 8192, 65536], help="numbers of lanes")
    parser.add_argument("--runs", type=int, default=5, help="measured runs of each contestant (5)")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a measured run that is aimed at (0.5)")
    parser.add_argument("--json", type=Path, default=RESULTS_DIR / "gpu.json", metavar="FILE", help="result file")
    parsed = parser.parse_args(arguments)
    if unknown := [guest for guest in parsed.guests if guest not in BENCHMARKS]:
        parser.error(f"no guest {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if parsed.runs < 1 or min(parsed.lanes) < 1 or parsed.seconds <= 0:
        parser.error("--runs, --lanes and --seconds must be positive")
    parsed.guests = parsed.guests or list(BENCHMARKS)
    return parsed


def measure_row(options: argparse.Namespace, guest: str, isa: str, lanes: int) -> Row:
    """One guest on the device and on the CPU, in turns, with everything hot compiled before."""
    elf = elf_path(guest, isa)
    try:
        contestants = [contestant(device, elf, lanes) for device in (options.device, "cpu")]
        first = seeded_inputs(lanes, 1)
        seconds = {}
        for one in contestants:
            one.warm(first)
            seconds[one.name] = one.measure(first).seconds
        repeat = choose_repeat(seconds, options.seconds)
        inputs = seeded_inputs(lanes, repeat)
        for one in contestants:
            one.warm(inputs)
        runs = run_rounds(contestants, inputs, options.runs)
    except (DeviceError, MemoryError) as error:
        return {**make_row(guest, isa, lanes, 0, {}, (), {}), "agree": False, "problem": str(error)}
    return make_row(guest, isa, lanes, repeat, runs, [(options.device, "cpu")], {})


def described(info: DeviceInfo) -> dict[str, str | int]:
    return {
        "device": info.name,
        "device_architecture": info.architecture,
        "device_multiprocessors": info.multiprocessors,
        "device_clock": info.clock,
        "device_memory": info.memory_total,
    }


def measure(options: argparse.Namespace, say: Callable[[str], None]) -> Results:
    """Everything the options ask for. Raises `DeviceError` where there is no such device."""
    info = open_device(options.device).info()
    rows = []
    for lanes in options.lanes:
        for isa in options.isa:
            for guest in options.guests:
                say(f"{guest} {isa}: {lanes} lanes")
                rows.append(measure_row(options, guest, isa, lanes))
    recorded = {name: getattr(options, name) for name in ("device", "runs", "seconds", "lanes")}
    return {**empty_results({**machine_info(), **described(info)}, recorded, {}), "batch": rows}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 where the device and the CPU disagree about an answer, 2 where there is no device."""
    options = parse_arguments(arguments)
    console = Console() if sys.stdout.isatty() else Console(width=110)
    try:
        with Console(stderr=True).status("starting") as status:
            results = measure(options, status.update)
    except DeviceError as error:
        print(error, file=sys.stderr)
        return 2
    print_report(results, console)
    save(results, options.json)
    print(options.json)
    return 0 if all_agree(results) else 1


if __name__ == "__main__":
    sys.exit(main())
