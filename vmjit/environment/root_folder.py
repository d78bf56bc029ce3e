"""The files of the host that a guest may read: those below one folder.

A guest's path is resolved name by name from the root, as after chroot(2): `..` stays at the root, links are followed
inside it and never out of it. Each name is opened relative to the folder before it without following a link, so that a
folder that changes meanwhile cannot lead elsewhere either. Only regular files and folders are there at all.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from vmjit.environment.streams import InputStreams
from vmjit.errors import ArgumentError

_MAX_LINKS = 40
_MAX_NAMES = 1000


@dataclass(frozen=True)
class GuestFile:
    """A regular file or a folder as it was when first asked for."""

    number: int
    mode: int
    data: bytes
    entries: tuple[tuple[bytes, int], ...] = ()
    """A folder's: names with their modes, in order."""

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)


@dataclass(frozen=True, eq=False)
class LaneFile(GuestFile):
    """A file at a guest's path whose bytes are another for each lane: `streams`."""

    path: bytes = b""
    streams: InputStreams = field(kw_only=True)


class RootFolder:
    """Files below `root`; None: there are none. What was once found stays as it was."""

    def __init__(self, root: str | os.PathLike[str] | None) -> None:
        self.root = None if root is None else Path(root)
        if self.root is not None and not self.root.is_dir():
            raise ArgumentError(f"the root {os.fspath(self.root)!r} is no folder")
        self._found: dict[bytes, GuestFile | int] = {}
        self._numbers = 0

    def find(self, path: bytes) -> GuestFile | int:
        """The file at a guest's path, or the error's number."""
        if self.root is None:
            return errno.ENOENT
        if path not in self._found:
            try:
                self._found[path] = self._open(path)
            except OSError as error:
                self._found[path] = error.errno or errno.EIO
        return self._found[path]

    def _open(self, path: bytes) -> GuestFile:
        assert self.root is not None
        folders = [os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
        try:
            return self._walk(folders, path)
        finally:
            _leave(folders, 0)

    def _walk(self, folders: list[int], path: bytes) -> GuestFile:
        names = path.split(b"/")[::-1]
        links = 0
        for _ in range(_MAX_NAMES):
            if not names:
                return self._made(os.fstat(folders[-1]).st_mode, b"", _entries(folders[-1]))
            name = names.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                _leave(folders, max(len(folders) - 1, 1))
                continue
            mode = os.stat(name, dir_fd=folders[-1], follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, "too many links")
                target = os.readlink(name, dir_fd=folders[-1])
                if target.startswith(b"/"):
                    _leave(folders, 1)
                names += target.split(b"/")[::-1]
            elif stat.S_ISDIR(mode):
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                folders.append(os.open(name, flags, dir_fd=folders[-1]))
            elif names:
                raise OSError(errno.ENOTDIR, "a file in a path's middle")
            else:
                return self._read(folders[-1], name)
        raise OSError(errno.ENAMETOOLONG, "too many names")

    def _read(self, folder: int, name: bytes) -> GuestFile:
        # Without O_NONBLOCK, what became a pipe meanwhile could block.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise OSError(errno.EACCES, "neither a file nor a folder")
            return self._made(mode, file.read())

    def _made(self, mode: int, data: bytes, entries: tuple[tuple[bytes, int], ...] = ()) -> GuestFile:
        return GuestFile(self.number(), mode & ~0o222, data, entries)

    def number(self) -> int:
        """A number for a new file."""
        self._numbers += 1
        return self._numbers


def _entries(folder: int) -> tuple[tuple[bytes, int], ...]:
    """What of a folder a guest can see: files, folders and links, by name."""
    found = []
    for name in sorted(os.listdir(folder)):
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
            found.append((os.fsencode(name), mode))
    return tuple(found)


def _leave(folders: list[int], count: int) -> None:
    """Close all but the first folders of a way."""
    while len(folders) > count:
        os.close(folders.pop())
