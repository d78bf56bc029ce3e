"""What a run came to: as one line for a lane, as JSON, as tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vmjit.cli.console import printable
from vmjit.errors import GuestAddressError
from vmjit.places import CodeSymbols, instruction_text
from vmjit.stops import Access, Stop

if TYPE_CHECKING:
    from rich.console import Console

    from vmjit.machine import Machine
    from vmjit.result import RunResult

# Up to this many lanes, JSON has what each of them wrote.
OUTPUT_LANES = 64

# Rows of the tables: ways to stop, and lanes that show where.
_OUTCOME_ROWS = 12
_FAULT_ROWS = 5

_ATTEMPTS = {
    Access.READ: "reading",
    Access.WRITE: "writing",
    Access.EXECUTE: "executing",
    Access.MISALIGNED: "misaligned atomic access at",
    Access.MISALIGNED_FETCH: "executing misaligned",
}


@dataclass(frozen=True)
class Report:
    """A run's result and what it takes to describe it. `names` are those of the lanes' inputs, if they have names."""

    machine: Machine
    result: RunResult
    names: tuple[str, ...] | None = None

    # -- one lane

    def instruction(self, lane: int) -> str:
        """The disassembly of the instruction at a lane's pc, from the lane's memory: it may have changed its code."""
        memory = self.machine.memory

        def fetch(pc: int, size: int) -> bytes:
            for count in range(size, 0, -1):
                try:
                    return bytes(memory.read(pc, count)[lane])
                except GuestAddressError:
                    continue
            return b""

        return instruction_text(self.machine.program, fetch, int(self.result.pc[lane])) or "no code there"

    def attempt(self, lane: int) -> str:
        """What a faulting lane tried, and what it may do there: `writing 0x10000 (r-x)`, `reading 0x0 (no memory)`."""
        address = int(self.result.fault_address[lane])
        permissions = self.machine.memory.permissions(address) or "no memory"
        return f"{_ATTEMPTS[Access(int(self.result.fault_access[lane]))]} {address:#x} ({permissions})"

    def line(self, lane: int) -> str:
        """Why and where a lane stopped that did not exit."""
        stop = Stop(int(self.result.stop[lane]))
        place = CodeSymbols(self.machine.program).place(int(self.result.pc[lane]))
        what = f" {self.attempt(lane)}" if stop is Stop.FAULT else ""
        ended = "out of time" if self.result.timed_out else "interrupted"
        signal = f" ({name})" if (name := self.result.signal_name(lane)) else ""
        verb = ended if stop is Stop.RUNNING else f"stopped: {stop.name}{signal}{what}"
        return f"{verb} at pc {place}: {self.instruction(lane)}"

    # -- JSON

    def json(self) -> dict[str, Any]:
        """Addresses are text (0x…): JSON readers round large numbers."""
        result, lanes = self.result, self.machine.lanes
        few = range(lanes) if lanes <= OUTPUT_LANES else None
        exited = (result.stop == Stop.EXIT).tolist()
        return {
            "program": printable(self.machine.program.name),
            "isa": self.machine.program.isa,
            "lanes": lanes,
            "device": result.device,
            "tier": self.machine.tier,
            "seconds": result.seconds,
            "instructions": result.instructions,
            "mips": result.mips,
            "interrupted": result.interrupted,
            "timed_out": result.timed_out,
            "placement": list(self.machine.placement.reasons),
            "fallbacks": [str(fallback) for fallback in result.fallbacks],
            "stops": result.stops(),
            "tiers": dict(result.tiers),
            "unknown_calls": result.unknown_call_names,
            "exit_codes": [code if e else None for code, e in zip(result.exit_code.tolist(), exited, strict=True)],
            "lane_stops": [Stop(value).name for value in result.stop.tolist()],
            "signals": [result.signal_name(lane) or None for lane in range(lanes)],
            "retired": result.retired.tolist(),
            "pc": [hex(value) for value in result.pc.tolist()],
            "faults": [self._fault(int(lane)) for lane in np.flatnonzero(result.stop == Stop.FAULT)],
            "inputs": None if self.names is None else [printable(name) for name in self.names],
            "output": None if few is None else [_text(result.output(lane)) for lane in few],
            "error_output": None if few is None else [_text(result.error_output(lane)) for lane in few],
        }

    def _fault(self, lane: int) -> dict[str, Any]:
        return {
            "lane": lane,
            "pc": hex(int(self.result.fault_pc[lane])),
            "address": hex(int(self.result.fault_address[lane])),
            "access": Access(int(self.result.fault_access[lane])).name,
        }

    # -- tables

    def print(self, console: Console) -> None:
        """The run as a whole, how its lanes stopped, and where some did that should not have."""
        self._print_summary(console)
        self._print_outcomes(console)
        self._print_bad_lanes(console)

    def _print_summary(self, console: Console) -> None:
        from rich.table import Table

        result, machine = self.result, self.machine
        table = Table("", "", show_header=False, box=None, pad_edge=False)
        for name, value in (
            ("program", f"{printable(machine.program.name)} ({machine.program.isa})"),
            ("lanes", f"{machine.lanes:,} on {result.device}"),
            ("instructions", f"{result.instructions:,}"),
            ("seconds", f"{result.seconds:.3f}"),
            ("MIPS", f"{result.mips:,.0f}"),
            ("tiers", tier_shares(result)),
        ):
            table.add_row(name, value)
        if result.unknown_calls:
            calls = ", ".join(f"{n} ({count:,} times)" for n, count in sorted(result.unknown_call_names.items()))
            table.add_row("unknown calls", calls)
        for fallback in result.fallbacks:
            table.add_row("fallback", printable(str(fallback)))
        console.print(table)

    def _print_outcomes(self, console: Console) -> None:
        from rich.table import Table

        table = Table("stop", "exit code", "lanes")
        for column in table.columns[1:]:
            column.justify = "right"
        counts = Counter(zip(self.result.stop.tolist(), self.result.exit_code.tolist(), strict=True)).most_common()
        for (stop, code), count in counts[:_OUTCOME_ROWS]:
            table.add_row(Stop(stop).name, str(code) if stop == Stop.EXIT else "", f"{count:,}")
        if more := counts[_OUTCOME_ROWS:]:
            table.add_row(f"{len(more):,} others", "", f"{sum(count for _, count in more):,}")
        console.print(table)

    def _print_bad_lanes(self, console: Console) -> None:
        from rich.table import Table

        stops = self.result.stop
        bad = np.flatnonzero(np.isin(stops, (Stop.FAULT, Stop.UNSUPPORTED, Stop.EBREAK, Stop.MEMORY)))
        if not len(bad):
            return
        symbols = CodeSymbols(self.machine.program)
        table = Table("lane", *(["input"] if self.names else []), "stop", "pc", "instruction", "tried")
        for lane in map(int, bad[:_FAULT_ROWS]):
            stop = Stop(int(stops[lane]))
            table.add_row(
                str(lane),
                *([printable(self.names[lane])] if self.names else []),
                stop.name,
                symbols.place(int(self.result.pc[lane])),
                self.instruction(lane),
                self.attempt(lane) if stop is Stop.FAULT else "",
            )
        console.print(table)
        if len(bad) > _FAULT_ROWS:
            console.print(f"and {len(bad) - _FAULT_ROWS:,} more lanes")


def tier_shares(result: RunResult) -> str:
    """`interpreter 4.7 %, scalar 95.3 %`."""
    total = result.instructions
    return ", ".join(f"{tier} {100 * count / total:.1f} %" for tier, count in result.tiers.items()) if total else "-"


def _text(data: bytes) -> str:
    return data.decode(errors="backslashreplace")
