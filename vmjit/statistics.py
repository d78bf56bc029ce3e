"""What executors and machines count."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from vmjit.cache import CacheStatistics
from vmjit.cpu_engine import CpuEngine
from vmjit.tiering import CompileStatistics

if TYPE_CHECKING:
    from vmjit.device_engine import DeviceEngine


@dataclass(frozen=True)
class ExecutionStatistics:
    """What one `Machine` or `Executor` did so far.

    runs: runs by device. successes, failures: runs that ended with no fault and no unsupported instruction, and the
    others; a run that raised is in neither. fallbacks: changes to the CPU. compiles, compile_seconds: regions and
    kernels that were compiled for it. cache: the process's cache, for all machines together. regroupings: how often
    lanes were given to other lane groups.
    """

    runs: dict[str, int] = field(default_factory=dict)
    successes: int = 0
    failures: int = 0
    fallbacks: int = 0
    compiles: int = 0
    compile_seconds: float = 0.0
    cache: CacheStatistics = field(default_factory=CacheStatistics)
    regroupings: int = 0


@dataclass
class RunCounter:
    """Counts runs; `statistics` gives them with what compilers and the cache count."""

    runs: dict[str, int] = field(default_factory=dict)
    successes: int = 0
    failures: int = 0
    fallbacks: int = 0
    compiles: int = 0
    compile_seconds: float = 0.0
    regroupings: int = 0

    def ran(self, device: str, *, success: bool, regroupings: int = 0) -> None:
        self.runs[device] = self.runs.get(device, 0) + 1
        self.regroupings += regroupings
        self.successes += success
        self.failures += not success

    def keep(self, compiled: CompileStatistics) -> None:
        """Add what was counted by an engine that is given up."""
        self.compiles += compiled.compiled
        self.compile_seconds += compiled.compile_seconds

    def statistics(self, compiled: CompileStatistics, cache: CacheStatistics) -> ExecutionStatistics:
        """Everything so far; `compiled` is what the engine in use has counted."""
        return ExecutionStatistics(
            dict(self.runs),
            self.successes,
            self.failures,
            self.fallbacks,
            self.compiles + compiled.compiled,
            self.compile_seconds + compiled.compile_seconds,
            replace(cache),
            self.regroupings,
        )


def compile_statistics(engine: CpuEngine | DeviceEngine) -> CompileStatistics:
    """What an engine has had compiled."""
    return engine.compiler.statistics if isinstance(engine, CpuEngine) else engine.kernels.statistics
