"""No path leads out of the root folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmjit.environment.root_folder import GuestFile, RootFolder
from vmjit.errors import ArgumentError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret").write_bytes(b"secret")
    folder = outside / "root"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "file").write_bytes(b"top")
    (folder / "a" / "file").write_bytes(b"inner")
    (folder / "a" / "up").symlink_to("../file")
    (folder / "a" / "out").symlink_to("../../secret")
    (folder / "a" / "absolute").symlink_to(str(outside / "secret"))
    (folder / "a" / "top").symlink_to("/")
    (folder / "a" / "loop").symlink_to("loop")
    (folder / "outside").symlink_to("..")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (b"file", b"top"),
        (b"/file", b"top"),
        (b"//a/./../file", b"top"),
        (b"a/up", b"top"),
        (b"../../../file", b"top"),
        (b"a/top/a/file", b"inner"),
        (b"outside/file", b"top"),
        (b"a/file/", b"inner"),
        (b"a/out", errno.ENOENT),
        (b"../secret", errno.ENOENT),
        (b"outside/secret", errno.ENOENT),
        (b"a/absolute", errno.ENOENT),
        (b"a/loop", errno.ELOOP),
        (b"file/x", errno.ENOTDIR),
        (b"pipe", errno.EACCES),
        (b"nothing", errno.ENOENT),
        (b"x" * 300, errno.ENAMETOOLONG),
    ],
)
def test_paths(root: Path, path: bytes, found: bytes | int) -> None:
    file = RootFolder(root).find(path)
    if isinstance(found, int):
        assert file == found
    elif path.endswith(b"/"):
        assert file == errno.ENOTDIR
    else:
        assert isinstance(file, GuestFile)
        assert file.data == found


@settings(max_examples=200)
@given(st.lists(st.sampled_from([b"..", b".", b"", b"a", b"b", b"file", b"out", b"absolute", b"top", b"outside", b"secret",
                                 b"up"]), max_size=12))  # fmt: skip
def test_nothing_outside_is_ever_read(root: Path, names: list[bytes]) -> None:
    found = RootFolder(root).find(b"/".join(names) or b".")
    assert isinstance(found, int) or found.data != b"secret"


def test_without_a_root_there_is_nothing() -> None:
    assert RootFolder(None).find(b"/etc/passwd") == errno.ENOENT


def test_a_root_has_to_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="no folder"):
        RootFolder(tmp_path / "missing")
