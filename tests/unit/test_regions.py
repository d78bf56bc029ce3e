"""Region formation on small programs, and where compiled code checks the budget."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.differential.asm import encode
from vmjit.decoders.riscv import REGISTERS, Decoder, parse_isa
from vmjit.ir import I1, I64, Block, Const, GuestInstruction, Register, Terminator
from vmjit.translators.region_body import budget_needs
from vmjit.translators.regions import (
    MAX_REGION_BLOCKS,
    MAX_REGION_INSTRUCTIONS,
    Growth,
    Region,
    form_region,
    is_call,
    loop_head,
    visited,
    with_short_ways,
)
from vmjit.translators.return_points import return_points

BASE = 0x1000


# -- programs with labels


@dataclass
class Listing:
    """A small program; addresses by label, and the code as region formation sees it."""

    code: bytes
    labels: dict[str, int]
    isa: str = "rv64i"
    counts: dict[int, int] = field(default_factory=dict)
    jumps: dict[int, list[int]] = field(default_factory=dict)
    default_visits: int = 1
    asked: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._decoder = Decoder(parse_isa(self.isa))

    def __getitem__(self, label: str) -> int:
        return self.labels[label]

    def fetch(self, pc: int, size: int) -> bytes:
        return self.code[pc - BASE :][:size] if pc >= BASE else b""

    def block(self, pc: int) -> Block:
        self.asked.append(pc)
        return self._decoder.block(self.fetch, pc)

    def visits(self, pc: int) -> int:
        return self.counts.get(pc, self.default_visits)

    def indirect_targets(self, pc: int) -> Iterable[int]:
        return self.jumps.get(self.block(pc).instructions[-1].pc, [])

    def visit(self, **counts: int) -> Listing:
        """Visits by label; what is not named was never visited."""
        self.default_visits = 0
        self.counts = {self.labels[name]: count for name, count in counts.items()}
        return self

    def jump_from(self, site: str, *targets: str) -> Listing:
        self.jumps[self.labels[site]] = [self.labels[t] for t in targets]
        return self

    def names(self, addresses: Iterable[int]) -> set[str]:
        """Labels of addresses; those without one by their distance from the start."""
        by_address = {pc: name for name, pc in self.labels.items()}
        return {by_address.get(pc, hex(pc)) for pc in addresses}


def program(text: str) -> Listing:
    """Lines `label: name operands`; operands are registers as numbers, `#n` and labels. `nop*n` is n instructions."""
    lines = []
    labels: dict[str, int] = {}
    place = BASE
    for raw in text.strip().splitlines():
        label, colon, rest = raw.strip().rpartition(":")
        if colon:
            labels[label] = place
        name, *operands = rest.split()
        name, _, count = name.partition("*")
        for _ in range(int(count or 1)):
            lines.append((place, name, operands))
            place += 4
    code = b""
    for place, name, operands in lines:
        code += _assembled(place, name, operands, labels)
    return Listing(code, labels)


def _assembled(place: int, name: str, operands: list[str], labels: dict[str, int]) -> bytes:
    match name:
        case "nop":
            return encode("addi")
        case "jump" | "call":
            return encode("jal", rd=int(name == "call"), imm=labels[operands[0]] - place)
        case "beq" | "bne":
            return encode(name, rs1=int(operands[0]), rs2=0, imm=labels[operands[1]] - place)
        case "ret":
            return encode("jalr", rs1=1)
        case "jump_to":
            return encode("jalr", rs1=int(operands[0]))
        case "call_to":
            return encode("jalr", rd=1, rs1=int(operands[0]))
    return encode(name)


def everything(code: Listing, seed: str, **options: object) -> Region:
    growth = Growth(lambda pc: BASE <= pc < BASE + len(code.code), **options)  # type: ignore[arg-type]
    return form_region(code, code[seed], growth)


def check(code: Listing, region: Region) -> None:
    """What holds for every region."""
    assert region.entries[0] in region.blocks
    assert len(set(region.entries)) == len(region.entries)
    assert set(region.entries) <= set(region.blocks)
    assert region.returns <= set(region.blocks)
    assert region.size == sum(len(b.instructions) for b in region.blocks.values())
    places = [i.pc for b in region.blocks.values() for i in b.instructions]
    assert len(set(places)) == len(places), "an instruction is in the region twice"
    links = set(region.link_targets())
    assert list(region.link_targets()) == sorted(links)
    for pc, block in region.blocks.items():
        assert block.pc == pc
        assert pc in links
        assert set(block.successors()) <= links
        assert set(region.successors(pc)) <= set(region.blocks)
        assert set(region.indirect_goals(pc)) <= set(region.blocks)


# -- loops

NESTED = """
start:  nop
outer:  nop
        beq 5 done
inner:  nop
        nop
        bne 6 inner
        nop
        bne 7 outer
done:   ebreak
"""


def test_a_region_starts_at_its_seed_and_does_not_go_back_before_it() -> None:
    code = program(NESTED)
    region = form_region(code, code["inner"], visited(code))
    check(code, region)
    assert code.names(region.blocks) == {"inner", hex(code["inner"] + 12), "done"}
    assert region.entries == [code["inner"]]
    assert code["outer"] in region.link_targets()
    assert code["outer"] not in region.blocks


def test_the_region_of_a_loop_holds_the_loop_inside() -> None:
    code = program(NESTED)
    region = form_region(code, code["outer"], visited(code))
    check(code, region)
    assert code.names(region.blocks) == {"outer", "inner", hex(code["inner"] + 12), "done"}


def test_a_whole_function_goes_back_before_its_seed() -> None:
    code = program(NESTED)
    region = everything(code, "inner", whole_function=True)
    check(code, region)
    assert {"outer", "inner", "done"} <= code.names(region.blocks)
    assert "start" not in code.names(region.blocks)


@pytest.mark.parametrize(
    ("place", "head"), [("start", "start"), ("outer", "outer"), ("inner", "inner"), ("done", "done")]
)
def test_loop_heads(place: str, head: str) -> None:
    code = program(NESTED)
    assert loop_head(code, code[place]) == code[head]


def test_the_head_of_a_block_behind_the_inner_loop_is_that_of_the_outer() -> None:
    code = program(NESTED)
    assert loop_head(code, code["inner"] + 12) == code["outer"]


def test_a_loop_of_one_block_is_its_own_head() -> None:
    code = program("alone: nop\n bne 5 alone\n ebreak")
    assert loop_head(code, code["alone"]) == code["alone"]


def test_the_head_of_a_block_in_the_middle_of_a_loop() -> None:
    code = program(
        """
        head:   nop
                beq 5 other
        one:    nop
                jump joint
        other:  nop
        joint:  nop
                bne 6 head
                ebreak
        """
    )
    for place in ("one", "other", "joint", "head"):
        assert loop_head(code, code[place]) == code["head"], place


def test_jumps_that_were_never_made_close_no_loop() -> None:
    code = program(NESTED).visit(start=1, inner=9, done=1)
    assert loop_head(code, code["inner"] + 12) == code["inner"] + 12
    assert loop_head(code, code["inner"]) == code["inner"]


def test_a_loop_around_a_call() -> None:
    """The way goes on behind the call, not into the callee, whose own loop is another matter."""
    code = program(
        """
        callee: nop
                bne 9 callee
                ret
        head:   nop
                call callee
        after:  nop
                bne 5 head
                ebreak
        """
    )
    assert loop_head(code, code["after"]) == code["head"]
    assert loop_head(code, code["head"]) == code["head"]
    assert loop_head(code, code["callee"]) == code["callee"]


def test_a_loop_around_an_environment_call() -> None:
    code = program(
        """
        head:   nop
                beq 5 end
        ask:    nop
                ecall
        after:  bne 6 head
        end:    ebreak
        """
    )
    for place in ("head", "ask", "after"):
        assert loop_head(code, code[place]) == code["head"], place


def test_a_loop_through_a_computed_jump() -> None:
    code = program(
        """
        head:   nop
        switch: jump_to 6
        one:    nop
                jump head
        two:    nop
                jump head
        """
    ).jump_from("switch", "one", "two")
    for place in ("one", "two", "head"):
        assert loop_head(code, code[place]) == code["head"]
    assert loop_head(program("a: nop\n b: jump_to 6\n c: jump a"), BASE) == BASE


# -- what was visited


def test_what_was_never_visited_stays_outside() -> None:
    code = program(
        """
        head:   nop
                beq 5 seldom
        often:  nop
                bne 6 head
        end:    ebreak
        seldom: nop
                jump often
        """
    ).visit(head=100, often=100, end=1)
    region = form_region(code, code["head"], visited(code))
    check(code, region)
    assert code.names(region.blocks) == {"head", "often", "end"}
    assert code["seldom"] in region.link_targets()


def test_the_seed_needs_no_visit() -> None:
    code = program("head: nop\n jump head").visit()
    assert code.names(form_region(code, code["head"], visited(code)).blocks) == {"head"}


def test_the_most_visited_blocks_come_first() -> None:
    code = program(
        """
        head:   beq 5 cold
        hot:    nop*8
                jump end
        cold:   nop*8
                jump end
        end:    nop*2
                ebreak
        """
    ).visit(head=100, hot=90, cold=10, end=50)
    region = form_region(code, code["head"], visited(code, max_instructions=13))
    check(code, region)
    assert code.names(region.blocks) == {"head", "hot", "end"}
    region = form_region(code, code["head"], visited(code, max_instructions=12))
    assert code.names(region.blocks) == {"head", "hot"}


# -- limits


def straight(blocks: int, size: int) -> Listing:
    """Blocks of `size` instructions, each of which may leave to the end."""
    text = "".join(f"b{i}: nop*{size - 1}\n bne 5 end\n" for i in range(blocks))
    return program(text + "end: ebreak")


@pytest.mark.parametrize("limit", [1, 10, 11, 25, 100, MAX_REGION_INSTRUCTIONS])
def test_the_limit_of_instructions(limit: int) -> None:
    code = straight(60, 10)
    region = form_region(code, code["b0"], visited(code, limit))
    check(code, region)
    assert region.size <= max(limit, 10)
    assert region.size > min(limit, 600) - 10 or limit < 10
    assert code["b0"] in region.blocks


def test_a_seed_larger_than_the_limit_stands_alone() -> None:
    code = straight(3, 20)
    region = form_region(code, code["b0"], visited(code, 5))
    assert code.names(region.blocks) == {"b0"}
    assert region.size == 20


def test_the_limit_of_blocks() -> None:
    code = straight(2 * MAX_REGION_BLOCKS, 2)
    region = form_region(code, code["b0"], visited(code))
    check(code, region)
    assert len(region.blocks) == MAX_REGION_BLOCKS
    assert region.size < MAX_REGION_INSTRUCTIONS


def test_the_search_for_a_loop_head_is_bounded() -> None:
    code = straight(3 * MAX_REGION_BLOCKS, 2)
    assert loop_head(code, code["b0"]) == code["b0"]
    assert len(set(code.asked)) <= MAX_REGION_BLOCKS


# -- calls

CALLS = """
main:   nop
        call twice
back:   nop
        call twice
again:  ebreak
twice:  nop
        beq 5 skip
        nop
skip:   ret
"""


def test_calls_are_grown_into() -> None:
    code = program(CALLS)
    region = form_region(code, code["main"], visited(code))
    check(code, region)
    assert code.names(region.blocks) == {"main", "back", "again", "twice", hex(code["twice"] + 8), "skip"}
    assert code.names(region.returns) == {"back", "again"}
    assert code.names(region.indirect_goals(code["skip"])) == {"back", "again"}
    assert code.names(region.successors(code["skip"])) == {"back", "again"}
    assert region.entries == [code["main"]]


def test_is_call() -> None:
    code = program(CALLS)
    assert [is_call(code.block(code[n])) for n in ("main", "back", "again", "twice", "skip")] == [True, True] + [False] * 3  # fmt: skip
    computed = program("a: call_to 5\n b: jump_to 6\n c: jump a")
    assert [is_call(computed.block(computed[n])) for n in "abc"] == [True, False, False]
    assert not is_call(Block(BASE, REGISTERS[64, False], [], Terminator("jump", (), (Const(BASE, I64),))))


def test_a_callee_that_was_not_visited_stays_outside() -> None:
    """Then lanes come back to the return point from outside, so that it is an entry."""
    code = program(CALLS).visit(main=9, back=9, again=9)
    region = form_region(code, code["main"], visited(code))
    check(code, region)
    assert code.names(region.blocks) == {"main", "back", "again"}
    assert region.entries == [code["main"], code["back"], code["again"]]


def test_the_floor_of_a_callee_is_its_first_block() -> None:
    """A callee that stands before its caller is followed; from it no jump to before itself is."""
    code = program(
        """
        before: nop
                ret
        callee: nop
                beq 5 before
                ret
        main:   nop
                call callee
        back:   ebreak
        """
    )
    region = form_region(code, code["main"], visited(code))
    check(code, region)
    assert code.names(region.blocks) == {"main", "back", "callee", hex(code["callee"] + 8)}
    whole = everything(code, "main", whole_function=True)
    assert "before" in code.names(whole.blocks)


def test_small_callees_are_inlined_before_anything_ran() -> None:
    code = program(CALLS)
    for limit, inside in ((5, True), (3, False)):
        region = everything(code, "main", inline_up_to=limit, whole_function=True)
        check(code, region)
        assert (code["twice"] in region.blocks) is inside
        assert code.names(region.entries) == ({"main"} if inside else {"main", "back", "again"})


@pytest.mark.parametrize(
    "callee",
    [
        "callee: call other\n ret\n other: ret",
        "callee: ebreak",
        "callee: ecall\n ret",
        "callee: jump_to 6",
        "callee: call callee\n ret",
        "callee: nop*3\n ret",
    ],
    ids=["that calls", "that stops", "that asks the environment", "that jumps away", "that calls itself", "too large"],
)
def test_other_callees_are_not_inlined_before_anything_ran(callee: str) -> None:
    code = program("main: call callee\n back: ebreak\n" + callee)
    region = everything(code, "main", inline_up_to=3, whole_function=True)
    check(code, region)
    assert code.names(region.blocks) == {"main", "back"}
    assert code.names(region.entries) == {"main", "back"}


def test_a_loop_in_a_callee_is_counted_once() -> None:
    code = program("main: call callee\n back: ebreak\n callee: nop\n bne 5 callee\n ret")
    region = everything(code, "main", inline_up_to=3, whole_function=True)
    assert code["callee"] in region.blocks


def test_recursion_ends() -> None:
    code = program("main: nop\n call main\n back: nop\n ret")
    region = form_region(code, code["main"], visited(code))
    check(code, region)
    assert code.names(region.blocks) == {"main", "back"}
    assert code.names(region.returns) == {"back"}
    assert region.entries == [code["main"]]


# -- computed jumps

SWITCH = """
main:   nop
switch: jump_to 6
one:    nop
        jump end
two:    nop
        jump end
three:  nop
end:    ebreak
"""


def test_goals_of_a_computed_jump() -> None:
    code = program(SWITCH).jump_from("switch", "one", "three")
    region = form_region(code, code["main"], visited(code))
    check(code, region)
    assert code.names(region.blocks) == {"main", "one", "three", "end"}
    assert region.indirect == {code["main"]: [code["one"], code["three"]]}
    assert code.names(region.successors(code["main"])) == {"one", "three"}


def test_goals_that_are_not_wanted_are_left_out() -> None:
    code = program(SWITCH).jump_from("switch", "one", "two", "three").visit(main=5, one=3, end=3)
    region = form_region(code, code["main"], visited(code))
    check(code, region)
    assert code.names(region.indirect_goals(code["main"])) == {"one"}


def test_goals_before_the_seed_are_left_out() -> None:
    code = program("early: nop\n jump main\n main: nop\n switch: jump_to 6\n late: ebreak").jump_from(
        "switch", "early", "late"
    )
    region = form_region(code, code["main"], visited(code))
    check(code, region)
    assert code.names(region.blocks) == {"main", "late"}
    assert code.names(region.indirect_goals(code["main"])) == {"late"}


def test_a_computed_jump_that_is_not_known_leaves() -> None:
    region = form_region(program(SWITCH), BASE, visited(program(SWITCH)))
    assert set(region.blocks) == {BASE}
    assert region.successors(BASE) == []


def test_a_computed_call() -> None:
    """Its callees are grown into, wherever they stand; lanes may come back from one that is not known."""
    code = program(
        """
        callee: nop
                ret
        main:   nop
        site:   call_to 5
        back:   nop
                jump main
        """
    ).jump_from("site", "callee")
    region = form_region(code, code["main"], visited(code))
    check(code, region)
    assert code.names(region.blocks) == {"callee", "main", "back"}
    assert code.names(region.returns) == {"back"}
    assert region.entries == [code["main"], code["back"]]
    assert code.names(region.successors(code["main"])) == {"callee"}
    assert code.names(region.successors(code["callee"])) == {"back"}


def test_the_jump_of_a_split_block_belongs_to_its_last_piece() -> None:
    code = program(
        """
        main:   nop
        middle: nop
        switch: jump_to 6
        other:  nop
                jump middle
        """
    ).jump_from("switch", "other")
    region = form_region(code, code["main"], visited(code))
    check(code, region)
    assert code.names(region.blocks) == {"main", "middle", "other"}
    assert code.names(region.indirect_goals(code["middle"])) == {"other"}
    assert region.indirect_goals(code["main"]) == []
    assert code.names(region.successors(code["main"])) == {"middle"}


# -- entries


def test_lanes_come_back_from_environment_calls() -> None:
    code = program("main: nop\n ecall\n back: nop\n fence.i\n again: ebreak")
    code.isa = "rv64i_zifencei"
    code.__post_init__()
    region = form_region(code, code["main"], visited(code))
    check(code, region)
    assert code.names(region.blocks) == {"main", "back", "again"}
    assert region.entries == [code["main"], code["back"], code["again"]]


def test_an_entry_that_is_not_inside_is_none() -> None:
    code = program("main: nop\n ecall\n back: ebreak").visit(main=5)
    region = form_region(code, code["main"], visited(code))
    assert region.entries == [code["main"]]
    assert code["back"] not in region.blocks


def test_a_seed_that_lanes_come_back_to_is_one_entry() -> None:
    code = program("main: nop\n ecall\n back: nop\n jump main2\n main2: jump back")
    region = form_region(code, code["back"], visited(code))
    check(code, region)
    assert region.entries == [code["back"]]
    code = program("head: ecall\n back: bne 5 head\n ebreak")
    region = form_region(code, code["head"], visited(code))
    assert region.entries == [code["head"], code["back"]]


# -- splitting


def test_a_block_is_cut_where_another_starts() -> None:
    code = program("main: nop\n middle: nop*3\n bne 5 middle\n end: ebreak")
    region = form_region(code, code["main"], visited(code))
    check(code, region)
    assert [len(region.blocks[code[n]].instructions) for n in ("main", "middle", "end")] == [1, 4, 1]
    piece = region.blocks[code["main"]]
    assert piece.terminator == Terminator("jump", (), (Const(code["middle"], I64),))
    assert region.successors(code["main"]) == [code["middle"]]
    assert region.size == 6


def test_a_block_is_cut_into_many_pieces() -> None:
    code = program(
        """
        main:   nop
        one:    nop
        two:    nop
        three:  bne 5 one
                bne 6 two
                bne 7 three
                ebreak
        """
    )
    region = form_region(code, code["main"], visited(code))
    check(code, region)
    assert [len(region.blocks[code[n]].instructions) for n in ("main", "one", "two", "three")] == [1] * 4
    assert region.successors(code["main"]) == [code["one"]]
    assert region.successors(code["one"]) == [code["two"]]


def test_a_call_that_was_cut_is_still_one() -> None:
    code = program("main: nop\n site: call far\n back: bne 5 site\n ebreak\n far: ret").visit(main=9, site=9, back=9)
    region = form_region(code, code["main"], visited(code))
    check(code, region)
    assert code.names(region.blocks) == {"main", "site", "back"}
    assert region.entries == [code["main"], code["back"]]


def test_pieces_run_as_the_whole() -> None:
    """The instructions of all pieces are those of the whole block, in order."""
    code = program("main: nop\n middle: addi\n nop\n bne 5 middle\n end: ebreak")
    whole = code.block(code["main"])
    region = form_region(code, code["main"], visited(code))
    pieces = [region.blocks[code["main"]], region.blocks[code["middle"]]]
    assert [i for p in pieces for i in p.instructions] == whole.instructions
    assert pieces[-1].terminator == whole.terminator


# -- budget checks

REGISTERS64 = REGISTERS[64, False]


def region_of(graph: dict[int, list[int]], sizes: dict[int, int], entries: list[int]) -> Region:
    """A region with blocks of given sizes and edges: one edge is a jump, two a branch, others a computed jump."""
    blocks: dict[int, Block] = {}
    indirect: dict[int, list[int]] = {}
    for n, following in graph.items():
        pc = BASE + 0x1000 * n
        targets = tuple(Const(BASE + 0x1000 * m, I64) for m in following)
        if len(targets) == 1:
            terminator = Terminator("jump", (), targets)
        elif len(targets) == 2:
            terminator = Terminator("branch", (Const(1, I1),), targets)
        elif targets:
            terminator = Terminator("indirect", (Register(5),))
            indirect[pc] = sorted({t.value for t in targets})
        else:
            terminator = Terminator("ebreak")
        instructions = [GuestInstruction(pc + 4 * i, 4, 0x13, []) for i in range(sizes[n])]
        blocks[pc] = Block(pc, REGISTERS64, instructions, terminator)
    return Region([BASE + 0x1000 * n for n in entries], blocks, set(), indirect)


@st.composite
def regions(draw: st.DrawFn) -> Region:
    """Any control flow, also loops with several ways in."""
    count = draw(st.integers(1, 9))
    nodes = st.integers(0, count - 1)
    graph = {n: draw(st.lists(nodes, max_size=4)) for n in range(count)}
    sizes = {n: draw(st.integers(1, 64)) for n in range(count)}
    entries = draw(st.lists(nodes, min_size=1, max_size=3, unique=True))
    return region_of(graph, sizes, entries)


def has_cycle(graph: dict[int, set[int]]) -> bool:
    """By taking away blocks that nothing leads to."""
    left = dict(graph)
    while left:
        reached = set().union(*left.values())
        free = [n for n in left if n not in reached]
        if not free:
            return True
        for n in free:
            del left[n]
    return False


def longest_way(region: Region, pc: int, checks: set[int]) -> int:
    """Instructions from the start of a block to the next check, on the longest way, by trying all of them."""
    ways = [longest_way(region, s, checks) for s in region.successors(pc) if s not in checks]
    return len(region.blocks[pc].instructions) + max(ways, default=0)


@given(regions())
@settings(max_examples=300)
def test_every_cycle_has_a_budget_check(region: Region) -> None:
    needs = budget_needs(region)
    assert set(region.entries) <= set(needs) <= set(region.blocks)
    unchecked = {pc: {s for s in region.successors(pc) if s not in needs} for pc in region.blocks if pc not in needs}
    assert not has_cycle(unchecked)


@given(regions())
@settings(max_examples=150)
def test_a_check_asks_for_the_longest_way_to_the_next(region: Region) -> None:
    needs = budget_needs(region)
    for pc, need in needs.items():
        assert need == longest_way(region, pc, set(needs))


@given(regions())
def test_only_entries_and_loops_are_checked(region: Region) -> None:
    """A check costs time: a block that is no entry has one only if it is in a cycle."""
    reach: dict[int, set[int]] = {pc: set(region.successors(pc)) for pc in region.blocks}
    for _ in region.blocks:
        for following in reach.values():
            following.update(*[reach[s] for s in following])
    for pc in budget_needs(region):
        assert pc in region.entries or pc in reach[pc]


def test_checks_of_a_loop() -> None:
    """Entry, head, two ways through the loop: the longer one counts."""
    region = region_of({0: [1], 1: [2, 3], 2: [4], 3: [4], 4: [1, 5], 5: []}, {0: 5, 1: 2, 2: 10, 3: 20, 4: 3, 5: 7}, [0])  # fmt: skip
    head = BASE + 0x1000
    assert budget_needs(region) == {BASE: 5, head: 2 + 20 + 3 + 7}


def test_checks_of_a_loop_with_two_entries() -> None:
    region = region_of({0: [1], 1: [0]}, {0: 4, 1: 6}, [0, 1])
    assert budget_needs(region) == {BASE: 4, BASE + 0x1000: 6}


def test_a_block_that_leads_to_itself() -> None:
    region = region_of({0: [0]}, {0: 4}, [0])
    assert budget_needs(region) == {BASE: 4}


def test_checks_of_a_program_with_calls() -> None:
    """A return leads to every return point of the region, so a function called twice closes a loop."""
    code = program(CALLS)
    region = form_region(code, code["main"], visited(code))
    needs = budget_needs(region)
    assert code["main"] in needs
    unchecked = {pc: {s for s in region.successors(pc) if s not in needs} for pc in region.blocks if pc not in needs}
    assert not has_cycle(unchecked)
    assert code["twice"] in needs or code["back"] in needs or code["skip"] in needs


# -- what a group adds


def test_short_ways_that_never_ran_join_a_groups_region() -> None:
    code = program(
        """
start:  beq 5 low
        nop
        bne 6 end
high:   nop
end:    beq 7 far
        ebreak
low:    nop
        jump end
gap:    nop*20
far:    ebreak
        """
    ).visit(start=9, end=9)
    after = code["start"] + 4  # behind the first branch
    code.counts[after] = 9
    region = form_region(code, code["start"], visited(code))
    assert {"low", "high"}.isdisjoint(code.names(region.blocks))
    wider = with_short_ways(code, region)
    check(code, wider)
    assert {"start", "low", "high", "end"} <= code.names(wider.blocks)
    assert "far" not in code.names(wider.blocks)
    assert wider.entries == region.entries
    assert with_short_ways(code, wider) is wider


def test_returns_with_known_callers_lead_only_there() -> None:
    code = program(
        """
start:  call one
first:  call two
second: ebreak
one:    ret
two:    ret
        """
    )
    region = everything(code, "start")
    assert code.names(region.successors(code["one"])) == {"first", "second"}
    known = replace(region, returning=return_points(region))
    assert code.names(known.successors(code["one"])) == {"first"}
    assert code.names(known.successors(code["two"])) == {"second"}
