"""Files that a run leaves, and --output-dir: what each lane wrote, in files of a folder."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from vmjit.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vmjit.result import RunResult
    from vmjit.timeline import Timeline


def prepare_folder(path: str) -> Path:
    """The folder, made if it is not there. `ArgumentError` where nothing can be written there."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"cannot make the folder {path}: {error.strerror or error}") from error
    if not os.access(folder, os.W_OK):
        raise ArgumentError(f"cannot write to {path}")
    return folder


def prepare_file(path: str | None) -> None:
    """Have a file there, if there is to be one: what cannot be written is known before the run."""
    if path is not None:
        open(path, "w", encoding="utf-8").close()


@contextlib.contextmanager
def recorded(path: str | None) -> Iterator[Timeline | None]:
    """Save what happens meanwhile to a file, as a time line, if there is to be one."""
    if path is None:
        yield None
        return
    from vmjit.timeline import recording

    prepare_file(path)
    with recording() as timeline:
        yield timeline
    timeline.save(path)


def save_outputs(folder: Path, result: RunResult, names: Sequence[str] | None) -> None:
    """NAME.out and, if there is something, NAME.err for each lane; NAME is its input's, else its number."""
    lanes = len(result.stop)
    width = len(str(lanes - 1))
    for lane in range(lanes):
        name = names[lane] if names is not None else f"{lane:0{width}}"
        (folder / f"{name}.out").write_bytes(result.output(lane))
        if errors := result.error_output(lane):
            (folder / f"{name}.err").write_bytes(errors)
