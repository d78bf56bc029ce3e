"""A run with a progress bar on standard error, where that is a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmjit.cli.console import stderr_is_terminal

if TYPE_CHECKING:
    from vmjit.machine import Machine
    from vmjit.result import RunResult


def run_with_progress(
    machine: Machine, max_instructions: int | None = None, max_seconds: float | None = None
) -> RunResult:
    """`machine.run`, with a bar that vanishes at the end."""
    if not stderr_is_terminal():
        return machine.run(max_instructions, max_seconds=max_seconds)

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(),
        TextColumn("{task.fields[stopped]:,} of {task.fields[lanes]:,} lanes stopped"),
        TextColumn("{task.fields[millions]:,} million instructions"),
        TimeElapsedColumn(),
    )
    # How much is left is known from the lanes that have stopped, or from the budget; one lane without one just runs.
    total = None if machine.lanes == 1 and max_instructions is None else 1.0
    budget = None if max_instructions is None else max_instructions * machine.lanes
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total, stopped=0, lanes=machine.lanes, millions=0)

        def update(stopped: int, instructions: int) -> None:
            done = max(stopped / machine.lanes, instructions / budget if budget else 0.0)
            bar.update(task, completed=done, stopped=stopped, millions=instructions // 1_000_000)

        return machine.run(max_instructions, max_seconds=max_seconds, progress=update)
