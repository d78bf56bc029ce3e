"""`explain`: a region of a program with its translations, and what ran of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from vmjit.code_space import CodeSpace
from vmjit.cpu_engine import CpuEngine
from vmjit.decoders.riscv.decoder import Decoder
from vmjit.errors import ArgumentError
from vmjit.explain.counting import RunCounts, count_run, counted_machine
from vmjit.explain.listings import Listing
from vmjit.explain.targets import (
    AMD_ARCHITECTURE,
    CUDA_ARCHITECTURE,
    TARGETS,
    USUAL,
    Assumed,
    Subject,
)
from vmjit.explain.worker import make_listings
from vmjit.memory_layout import MemoryLayout, parse_size, plan_memory
from vmjit.placement import Placement, reasons_in_code
from vmjit.placement import place as place_run
from vmjit.places import CodeSymbols, code_address
from vmjit.source_lines import SourceLines
from vmjit.static_code import StaticCode
from vmjit.translators.regions import Region, with_short_ways

if TYPE_CHECKING:
    from vmjit.machine import Machine
    from vmjit.program import Program

# Registers that compilers keep the same in lanes which do the same: return address, stack, data and thread pointers.
_POINTERS = 0b11110

_DEFAULT_MEMORY = "1MiB"
_DEFAULT_LANES = 4096


@dataclass(frozen=True)
class GuestLine:
    """An instruction of the guest. name: a symbol that is here, or None. source: file and line, where known. starts:
    whether a block begins here."""

    pc: int
    data: bytes
    text: str
    name: str | None
    source: tuple[str, int] | None
    starts: bool


@dataclass(frozen=True)
class Explanation:
    """A region beside its translations.

    place: where it was asked for. guest: its instructions by address. listings: by target. missing: by target, why
    there is no listing. placement: where a run of so many lanes goes, and why. counts: what ran, if it was run.
    """

    program: str
    isa: str
    place: str
    entries: tuple[int, ...]
    guest: tuple[GuestLine, ...]
    blocks: int
    listings: dict[str, Listing]
    missing: dict[str, str]
    lanes: int
    placement: Placement
    counts: RunCounts | None

    def object(self) -> dict[str, Any]:
        """Everything as JSON takes it."""
        from vmjit.explain.as_object import explanation_object

        return explanation_object(self)

    def html(self) -> str:
        """One page that needs nothing beside it."""
        from vmjit.explain.page import page

        return page(self)

    def _repr_html_(self) -> str:
        """What Jupyter shows."""
        from vmjit.explain.page import framed

        return framed(self)


def explain(
    program: Program,
    place: str | int,
    *,
    targets: Sequence[str] | None = None,
    memory: str | int | None = None,
    lanes: int | None = None,
    cuda: str = CUDA_ARCHITECTURE,
    amd: str = AMD_ARCHITECTURE,
    source: str | None = None,
    make: Callable[[str], Machine] | None = None,
    tier: str = "auto",
    max_instructions: int | None = None,
) -> Explanation:
    """The region around an address or symbol, with its translations.

    Args:
        targets: names of `vmjit.explain.targets.TARGETS`; None: the usual ones.
        memory: heap and stack of a lane, as for `Machine`.
        lanes: how many lanes the placement is asked for; those of the machine if it is run.
        source: the program's ELF file, for lines of its source.
        make: gives a new machine for a tier, with its inputs. It is run, twice, up to so many instructions a lane, and
            the region is the one that was compiled. None: nothing runs, and the region grows along all static edges.

    Raises `ArgumentError` for a place where no instruction is and for unknown targets.
    """
    names = list(USUAL) if targets is None else list(dict.fromkeys(targets))
    if unknown := [name for name in names if name not in TARGETS]:
        raise ArgumentError(f"no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    pc = code_address(program, place)
    run = None if make is None else _Run(make, tier, max_instructions)
    static = StaticCode(program)
    code: StaticCode | CodeSpace = static
    region = static.region(pc)
    if region is None:
        raise ArgumentError(f"nothing can be executed at {pc:#x}")
    layout = _layout(program, memory) if run is None else run.layout
    if run is not None and (compiled := run.region(pc)) is not None:
        code, region = run.space, compiled
    group_region = with_short_ways(code, replace(region, entries=region.entries[:1], returning=None))
    assumed = Assumed(_POINTERS) if run is None else run.assumed(region) or Assumed(_POINTERS)
    subject = Subject(region, group_region, code.decoder.registers, layout, assumed, cuda, amd)
    listings, missing = make_listings(subject, names)
    lanes = lanes or (_DEFAULT_LANES if run is None else run.machine.lanes)
    symbols = CodeSymbols(program)
    return Explanation(
        program.name,
        program.isa,
        symbols.place(pc),
        tuple(region.entries),
        _guest_lines([region, group_region], code.decoder, symbols, source),
        len(region.blocks),
        listings,
        missing,
        lanes,
        _placement(program, layout, lanes),
        None if run is None else run.counts(region),
    )


class _Run:
    """A run that regions are looked for in."""

    def __init__(self, make: Callable[[str], Machine], tier: str, max_instructions: int | None) -> None:
        self._make = make
        self._max_instructions = max_instructions
        self._counted = counted_machine(make, tier)
        self.machine = self._counted[0]
        self._tiers = dict(self.machine.run(max_instructions).tiers)

    @property
    def _engine(self) -> CpuEngine:
        engine = self.machine._engine
        assert isinstance(engine, CpuEngine)
        return engine

    @property
    def space(self) -> CodeSpace:
        return self._engine.spaces[0]

    @property
    def layout(self) -> MemoryLayout:
        return self.machine._lane_memory.layout

    def region(self, pc: int) -> Region | None:
        """The compiled region that has an instruction: one that begins there, else the smallest."""
        compiled = [r for r in self._engine.compiler.installed(self.space) if _has(r, pc)]
        return min(compiled, key=lambda r: (r.entries[0] != pc, r.size), default=None)

    def assumed(self, region: Region) -> Assumed | None:
        """What its code for whole groups assumes, if there is such."""
        vectors = self._engine.compiler.vectors
        found = None if vectors is None else vectors.assumed_at(region.entries[0])
        return None if found is None else Assumed(*found)

    def counts(self, region: Region) -> RunCounts:
        return count_run(self._counted, self._tiers, self._make, region, self._max_instructions)


def _has(region: Region, pc: int) -> bool:
    return any(i.pc == pc for block in region.blocks.values() for i in block.instructions)


def _layout(program: Program, memory: str | int | None) -> MemoryLayout:
    size = parse_size(_DEFAULT_MEMORY if memory is None else memory)
    return plan_memory(program, size, whole_pages=program.linux)


def _guest_lines(
    regions: Sequence[Region], decoder: Decoder, symbols: CodeSymbols, source: str | None
) -> tuple[GuestLine, ...]:
    blocks = [block for region in regions for block in region.blocks.values()]
    starts = {block.pc for block in blocks}
    lines = SourceLines.of(source) if source is not None else None
    found: dict[int, GuestLine] = {}
    for instruction in (i for block in blocks for i in block.instructions):
        pc, size = instruction.pc, instruction.size
        data = instruction.raw.to_bytes(size, "little")
        names = symbols.at(pc)
        text = instruction.text or decoder.text(decoder.decode(partial(_head, data), pc))
        place = lines.line(pc) if lines is not None else None
        found[pc] = GuestLine(pc, data, text, names[0] if names else None, place, pc in starts)
    return tuple(found[pc] for pc in sorted(found))


def _head(data: bytes, _pc: int, size: int) -> bytes:
    return data[:size]


def _placement(program: Program, layout: MemoryLayout, lanes: int) -> Placement:
    decoder = Decoder(program.isa_config)
    against = [
        reason for s in program.segments if s.executable for reason in reasons_in_code(decoder, s.data, s.address)
    ]
    return place_run(layout, lanes, decoder.registers, against=against)
