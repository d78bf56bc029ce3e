"""vmjit's machines as contestants."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmjit.bench.contestants import First, Inputs, Run, answer_of
from vmjit.bench.memory import own_memory

if TYPE_CHECKING:
    from vmjit.machine import Machine
    from vmjit.result import RunResult

# Runs, and seconds of them, after which a machine is measured even if the compiler still has something to do; and how
# many in a row have to be alike, and for how long, until it is warm before that. What is compiled before it ran is
# compiled anew once it was entered often, which takes a while where it is entered rarely.
_WARM_RUNS = 24
_WARM_SECONDS = 6.0
_ALIKE_RUNS = 3
_ALIKE_SECONDS = 1.0

# Signals by which a program of this machine ends where a lane of a bare-metal program stops: SIGSEGV, SIGILL, SIGTRAP.
_SIGNALS = {"FAULT": 11, "UNSUPPORTED": 4, "EBREAK": 5}

_EBREAK = bytes.fromhex("73001000")


class MachineContestant:
    """One machine, reset between runs. `settings` are `vmjit.Machine`'s.

    With an empty folder `cache`, what is compiled is kept there and found nowhere: what the first result takes can then
    be measured.
    """

    def __init__(
        self,
        name: str,
        elf: str | Path,
        lanes: int,
        settings: Mapping[str, Any],
        isa: str | None = None,
        cache: str | None = None,
    ) -> None:
        if cache is not None:
            os.environ["VMJIT_CACHE_DIR"] = cache
        self.name = name
        self._elf, self._lanes, self._settings, self._isa = elf, lanes, dict(settings), isa
        self._made: Machine | None = None
        if cache is None:
            self._made = self._make()
        else:
            self._prepare()

    def _make(self) -> Machine:
        import vmjit

        return vmjit.Machine(vmjit.load(self._elf, self._isa), self._lanes, **self._settings)

    def _prepare(self) -> None:
        """Imports, LLVM's own start and the interpreter for the ISA are not the guest's: another program has them."""
        import vmjit
        from vmjit.environment.selection import is_linux

        guest = vmjit.load(self._elf, self._isa)
        settings: dict[str, Any] = {name: self._settings.get(name, "auto") for name in ("device", "tier")}
        # A Linux program has an interpreter of its own, which knows of pages.
        linux = is_linux(self._settings.get("environment", "auto"), guest)
        settings["environment"] = "linux" if linux else "bare-metal"
        vmjit.Machine(vmjit.Program.from_bytes(_EBREAK, guest.isa), 1, fallback=False, **settings).run()

    @property
    def _machine(self) -> Machine:
        if self._made is None:
            self._made = self._make()
        return self._made

    def first(self, inputs: Inputs) -> First:
        """Loading, the machine, and its first run; then what it had compiled, and what it has of memory, a lane."""
        from vmjit.compile_thread import COMPILE_THREAD

        before = own_memory()
        started = time.perf_counter()
        machine = self._machine
        machine.set_input(list(inputs))
        self._answers(machine.run())
        seconds = time.perf_counter() - started
        COMPILE_THREAD.wait()
        after = own_memory()
        grown = (after["own"] - before["own"]) / self._lanes if "own" in before and "own" in after else None
        return First(seconds, machine.statistics.compile_seconds, grown)

    def warm(self, inputs: Inputs) -> None:
        """Run until runs in a row compile nothing and have the same share of each tier."""
        last, alike, spent, since = None, 0, 0.0, 0.0
        for _ in range(_WARM_RUNS):
            run = self.measure(inputs)
            spent += run.seconds
            shares = [round(retired / max(run.instructions, 1), 2) for retired in run.tiers.values()]
            settled = (shares, self._machine.statistics.compiles)
            if settled != last:
                last, alike, since = settled, 0, spent - run.seconds
            alike += 1
            if (alike >= _ALIKE_RUNS and spent - since >= _ALIKE_SECONDS) or spent > _WARM_SECONDS:
                return

    def measure(self, inputs: Inputs) -> Run:
        """One run. What it has compiled is waited for afterwards, so that it does not take time from who comes next."""
        from vmjit.compile_thread import COMPILE_THREAD

        machine, given = self._machine, list(inputs)
        times = [time.perf_counter()]
        machine.reset()
        times.append(time.perf_counter())
        machine.set_input(given)
        times.append(time.perf_counter())
        before = time.process_time()
        result = machine.run()
        cpu_seconds = time.process_time() - before
        times.append(time.perf_counter())
        answers = self._answers(result)
        times.append(time.perf_counter())
        COMPILE_THREAD.wait()
        reset, put, run, output = (b - a for a, b in pairwise(times))
        phases = {"reset": reset, "input": put, "run": run, "output": output}
        return Run(result.seconds, cpu_seconds, answers, result.instructions, dict(result.tiers), 1, phases)

    def compile_seconds(self, _: Inputs) -> float:
        """CPU seconds of all that was compiled for the machine so far."""
        return self._machine.statistics.compile_seconds

    def _answers(self, result: RunResult) -> list[bytes]:
        statuses = [0] * self._lanes if not result.exit_code.any() else self._statuses(result)
        return [answer_of(result.output(lane), status) for lane, status in enumerate(statuses)]

    def _statuses(self, result: RunResult) -> list[int]:
        """Exit codes as a parent process has them: negative for signals."""
        from vmjit.stops import Stop

        found = []
        for stop, code, signal in zip(result.stop, result.exit_code, result.signal, strict=True):
            by = int(signal) or _SIGNALS.get(Stop(int(stop)).name, 0)
            found.append(-by if by else int(code))
        return found

    def close(self) -> None:
        pass
