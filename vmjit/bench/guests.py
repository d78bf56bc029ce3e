"""What is run: guests that come with the package, and any ELF file."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vmjit.bench.contestants import Inputs
from vmjit.errors import ArgumentError

BIN_DIR = Path(__file__).resolve().parent / "guests" / "bin"
ALL = "all"
DEFAULT = ("crc32", "sort")
"""One whose instances take the same way, and one whose instances part."""
EMPTY = "empty"
"""A bundled guest that is told to do no work."""

SEED = 12345
"""Of the first instance; the next ones have the seeds behind it."""

LANE_MEMORY = "64KiB"
"""Heap and stack of a bundled guest's instance. They need 2 KiB of stack."""

# Which of a guest's files is meant without an ISA, the first that there is.
_ISAS = ("rv64imac", "rv64gc", "rv32im", "rv32gc")


def make_input(seed: int, repeat: int) -> bytes:
    """A bundled guest's standard input."""
    return struct.pack("<II", seed & 0xFFFFFFFF, repeat)


def seeded_inputs(lanes: int, repeat: int) -> Inputs:
    """Every instance has its own seed."""
    return [make_input(SEED + lane, repeat) for lane in range(lanes)]


def elf_path(guest: str, isa: str) -> Path:
    """A bundled guest's file."""
    return BIN_DIR / f"{guest}.{isa}.elf"


def bundled() -> dict[str, tuple[str, ...]]:
    """The guests that there are, with the ISAs that they are built for."""
    found: dict[str, list[str]] = {}
    for path in sorted(BIN_DIR.glob("*.elf")):
        name, isa, _ = path.name.split(".")
        found.setdefault(name, []).append(isa)
    return {name: tuple(isas) for name, isas in found.items()}


@dataclass(frozen=True)
class BenchGuest:
    """One program and its inputs.

    bundled: it computes from a seed as often as its input says, so that its start can be told from its work; `source`
    is its name then, else a C file of the same program, if there is one. `idle`: it is told to do no work. given: the
    inputs of any other program, taken in turns by its instances.
    """

    name: str
    elf: Path
    isa: str
    linux: bool
    xlen: int
    bundled: bool
    source: str | None = None
    arguments: tuple[str, ...] = ()
    given: Inputs = (b"",)
    idle: bool = False
    asked_isa: str | None = None

    @property
    def command_line(self) -> list[bytes]:
        """The guest's arguments, its name first; none of a bundled one, which finds the inputs' number in a0."""
        return [] if self.bundled else [os.fsencode(word) for word in (str(self.elf), *self.arguments)]

    def inputs(self, lanes: int, repeat: int) -> Inputs:
        """One an instance; `repeat` is for bundled guests."""
        if self.bundled:
            return seeded_inputs(lanes, 0 if self.idle else repeat)
        return [self.given[lane % len(self.given)] for lane in range(lanes)]


def memory_of(asked: str | None, guest: BenchGuest) -> str | None:
    """Heap and stack of an instance; None: what machines have by default."""
    return asked or (LANE_MEMORY if guest.bundled else None)


def bundled_guest(name: str, isa: str | None = None) -> BenchGuest:
    """A guest that comes with the package; `ArgumentError` where it is not built for the ISA."""
    known = bundled()
    idle = name == EMPTY
    of = DEFAULT[0] if idle else name
    found = [one for one in _ISAS if one in known[of] and (isa is None or isa in (one, one[:4]))]
    if not found:
        raise ArgumentError(f"{name} is not built for {isa}; there are {', '.join(known[of])}")
    return BenchGuest(
        name, elf_path(of, found[0]), found[0], False, int(found[0][2:4]), bundled=True, source=of, idle=idle
    )


def any_guest(path: str, isa: str | None, source: str | None, arguments: Sequence[str], given: Inputs) -> BenchGuest:
    """An ELF file. Raises what loading it raises."""
    import vmjit

    program = vmjit.load(path, isa)
    return BenchGuest(
        os.path.basename(path),
        Path(path),
        str(program.isa),
        program.linux,
        program.xlen,
        bundled=False,
        source=source,
        arguments=tuple(arguments),
        given=given,
        asked_isa=isa,
    )


def choose(
    names: Sequence[str], isa: str | None, source: str | None, arguments: Sequence[str], given: Inputs
) -> list[BenchGuest]:
    """The guests that a command line names: names of bundled ones, or files."""
    known = bundled()
    if ALL in names:
        names = [*(name for name in names if name != ALL), *known]
    found = []
    for name in names or DEFAULT:
        if name in known or name == EMPTY:
            found.append(bundled_guest(name, isa))
        elif os.sep in name or os.path.exists(name):
            found.append(any_guest(name, isa, source, arguments, given))
        else:
            raise ArgumentError(f"no guest {name!r}: it is no file, and bundled are {', '.join(known)}")
    return found
