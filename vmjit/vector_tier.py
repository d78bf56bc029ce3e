"""Compiling for lane groups: places where groups meet, and the code that they go on with there.

Every entry of compiled scalar code is a place where a group may meet. What registers have in common when whole groups
do is noted by the kernel (`VectorEntry`), and once it asks, the region is compiled for groups with that assumed.
"""

from __future__ import annotations

import json
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vmjit.cache import cache_key
from vmjit.code_space import CodeSpace
from vmjit.compile_thread import COMPILE_THREAD, Urgency
from vmjit.errors import CompileError, CompileForbiddenError
from vmjit.kernels.layout import VECTOR_OFF, VECTOR_READY, MachineBlock, VectorEntry
from vmjit.translators.cpu import LoadedCode, cpu_target
from vmjit.translators.lane_forms import assumed_forms
from vmjit.translators.regions import Region, with_short_ways
from vmjit.translators.simd_region import CONVERGENT_SYMBOL, MASKED_SYMBOL, emit_simd_region
from vmjit.translators.vector_unit import vector_unit

if TYPE_CHECKING:
    from vmjit.tiering import RegionCompiler

_ALL = (1 << 64) - 1

# Seconds until what was judged slow is tried again; twice as many each time.
_FIRST_PAUSE = 0.25

# The same for running together at all, and its bound; and the cycles of all groups after which that is judged.
_FIRST_REST = 0.1
_LAST_REST = 60.0
_JUDGED_CYCLES = 20_000_000


@dataclass(frozen=True)
class VectorPolicy:
    """When groups run in SIMD registers.

    meetings: of whole groups at a place, until it is compiled for them. trial_work: instructions of all lanes, one by
    one, that tell what that costs. judged_work: instructions of all lanes in SIMD registers until both are compared.
    """

    meetings: int = 4
    trial_work: int = 300_000
    judged_work: int = 400_000

    def fill_block(self, block: NDArray[np.uint64]) -> None:
        block[MachineBlock.MEETINGS // 8] = self.meetings
        block[MachineBlock.TRIAL_WORK // 8] = self.trial_work
        block[MachineBlock.JUDGED_WORK // 8] = self.judged_work


POLICIES = {"auto": VectorPolicy(), "simd": VectorPolicy(meetings=1)}

# Whatever it costs, for tests: what meets runs in SIMD registers.
ALWAYS = VectorPolicy(meetings=1, trial_work=0, judged_work=1 << 62)


_SUMS = (
    MachineBlock.GROUP_CYCLES,
    MachineBlock.GROUP_WORK,
    MachineBlock.SCALAR_CYCLES,
    MachineBlock.SCALAR_WORK,
)


class GroupGovernor:
    """Has all lanes of a machine run one by one for a while where running together has cost more than that does.

    Places are judged each for itself (`kernels/group_choice.py`); this bounds what is lost where that is not enough, as
    with many places that are each tried for a while.
    """

    def __init__(self, block: NDArray[np.uint64]) -> None:
        self._block = block
        self._rest = _FIRST_REST
        self._until = 0.0
        self._compiled = 0
        self._judged_with = 0

    def look(self, now: float, compiled: int, awaited: bool = False) -> None:
        """Decide anew; `now` is a time in seconds, `compiled` counts the code for groups that there is, `awaited` is
        whether more is on its way."""
        block = self._block
        learning, self._compiled = compiled != self._compiled, compiled
        if block[MachineBlock.ALONE // 8]:
            # Code that has come in since is a reason to try it, once there is all that was asked for.
            if now < self._until and (awaited or compiled == self._judged_with):
                return
            block[MachineBlock.ALONE // 8] = 0
        else:
            together, together_work, alone, alone_work = (int(block[field // 8]) for field in _SUMS)
            if together < _JUDGED_CYCLES or not alone_work:
                return
            slower = together * alone_work > alone * together_work
            # What was measured while code was on its way tells nothing of what it is like with it.
            if slower and not learning:
                block[MachineBlock.ALONE // 8] = 1
                self._judged_with = compiled
                self._until = now + self._rest
                self._rest = min(2 * self._rest, _LAST_REST)
            elif not learning:
                self._rest = _FIRST_REST
        # What was long ago counts less.
        for field in _SUMS[:2]:
            block[field // 8] = 0
        for field in _SUMS[2:]:
            block[field // 8] >>= np.uint64(1)


_Seen = tuple[int, int]


@dataclass(eq=False)
class _Place:
    """An entry of a region. `words` is its VectorEntry."""

    space: weakref.ref[CodeSpace]
    region: Region
    pc: int
    words: NDArray[np.uint64]
    assumed: _Seen | None = None
    """What its convergent code assumes of registers."""
    pause: float = _FIRST_PAUSE
    since: float | None = None
    """When it was found to be off."""

    @property
    def address(self) -> int:
        return int(self.words.ctypes.data)

    def seen(self) -> _Seen:
        """What groups had in common here: registers that are uniform and that are narrow, a bit each."""
        return int(self.words[VectorEntry.UNIFORM // 8]), int(self.words[VectorEntry.NARROW // 8])

    def lead(self, function: VectorEntry, address: int, number: int) -> None:
        """Have groups run a function here; the number is written first, for groups look while this happens."""
        self.words[function // 8 + 1] = number
        self.words[function // 8] = address


class VectorCompiler:
    """Compiles for the lane groups of one machine."""

    def __init__(self, scalar: RegionCompiler) -> None:
        self._cache = scalar.cache
        self._options = scalar.options
        self._statistics = scalar.statistics
        self._places: dict[int, _Place] = {}
        self._code: list[LoadedCode] = []
        self._awaited: set[tuple[int, bool]] = set()

    @property
    def awaits(self) -> bool:
        """Whether code that was asked for is still to come."""
        return bool(self._awaited)

    def places(self, space: CodeSpace, region: Region, entries: Iterable[tuple[int, int]]) -> dict[int, int]:
        """A VectorEntry's address for each of a region's entries (number, guest address); none where a hook is inside:
        each lane would be taken out of its group for it."""
        if space.hooks and not space.hooks.keys().isdisjoint(region.blocks):
            return {}
        return {pc: self._place(space, region, pc).address for _, pc in entries}

    def _place(self, space: CodeSpace, region: Region, pc: int) -> _Place:
        words = np.zeros(VectorEntry.BYTES // 8, np.uint64)
        words[VectorEntry.UNIFORM // 8] = words[VectorEntry.NARROW // 8] = _ALL
        place = _Place(weakref.ref(space), region, pc, words)
        self._places[place.address] = place
        return place

    def assumed_at(self, pc: int) -> tuple[int, int] | None:
        """What the code that whole groups run from a block on assumes of registers: those that are the same in all
        lanes and those that are narrow, a bit each. None where there is none."""
        return next((p.assumed for p in self._places.values() if p.pc == pc and p.assumed is not None), None)

    def compile_later(self, address: int, *, masked: bool) -> None:
        """Compile for groups that met at a VectorEntry, in the background: for whole ones or for some of the lanes."""
        place = self._places.get(address)
        space = place.space() if place is not None else None
        if place is None or space is None:
            return
        weak, reported = weakref.ref(self), len(space.compiled)
        self._awaited.add((address, masked))

        def job() -> None:
            alive = weak()
            if alive is not None:
                try:
                    alive.compile(address, reported, masked=masked)
                finally:
                    alive._awaited.discard((address, masked))

        COMPILE_THREAD.submit(job, Urgency.MASKED if masked else Urgency.WHOLE)

    def compile(self, address: int, reported: int, *, masked: bool) -> None:
        """Compile the region that starts where groups met when `reported` regions had been installed."""
        place = self._places.get(address)
        space = place.space() if place is not None else None
        if place is None or space is None:
            return
        if space.covered.get(place.pc, -1) >= reported:
            # A region that has the block came in while this waited: whether groups still meet here is to be seen.
            for field in (VectorEntry.MEETINGS, VectorEntry.BROKEN, VectorEntry.ASKED, VectorEntry.MASKED_ASKED):
                place.words[field // 8] = 0
            return
        try:
            region = with_short_ways(space, replace(place.region, entries=[place.pc], returning=None))
            if masked:
                self._compile_masked(space, place, region)
            else:
                self._compile_whole(space, place, region)
        except CompileError:
            place.words[VectorEntry.STATE // 8] = VECTOR_OFF
            raise
        except CompileForbiddenError:
            place.pause = float("inf")
            place.words[VectorEntry.STATE // 8] = VECTOR_OFF
        else:
            # Places from which groups came to where there was no code yet were judged by that.
            self._retry(lambda place: True)

    def _compile_whole(self, space: CodeSpace, place: _Place, region: Region) -> None:
        assumed = self._assumption(region, place.seen())
        if assumed == place.assumed:
            return
        code, numbers = self._compiled(space, region, assumed)
        place.assumed = assumed
        place.lead(VectorEntry.CONVERGENT, code, numbers[place.pc])
        # What does not fit the new code is to be learned anew.
        place.words[VectorEntry.UNFIT // 8] = 0
        place.words[VectorEntry.STATE // 8] = VECTOR_READY
        self._statistics.vector_regions += 1

    def _compile_masked(self, space: CodeSpace, place: _Place, region: Region) -> None:
        if place.words[VectorEntry.MASKED // 8]:
            return
        code, numbers = self._compiled(space, region, None)
        for pc, number in numbers.items():
            here = place if pc == place.pc else self._inner(space, region, pc)
            if here is not None:
                here.lead(VectorEntry.MASKED, code, number)
                here.words[VectorEntry.STATE // 8] = VECTOR_READY
        self._statistics.vector_regions += 1

    def reconsider(self) -> None:
        """Have what was judged slow tried again after a while: programs have phases."""
        now = time.monotonic()

        def is_due(place: _Place) -> bool:
            if place.since is None:
                place.since = now
            if now - place.since < place.pause:
                return False
            place.pause *= 2
            return True

        self._retry(is_due)

    def _retry(self, wanted: Callable[[_Place], bool]) -> None:
        for place in list(self._places.values()):
            words = place.words
            compiled = words[VectorEntry.CONVERGENT // 8] or words[VectorEntry.MASKED // 8]
            if words[VectorEntry.STATE // 8] == VECTOR_OFF and compiled and wanted(place):
                place.since = None
                words[VectorEntry.VECTOR_CYCLES // 8] = words[VectorEntry.VECTOR_WORK // 8] = 0
                words[VectorEntry.STATE // 8] = VECTOR_READY

    def _inner(self, space: CodeSpace, region: Region, pc: int) -> _Place | None:
        """A place at a block where lanes that parted meet again; None where groups meet anyway."""
        if space.has_compiled(pc):
            return None
        place = self._place(space, region, pc)
        space.lead_vector(pc, place.address)
        return place

    def _assumption(self, region: Region, seen: _Seen) -> _Seen:
        """What to assume of registers: what an earlier process did if that holds here too, whose code is there."""
        from vmjit.tiering import region_identity

        key = cache_key("assumption", (region_identity(region), self._options.identity(), repr(vector_unit())))
        data = self._cache.disk.get(key)
        if data is not None:
            uniform, narrow = json.loads(data)
            if not (uniform & ~seen[0] or narrow & ~seen[1]):
                return (uniform, narrow)
        self._cache.disk.put(key, json.dumps(seen).encode())
        return seen

    def _compiled(self, space: CodeSpace, region: Region, assumed: _Seen | None) -> tuple[int, dict[int, int]]:
        """(address of one version of a region, its entries' numbers)."""
        from vmjit.tiering import region_identity

        target, unit = cpu_target(), vector_unit()
        symbol = MASKED_SYMBOL if assumed is None else CONVERGENT_SYMBOL
        registers = space.decoder.registers
        forms = None if assumed is None else assumed_forms(registers, *assumed)
        parts = (
            "vector",
            region_identity(region),
            self._options.identity(),
            repr(unit),
            repr(assumed),
            *target.identity,
        )
        key = cache_key("vector region", parts)
        entries = list(region.blocks) if assumed is None else region.entries
        code: Any = self._cache.get(key)
        if code is None:
            options = self._options

            def compile_image() -> bytes:
                module = emit_simd_region(region, registers, options.windows, unit, forms, counters=options.counters)
                return target.compile(module.ir)

            what = f"the region at {region.entries[0]:#x} for lane groups"
            code = target.load(self._cache.image(key, what, self._statistics.counted(compile_image)), (symbol,))
            self._cache.put(key, code)
        self._code.append(code)
        return code.addresses[symbol], {pc: number for number, pc in enumerate(entries)}
