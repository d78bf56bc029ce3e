"""One hart on the reference evaluator: memory, and the loop from block to block."""

from __future__ import annotations

from dataclasses import dataclass, field

from vmjit.decoders.riscv import Decoder
from vmjit.decoders.riscv.registers import RESERVATION
from vmjit.ir import Evaluator, Trap

RUNNING = "running"


@dataclass
class Span:
    start: int
    data: bytearray
    writable: bool = True
    executable: bool = False


@dataclass
class Memory:
    """Spans of guest memory, a byte at a time. Addresses wrap at the register width."""

    spans: list[Span]
    xlen: int

    def _byte(self, address: int, *, write: bool) -> tuple[bytearray, int] | None:
        address %= 1 << self.xlen
        for span in self.spans:
            if span.start <= address < span.start + len(span.data) and (span.writable or not write):
                return span.data, address - span.start
        return None

    def read(self, address: int, size: int) -> bytes:
        places = [self._byte(address + i, write=False) for i in range(size)]
        if None in places:
            raise Trap("read", address)
        return bytes(data[i] for data, i in places)  # type: ignore[misc]

    def write(self, address: int, data: bytes) -> None:
        places = [self._byte(address + i, write=True) for i in range(len(data))]
        if None in places:
            raise Trap("write", address)
        for place, value in zip(places, data, strict=True):
            place[0][place[1]] = value  # type: ignore[index]

    def fetch(self, pc: int, size: int) -> bytes:
        """As the decoder wants it: the bytes that can be executed from `pc` on, at most `size`."""
        found = bytearray()
        while len(found) < size:
            here = [s for s in self.spans if s.executable and s.start <= pc + len(found) < s.start + len(s.data)]
            if not here:
                break
            found.append(here[0].data[pc + len(found) - here[0].start])
        return bytes(found)


@dataclass
class Outcome:
    """Where a hart is after a run. `registers` has the 32 of the ISA; `reserved` is the address held, or None."""

    registers: list[int]
    pc: int
    retired: int
    stop: str
    fault: tuple[str, int] | None = None
    reserved: int | None = None
    memory: dict[int, bytes] = field(default_factory=dict)
    floats: list[int] = field(default_factory=list)
    """The float status and the float registers, if there are any."""


class Hart:
    """Runs code from memory. `fence.i` needs no care: every block is decoded when it is reached."""

    def __init__(
        self,
        decoder: Decoder,
        memory: Memory,
        registers: list[int],
        *,
        retired: int = 0,
        reserved: int | None = None,
        floats: list[int] | None = None,
    ) -> None:
        self.decoder = decoder
        self.memory = memory
        values = [*registers, 0 if reserved is None else reserved + 1, *(floats or [])]
        self.evaluator = Evaluator(values, memory, retired)

    def run(self, pc: int, limit: int | None = None) -> Outcome:
        """Until it stops, or has retired `limit` instructions: then, and for no stop after one, it is RUNNING."""
        mask = self.decoder.registers.type.mask
        end = None if limit is None else self.evaluator.retired + limit
        while end is None or self.evaluator.retired < end:
            if not self.memory.fetch(pc, 1):
                return self._outcome(pc, "", ("fetch", pc))
            left = 64 if end is None else min(64, end - self.evaluator.retired)
            block = self.decoder.block(self.memory.fetch, pc, left)
            try:
                name, pc = self.evaluator.run(block)
            except Trap as trap:
                if trap.kind == "illegal":
                    return self._outcome(self.evaluator.pc, "unsupported", None)
                return self._outcome(self.evaluator.pc, "", (trap.kind, trap.address))
            if name in ("ebreak", "unsupported"):
                return self._outcome(pc, name, None)
            if name == "ecall":
                self.evaluator.retired -= 1  # nobody handles it here
                return self._outcome(pc, name, None)
            if name == "fence_i":
                pc = (pc + 4) & mask
        return self._outcome(pc, RUNNING, None)

    def _outcome(self, pc: int, stop: str, fault: tuple[str, int] | None) -> Outcome:
        values = self.evaluator.registers
        registers, reservation, floats = values[:RESERVATION], values[RESERVATION], values[RESERVATION + 1 :]
        return Outcome(
            registers,
            pc,
            self.evaluator.retired,
            stop,
            fault,
            reservation - 1 if reservation else None,
            {span.start: bytes(span.data) for span in self.memory.spans},
            floats,
        )
