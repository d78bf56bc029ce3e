"""Lanes that make the system calls that a test asks for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.differential.asm import encode
from tests.differential.oracles import program
from vmjit import Machine

PAGE = 4096
CODE, DATA = 0x10000, 0x40000
SEEK = 62


class Caller:
    """Lanes that make the calls that a test asks for."""

    def __init__(self, xlen: int, lanes: int) -> None:
        self.xlen, self.lanes = xlen, lanes
        code = program(f"rv{xlen}imac", encode("ecall") + encode("ebreak"), CODE, data=(DATA, 0x10000))
        self.machine = Machine(code, lanes, "cpu", "interpreter", memory="256KiB", environment="linux")

    def call(self, number: int, *arguments: int | Sequence[int]) -> list[int]:
        """What each lane gets, an error as a negative number; an argument is for all lanes, or one for each."""
        m = self.machine
        m.pc = CODE
        m.registers["a7"] = number
        for index in range(6):
            given = arguments[index] if index < len(arguments) else 0
            values = [given] * self.lanes if isinstance(given, int) else list(given)
            m.registers[f"a{index}"] = np.array([v % (1 << self.xlen) for v in values], np.uint64)
        assert m.run(max_instructions=10).stops() == {"EBREAK": self.lanes}
        dtype = np.int32 if self.xlen == 32 else np.int64
        found = [int(v) for v in np.asarray(m.registers["a0"]).astype(dtype)]
        return [v if v > -PAGE else v % (1 << self.xlen) for v in found]

    def write(self, address: int, rows: Sequence[bytes]) -> None:
        self.machine.memory.write(address, np.frombuffer(b"".join(rows), np.uint8).reshape(self.lanes, -1))

    def read(self, address: int, size: int) -> list[bytes]:
        return [row.tobytes() for row in self.machine.memory.read(address, size)]

    def seek(self, descriptor: int) -> list[int]:
        """Where each lane's descriptor is."""
        if self.xlen == 64:
            return self.call(SEEK, descriptor, 0, 1)
        found = self.call(SEEK, descriptor, 0, 0, DATA + 0x9000, 1)
        where = [int.from_bytes(row, "little") for row in self.read(DATA + 0x9000, 8)]
        return [w if f == 0 else f for f, w in zip(found, where, strict=True)]
