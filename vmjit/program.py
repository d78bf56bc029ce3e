"""Programs: what lanes run."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmjit.decoders.riscv.isa import Isa, parse_isa
from vmjit.errors import ArgumentError, FileError, ProgramError
from vmjit.kernels.layout import PERMISSION_EXECUTE, PERMISSION_READ, PERMISSION_WRITE

if TYPE_CHECKING:
    from vmjit.explain.explanation import Explanation


@dataclass(frozen=True)
class Segment:
    """`size` bytes of guest memory at `address`; `data` fills its start, the rest is zero.

    `permissions` is a sum of 1 (read), 2 (write) and 4 (execute).
    """

    address: int
    size: int
    data: bytes
    permissions: int

    @property
    def end(self) -> int:
        return self.address + self.size

    @property
    def writable(self) -> bool:
        return bool(self.permissions & PERMISSION_WRITE)

    @property
    def executable(self) -> bool:
        return bool(self.permissions & PERMISSION_EXECUTE)


@dataclass(frozen=True)
class ProgramHeaders:
    """Where the loaded file's program headers are in guest memory (0: nowhere), and their size and number."""

    address: int = 0
    size: int = 0
    count: int = 0


@dataclass(frozen=True)
class Program:
    """A guest program: segments, entry, ISA and symbols. Made by `vmjit.load` or `Program.from_bytes`.

    Raises `ProgramError` for segments that overlap or leave the address space and for an entry that is not in an
    executable segment.
    """

    segments: tuple[Segment, ...]
    entry: int
    isa_config: Isa = field(repr=False)
    symbols: dict[str, int] = field(default_factory=dict, repr=False)
    name: str = "program"
    linux: bool = False
    """Whether it was made for Linux, as its file says."""
    program_headers: ProgramHeaders = ProgramHeaders()
    relro_end: int = 0
    """Where the data ends that is read-only once relocated; 0: there is none."""

    def __init__(
        self,
        segments: tuple[Segment, ...],
        entry: int,
        isa: Isa,
        symbols: dict[str, int] | None = None,
        name: str = "program",
        *,
        linux: bool = False,
        program_headers: ProgramHeaders = ProgramHeaders(),  # noqa: B008: it is frozen
        relro_end: int = 0,
    ) -> None:
        ordered = tuple(sorted(segments, key=lambda s: s.address))
        for key, value in (
            ("segments", ordered),
            ("entry", entry),
            ("isa_config", isa),
            ("symbols", symbols or {}),
            ("name", name),
            ("linux", linux),
            ("program_headers", program_headers),
            ("relro_end", relro_end),
        ):
            object.__setattr__(self, key, value)
        self._check()

    def _check(self) -> None:
        if not self.segments:
            raise ProgramError(f"{self.name}: has nothing to load", path=self.name)
        for segment in self.segments:
            if segment.address < 0 or segment.end > 1 << self.xlen:
                raise ProgramError(f"{self.name}: segment at {segment.address:#x} leaves the address space")
        for left, right in zip(self.segments, self.segments[1:], strict=False):
            if left.end > right.address:
                raise ProgramError(
                    f"{self.name}: segments overlap: {left.address:#x}..{left.end:#x} and {right.address:#x}",
                    path=self.name,
                )
        if not any(s.executable and s.address <= self.entry < s.end for s in self.segments):
            raise ProgramError(f"{self.name}: entry {self.entry:#x} is in no executable segment", path=self.name)
        if self.entry & (1 if self.isa_config.compressed else 3):
            raise ProgramError(f"{self.name}: no instruction can start at the entry {self.entry:#x}", path=self.name)

    @property
    def xlen(self) -> int:
        """Width of the guest's registers in bits."""
        return self.isa_config.xlen

    @property
    def isa(self) -> str:
        """The canonical ISA string, such as `rv64imac_zba`."""
        return self.isa_config.name

    @classmethod
    def from_bytes(
        cls, code: bytes, isa: str, base: int = 0x10000, *, entry: int | None = None, writable: bool = True
    ) -> Program:
        """A program from raw code at `base`, entered at its start unless `entry` says otherwise.

        The code can be read and, unless `writable` is false, written by the guest. Raises `IsaError` for a bad `isa`,
        `ProgramError` for empty code or a base outside the address space.
        """
        code = bytes(code)
        if not code:
            raise ProgramError("the code is empty")
        permissions = PERMISSION_READ | PERMISSION_EXECUTE | (PERMISSION_WRITE if writable else 0)
        segment = Segment(base, len(code), code, permissions)
        return cls((segment,), base if entry is None else entry, parse_isa(isa), name="bytes")

    def explain(self, place: str | int, **options: Any) -> Explanation:
        """The region at a symbol or address beside all that it is translated to; Jupyter shows it as a page. `options`
        are those of `vmjit.explain.explanation.explain`."""
        from vmjit.explain.explanation import explain

        return explain(self, place, **options)

    def address(self, place: str | int) -> int:
        """An address from a symbol's name, a number, or a number in text (0x… or decimal)."""
        if isinstance(place, int):
            return place
        if place in self.symbols:
            return self.symbols[place]
        try:
            return int(place, 0)
        except ValueError:
            raise ArgumentError(f"{self.name} has no symbol {place!r}, and it is no address") from None


def load(path: str | os.PathLike[str], isa: str | None = None) -> Program:
    """Read a static RISC-V ELF executable.

    Args:
        path: the file.
        isa: an ISA string that overrides what the file's flags and `.riscv.attributes` say.

    Raises:
        FileError: the file cannot be read.
        ProgramError: it is no RISC-V ELF executable, or is damaged.
        IsaError: the ISA names an unknown extension.
    """
    from vmjit.loader.elf import read_elf

    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"{os.fspath(path)}: {error.strerror or error}", path=os.fspath(path)) from error
    return read_elf(data, os.fspath(path), isa)
