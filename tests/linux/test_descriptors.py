"""ppoll, pselect6 and shared positions where lanes differ: arguments, errors, what is open, and through snapshots."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.linux.caller import CODE, DATA, Caller
from tests.machine.test_snapshot_fuzz import forged
from vmjit import Snapshot, SnapshotError

XLENS = pytest.mark.parametrize("xlen", [32, 64])
EBADF, EFAULT, EINVAL, EMFILE = 9, 14, 22, 24
IN, OUT, INVALID = 1, 4, 32
CLOSE, DUP, DUP3, FCNTL, OPEN, READ = 57, 23, 24, 25, 56, 63


def pollfds(*pairs: tuple[int, int]) -> bytes:
    return b"".join(
        descriptor.to_bytes(4, "little", signed=True) + events.to_bytes(2, "little") + b"\xff\xff"
        for descriptor, events in pairs
    )


def revents(row: bytes) -> list[int]:
    return [int.from_bytes(row[i + 6 : i + 8], "little") for i in range(0, len(row), 8)]


def spec(seconds: int, nanoseconds: int) -> bytes:
    return (seconds % (1 << 64)).to_bytes(8, "little") + (nanoseconds % (1 << 64)).to_bytes(8, "little")


@XLENS
def test_ppoll_of_different_lanes(xlen: int) -> None:
    c = Caller(xlen, 5)
    number = 414 if xlen == 32 else 73
    c.call(CLOSE, [9, 1, 9, 9, 9])
    c.write(DATA, [pollfds((0, IN), (1, OUT), (-1, 0x7FFF))] * 5)
    counts = [3, 3, 1, 0, 1024]
    assert c.call(number, [DATA, DATA, DATA, 5, DATA], counts) == [2, 2, 1, 0, 2]
    found = [revents(row) for row in c.read(DATA, 24)]
    assert found == [[IN, OUT, 0], [IN, INVALID, 0], [IN, 0xFFFF, 0xFFFF], [0xFFFF] * 3, [IN, OUT, 0]]
    assert c.call(number, DATA, [1025, -1, 1 << 31, 8, 3]) == [-EINVAL, -EINVAL, -EINVAL, 2, 2]
    # Beside lanes with good addresses: nothing there, an end that is not there, read-only.
    end = c.machine.environment.stack_top
    pages = [0, -8, end - 8, DATA, CODE]
    assert c.call(number, pages, [1, 1, 9, 3, 1]) == [-EFAULT, -EFAULT, -EFAULT, 2, -EFAULT]


@XLENS
def test_times_of_different_lanes(xlen: int) -> None:
    c = Caller(xlen, 6)
    c.write(DATA, [spec(1, 0), spec(0, 999_999_999), spec(0, 1_000_000_000), spec(-1, 0), spec(0, -1), spec(0, 0)])
    expected = [0, 0, -EINVAL, -EINVAL, -EINVAL, 0]
    before = c.read(DATA, 16)
    poll, select = (414, 413) if xlen == 32 else (73, 72)
    for call in (lambda: c.call(poll, 0, 0, DATA), lambda: c.call(select, 0, 0, 0, 0, DATA)):
        c.write(DATA, before)
        assert call() == expected
        assert c.read(DATA, 16) == [bytes(16)] * 2 + before[2:]
    c.write(DATA, before)
    c.write(DATA + 64, [pollfds((0, IN))] * 6)
    assert c.call(poll, DATA + 64, 1, DATA) == [1, 1, -EINVAL, -EINVAL, -EINVAL, 1]
    assert c.read(DATA, 16) == before, "no time has passed"
    # The older call of 32 bits has two words of the machine's width.
    c.write(DATA, [(5).to_bytes(4, "little") + (xlen == 32 and 7).to_bytes(4, "little") + b"\0" * 8] * 6)
    assert c.call(73, 0, 0, DATA) == [0] * 6
    assert c.read(DATA, 8) == [bytes(8)] * 6
    if xlen == 32:  # half of the nanoseconds of a time of 64 bits is padding
        c.write(DATA, [spec(0, 5 | lane << 32) for lane in range(6)])
        assert c.call(414, 0, 0, DATA) == [0] * 6


@XLENS
def test_pselect_of_different_lanes(xlen: int) -> None:
    c = Caller(xlen, 5)
    number = 413 if xlen == 32 else 72
    sets = [DATA, DATA + 0x200, DATA + 0x400]
    sizes = [32, 31, 33, 1024, 100_000]

    def given(*bits: int) -> list[bytes]:
        return [sum(1 << bit for bit in bits).to_bytes(128, "little")] * 5

    c.write(sets[0], given(0, 1, 2))
    c.write(sets[1], given(0, 1, 2))
    c.write(sets[2], given(0, 1, 2))
    assert c.call(number, sizes, *sets) == [3] * 5
    assert [c.read(place, 4) for place in sets] == [[bytes([n, 0, 0, 0])] * 5 for n in (1, 6, 0)]
    c.write(sets[0], given(0, 31))
    assert c.call(number, sizes, sets[0]) == [-EBADF, 1, -EBADF, -EBADF, -EBADF]
    c.write(sets[0], given(0, 32))
    assert c.call(number, sizes, sets[0]) == [1, 1, -EBADF, -EBADF, -EBADF]
    c.write(sets[0], given(0, 1023))
    assert c.call(number, sizes, sets[0]) == [1, 1, 1, -EBADF, -EBADF]
    word = xlen // 8
    kept = [row[word:] for row in c.read(sets[0], 128)]
    assert kept[0] == given(0, 1023)[0][word:], "what is beyond the count's last word is left as it was"
    assert c.call(number, [-1, -(1 << 31), 0, 1, 1 << 31], [0, 0, 5, 5, 0]) == [-EINVAL, -EINVAL, 0, -EFAULT, -EINVAL]
    c.write(sets[0], given(0))
    c.write(DATA + 0x600, [bytes(word) + (8).to_bytes(word, "little")] * 5)
    masks = [0, DATA + 0x600, 3, c.machine.environment.stack_top - word, DATA + 0x600]
    assert c.call(number, 1, sets[0], 0, 0, 0, masks) == [1, 1, -EFAULT, -EFAULT, 1]
    c.write(DATA + 0x600, [at.to_bytes(word, "little") + n.to_bytes(word, "little") for at, n in MASKS])
    assert c.call(number, 1, sets[0], 0, 0, 0, DATA + 0x600) == [1, 1, -EINVAL, -EFAULT, -EINVAL]


MASKS = ((0, 99), (DATA, 8), (DATA, 7), (3, 8), (3, 16))


def opened(xlen: int, lanes: int) -> Caller:
    """Lanes that have opened files of their own, all as descriptor 3."""
    c = Caller(xlen, lanes)
    c.machine.set_file("/in", [b"lane %d, " % lane * 5 for lane in range(lanes)])
    c.write(DATA, [b"/in\0"] * lanes)
    assert c.call(OPEN, -100, DATA) == [3] * lanes
    return c


@XLENS
def test_positions_are_shared_by_what_was_duplicated(xlen: int) -> None:
    c = opened(xlen, 4)
    # Two lanes have a duplicate, one opens the file once more, one has nothing open.
    assert c.call(DUP, [3, 3, 3, 99]) == [4, 4, 4, -EBADF]
    assert c.call(CLOSE, [99, 4, 99, 3]) == [-EBADF, 0, -EBADF, 0]
    assert c.call(OPEN, -100, [0, DATA, 0, 0])[1] == 4
    assert c.call(READ, 3, DATA + 64, [1, 2, 3, 4]) == [1, 2, 3, -EBADF]
    assert c.seek(4) == [1, 0, 3, -EBADF]
    assert c.call(READ, 4, DATA + 64, 3) == [3, 3, 3, -EBADF]
    assert c.read(DATA + 64, 3) == [b"ane", b"lan", b"e 2", bytes(3)]
    assert c.seek(3) == [4, 2, 6, -EBADF]
    # What was closed is free for what is opened next, unless another descriptor still leads to it.
    assert c.call(CLOSE, 3) == [0, 0, 0, -EBADF]
    assert c.call(OPEN, -100, DATA) == [3] * 4
    assert c.seek(3) == [0] * 4
    assert c.seek(4) == [4, 3, 6, -EBADF]


@XLENS
def test_descriptors_end(xlen: int) -> None:
    c = opened(xlen, 3)
    count = 32
    assert c.call(FCNTL, 3, 0, [10, 31, 32]) == [10, 31, -EINVAL]
    for i in range(count):
        number = OPEN if i % 2 else DUP
        found = c.call(number, -100 if i % 2 else 3, DATA)
    assert found == [-EMFILE] * 3
    assert c.call(FCNTL, 3, 1030, [0, 31, -1]) == [-EMFILE, -EMFILE, -EINVAL]
    assert c.call(CLOSE, [7, 31, 8]) == [0] * 3
    assert c.call(OPEN, -100, DATA) == [7, 31, 8]
    assert c.call(DUP3, 7, [7, 31, 3], [0, 1 << 19, 1]) == [-EINVAL, 31, -EINVAL]
    assert c.call(CLOSE, -1) == [-EBADF] * 3


@XLENS
def test_snapshots_have_shared_positions(xlen: int, tmp_path: Path) -> None:
    c = opened(xlen, 3)
    assert c.call(DUP, [3, 99, 3]) == [4, -EBADF, 4]
    c.call(READ, 3, DATA + 64, [1, 2, 3])
    c.machine.snapshot().save(tmp_path / "all")
    c.machine.snapshot(lane=2).save(tmp_path / "one")
    other = Caller(xlen, 3)
    for name, expected in (("all", [2, -EBADF, 4]), ("one", [4, 4, 4])):
        other.machine.restore(Snapshot.load(tmp_path / name))
        other.call(READ, 3, DATA + 64, 1)
        assert other.seek(4) == expected


def test_damaged_descriptors(tmp_path: Path) -> None:
    c = opened(64, 3)
    c.machine.snapshot().save(tmp_path / "good")
    data = (tmp_path / "good").read_bytes()
    for name, value in (
        *(("descriptors", v) for v in (-2, 5, 32, 1 << 40)),
        *(("described", v) for v in (-2, -1, 4, 1 << 40)),
        *(("positions", v) for v in (-1, 1 << 63)),
    ):
        (tmp_path / "bad").write_bytes(forged(data, f"lane.{name}", value))
        with pytest.raises(SnapshotError, match=f"{name} have values|descriptors that lead nowhere"):
            c.machine.restore(Snapshot.load(tmp_path / "bad"))
    for name, value in (("descriptors", 3), ("described", 3), ("positions", (1 << 63) - 1)):
        (tmp_path / "odd").write_bytes(forged(data, f"lane.{name}", value))
        c.machine.restore(Snapshot.load(tmp_path / "odd"))
        assert c.call(READ, 3, DATA + 64, 1) == [0 if name == "positions" else 1] * 3
        assert c.call(OPEN, -100, DATA)[0] in (4, -EMFILE)
