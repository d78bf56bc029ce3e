"""`vmjit translate`: what the region around a guest address becomes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import vmjit
from vmjit.cli.arguments import Parser, add_program, command_parser
from vmjit.cli.console import write_bytes
from vmjit.errors import ArgumentError
from vmjit.places import code_address

if TYPE_CHECKING:
    from vmjit.program import Program
    from vmjit.translators.regions import Region

EMIT = ("ir", "llvm", "asm", "ptx", "cubin", "sass", "resources", "amdgcn", "hsaco")
_BINARY = ("cubin", "hsaco")
_DEFAULT_ARCHITECTURES = {"amdgcn": "gfx942", "hsaco": "gfx942"}
_CUDA_ARCHITECTURE = "sm_90"
_EMIT_HELP = """\
ir: the blocks as IR; llvm: optimised LLVM IR; asm: this machine's assembly; ptx: the CUDA device function; cubin: the
whole CUDA kernel as machine code; sass: the function's machine code as text; resources: registers, spills and
instructions, CUDA or AMD by --arch; amdgcn: the whole AMD kernel as assembly; hsaco: as a code object"""


def parser() -> Parser:
    made = command_parser(
        "translate",
        "Shows the region at a guest address and what it is compiled to. The region grows along all static edges,\n"
        "calls included, up to 512 instructions; in a run it follows what was visited, and may be smaller.",
        "vmjit translate guest.elf --at main --emit ir\nvmjit translate guest.elf --at 0x101f8 --emit asm -o main.s\n"
        "vmjit translate guest.elf --at main --emit ptx --arch sm_80",
    )
    add_program(made)
    made.add_argument("--at", required=True, metavar="SYMBOL|ADDRESS", help="where lanes enter the region")
    made.add_argument(
        "--emit",
        required=True,
        choices=EMIT,
        help=_EMIT_HELP,
    )
    made.add_argument(
        "--arch",
        metavar="sm_NN|gfxNNN",
        help=f"the GPU to translate for (default {_CUDA_ARCHITECTURE}, for AMD gfx942)",
    )
    made.add_argument("--memory", default="1MiB", metavar="SIZE", help="of heap and stack, as for run (default 1MiB)")
    made.add_argument("-o", "--output", metavar="FILE", help="write to FILE instead of standard output")
    return made


def main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    program = vmjit.load(options.program, options.isa)
    made = translate(program, code_address(program, options.at), options.emit, options.memory, options.arch)
    if options.output is not None:
        Path(options.output).write_bytes(made)
    elif options.emit in _BINARY and sys.stdout.isatty():
        raise ArgumentError(f"{options.emit} is binary: name a file with -o, or send the output elsewhere")
    else:
        write_bytes(sys.stdout, made)
    return 0


def translate(program: Program, pc: int, emit: str, memory: str, architecture: str | None = None) -> bytes:
    """The region at `pc`; `emit` is one of EMIT."""
    from vmjit.memory_layout import parse_size, plan_memory
    from vmjit.static_code import StaticCode
    from vmjit.translators.compile_region import emit_region
    from vmjit.translators.cpu import cpu_target

    layout = plan_memory(program, parse_size(memory), whole_pages=program.linux)
    code = StaticCode(program)
    registers = code.decoder.registers
    region = code.region(pc)
    if region is None:
        raise ArgumentError(f"nothing can be executed at {pc:#x}")
    if emit == "ir":
        return _blocks(region).encode()
    if emit in ("llvm", "asm"):
        module = emit_region(region, registers, layout.window_plan())
        return (cpu_target().optimised_ir(module.ir) if emit == "llvm" else cpu_target().assembly(module.ir)).encode()
    from vmjit.cli.translate_gpu import translate_for_gpu

    architecture = architecture or _DEFAULT_ARCHITECTURES.get(emit, _CUDA_ARCHITECTURE)
    return translate_for_gpu(region, registers, layout, emit, architecture)


def _blocks(region: Region) -> str:
    from vmjit.ir.text import format_block

    entries = ", ".join(f"{pc:#x}" for pc in region.entries)
    head = f"; region of {len(region.blocks)} blocks, {region.size} instructions, entered at {entries}\n"
    return "\n".join([head, *(format_block(region.blocks[pc]) for pc in sorted(region.blocks))])
