"""`vmjit bench`: how fast guests run here, beside other ways to run them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmjit.cli.arguments import Parser, command_parser, positive, seconds
from vmjit.cli.guest import add_inputs, add_surroundings
from vmjit.cli.outputs import prepare_file
from vmjit.errors import ArgumentError

if TYPE_CHECKING:
    from vmjit.bench.contestants import Inputs
    from vmjit.bench.results_file import Results
    from vmjit.bench.session import Plan
    from vmjit.bench.sheets import Sheet

_DESCRIPTION = """\
Measures guests: those that come with the package, by name, or any ELF files, beside the same C compiled for this
computer (native), QEMU's user mode, Unicorn, icicle, and any command. All run on the same inputs, on pinned cores,
warm and in turns, and all answers are compared: one that differs leaves its row without figures, and the status is 1.
A ratio is only given where it lies beyond the noise.

A command NAME=COMMAND is run once for each instance with the instance's input; {elf} in it stands for the guest's file.
Of many instances, those that take a process or their turn each are a sample of 16, scaled.

With --compare, what got slower than in an earlier file beyond the noise is told, and the status is 1."""
_EXAMPLES = """\
vmjit bench crc32 --lanes 1,4096
vmjit bench crc32 sort --peer qemu --peer native --json today.json --html today.html
vmjit bench crc32 --device cpu,host --lanes 64,1024 --plot crossover.svg
vmjit bench prog.elf --source prog.c --peer native --peer "mine=emulate {elf}" --input data -- -v
vmjit bench --compare yesterday.json --against today.json
vmjit bench --self-check"""

_SELF_CHECK_GUESTS = ("empty", "crc32")


def parser() -> Parser:
    made = command_parser("bench", _DESCRIPTION, _EXAMPLES, usage="vmjit bench [OPTION ...] [GUEST ...] [-- ARG ...]")
    made.add_argument(
        "guests", metavar="GUEST", nargs="*", help="names of bundled guests, all, or ELF files (default: crc32 sort)"
    )
    made.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="native|qemu|unicorn|icicle|none",
        help="beside whom, or NAME=COMMAND; may be repeated (default: all that are installed)",
    )
    made.add_argument("--lanes", type=_numbers, default=(1, 4096), metavar="N,…", help="how many instances (1,4096)")
    made.add_argument("--device", type=_names, default=("cpu",), metavar="NAME,…", help="where vmjit runs (cpu)")
    made.add_argument("--tier", type=_names, default=("auto",), metavar="NAME,…", help="vmjit's tiers (auto)")
    made.add_argument("--cores", type=positive, metavar="N", help="cores to use (1; all where there are other devices)")
    made.add_argument("--rounds", type=positive, default=7, metavar="N", help="measured rounds; ratios take 5 (7)")
    made.add_argument("--starts", type=positive, default=3, metavar="N", help="fresh starts of each contestant (3)")
    made.add_argument("--seconds", type=seconds, default=0.1, metavar="S", help="what a run is to take, about (0.1)")
    made.add_argument("--repeat", type=positive, metavar="N", help="how often a bundled guest does its work")
    made.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="the time that counts (wall)")
    made.add_argument(
        "--memory", metavar="SIZE", help="heap and stack of an instance (64KiB; of other ELF files as in vmjit run)"
    )
    made.add_argument("--source", metavar="FILE.c", help="an ELF file's program, for a native build")
    add_surroundings(made)
    add_inputs(made, "an input for each instance, in turns")
    made.add_argument("--json", metavar="FILE", help="save everything that was measured")
    made.add_argument("--html", metavar="FILE", help="save a page with tables and plots")
    made.add_argument("--plot", metavar="FILE", help="save plots over the number of instances, .svg or .png")
    made.add_argument("--compare", metavar="OLD.json", help="tell what got slower since; status 1 if something did")
    made.add_argument("--against", metavar="NEW.json", help="with --compare: compare this file and measure nothing")
    made.add_argument(
        "--feed-placement",
        action="store_true",
        help="have the choice of devices know the crossover of simulated devices too; that of GPUs it knows always",
    )
    made.add_argument(
        "--self-check", action="store_true", help="measure an empty guest, and one contestant against itself"
    )
    return made


def _numbers(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them, each once, in order."""
    return tuple(sorted({positive(word) for word in text.split(",")}))


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name")
    return names


def main(arguments: Sequence[str]) -> int:
    words = list(arguments)
    cut = words.index("--") if "--" in words else len(words)
    made = parser()
    options = made.parse_intermixed_args(words[:cut])
    from vmjit.bench.results_file import all_agree, load

    old = load(Path(options.compare)) if options.compare else None
    if options.against:
        if old is None:
            made.error("--against needs --compare OLD.json")
        results = load(Path(options.against))
        _prepare(options)
    else:
        plan = _plan(options, words[cut + 1 :])
        _prepare(options)
        results = _measured(plan, options.json)
    more, worse = _compared(old, results)
    _show(results, more, tables=not options.against)
    _save(options, results, more)
    if not options.against:
        _feed(results, options)
    if options.self_check:
        worse |= not _believed(results)
    if old is not None and not more:
        raise ArgumentError(f"nothing in {options.compare} can be compared with this")
    return 1 if worse or not all_agree(results) else 0


def _prepare(options: argparse.Namespace) -> None:
    """What cannot be saved is known before anything is measured."""
    from vmjit.bench.plots import plot_name

    if options.plot:
        plot_name(options.plot)
    for path in (options.json, options.html, options.plot):
        prepare_file(path)


def _plan(options: argparse.Namespace, arguments: Sequence[str]) -> Plan:
    """What the options ask for, with everything checked that can be before it is measured."""
    from vmjit.bench.cores import usable_cores
    from vmjit.bench.guests import choose
    from vmjit.bench.peers import NONE, chosen_peers
    from vmjit.bench.session import CPU, Plan

    names, peers = options.guests, options.peer
    if options.self_check:
        if names or peers:
            raise ArgumentError("--self-check chooses its own guests and contestants")
        names, peers = list(_SELF_CHECK_GUESTS), [NONE]
    if options.source is not None:
        Path(options.source).read_bytes()
    guests = choose(names, options.isa, options.source, arguments, _inputs(options))
    kinds, missing = chosen_peers(peers)
    for kind in kinds if peers else ():
        for guest in guests:
            if why := kind.unable(guest):
                raise ArgumentError(f"peer {kind.name}, {guest.name}: {why}")
    cores = usable_cores()
    wanted = options.cores or (1 if options.device == (CPU,) else len(cores))
    if wanted > len(cores):
        raise ArgumentError(f"--cores {wanted}, but there are {len(cores)}")
    plan = Plan(
        guests=guests,
        lanes=options.lanes,
        tiers=options.tier,
        devices=options.device,
        peers=kinds,
        missing=missing,
        settings={"environment": options.environment, "root": options.root, "seed": options.seed},
        memory=options.memory,
        cores=cores[:wanted],
        rounds=options.rounds,
        starts=options.starts,
        seconds=options.seconds,
        clock=options.clock,
        repeat=options.repeat,
        twice=options.self_check,
    )
    _check(plan)
    return plan


def _inputs(options: argparse.Namespace) -> Inputs:
    from vmjit.cli.inputs import read_inputs

    data = read_inputs(options.input, options.inputs).data
    if data is None or isinstance(data, bytes):
        return [data or b""]
    return [bytes(one) for one in data]


def _check(plan: Plan) -> None:
    """Make each contestant's machine once, as small as it gets: a tier, device or size that is none is told here."""
    import vmjit
    from vmjit.bench.guests import memory_of
    from vmjit.bench.session import CPU
    from vmjit.devices.selection import open_devices
    from vmjit.placement import device_of_tier

    for guest in plan.guests:
        program = vmjit.load(guest.elf, guest.asked_isa)
        for device in plan.devices:
            for tier in plan.tiers:
                if device == "auto":
                    raise ArgumentError("a device is measured by its name: cpu, cuda, hip, ptx, host")
                if device != CPU:
                    open_devices(device)
                device_of_tier(device, tier)
                settings: dict[str, Any] = {**plan.settings, "arguments": guest.command_line}
                vmjit.Machine(program, 1, CPU, tier, memory_of(plan.memory, guest), threads=1, **settings)


def _measured(plan: Plan, path: str | None) -> Results:
    """Saved after each row, if it is to be: all of them can take long."""
    from rich.console import Console

    from vmjit.bench.results_file import save
    from vmjit.bench.session import measure

    with Console(stderr=True).status("starting") as status:
        return measure(plan, status.update, (lambda results: save(results, Path(path))) if path else lambda _: None)


def _compared(old: Results | None, new: Results) -> tuple[list[Sheet], bool]:
    """What there is to show of a comparison, nothing without one, and whether something got worse."""
    if old is None:
        return [], False
    from vmjit.bench.compare import compare, regressions, same_processor
    from vmjit.bench.sheets import comparison_sheet
    from vmjit.cli.console import remark

    changes, gone = compare(old, new)
    if not same_processor(old, new):
        remark("the files are of different processors: only what is in relation to a peer is compared")
    return [comparison_sheet(changes, gone)] if changes else [], bool(regressions(changes))


def _show(results: Results, more: Sequence[Sheet], *, tables: bool) -> None:
    from rich.table import Table

    from vmjit.bench.sheets import EXPLANATIONS, conditions, remarks, sheets
    from vmjit.cli.console import stdout_console

    console = stdout_console()
    if not tables:
        lines: list[str] = []
    else:
        lines = [conditions(results), *remarks(results)]
    for sheet in (*(sheets(results) if tables else ()), *more):
        table = Table(title=sheet.title, title_justify="left", box=None)
        for number, name in enumerate(sheet.header):
            table.add_column(name, justify="right" if number else "left", no_wrap=number < len(sheet.header) - 1)
        for line in sheet.lines:
            table.add_row(*line)
        console.print(table if sheet.lines else sheet.title)
        for note in sheet.notes:
            console.print(f"  {note}")
        console.print()
    for text in (*lines, *(EXPLANATIONS if tables and sys.stdout.isatty() else ())):
        console.print(text)


def _believed(results: Results) -> bool:
    """Print what the self-check found; whether all of it is as it should be."""
    from vmjit.bench.self_check import findings

    found = list(findings(results))
    for finding in found:
        print(f"{'right' if finding.fine else 'WRONG'}: {finding.text}")
    return all(finding.fine for finding in found)


def _save(options: argparse.Namespace, results: Results, more: Sequence[Sheet]) -> None:
    from vmjit.bench.page import page
    from vmjit.bench.plots import save_plots, sweeps
    from vmjit.bench.results_file import save
    from vmjit.cli.console import remark

    if options.json:
        save(results, Path(options.json))
    if options.html:
        Path(options.html).write_text(page(results, more), encoding="utf-8")
    if options.plot:
        plots = sweeps(results)
        if not plots:
            remark("nothing to plot: give several numbers of lanes")
        save_plots(plots, options.plot)


def _feed(results: Results, options: argparse.Namespace) -> None:
    from vmjit.bench.cores import usable_cores
    from vmjit.bench.crossings import feed_placement
    from vmjit.cli.console import remark

    told = []
    # The placement weighs a device against all of the CPU.
    if results["options"]["cores"] == len(usable_cores()):
        told = feed_placement(results["crossings"], simulated=options.feed_placement)
    for text in told:
        remark(text)
    if options.feed_placement and not told:
        remark("nothing for the choice of devices: it takes another device, several numbers of lanes, and all cores")
