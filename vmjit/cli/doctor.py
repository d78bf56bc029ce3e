"""`vmjit doctor`: which devices and tools there are, whether they work, and what would bring those that are missing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import vmjit
from vmjit.cli.arguments import Parser, command_parser
from vmjit.cli.console import stdout_console

_LANES = 33
_CUDA = 'pip install "vmjit[cuda13]"'
_AMD_LINKER = 'pip install "vmjit[rocm-offline]"'


@dataclass(frozen=True)
class Finding:
    """One line of the report. `state` is "works", "missing" or "fails"; `how` brings what is missing."""

    name: str
    state: str
    what: str
    how: str = ""


def parser() -> Parser:
    return command_parser(
        "doctor",
        "Shows which devices and tools there are, proves every device by running a small program on it, and says what\n"
        "brings those that are missing. The status is 1 if a device that is there fails.",
        "vmjit doctor > devices.txt",
    )


def main(arguments: Sequence[str]) -> int:
    parser().parse_args(arguments)
    from rich.table import Table

    findings = [*devices(), *tools()]
    table = Table("", "state", "what it is", "to have it")
    for finding in findings:
        table.add_row(finding.name, finding.state, finding.what, finding.how)
    stdout_console().print(table)
    return 1 if any(f.state == "fails" for f in findings) else 0


def proof() -> bytes:
    """rv32i code: a1 = sum of a0, a0 - 1, …, 1 through the word below sp, then ebreak."""
    words = (
        0x00000593,  # li a1, 0
        0x00A585B3,  # loop: add a1, a1, a0
        0xFEB12E23,  # sw a1, -4(sp)
        0xFFF50513,  # addi a0, a0, -1
        0xFFC12583,  # lw a1, -4(sp)
        0xFE0518E3,  # bne a0, zero, loop
        0x00100073,  # ebreak
    )
    return b"".join(word.to_bytes(4, "little") for word in words)


def devices() -> list[Finding]:
    from vmjit.devices.registry import BACK_ENDS
    from vmjit.devices.selection import names_of

    found = [_prove("cpu", "this computer's processor", lambda: "")]
    for kind, back_end in BACK_ENDS.items():
        names = [kind]
        if back_end.gpu:
            with contextlib.suppress(vmjit.DeviceError):  # which opening one tells again
                names = names_of(kind)
        found += [_prove(name, back_end.summary, partial(_describe, name)) for name in names]
    return found


def _describe(name: str) -> str:
    from vmjit.devices.registry import open_device

    info = open_device(name).info()
    known = (
        (info.memory_total, f"{info.memory_free >> 20:,} of {info.memory_total >> 20:,} MiB free"),
        (info.multiprocessors, f"{info.multiprocessors} multiprocessors"),
        (info.clock, f"{info.clock:,} MHz"),
        (info.l2, f"{info.l2 >> 10:,} KiB L2"),
        (info.lockstep > 1, f"{info.lockstep} lanes in step"),
    )
    return ", ".join([f"{info.name} {info.architecture}".strip(), *(text for there, text in known if there)])


def _prove(name: str, summary: str, describe: Callable[[], str]) -> Finding:
    """Run the proof on a device, lane i with i + 1, and compare with the closed formula."""
    try:
        what = describe()
        program = vmjit.Program.from_bytes(proof(), "rv32i")
        machine = vmjit.Machine(program, _LANES, name, memory=4096, fallback=False)
        machine.registers["a0"] = list(range(1, _LANES + 1))
        started = time.perf_counter()
        result = machine.run(1_000_000)
        seconds = time.perf_counter() - started
    except vmjit.DeviceMissingError as error:
        return Finding(name, "missing", summary, str(error).rpartition("with: ")[2])
    except vmjit.VmjitError as error:
        return Finding(name, "fails", str(error))
    right = result.stops() == {"EBREAK": _LANES} and machine.registers["a1"].tolist() == [
        n * (n + 1) // 2 for n in range(1, _LANES + 1)
    ]
    details = f"{summary}{f' ({what})' if what else ''}"
    if not right:
        return Finding(name, "fails", f"{details}: wrong results, {result.stops()}")
    return Finding(name, "works", f"{details}: {_LANES} lanes in {seconds:.3f} s")


def tools() -> list[Finding]:
    """What translating for GPUs needs; all of it works without one."""
    from importlib.util import find_spec

    from vmjit.translators.cuda_tools import find_tool

    found = []
    for name, what in (("ptxas", "PTX to machine code"), ("nvdisasm", "machine code to text")):
        try:
            find_tool(name)
            found.append(Finding(name, "works", what))
        except vmjit.DeviceMissingError:
            found.append(Finding(name, "missing", what, _CUDA))
    linker = "the linker of AMD code objects"
    there = find_spec("ziglang") is not None
    found.append(Finding("ld.lld", "works", linker) if there else Finding("ld.lld", "missing", linker, _AMD_LINKER))
    return found
