"""`python -m benchmarks.run`: measure vmjit beside QEMU and native code."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.contestants import QEMU, missing_peers
from benchmarks.guests.build import BENCHMARKS, build_native
from benchmarks.machine_info import machine_info, usable_cores
from benchmarks.measure import CLOCKS
from benchmarks.parts import Plan, batch_rows, one_lane_rows
from benchmarks.report import print_report
from benchmarks.results_file import RESULTS_DIR, SCHEMA, Cost, Results, all_agree, save
from benchmarks.small_costs import measure_small_costs

TIERS = ("interpreter", "scalar", "auto")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, with what `--quick` stands for filled in."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("guests", nargs="*", metavar="guest", help=f"which guests (all: {' '.join(BENCHMARKS)})")
    parser.add_argument("--isa", nargs="+", choices=tuple(QEMU), help="guest ISAs (both)")
    parser.add_argument("--tiers", nargs="+", choices=TIERS, default=list(TIERS), help="tiers of the one-lane part")
    parser.add_argument("--lanes", nargs="+", type=int, help="1: the one-lane part; more: a batch (1 4096)")
    parser.add_argument("--runs", type=int, help="measured runs of each contestant (5)")
    parser.add_argument("--seconds", type=float, help="length of a measured run that is aimed at (0.5)")
    parser.add_argument("--clock", choices=CLOCKS, default="run", help="one-core times of vmjit: wall or CPU (run)")
    parser.add_argument("--no-small-costs", action="store_true", help="leave out import, reset, memory")
    parser.add_argument("--json", type=Path, default=RESULTS_DIR / "latest.json", metavar="FILE", help="result file")
    parser.add_argument("--quick", action="store_true", help="a short version: few guests, short runs")
    parsed = parser.parse_args(arguments)
    if unknown := [guest for guest in parsed.guests if guest not in BENCHMARKS]:
        parser.error(f"no guest {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    quick = parsed.quick
    parsed.guests = parsed.guests or (["crc32", "sort"] if quick else list(BENCHMARKS))
    parsed.isa = parsed.isa or (["rv64imac"] if quick else list(QEMU))
    parsed.lanes = parsed.lanes or ([1, 256] if quick else [1, 4096])
    parsed.runs = parsed.runs or (3 if quick else 5)
    parsed.seconds = parsed.seconds or (0.05 if quick else 0.5)
    if parsed.runs < 1 or min(parsed.lanes) < 1 or parsed.seconds <= 0:
        parser.error("--runs, --lanes and --seconds must be positive")
    return parsed


def measure(options: argparse.Namespace, console: Console) -> Results:
    """Everything the options ask for."""
    missing = missing_peers(options.isa)
    batches = [lanes for lanes in options.lanes if lanes > 1]
    with tempfile.TemporaryDirectory() as scratch, console.status("starting") as status:
        native = None
        if "gcc" not in missing:
            native = Path(scratch)
            status.update("building the native programs")
            build_native(native, options.guests)
        plan = Plan(
            guests=options.guests,
            isas=options.isa,
            tiers=options.tiers,
            runs=options.runs,
            seconds=options.seconds,
            clock=options.clock,
            cores=usable_cores(),
            native=native,
        )
        one_lane = one_lane_rows(plan, status.update) if 1 in options.lanes else []
        batch = [row for lanes in batches for row in batch_rows(plan, lanes, status.update)]
        costs: list[Cost] = []
        if not options.no_small_costs:
            costs, failed = measure_small_costs(max(options.lanes), options.runs, status.update)
            missing |= failed
    recorded = ("runs", "seconds", "clock", "lanes", "quick")
    return {
        "schema": SCHEMA,
        "machine": machine_info(),
        "options": {name: getattr(options, name) for name in recorded},
        "missing": missing,
        "one_lane": one_lane,
        "batch": batch,
        "small_costs": costs,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 where contestants disagree about an answer."""
    options = parse_arguments(arguments)
    console = Console() if sys.stdout.isatty() else Console(width=110)
    results = measure(options, Console(stderr=True))
    print_report(results, console)
    save(results, options.json)
    print(options.json)
    return 0 if all_agree(results) else 1


if __name__ == "__main__":
    sys.exit(main())
