"""C sources compiled for this computer, as the speed that everything is compared with."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from vmjit.errors import ArgumentError

SOURCE_DIR = Path(__file__).resolve().parent / "guests" / "src"

# A product and a sum stay two operations, here and in guests, so that results are the same; a square root is one
# instruction.
FLOAT_FLAGS = ("-ffp-contract=off", "-fno-math-errno")

_OPTIMISED = ("gcc", "-O2", "-march=native", *FLOAT_FLAGS)


def bundled_command(name: str, output: Path) -> list[str]:
    """How a bundled guest is compiled, in the frame that takes many inputs."""
    sources = [str(SOURCE_DIR / f"{name}.c"), str(SOURCE_DIR / "native.c")]
    return [*_OPTIMISED, "-std=c11", "-Wall", "-Wextra", "-Werror", "-DNATIVE", *sources, "-o", str(output)]


def source_command(source: Path, output: Path) -> list[str]:
    """How any C program is compiled."""
    return [*_OPTIMISED, str(source), "-o", str(output), "-lm"]


def build(command: list[str]) -> float:
    """Seconds of a compiler. Raises `ArgumentError` with its first complaint."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["no word"]
        raise ArgumentError(f"{command[0]} failed: {said[0]}")
    return time.perf_counter() - started


def build_native(directory: Path, names: Iterable[str]) -> list[Path]:
    """Build bundled guests into a folder: the reference for results and for the speed of native code."""
    directory.mkdir(parents=True, exist_ok=True)
    outputs = []
    for name in names:
        outputs.append(directory / name)
        build(bundled_command(name, outputs[-1]))
    return outputs
