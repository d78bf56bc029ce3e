"""Control as LLVM IR: what ends a block, calls, barriers (PTX ISA, "Control Flow Instructions", "bar, barrier")."""

from __future__ import annotations

from collections.abc import Callable

from vmjit.ptx.assembly.blocks import Block, branch_targets
from vmjit.ptx.assembly.syntax import Function, Instruction, Operand, Symbol, Variable
from vmjit.ptx.thread.codegen import EXITED, FAULT, RETURNED, FunctionCode, Translate
from vmjit.ptx.thread.codegen_memory import buffer_of
from vmjit.ptx.thread.context import Fault, Word

EndBlock = Callable[[FunctionCode, Instruction, Block], None]


def end_block(code: FunctionCode, instruction: Instruction, block: Block) -> None:
    """Translates the instruction that ends a block; where its guard does not hold, the next block follows."""
    code.skip_unless(instruction, after=f"b{block.next}")
    _ENDS[instruction.opcode](code, instruction, block)


def _branch(code: FunctionCode, instruction: Instruction, block: Block) -> None:
    code.go_to(block.index, branch_targets(code.function, code.flow, instruction)[0])


def _return(code: FunctionCode, instruction: Instruction, block: Block) -> None:
    code.leave(RETURNED)


def _exit(code: FunctionCode, instruction: Instruction, block: Block) -> None:
    code.leave(RETURNED if code.function.is_entry else EXITED)


def _trap(code: FunctionCode, instruction: Instruction, block: Block) -> None:
    code.fault(Fault.TRAP)


def _branch_by_table(code: FunctionCode, instruction: Instruction, block: Block) -> None:
    index = code.read(instruction.operands[0], "u32")
    targets = branch_targets(code.function, code.flow, instruction)
    outside = code.label()
    label_of = {target: code.label() for target in targets}
    cases = " ".join(f"i32 {k}, label %{label_of[target]}" for k, target in enumerate(targets))
    code.emit(f"switch i32 {index}, label %{outside} [ {cases} ]")
    code.place(outside)
    code.fault(Fault.BRANCH_TABLE, code.cast(index, "u32", "u64"))
    for target, label in label_of.items():
        code.place(label)
        code.go_to(block.index, target)


def _barrier(code: FunctionCode, instruction: Instruction, block: Block) -> None:
    """The thread leaves the kernel, and comes back behind the barrier when all others are at it or have ended."""
    operands = list(instruction.operands)
    destination = operands.pop(0) if instruction.has("red") else None
    predicate = operands.pop() if destination is not None else None
    if not code.function.is_entry:
        raise code.unsupported(instruction, "in a device function")
    if len(operands) > 1:
        raise code.unsupported(instruction, "with a number of threads")
    number = code.read(operands[0], "u32") if operands else "0"
    code.set_context(Word.BARRIER, code.cast(number, "u32", "u64"))
    code.set_context(Word.FAULT_LINE, code.line)
    if predicate is not None:
        holds = code.value(f"zext i1 {code.read(predicate, 'pred')} to i64")
        code.set_context(Word.ARRIVING_TRUE, code.value(f"add i64 {code.context(Word.ARRIVING_TRUE)}, {holds}"))
        code.set_context(Word.ARRIVING, code.value(f"add i64 {code.context(Word.ARRIVING)}, 1"))
    resume = code.label()
    code.resume_points.append(resume)
    code.leave(len(code.resume_points))
    code.place(resume)
    if destination is not None:
        _barrier_result(code, instruction, destination)
    code.jump(f"b{block.next}")


def _barrier_result(code: FunctionCode, instruction: Instruction, destination: Operand) -> None:
    true, threads = code.context(Word.LEAVING_TRUE), code.context(Word.LEAVING)
    if instruction.has("popc"):
        code.write(destination, code.cast(true, "u64", "u32"), "u32")
    elif instruction.has("and"):
        code.write(destination, code.value(f"icmp eq i64 {true}, {threads}"), "pred")
    else:
        code.write(destination, code.value(f"icmp ne i64 {true}, 0"), "pred")


_ENDS: dict[str, EndBlock] = {
    "bra": _branch,
    "brx": _branch_by_table,
    "ret": _return,
    "exit": _exit,
    "trap": _trap,
    "bar": _barrier,
    "barrier": _barrier,
}


# Calls


def call(code: FunctionCode, instruction: Instruction) -> None:
    results, target, arguments = instruction.call_parts()
    variables = [_parameter(code, instruction, item) for item in (*arguments, *results)]
    passed = ", ".join(f"ptr {name}" for name in ("%ctx", *(buffer_of(code, v) for v in variables)))
    code.emit(f"store i64 {code.value('load i64, ptr %count')}, ptr %count.p")
    if isinstance(target, Symbol) and isinstance(target.target, Function):
        function = target.target
        if not function.has_body:
            _call_external(code, instruction, function)
            return
        code.compiler.need(function)
        result = code.value(f"call i64 @f{function.number}({passed})")
    else:
        result = _call_address(code, code.read(target, "u64"), passed, [v.size for v in variables], len(arguments))
    _after_call(code, result)


def _parameter(code: FunctionCode, instruction: Instruction, operand: Operand) -> Variable:
    target = operand.target if isinstance(operand, Symbol) else None
    if not isinstance(target, Variable) or target.space != "param":
        raise code.unsupported(instruction, "parameters that are no .param variables")
    return target


def _after_call(code: FunctionCode, result: str) -> None:
    returned, exited, failed = code.label(), code.label(), code.label()
    code.emit(
        f"switch i64 {result}, label %{failed} [ i64 {RETURNED}, label %{returned} i64 {EXITED}, label %{exited} ]"
    )
    code.place(failed)
    code.emit(f"ret i64 {FAULT}")
    code.place(exited)
    code.emit(f"store i64 {code.value('load i64, ptr %count.p')}, ptr %count")
    code.leave(RETURNED if code.function.is_entry else EXITED)
    code.place(returned)
    code.emit(f"store i64 {code.value('load i64, ptr %count.p')}, ptr %count")


def _call_external(code: FunctionCode, instruction: Instruction, function: Function) -> None:
    """The functions that a device has without their being defined."""
    if function.name == "__assertfail":
        code.fault(Fault.ASSERTION)
        code.place(code.label())
    elif function.name != "vprintf":  # which prints nothing here
        raise code.unsupported(instruction, f"{function.name} is declared and defined nowhere")


def _call_address(code: FunctionCode, address: str, passed: str, sizes: list[int], arguments: int) -> str:
    """A switch over all functions that take and give parameters of these sizes."""
    candidates = [
        function
        for function in code.image.functions
        if function.has_body
        and not function.is_entry
        and len(function.parameters) == arguments
        and [v.size for v in (*function.parameters, *function.returns)] == sizes
    ]
    labels = [code.label() for _ in candidates]
    bad, end = code.label(), code.label()
    cases = " ".join(
        f"i64 {code.image.function_address(function)}, label %{label}"
        for function, label in zip(candidates, labels, strict=True)
    )
    code.emit(f"switch i64 {address}, label %{bad} [ {cases} ]")
    code.place(bad)
    code.fault(Fault.CALL_TARGET, address)
    results = []
    for function, label in zip(candidates, labels, strict=True):
        code.compiler.need(function)
        code.place(label)
        results.append((code.value(f"call i64 @f{function.number}({passed})"), label))
        code.jump(end)
    code.place(end)
    if not results:  # nowhere to come from: the fault above was all
        return "0"
    return code.value("phi i64 " + ", ".join(f"[ {result}, %{label} ]" for result, label in results))


def nothing(code: FunctionCode, instruction: Instruction) -> None:
    """Fences, prefetches and pauses: threads run one after another."""


def barrier_inside_block(code: FunctionCode, instruction: Instruction) -> None:
    """barrier.cluster.arrive: a cluster has one block. Warps and numbers of threads are for the SIMT engine."""
    if not instruction.has("cluster"):
        raise code.unsupported(instruction)


OPCODES: dict[str, Translate] = {
    "call": call,
    "bar": barrier_inside_block,
    "barrier": barrier_inside_block,
    **dict.fromkeys(
        "membar fence prefetch prefetchu nanosleep discard applypriority pmevent griddepcontrol".split(), nothing
    ),
}
