"""Snapshots as files.

A file has the magic bytes, a version, the size of a header, the header (JSON: numbers, names, and the dtype and shape
of each array), the arrays one after the other, and a BLAKE2b digest of all before it. Nothing is compressed, so that a
small file cannot become large, and nothing is pickled, so that it can run nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmjit.address_space import MOST_MAPPINGS, AddressSpace
from vmjit.checks import MAX_LANES
from vmjit.environment.root_folder import GuestFile, LaneFile
from vmjit.environment.saved import SavedEnvironment
from vmjit.environment.saved_streams import SavedInput, SavedOutput
from vmjit.environment.streams import InputStreams
from vmjit.errors import SnapshotError
from vmjit.memory_image import PAGE, LanePages, MemoryImage
from vmjit.snapshot import STATE_ARRAYS, Snapshot
from vmjit.stops import Stop

_MAGIC = b"vmjit snapshot\r\n\x1a\n"
_VERSION = 3  # 1 had mappings without permissions, and no open file descriptions; 2 none that are far
_HEAD = struct.Struct("<IQ")
_DIGEST = 32
_MOST_NAME = 256

# The dtype and the shape of arrays that stand for themselves; `lanes` and `n` are numbers that agree.
_DTYPES = ("uint8", "bool", "int32", "uint32", "int64", "uint64")

Arrays = dict[str, NDArray[Any]]


def write_snapshot(snapshot: Snapshot, path: str | os.PathLike[str]) -> None:
    """As `Snapshot.save`."""
    header, arrays = _taken_apart(snapshot)
    header["arrays"] = [[name, array.dtype.name, list(array.shape)] for name, array in arrays.items()]
    text = json.dumps(header).encode()
    goal = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(dir=goal.parent, prefix=f".{goal.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                digest = hashlib.blake2b(digest_size=_DIGEST)
                for part in (_MAGIC, _HEAD.pack(_VERSION, len(text)), text, *arrays.values()):
                    data = (
                        part if isinstance(part, bytes) else np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
                    )
                    digest.update(data)
                    file.write(data)
                file.write(digest.digest())
            os.replace(temporary, goal)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise SnapshotError(f"{os.fspath(path)}: cannot be written: {error.strerror or error}") from error


def _taken_apart(snapshot: Snapshot) -> tuple[dict[str, Any], Arrays]:
    """(what goes into the header, what goes behind it)."""
    environment = snapshot.environment
    stdin = environment.stdin
    arrays: Arrays = {
        "shared": snapshot.shared,
        "base.numbers": snapshot.base.numbers,
        "base.contents": snapshot.base.contents,
        "pages.lanes": snapshot.pages.lanes,
        "pages.numbers": snapshot.pages.numbers,
        "pages.contents": snapshot.pages.contents,
        **{f"state.{name}": array for name, array in snapshot.state.items()},
        **{f"lane.{name}": array for name, array in environment.by_lane.items()},
        **_input_arrays("stdin", stdin),
    }
    for i, saved in enumerate(environment.lane_files.values()):
        arrays |= _input_arrays(f"lane_file.{i}", saved)
    for number, output in environment.outputs.items():
        lanes, sizes, data = zip(*output.chunks, strict=True) if output.chunks else ((), (), ())
        arrays[f"output.{number}.common"] = np.frombuffer(output.common, np.uint8)
        arrays[f"output.{number}.lanes"] = np.concatenate([np.zeros(0, np.int64), *lanes]).astype(np.int64)
        arrays[f"output.{number}.sizes"] = np.concatenate([np.zeros(0, np.int64), *sizes])
        arrays[f"output.{number}.data"] = np.concatenate([np.zeros(0, np.uint8), *data])
    for i, file in enumerate(environment.files):
        arrays[f"file.{i}"] = np.frombuffer(file.data, np.uint8)
    header = {
        "lanes": snapshot.lanes,
        "program": snapshot.program,
        "memory": snapshot.memory_bytes,
        "linux": snapshot.linux,
        "own": sorted(snapshot.own),
        "size": snapshot.base.size,
        "outputs": sorted(environment.outputs),
        "unknown_calls": sorted(environment.unknown_calls.items()),
        "mappings": [[list(mapping) for mapping in space.mappings] for space in environment.address_spaces],
        "backing": [[list(part) for part in space.backing] for space in environment.address_spaces],
        "files": [
            [file.number, file.mode, [[name.hex(), mode] for name, mode in file.entries], _path_of(file)]
            for file in environment.files
        ],
        "lane_files": [path.hex() for path in environment.lane_files],
    }
    return header, arrays


def _input_arrays(name: str, saved: SavedInput) -> Arrays:
    return {f"{name}.{part}": getattr(saved, part) for part in ("data", "start", "size", "position")}


def _path_of(file: GuestFile) -> str | None:
    """Where a file is that is another for each lane."""
    return file.path.hex() if isinstance(file, LaneFile) else None


def read_snapshot(path: str | os.PathLike[str]) -> Snapshot:
    """As `Snapshot.load`."""
    name = os.fspath(path)
    try:
        data = np.frombuffer(Path(path).read_bytes(), np.uint8)
    except OSError as error:
        raise SnapshotError(f"{name}: {error.strerror or error}") from error
    try:
        return _put_together(*_unpacked(data))
    except _BadFile as error:
        raise SnapshotError(f"{name}: {error}") from None
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise SnapshotError(f"{name}: not a snapshot of this version: {error}") from None


class _BadFile(Exception):
    """What is wrong with a file."""


def _require(condition: object, what: str) -> None:
    if not condition:
        raise _BadFile(what)


def _unpacked(data: NDArray[np.uint8]) -> tuple[dict[str, Any], Arrays]:
    """(header, arrays) of a whole file."""
    start = len(_MAGIC) + _HEAD.size
    _require(len(data) >= start and data[: len(_MAGIC)].tobytes() == _MAGIC, "not a snapshot")
    version, size = _HEAD.unpack(data[len(_MAGIC) : start].tobytes())
    _require(version <= _VERSION, f"written by a later version of vmjit (format {version}, this one reads {_VERSION})")
    _require(version == _VERSION, f"has an unknown format {version}")
    _require(len(data) >= start + _DIGEST, "truncated")
    digest = hashlib.blake2b(data[:-_DIGEST].data, digest_size=_DIGEST).digest()
    _require(digest == data[-_DIGEST:].tobytes(), "damaged: its checksum is wrong")
    end = len(data) - _DIGEST
    _require(size <= end - start, "damaged: its header is longer than it")
    header = json.loads(data[start : start + size].tobytes())
    _require(isinstance(header, dict), "damaged: its header is none")
    place = start + size
    arrays: Arrays = {}
    for name, dtype, shape in header["arrays"]:
        _require(dtype in _DTYPES and all(_is_count(n) for n in shape), "damaged: an array of a strange kind")
        count = int(np.prod([int(n) for n in shape], dtype=object)) if shape else 1
        length = count * np.dtype(dtype).itemsize
        _require(length <= end - place and name not in arrays, "damaged: its arrays do not fit")
        arrays[name] = np.frombuffer(data[place : place + length].tobytes(), dtype).reshape(shape)
        place += length
    _require(place == end, "damaged: there is more than it should have")
    return header, arrays


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


class _Checked:
    """Arrays by name, each with the dtype and the shape that it has to have."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays

    def take(self, name: str, dtype: str, *shape: int | None) -> NDArray[Any]:
        array = self.arrays.pop(name, None)
        fits = array is not None and array.dtype == dtype and len(array.shape) == len(shape)
        fits = fits and all(n is None or n == m for n, m in zip(shape, array.shape, strict=True))  # type: ignore[union-attr]
        _require(fits, f"damaged: its {name} is not as it should be")
        assert array is not None
        return array


def _put_together(header: Mapping[str, Any], arrays: Arrays) -> Snapshot:
    lanes, size = header["lanes"], header["size"]
    _require(_is_count(lanes) and 1 <= lanes <= MAX_LANES, "damaged: a number of lanes that cannot be")
    _require(_is_count(size) and _is_count(header["memory"]), "damaged: a size that cannot be")
    _require(isinstance(header["program"], str) and isinstance(header["linux"], bool), "damaged: its header is none")
    _require(all(_is_count(a) for a in header["own"]), "damaged: an address that cannot be")
    checked = _Checked(arrays)
    pages_per_lane = -(-size // PAGE)
    base = MemoryImage(
        size, checked.take("base.numbers", "int64", None), checked.take("base.contents", "uint8", None, PAGE)
    )
    _require(len(base.numbers) == len(base.contents), "damaged: pages without contents")
    _require(_ascending(base.numbers, pages_per_lane), "damaged: pages that cannot be")
    pages = LanePages(
        checked.take("pages.lanes", "int64", None),
        checked.take("pages.numbers", "int64", None),
        checked.take("pages.contents", "uint8", None, PAGE),
    )
    _require(len(pages.lanes) == len(pages.numbers) == len(pages.contents), "damaged: pages without contents")
    _require(
        _within(pages.numbers, 0, pages_per_lane) and _within(pages.lanes, 0, lanes), "damaged: pages that cannot be"
    )
    _require(bool((np.diff(pages.lanes) >= 0).all()), "damaged: pages out of order")
    state = _state(checked, lanes)
    environment = _environment(header, checked, lanes)
    shared = checked.take("shared", "uint8", None)
    _require(not checked.arrays, "damaged: arrays that nobody knows")
    return Snapshot(
        lanes=lanes,
        program=header["program"],
        memory_bytes=header["memory"],
        linux=header["linux"],
        own=frozenset(header["own"]),
        shared=shared,
        base=base,
        pages=pages,
        state=state,
        environment=environment,
    )


def _ascending(numbers: NDArray[np.int64], limit: int) -> bool:
    return _within(numbers, 0, limit) and bool((np.diff(numbers) > 0).all())


def _within(numbers: NDArray[Any], first: int, limit: int) -> bool:
    return not len(numbers) or bool((numbers >= first).all() and (numbers < limit).all())


def _state(checked: _Checked, lanes: int) -> Arrays:
    registers = checked.arrays.get("state.registers")
    _require(registers is not None, "damaged: it has no registers")
    assert registers is not None
    state = {
        "registers": checked.take("state.registers", registers.dtype.name, None, lanes),
        "pc": checked.take("state.pc", "uint64", lanes),
        "stop": checked.take("state.stop", "int32", lanes),
        "retired": checked.take("state.retired", "uint64", lanes),
        "fault_address": checked.take("state.fault_address", "uint64", lanes),
        "fault_access": checked.take("state.fault_access", "uint8", lanes),
    }
    assert tuple(state) == STATE_ARRAYS
    _require(np.isin(state["stop"], [int(stop) for stop in Stop]).all(), "damaged: a stop that is none")
    return state


def _environment(header: Mapping[str, Any], checked: _Checked, lanes: int) -> SavedEnvironment:
    stdin = _input(checked, "stdin", lanes)
    paths = [bytes.fromhex(path) for path in header["lane_files"]]
    _require(len(set(paths)) == len(paths), "damaged: a file twice")
    lane_files = {path: _input(checked, f"lane_file.{i}", lanes) for i, path in enumerate(paths)}
    outputs = {number: _output(checked, number, lanes) for number in header["outputs"] if _is_count(number)}
    files = [_file(checked, i, given, lane_files) for i, given in enumerate(header["files"])]
    _require(len(header["mappings"]) == len(header["backing"]), "damaged: mappings that are none")
    spaces = [_address_space(*given) for given in zip(header["mappings"], header["backing"], strict=True)]
    calls = {}
    for number, count in header["unknown_calls"]:
        _require(isinstance(number, int) and _is_count(count), "damaged: a call that is none")
        calls[number] = count
    by_lane = {}
    for name in [n for n in checked.arrays if n.startswith("lane.")]:
        array = checked.arrays.pop(name)
        _require(array.ndim >= 1 and array.shape[0] == lanes, f"damaged: its {name} is not as it should be")
        by_lane[name.removeprefix("lane.")] = array
    return SavedEnvironment(by_lane, stdin, outputs, calls, tuple(spaces), tuple(files), lane_files)


def _address_space(mappings: Any, backing: Any) -> AddressSpace:
    for given in (mappings, backing):
        _require(len(given) <= MOST_MAPPINGS, "damaged: too many mappings")
        good = all(len(part) == 3 and all(_is_count(number) for number in part) for part in given)
        _require(good, "damaged: a mapping that is none")
    return AddressSpace(tuple((a, b, c) for a, b, c in mappings), tuple((a, b, c) for a, b, c in backing))


def _input(checked: _Checked, name: str, lanes: int) -> SavedInput:
    data = checked.take(f"{name}.data", "uint8", None)
    found = SavedInput(data, *(checked.take(f"{name}.{n}", "int64", lanes) for n in ("start", "size", "position")))
    good = (found.start >= 0) & (found.size >= 0) & (found.position >= 0)
    good &= found.start <= len(data) - found.size
    _require(good.all(), "damaged: inputs that are not there")
    return found


def _file(checked: _Checked, index: int, given: Any, lane_files: Mapping[bytes, SavedInput]) -> GuestFile:
    number, mode, entries, path = given
    data = checked.take(f"file.{index}", "uint8", None).tobytes()
    modes = [mode, *(m for _, m in entries)]
    good = _is_count(number) and number < 1 << 63 and all(_is_count(m) and m < 1 << 32 for m in modes)
    names = tuple((bytes.fromhex(name), m) for name, m in entries)
    good &= all(0 < len(name) < _MOST_NAME for name, _ in names)
    if path is None:
        _require(good, "damaged: a file that is none")
        return GuestFile(number, mode, data, names)
    _require(good and bytes.fromhex(path) in lane_files, "damaged: a file that is none")
    return LaneFile(number, mode, b"", path=bytes.fromhex(path), streams=InputStreams(1))


def _output(checked: _Checked, number: int, lanes: int) -> SavedOutput:
    common = checked.take(f"output.{number}.common", "uint8", None).tobytes()
    who = checked.take(f"output.{number}.lanes", "int64", None)
    sizes = checked.take(f"output.{number}.sizes", "int64", len(who))
    data = checked.take(f"output.{number}.data", "uint8", None)
    _require(
        _within(who, 0, lanes) and (sizes >= 0).all() and (sizes <= len(data)).all(), "damaged: outputs that are none"
    )
    _require(int(sizes.sum()) == len(data), "damaged: outputs that are not there")
    return SavedOutput(common, ((who.astype(np.intp), sizes, data),) if len(who) else ())
