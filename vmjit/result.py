"""What a run gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vmjit.environment.linux_names import system_call_name
from vmjit.lane_state import LaneState
from vmjit.stops import Access, Stop

if TYPE_CHECKING:
    from vmjit.engine import RunReport
    from vmjit.environment.bare_metal import BareMetal
    from vmjit.residence import Fallback


_SEGV, _BUS, _ILL, _TRAP = 11, 7, 4, 5

# Linux's numbers on RISC-V, whatever this computer's are.
_SIGNALS = dict(
    enumerate(
        (
            "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT "
            "CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
        ).split(),
        1,
    )
)


def _signals(state: LaneState, environment: BareMetal) -> NDArray[np.int64]:
    """The signals by which lanes ended, if there are signals."""
    found = np.where(state.stop == Stop.EXIT, environment.signal, 0)
    if environment.has_signals:
        misaligned = (state.fault_access == Access.MISALIGNED) | (state.fault_access == Access.MISALIGNED_FETCH)
        found[state.stop == Stop.FAULT] = _SEGV
        found[(state.stop == Stop.FAULT) & misaligned] = _BUS
        found[state.stop == Stop.UNSUPPORTED] = _ILL
        found[state.stop == Stop.EBREAK] = _TRAP
    return found


@dataclass(frozen=True, eq=False)
class RunResult:
    """One run of a machine's lanes. Arrays have one element a lane.

    stop: (lanes,) int32, values of `vmjit.Stop`.
    exit_code: (lanes,) int64, 0 to 255 for lanes that exited, -1 for others.
    signal: (lanes,) int64, the signal by which a Linux program ended: SIGSEGV for a fault and the like, and what it
        sent itself (its exit code is then 128 more); 0 for others.
    retired: (lanes,) uint64, instructions retired in this run (`machine.retired` counts all runs).
    fault_address, fault_pc: (lanes,) uint64, meaningful where stop is FAULT, else 0.
    fault_access: (lanes,) uint8, values of `vmjit.Access`.
    pc: (lanes,) uint64, where each lane is.
    seconds: wall-clock time of the run.
    tiers: instructions retired in this run by tier: "interpreter", "scalar", and "simd" (in SIMD registers).
    unknown_calls: system calls that got -ENOSYS, number to count.
    device: where the run ended. fallbacks: changes of device in this run or when the machine was made.
    interrupted, timed_out: Ctrl-C or the time limit ended the run; lanes under way are RUNNING.
    """

    stop: NDArray[np.int32]
    exit_code: NDArray[np.int64]
    signal: NDArray[np.int64]
    retired: NDArray[np.uint64]
    fault_address: NDArray[np.uint64]
    fault_pc: NDArray[np.uint64]
    fault_access: NDArray[np.uint8]
    pc: NDArray[np.uint64]
    seconds: float
    tiers: Mapping[str, int]
    unknown_calls: Mapping[int, int]
    device: str
    interrupted: bool
    timed_out: bool
    fallbacks: tuple[Fallback, ...]
    _outputs: tuple[BareMetal, int]

    @classmethod
    def collect(
        cls,
        state: LaneState,
        environment: BareMetal,
        report: RunReport,
        device: str,
        fallbacks: tuple[Fallback, ...] = (),
    ) -> RunResult:
        retired = state.retired - report.retired_before
        total = int(retired.sum())
        faulted = state.stop == Stop.FAULT
        return cls(
            stop=state.stop.copy(),
            exit_code=np.where(state.stop == Stop.EXIT, environment.exit_code, -1),
            signal=_signals(state, environment),
            retired=retired,
            fault_address=np.where(faulted, state.fault_address, np.uint64(0)),
            fault_pc=np.where(faulted, state.pc, np.uint64(0)),
            fault_access=np.where(faulted, state.fault_access, np.uint8(0)),
            pc=state.pc.copy(),
            seconds=report.seconds,
            tiers={
                "interpreter": total - report.compiled_instructions,
                "scalar": report.compiled_instructions - report.vector_instructions,
                "simd": report.vector_instructions,
            },
            unknown_calls=dict(environment.unknown_calls),
            device=device,
            interrupted=report.interrupted,
            timed_out=report.timed_out,
            fallbacks=fallbacks,
            _outputs=(environment, len(state.stop)),
        )

    def signal_name(self, lane: int) -> str:
        """SIGSEGV and the like; empty where a lane ended by none."""
        number = int(self.signal[lane])
        return f"SIG{_SIGNALS[number]}" if number in _SIGNALS else f"signal {number}" if number else ""

    @property
    def unknown_call_names(self) -> dict[str, int]:
        """`unknown_calls` by Linux's names of the calls; those without one by number."""
        return {system_call_name(number): count for number, count in self.unknown_calls.items()}

    @property
    def successful(self) -> bool:
        """No lane stopped with a fault, at an unsupported instruction, or for want of memory."""
        return not bool(np.isin(self.stop, (Stop.FAULT, Stop.UNSUPPORTED, Stop.MEMORY)).any())

    @property
    def instructions(self) -> int:
        """Instructions retired in this run by all lanes."""
        return int(self.retired.sum())

    @property
    def mips(self) -> float:
        """Millions of guest instructions a second, all lanes together."""
        return self.instructions / self.seconds / 1e6 if self.seconds else 0.0

    def output(self, lane: int) -> bytes:
        """All that a lane wrote to standard output since it was loaded or reset."""
        return self._output(lane, 1)

    def error_output(self, lane: int) -> bytes:
        """All that a lane wrote to standard error."""
        return self._output(lane, 2)

    def _output(self, lane: int, descriptor: int) -> bytes:
        environment, lanes = self._outputs
        if not -lanes <= lane < lanes:
            raise IndexError(f"lane {lane} of {lanes}")
        return environment.output(lane % lanes, descriptor)

    def stops(self) -> dict[str, int]:
        """How many lanes stopped for each reason."""
        values, counts = np.unique(self.stop, return_counts=True)
        return {Stop(int(v)).name: int(c) for v, c in zip(values, counts, strict=True)}
