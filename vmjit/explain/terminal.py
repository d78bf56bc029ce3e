"""An explanation in a terminal: a row for each guest instruction, with what it became beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from vmjit.explain.counting import InstructionCount, RunCounts
    from vmjit.explain.explanation import Explanation, GuestLine
    from vmjit.explain.listings import Listing

# Of code that belongs to no instruction, so many lines are shown.
_REST_SHOWN = 12


def print_explanation(explanation: Explanation, console: Console) -> None:
    """Facts, reasons and the table."""
    console.print(_head(explanation))
    for listing in explanation.listings.values():
        facts = {"instructions": listing.instructions, **listing.facts}
        told = "; ".join(
            f"{what}: {value:,}" if isinstance(value, int) else f"{what}: {value}" for what, value in facts.items()
        )
        console.print(f"{listing.name:8} {listing.title}; {told}")
    for name, why in explanation.missing.items():
        console.print(f"{name:8} {why}")
    console.print(f"{explanation.lanes:,} lanes run on: {explanation.placement.device}")
    for reason in explanation.placement.reasons:
        console.print(f"  {reason}")
    if explanation.listings:
        console.print(_table(explanation))


def _head(explanation: Explanation) -> str:
    if explanation.counts is not None:
        total = max(sum(explanation.counts.tiers.values()), 1)
        tiers = ", ".join(f"{name} {count / total:.1%}" for name, count in explanation.counts.tiers.items() if count)
        how = f"as it ran on {explanation.counts.lanes:,} lanes ({tiers})"
    else:
        how = "grown along all static edges, not run"
    return (
        f"region at {explanation.place} of {explanation.program}: {len(explanation.guest)} instructions in "
        f"{explanation.blocks} blocks, {how}"
    )


def _table(explanation: Explanation) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_lines=False)
    table.add_column("guest", no_wrap=True)
    counts = explanation.counts
    if counts is not None:
        table.add_column("ran", justify="right", no_wrap=True)
    listings = list(explanation.listings.values())
    for listing in listings:
        table.add_column(listing.name, overflow="fold", ratio=1)
    lines = [_by_instruction(listing) for listing in listings]
    for guest in explanation.guest:
        if guest.starts:
            table.add_section()
        ran = [] if counts is None else [_ran(counts, guest.pc)]
        table.add_row(_guest(guest), *ran, *(_code(of.get(guest.pc, [])) for of in lines))
    rest = [of.get(None, []) for of in lines]
    if any(rest):
        table.add_section()
        empty = [] if counts is None else [_plain("")]
        table.add_row(_plain("of no instruction"), *empty, *(_code(_shortened(of)) for of in rest))
    return table


def _by_instruction(listing: Listing) -> dict[int | None, list[str]]:
    found: dict[int | None, list[str]] = {}
    for line in listing.lines:
        if line.instruction:
            found.setdefault(line.pc, []).append(line.text.strip())
    return found


def _shortened(lines: list[str]) -> list[str]:
    more = len(lines) - _REST_SHOWN
    return lines if more <= 0 else [*lines[:_REST_SHOWN], f"and {more:,} more"]


def _plain(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(text, style=style)


def _guest(line: GuestLine) -> Text:
    text = _plain(f"{line.pc:x}  ", "dim")
    text.append(f"{line.data.hex():8}  ", "dim")
    text.append(line.text)
    if line.name:
        text.append(f"  <{line.name}>", "bold blue")
    elif line.source:
        text.append(f"  {line.source[0]}:{line.source[1]}", "dim")
    return text


def _code(lines: list[str]) -> Text:
    return _plain("\n".join(lines))


def _ran(counts: RunCounts, pc: int) -> Text:
    count = counts.instructions.get(pc)
    if count is None:
        return _plain("")
    text = _plain(f"{count.total:,}", "bold" if count.total else "dim")
    for part in _parts(count, counts):
        text.append(f"\n{part}", "dim")
    branch = counts.branches.get(pc)
    if branch is not None and branch.parts:
        share = branch.taken / max(branch.taken + branch.passed, 1)
        text.append(f"\nlanes part: {branch.ways:,} ways, taken {share:.0%}", "red")
    return text


def _parts(count: InstructionCount, counts: RunCounts) -> Iterator[str]:
    """In which tiers, where it is not all of one and the same for all that was interpreted."""
    if not count.total:
        return
    if count.lanes < counts.lanes:
        yield f"{count.lanes:,} of {counts.lanes:,} lanes"
    if count.alone:
        yield f"compiled {count.alone / count.total:.0%}"
    if count.active is not None:
        yield f"SIMD {count.grouped / count.total:.0%}, {count.active:.1f} active"
