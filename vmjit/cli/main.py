"""The command `vmjit`: finds the command's module, runs it, and turns every error into one line and an exit status."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module

import vmjit
from vmjit.cli.arguments import Parser
from vmjit.cli.console import remark
from vmjit.errors import ArgumentError, CacheWarning, VmjitError

USAGE = 2
INTERRUPTED = 130
"""128 + SIGINT, as a shell reports it."""
BROKEN_PIPE = 141
"""128 + SIGPIPE."""


@dataclass(frozen=True)
class Command:
    """`module` has `main(arguments) -> exit status`."""

    module: str
    summary: str


COMMANDS: dict[str, Command] = {
    "run": Command("vmjit.cli.run", "run a guest program on one lane or on thousands"),
    "demo": Command("vmjit.cli.demo", "run a bundled guest on 4,096 lanes and check its results"),
    "disassemble": Command("vmjit.cli.disassemble", "list a program's instructions"),
    "explain": Command("vmjit.cli.explain", "show a region beside all it is translated to, and what ran of it"),
    "translate": Command("vmjit.cli.translate", "show what guest code becomes: IR, LLVM IR, assembly, GPU code"),
    "diff": Command("vmjit.cli.diff", "find the first instruction at which two executions differ"),
    "trace": Command("vmjit.cli.trace", "print what lanes execute, instructions and system calls"),
    "profile": Command("vmjit.cli.profile", "show where lanes spend their instructions"),
    "bench": Command("vmjit.cli.bench", "measure guests beside native code and other emulators"),
    "reduce": Command("vmjit.cli.reduce", "make a test case that fails smaller"),
    "doctor": Command("vmjit.cli.doctor", "show and prove the devices and tools that there are"),
    "completion": Command("vmjit.cli.completion", "print what a shell completes command lines with"),
    "cache": Command("vmjit.cli.cache", "show or clear the cache of compiled code"),
}


def _parser() -> Parser:
    listed = "\n".join(f"  {name:<13}{command.summary}" for name, command in COMMANDS.items())
    parser = Parser(
        prog="vmjit",
        usage="vmjit COMMAND ...",
        description="Runs RISC-V guest programs on thousands of lanes at once.",
        epilog=f"commands:\n{listed}\n\n`vmjit COMMAND --help` describes a command.\n\nexample:\n  vmjit demo",
    )
    parser.add_argument("--version", action="version", version=f"vmjit {vmjit.__version__}")
    return parser


def _command(words: Sequence[str]) -> Callable[[Sequence[str]], int]:
    """The main function of the command that `words` start with."""
    if not words or words[0].startswith("-"):
        _parser().parse_args(words or ["--help"])
        raise ArgumentError("no command given (see vmjit --help)")
    command = COMMANDS.get(words[0])
    if command is None:
        raise ArgumentError(f"no command {words[0]!r}; there are: {', '.join(COMMANDS)}")
    found: Callable[[Sequence[str]], int] = import_module(command.module).main
    return found


def _run(words: Sequence[str]) -> int:
    try:
        return _command(words)(words[1:])
    except SystemExit as end:  # argparse, behind --help and --version
        return end.code if isinstance(end.code, int) else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of the process; gives the exit status."""
    words = sys.argv[1:] if argv is None else list(argv)
    with _warnings_in_one_line():
        try:
            status = _run(words)
            _flush()
        except KeyboardInterrupt:
            return _complain("interrupted", INTERRUPTED)
        except BrokenPipeError:
            _abandon_stdout()
            return BROKEN_PIPE
        except VmjitError as error:
            return _complain(str(error), USAGE)
        except MemoryError as error:
            return _complain(f"not enough memory: {error}" if str(error) else "not enough memory", USAGE)
        except OSError as error:
            return _complain(_os_error(error), USAGE)
    return status


def _os_error(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{os.fsdecode(error.filename)}: {reason}" if error.filename is not None else reason


def _complain(message: str, status: int) -> int:
    with contextlib.suppress(OSError):
        remark(message)
    try:
        _flush()
    except OSError:
        _abandon_stdout()
    return status


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _abandon_stdout() -> None:
    """Nobody takes our output: keep Python from trying once more, and complaining, when it exits."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


class _Remarks(logging.Handler):
    """Log records as lines on standard error."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):
            remark(f"{record.levelname.lower()}: {record.getMessage()}")


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    usual = warnings.formatwarning

    def plain(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None) -> str:
        if issubclass(category, CacheWarning):
            return f"vmjit: warning: {message}\n"
        return usual(message, category, filename, lineno, line)

    logger, handler = logging.getLogger("vmjit"), _Remarks()
    warnings.formatwarning = plain  # type: ignore[assignment]
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        warnings.formatwarning = usual
