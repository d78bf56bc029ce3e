"""Functions cut into basic blocks: straight-line code up to a transfer of control or a place where lanes meet."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from vmjit.ptx.assembly.syntax import Function, Guard, Instruction, Symbol, Variable

# Collectives of a warp. They start a block, so that all lanes that will get there can be waited for.
_COLLECTIVES = frozenset(("shfl", "vote", "match", "redux", "elect"))
_TERMINATORS = frozenset(("bra", "brx", "ret", "exit", "trap", "bar", "barrier"))
_WITHOUT_SUCCESSOR = frozenset(("ret", "exit", "trap"))
_CLOSING = frozenset(("ret", "exit", "bra", "trap", "brx"))  # what may be the last instruction of a function
_POLLING = frozenset(("volatile", "relaxed", "acquire"))


@dataclass(slots=True, eq=False)
class Block:
    index: int
    instructions: list[Instruction]
    successors: list[int]  # indices; that of what follows the block included where it can get there
    is_meeting_point: bool  # starts with a warp's collective
    may_poll: bool  # reads what another thread may be about to write
    count: int  # instructions that statistics count
    stems: Counter[str]  # the same, by stem
    used: int = 0  # registers as bits of a number: read before written
    defined: int = 0  # written
    live_out: int = 0  # read later

    @property
    def next(self) -> int:
        """The block behind this one in the text."""
        return self.index + 1


@dataclass(slots=True, eq=False)
class ControlFlow:
    blocks: list[Block] = field(default_factory=list)
    block_of: dict[str, int] = field(default_factory=dict)  # by label
    crossing: set[Variable] = field(default_factory=set)  # .param variables used in more than one block


def is_warp_barrier(instruction: Instruction) -> bool:
    return instruction.opcode in ("bar", "barrier") and instruction.has("warp")


def is_arrival(instruction: Instruction) -> bool:
    return instruction.opcode in ("bar", "barrier") and instruction.has("arrive")


def is_barrier(instruction: Instruction) -> bool:
    """Whether threads wait here for others of their block."""
    return instruction.opcode in ("bar", "barrier") and not is_warp_barrier(instruction) and not is_arrival(instruction)


def ends_block(instruction: Instruction) -> bool:
    if instruction.opcode in ("bar", "barrier"):
        return is_barrier(instruction)
    return instruction.opcode in _TERMINATORS


def _is_meeting_point(instruction: Instruction) -> bool:
    return instruction.opcode in _COLLECTIVES or is_warp_barrier(instruction)


def _needs_branch(instruction: Instruction) -> bool:
    """Whether a guard has to become a branch around the instruction: the block must be left by some lanes only."""
    return instruction.guard is not None and (
        instruction.opcode in ("call", "brx", "bar", "barrier") or instruction.opcode in _COLLECTIVES
    )


def control_flow(function: Function, *, calls_end_blocks: bool = False) -> ControlFlow:
    """The blocks of a function. `calls_end_blocks`: a callee may end threads, which then must not go on here."""
    code, labels = _with_explicit_branches(function)
    starts = {0, *labels.values()}
    for position, instruction in enumerate(code):
        if ends_block(instruction) or (calls_end_blocks and instruction.opcode == "call"):
            starts.add(position + 1)
        if _is_meeting_point(instruction) or instruction.opcode == "activemask":
            starts.add(position)
    ordered = sorted(s for s in starts if s < len(code))
    index_of = {start: index for index, start in enumerate(ordered)}
    flow = ControlFlow(block_of={name: index_of[position] for name, position in labels.items()})
    for index, (start, end) in enumerate(zip(ordered, [*ordered[1:], len(code)], strict=True)):
        flow.blocks.append(_block(function, flow, index, code[start:end]))
    flow.crossing = _crossing_parameters(flow.blocks)
    return flow


def _with_explicit_branches(function: Function) -> tuple[list[Instruction], dict[str, int]]:
    """The code with guards of calls, barriers and collectives as branches around them, and with a last instruction.

    Statistics count an instruction as the text has it: once for the branch, which stands for the guard, and not
    again for what it guards.
    """
    labels_at: dict[int, list[str]] = {}
    for name, position in function.labels.items():
        labels_at.setdefault(position, []).append(name)
    code: list[Instruction] = []
    labels: dict[str, int] = {}
    for position, instruction in enumerate(function.code):
        labels.update(dict.fromkeys(labels_at.get(position, ()), len(code)))
        if _needs_branch(instruction) and instruction.guard is not None:
            guard = instruction.guard
            around = f"around@{len(code)}"
            skip = Instruction("bra", (), (Symbol(around),), instruction.line, Guard(guard.register, not guard.negated))
            skip.stem = instruction.stem
            guarded = replace(instruction, guard=None)
            guarded.stem = ""
            code += [skip, guarded]
            labels[around] = len(code)
        else:
            code.append(instruction)
    labels.update(dict.fromkeys(labels_at.get(len(function.code), ()), len(code)))
    if not code or code[-1].opcode not in _CLOSING or code[-1].guard or len(code) in labels.values():
        end = Instruction("ret", (), (), code[-1].line if code else function.line)
        end.stem = ""
        code.append(end)
    return code, labels


def _block(function: Function, flow: ControlFlow, index: int, instructions: list[Instruction]) -> Block:
    last = instructions[-1]
    after = [index + 1]
    if last.opcode == "bra":
        successors = [flow.block_of[_label(last)], *(after if last.guard else ())]
    elif last.opcode == "brx":
        successors = branch_targets(function, flow, last)
    else:
        successors = [] if last.opcode in _WITHOUT_SUCCESSOR and not last.guard else after
    return Block(
        index,
        instructions,
        successors,
        is_meeting_point=_is_meeting_point(instructions[0]),
        may_poll=any(_may_poll(instruction) for instruction in instructions),
        count=sum(bool(instruction.stem) for instruction in instructions),
        stems=Counter(instruction.stem for instruction in instructions if instruction.stem),
    )


def _may_poll(instruction: Instruction) -> bool:
    return instruction.opcode in ("atom", "nanosleep") or (
        instruction.opcode == "ld" and not _POLLING.isdisjoint(instruction.modifiers)
    )


def _label(instruction: Instruction) -> str:
    target = instruction.operands[-1]
    assert isinstance(target, Symbol)
    return target.name


def branch_targets(function: Function, flow: ControlFlow, instruction: Instruction) -> list[int]:
    """The blocks that a `bra` or `brx.idx` may go to; of the latter in the order of its table."""
    if instruction.opcode == "bra":
        return [flow.block_of[_label(instruction)]]
    return [flow.block_of[target.name] for target in function.branch_tables[_label(instruction)]]


def _crossing_parameters(blocks: list[Block]) -> set[Variable]:
    first_block: dict[Variable, int] = {}
    crossing: set[Variable] = set()
    for block in blocks:
        for instruction in block.instructions:
            for variable in instruction.parameter_variables():
                if first_block.setdefault(variable, block.index) != block.index:
                    crossing.add(variable)
    return crossing
