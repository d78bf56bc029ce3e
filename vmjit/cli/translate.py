"""`vmjit translate`: what the region around a guest address becomes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import vmjit
from vmjit.cli.arguments import Parser, add_program, command_parser
from vmjit.cli.places import code_address
from vmjit.errors import ArgumentError

if TYPE_CHECKING:
    from vmjit.code_space import CodeSpace
    from vmjit.program import Program
    from vmjit.translators.regions import Region

EMIT = ("ir", "llvm", "asm")


def parser() -> Parser:
    made = command_parser(
        "translate",
        "Shows the region at a guest address and what it is compiled to. The region grows along all static edges,\n"
        "calls included, up to 512 instructions; in a run it follows what was visited, and may be smaller.",
        "vmjit translate guest.elf --at main --emit ir\nvmjit translate guest.elf --at 0x101f8 --emit asm -o main.s",
    )
    add_program(made)
    made.add_argument("--at", required=True, metavar="SYMBOL|ADDRESS", help="where lanes enter the region")
    made.add_argument(
        "--emit",
        required=True,
        choices=EMIT,
        help="ir: the blocks as IR; llvm: optimised LLVM IR; asm: this machine's assembly",
    )
    made.add_argument("--memory", default="1MiB", metavar="SIZE", help="of heap and stack, as for run (default 1MiB)")
    made.add_argument("-o", "--output", metavar="FILE", help="write to FILE instead of standard output")
    return made


def main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    program = vmjit.load(options.program, options.isa)
    text = translate(program, code_address(program, options.at), options.emit, options.memory)
    if options.output is None:
        sys.stdout.write(text)
    else:
        Path(options.output).write_text(text, encoding="utf-8")
    return 0


def translate(program: Program, pc: int, emit: str, memory: str) -> str:
    """The region at `pc` as text; `emit` is one of EMIT."""
    from vmjit.memory_layout import parse_size, plan_memory
    from vmjit.translators.compile_region import emit_region
    from vmjit.translators.cpu import cpu_target
    from vmjit.translators.regions import Growth, form_region

    layout = plan_memory(program, parse_size(memory))
    space = _code_space(program)
    if not space.decode(pc):
        raise ArgumentError(f"nothing can be executed at {pc:#x}")
    region = form_region(space, pc, Growth(space.executable))
    if emit == "ir":
        return _blocks(region)
    module = emit_region(region, space.decoder.registers, layout.window_plan())
    return cpu_target().optimised_ir(module.ir) if emit == "llvm" else cpu_target().assembly(module.ir)


def _code_space(program: Program) -> CodeSpace:
    from vmjit.code_space import CodeSpace, CodeSpan
    from vmjit.decoders.riscv.decoder import Decoder
    from vmjit.interpreter import interpreter_for

    spans = [CodeSpan(s.address, s.data.ljust(s.size, b"\0")) for s in program.segments if s.executable]
    return CodeSpace(Decoder(program.isa_config), interpreter_for(program.xlen), spans)


def _blocks(region: Region) -> str:
    from vmjit.ir.text import format_block

    entries = ", ".join(f"{pc:#x}" for pc in region.entries)
    head = f"; region of {len(region.blocks)} blocks, {region.size} instructions, entered at {entries}\n"
    return "\n".join([head, *(format_block(region.blocks[pc]) for pc in sorted(region.blocks))])
