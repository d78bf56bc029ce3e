"""A linked program in memory: where its variables lie, what its functions' addresses are, how its code is cut."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from vmjit.ptx.assembly.blocks import ControlFlow, control_flow
from vmjit.ptx.assembly.declarations import lay_out
from vmjit.ptx.assembly.linker import Program
from vmjit.ptx.assembly.liveness import find_live_registers
from vmjit.ptx.assembly.syntax import (
    AddressPart,
    FloatLiteral,
    Function,
    InitialValue,
    IntegerLiteral,
    Symbol,
    Variable,
)
from vmjit.ptx.errors import LaneFault, PtxError
from vmjit.ptx.memory import DeviceMemory, Segment, low_memory
from vmjit.ptx.types import byte_size, is_float

EXTERNAL_FUNCTIONS = ("vprintf", "__assertfail")  # what a device has without its being defined
FRAME_ALIGNMENT = 32  # of a function's local memory: the widest access
MAX_CALL_DEPTH = 200  # a device's default stack holds fewer frames

_FUNCTION_BASE = 0x0F00_0000_0000_0000  # no host memory lies there: data and code cannot be confused
_FUNCTION_STRIDE = 16
_GAP = 32  # bytes between variables that belong to none, so that running over an end is noticed


@dataclass(frozen=True, slots=True)
class LocalMemory:
    """Of one activation of a function."""

    bytes: int
    parameters: dict[int, Variable]  # by their indices: those that are copied into it


class Image:
    """One program placed in a device memory. `remove` takes its variables out again."""

    def __init__(self, program: Program, memory: DeviceMemory, poison: int) -> None:
        self.program, self.memory, self.poison = program, memory, poison
        self.functions = list(program.functions.values())
        self.variables = [v for v in program.variables if v.space in ("global", "const") and v.linkage != "extern"]
        self.shared_bytes = self._lay_out_shared()
        # Compilers put `exit` also behind what never returns; then a call may be the end of a thread.
        self.may_exit = any(i.opcode == "exit" for f in self.functions if not f.is_entry for i in f.code)
        self._flows: dict[int, ControlFlow] = {}
        self._local_memories: dict[int, LocalMemory] = {}
        self.segments: dict[str, Segment] = {}
        self._place()
        for variable, segment in zip(self.variables, self.segments.values(), strict=True):
            if variable.initial is not None:
                self._initialize(segment, variable.type, variable.initial)

    def remove(self) -> None:
        for segment in self.segments.values():
            self.memory.remove(segment)
        self.segments.clear()

    def flow(self, function: Function) -> ControlFlow:
        """The blocks of a function, with what is live after each."""
        found = self._flows.get(function.number)
        if found is None:
            found = control_flow(function, calls_end_blocks=self.may_exit)
            find_live_registers(found.blocks)
            self._flows[function.number] = found
        return found

    def local_memory(self, function: Function) -> LocalMemory:
        """What one activation of the function has; its variables then have their places there."""
        found = self._local_memories.get(function.number)
        if found is None:
            addressed = function.addressed_parameters()
            end = lay_out([*function.local_variables, *addressed])
            size = -(-end // FRAME_ALIGNMENT) * FRAME_ALIGNMENT
            found = LocalMemory(size, {function.parameters.index(parameter): parameter for parameter in addressed})
            self._local_memories[function.number] = found
        return found

    def function_address(self, function: Function) -> int:
        return _FUNCTION_BASE + _FUNCTION_STRIDE * function.number

    def function_at(self, address: int) -> Function:
        """The function at an address. Raises `LaneFault` where there is none."""
        number, rest = divmod(address - _FUNCTION_BASE, _FUNCTION_STRIDE)
        if rest or not 0 <= number < len(self.functions):
            raise LaneFault(f"call of {address:#x}, which is no function", address=address)
        return self.functions[number]

    def fixed_address(self, symbol: Symbol) -> int:
        """The address of a function, or of a variable that has one place for all threads, plus the offset."""
        target = symbol.target
        if isinstance(target, Function):
            return self.function_address(target) + symbol.offset
        if not isinstance(target, Variable):
            raise PtxError(f"{symbol.name} is a label and has no address")
        if target.address is None:
            raise PtxError(f"{target.name} is declared .extern and defined nowhere")
        return (target.address + symbol.offset) & (2**64 - 1)

    def _lay_out_shared(self) -> int:
        """Places all shared variables, those without a size last: they begin where dynamic shared memory does."""
        variables = [v for v in self.program.variables if v.space == "shared"]
        for function in self.functions:
            variables += function.shared_variables
        end = lay_out([v for v in variables if v.size])
        start = -(-end // 16) * 16
        for variable in variables:
            if not variable.size:
                variable.offset = start
        return start if len(variables) > sum(bool(v.size) for v in variables) else end

    def _place(self) -> None:
        """Gives every variable its address and its segment, in their order, all in one piece of memory."""
        starts = []
        end = 0
        for variable in self.variables:
            starts.append(-(-end // max(variable.alignment, 16)) * max(variable.alignment, 16))
            end = starts[-1] + variable.size + _GAP
        content = low_memory(end)
        for variable, start in zip(self.variables, starts, strict=True):
            piece = content[start : start + variable.size]
            variable.address = int(content.ctypes.data) + start
            segment = Segment(
                piece,
                f"{variable.space} {variable.name[:60]}",
                space=variable.space,
                writable=variable.space == "global",
            )
            self.segments[_unique(variable.name, self.segments)] = self.memory.insert(segment)

    def _initialize(self, segment: Segment, type_name: str, initial: Iterable[InitialValue]) -> None:
        size = byte_size(type_name)
        data = b"".join(self._encode(item, type_name, size) for item in initial)
        segment.bytes[: len(data)] = np.frombuffer(data, np.uint8)

    def _encode(self, item: InitialValue, type_name: str, size: int) -> bytes:
        if isinstance(item, FloatLiteral) or (isinstance(item, IntegerLiteral) and is_float(type_name)):
            return np.array([item.value], f"<f{size}").tobytes()
        if isinstance(item, IntegerLiteral):
            value = item.value
        elif isinstance(item, AddressPart):
            lowest = (item.mask & -item.mask).bit_length() - 1
            value = (self.fixed_address(item.symbol) & item.mask) >> lowest
        else:
            value = self.fixed_address(item)
        return (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def _unique(name: str, taken: dict[str, Segment]) -> str:
    while name in taken:
        name += "'"
    return name
