"""Damaged snapshots, and forged ones with a right checksum: an error that says so, or lanes that run and harm nobody."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmjit import Machine, Snapshot, SnapshotError, Stop, load
from vmjit.snapshot_file import _VERSION

LINUX = Path(__file__).resolve().parents[1] / "linux" / "bin"
START = len(b"vmjit snapshot\r\n\x1a\n") + 12
LANES = 3


@pytest.fixture(scope="module")
def machine() -> Machine:
    return Machine(load(LINUX / "text.rv64.elf"), LANES, tier="interpreter", memory="1MiB", root=LINUX)


@pytest.fixture(scope="module", params=[None, 1], ids=["all", "one"])
def data(request: pytest.FixtureRequest, machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A snapshot from the middle of a run."""
    path = tmp_path_factory.mktemp("snapshots") / "s"
    machine.reset()
    machine.set_input([b"some words 12\n", b"others\n", b""])
    machine.run(max_instructions=6000)
    machine.snapshot(request.param).save(path)
    return path.read_bytes()


def run_from(machine: Machine, path: Path) -> None:
    """Restore a file and run: an error is one of snapshots, and lanes stop for a reason."""
    try:
        machine.restore(Snapshot.load(path))
    except SnapshotError as error:
        assert len(str(error)) < 500
        return
    result = machine.run(max_instructions=20_000)
    assert set(result.stop.tolist()) <= {int(stop) for stop in Stop}


def signed(body: bytes) -> bytes:
    return body + hashlib.blake2b(body, digest_size=32).digest()


def positions(data: bytes) -> list[int]:
    """Places all over a file, most of them where structure is."""
    return [*range(0, START + 600, 7), *range(START + 600, len(data), max(len(data) // 40, 1)), len(data) - 1]


def test_every_part_is_covered_by_the_checksum(machine: Machine, data: bytes, tmp_path: Path) -> None:
    for place in positions(data):
        changed = bytearray(data)
        changed[place] ^= 0x40
        (tmp_path / "s").write_bytes(changed)
        with pytest.raises(SnapshotError):
            Snapshot.load(tmp_path / "s")
    for length in positions(data):
        (tmp_path / "s").write_bytes(data[:length])
        with pytest.raises(SnapshotError):
            Snapshot.load(tmp_path / "s")
    (tmp_path / "s").write_bytes(data + b"more")
    with pytest.raises(SnapshotError):
        Snapshot.load(tmp_path / "s")


def test_later_versions_are_told(data: bytes, tmp_path: Path) -> None:
    body = bytearray(data[:-32])
    for version, said in ((_VERSION + 1, "later version"), (1, "unknown format 1"), (2, "unknown format 2")):
        body[START - 12 : START - 8] = struct.pack("<I", version)
        (tmp_path / "s").write_bytes(signed(bytes(body)))
        with pytest.raises(SnapshotError, match=said):
            Snapshot.load(tmp_path / "s")
    (tmp_path / "s").write_bytes(b"")
    with pytest.raises(SnapshotError, match="not a snapshot"):
        Snapshot.load(tmp_path / "s")


def test_forged_bytes(machine: Machine, data: bytes, tmp_path: Path) -> None:
    """Bytes changed anywhere and signed anew."""
    path = tmp_path / "s"

    @settings(max_examples=80)
    @given(
        st.lists(
            st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from([0, 1, 0x7F, 0x80, 0xFF])),
            min_size=1,
            max_size=8,
        ),
        st.booleans(),
    )
    def test(changes: list[tuple[float, int]], in_header: bool) -> None:
        body = bytearray(data[:-32])
        size = struct.unpack("<Q", body[START - 8 : START])[0]
        for where, byte in changes:
            body[START + int(where * (size if in_header else len(body) - START))] = byte
        path.write_bytes(signed(bytes(body)))
        run_from(machine, path)

    test()


def forged(data: bytes, name: str, value: int) -> bytes:
    """The same snapshot with one number everywhere in one of its arrays."""
    size = struct.unpack("<Q", data[START - 8 : START])[0]
    header = json.loads(data[START : START + size])
    place = START + size
    body = bytearray(data[:-32])
    for found, dtype, shape in header["arrays"]:
        length = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if found == name:
            bits = 8 * np.dtype(dtype).itemsize
            array = np.full(int(np.prod(shape)), value % (1 << bits), f"uint{bits}")
            body[place : place + length] = array.tobytes()
        place += length
    return signed(bytes(body))


def array_names(data: bytes) -> list[str]:
    size = struct.unpack("<Q", data[START - 8 : START])[0]
    return [name for name, _, _ in json.loads(data[START : START + size])["arrays"]]


def test_forged_arrays(machine: Machine, data: bytes, tmp_path: Path) -> None:
    """Every array in turn full of a number that it should not have."""
    names = array_names(data)
    assert {"state.registers", "lane.descriptors", "lane.mappings", "stdin.position", "pages.lanes"} <= set(names)
    for name in names:
        for value in (-1, 1 << 31, (1 << 63) - 1, 1 << 40, 5):
            (tmp_path / "s").write_bytes(forged(data, name, value))
            run_from(machine, tmp_path / "s")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("lanes", v) for v in (0, -1, 1 << 70, 1.5, "x", None, True, 4)),
        *(("size", v) for v in (0, -1, 1 << 62, None, 64)),
        *(("memory", v) for v in (0, -5, "1MiB")),
        *(("own", v) for v in ([-1], [5], ["x"], 7, [[]])),
        *(("outputs", v) for v in ([], [1], [1, 1], [1, 2, 3], "12", [[1]])),
        *(("files", v) for v in ([[1, 2]], [[1]], 5, [[-1, 1 << 40]])),
        *(("mappings", v) for v in ([], [[0, []]], [[5, [[3, 2]]]], [[1 << 63, []]], [[4096, [[1]]]], 3)),
        *(("unknown_calls", v) for v in ([[1]], [["x", 1]], [[1, -1]], 5)),
        *(("arrays", v) for v in ([], [["shared", "object", [1]]], [["shared", "uint8", [-1]]], 5, None)),
        *(("arrays", [["shared", "uint8", [1 << 62, 1 << 62]]]) for _ in range(1)),
        ("program", 5),
        ("linux", 1),
    ],
)
def test_forged_headers(machine: Machine, data: bytes, tmp_path: Path, name: str, value: Any) -> None:
    size = struct.unpack("<Q", data[START - 8 : START])[0]
    header = json.loads(data[START : START + size])
    header[name] = value
    text = json.dumps(header).encode()
    body = data[: START - 8] + struct.pack("<Q", len(text)) + text + data[START + size : -32]
    (tmp_path / "s").write_bytes(signed(body))
    with pytest.raises(SnapshotError):
        machine.restore(Snapshot.load(tmp_path / "s"))
    machine.reset()
    assert machine.run(max_instructions=1000).stops() == {"BUDGET": LANES}, "the machine is as good as before"
