"""Build the benchmark guests: ``python benchmarks/guests/build.py``.

The guests are compiled by the C compiler inside the ``ziglang`` package, so that one Python environment is the whole
toolchain and the committed ELF files can be rebuilt bit for bit (``--check`` does that and compares).
``tests/guests/build.py`` uses the same functions for the guests of the behaviour tests.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vmjit.bench.native_build import FLOAT_FLAGS, build_native

GUESTS_DIR = Path(__file__).resolve().parent
SOURCE_DIR = GUESTS_DIR / "src"
BIN_DIR = GUESTS_DIR / "bin"


@dataclass(frozen=True)
class Character:
    """What a benchmark is like as a program, however well it runs here.

    lanes: "agree" where runs on different inputs take the same path but for short branches, "part" where loops, calls
    or jumps depend on the data. kinds: what it is dominated by, for readers.
    """

    lanes: Literal["agree", "part"]
    kinds: tuple[str, ...]


BENCHMARKS = {
    "adler32": Character("agree", ("checksum",)),
    "biquad": Character("agree", ("filter", "multiplication")),
    "bsearch": Character("part", ("searching", "memory-bound")),
    "bytecode": Character("part", ("interpreter", "computed jumps")),
    "calls": Character("part", ("call-heavy", "computed jumps")),
    "chacha20": Character("agree", ("cipher",)),
    "collatz": Character("part", ("arithmetic",)),
    "crc32": Character("agree", ("checksum", "table lookups")),
    "csv": Character("part", ("byte-parsing",)),
    "ising": Character("agree", ("random walk", "memory-bound")),
    "json": Character("part", ("byte-parsing", "call-heavy")),
    "lz": Character("part", ("decompression", "byte-parsing")),
    "matmul": Character("agree", ("matrix product", "multiplication")),
    "modes": Character("part", ("loops by lane", "arithmetic")),
    "montecarlo": Character("agree", ("random walk", "arithmetic")),
    "sha256": Character("agree", ("hash",)),
    "sieve": Character("part", ("memory-bound", "division")),
    "siphash": Character("agree", ("hash", "64-bit arithmetic")),
    "sort": Character("part", ("sorting", "memory-bound")),
}

# Guests that compute with floats, for ISAs of their own.
FLOAT_BENCHMARKS = {
    "ffilter": Character("agree", ("filter", "single precision")),
    "fmatmul": Character("agree", ("matrix product", "doubles")),
    "mandelbrot": Character("part", ("iteration", "doubles")),
    "mcpi": Character("agree", ("random walk", "doubles")),
    "nbody": Character("agree", ("simulation", "doubles", "division and square root")),
    "spectral": Character("agree", ("linear algebra", "doubles", "division")),
}
ALL_BENCHMARKS = {**BENCHMARKS, **FLOAT_BENCHMARKS}

# No calls that the compiler makes up, no unwind tables, no frame pointers (which no optimised build would have), and no
# debug information, which would carry the paths of the building machine.
COMPILER_FLAGS = (
    "-std=c11",
    "-O2",
    "-g0",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-ffreestanding",
    "-fno-builtin",
    "-fno-pic",
    "-fomit-frame-pointer",
    "-fno-stack-protector",
    "-fno-sanitize=all",
    "-fno-asynchronous-unwind-tables",
    "-fno-unwind-tables",
    "-fno-ident",
)

# Temporary labels are dropped: relaxable code names every branch target, and those would pass for functions.
LINKER_FLAGS = ("-static", "--build-id=none", "--discard-locals", "--fatal-warnings")


@dataclass(frozen=True)
class Target:
    """One instruction set that every guest is built for; ``name`` is part of the file name.

    ``relax`` lets the linker turn the compiler's two-instruction calls into single jumps, as in any usual program.
    """

    name: str
    triple: str
    cpu: str
    emulation: str
    flags: tuple[str, ...] = ()


TARGETS = (
    Target("rv32im", "riscv32-freestanding-none", "generic_rv32+m+relax", "elf32lriscv"),
    Target("rv64imac", "riscv64-freestanding-none", "generic_rv64+m+a+c+relax", "elf64lriscv"),
)


FLOAT_TARGETS = (
    Target("rv32gc", "riscv32-freestanding-none", "generic_rv32+m+a+f+d+c+relax", "elf32lriscv", ("-mabi=ilp32d",)),
    Target("rv64gc", "riscv64-freestanding-none", "generic_rv64+m+a+f+d+c+relax", "elf64lriscv", ("-mabi=lp64d",)),
)


@dataclass(frozen=True)
class Guest:
    """One guest program: its sources, and what differs from the usual build."""

    name: str
    sources: tuple[Path, ...]
    linker_script: Path = SOURCE_DIR / "guest.ld"
    extensions: tuple[str, ...] = ()
    targets: tuple[Target, ...] = TARGETS


def benchmark_guests() -> list[Guest]:
    """Every benchmark is one C file in the common frame."""
    frame = (SOURCE_DIR / "start.c", SOURCE_DIR / "bench_main.c")
    return [Guest(name, (*frame, SOURCE_DIR / f"{name}.c"), targets=targets_of(name)) for name in ALL_BENCHMARKS]


def targets_of(name: str) -> tuple[Target, ...]:
    """The instruction sets that a benchmark is built for."""
    return FLOAT_TARGETS if name in FLOAT_BENCHMARKS else TARGETS


def ziglang(*arguments: str) -> None:
    """Run one tool of the package; its messages go to standard error."""
    subprocess.run([sys.executable, "-m", "ziglang", *arguments], check=True)


def build_guest(guest: Guest, target: Target, output: Path) -> None:
    """Compile and link one ELF file, with the linker called directly since the driver does not pass on its options."""
    cpu = "+".join((target.cpu, *guest.extensions))
    with tempfile.TemporaryDirectory() as scratch:
        objects = []
        for source in guest.sources:
            objects.append(str(Path(scratch) / f"{source.stem}.o"))
            flags = (
                "-target",
                target.triple,
                f"-mcpu={cpu}",
                *COMPILER_FLAGS,
                *target.flags,
                *FLOAT_FLAGS,
                f"-I{SOURCE_DIR}",
            )
            ziglang("cc", *flags, "-c", str(source), "-o", objects[-1])
        options = ("-m", target.emulation, *LINKER_FLAGS, "-T", str(guest.linker_script))
        ziglang("ld.lld", *options, *objects, "-o", str(output))


def build_all(guests: Sequence[Guest], directory: Path) -> list[Path]:
    """Build every guest for every target into ``directory`` and return the files."""
    directory.mkdir(parents=True, exist_ok=True)
    outputs = []
    for guest in guests:
        for target in guest.targets:
            output = directory / f"{guest.name}.{target.name}.elf"
            build_guest(guest, target, output)
            outputs.append(output)
    return outputs


def differing(guests: Sequence[Guest], committed: Path) -> list[str]:
    """Rebuild elsewhere and name the files that are not as committed, so that sources and ELF files cannot drift."""
    with tempfile.TemporaryDirectory() as scratch:
        built = build_all(guests, Path(scratch))
        return [
            path.name
            for path in built
            if not (committed / path.name).is_file() or (committed / path.name).read_bytes() != path.read_bytes()
        ]


def report(guests: Sequence[Guest], directory: Path, check: bool) -> int:
    """Do what the command line of either build script asks for, and return the exit code."""
    if check:
        names = differing(guests, directory)
        for name in names:
            print(f"not as built from its sources: {name}")
        return 1 if names else 0
    for path in build_all(guests, directory):
        print(f"{path.stat().st_size:6d}  {path.name}")
    return 0


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Build the benchmark guests.")
    parser.add_argument("--native", metavar="DIR", type=Path, help="build them with gcc for this machine into DIR")
    parser.add_argument("--check", action="store_true", help="only compare the committed files with a fresh build")
    arguments = parser.parse_args()
    if arguments.native is not None:
        build_native(arguments.native, ALL_BENCHMARKS)
        return 0
    return report(benchmark_guests(), BIN_DIR, arguments.check)


if __name__ == "__main__":
    sys.exit(main())
