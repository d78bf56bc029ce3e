"""Tiering: which blocks are compiled, when, and by whom.

Blocks that tier 0 reports as hot go to one background thread of the process, which forms a region, compiles it or
finds it in the cache, and installs it while the lanes run on. What is compiled before it runs is compiled quickly, and
once more by that thread if lanes have run for a while.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from vmjit.block_counters import BlockCounters
from vmjit.cache import CodeCache, NoDiskCache, cache_key
from vmjit.code_space import CodeSpace, CompiledEntries
from vmjit.compile_thread import COMPILE_THREAD, Urgency
from vmjit.errors import CompileError, CompileForbiddenError
from vmjit.ir.text import format_block
from vmjit.region_memory import RegionMemory
from vmjit.translators.compile_quickly import emit_quick_region
from vmjit.translators.compile_region import REGION_SYMBOL, emit_region
from vmjit.translators.cpu import Effort, LoadedCode, cpu_target
from vmjit.translators.origins import seen_pointers
from vmjit.translators.region_body import WindowPlan
from vmjit.translators.regions import MAX_REGION_INSTRUCTIONS, Growth, Region, form_region, loop_head, visited

if TYPE_CHECKING:
    from vmjit.vector_tier import VectorCompiler

log = logging.getLogger("vmjit")

# A block is hot after this many visits: about the time that compiling it will take, spent interpreting it.
VISITS_UNTIL_HOT = 1000

# A block inside a region that is still visited from outside: how often until it becomes an entry itself.
VISITS_UNTIL_ENTRY = 20_000

# Code that was compiled before it ran is formed anew, by what is visited, once a block was entered this often.
VISITS_UNTIL_WATCHED = 20_000

# Lanes that have run for so many seconds since code was compiled quickly get better code: about the time that this
# takes for a function.
_QUICK_CODE_SECONDS = 0.05

# Before anything ran, only callees this small are compiled into their callers.
INLINE_BEFORE_RUNNING = 48


@dataclass(frozen=True)
class CompileOptions:
    """What compiled code depends on besides the guest's code."""

    windows: WindowPlan
    max_instructions: int = MAX_REGION_INSTRUCTIONS
    counters: BlockCounters | None = field(default=None, repr=False)
    """What code counts its blocks in; with it the cache has to be the compiler's own."""

    def identity(self) -> str:
        return repr(self)


@dataclass
class CompileStatistics:
    """What the compiler did for one machine."""

    regions: int = 0
    vector_regions: int = 0
    compiled: int = 0
    compile_seconds: float = 0.0
    failures: int = 0
    guest_instructions: int = 0

    def counted(self, compile_image: Callable[[], bytes]) -> Callable[[], bytes]:
        """The same compilation, counted here when it is made."""

        def compile_and_count() -> bytes:
            started = time.perf_counter()
            image = compile_image()
            self.compiled += 1
            self.compile_seconds += time.perf_counter() - started
            return image

        return compile_and_count


def region_identity(region: Region) -> str:
    """The region's content as text: its IR, entries and the goals of its computed jumps, and where pointers led."""
    goals = [region.indirect_goals(pc) for pc in region.blocks]
    seen = [(pc, tuple(bits)) for pc, bits in sorted(region.seen.items())]
    return "".join(
        [repr((region.entries, goals, seen)), *(format_block(b, comments=False) for b in region.blocks.values())]
    )


class RegionCompiler:
    """Compiles regions of one machine's code spaces."""

    def __init__(self, cache: CodeCache, options: CompileOptions) -> None:
        self.cache = cache
        self.options = options
        self.statistics = CompileStatistics()
        self.regions = RegionMemory(cache.disk, ("cpu", options.identity()))
        self.vectors: VectorCompiler | None = None
        """What compiles for lane groups, if lanes form such."""
        self.refused: CompileForbiddenError | None = None
        """What could not be compiled in the background because nothing may be."""
        self.first_effort = Effort.QUICK
        """How what is compiled before it runs is compiled."""
        self._quick: list[_QuickCode] = []
        self._quick_ran = 0.0

    def count_blocks(self, counters: BlockCounters) -> None:
        """Have all code count its blocks. Nothing may have been compiled; such code is kept by nobody else."""
        self.cache = CodeCache(NoDiskCache())
        self.options = replace(self.options, counters=counters)
        if self.vectors is not None:
            from vmjit.vector_tier import VectorCompiler

            self.vectors = VectorCompiler(self)

    def installed(self, space: CodeSpace) -> list[Region]:
        """The regions that compiled code of a space stands for, as far as they are remembered."""
        return [region for region in self.regions.all(space) if space.has_compiled(region.entries[0])]

    def note_registers(self, space: CodeSpace, pc: int, registers: Sequence[int]) -> None:
        """Note where a lane's registers led when it came to the block at `pc`, where that is of use."""
        if self.options.windows.paged is not None and pc not in space.seen:
            space.seen[pc] = seen_pointers(self.options.windows, registers, space.decoder.registers.stack)

    def compile_hot(self, space: CodeSpace, pc: int, reported: int) -> bool:
        """Compile the region around a block that was reported as hot when `reported` regions had been installed."""
        if space.covered.get(pc, -1) >= reported:
            return True  # a region that has the block came in while the report waited
        if not space.watched:
            space.watch()
            return True
        # What was reported before the counts began anew has to become hot again: nothing is known of what is around it.
        if space.has_compiled(pc) or not space.visits(pc):
            return True
        head = loop_head(space, pc)
        # A block that is hot although the head of its loop is compiled is entered some other way.
        pc = pc if space.has_compiled(head) else head
        region = self.regions.find(space, pc, space.has_compiled)
        if region is None:
            region = form_region(space, pc, visited(space, self.options.max_instructions))
            region.seen = {pc: space.seen[pc] for pc in region.blocks if any(space.seen.get(pc, ()))}
        installed = self._install(space, region, region.entries[0], Effort.FULL)
        if installed:
            self.regions.add(space, region)
            for inner in region.blocks:
                if inner not in region.entries and not space.has_compiled(inner):
                    space.arm(inner, VISITS_UNTIL_ENTRY)
        return installed

    def compile_now(self, space: CodeSpace, pc: int) -> bool:
        """Compile the code that starts at `pc` before it runs: what of its function is not compiled yet.

        False where that failed; the block stays with the interpreter then.
        """
        if space.has_compiled(pc):
            return True
        fresh = pc not in space.covered

        def wanted(place: int) -> bool:
            if not space.executable(place) or space.has_compiled(place):
                return False
            return not fresh or place not in space.covered

        region = form_region(
            space, pc, Growth(wanted, self.options.max_instructions, INLINE_BEFORE_RUNNING, whole_function=True)
        )
        installed = self._install(space, region, pc, self.first_effort)
        if installed:
            for entry in region.entries:
                space.arm(entry, VISITS_UNTIL_WATCHED)
        return installed

    def lanes_ran(self, seconds: float) -> None:
        """Lanes ran for so long: if that makes it long enough since there is quick code, have it compiled once more."""
        if not self._quick:
            return
        self._quick_ran += seconds
        if self._quick_ran >= _QUICK_CODE_SECONDS:
            for quick in self._quick:
                COMPILE_THREAD.submit(partial(self.improve, quick), Urgency.AGAIN)
            self._quick.clear()
            self._quick_ran = 0.0

    def improve(self, quick: _QuickCode) -> None:
        """Compile with all effort what was compiled quickly, if the machine is still there and may run it."""
        space = quick.space()
        if space is None or space.watched:  # once watched, what is hot is compiled by what is visited
            return
        try:
            code, _ = self._code(space, quick.region, Effort.FULL)
        except CompileForbiddenError:
            return
        except CompileError as error:
            self._failed(quick.region.entries[0], "keeps its quick code", error)
            return
        quick.installed.replace(code.addresses[REGION_SYMBOL], code)

    def _failed(self, pc: int, what_now: str, error: CompileError) -> None:
        self.statistics.failures += 1
        log.warning("the region at %#x could not be compiled and %s: %s", pc, what_now, error)

    def _install(self, space: CodeSpace, region: Region, pc: int, effort: Effort) -> bool:
        try:
            code, effort = self._code(space, region, effort)
        except CompileError as error:
            self._failed(pc, "stays interpreted", error)
            return False
        entries = [(n, e) for n, e in enumerate(region.entries) if e == pc or not space.has_compiled(e)]
        space.covered.update(dict.fromkeys(region.blocks, len(space.compiled)))
        places = self.vectors.places(space, region, entries) if self.vectors is not None else {}
        symbol = code.addresses[REGION_SYMBOL]
        installed = space.install(entries, region.blocks, region.link_targets(), symbol, code, places)
        if effort is Effort.QUICK:
            self._quick.append(_QuickCode(weakref.ref(space), region, installed))
        self.statistics.regions += 1
        self.statistics.guest_instructions += region.size
        return True

    def _loaded(self, key: str, image: bytes) -> LoadedCode:
        code = cpu_target().load(image, (REGION_SYMBOL,))
        self.cache.put(key, code)
        return code

    def _code(self, space: CodeSpace, region: Region, effort: Effort) -> tuple[LoadedCode, Effort]:
        """A region's code and the effort that it was made with: what is kept of more than was asked for is taken."""
        identity = (region_identity(region), self.options.identity(), *cpu_target().identity)
        if effort is Effort.QUICK:
            full = cache_key("region", (Effort.FULL.value, *identity))
            code = self.cache.get(full)
            if code is None and (image := self.cache.find_image(full)) is not None:
                code = self._loaded(full, image)
            if code is not None:
                return code, Effort.FULL
        key = cache_key("region", (effort.value, *identity))

        def compile_image() -> bytes:
            emit = emit_region if effort is Effort.FULL else emit_quick_region
            options = self.options
            module = emit(region, space.decoder.registers, options.windows, counters=options.counters)
            return cpu_target().compile(module.ir, effort)

        code = self.cache.get(key)
        if code is None:
            what = f"the region at {region.entries[0]:#x}"
            code = self._loaded(key, self.cache.image(key, what, self.statistics.counted(compile_image)))
        return code, effort


@dataclass(frozen=True)
class _QuickCode:
    """A region whose code was compiled quickly, and where it is led to."""

    space: weakref.ref[CodeSpace]
    region: Region
    installed: CompiledEntries


def compile_later(compiler: RegionCompiler, space: CodeSpace, pc: int) -> None:
    """Compile in the background, unless the machine is gone by then."""
    weak = weakref.ref(space)
    reported = len(space.compiled)

    def job() -> None:
        alive = weak()
        if alive is None:
            return
        try:
            compiler.compile_hot(alive, pc, reported)
        except CompileForbiddenError as error:
            compiler.refused = error

    COMPILE_THREAD.submit(job, Urgency.SCALAR)
