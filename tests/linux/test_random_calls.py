"""Random system calls with random arguments harm nobody: no exception here, no lane but their own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.differential.asm import encode
from tests.differential.oracles import program
from vmjit import Machine, Stop
from vmjit.environment.linux import Linux

CODE, TABLE = 0x10000, 0x40000
CALLS, WORDS, LANES = 12, 8, 4
_EXITS = (93, 94, 129, 130, 131)


def _code(xlen: int) -> bytes:
    """Make the calls of the table one after the other, then exit with 42."""
    load, size = ("lw", 4) if xlen == 32 else ("ld", 8)
    body = b"".join(encode(load, rd=10 + i, rs1=8, imm=size * i) for i in range(8)) + encode("ecall")
    body += encode("addi", rd=8, rs1=8, imm=size * WORDS) + encode("addi", rd=9, rs1=9, imm=-1)
    start = encode("lui", rd=8, imm=TABLE >> 12) + encode("addi", rd=9, imm=CALLS)
    loop = body + encode("bne", rs1=9, rs2=0, imm=-len(body))
    return start + loop + encode("addi", rd=10, imm=42) + encode("addi", rd=17, imm=93) + encode("ecall")


addresses = st.sampled_from(
    [0, 1, TABLE, TABLE + 8, TABLE + 1000, CODE, 0x41000, 0x50000, 0xFFFF_F000, -1, -4096, 1 << 31]
)
arguments = st.one_of(st.integers(-5, 40), addresses, st.integers(-(1 << 63), (1 << 63) - 1))
calls = st.tuples(
    st.one_of(st.sampled_from(sorted(set(Linux.calls) - set(_EXITS))), st.integers(0, 500)),
    st.lists(arguments, min_size=6, max_size=6),
)


@pytest.mark.parametrize("xlen", [32, 64])
def test_random_calls(xlen: int) -> None:
    # Regions are writable data, so that calls may write anywhere in them.
    prog = program(f"rv{xlen}imac", _code(xlen), CODE, data=(TABLE, 8 * WORDS * CALLS))
    dtype = np.uint32 if xlen == 32 else np.uint64
    m = Machine(prog, LANES, "cpu", tier="interpreter", memory="256KiB", environment="linux")
    still = [(172, [0] * 6)] * CALLS  # getpid

    def rows(made: list[tuple[int, list[int]]]) -> list[list[int]]:
        return [[a % (1 << xlen) for a in (*given, 0, number)] for number, given in made]

    @settings(max_examples=150)
    @given(st.lists(st.lists(calls, min_size=CALLS, max_size=CALLS), min_size=LANES - 1, max_size=LANES - 1))
    def test(made: list[list[tuple[int, list[int]]]]) -> None:
        m.reset()
        m.set_input([b"some input"] * LANES)
        # a0 to a5, a6 and a7: the number comes last.
        table = np.array([rows(lane) for lane in (*made, still)], dtype)
        m.memory.write(TABLE, table.reshape(LANES, -1).view(np.uint8))
        result = m.run(10_000)
        assert result.stop[LANES - 1] == Stop.EXIT, "the lane that did nothing wrong"
        assert result.exit_code[LANES - 1] == 42
        for lane in range(LANES - 1):
            assert result.stop[lane] in (Stop.EXIT, Stop.FAULT, Stop.BUDGET, Stop.EBREAK, Stop.UNSUPPORTED)

    test()
