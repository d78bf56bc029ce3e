"""Hooks: functions that are called when lanes come to an address.

A hook on the host is one call of a Python function for all lanes that are there, with arrays. Any other is compiled by
Numba and called by each lane for itself, with its registers and memory; where lanes run on a device, the host calls it
for them, in Python.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vmjit.checks import as_unsigned
from vmjit.errors import ArgumentError, GuestAddressError, HookError
from vmjit.lane_state import index_of
from vmjit.stops import Access, Stop

if TYPE_CHECKING:
    from vmjit.machine import Machine
    from vmjit.machine_views import Registers

Bytes = NDArray[np.uint8]
Lanes = NDArray[np.intp]

X_REGISTERS = 32
ACCESS_SIZES = (1, 2, 4, 8)

HostHook = Callable[["HookedLanes"], None]
CompiledHook = Callable[[Any, Any], Any]


def load(memory: Any, address: int, size: int) -> int:
    """For compiled hooks: the lane's 1, 2, 4 or 8 bytes at an address as an unsigned number.

    Where the lane may not read, it stops with a fault when the hook returns, and this is 0.
    """
    return int(memory.load(int(address), _checked_size(size)))


def store(memory: Any, address: int, size: int, value: int) -> None:
    """For compiled hooks: write the low 1, 2, 4 or 8 bytes of a number to the lane's memory.

    Where the lane may not write, it stops with a fault when the hook returns.
    """
    memory.store(int(address), _checked_size(size), int(value))


def _checked_size(size: int) -> int:
    if size not in ACCESS_SIZES:
        raise ValueError("an access has 1, 2, 4 or 8 bytes")
    return int(size)


class HookedRegisters:
    """The registers of some lanes by name: reading gives a copy, (n,) uint32 or uint64."""

    def __init__(self, registers: Registers, lanes: Lanes) -> None:
        self._registers = registers
        self._lanes = index_of(lanes)
        self._count = len(lanes)

    def __getitem__(self, name: str | int) -> NDArray[Any]:
        values: NDArray[Any] = self._registers.of_lanes(name, self._lanes)
        return values

    def __setitem__(self, name: str | int, values: ArrayLike) -> None:
        """(n,) integers or a scalar; negative numbers are two's complement."""
        self._registers.set_of_lanes(name, self._lanes, values, self._count)


class HookedLanes:
    """The lanes that a hook is called for: `lanes` are their numbers, (n,); arrays have one element for each of them.

    They stand before the instruction at `address`, which they execute when the hook returns, unless it has changed
    their pc or stopped them.
    """

    def __init__(self, machine: Machine, address: int, lanes: Lanes) -> None:
        self.machine = machine
        self.address = address
        self.lanes = lanes
        self.registers = HookedRegisters(machine.registers, lanes)

    def __len__(self) -> int:
        return len(self.lanes)

    @property
    def pc(self) -> NDArray[np.uint64]:
        """(n,) uint64. Assign (n,) integers or a scalar to send lanes elsewhere."""
        values: NDArray[np.uint64] = self.machine._state.pc[self.lanes]
        return values

    @pc.setter
    def pc(self, values: ArrayLike) -> None:
        mask = np.uint64(self.machine._engine.decoder.registers.type.mask)
        self.machine._state.pc[self.lanes] = as_unsigned(values, np.dtype(np.uint64), len(self), "values of pc") & mask

    @property
    def retired(self) -> NDArray[np.uint64]:
        """Instructions that each lane retired, (n,) uint64."""
        values: NDArray[np.uint64] = self.machine._state.retired[self.lanes]
        return values

    def _places(self, addresses: ArrayLike) -> NDArray[np.uint64]:
        mask = np.uint64(self.machine._engine.decoder.registers.type.mask)
        places: NDArray[np.uint64] = as_unsigned(addresses, np.dtype(np.uint64), len(self), "addresses") & mask
        return places

    def read(self, addresses: ArrayLike, size: int) -> Bytes:
        """(n, size) uint8: what each lane has at its address, or all at one. Raises `GuestAddressError` where a lane
        may not read."""
        places = self._places(addresses)
        sizes = np.full(len(self), size, np.int64)
        data, good = self.machine._lane_memory.gather(self.lanes, places, sizes)
        self._require(good, places, "read")
        return data.reshape(len(self), size)

    def write(self, addresses: ArrayLike, data: bytes | Bytes) -> None:
        """Write (n, size) uint8, or the same bytes for all, at each lane's address. Raises `GuestAddressError` where a
        lane may not write; the others then have been written."""
        places = self._places(addresses)
        rows = np.frombuffer(data, np.uint8) if isinstance(data, bytes | bytearray) else np.asarray(data)
        if rows.dtype != np.uint8 or rows.ndim not in (1, 2) or (rows.ndim == 2 and len(rows) != len(self)):
            raise ArgumentError(f"expected bytes or a uint8 array of shape (size,) or ({len(self)}, size)")
        rows = np.ascontiguousarray(np.broadcast_to(rows, (len(self), rows.shape[-1])))
        sizes = np.full(len(self), rows.shape[1], np.int64)
        good = self.machine._lane_memory.scatter(self.lanes, places, sizes, rows.reshape(-1))
        self._require(good, places, "write")

    def _require(self, good: NDArray[np.bool_], places: NDArray[np.uint64], what: str) -> None:
        if not good.all():
            bad = int(np.flatnonzero(~good)[0])
            raise GuestAddressError(
                f"lane {self.lanes[bad]} may not {what} at {int(places[bad]):#x} (hook at {self.address:#x})",
                address=int(places[bad]),
            )

    def stop(self, chosen: NDArray[np.bool_] | None = None) -> None:
        """Stop these lanes, or the chosen of them, (n,) bool, before the instruction: the run ends for them with
        `Stop.ARRIVED`, and the next one goes on with it."""
        lanes = self.lanes if chosen is None else self.lanes[np.asarray(chosen, bool)]
        self.machine._state.stop[lanes] = int(Stop.ARRIVED)


class OneLanesMemory:
    """What `load` and `store` act on where Python runs a compiled hook."""

    def __init__(self, machine: Machine, lane: int) -> None:
        self._machine = machine
        self._lane = np.array([lane])
        self._mask = machine._engine.decoder.registers.type.mask
        self.fault: tuple[int, Access] | None = None

    def _range(self, address: int, size: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        return np.array([address & self._mask], np.uint64), np.array([size])

    def load(self, address: int, size: int) -> int:
        data, good = self._machine._lane_memory.gather(self._lane, *self._range(address, size))
        if not good[0]:
            self.fault = self.fault or (address & self._mask, Access.READ)
            return 0
        return int.from_bytes(data.tobytes(), "little")

    def store(self, address: int, size: int, value: int) -> None:
        data = np.frombuffer((value & ((1 << 8 * size) - 1)).to_bytes(size, "little"), np.uint8)
        if not self._machine._lane_memory.scatter(self._lane, *self._range(address, size), data)[0]:
            self.fault = self.fault or (address & self._mask, Access.WRITE)


def call_as_python(machine: Machine, lane: int, hook: str, call: Callable[[OneLanesMemory], Any]) -> tuple[Any, bool]:
    """Run a compiled hook for a lane where translated code cannot: (what it gave, whether the lane goes on).

    `hook` names it in the `HookError` for an exception.
    """
    state, memory = machine._state, OneLanesMemory(machine, lane)
    try:
        result = call(memory)
    except Exception as error:
        raise HookError.raised(hook, int(state.pc[lane]), lane) from error
    if memory.fault is None:
        return result, True
    state.fault_address[lane], state.fault_access[lane] = memory.fault
    state.stop[lane] = int(Stop.FAULT)
    return result, False


@dataclass(frozen=True, eq=False)
class Hook:
    """What `machine.hook` gives, for `machine.unhook`."""

    address: int
    function: Callable[..., Any]
    host: bool
    compiled: Any = None
    """What Numba made of it; `address` of that is what code calls."""


class Hooks:
    """The hooks of one machine by address."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._hooks: list[Hook] = []
        self._until: int | None = None
        self._observed: frozenset[int] = frozenset()
        self._observer: Callable[[HookedLanes], None] | None = None
        self._followed: dict[int, int] = {}

    def add(self, hook: Hook) -> None:
        self._hooks.append(hook)
        self._tell()

    def remove(self, hook: Hook) -> None:
        if hook not in self._hooks:
            raise ArgumentError("this machine has no such hook")
        self._hooks.remove(hook)
        self._tell()

    def until(self, address: int | None) -> None:
        """Stop lanes at an address, or at none."""
        self._until = address
        self._tell()

    def follow(self, functions: dict[int, int]) -> None:
        """Have code call functions, host addresses in the convention of compiled hooks, where lanes come to guest
        addresses at which no other hook is. For engines whose code calls hooks."""
        self._followed = functions
        self._tell()

    def observe(self, addresses: frozenset[int], observer: Callable[[HookedLanes], None] | None) -> None:
        """Have a function called, before hooks are, for lanes that come to one of many addresses; None: no more."""
        if addresses != self._observed:
            self._observed, self._observer = addresses, observer
            self._tell()

    def _tell(self) -> None:
        # Where there is a hook on the host too, it calls all of them, in their order.
        on_host = {hook.address for hook in self._hooks if hook.host} | self._observed
        if self._until is not None:
            on_host.add(self._until)
        compiled: dict[int, tuple[int, ...]] = {address: (function,) for address, function in self._followed.items()}
        for hook in self._hooks:
            if hook.address not in on_host:
                compiled[hook.address] = (*compiled.get(hook.address, ()), hook.compiled.address)
        self._machine._residence.set_breakpoints(frozenset(on_host), compiled, self.arrive)

    def arrive(self, address: int, lanes: Lanes) -> None:
        """Call the hooks at an address, the first added first; lanes that one has sent elsewhere or stopped meet no
        other."""
        state = self._machine._state
        if self._observer is not None and address in self._observed:
            self._observer(HookedLanes(self._machine, address, lanes))
        for hook in [h for h in self._hooks if h.address == address]:
            if hook.host:
                hook.function(HookedLanes(self._machine, address, lanes))
            else:
                for lane in lanes.tolist():
                    self._call(hook, lane)
            lanes = lanes[(state.stop[lanes] == int(Stop.RUNNING)) & (state.pc[lanes] == np.uint64(address))]
            if not len(lanes):
                return
        if address == self._until:
            state.stop[lanes] = int(Stop.ARRIVED)

    def _call(self, hook: Hook, lane: int) -> None:
        """Run a compiled hook for a lane as Python."""
        machine, state = self._machine, self._machine._state
        one = slice(lane, lane + 1)
        registers = np.concatenate([machine.registers.of_lanes(i, one) for i in range(X_REGISTERS)])
        name = f"the hook at {hook.address:#x}"
        stops, goes_on = call_as_python(machine, lane, name, lambda memory: hook.function(registers, memory))
        state.registers[1:X_REGISTERS, lane] = registers[1:]
        if goes_on and stops:
            state.stop[lane] = int(Stop.ARRIVED)
