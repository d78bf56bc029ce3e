"""`python -m benchmarks.run`: measure vmjit beside QEMU and native code."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.compile_costs import measure_compile_costs
from benchmarks.contestants import QEMU, missing_peers
from benchmarks.guests.build import ALL_BENCHMARKS
from benchmarks.measure import CLOCKS
from benchmarks.parts import Plan, batch_rows, many_rows, one_lane_rows
from benchmarks.report import print_report
from benchmarks.results_file import RESULTS_DIR, Results, all_agree, empty_results, save
from benchmarks.small_costs import measure_small_costs
from benchmarks.targets import reached
from benchmarks.tiers import TIERS
from vmjit.bench.cores import usable_cores
from vmjit.bench.machine_info import machine_info
from vmjit.bench.native_build import build_native
from vmjit.bench.rounds import Say


def _one_lane(plan: Plan, results: Results, say: Say) -> None:
    results["one_lane"] = one_lane_rows(plan, say)


def _batch(plan: Plan, results: Results, say: Say) -> None:
    results["batch"] = batch_rows(plan, say)


def _many_lanes(plan: Plan, results: Results, say: Say) -> None:
    results["many_lanes"] = many_rows(plan, say)


def _compile(plan: Plan, results: Results, say: Say) -> None:
    results["compile_costs"], failed = measure_compile_costs(plan.isas, plan.runs, plan.clock, say)
    results["missing"] |= failed


def _small(plan: Plan, results: Results, say: Say) -> None:
    results["small_costs"], failed = measure_small_costs(plan.lanes, plan.runs, say)
    results["missing"] |= failed


PARTS: dict[str, Callable[[Plan, Results, Say], None]] = {
    "one-lane": _one_lane,
    "batch": _batch,
    "many-lanes": _many_lanes,
    "compile": _compile,
    "small": _small,
}

_QUICK_GUESTS = ["crc32", "sort"]


def parts_named(text: str) -> list[str]:
    """Names of PARTS, separated by commas."""
    parts = text.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        raise argparse.ArgumentTypeError(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return parts


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, with what `--quick` stands for filled in."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("guests", nargs="*", metavar="guest", help=f"which guests (all: {' '.join(ALL_BENCHMARKS)})")
    parser.add_argument("--part", type=parts_named, metavar="PART,…", help=f"which parts (all: {','.join(PARTS)})")
    parser.add_argument("--isa", nargs="+", choices=tuple(QEMU), help="guest ISAs (all)")
    parser.add_argument("--tiers", nargs="+", choices=TIERS, default=list(TIERS), help="tiers (all)")
    parser.add_argument("--lanes", type=int, help="lanes of a batch (4096)")
    parser.add_argument("--many", type=int, help="lanes that a batch's are compared with, a multiple (65536)")
    parser.add_argument("--lane-instructions", type=int, help="what a lane of a batch executes, about (500000)")
    parser.add_argument("--runs", type=int, help="measured runs of each contestant (5)")
    parser.add_argument("--seconds", type=float, help="length of a run of one lane that is aimed at (0.3)")
    parser.add_argument("--clock", choices=CLOCKS, default="run", help="one-core times of vmjit: wall or CPU (run)")
    parser.add_argument("--json", type=Path, default=RESULTS_DIR / "latest.json", metavar="FILE", help="result file")
    parser.add_argument("--quick", action="store_true", help="a short version: few guests, short runs")
    parsed = parser.parse_args(arguments)
    if unknown := [guest for guest in parsed.guests if guest not in ALL_BENCHMARKS]:
        parser.error(f"no guest {', '.join(unknown)}; there are {', '.join(ALL_BENCHMARKS)}")
    quick = parsed.quick
    parsed.part = parsed.part or list(PARTS)
    parsed.guests = parsed.guests or (_QUICK_GUESTS if quick else list(ALL_BENCHMARKS))
    parsed.isa = parsed.isa or (["rv64imac"] if quick else list(QEMU))
    parsed.lanes = parsed.lanes or (256 if quick else 4096)
    parsed.many = parsed.many or 16 * parsed.lanes
    parsed.lane_instructions = parsed.lane_instructions or 500_000
    parsed.runs = parsed.runs or (3 if quick else 5)
    parsed.seconds = parsed.seconds or (0.05 if quick else 0.3)
    if min(parsed.runs, parsed.lanes, parsed.lane_instructions) < 1 or parsed.seconds <= 0:
        parser.error("--runs, --lanes, --lane-instructions and --seconds must be positive")
    if parsed.many % parsed.lanes or parsed.many == parsed.lanes:
        parser.error("--many must be a multiple of --lanes")
    return parsed


def measure(options: argparse.Namespace, console: Console) -> Results:
    """Everything the options ask for. Saved after each part, since all of them take long."""
    missing = missing_peers(options.isa)
    recorded = ("part", "runs", "seconds", "clock", "lanes", "many", "lane_instructions", "quick")
    results = empty_results(machine_info(), {name: getattr(options, name) for name in recorded}, missing)
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
            lanes=options.lanes,
            lane_instructions=options.lane_instructions,
            many=options.many,
            cores=usable_cores(),
            native=native,
        )
        for part, measured in PARTS.items():
            if part in options.part:
                measured(plan, results, status.update)
                results["targets"] = reached(results)
                save(results, options.json)
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 where contestants disagree about an answer."""
    options = parse_arguments(arguments)
    console = Console() if sys.stdout.isatty() else Console(width=110)
    results = measure(options, Console(stderr=True))
    print_report(results, console)
    print(options.json)
    return 0 if all_agree(results) else 1


if __name__ == "__main__":
    sys.exit(main())
