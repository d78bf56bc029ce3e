"""Build the programs of the Linux tests against musl: ``python tests/linux/build.py``.

The files in `bin/` are committed: building a C library for the first time takes a minute.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PROGRAMS = (
    "compress",
    "ending",
    "files",
    "hostile",
    "listing",
    "memory",
    "numbers",
    "polling",
    "protect",
    "script",
    "sparse",
    "text",
    "workload",
)
TARGETS = {32: "riscv32-linux-musl", 64: "riscv64-linux-musl"}
FLAGS = (
    "-static",
    "-O2",
    "-s",
    "-std=c11",
    "-D_GNU_SOURCE",
    "-Wall",
    "-Werror",
    "-Wno-infinite-recursion",
    "-fno-sanitize=all",
)


def path_of(name: str, xlen: int) -> Path:
    return FOLDER / "bin" / f"{name}.rv{xlen}.elf"


def main() -> None:
    for name in PROGRAMS:
        for xlen, target in TARGETS.items():
            source, output = str(FOLDER / "src" / f"{name}.c"), str(path_of(name, xlen))
            command = [sys.executable, "-m", "ziglang", "cc", "-target", target, *FLAGS, source, "-o", output, "-lm"]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
