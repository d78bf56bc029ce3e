"""What `Machine.registers` and `Machine.memory` are: the lanes' registers and memory, by name and by address."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vmjit.checks import as_unsigned, checked_integer
from vmjit.errors import ArgumentError
from vmjit.ir.registers import RegisterFile
from vmjit.kernels.layout import PERMISSION_EXECUTE, PERMISSION_READ, PERMISSION_WRITE
from vmjit.lane_state import LaneState
from vmjit.span_memory import Bytes, as_bytes

if TYPE_CHECKING:
    from vmjit.machine import Machine

_UNSIGNED: dict[int, np.dtype[Any]] = {32: np.dtype(np.uint32), 64: np.dtype(np.uint64)}
_X_REGISTERS = 32
_FCSR_MASK = 0xFF


class Registers:
    """The guest's registers by ABI name, `x` name or number. Reading gives a copy, (lanes,) uint32 or uint64.

    Programs with floats (F, D) have `f0` to `f31`, by ABI name too, as bits: (lanes,) uint64, a narrower number in the
    low bits with all bits above it set; and `fcsr`, the rounding mode and the exception flags.
    """

    def __init__(self, state: LaneState, registers: RegisterFile, changed: Callable[[], None]) -> None:
        self._state = state
        self._file = registers
        self._changed = changed

    def _index(self, name: str | int) -> int:
        floats = ", f0 to f31, fcsr" if self._file.float_status is not None else ""
        error = ArgumentError(f"no register {name!r}; there are x0 to x31{floats} and their ABI names")
        if isinstance(name, str):
            try:
                index = self._file.index(name)
            except KeyError:
                raise error from None
            if index in self._file.hidden:
                raise error
            return index
        try:
            index = operator.index(name)
        except TypeError:
            raise error from None
        if not 0 <= index < _X_REGISTERS:
            raise error
        return index

    def _dtype(self, index: int) -> np.dtype[Any]:
        return _UNSIGNED[self._file.type_of(index).bits]

    def __getitem__(self, name: str | int) -> NDArray[Any]:
        return self.of_lanes(name, slice(None))

    def __setitem__(self, name: str | int, values: ArrayLike) -> None:
        """(lanes,) integers or a scalar; negative numbers are two's complement. x0 stays zero."""
        self.set_of_lanes(name, slice(None), values, self._state.lanes)

    def of_lanes(self, name: str | int, lanes: slice | NDArray[np.integer]) -> NDArray[Any]:
        """What some lanes have, a copy."""
        index = self._index(name)
        values: NDArray[Any] = self._state.registers[index, lanes].astype(self._dtype(index))
        return values

    def set_of_lanes(self, name: str | int, lanes: slice | NDArray[np.integer], values: ArrayLike, count: int) -> None:
        """Write what `count` lanes shall have."""
        index = self._index(name)
        row = as_unsigned(values, self._dtype(index), count, "registers")
        if index == self._file.float_status and (row > _FCSR_MASK).any():
            raise ArgumentError("fcsr has eight bits: five flags, and the rounding mode above them")
        if index != self._file.zero:
            self._changed()
            self._state.registers[index, lanes] = row

    def __iter__(self) -> Iterator[str]:
        return (n for i, n in enumerate(self._file.names) if i not in self._file.hidden)

    def array(self) -> NDArray[Any]:
        """A copy of x0 to x31, (32, lanes)."""
        values: NDArray[Any] = self._state.registers[:_X_REGISTERS].astype(self._dtype(0))
        return values


class GuestMemory:
    """Guest memory by guest address, all lanes at once. `GuestAddressError` for what is not there."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def read(self, address: int | str, size: int) -> Bytes:
        """`size` bytes at an address or symbol, (lanes, size) uint8."""
        if size < 0:
            raise ArgumentError(f"cannot read {size} bytes")
        place = self._machine.program.address(address)
        return self._machine._residence.on_memory(lambda memory: memory.read(place, size))

    def permissions(self, address: int | str, lane: int = 0) -> str:
        """What a lane may do at an address or symbol now: "rw-", "r-x", "---" and the like; empty where there is no
        memory."""
        machine = self._machine
        place = machine.program.address(address)
        lane = checked_integer("lane", lane, 0, machine.lanes - 1)
        spaces = machine.environment.spaces
        there = (span.permissions for span in machine._layout.spans if span.lo <= place < span.end)
        given = next(there, None) if spaces is None else spaces.of(lane).at(place)
        if given is None:
            return ""
        kinds = ((PERMISSION_READ, "r"), (PERMISSION_WRITE, "w"), (PERMISSION_EXECUTE, "x"))
        return "".join(letter if given & kind else "-" for kind, letter in kinds)

    def write(self, address: int | str, data: bytes | Bytes) -> None:
        """bytes or (n,) uint8 for all lanes, or (lanes, n) uint8. Permissions of the guest do not hold the host back;
        changed code takes effect with the next run."""
        machine = self._machine
        place = machine.program.address(address)
        array = as_bytes(data, machine.lanes)
        spans, split = machine._write(place, array)
        if split:
            machine._make_own(frozenset(s.lo for s in split))
            spans, _ = machine._write(place, array)
        if any(s.executable for s in spans):
            machine._engine.reset_code()
        elif (given := machine.environment.spaces) is not None and given.own_code:
            machine._engine.code_may_have_changed(np.arange(machine.lanes))
