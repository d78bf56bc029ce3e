"""An explanation as an object for JSON, which the page is made of too."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import vmjit

if TYPE_CHECKING:
    from vmjit.explain.counting import RunCounts
    from vmjit.explain.explanation import Explanation


def explanation_object(explanation: Explanation) -> dict[str, Any]:
    """Lines of listings name their guest instruction by its place in `guest`, -1 for none; `k` is "i" for an
    instruction and "l" for a label."""
    number = {line.pc: i for i, line in enumerate(explanation.guest)}
    return {
        "vmjit": vmjit.__version__,
        "program": explanation.program,
        "isa": explanation.isa,
        "place": explanation.place,
        "entries": list(explanation.entries),
        "ran": explanation.counts is not None,
        "blocks": explanation.blocks,
        "instructions": len(explanation.guest),
        "guest": [
            {
                "pc": line.pc,
                "bytes": line.data.hex(),
                "text": line.text,
                "name": line.name,
                "source": f"{line.source[0]}:{line.source[1]}" if line.source else None,
                "starts": line.starts,
            }
            for line in explanation.guest
        ],
        "listings": [
            {
                "name": listing.name,
                "title": listing.title,
                "facts": {"instructions": listing.instructions, **listing.facts},
                "lines": [line.text for line in listing.lines],
                "guest": [number.get(line.pc, -1) if line.pc is not None else -1 for line in listing.lines],
                "kinds": "".join("i" if line.instruction else "l" for line in listing.lines),
            }
            for listing in explanation.listings.values()
        ],
        "missing": explanation.missing,
        "placement": {
            "lanes": explanation.lanes,
            "on_gpu": explanation.placement.on_gpu,
            "device": explanation.placement.device,
            "reasons": list(explanation.placement.reasons),
        },
        "run": None if explanation.counts is None else _run_object(explanation.counts, number),
    }


def _run_object(counts: RunCounts, number: dict[int, int]) -> dict[str, Any]:
    return {
        "lanes": counts.lanes,
        "tiers": counts.tiers,
        "instructions": {
            str(number[pc]): {**asdict(count), "total": count.total, "active": count.active}
            for pc, count in counts.instructions.items()
        },
        "branches": {
            str(number[pc]): {**asdict(branch), "parts": branch.parts} for pc, branch in counts.branches.items()
        },
    }
