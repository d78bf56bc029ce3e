"""Control as Python code: what ends a block, calls, barriers and the collectives of a warp.

PTX ISA, "Control Flow Instructions", "Parallel Synchronization and Communication Instructions".
"""

from __future__ import annotations

import numpy as np

from vmjit.ptx.assembly.blocks import branch_targets
from vmjit.ptx.assembly.syntax import Function, Instruction, Operand, Pair, Register, Symbol, Variable
from vmjit.ptx.image import EXTERNAL_FUNCTIONS
from vmjit.ptx.simt.codegen import EXIT, NO_OTHER, RETURN, BlockCode, Translate
from vmjit.ptx.simt.codegen_memory import parameter_bytes
from vmjit.ptx.simt.numpy_atomic import ACCUMULATIONS

_SHUFFLES = frozenset(("up", "down", "bfly", "idx"))
_VOTES = frozenset(("all", "any", "uni", "ballot"))
_REDUCTIONS = frozenset(ACCUMULATIONS)


# The ends of blocks


def end_block(code: BlockCode, instruction: Instruction) -> None:
    """Translates the instruction that ends a block."""
    _ENDS[instruction.opcode](code, instruction)


def _leave(code: BlockCode, instruction: Instruction, target: int) -> None:
    """To a target, all lanes or, under a guard, those for which it holds; the others go on."""
    condition = code.condition(instruction)
    if condition is None:
        code.end(f"return {target}, L, {NO_OTHER}, None")
        return
    following = code.block.next
    code.end(
        f"if {condition}.all(): return {target}, L, {NO_OTHER}, None",
        f"if not {condition}.any(): return {following}, L, {NO_OTHER}, None",
        f"if L is None: return {target}, np.flatnonzero({condition}), {following}, np.flatnonzero(~{condition})",
        f"return {target}, L[{condition}], {following}, L[~{condition}]",
    )


def _branch(code: BlockCode, instruction: Instruction) -> None:
    _leave(code, instruction, branch_targets(code.function, code.flow, instruction)[0])


def _return(code: BlockCode, instruction: Instruction) -> None:
    _leave(code, instruction, RETURN)


def _exit(code: BlockCode, instruction: Instruction) -> None:
    _leave(code, instruction, EXIT)


def _trap(code: BlockCode, instruction: Instruction) -> None:
    condition = code.condition(instruction)
    if condition is None:
        code.end("raise LaneFault('trap')")
    else:
        raising = f"if {condition}.any(): raise LaneFault('trap', int(np.flatnonzero({condition})[0]))"
        code.end(raising, f"return {code.block.next}, L, {NO_OTHER}, None")


def _branch_by_table(code: BlockCode, instruction: Instruction) -> None:
    targets = code.constant(np.array(branch_targets(code.function, code.flow, instruction), np.int64))
    index = code.temporary(code.read(instruction.operands[0], "u32", array=True), fresh=False)
    code.end(f"return A.branch_by_table({index}, {targets}, L)")


def _barrier(code: BlockCode, instruction: Instruction) -> None:
    """bar.sync and bar.red: the lanes stay in the activation until their block's barrier is complete."""
    operands = list(instruction.operands)
    reduction = "None"
    if instruction.has("red"):
        destination, value = operands.pop(0), operands.pop()
        if not isinstance(destination, Register):
            raise code.unsupported(instruction)
        kind = "popc" if instruction.has("popc") else "and" if instruction.has("and") else "or"
        value_name = code.temporary(code.read(value, "pred", array=True), fresh=False)
        reduction = f"({kind!r}, {destination.index}, {value_name})"
    number, threads = _barrier_operands(code, operands)
    code.end(f"return A.wait_at_barrier({code.block.next}, L, {number}, {threads}, {reduction})")


def _barrier_operands(code: BlockCode, operands: list[Operand]) -> tuple[str, str]:
    """Names for a barrier's number and for how many threads it waits; 0 for all."""
    values = [code.temporary(code.read(operand, "u32", array=True), fresh=False) for operand in operands[:2]]
    values += [code.temporary("np.zeros(n, U32)")] * (2 - len(values))
    return values[0], values[1]


_ENDS: dict[str, Translate] = {
    "bra": _branch,
    "brx": _branch_by_table,
    "ret": _return,
    "exit": _exit,
    "trap": _trap,
    "bar": _barrier,
    "barrier": _barrier,
}


# Calls


def call(code: BlockCode, instruction: Instruction) -> None:
    results, target, arguments = instruction.call_parts()
    values = []
    for argument in arguments:
        variable = _parameter(code, instruction, argument)
        if variable.size and variable not in code.parameters and variable not in code.flow.crossing:
            code.parameters[variable] = code.temporary(f"np.zeros((n, {variable.size}), U8)")  # nothing was stored
        values.append(parameter_bytes(code, instruction, variable))
    variables = [_parameter(code, instruction, result) for result in results]
    passed = f"[{', '.join(values)}]"
    if isinstance(target, Symbol) and isinstance(target.target, Function):
        if not target.target.has_body and target.name not in EXTERNAL_FUNCTIONS:
            raise code.unsupported(instruction, f"{target.name} is declared and defined nowhere")
        returned = code.temporary(f"A.call({code.constant_object(target.target)}, L, {passed})")
    elif isinstance(target, Register):
        sizes = [variable.size for variable in variables]
        returned = code.temporary(f"A.call_address({code.register(target)}, L, {passed}, {sizes})")
    else:
        raise code.unsupported(instruction, "of something that is no function")
    for k, variable in enumerate(variables):
        if variable in code.flow.crossing:
            code.emit(f"A.set_rows(A.parameter_array({code.constant_object(variable)}), L, {returned}[{k}])")
        else:
            code.parameters[variable] = code.temporary(f"{returned}[{k}]")


def _parameter(code: BlockCode, instruction: Instruction, operand: Operand) -> Variable:
    target = operand.target if isinstance(operand, Symbol) else None
    if not isinstance(target, Variable) or target.space != "param":
        raise code.unsupported(instruction, "parameters that are no .param variables")
    return target


# Collectives of a warp, and what needs nothing done


def nothing(code: BlockCode, instruction: Instruction) -> None:
    """Fences, prefetches and pauses: lanes do every instruction in order."""


def barrier_inside_block(code: BlockCode, instruction: Instruction) -> None:
    """bar.warp.sync and bar.arrive, which let their thread go on."""
    if instruction.has("warp"):
        if instruction.operands:
            mask = code.read(instruction.operands[0], "u32", array=True)
            code.emit(f"warp.Collective(A, L, {mask})")
    elif not instruction.has("cluster"):
        number, threads = _barrier_operands(code, list(instruction.operands))
        code.emit(f"A.arrive_at_barrier(L, {number}, {threads}, {code.guard})")


def _collective(code: BlockCode, instruction: Instruction) -> str:
    """The lanes that take part, by the mask that a .sync form has as its last operand."""
    mask = code.read(instruction.operands[-1], "u32", array=True) if instruction.has("sync") else "None"
    return f"warp.Collective(A, L, {mask})"


def _write_pair(code: BlockCode, instruction: Instruction, expression: str) -> None:
    """A u32 and a predicate, the latter where the instruction has two destinations."""
    destination = instruction.operands[0]
    value, predicate = code.temporaries(2, expression)
    if isinstance(destination, Pair):
        code.write(destination.first, value, "u32")
        code.write(destination.second, predicate, "pred")
    else:
        code.write(destination, value, "u32")


def active_mask(code: BlockCode, instruction: Instruction) -> None:
    code.write(instruction.operands[0], "warp.Collective(A, L, None).present_mask()", "u32")


def shuffle(code: BlockCode, instruction: Instruction) -> None:
    mode = instruction.one_of(_SHUFFLES)
    operands = ", ".join(code.read(operand, "u32", array=True) for operand in instruction.operands[1:4])
    _write_pair(code, instruction, f"{_collective(code, instruction)}.shuffle({mode!r}, {operands})")


def vote(code: BlockCode, instruction: Instruction) -> None:
    mode = instruction.one_of(_VOTES)
    predicate = code.read(instruction.operands[1], "pred", array=True)
    value = f"{_collective(code, instruction)}.vote({mode!r}, {predicate})"
    code.write(instruction.operands[0], value, "u32" if mode == "ballot" else "pred")


def match(code: BlockCode, instruction: Instruction) -> None:
    value = code.read(instruction.operands[1], instruction.type, array=True)
    all_or_any = "all" if instruction.has("all") else "any"
    _write_pair(code, instruction, f"{_collective(code, instruction)}.match({all_or_any!r}, {value})")


def reduce(code: BlockCode, instruction: Instruction) -> None:
    operation, type_name = instruction.one_of(_REDUCTIONS), instruction.type
    if operation is None or instruction.has("abs") or instruction.has("NaN"):
        raise code.unsupported(instruction)
    value = code.read(instruction.operands[1], type_name, array=True)
    code.write(instruction.operands[0], f"{_collective(code, instruction)}.reduce({operation!r}, {value})", type_name)


def elect(code: BlockCode, instruction: Instruction) -> None:
    _write_pair(code, instruction, f"{_collective(code, instruction)}.elect()")


OPCODES: dict[str, Translate] = {
    "call": call,
    "activemask": active_mask,
    "shfl": shuffle,
    "vote": vote,
    "match": match,
    "redux": reduce,
    "elect": elect,
    "bar": barrier_inside_block,
    "barrier": barrier_inside_block,
    **dict.fromkeys(
        """membar fence prefetch prefetchu nanosleep discard applypriority pmevent griddepcontrol""".split(), nothing
    ),
}
