"""What the commands' argument parsers share: errors as one line, and the arguments that several commands take."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from vmjit.errors import ArgumentError


class Parser(argparse.ArgumentParser):
    """Raises `ArgumentError` instead of printing a usage text; the epilog keeps its line breaks."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        raise ArgumentError(f"{message} (see {self.prog} --help)")


def command_parser(name: str, description: str, examples: str, *, usage: str | None = None) -> Parser:
    """A command's parser; `examples` are command lines, shown behind the options."""
    lines = "\n".join(f"  {line}" for line in examples.splitlines())
    return Parser(
        prog=f"vmjit {name}",
        usage=usage,
        description=description,
        epilog=f"example{'s' if chr(10) in examples else ''}:\n{lines}",
    )


def integer(text: str) -> int:
    """A number as Python writes it: 4096, 0x1000, 1_000_000; or a whole number such as 1e9."""
    try:
        return int(text, 0)
    except ValueError:
        pass
    try:
        value = float(text)
        if value.is_integer() and abs(value) < 1 << 62:
            return int(value)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is no whole number")


def seconds(text: str) -> float:
    """A number of seconds of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = integer(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def add_program(parser: argparse.ArgumentParser) -> None:
    """PROGRAM and --isa."""
    parser.add_argument("program", metavar="PROGRAM", help="a static RISC-V ELF executable")
    add_isa(parser)


def add_isa(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--isa", metavar="ISA", help="such as rv64imac_zba, instead of what the file says of itself")
