"""Whether the bench itself can be believed: what is nothing measures as nothing, and what is equal as equal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vmjit.bench.compare import row_name
from vmjit.bench.guests import EMPTY
from vmjit.bench.results_file import Results, Row
from vmjit.bench.sheets import time_text
from vmjit.bench.spread import number, paired_ratio, percent, spread

# An empty guest may measure as this share of what starting it costs: the difference of two equal runs.
_OF_START = 0.1


@dataclass(frozen=True)
class Finding:
    """What was found, and whether it is as it should be."""

    text: str
    fine: bool


def findings(results: Results) -> Iterator[Finding]:
    """Of a session that measured the empty guest, and others beside an equal contestant."""
    for row in results["rows"]:
        yield from _nothing(row) if row["guest"] == EMPTY else _equal(row)


def _nothing(row: Row) -> Iterator[Finding]:
    for name, entry in row["entries"].items():
        measured = spread(entry["steady"])
        start = spread(entry["fixed"]).median * row["lanes"]
        holds = measured.low <= 0 <= measured.high
        found = f"measures as {time_text(measured.median)} of work beside {time_text(start)} of start"
        yield Finding(f"{row_name(row)}, {name}: {found}", holds or abs(measured.median) < _OF_START * start)


def _equal(row: Row) -> Iterator[Finding]:
    first, *others = row["entries"].items()
    for name, entry in others:
        ratio = paired_ratio(first[1]["steady"], entry["steady"])
        if ratio is None:
            yield Finding(f"{row_name(row)}, {first[0]} : {name}: too short to tell", fine=False)
        else:
            around = f"{number(ratio.median)}, noise ±{percent(ratio.noise)}"
            yield Finding(f"{row_name(row)}, {first[0]} : {name}: {around}", not ratio.differs)
