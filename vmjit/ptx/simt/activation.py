"""One call of one function by some lanes: registers, local memory, parameters, and all that generated code asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vmjit.ptx.assembly.liveness import CARRY
from vmjit.ptx.assembly.syntax import Function, Variable
from vmjit.ptx.errors import LaneFault
from vmjit.ptx.image import MAX_CALL_DEPTH
from vmjit.ptx.memory import Addresses, Segment, window_of
from vmjit.ptx.simt import numpy_atomic
from vmjit.ptx.simt.barriers import Barriers, Reduction
from vmjit.ptx.simt.codegen import NO_OTHER, NOWHERE, dtype_of
from vmjit.ptx.simt.scheduler import Scheduler
from vmjit.ptx.simt.wave import Wave, private_memory

if TYPE_CHECKING:
    from vmjit.ptx.simt.engine import SimtEngine

Lanes = NDArray[Any]
Selection = NDArray[np.intp] | None  # numbers of lanes, sorted; None for all
Transfer = tuple[int, Selection, int, Selection]  # where lanes go, and where others go

_CLOCKS: dict[str, Callable[[int], Any]] = {
    "%clock": lambda steps: np.uint32(steps & 0xFFFFFFFF),
    "%clock_hi": lambda steps: np.uint32(steps >> 32),
    "%clock64": np.uint64,
    "%globaltimer": np.uint64,
    "%globaltimer_lo": lambda steps: np.uint32(steps & 0xFFFFFFFF),
    "%globaltimer_hi": lambda steps: np.uint32(steps >> 32),
}


class Activation:
    """A function's lanes, numbered from 0; `absolute` are their numbers in the wave, or None where they are the same.

    `arguments` and `returns` are (lanes, bytes) arrays, one for each parameter. A kernel has its parameters in the
    launch instead.
    """

    def __init__(
        self,
        engine: SimtEngine,
        function: Function,
        wave: Wave,
        absolute: NDArray[np.intp] | None = None,
        arguments: list[Lanes] | None = None,
        depth: int = 0,
    ) -> None:
        self.engine, self.function, self.wave, self.absolute, self.depth = engine, function, wave, absolute, depth
        self.memory = engine.image.memory
        self.flow = engine.image.flow(function)
        self.size = wave.geometry.size if absolute is None else len(absolute)
        self.registers: dict[int, Lanes] = {
            r.index: np.zeros(self.size, dtype_of(r.storage)) for r in function.registers
        }
        self.registers[CARRY] = np.zeros(self.size, np.bool_)
        self.arguments = arguments or []
        self.returns: list[Lanes] = [np.zeros((self.size, v.size), np.uint8) for v in function.returns]
        self.parameter_address = np.uint64(wave.launch.parameters.ctypes.data)
        self._crossing: dict[Variable, Lanes] = {}
        self._local: Segment | None = None
        self._local_address: Addresses | None = None
        self.barriers = Barriers(self)

    def run(self) -> list[Lanes]:
        """Runs the lanes until all have returned or ended; what the function returns. Raises `PtxFault`."""
        local = self.engine.image.local_memory(self.function)
        if local.bytes:
            name = f"local memory of {self.function.name[:60]}"
            self._local, self._local_address = private_memory(self.engine.image, name, "local", local.bytes, self.size)
            for index, parameter in local.parameters.items():
                rows = self._local.bytes.reshape(self.size, -1)
                rows[:, parameter.offset : parameter.offset + parameter.size] = self.arguments[index]
        Scheduler(self).run()
        if self._local is not None:
            self.memory.remove(self._local)
        return self.returns

    # Lanes

    def numbers(self, lanes: Selection) -> NDArray[np.intp]:
        return np.arange(self.size) if lanes is None else lanes

    def in_wave(self, lanes: Selection) -> NDArray[np.intp]:
        """The numbers in the wave."""
        if self.absolute is None:
            return self.numbers(lanes)
        return self.absolute if lanes is None else self.absolute[lanes]

    def pick(self, array: Lanes, lanes: Selection) -> Lanes:
        """What an array of the whole wave has for some lanes of this activation."""
        if self.absolute is not None:
            array = array[self.absolute]
        return array if lanes is None else array[lanes]

    def end(self, lanes: Selection) -> None:
        """Marks the threads of lanes as ended."""
        self.wave.exited[self.in_wave(lanes)] = True

    def without_exited(self, lanes: Selection) -> Selection:
        """The lanes whose threads a call has not ended."""
        exited = self.pick(self.wave.exited, lanes)
        return self.numbers(lanes)[~exited] if exited.any() else lanes

    def ended_lanes(self) -> Lanes:
        """For every warp of the wave the mask of its lanes whose threads have ended, or never were."""
        geometry = self.wave.geometry
        alive = np.zeros(geometry.warps * geometry.blocks, np.uint32)
        bits = np.where(self.wave.exited, np.uint32(0), np.uint32(1) << geometry.by_lane["%laneid"])
        np.bitwise_or.at(alive, geometry.warp_of, bits)
        return ~alive

    # Special registers and addresses

    def special(self, name: str, lanes: Selection) -> Lanes:
        geometry = self.wave.geometry
        by_lane = geometry.by_lane.get(name)
        if by_lane is not None:
            return self.pick(by_lane, lanes)
        count = self.size if lanes is None else len(lanes)
        if name in _CLOCKS:
            return np.full(count, _CLOCKS[name](self.wave.counts.steps))
        if name.startswith("%envreg"):
            return np.zeros(count, np.uint32)
        value = geometry.uniform[name] if name in geometry.uniform else self.wave.uniform[name]
        return np.full(count, value, np.uint64 if name == "%gridid" else np.uint32)

    def local_base(self, lanes: Selection) -> Addresses:
        assert self._local_address is not None
        return self._local_address if lanes is None else self._local_address[lanes]

    def shared_base(self, lanes: Selection) -> Addresses:
        assert self.wave.shared_address is not None
        return self.pick(self.wave.shared_address, lanes)

    def _segment(self, space: str) -> Segment | None:
        return self.wave.shared if space == "shared" else self._local

    def window(self, space: str) -> Any:
        """What a 32-bit address of shared or local memory lacks, as a u64."""
        segment = self._segment(space)
        return np.uint64(0 if segment is None else window_of(segment.base))

    def in_window(self, space: str, addresses: Addresses) -> Addresses:
        """Generic addresses of addresses in shared or local memory."""
        window = self.window(space)
        return np.where(addresses >> np.uint64(32), addresses, addresses | window) if window else addresses

    def is_in_space(self, space: str, addresses: Addresses) -> NDArray[np.bool_]:
        inside: dict[str, NDArray[np.bool_]] = {
            name: np.zeros(len(addresses), np.bool_) for name in ("shared", "local", "const", "param")
        }
        for segment in self.memory.segments:
            if segment.space in ("shared", "local"):
                within = (addresses >= np.uint64(segment.base)) & (addresses < np.uint64(segment.end))
                inside[segment.space] |= within
        inside["global"] = ~inside["shared"] & ~inside["local"]
        return inside[space]

    # Memory, as far as generated code does not go to it itself

    def check_alignment(self, addresses: Addresses, size: int, guard: Lanes | None) -> None:
        """Raises `LaneFault` for a vector access that is not aligned to the whole vector."""
        odd = (addresses & np.uint64(size - 1)) != 0
        if guard is not None:
            odd &= guard
        if odd.any():
            position = int(np.flatnonzero(odd)[0])
            address = int(addresses[position])
            raise LaneFault(f"vector access of {size} bytes is misaligned at {address:#x}", position, address)

    def guarded_load(self, guard: Lanes, addresses: Addresses, size: int) -> Lanes:
        result = np.zeros(len(guard), f"u{size}")
        if guard.any():
            result[guard] = _at(guard, self.memory.load, addresses[guard], size)
        return result

    def guarded_store(self, guard: Lanes, addresses: Addresses, values: Lanes, size: int) -> None:
        if guard.any():
            _at(guard, self.memory.store, addresses[guard], values[guard], size)

    def guarded_atomic(
        self, guard: Lanes, addresses: Addresses, result: Any, operation: str, a: Lanes, b: Lanes | None
    ) -> Lanes:
        old = np.zeros(len(guard), result)
        if guard.any():
            second = None if b is None else b[guard]
            arguments = (self.memory, addresses[guard], result, operation, a[guard], second)
            old[guard] = _at(guard, numpy_atomic.apply, *arguments)
        return old

    # Parameters

    def parameter(self, offset: int, dtype: Any) -> Any:
        """A kernel's parameter, the same for all lanes."""
        size = np.dtype(dtype).itemsize
        return np.frombuffer(self.wave.launch.parameters[offset : offset + size].tobytes(), dtype)[0]

    def parameter_array(self, variable: Variable) -> Lanes:
        """The bytes of a .param variable that several blocks use, for all lanes."""
        found = self._crossing.get(variable)
        if found is None:
            found = self._crossing[variable] = np.zeros((self.size, variable.size), np.uint8)
        return found

    @staticmethod
    def rows(array: Lanes, lanes: Selection) -> Lanes:
        return array if lanes is None else array[lanes]

    @staticmethod
    def set_rows(array: Lanes, lanes: Selection, rows: Lanes) -> None:
        array[slice(None) if lanes is None else lanes] = rows

    @staticmethod
    def values_of(rows: Lanes, offset: int, dtype: Any) -> Lanes:
        """Values at an offset of rows of bytes."""
        values: Lanes = rows[:, offset : offset + np.dtype(dtype).itemsize].copy().view(dtype)
        return values.reshape(-1)

    @staticmethod
    def set_bytes(array: Lanes, lanes: Selection, offset: int, values: Lanes, guard: Lanes | None) -> None:
        """Puts values into rows of bytes, one for each lane, where the guard holds."""
        data = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
        columns = slice(offset, offset + data.shape[1])
        rows = slice(None) if lanes is None else lanes
        if guard is not None:
            rows = np.flatnonzero(guard) if lanes is None else lanes[guard]
            data = data[guard]
        array[rows, columns] = data

    # Control

    def call(self, function: Function, lanes: Selection, arguments: list[Lanes]) -> list[Lanes]:
        """Calls a function with rows of bytes, and gives rows of bytes. Raises `PtxFault`, `PtxUnsupported`."""
        absolute = self.in_wave(lanes)
        if not function.has_body:
            return self.engine.call_external(function, len(absolute), arguments)
        if self.depth >= MAX_CALL_DEPTH:
            raise LaneFault(f"calls nested more than {MAX_CALL_DEPTH} deep")
        return Activation(self.engine, function, self.wave, absolute, arguments, self.depth + 1).run()

    def call_address(
        self, addresses: Addresses, lanes: Selection, arguments: list[Lanes], sizes: list[int]
    ) -> list[Lanes]:
        """Calls the function at each lane's address, one after another."""
        returned: list[Lanes] = [np.zeros((len(addresses), size), np.uint8) for size in sizes]
        numbers = self.numbers(lanes)
        for address in np.unique(addresses):
            here = np.flatnonzero(addresses == address)
            try:
                function = self.engine.image.function_at(int(address))
                self._check_call(function, arguments, sizes)
            except LaneFault as fault:
                raise LaneFault(fault.message, int(here[0]), fault.address) from None
            results = self.call(function, numbers[here], [argument[here] for argument in arguments])
            for all_rows, rows in zip(returned, results, strict=True):
                all_rows[here] = rows
        return returned

    @staticmethod
    def _check_call(function: Function, arguments: list[Lanes], sizes: list[int]) -> None:
        """Raises `LaneFault` for an indirect call that does not fit the function it comes to."""
        given = [argument.shape[1] for argument in arguments]
        if function.is_entry or [p.size for p in function.parameters] != given:
            raise LaneFault(f"call of {function.name} with parameters of {given} bytes, which it does not take")
        if [r.size for r in function.returns] != sizes:
            raise LaneFault(f"call of {function.name} for results of {sizes} bytes, which it does not give")

    def branch_by_table(self, index: Lanes, targets: Lanes, lanes: Selection) -> Transfer:
        outside = index >= len(targets)
        if outside.any():
            position = int(np.flatnonzero(outside)[0])
            raise LaneFault(f"brx.idx index {int(index[position])} outside its {len(targets)} targets", position)
        chosen = targets[index]
        first, *others = np.unique(chosen).tolist()
        if not others:
            return first, lanes, NO_OTHER, None
        numbers = self.numbers(lanes)
        for target in others:
            self.scheduler.push(target, numbers[chosen == target])
        return first, numbers[chosen == first], NO_OTHER, None

    def wait_at_barrier(
        self, following: int, lanes: Selection, numbers: Lanes, threads: Lanes, reduction: Reduction | None
    ) -> Transfer:
        self.barriers.wait(following, lanes, numbers, threads, reduction)
        return NOWHERE, None, NO_OTHER, None

    def arrive_at_barrier(self, lanes: Selection, numbers: Lanes, _: Lanes, guard: Lanes | None) -> None:
        self.barriers.arrive(lanes, numbers, guard)

    scheduler: Scheduler  # set by the scheduler itself


def _at(guard: Lanes, access: Callable[..., Any], *arguments: Any) -> Any:
    """An access by the lanes of a guard alone; a fault then names the lane as the caller counts them."""
    try:
        return access(*arguments)
    except LaneFault as fault:
        raise LaneFault(fault.message, int(np.flatnonzero(guard)[fault.position]), fault.address) from None
