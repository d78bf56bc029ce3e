"""What commands that run a guest share: PROGRAM and ARG on the command line, and the machine that they make."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vmjit.cli.arguments import Parser, add_isa, command_parser, integer

if TYPE_CHECKING:
    from vmjit.cli.inputs import Inputs
    from vmjit.machine import Machine
    from vmjit.program import Program


def guest_parser(name: str, description: str, examples: str) -> Parser:
    """A command's parser with PROGRAM and ARG."""
    usage = f"vmjit {name} [OPTION ...] PROGRAM [ARG ...] [-- ARG ...]"
    made = command_parser(name, description, examples, usage=usage)
    made.add_argument("program", metavar="PROGRAM", nargs="?", help="a static RISC-V ELF executable")
    made.add_argument("arguments", metavar="ARG", nargs="*", help="the guest's arguments")
    return made


def add_memory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--memory", metavar="SIZE", help="heap and stack of a lane (default 1MiB, for Linux programs 16MiB)"
    )


def add_surroundings(parser: argparse.ArgumentParser) -> None:
    """What a guest runs on and finds there."""
    parser.add_argument(
        "--environment",
        default="auto",
        metavar="auto|linux|bare-metal",
        help="what the program runs on (default: what its file says)",
    )
    parser.add_argument("--root", metavar="DIR", help="a folder that a Linux program may read as its file system")
    parser.add_argument("--seed", type=integer, default=0, metavar="N", help="of a Linux program's random numbers (0)")
    add_isa(parser)


def add_input(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--input", metavar="FILE", help="standard input of every lane; - is ours")


_ONE_A_LANE = "one standard input a lane: a folder's files by name (without hidden ones), or the rows of a uint8 array"


def add_inputs(parser: Parser, many: str = _ONE_A_LANE) -> None:
    """--input for all lanes, or --inputs with one a lane; `many` is the second one's help."""
    given = parser.add_mutually_exclusive_group()
    add_input(given)
    given.add_argument("--inputs", metavar="DIR|FILE.npy", help=many)


def parse_guest(parser: Parser, words: Sequence[str]) -> argparse.Namespace:
    """The options of what `guest_parser` gives; `arguments` are the guest's, those behind -- too."""
    cut = list(words).index("--") if "--" in words else len(words)
    options = parser.parse_intermixed_args(list(words[:cut]))
    names = [options.program] if options.program is not None else []
    names += [*options.arguments, *words[cut + 1 :]]
    if not names:
        parser.error("PROGRAM is missing")
    options.program, options.arguments = names[0], names[1:]
    return options


def guest_machine(
    options: argparse.Namespace,
    program: Program,
    inputs: Inputs,
    *,
    tier: str,
    device: str = "cpu",
    fallback: bool = True,
) -> Machine:
    """The machine that these options ask for, whose lanes all have the same arguments and input."""
    import vmjit
    from vmjit.cli.inputs import give_inputs

    machine = vmjit.Machine(
        program,
        options.lanes,
        device,
        tier,
        options.memory,
        arguments=[os.fsencode(word) for word in (options.program, *options.arguments)],
        environment=options.environment,
        root=options.root,
        seed=options.seed,
        fallback=fallback,
    )
    give_inputs(machine, inputs, None)
    return machine
