"""Linux's system calls on descriptors and files: the standard streams, and files of the root folder, read-only."""

from __future__ import annotations

import errno
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vmjit.environment.bare_metal import (
    MAX_TRANSFER,
    S_IFCHR,
    S_IFREG,
    Handler,
    read_input,
    write_outputs,
)
from vmjit.environment.call import Call, Values
from vmjit.environment.descriptors import CLOSED, DESCRIPTORS, STANDARD
from vmjit.environment.linux_start import PAGE, USER
from vmjit.environment.linux_state import (
    by_kind,
    constant,
    descriptors_of,
    linux_of,
    open_files,
    open_numbers,
    part_of,
)
from vmjit.environment.root_folder import GuestFile, LaneFile

_MAX_PATH = 4096
_STRING_PIECE = 256
_MAX_VECTORS = 1024

_AT_EMPTY_PATH = 0x1000
_O_ACCMODE, _O_CREAT, _O_TRUNC, _O_DIRECTORY, _O_CLOEXEC = 3, 0o100, 0o1000, 0o200000, 0o2000000


def take_from_files(
    call: Call,
    numbers: Values,
    places: Values,
    wanted: Values,
    pointers: NDArray[np.uint64],
    *,
    by_host: bool = False,
) -> Values:
    """Copy from files into the lanes' memory, with `by_host` whatever its protection; gives how much, or an error."""
    environment = linux_of(call)
    result = np.zeros(len(call.lanes), np.int64)
    for number in np.unique(numbers):
        these = np.flatnonzero(numbers == number)
        file = environment.file(int(number))
        if file.is_folder:
            result[these] = -errno.EISDIR
            continue
        if isinstance(file, LaneFile):
            some = np.minimum(wanted[these], MAX_TRANSFER)
            data, counts = file.streams.take_at(call.lanes[these], places[these], some)
        else:
            whole = np.frombuffer(file.data, np.uint8)
            counts = np.clip(np.minimum(wanted[these], len(whole) - places[these]), 0, MAX_TRANSFER)
            ends = np.cumsum(counts)
            data = whole[np.repeat(places[these] - (ends - counts), counts) + np.arange(int(ends[-1]))]
        stored = call.memory.scatter(call.lanes[these], pointers[these], counts, data, by_host=by_host)
        result[these] = np.where(wanted[these] < 0, -errno.EINVAL, np.where(stored, counts, -errno.EFAULT))
    return result


def _read(call: Call) -> Values:
    return _read_into(call, call.address(1), call.signed(2))


def _read_into(call: Call, pointers: NDArray[np.uint64], wanted: Values) -> Values:
    """From standard input, or from a file where its description is; that moves on."""
    opened = linux_of(call).descriptors
    descriptions, numbers = open_files(call)
    result = np.full(len(call.lanes), -errno.EBADF, np.int64)
    is_stdin, is_file = numbers == 0, numbers >= STANDARD
    if is_stdin.any():
        result[is_stdin] = read_input(part_of(call, is_stdin), pointers[is_stdin], wanted[is_stdin])
    if is_file.any():
        place = (call.lanes[is_file], descriptions[is_file])
        positions = opened.positions[place]
        part = part_of(call, is_file)
        found = take_from_files(part, numbers[is_file], positions, wanted[is_file], pointers[is_file])
        opened.positions[place] += np.maximum(found, 0)
        result[is_file] = found
    return result


def _pread(call: Call) -> Values:
    _, numbers = open_numbers(call)

    def from_file(part: Call) -> Values:
        _, files = open_numbers(part)
        offset = part.signed(3)
        if part.environment.xlen == 32:  # in two registers
            offset = part.address(3).astype(np.int64) | part.address(4).astype(np.int64) << 32
        found = take_from_files(part, files, np.maximum(offset, 0), part.signed(2), part.address(1))
        return np.where(offset < 0, -errno.EINVAL, found)

    streams = (numbers >= 0) & (numbers < STANDARD)
    return by_kind(call, numbers, [(numbers >= STANDARD, from_file), (streams, constant(-errno.ESPIPE))])


def _write(call: Call) -> Values:
    return _write_from(call, call.address(1), call.signed(2))


def _write_from(call: Call, pointers: NDArray[np.uint64], sizes: Values) -> Values:
    """To the standard outputs; files are read-only."""
    _, numbers = open_numbers(call)
    return write_outputs(call, numbers, pointers, sizes)


def _vectors(call: Call, transfer: Callable[[Call, NDArray[np.uint64], Values], Values]) -> Values:
    """readv and writev: one transfer after the other, until one is short."""
    word = call.environment.xlen // 8
    unsigned = np.uint32 if word == 4 else np.uint64
    counts, total = call.signed(2), np.zeros(len(call.lanes), np.int64)
    total[(counts < 0) | (counts > _MAX_VECTORS)] = -errno.EINVAL
    going = (total == 0) & (counts > 0)
    for i in range(int(counts[going].max(initial=0))):
        going &= counts > i
        these = np.flatnonzero(going)
        if not len(these):
            break
        part = Call(call.environment, call.state, call.memory, call.lanes[these])
        places = part.address(1) + np.uint64(2 * word * i)
        rows, good = call.memory.gather(part.lanes, places, np.full(len(these), 2 * word, np.int64))
        pairs = np.zeros((len(these), 2), np.uint64)
        pairs[good] = rows.view(unsigned).reshape(-1, 2)
        sizes = pairs[:, 1].astype(np.int64)
        done = np.where(good, transfer(part, pairs[:, 0], np.where(good, sizes, 0)), -errno.EFAULT)
        failed = done < 0
        total[these] = np.where(failed & (total[these] == 0), done, total[these] + np.maximum(done, 0))
        going[these] = ~failed & (done == sizes)
    return total


def _writev(call: Call) -> Values:
    return _vectors(call, _write_from)


def _readv(call: Call) -> Values:
    return _vectors(call, _read_into)


def _strings(call: Call, index: int) -> list[bytes | int]:
    """Each lane's path at an argument, or the error's number."""
    found: list[bytes | int] = [b""] * len(call.lanes)
    places = call.address(index).copy()
    going = np.ones(len(call.lanes), bool)
    texts = [bytearray() for _ in found]
    at_once = np.full(len(call.lanes), _STRING_PIECE)
    while going.any():
        these = np.flatnonzero(going)
        sizes = at_once[these]
        data, good = call.memory.gather(call.lanes[these], places[these], sizes)
        ends = np.cumsum(np.where(good, sizes, 0))
        for n, lane in enumerate(these):
            if not good[n]:
                # A string may be the last thing before memory that is not there, which may be anywhere in a page.
                at_once[lane] //= 2
                if not at_once[lane]:
                    found[lane], going[lane] = errno.EFAULT, False
                continue
            chunk = data[ends[n] - sizes[n] : ends[n]].tobytes()
            text, stop, _ = chunk.partition(b"\0")
            texts[lane] += text
            if stop:
                found[lane], going[lane] = bytes(texts[lane]), False
            elif len(texts[lane]) > _MAX_PATH:
                found[lane], going[lane] = errno.ENAMETOOLONG, False
        places[these[good]] += sizes[good].astype(np.uint64)
    return found


def _looked_up(call: Call, index: int) -> list[GuestFile | int]:
    """The file that each lane's path names; the current folder is the root."""
    environment = linux_of(call)
    known: dict[bytes, GuestFile | int] = {}
    found: list[GuestFile | int] = []
    for path in _strings(call, index):
        if isinstance(path, int):
            found.append(path)
        elif not path:
            found.append(errno.ENOENT)
        else:
            found.append(known[path] if path in known else known.setdefault(path, environment.find(path)))
    return found


def _openat(call: Call) -> Values:
    environment = linux_of(call)
    result = np.zeros(len(call.lanes), np.int64)
    numbers = np.full(len(call.lanes), CLOSED)
    flags = call.signed(2)
    for n, file in enumerate(_looked_up(call, 1)):
        given = int(flags[n])
        writes = given & _O_ACCMODE or given & _O_TRUNC
        if isinstance(file, int):
            result[n] = -(errno.EROFS if file == errno.ENOENT and given & _O_CREAT else file)
        elif writes:
            result[n] = -errno.EROFS
        elif given & _O_DIRECTORY and not file.is_folder:
            result[n] = -errno.ENOTDIR
        else:
            numbers[n] = environment.open_file(file)
    good = numbers != CLOSED
    result[good] = environment.descriptors.open(call.lanes[good], numbers[good])
    return result


def _close(call: Call) -> Values:
    descriptors, numbers = open_numbers(call)
    good = numbers != CLOSED
    linux_of(call).descriptors.descriptions[call.lanes[good], descriptors[good]] = CLOSED
    return np.where(good, 0, -errno.EBADF)


def _duplicate(call: Call, lowest: Values) -> Values:
    descriptions, _ = open_files(call)
    possible = (lowest >= 0) & (lowest < DESCRIPTORS)
    result = np.where(possible, 0, -errno.EINVAL)
    result[descriptions == CLOSED] = -errno.EBADF
    good = result == 0
    result[good] = linux_of(call).descriptors.add(call.lanes[good], descriptions[good], lowest[good])
    return result


def _dup(call: Call) -> Values:
    return _duplicate(call, np.zeros(len(call.lanes), np.int64))


def _dup3(call: Call) -> Values:
    descriptions, _ = open_files(call)
    wanted = descriptors_of(call, 1)
    bad = (call.signed(2) & ~_O_CLOEXEC != 0) | (wanted == descriptors_of(call))
    good = ~bad & (descriptions != CLOSED) & (wanted >= 0) & (wanted < DESCRIPTORS)
    linux_of(call).descriptors.descriptions[call.lanes[good], wanted[good]] = descriptions[good]
    return np.where(bad, -errno.EINVAL, np.where(good, wanted, -errno.EBADF))


def _fcntl(call: Call) -> Values:
    """F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL and F_DUPFD_CLOEXEC."""
    _, numbers = open_numbers(call)
    command = call.signed(1)
    result = np.full(len(call.lanes), -errno.EINVAL, np.int64)
    result[np.isin(command, (1, 2, 4))] = 0
    result[command == 3] = np.where(np.isin(numbers, (1, 2)), 1, 0)[command == 3]
    duplicates = np.isin(command, (0, 1030))
    if duplicates.any():
        part = part_of(call, duplicates)
        result[duplicates] = _duplicate(part, part.signed(2))
    result[numbers == CLOSED] = -errno.EBADF
    return result


def _lseek(call: Call) -> Values:
    """lseek(fd, offset, whence); on RV32 _llseek(fd, high, low, result*, whence)."""
    environment = linux_of(call)
    wide = environment.xlen == 64
    descriptions, numbers = open_files(call)
    if wide:
        offset, whence = call.signed(1), call.signed(2)
    else:
        offset = call.signed(1) << 32 | call.address(2).astype(np.int64)
        whence = call.signed(4)
    stdin, positions = environment.stdin, environment.descriptors.positions
    is_stdin = numbers == 0
    sizes = environment.file_sizes(numbers, call.lanes)
    sizes = np.where(is_stdin, stdin.size[call.lanes], sizes)
    at = positions[call.lanes, descriptions.clip(0)]
    now = np.where(is_stdin, stdin.position[call.lanes], at)
    origin = np.select([whence == 0, whence == 1, whence == 2], [np.zeros_like(now), now, sizes], default=-1)
    goal = origin + offset
    possible = (origin >= 0) & (goal >= 0) & (goal <= np.iinfo(np.int64).max // 2)
    seeks = possible & (is_stdin | (numbers >= STANDARD))
    moved = seeks & is_stdin
    stdin.position[call.lanes[moved]] = goal[moved]
    files = seeks & ~is_stdin
    positions[call.lanes[files], descriptions[files]] = goal[files]
    result = np.where(possible, goal, -errno.EINVAL)
    if not wide:
        rows = goal.view(np.uint8).reshape(len(goal), 8)
        sizes = np.where(seeks, 8, 0)
        stored = call.memory.scatter(call.lanes, call.address(3), sizes, rows[seeks].reshape(-1))
        result = np.where(possible, np.where(stored, 0, -errno.EFAULT), -errno.EINVAL)
    result[np.isin(numbers, (1, 2))] = -errno.ESPIPE
    result[numbers == CLOSED] = -errno.EBADF
    return result


@dataclass(frozen=True)
class _Status:
    """What stat tells of a lane's file."""

    number: int
    mode: int
    size: int


def _status_of(call: Call, n: int, number: int) -> _Status:
    environment = linux_of(call)
    if number >= STANDARD:
        return _file_status(environment.file(number), int(call.lanes[n]))
    size = int(environment.stdin.size[call.lanes[n]]) if number == 0 else 0
    return _Status(number + 1, S_IFREG | 0o444 if number == 0 else S_IFCHR | 0o620, size)


def _file_status(file: GuestFile, lane: int) -> _Status:
    size = int(file.streams.size[lane]) if isinstance(file, LaneFile) else len(file.data)
    return _Status(file.number + STANDARD, file.mode, size)


def _stat_row(status: _Status, xlen: int) -> bytes:
    """struct stat, asm-generic."""
    row = np.zeros(128 if xlen == 64 else 104, np.uint8)
    for offset, value, size in (
        *((8, status.number, 8), (16, status.mode, 4), (20, 1, 4), (24, USER, 4), (28, USER, 4)),
        *((48, status.size, 8), (56, PAGE, 4), (64, -(-status.size // 512), 8)),
    ):
        row[offset : offset + size] = np.frombuffer(value.to_bytes(size, "little"), np.uint8)
    return row.tobytes()


def _statx_row(status: _Status, xlen: int) -> bytes:
    """struct statx (linux/stat.h)."""
    row = bytearray(256)
    for offset, value, size in (
        *((0, 0x7FF, 4), (4, PAGE, 4), (16, 1, 4), (20, USER, 4), (24, USER, 4), (28, status.mode, 2)),
        *((32, status.number, 8), (40, status.size, 8), (48, -(-status.size // 512), 8)),
    ):
        row[offset : offset + size] = value.to_bytes(size, "little")
    return bytes(row)


def _give_status(
    call: Call,
    found: list[_Status | int],
    pointers: NDArray[np.uint64],
    make: Callable[[_Status, int], bytes],
) -> Values:
    rows = [b"" if isinstance(s, int) else make(s, call.environment.xlen) for s in found]
    sizes = np.array([len(row) for row in rows], np.int64)
    data = np.frombuffer(b"".join(rows), np.uint8)
    stored = call.memory.scatter(call.lanes, pointers, sizes, data)
    errors = np.array([-s if isinstance(s, int) else 0 for s in found], np.int64)
    return np.where(errors, errors, np.where(stored, 0, -errno.EFAULT))


def _fstat(call: Call) -> Values:
    _, numbers = open_numbers(call)
    found: list[_Status | int] = [
        errno.EBADF if number == CLOSED else _status_of(call, n, int(number)) for n, number in enumerate(numbers)
    ]
    return _give_status(call, found, call.address(1), _stat_row)


def _status_at(call: Call, flags: Values) -> list[_Status | int]:
    """By path, or by descriptor where the path is empty and the flags allow that."""
    _, numbers = open_numbers(call)
    paths = _strings(call, 1)
    environment = linux_of(call)
    found: list[_Status | int] = []
    for n, path in enumerate(paths):
        if isinstance(path, int):
            found.append(path)
        elif not path and flags[n] & _AT_EMPTY_PATH:
            known = numbers[n] != CLOSED
            found.append(_status_of(call, n, int(numbers[n])) if known else errno.EBADF)
        else:
            file = environment.find(path) if path else errno.ENOENT
            found.append(file if isinstance(file, int) else _file_status(file, int(call.lanes[n])))
    return found


def _newfstatat(call: Call) -> Values:
    return _give_status(call, _status_at(call, call.signed(3)), call.address(2), _stat_row)


def _statx(call: Call) -> Values:
    return _give_status(call, _status_at(call, call.signed(2)), call.address(4), _statx_row)


def _faccessat(call: Call) -> Values:
    result = np.zeros(len(call.lanes), np.int64)
    mode = call.signed(2)
    for n, file in enumerate(_looked_up(call, 1)):
        result[n] = -file if isinstance(file, int) else -errno.EROFS if mode[n] & 2 else 0
    return result


def _getcwd(call: Call) -> Values:
    big = call.signed(1) >= 2
    sizes = np.where(big, 2, 0)
    data = np.tile(np.frombuffer(b"/\0", np.uint8), int(big.sum()))
    stored = call.memory.scatter(call.lanes, call.address(0), sizes, data)
    return np.where(big, np.where(stored, 2, -errno.EFAULT), -errno.ERANGE)


_KINDS = {stat.S_IFREG: 8, stat.S_IFDIR: 4, stat.S_IFLNK: 10}
"""DT_REG and the like by the kind of a mode."""


def _directory(file: GuestFile, place: int, room: int) -> tuple[bytes, int] | int:
    """(linux_dirent64 records from entry `place` on that have room, the next entry), or an error."""
    if not file.is_folder:
        return errno.ENOTDIR
    entries = ((b".", file.mode), (b"..", file.mode), *file.entries)
    data = b""
    while place < len(entries):
        name, mode = entries[place]
        size = -(-(_DIRENT.size + len(name) + 1) // 8) * 8
        if len(data) + size > room:
            break
        place += 1
        record = _DIRENT.pack(file.number * 4096 + place, place, size, _KINDS[stat.S_IFMT(mode)]) + name
        data += record.ljust(size, b"\0")
    if not data and place < len(entries):
        return errno.EINVAL
    return data, place


_DIRENT = struct.Struct("<QqHB")


def _getdents64(call: Call) -> Values:
    environment = linux_of(call)
    positions = environment.descriptors.positions
    descriptions, numbers = open_files(call)
    room = call.signed(2)
    rows, goals = [b""] * len(numbers), np.zeros(len(numbers), np.int64)
    result = np.where(numbers == CLOSED, -errno.EBADF, -errno.ENOTDIR)
    for n in np.flatnonzero(numbers >= STANDARD):
        place = int(positions[call.lanes[n], descriptions[n]])
        found = _directory(environment.file(int(numbers[n])), place, int(room[n]))
        if isinstance(found, int):
            result[n] = -found
        else:
            rows[n], goals[n] = found
            result[n] = len(rows[n])
    sizes = np.array([len(row) for row in rows], np.int64)
    stored = call.memory.scatter(call.lanes, call.address(1), sizes, np.frombuffer(b"".join(rows), np.uint8))
    moved = (result >= 0) & stored
    positions[call.lanes[moved], descriptions[moved]] = goals[moved]
    return np.where(stored | (result < 0), result, -errno.EFAULT)


FILE_CALLS: dict[int, Handler] = {
    17: _getcwd,
    23: _dup,
    24: _dup3,
    25: _fcntl,
    29: constant(-errno.ENOTTY),  # ioctl
    48: _faccessat,
    56: _openat,
    57: _close,
    61: _getdents64,
    62: _lseek,
    63: _read,
    64: _write,
    65: _readv,
    66: _writev,
    67: _pread,
    78: constant(-errno.ENOENT),  # readlinkat
    79: _newfstatat,
    80: _fstat,
    291: _statx,
    439: _faccessat,
}
"""By number."""
