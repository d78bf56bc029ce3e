"""Compile time from bytes to running machine code, with an empty cache.

`python -m benchmarks.compile_costs PROBE ISA` makes one measurement in its process and prints it as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.contestants import QEMU
from benchmarks.guests.build import BENCHMARKS
from benchmarks.results_file import Cost, summarise
from vmjit.bench.guests import LANE_MEMORY, elf_path, make_input
from vmjit.bench.machine_info import PROJECT
from vmjit.bench.rounds import Say

if TYPE_CHECKING:
    import vmjit

LOOP_INSTRUCTIONS = 500
_ITERATIONS = 50
_SEED = 1

FIRST = "first machine, nothing cached"
HOT_LOOP = f"hot loop of {LOOP_INSTRUCTIONS} guest instructions, from bytes to its end"
PIPELINE = "all guests, whole pipeline"

# Registers that the loop computes with; x5 counts, x2 is the stack pointer.
_REGISTERS = (6, 7, 10, 11, 12, 13, 14, 15, 16, 17, 28, 29, 30, 31)


@dataclass
class Spent:
    """Seconds by the clock and of CPU time, all threads together."""

    run: float = 0.0
    cpu: float = 0.0


@contextmanager
def _timed(spent: Spent) -> Iterator[None]:
    """Adds what the body takes."""
    run, cpu = time.perf_counter(), time.process_time()
    yield
    spent.run += time.perf_counter() - run
    spent.cpu += time.process_time() - cpu


def _register_form(funct7: int, rs2: int, rs1: int, funct3: int, rd: int) -> int:
    return funct7 << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | 0x33


def _immediate_form(opcode: int, immediate: int, rs1: int, funct3: int, rd: int) -> int:
    return (immediate & 0xFFF) << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode


def _store_word(rs2: int, offset: int) -> int:
    """A store at `offset` from sp."""
    return (offset >> 5 & 0x7F) << 25 | rs2 << 20 | 2 << 15 | 2 << 12 | (offset & 0x1F) << 7 | 0x23


def _branch(funct3: int, rs1: int, rs2: int, offset: int) -> int:
    high = (offset >> 12 & 1) << 31 | (offset >> 5 & 0x3F) << 25
    return high | rs2 << 20 | rs1 << 15 | funct3 << 12 | (offset >> 1 & 0xF) << 8 | (offset >> 11 & 1) << 7 | 0x63


def _loop_part(number: int) -> tuple[int, ...]:
    """Ten instructions on registers that differ from part to part: sums, shifts, a product, memory, a short branch."""
    a, b, c, d = (_REGISTERS[(3 * number + k) % len(_REGISTERS)] for k in (0, 1, 5, 8))
    offset = -4 * (1 + number % 64)
    return (
        _register_form(0, b, a, 0, c),  # add c, a, b
        _register_form(0, c, b, 4, d),  # xor d, b, c
        _immediate_form(0x13, 1 + number % 13, c, 1, a),  # slli a, c, n
        _store_word(d, offset),  # sw d, offset(sp)
        _immediate_form(0x13, 3 * number, d, 0, b),  # addi b, d, n
        _register_form(1, b, a, 0, c),  # mul c, a, b
        _branch(6, c, d, 8),  # bltu c, d, the next but one
        _register_form(0x20, d, c, 0, c),  # sub c, c, d
        _immediate_form(0x03, offset, 2, 2, a),  # lw a, offset(sp)
        _register_form(0, a, c, 6, d),  # or d, c, a
    )


def hot_loop() -> bytes:
    """RISC-V code of either width: a loop of 500 instructions that runs 50 times, and exits."""
    body = [word for number in range(LOOP_INSTRUCTIONS // 10) for word in _loop_part(number)]
    # The loop's own count and jump take the place of the last part's first and last instruction.
    body = [*body[:-10], *body[-9:-1], _immediate_form(0x13, -1, 5, 0, 5), _branch(1, 5, 0, -4 * (len(body) - 1))]
    start = _immediate_form(0x13, _ITERATIONS, 0, 0, 5)
    leave = (_immediate_form(0x13, 93, 0, 0, 17), _immediate_form(0x13, 0, 0, 0, 10), 0x73)
    return b"".join(word.to_bytes(4, "little") for word in (start, *body, *leave))


def _width(isa: str) -> str:
    return isa[:4]


def _compiled_run(program: vmjit.Program, data: bytes = b"") -> vmjit.Machine:
    """A lane that runs to its end with everything compiled before it runs."""
    import vmjit

    machine = vmjit.Machine(program, tier="scalar", threads=1, memory=LANE_MEMORY)
    machine.set_input(data)
    result = machine.run()
    if not result.successful or result.tiers["scalar"] < 0.9 * result.instructions:
        raise SystemExit(f"not compiled, or not at its end: {result.stops()}, {dict(result.tiers)}")
    return machine


def _first(isa: str) -> Spent:
    """What every process pays once where nothing is cached: LLVM, the interpreter, a machine."""
    import vmjit

    spent = Spent()
    with _timed(spent):
        code = b"".join(w.to_bytes(4, "little") for w in (0x05D00893, 0x00000513, 0x00000073))
        machine = vmjit.Machine(vmjit.Program.from_bytes(code, _width(isa) + "i"), tier="scalar", memory=LANE_MEMORY)
        machine.run()
    return spent


def _probe_hot_loop(isa: str) -> dict[str, list[float]]:
    import vmjit

    first, spent, code = _first(isa), Spent(), hot_loop()
    with _timed(spent):
        machine = _compiled_run(vmjit.Program.from_bytes(code, _width(isa) + "im"))
    retired = int(machine.retired[0])
    assert retired > _ITERATIONS * LOOP_INSTRUCTIONS * 0.9
    return {FIRST: [first.run, first.cpu], HOT_LOOP: [spent.run, spent.cpu]}


def _probe_pipeline(isa: str) -> dict[str, list[float]]:
    """Guest instructions a second, of those in compiled regions; from the ELF file to the guest's end."""
    import vmjit
    from vmjit.compile_thread import COMPILE_THREAD
    from vmjit.cpu_engine import CpuEngine

    _first(isa)
    spent = Spent()
    instructions = 0
    for guest in BENCHMARKS:
        with _timed(spent):
            machine = _compiled_run(vmjit.load(elf_path(guest, isa)), make_input(_SEED, 1))
            COMPILE_THREAD.wait()
        engine = machine._engine
        assert isinstance(engine, CpuEngine)
        instructions += engine.compiler.statistics.guest_instructions
    return {PIPELINE: [instructions / spent.run, instructions / spent.cpu]}


PROBES: dict[str, Callable[[str], dict[str, list[float]]]] = {
    "hot-loop": _probe_hot_loop,
    "pipeline": _probe_pipeline,
}

_UNITS = {FIRST: "s", HOT_LOOP: "s", PIPELINE: "guest instructions/s"}


def cost_name(what: str, isa: str) -> str:
    return f"{what}, {_width(isa)}"


def _run_probe(probe: str, isa: str) -> Mapping[str, list[float]]:
    with tempfile.TemporaryDirectory() as empty:
        command = [sys.executable, "-m", "benchmarks.compile_costs", probe, isa]
        environment = {**os.environ, "VMJIT_CACHE_DIR": empty}
        done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True)
    figures: Mapping[str, list[float]] = json.loads(done.stdout)
    return figures


def measure_compile_costs(isas: Sequence[str], runs: int, clock: str, say: Say) -> tuple[list[Cost], dict[str, str]]:
    """Each probe in `runs` processes, each with an empty cache folder; and what failed, with the reason."""
    costs: list[Cost] = []
    failed = {}
    for probe in PROBES:
        for isa in isas:
            say(f"compile time: {probe} {isa}")
            try:
                figures = [_run_probe(probe, isa) for _ in range(runs)]
            except subprocess.CalledProcessError as error:
                lines = error.stderr.strip().splitlines() or ["no message"]
                failed[f"compile time, {probe} {isa}"] = f"failed: {lines[-1]}"
                continue
            for name in figures[0]:
                values = [figure[name][clock == "cpu"] for figure in figures]
                costs.append({"name": cost_name(name, isa), "unit": _UNITS[name], "value": summarise(values)})
    return costs, failed


if __name__ == "__main__":
    assert sys.argv[2] in QEMU, sys.argv[2]
    print(json.dumps(PROBES[sys.argv[1]](sys.argv[2])))
