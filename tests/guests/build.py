"""Build the guests of the behaviour tests: ``python tests/guests/build.py``.

Compiler, targets and command line are those of ``benchmarks/guests/build.py``, which is loaded from its path since
neither directory is a package.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

TESTS_DIR = Path(__file__).resolve().parent
SOURCE_DIR = TESTS_DIR / "src"
BIN_DIR = TESTS_DIR / "bin"

# The extensions beyond the target's that a guest's own assembly needs.
EXTENSIONS = {"counters": ("zicsr", "zicntr"), "smc": ("zifencei",)}
# The guests that must be able to write to their own code.
WRITABLE_CODE = {"smc"}
NAMES = ("counters", "echo", "fault", "hello", "lanes", "smc", "syscalls")


def load_common() -> ModuleType:
    """Import the other build script under a name of its own: both files are called build.py."""
    path = TESTS_DIR.parents[1] / "benchmarks" / "guests" / "build.py"
    spec = importlib.util.spec_from_file_location("benchmark_guests_build", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Build the guests of the behaviour tests.")
    parser.add_argument("--check", action="store_true", help="only compare the committed files with a fresh build")
    arguments = parser.parse_args()
    common = load_common()
    guests = [
        common.Guest(
            name,
            (common.SOURCE_DIR / "start.c", SOURCE_DIR / f"{name}.c"),
            common.SOURCE_DIR / ("rwx.ld" if name in WRITABLE_CODE else "guest.ld"),
            EXTENSIONS.get(name, ()),
        )
        for name in NAMES
    ]
    return int(common.report(guests, BIN_DIR, arguments.check))


if __name__ == "__main__":
    sys.exit(main())
