"""The lanes' inputs: from a file for all lanes, from a folder or an array with one input a lane, or our own."""

from __future__ import annotations

import sys
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vmjit.environment.streams import InputStreams
from vmjit.errors import ArgumentError

if TYPE_CHECKING:
    from vmjit.machine import Machine


@dataclass(frozen=True)
class Inputs:
    """`data` as `Machine.set_input` takes it. `names` has a name for each lane's input, if they have names."""

    data: bytes | Sequence[bytes] | NDArray[np.uint8] | None
    names: tuple[str, ...] | None = None

    def lanes(self, wanted: int | None, source: str | None) -> int:
        """The number of lanes: that of the inputs, or `wanted`; `ArgumentError` where the two differ."""
        if self.data is None or isinstance(self.data, bytes):
            return 1 if wanted is None else wanted
        if wanted is not None and wanted != len(self.data):
            raise ArgumentError(f"{wanted} lanes, but {source} has {len(self.data)} inputs, one a lane")
        return len(self.data)


def read_inputs(file: str | None, many: str | None) -> Inputs:
    """What --input FILE or --inputs DIR|FILE.npy name."""
    if file == "-":
        return Inputs(_our_stdin())
    if file is not None:
        return Inputs(Path(file).read_bytes())
    if many is None:
        return Inputs(None)
    return _folder(Path(many)) if Path(many).is_dir() else _array(many)


def _folder(folder: Path) -> Inputs:
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    if not files:
        raise ArgumentError(f"{folder} holds no files")
    return Inputs([p.read_bytes() for p in files], tuple(p.name for p in files))


def _array(path: str) -> Inputs:
    try:
        array: Any = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, tokenize.TokenError) as error:
        raise ArgumentError(f"{path}: not a folder, and not an .npy file that can be read ({error})") from error
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != 2 or not len(array):
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "an archive"
        raise ArgumentError(f"{path}: inputs are a uint8 array (lanes, bytes), this is {found}")
    return Inputs(np.ascontiguousarray(array))


def _our_stdin() -> bytes:
    return sys.stdin.buffer.read() if sys.stdin is not None else b""


class OurInput(InputStreams):
    """Our standard input as the input of one lane. Read when the guest first reads: a guest that never does must not
    wait for the end of a pipe."""

    def __init__(self) -> None:
        super().__init__(1)
        self._read = False

    def take(self, lanes: NDArray[np.intp], wanted: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        if not self._read:
            self._read = True  # even if Ctrl-C ends the reading
            self.set(_our_stdin())
        return super().take(lanes, wanted)


def give_inputs(machine: Machine, inputs: Inputs, path: str | None = None) -> None:
    """Connect the inputs, to a file of each lane if `path` names one; a single lane without one gets ours, unless that
    is a terminal."""
    if path is not None:
        machine.set_file(path, b"" if inputs.data is None else inputs.data)
    elif inputs.data is not None:
        machine.set_input(inputs.data)
    elif machine.lanes == 1 and sys.stdin is not None and not sys.stdin.isatty():
        machine.environment.stdin = OurInput()
