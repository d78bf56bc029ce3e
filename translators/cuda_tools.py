"""NVIDIA's offline tools, from the wheels of the extra `cuda13`: PTX to machine code, and what that needs."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from vmjit.errors import CompileError, DeviceMissingError

_USED = re.compile(r"Used (\d+) registers")
_FUNCTION = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_INSTRUCTION = re.compile(r"^\s*(?:/\*[0-9a-f]+\*/)?\s*(?:@!?U?P\w+\s+)?[A-Z][A-Z0-9_.]+\b.*;", re.MULTILINE)


@dataclass(frozen=True)
class Resources:
    """What ptxas says a kernel needs, with all functions it calls.

    registers: a thread's, of the kernel. stack, spill_stores, spill_loads: bytes, the sum over its functions.
    code: bytes of machine code with everything around it.
    """

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    code: int


def find_tool(name: str) -> str:
    """The path of ptxas or nvdisasm. Raises `DeviceMissingError` with the line that installs it."""
    try:
        from cuda import pathfinder

        path = pathfinder.find_nvidia_binary_utility(name)
    except ImportError:
        path = None
    if path is None:
        raise DeviceMissingError(
            f'{name} is not installed; install it with: pip install "vmjit[cuda13]"', device="cuda"
        )
    return str(path)


@lru_cache(maxsize=1)
def ptxas_version() -> str:
    """The version of ptxas, such as `ptxas 13.0.48`. Raises `DeviceMissingError`."""
    try:
        done = subprocess.run([find_tool("ptxas"), "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise DeviceMissingError(f"ptxas is there but does not run: {error}", device="cuda") from error
    return "ptxas " + done.stdout.partition(", V")[2].partition("\n")[0]


def assemble(
    ptx: str,
    architecture: str,
    *,
    relocatable: bool = False,
    max_registers: int | None = None,
    lines: bool = False,
) -> tuple[bytes, Resources]:
    """Machine code (a cubin) of a PTX module, and what it needs; with `lines` the PTX's debug locations are kept.

    `max_registers` bounds a thread's registers, which decides how many threads a multiprocessor holds. Raises
    `CompileError` with ptxas's log.
    """
    with tempfile.TemporaryDirectory(prefix="vmjit-") as folder:
        source, target = Path(folder, "module.ptx"), Path(folder, "module.cubin")
        source.write_text(ptx)
        command = [find_tool("ptxas"), "-v", f"-arch={architecture}", str(source), "-o", str(target)]
        if relocatable:
            command.append("-c")
        if lines:
            command.append("-lineinfo")
        if max_registers is not None:
            command.append(f"-maxrregcount={max_registers}")
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise CompileError(f"ptxas does not run: {error}", log=str(error), ir=ptx) from error
        if done.returncode:
            raise CompileError(f"ptxas refused a module for {architecture}", log=done.stderr, ir=ptx)
        image = target.read_bytes()
    functions = [tuple(map(int, found)) for found in _FUNCTION.findall(done.stderr)]
    stack, stores, loads = (sum(f[i] for f in functions) for i in range(3))
    registers = max((int(n) for n in _USED.findall(done.stderr)), default=0)
    return image, Resources(registers, stack, stores, loads, len(image))


def disassemble(cubin: bytes, *, lines: bool = False) -> str:
    """The machine code (SASS) of a cubin as text, with debug locations if `lines` is set."""
    with tempfile.NamedTemporaryFile(prefix="vmjit-", suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [find_tool("nvdisasm"), "-c", *(["-g"] if lines else []), file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def count_instructions(sass: str) -> int:
    """Machine instructions in a disassembly."""
    return len(_INSTRUCTION.findall(sass))
