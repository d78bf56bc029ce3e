"""Files and variables that are another for each lane, folders, and that snapshots know of all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

import vmjit
from tests.linux.build import FOLDER, path_of
from vmjit import ArgumentError, Machine, Snapshot

XLENS = pytest.mark.parametrize("xlen", [32, 64])


def machine(xlen: int, lanes: int, *arguments: str, **options: object) -> Machine:
    program = vmjit.load(path_of("listing", xlen))
    return Machine(program, lanes, "cpu", "interpreter", arguments=["listing", *arguments], **options)  # type: ignore[arg-type]


def outputs(m: Machine) -> list[bytes]:
    r = m.run()
    assert r.stops() == {"EXIT": m.lanes}
    return [r.output(lane) for lane in range(m.lanes)]


@XLENS
def test_files_of_each_lane(xlen: int) -> None:
    m = machine(xlen, 4, "/in", "x/../in", "/other")
    contents = [b"", b"a", b"12345", b"some more text"]
    m.set_file("in", contents)
    m.set_file(b"/other", b"for all")
    for _ in range(2):
        for text, found in zip(contents, outputs(m), strict=True):
            size = len(text)
            line = b": %d %d %d %s|%s|1\n" % (size, size, max(size - 2, 0), text, text[2:])
            assert found == b"/in" + line + b"x/../in" + line + b"/other: 7 7 5 for all|r all|1\n"
        m.reset()
    contents = [b"new"] * 4
    m.set_file("/in", contents)
    assert outputs(m)[0].startswith(b"/in: 3 3 1 new|w|1\n")
    with pytest.raises(ArgumentError, match="4 inputs"):
        m.set_file("/in", [b"x"])
    with pytest.raises(ArgumentError, match="only Linux"):
        Machine(m.program, environment="bare-metal").set_file("/in", b"")


@XLENS
def test_snapshots_have_open_files(xlen: int, tmp_path: Path) -> None:
    """Between opening and reading, through a file, for one lane and for all."""
    contents = [b"first lane", b"second lane", b"third"]
    m = machine(xlen, 3, "/in", "/", root=FOLDER / "root" if (FOLDER / "root").exists() else FOLDER)
    m.set_file("/in", contents)
    expected = outputs(m)
    for stop in range(2000, 30_000, 2500):
        m.reset()
        m.run(max_instructions=stop)
        m.snapshot().save(tmp_path / "all")
        m.snapshot(lane=1).save(tmp_path / "one")
        other = machine(xlen, 3, "/in", "/")
        other.restore(Snapshot.load(tmp_path / "all"))
        if stop > 20_000:  # the folder is open or read by then
            continue
        other.restore(Snapshot.load(tmp_path / "one"))
        m.restore(Snapshot.load(tmp_path / "one"))
        assert outputs(m) == [expected[1]] * 3
    m.reset()
    assert outputs(m)[0].startswith(b"/in: 11 11 9 second lane"), "files are those of the snapshot"


@XLENS
def test_folders(xlen: int, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "many").mkdir(parents=True)
    for i in range(60):
        (root / "many" / f"file {i:02}").write_bytes(b"x" * i)
    (root / "link").symlink_to("many")
    m = machine(xlen, 2, "/many", "/", "link", root=root)
    many = b"62 entries, and again\n. 4\n.. 4\n" + b"".join(b"file %02d 8\n" % i for i in range(60))
    top = b"/: 4 entries, and again\n. 4\n.. 4\nlink 10\nmany 4\n"
    assert outputs(m) == [b"/many: " + many + top + b"link: " + many] * 2


@XLENS
def test_variables_of_each_lane(xlen: int) -> None:
    m = machine(xlen, 3, variables={"SEEN": "all"}, lane_variables=[{"SEEN": "one"}, {}, {"OTHER": "x" * 5000}])
    assert outputs(m) == [b"SEEN=one\n", b"SEEN=all\n", b"SEEN=all\n"]
    m.reset()
    assert outputs(m) == [b"SEEN=one\n", b"SEEN=all\n", b"SEEN=all\n"]
    for bad in ([{}], {"a": "b"}, "abc", [{"a=b": "c"}, {}, {}]):
        with pytest.raises(ArgumentError):
            machine(xlen, 3, lane_variables=bad)
    with pytest.raises(ArgumentError, match="Linux"):
        Machine(m.program, environment="bare-metal", lane_variables=[{}])
