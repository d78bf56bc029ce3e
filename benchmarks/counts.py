"""Host instructions per guest instruction, which a busy machine does not change: `python -m benchmarks.counts`.

`perf stat` counts where the kernel lets it; else valgrind's callgrind does, which also tells generated code from the
rest. Only runs of warm machines are counted, and what a run costs whatever its length cancels out: what is shown is the
difference between two numbers of repeats. The tier `simd` runs a group of lanes, always together; the others run one.

`--portable` counts code for any CPU with AVX2, so that the figures are the same on all of them; `--check FILE` counts
anew what a file recorded so has, and fails where something takes more instructions. `--paged` counts the guests as
Linux programs, whose permissions are asked for by page.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.contestants import QEMU
from benchmarks.guests.build import BENCHMARKS
from benchmarks.results_file import RESULTS_DIR
from benchmarks.tiers import TIERS
from vmjit.bench.guests import LANE_MEMORY, SEED, elf_path, make_input, seeded_inputs
from vmjit.bench.machine_info import PROJECT, machine_info
from vmjit.bench.native_build import build_native
from vmjit.bench.spread import geometric_mean, number

if TYPE_CHECKING:
    from vmjit import Machine

# The two runs whose difference counts. callgrind runs fifty times as slowly.
REPEATS = {"perf": (64, 1024), "callgrind": (2, 12)}


Case = tuple[str, str, str]
"""A guest, an ISA and a tier."""


@dataclass(frozen=True)
class Counted:
    """Host instructions of a process: all of them, and those in generated code (only callgrind knows)."""

    total: int
    generated: int | None = None


def perf_works() -> bool:
    """Many virtual machines have no instruction counter, and perf says so only in its output."""
    if shutil.which("perf") is None:
        return False
    return perf_count(subprocess.run(perf_command(["true"]), capture_output=True, text=True, check=False).stderr) > 0


def perf_command(command: Sequence[str], options: Sequence[str] = ()) -> list[str]:
    return ["perf", "stat", "-x", ",", "-e", "instructions:u", *options, "--", *command]


def perf_count(output: str) -> int:
    """The count in `perf stat -x ,` output, 0 if there is none."""
    found = re.search(r"^(\d+),[^,]*,instructions", output, re.MULTILINE)
    return int(found.group(1)) if found else 0


def callgrind_counts(lines: Iterable[str]) -> Counted:
    """Sum up a callgrind output file. Generated code has no object file: its `ob=` is `???`.

    The line after `calls=` is what the callee cost, which the callee's own lines have already.
    """
    names: dict[str, str] = {}
    total = generated = 0
    is_generated = skip = False
    for line in lines:
        if line.startswith("ob="):
            number_, _, name = line[3:].strip().partition(" ")
            if name:
                names[number_] = name
            is_generated = names.get(number_, number_) == "???"
        elif line.startswith("cob="):
            number_, _, name = line[4:].strip().partition(" ")
            if name:
                names[number_] = name
        elif line.startswith("calls="):
            skip = True
        elif line and line[0] in "0123456789+-*":
            if not skip:
                cost = int(line.split()[1])
                total += cost
                generated += cost if is_generated else 0
            skip = False
    return Counted(total, generated)


def _run(
    command: Sequence[str], data: bytes, environment: Mapping[str, str], inherited: Sequence[int] = ()
) -> tuple[str, str]:
    """What the command wrote to standard output (as Latin-1: native code writes bytes) and to standard error."""
    done = subprocess.run(
        command, input=data, capture_output=True, cwd=PROJECT, env=environment, pass_fds=inherited, check=False
    )
    errors = done.stderr.decode(errors="replace")
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {errors[-2000:]}")
    return done.stdout.decode("latin-1"), errors


class Counter(Protocol):
    """One of the tools."""

    tool: str

    def program(self, command: Sequence[str], data: bytes) -> Counted:
        """Host instructions of a whole process."""

    def probe(self, cases: Sequence[Case], environment: Mapping[str, str]) -> list[tuple[int, Counted]]:
        """(guest instructions, host instructions) of each case's runs of REPEATS on a warm machine, one after the
        other."""


class PerfCounter:
    """`perf stat`, switched on by the probe for the run alone."""

    tool = "perf"

    def program(self, command: Sequence[str], data: bytes) -> Counted:
        return Counted(perf_count(_run(perf_command(command), data, os.environ)[1]))

    def probe(self, cases: Sequence[Case], environment: Mapping[str, str]) -> list[tuple[int, Counted]]:
        return [self._probe(case, repeat, environment) for case in cases for repeat in REPEATS[self.tool]]

    def _probe(self, case: Case, repeat: int, environment: Mapping[str, str]) -> tuple[int, Counted]:
        control, tell = os.pipe()
        hear, acknowledge = os.pipe()
        told = {**environment, "VMJIT_COUNTS_CONTROL": f"{tell},{hear}"}
        options = ["-D", "-1", "--control", f"fd:{control},{acknowledge}"]
        command = perf_command(probe_command([case], [repeat]), options)
        try:
            output, errors = _run(command, b"", told, (control, tell, hear, acknowledge))
        finally:
            for descriptor in (control, tell, hear, acknowledge):
                os.close(descriptor)
        return int(output), Counted(perf_count(errors))


class CallgrindCounter:
    """callgrind, which the probe asks to write a file of what was executed in each run."""

    tool = "callgrind"

    def program(self, command: Sequence[str], data: bytes) -> Counted:
        with tempfile.TemporaryDirectory() as scratch:
            _run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={scratch}/out", *command], data, os.environ)
            return callgrind_counts(Path(scratch, "out").read_text().splitlines())

    def probe(self, cases: Sequence[Case], environment: Mapping[str, str]) -> list[tuple[int, Counted]]:
        repeats = REPEATS[self.tool]
        with tempfile.TemporaryDirectory() as scratch:
            command = probe_command(cases, repeats)
            asked = {**environment, "VMJIT_COUNTS_CONTROL": "callgrind"}
            output, _ = _run(
                ["valgrind", "--tool=callgrind", f"--callgrind-out-file={scratch}/out", *command], b"", asked
            )
            files = [Path(scratch, f"out.{n}") for n in range(1, len(cases) * len(repeats) + 1)]
            counted = [callgrind_counts(file.read_text().splitlines()) for file in files]
        return list(zip(map(int, output.split()), counted, strict=True))


COUNTERS: dict[str, type[Counter]] = {"perf": PerfCounter, "callgrind": CallgrindCounter}


# -- what runs inside

# Instructions between two looks at what is hot, so that the same regions are compiled however slow the machine is.
_SLICE = 100_000
_WARM_REPEAT = 64
_WARM_RUNS = 3

# What tells the probes to run guests as Linux programs.
_PAGED = "VMJIT_COUNTS_PAGED"

# Lanes of a machine of the tier simd: a group's with AVX2.
_GROUP_LANES = 16


def probe_command(cases: Sequence[Case], repeats: Sequence[int]) -> list[str]:
    counted = [",".join(map(str, repeats)), *(",".join(case) for case in cases)]
    return [sys.executable, "-m", "benchmarks.counts", "--probe", *counted]


def probe(arguments: Sequence[str]) -> int:
    """`repeat,… guest,isa,tier …`: warm a machine for each case, then run each number of repeats between two marks;
    prints guest instructions."""
    _host_as_told()
    import vmjit
    from vmjit import vector_tier
    from vmjit.cpu_engine import CpuEngine
    from vmjit.translators.cpu import Effort

    vector_tier.POLICIES["simd"] = vector_tier.ALWAYS  # nothing is to depend on the clock
    repeats, *cases = arguments
    mark = _marker()
    for case in cases:
        guest, isa, tier = case.split(",")
        lanes = _GROUP_LANES if tier == "simd" else 1
        program = vmjit.load(elf_path(guest, isa))
        environment = "linux" if _PAGED in os.environ else "bare-metal"
        machine = vmjit.Machine(program, lanes, tier=tier, memory=LANE_MEMORY, environment=environment, threads=1)
        assert isinstance(machine._engine, CpuEngine)
        # Quick code gives way after a time, which depends on the clock.
        machine._engine.compiler.first_effort = Effort.FULL
        for _ in range(_WARM_RUNS if tier not in ("interpreter", "scalar") else 0):
            _warm(machine)
        for n, repeat in enumerate(map(int, repeats.split(","))):
            if tier == "scalar" and n == 0:
                _start(machine, repeat)
                machine.run()  # what is compiled before it runs is compiled here
            _start(machine, repeat)
            mark("enable")
            result = machine.run()
            mark("disable")
            print(result.instructions)
    return 0


def _start(machine: Machine, repeat: int) -> None:
    machine.reset()
    machine.set_input(list(seeded_inputs(machine.lanes, repeat)))


def _warm(machine: Machine) -> None:
    from vmjit import Stop
    from vmjit.compile_thread import COMPILE_THREAD

    _start(machine, _WARM_REPEAT if machine.lanes == 1 else _WARM_REPEAT // 8)
    while np.isin(machine.stop, (int(Stop.RUNNING), int(Stop.BUDGET))).any():
        machine.run(_SLICE)
        COMPILE_THREAD.wait()


def _marker() -> Callable[[str], None]:
    """Tells the tool where the run that counts begins ("enable") and ends ("disable")."""
    control = os.environ.get("VMJIT_COUNTS_CONTROL")
    if control is None:
        return lambda _: None
    if control == "callgrind":
        ask = _callgrind_request()
        return lambda command: ask(_ZERO_COUNTS if command == "enable" else _DUMP_COUNTS)
    tell, hear = map(int, control.split(","))

    def mark(command: str) -> None:
        os.write(tell, f"{command}\n".encode())
        os.read(hear, 16)

    return mark


# What valgrind takes for a request, which does nothing outside it (valgrind.h): rax has the request's address, rdx what
# comes of it; and callgrind's requests (callgrind.h).
_REQUEST_CODE = bytes.fromhex("4889f8 31d2 48c1c703 48c1c70d 48c1c73d 48c1c733 4887db c3")
_DUMP_COUNTS = 0x43540000
_ZERO_COUNTS = 0x43540001


def _callgrind_request() -> Callable[[int], None]:
    """Asks callgrind for something. On x86-64."""
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(_REQUEST_CODE)
    first = ctypes.c_char.from_buffer(code)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(ctypes.addressof(first))

    def ask(request: int, _kept: object = first) -> None:
        words = (ctypes.c_uint64 * 6)(request)
        function(ctypes.addressof(words))

    return ask


def _host_as_told() -> None:
    """Compile for the CPU that valgrind shows: so the cache can be filled outside it, fifty times as fast."""
    if told := os.environ.get("VMJIT_COUNTS_HOST"):
        import llvmlite.binding as llvm

        cpu, features = json.loads(told)
        llvm.get_host_cpu_name = lambda: cpu
        llvm.get_host_cpu_features = lambda: _Features(features)


class _Features:
    def __init__(self, text: str) -> None:
        self._text = text

    def flatten(self) -> str:
        return self._text


_ASK_HOST = """
import json, llvmlite.binding as llvm
llvm.initialize_native_target()
print(json.dumps([llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()]))
"""


# -- the table


# A CPU, and its features by LLVM's names, whose code runs on all that have AVX2.
_PORTABLE = ["x86-64-v3", "+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+popcnt"]


def probe_environment(tool: str, cache: str, *, portable: bool = False, paged: bool = False) -> dict[str, str]:
    """What the probes need so that two of them do the same."""
    environment = {**os.environ, "PYTHONHASHSEED": "0", "VMJIT_CACHE_DIR": cache}
    if paged:
        environment[_PAGED] = "1"
    if portable:
        environment["VMJIT_COUNTS_HOST"] = json.dumps(_PORTABLE)
    elif tool == "callgrind":
        command = ["valgrind", "--tool=none", "-q", sys.executable, "-c", _ASK_HOST]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        environment["VMJIT_COUNTS_HOST"] = done.stdout.strip()
    return environment


@dataclass(frozen=True)
class Row:
    """Host instructions per guest instruction; `generated` of them in generated code."""

    guest: str
    isa: str
    contestant: str
    total: float
    generated: float | None

    @property
    def figure(self) -> float:
        """What is shown. Under callgrind the engine's clock-driven polling would drown the rest of `total`."""
        return self.total if self.generated is None else self.generated


def difference(low: Counted, high: Counted, instructions: int) -> tuple[float, float | None]:
    """Per guest instruction, from the counts of two runs that are `instructions` guest instructions apart."""
    total = (high.total - low.total) / instructions
    if low.generated is None or high.generated is None:
        return total, None
    return total, (high.generated - low.generated) / instructions


def count_tiers(counter: Counter, cases: Sequence[Case], environment: Mapping[str, str]) -> list[tuple[Row, int]]:
    """A row a case, and how many guest instructions its two runs are apart."""
    # Once without the tool: it leaves the compiled code in the cache.
    _run(probe_command(cases, [1]), b"", environment)
    counted = counter.probe(cases, environment)
    rows = []
    for n, (guest, isa, tier) in enumerate(cases):
        (low_instructions, low), (high_instructions, high) = counted[2 * n : 2 * n + 2]
        instructions = high_instructions - low_instructions
        rows.append((Row(guest, isa, tier, *difference(low, high, instructions)), instructions))
    return rows


def count_native(counter: Counter, program: Path, isa: str, instructions: int) -> Row:
    """Native code for the same work, in host instructions per guest instruction."""
    counted = []
    for repeat in REPEATS[counter.tool]:
        data = make_input(SEED, repeat)
        counted.append(counter.program([str(program)], len(data).to_bytes(4, "little") + data))
    return Row(program.name, isa, "native", difference(counted[0], counted[1], instructions)[0], None)


# What may change without being looked at: another version of LLVM, what is compiled first.
_TOLERANCE = 0.05


def check(recorded: Sequence[Row], counted: Sequence[Row], console: Console) -> bool:
    """Whether nothing takes more instructions than was recorded; prints what does, and what takes fewer."""
    fine = True
    for old, new in zip(recorded, counted, strict=True):
        ratio = new.figure / old.figure
        if abs(ratio - 1) > _TOLERANCE:
            fine = fine and ratio < 1
            what = "MORE" if ratio > 1 else "fewer: record it"
            console.print(
                f"{old.guest} {old.isa} {old.contestant}: {number(old.figure)} host instructions per guest instruction "
                f"were recorded, {number(new.figure)} are counted ({what})"
            )
    return fine


def counts_table(isa: str, rows: Sequence[Row]) -> Table:
    """By guest and contestant: in generated code where the tool can tell it from the rest, else in all."""
    names = list(dict.fromkeys(row.contestant for row in rows))
    table = Table(title=f"{isa}: host instructions per guest instruction", title_justify="left")
    table.add_column("guest")
    for name in names:
        table.add_column(name, justify="right")
    for guest in dict.fromkeys(row.guest for row in rows):
        found = {row.contestant: row for row in rows if row.guest == guest}
        table.add_row(guest, *(number(found[name].figure) if name in found else "" for name in names))
    table.add_section()
    means = [geometric_mean([row.figure for row in rows if row.contestant == name]) for name in names]
    table.add_row("geom. mean", *("" if m is None else number(m) for m in means))
    return table


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.counts", description=__doc__)
    parser.add_argument("guests", nargs="*", metavar="guest", help="which guests (all)")
    parser.add_argument("--isa", nargs="+", choices=tuple(QEMU), default=["rv64imac"], help="guest ISAs (rv64imac)")
    parser.add_argument("--tiers", nargs="+", choices=TIERS, default=list(TIERS))
    parser.add_argument("--tool", choices=tuple(REPEATS), help="what counts (perf if it works here, else callgrind)")
    parser.add_argument("--cache", type=Path, help="code cache of the probes (a fresh one)")
    parser.add_argument("--portable", action="store_true", help="code for any CPU with AVX2, not for this one")
    parser.add_argument("--paged", action="store_true", help="permissions by page, as Linux programs have them")
    parser.add_argument("--json", type=Path, default=RESULTS_DIR / "counts.json", metavar="FILE")
    parser.add_argument("--check", type=Path, metavar="FILE", help="count what a file has, and compare")
    parsed = parser.parse_args(arguments)
    if unknown := [guest for guest in parsed.guests if guest not in BENCHMARKS]:
        parser.error(f"no guest {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    parsed.guests = parsed.guests or list(BENCHMARKS)
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 2 where nothing here can count."""
    options = parse_arguments(arguments)
    tool = options.tool or ("perf" if perf_works() and not (options.portable or options.check) else "callgrind")
    if tool == "callgrind" and shutil.which("valgrind") is None:
        print("perf has no instruction counter here, and valgrind is not installed", file=sys.stderr)
        return 2
    counter = COUNTERS[tool]()
    console = Console() if sys.stdout.isatty() else Console(width=110)
    if options.check:
        return _check(options.check, counter, console)
    rows: list[Row] = []
    errors = Console(stderr=True)
    with tempfile.TemporaryDirectory() as scratch, errors.status("starting") as status:
        native = None
        if shutil.which("gcc") and not options.portable:
            native = Path(scratch) / "native"
            build_native(native, options.guests)
        cache = str(options.cache or Path(scratch) / "cache")
        environment = probe_environment(tool, cache, portable=options.portable, paged=options.paged)
        for isa in options.isa:
            status.update(f"{isa} under {tool}")
            cases = [(guest, isa, tier) for guest in options.guests for tier in options.tiers]
            found = count_tiers(counter, cases, environment)
            rows += [row for row, _ in found]
            one_lane = {row.guest: apart for row, apart in found if row.contestant != "simd"}
            for guest, instructions in one_lane.items() if native is not None else ():
                rows.append(count_native(counter, native / guest, isa, instructions))
    for isa in options.isa:
        console.print(counts_table(isa, [row for row in rows if row.isa == isa]))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "machine": machine_info(),
        "tool": tool,
        "portable": options.portable,
        "paged": options.paged,
        "rows": [asdict(row) for row in rows],
    }
    options.json.write_text(json.dumps(content, indent=1) + "\n")
    print(options.json)
    return 0


def _check(file: Path, counter: Counter, console: Console) -> int:
    content = json.loads(file.read_text())
    if not content["portable"] or content["tool"] != counter.tool:
        console.print(f"{file} was not recorded with --portable under {counter.tool}")
        return 2
    recorded = [Row(**row) for row in content["rows"]]
    cases = [(row.guest, row.isa, row.contestant) for row in recorded]
    with tempfile.TemporaryDirectory() as cache:
        environment = probe_environment(counter.tool, cache, portable=True)
        counted = [row for row, _ in count_tiers(counter, cases, environment)]
    if not check(recorded, counted, console):
        return 1
    console.print(f"{len(recorded)} counts of host instructions are what they were")
    return 0


if __name__ == "__main__":
    sys.exit(probe(sys.argv[2:]) if sys.argv[1:2] == ["--probe"] else main())
