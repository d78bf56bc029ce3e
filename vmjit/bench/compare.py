"""Two result files: what got slower, beyond the noise of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from vmjit.bench.results_file import Entry, Results, Row
from vmjit.bench.spread import Spread, spread

SLOWER, FASTER, SAME = "slower", "faster", "same"
BROKEN = "answers differ"

# By whom speeds are measured if both files have it: what the machine did on that day hits it alike.
_REFERENCES = ("native", "qemu", "unicorn", "icicle")


@dataclass(frozen=True)
class Figure:
    """One figure that is compared. `margin`: how far intervals have to lie apart, as a share; what is measured a few
    times only has a wide one. in_pairs: measured by round, so that it can be taken in relation to a peer's."""

    name: str
    of: Callable[[Entry], Sequence[float]]
    margin: float
    in_pairs: bool


FIGURES = (
    Figure("steady state", lambda entry: entry["steady"], 0.02, in_pairs=True),
    Figure("an instance", lambda entry: entry["instance"], 0.02, in_pairs=True),
    Figure("first result", lambda entry: entry["first"], 0.25, in_pairs=False),
    Figure("compile time", lambda entry: entry["compile"], 0.25, in_pairs=False),
    Figure("memory", lambda entry: entry["memory"], 0.1, in_pairs=False),
)


@dataclass(frozen=True)
class Change:
    """What became of one figure. `ratio`: old to new, above 1 is faster (or less). by: the peer in relation to which it
    is taken, empty for none."""

    row: str
    contestant: str
    figure: str
    ratio: float
    verdict: str
    by: str = ""


def row_name(row: Row) -> str:
    return f"{row['guest']} {row['isa']}, {row['lanes']:,} lane{'s' if row['lanes'] > 1 else ''}"


def compare(old: Results, new: Results) -> tuple[list[Change], list[str]]:
    """Changes of vmjit's contestants, and the rows that are in the old file alone. Of files from different processors
    only what is taken in relation to a peer is compared."""
    before = {row_name(row): row for row in old["rows"]}
    after = {row_name(row): row for row in new["rows"]}
    changes = [change for name in before if name in after for change in _changes(name, before[name], after[name])]
    if not same_processor(old, new):
        changes = [change for change in changes if change.by or change.verdict == BROKEN]
    return changes, [name for name in before if name not in after]


def same_processor(old: Results, new: Results) -> bool:
    return old["machine"].get("cpu") == new["machine"].get("cpu")


def regressions(changes: Sequence[Change]) -> list[Change]:
    return [change for change in changes if change.verdict in (SLOWER, BROKEN)]


def _changes(name: str, old: Row, new: Row) -> Iterator[Change]:
    if old["agree"] and not new["agree"]:
        yield Change(name, "", BROKEN, 0.0, BROKEN)
    if not (old["agree"] and new["agree"]):
        return
    # An instance's time holds as many repeats as it had: with others, only relations can be compared.
    alike = old["repeat"] == new["repeat"]
    for contestant, entry in old["entries"].items():
        other = new["entries"].get(contestant)
        if other is None or entry["kind"] != "vmjit":
            continue
        for figure in FIGURES:
            peer = _reference(old, new) if figure.in_pairs else ""
            was, now = _taken(figure, old, contestant, peer), _taken(figure, new, contestant, peer)
            if was is not None and now is not None and (alike or peer or not figure.in_pairs):
                ratio = was.median / now.median
                yield Change(name, contestant, figure.name, ratio, verdict(was, now, figure), peer)


def _reference(old: Row, new: Row) -> str:
    both = [name for name in old["entries"] if name in new["entries"] and old["entries"][name]["kind"] == "peer"]
    return next((name for name in (*_REFERENCES, *both) if name in both), "")


def _taken(figure: Figure, row: Row, contestant: str, peer: str) -> Spread | None:
    values = list(figure.of(row["entries"][contestant]))
    if peer:
        against = figure.of(row["entries"][peer])
        if len(against) != len(values) or min(against, default=0.0) <= 0:
            return None
        values = [value / other for value, other in zip(values, against, strict=True)]
    elif figure.in_pairs and row["instructions"] and figure.name == "steady state":
        values = [value / row["instructions"] for value in values]
    return spread(values) if min(values, default=0.0) > 0 else None


def verdict(old: Spread, new: Spread, figure: Figure) -> str:
    """Costs: slower where the new interval lies above the old one by more than the margin."""
    if figure.in_pairs and not (old.told and new.told):
        return SAME
    if new.low > old.high * (1 + figure.margin):
        return SLOWER
    if new.high * (1 + figure.margin) < old.low:
        return FASTER
    return SAME
