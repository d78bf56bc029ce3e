"""What a Linux program finds on its stack when it starts: arguments, environment and the auxiliary vector.

Source: System V ABI, "Initial Process Stack"; RISC-V ELF psABI; `getauxval(3)`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from vmjit.program import Program

PAGE = 4096

_AT_NULL, _AT_PHDR, _AT_PHENT, _AT_PHNUM, _AT_PAGESZ, _AT_BASE, _AT_FLAGS, _AT_ENTRY = 0, 3, 4, 5, 6, 7, 8, 9
_AT_UID, _AT_EUID, _AT_GID, _AT_EGID, _AT_HWCAP, _AT_CLKTCK, _AT_SECURE, _AT_RANDOM, _AT_EXECFN = (
    *(11, 12, 13, 14, 16, 17, 23, 25, 31),
)
USER = 1000
_CLOCK_TICKS = 100
RANDOM_BYTES = 16


@dataclass(frozen=True)
class InitialStack:
    """`data` is for address `sp`; the `RANDOM_BYTES` that AT_RANDOM points to are at `random`."""

    sp: int
    data: bytes
    random: int


def initial_stack(program: Program, top: int, arguments: Sequence[bytes], environment: Sequence[bytes]) -> InitialStack:
    """The stack below address `top`."""
    word = "<I" if program.xlen == 32 else "<Q"
    strings = b"".join(text + b"\0" for text in (*arguments, *environment))
    first = (top - 16 - len(strings)) & ~15
    random = first - RANDOM_BYTES
    starts, place = [], first
    for text in (*arguments, *environment):
        starts.append(place)
        place += len(text) + 1
    argv, envp = starts[: len(arguments)], starts[len(arguments) :]
    headers = program.program_headers
    letters = {e for e in program.isa_config.extensions if len(e) == 1}
    vector = [
        *((_AT_PHDR, headers.address), (_AT_PHENT, headers.size), (_AT_PHNUM, headers.count)),
        *((_AT_PAGESZ, PAGE), (_AT_BASE, 0), (_AT_FLAGS, 0), (_AT_ENTRY, program.entry)),
        *((_AT_UID, USER), (_AT_EUID, USER), (_AT_GID, USER), (_AT_EGID, USER)),
        (_AT_HWCAP, sum(1 << (ord(letter) - ord("a")) for letter in letters)),
        *((_AT_CLKTCK, _CLOCK_TICKS), (_AT_SECURE, 0), (_AT_RANDOM, random)),
        *([(_AT_EXECFN, argv[0])] if argv else []),
        (_AT_NULL, 0),
    ]
    table = [len(argv), *argv, 0, *envp, 0, *(value for pair in vector for value in pair)]
    size = struct.calcsize(word) * len(table)
    sp = (random - size) & ~15
    packed = b"".join(struct.pack(word, value) for value in table)
    return InitialStack(sp, packed.ljust(first - sp, b"\0") + strings, random)
