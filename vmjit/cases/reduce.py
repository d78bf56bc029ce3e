"""Making a case that fails smaller: fewer instructions, registers and bytes of memory that matter.

A case fails where the reference evaluator and a tier come to different ends. What is left out is tried by halves, then
by quarters and so on to single items (delta debugging, Zeller and Hildebrandt 2002), again and again until nothing more
can go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from vmjit.cases.case_file import (
    CaseFile,
    decoder_of,
    parse_listing,
    parse_state,
    read_case,
    registers_before,
    state_items,
    written_lines,
)
from vmjit.cases.hart import Outcome
from vmjit.cases.run_case import budget_of, code_address, data_segments, entry_address, run_code
from vmjit.cases.tier_run import run_on
from vmjit.errors import ArgumentError

Fails = Callable[["Draft"], bool]


@dataclass(frozen=True)
class Draft:
    """A case in parts: `code` by instructions, `before` and `memory` by items."""

    isa: str
    at: int
    entry: int  # number of the instruction that it starts with
    code: tuple[bytes, ...]
    before: tuple[str, ...]
    memory: tuple[tuple[int, int], ...]
    budget: int
    comments: tuple[str, ...] = ()

    def case(self) -> CaseFile:
        settings = {"test": "run", "isa": self.isa, "at": f"{self.at:#x}", "budget": str(self.budget)}
        if self.entry:
            settings["entry"] = f"{self.at + sum(map(len, self.code[: self.entry])):#x}"
        if self.memory:
            settings["memory"] = ", ".join(f"{a:#x} {n}" for a, n in self.memory)
        code = tuple(data.hex(" ") for data in self.code)
        sections = {"code": code, "before": (", ".join(self.before),), "after": ()}
        return CaseFile(Path("draft"), settings, (), sections)

    def text(self) -> str:
        """The file, with what comes of it on the reference evaluator."""
        case = self.case()
        decoder = decoder_of(self.isa)
        lines, place = [], self.at
        for data in self.code:
            instruction = decoder.decode(_fetch(data, place), place)
            lines.append(f"  {data.hex(' ')}   ; {decoder.text(instruction)}")
            place += len(data)
        head = [*(f"# {line}" for line in self.comments), *(f"{k}: {v}" for k, v in case.settings.items())]
        after = _after(case, run_code(case))
        sections = ["code:", *lines, "before:", *written_lines(self.before), "after:", *written_lines(after)]
        return "\n".join([*head, "", *sections, ""])


def _fetch(data: bytes, place: int) -> Callable[[int, int], bytes]:
    return lambda pc, size: data[pc - place :][:size]


def draft_of(path: Path) -> Draft:
    """Raises `CaseError` for a file that is no case, `ArgumentError` for one without code."""
    case = read_case(path)
    if case.settings.get("test") != "run" or "code" not in case.sections:
        raise ArgumentError(f"{path} is no case with code to run (test: run, code:)")
    comments = [line[1:].strip() for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    try:
        return _draft(case, tuple(comments))
    except KeyError as error:
        raise ArgumentError(f"{path}: there is no {error}") from None
    except ValueError as error:
        raise ArgumentError(f"{path}: {error}") from None


def _draft(case: CaseFile, comments: tuple[str, ...]) -> Draft:
    isa, at, memory = case.settings["isa"], code_address(case), tuple(data_segments(case))
    code = []
    for data, text in parse_listing(case.sections["code"]):
        if not data:
            raise ValueError(f"no bytes are given for {text!r}")
        code.append(data)
    starts = [at + sum(map(len, code[:i])) for i in range(len(code))]
    if entry_address(case) not in starts:
        raise ValueError("no line of its code is at its entry")
    before = [item.strip() for line in case.sections["before"] for item in line.split(",") if item.strip()]
    parse_state(before, decoder_of(isa).isa.xlen, at)
    entry = starts.index(entry_address(case))
    return Draft(isa, at, entry, tuple(code), tuple(before), memory, budget_of(case), comments)


def _after(case: CaseFile, outcome: Outcome) -> list[str]:
    """What an outcome has that was not so before."""
    decoder = decoder_of(case.settings["isa"])
    before = parse_state(case.sections["before"], decoder.isa.xlen, code_address(case))
    return state_items(decoder, before, registers_before(before, decoder.isa.xlen), outcome, data_segments(case))


def fails_on(tier: str, device: str) -> Fails:
    """Whether the reference evaluator and a tier come to different ends."""

    def fails(draft: Draft) -> bool:
        case = draft.case()
        expected, found = run_code(case), run_on(case, tier, device)
        expected.memory = {start: data for start, data in expected.memory.items() if start in found.memory}
        return expected != found

    return fails


def reduced(draft: Draft, fails: Fails) -> Draft:
    """A smaller case that still fails. Raises `ArgumentError` where this one does not.

    An instruction goes, or becomes a no-op of its size: others behind it then stay where they are.
    """
    if not fails(draft):
        raise ArgumentError("the case does not fail: the reference evaluator and the tier come to the same end")
    before = None
    while draft != before:
        before = draft
        for shrink in (_without_code, _with_nops, _without_state, _without_memory, _shorter):
            draft = shrink(draft, fails)
    return draft


def _smaller(items: tuple[object, ...], test: Callable[[tuple[int, ...]], bool]) -> tuple[int, ...]:
    """The numbers of items that stay: `test` is given those that would."""
    kept = tuple(range(len(items)))
    size = max(len(kept) // 2, 1)
    while kept:
        place, left_out = 0, False
        while place < len(kept):
            tried = kept[:place] + kept[place + size :]
            if test(tried):
                kept, left_out = tried, True
            else:
                place += size
        if size == 1 and not left_out:
            break
        size = max(size // 2, 1)
    return kept


def _without_code(draft: Draft, fails: Fails) -> Draft:
    def having(kept: tuple[int, ...]) -> Draft:
        entry = sum(number < draft.entry for number in kept)
        return replace(draft, code=tuple(draft.code[i] for i in kept), entry=entry)

    return having(_smaller(draft.code, lambda kept: bool(kept) and fails(having(kept))))


_NOPS = {2: bytes.fromhex("0100"), 4: bytes.fromhex("13000000")}


def _with_nops(draft: Draft, fails: Fails) -> Draft:
    def having(kept: tuple[int, ...]) -> Draft:
        stays = set(kept)
        code = tuple(data if i in stays else _NOPS.get(len(data), data) for i, data in enumerate(draft.code))
        return replace(draft, code=code)

    return having(_smaller(draft.code, lambda kept: fails(having(kept))))


def _without_state(draft: Draft, fails: Fails) -> Draft:
    def having(kept: tuple[int, ...]) -> Draft:
        return replace(draft, before=tuple(draft.before[i] for i in kept))

    return having(_smaller(draft.before, lambda kept: fails(having(kept))))


def _without_memory(draft: Draft, fails: Fails) -> Draft:
    def having(kept: tuple[int, ...]) -> Draft:
        memory = tuple(draft.memory[i] for i in kept)
        gone = [span for span in draft.memory if span not in memory]
        before = tuple(item for item in draft.before if not any(item.startswith(f"mem[{a:#x}]") for a, _ in gone))
        return replace(draft, memory=memory, before=before)

    return having(_smaller(draft.memory, lambda kept: fails(having(kept))))


def _shorter(draft: Draft, fails: Fails) -> Draft:
    """With the least budget that some halving finds."""
    while draft.budget > 1 and fails(shorter := replace(draft, budget=draft.budget // 2)):
        draft = shorter
    while (
        draft.budget > 1
        and draft.budget <= len(draft.code)
        and fails(shorter := replace(draft, budget=draft.budget - 1))
    ):
        draft = shorter
    return draft
