"""Float registers as users see them: machines, executors, and ISAs without floats."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from tests.differential.asm import encode
from tests.floats.encoding import INSTRUCTIONS, read_status
from vmjit import Executor, Machine, Program, Stop
from vmjit.errors import ArgumentError

ADD, DIVIDE = (next(i for i in INSTRUCTIONS if i.name == name) for name in ("fadd.d", "fdiv.d"))
CODE = ADD.encode(2, [0, 1]) + DIVIDE.encode(3, [0, 1]) + read_status(10)
XLENS = pytest.mark.parametrize("xlen", [32, 64])


def bits(value: float) -> int:
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


@XLENS
def test_registers_of_a_machine(xlen: int) -> None:
    m = Machine(Program.from_bytes(CODE + encode("ebreak"), f"rv{xlen}imafd"), 3, "cpu")
    assert list(m.registers)[32:] == ["fcsr", *(f"f{i}" for i in range(32))]
    m.registers["ft0"] = [bits(1.0), bits(2.0), bits(-3.0)]
    m.registers["f1"] = bits(3.0)
    m.registers["fcsr"] = 0x40  # rounding down
    assert m.run().stops() == {"EBREAK": 3}
    assert m.registers["f2"].dtype == np.uint64
    assert m.registers["ft2"].view(np.float64).tolist() == [4.0, 5.0, 0.0]
    assert m.registers["ft3"].view(np.float64)[0] == 1 / 3  # which is below a third
    assert m.registers["a0"].dtype == (np.uint32 if xlen == 32 else np.uint64)
    assert m.registers["a0"].tolist() == m.registers["fcsr"].tolist() == [0x41, 0x41, 0x40]
    assert m.registers.array().shape == (32, 3)
    assert m.registers.array().dtype == m.registers["a0"].dtype
    m.reset()
    assert not m.registers["fcsr"].any()


def test_mistakes_with_registers() -> None:
    m = Machine(Program.from_bytes(CODE, "rv64imafd"), 1, "cpu")
    with pytest.raises(ArgumentError, match="eight bits"):
        m.registers["fcsr"] = 256
    with pytest.raises(ArgumentError, match="f0 to f31"):
        m.registers["f32"]
    with pytest.raises(ArgumentError, match="x0 to x31"):
        m.registers[33]
    without = Machine(Program.from_bytes(encode("ebreak"), "rv64imac"), 1, "cpu")
    with pytest.raises(ArgumentError, match="no register 'fa0'; there are x0 to x31 and"):
        without.registers["fa0"]


def test_without_f_its_instructions_are_unsupported() -> None:
    m = Machine(Program.from_bytes(CODE, "rv64imac"), 1, "cpu")
    assert m.run().stops() == {"UNSUPPORTED": 1}
    only_f = Machine(Program.from_bytes(CODE, "rv64imafc"), 1, "cpu")
    assert only_f.run().stops() == {"UNSUPPORTED": 1}


@XLENS
@pytest.mark.parametrize("tier", ["interpreter", "scalar"])
def test_registers_of_an_executor(xlen: int, tier: str) -> None:
    executor = Executor(f"rv{xlen}imafd", "cpu", tier)
    registers = np.zeros((32, 2), np.uint32 if xlen == 32 else np.uint64)
    floats = np.zeros((33, 2), np.uint64)
    floats[0] = [bits(1.0), bits(6.0)]
    floats[1] = bits(3.0)
    done = executor.execute(CODE, 0x1000, registers, float_registers=floats)
    assert done.success
    assert (done.stop == Stop.LEFT).all()
    assert floats[2].view(np.float64).tolist() == [4.0, 9.0]
    assert floats[3].view(np.float64).tolist() == [1 / 3, 2.0]
    assert floats[32].tolist() == registers[10].tolist() == [1, 0]
    floats[32] = 0xFFFF  # what is no flag and no rounding mode is not there
    executor.execute(read_status(10), 0x1000, registers, float_registers=floats)
    assert registers[10].tolist() == [0xFF, 0xFF]
    executor.execute(read_status(10), 0x1000, registers)
    assert registers[10].tolist() == [0, 0]


def test_mistakes_with_an_executors_registers() -> None:
    executor = Executor("rv64imafd", "cpu")
    registers = np.zeros((32, 2), np.uint64)
    with pytest.raises(ArgumentError, match=r"float_registers must have shape \(33,\)"):
        executor.execute(CODE, 0, registers, float_registers=np.zeros((32, 2), np.uint64))
    with pytest.raises(ArgumentError, match="float_registers must be for 2 lanes"):
        executor.execute(CODE, 0, registers, float_registers=np.zeros((33, 3), np.uint64))
    with pytest.raises(ArgumentError, match="float_registers must be an array of uint64"):
        executor.execute(CODE, 0, registers, float_registers=np.zeros((33, 2)))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="rv64imac has no float registers"):
        Executor("rv64imac", "cpu").execute(CODE, 0, registers, float_registers=np.zeros((33, 2), np.uint64))


@pytest.mark.parametrize("tier", ["interpreter", "scalar", "auto"])
@pytest.mark.parametrize("mode", [5, 6, 7])
def test_a_rounding_mode_that_is_none_stops_the_lane(tier: str, mode: int) -> None:
    m = Machine(Program.from_bytes(CODE, "rv64imafd"), 1, "cpu", tier)
    m.registers["fcsr"] = mode << 5
    result = m.run()
    assert result.stops() == {"UNSUPPORTED": 1}
    assert result.pc[0] == 0x10000
    assert result.retired[0] == 0
    assert int(m.registers["fcsr"][0]) == mode << 5
