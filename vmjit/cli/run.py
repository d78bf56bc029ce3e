"""`vmjit run`: a guest program on one lane as if it were a program of this machine, or on many lanes."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vmjit.cli.arguments import Parser, integer, seconds
from vmjit.cli.guest import add_inputs, add_memory, add_surroundings, guest_parser, parse_guest
from vmjit.errors import ArgumentError
from vmjit.stops import Stop

if TYPE_CHECKING:
    from vmjit.cli.report import Report
    from vmjit.machine import Machine

_STATUS = {
    Stop.RUNNING: 130,
    Stop.BUDGET: 124,  # as timeout(1) has it
    Stop.FAULT: 139,  # 128 + SIGSEGV
    Stop.UNSUPPORTED: 132,  # 128 + SIGILL
    Stop.EBREAK: 133,  # 128 + SIGTRAP
    Stop.MEMORY: 137,  # 128 + SIGKILL, as where the operating system has no more memory
}
"""The exit status for the stop of a single lane that did not exit."""

_INTERRUPTED = 130
_TIMED_OUT = 124

_DESCRIPTION = """\
Runs a guest program.

With one lane it behaves like a program of this machine: its standard streams are ours, and its exit code is our exit
status. If it does not exit, a line on standard error says why, and the status is 124 for the end of the budget, 139 for
a fault, 132 for an unsupported instruction, 133 for a breakpoint, 137 for want of memory. With more lanes the status is
0 if every lane exited with 0, else 1, and a table sums up. 124 when the time limit ended the run, 130 after Ctrl-C, 2
for a mistake on the command line.

Options may stand before or behind PROGRAM; what stands behind -- goes to the guest as it is. Every lane has argv[0] =
PROGRAM and the same arguments, and finds its number in a0 and the number of lanes in a1."""

_DEVICE_HELP = """\
where to run: auto (default; a GPU where it can and pays), cpu, cuda, hip, ptx (CUDA kernels in a virtual machine) or
host; cuda:1, cuda:all, ptx:sm_75 and the like"""

_EXAMPLES = """\
vmjit run guest.elf --input corpus/seed
vmjit run guest.elf --lanes 4096 --max-instructions 1e8 --json -- -v file
vmjit run guest.elf --inputs corpus/ --dump results:64=results.npy --dump __bss_start.._end=bss.npy"""


def parser() -> Parser:
    made = guest_parser("run", _DESCRIPTION, _EXAMPLES)
    made.add_argument("--lanes", type=integer, metavar="N", help="how many lanes (default: as many as inputs, else 1)")
    made.add_argument("--device", default="auto", metavar="DEVICE", help=_DEVICE_HELP)
    made.add_argument(
        "--no-fallback", action="store_true", help="a device that fails is an error; nothing moves to the CPU"
    )
    made.add_argument(
        "--tier", default="auto", metavar="auto|interpreter|scalar|simd", help="how to execute (default auto)"
    )
    made.add_argument("--threads", type=integer, metavar="N", help="threads that run lanes (default: one per core)")
    made.add_argument("--max-instructions", type=integer, metavar="K", help="stop every lane after K instructions")
    made.add_argument("--max-seconds", type=seconds, metavar="S", help="end the run after S seconds of wall-clock time")
    add_memory(made)
    made.add_argument(
        "--memory-limit",
        metavar="SIZE",
        help="memory of this computer for all lanes together (default: three eighths of what is free)",
    )
    add_surroundings(made)
    made.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a Linux program's variable; may be repeated",
    )
    made.add_argument(
        "--args-from",
        metavar="FILE",
        help="arguments of a Linux program by lane: a line each, quoted as for a shell; instead of ARG",
    )
    made.add_argument(
        "--env-from",
        metavar="FILE",
        help="a Linux program's variables by lane, beside those of --env: a line of NAME=VALUE each, quoted as for a "
        "shell",
    )
    made.add_argument(
        "--input-as",
        metavar="PATH",
        help="inputs are what a Linux program finds in its file PATH, and not its standard input",
    )
    made.add_argument(
        "--output-dir",
        metavar="DIR",
        help="save what each lane wrote as NAME.out and NAME.err, NAME its input's or number",
    )
    add_inputs(made)
    made.add_argument(
        "--dump",
        action="append",
        default=[],
        metavar="PLACE:LENGTH=FILE.npy|PLACE..PLACE=FILE.npy",
        help="save guest memory as a uint8 array (lanes, bytes); a place is a symbol or an address; may be repeated",
    )
    made.add_argument(
        "--timeline",
        metavar="FILE",
        help="save passes, calls, compilations and stops over time, for Perfetto (ui.perfetto.dev) or chrome://tracing",
    )
    made.add_argument(
        "--gdb",
        type=integer,
        metavar="PORT",
        help="wait for GDB on this port of the loopback device (0: a free one); lanes are threads, number 1 is lane 0",
    )
    made.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object; up to 64 lanes: with what they wrote, bytes that are no UTF-8 as \\x...",
    )
    return made


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options; `arguments` are the guest's, those behind -- too."""
    return parse_guest(parser(), words)


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    import vmjit
    from vmjit.cli.dumps import check_dumps, parse_dump
    from vmjit.cli.inputs import give_inputs, read_inputs
    from vmjit.cli.outputs import prepare_folder, recorded, save_outputs
    from vmjit.cli.progress import run_with_progress
    from vmjit.cli.report import Report

    program = vmjit.load(options.program, options.isa)
    inputs = read_inputs(options.input, options.inputs)
    lists = None if options.args_from is None else _argument_lists(options)
    wanted = options.lanes if lists is None else _agreed(options.lanes, len(lists), options.args_from)
    variables = None if options.env_from is None else _variable_lists(options.env_from)
    wanted = wanted if variables is None else _agreed(wanted, len(variables), options.env_from)
    lanes = inputs.lanes(wanted, options.inputs)
    folder = None if options.output_dir is None else prepare_folder(options.output_dir)
    dumps = [parse_dump(program, text) for text in options.dump]
    machine = vmjit.Machine(
        program,
        lanes,
        options.device if options.gdb is None or options.device != "auto" else "cpu",
        options.tier,
        options.memory,
        memory_limit=options.memory_limit,
        arguments=[os.fsencode(word) for word in (options.program, *options.arguments)] if lists is None else (),
        lane_arguments=lists,
        threads=options.threads,
        fallback=not options.no_fallback,
        environment=options.environment,
        variables=_variables(options.env),
        lane_variables=variables,
        root=options.root,
        seed=options.seed,
    )
    check_dumps(dumps, program, machine.memory_size, lanes)
    give_inputs(machine, inputs, options.input_as)
    if options.gdb is not None and not _debugged(machine, options.gdb):
        result = machine.run(0)
    else:
        with recorded(options.timeline):
            result = run_with_progress(machine, options.max_instructions, options.max_seconds)
    report = Report(machine, result, inputs.names)
    for dump in dumps:
        dump.save(machine)
    if folder is not None:
        save_outputs(folder, result, inputs.names)
    _show(report, as_json=options.json, saved=folder is not None)
    return _status(report)


def _debugged(machine: Machine, port: int) -> bool:
    """Serve GDB; whether the lanes shall go on without it."""
    from vmjit.cli.console import remark
    from vmjit.gdb import GdbServer

    with contextlib.closing(GdbServer(machine, port)) as server:
        remark(f"waiting for GDB: target remote 127.0.0.1:{server.port}")
        return server.serve()


def _argument_lists(options: argparse.Namespace) -> list[list[bytes]]:
    """--args-from: each lane's arguments behind the program's name."""
    if options.arguments:
        raise ArgumentError("--args-from stands instead of arguments behind PROGRAM")
    words = _words_by_line(options.args_from)
    return [[os.fsencode(word) for word in (options.program, *line)] for line in words]


def _variable_lists(path: str) -> list[dict[str, str]]:
    """--env-from: each lane's variables by name."""
    return [_variables(line) for line in _words_by_line(path)]


def _words_by_line(path: str) -> list[list[str]]:
    found = []
    for number, line in enumerate(Path(path).read_bytes().splitlines(), 1):
        try:
            found.append(shlex.split(os.fsdecode(line)))
        except ValueError as error:
            raise ArgumentError(f"{path}, line {number}: {error}") from None
    if not found:
        raise ArgumentError(f"{path} has no lines")
    return found


def _agreed(lanes: int | None, count: int, source: str) -> int:
    if lanes is not None and lanes != count:
        raise ArgumentError(f"{lanes} lanes, but {source} has {count} lines, one a lane")
    return count


def _variables(given: Sequence[str]) -> dict[str, str]:
    """The texts of --env by name."""
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ArgumentError(f"cannot read the variable {text!r}: write NAME=VALUE")
        found[name] = value
    return found


def _show(report: Report, *, as_json: bool, saved: bool) -> None:
    from vmjit.cli.console import remark, stdout_console, write_bytes

    if as_json:
        print(json.dumps(report.json()))
    elif report.machine.lanes > 1 or saved:
        report.print(stdout_console())
        if report.result.interrupted:
            remark("interrupted")
        if report.result.timed_out:
            remark("out of time")
    else:
        write_bytes(sys.stdout, report.result.output(0))
        write_bytes(sys.stderr, report.result.error_output(0))
        if report.result.stop[0] != Stop.EXIT:
            remark(report.line(0))


def _status(report: Report) -> int:
    result = report.result
    if result.interrupted:
        return _INTERRUPTED
    if result.timed_out:
        return _TIMED_OUT
    if report.machine.lanes > 1:
        return 0 if bool((result.exit_code == 0).all()) else 1
    stop = Stop(int(result.stop[0]))
    return int(result.exit_code[0]) if stop is Stop.EXIT else _STATUS[stop]
