"""Memory hooks: device registers of all sizes and kinds of access, compiled and on the host, everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.differential.oracles import program
from tests.machine.harness import A0, A1, A2, A3, A4, A5, A7, DATA, EVERYWHERE, S0, S1, T0, T1, ZERO, Assembly, labelled
from vmjit import Access, ArgumentError, HookError, Machine, MemoryAccesses
from vmjit.hooks import load, store
from vmjit.program import Program

everywhere = pytest.mark.parametrize(("device", "tier"), EVERYWHERE)
both = pytest.mark.parametrize("xlen", [32, 64])
kinds = pytest.mark.parametrize("host", [False, True], ids=["compiled", "host"])
REGISTERS = 0x7000_0000
STATE = DATA
LANES = 40


def device_program(xlen: int) -> Program:
    """Writes its lane's number to a device register ten times, reads a sum back in every width, adds atomically."""
    a = Assembly(xlen)
    a.put("lui", S0, imm=REGISTERS >> 12)
    a.put("addi", T0, ZERO, imm=10)
    a.label("loop")
    a.put("add", T1, A0, T0)
    a.put("sw", 0, S0, T1)
    a.put("addi", T0, T0, imm=-1)
    a.put("bne", rs1=T0, to="loop")
    a.put("lw", A1, S0, imm=8)
    a.put("lh", A2, S0, imm=8)
    a.put("lbu", A3, S0, imm=8)
    a.put("lb", A4, S0, imm=9)
    a.put("addi", S1, S0, imm=8)
    a.put("addi", T1, ZERO, imm=5)
    a.put("amoadd.w", A5, S1, T1)
    a.put("lw", S1, S0, imm=8)
    a.put("addi", A7, ZERO, imm=93)
    a.label("end")
    a.put("ecall")
    return labelled(a, f"rv{xlen}imac", (STATE, 64))


def expected(lane: int) -> list[int]:
    """a1 to a5 and s1."""
    total = sum(lane + i for i in range(1, 11)) * 1001 & 0xFFFFFFFF
    low = total & 0xFFFF

    def signed(value: int, bits: int) -> int:
        return value - (1 << bits) if value >> (bits - 1) else value

    return [
        signed(total, 32),
        signed(low, 16),
        total & 0xFF,
        signed(total >> 8 & 0xFF, 8),
        signed(total, 32),
        signed((total + 5) * 1001 & 0xFFFFFFFF, 32),
    ]


def compiled_device() -> dict[str, Any]:
    """Sums what is written to register 0 times 1001; register 8 is the sum, and can be set."""

    def read(memory: Any, address: int, size: int) -> int:
        return int(load(memory, STATE, 4)) >> (8 * (address - REGISTERS - 8))

    def write(memory: Any, address: int, size: int, value: int) -> None:
        if address == REGISTERS:
            store(memory, STATE, 4, load(memory, STATE, 4) + value * 1001)
        else:
            store(memory, STATE, 4, value * 1001)

    return {"read": read, "write": write}


def host_device() -> dict[str, Any]:
    """The same for arrays."""
    sums = np.zeros(LANES, np.uint32)

    def read(accesses: MemoryAccesses) -> Any:
        assert accesses.size in (1, 2, 4)
        assert (accesses.pc > 0).all()
        return sums[accesses.lanes] >> (8 * (accesses.addresses - np.uint64(REGISTERS + 8))).astype(np.uint32)

    def write(accesses: MemoryAccesses, values: Any) -> None:
        assert accesses.address == REGISTERS
        add = (accesses.addresses == REGISTERS) * sums[accesses.lanes]
        sums[accesses.lanes] = add + values.astype(np.uint32) * np.uint32(1001)
        accesses.write(STATE, sums[accesses.lanes].view(np.uint8).reshape(-1, 4))

    return {"read": read, "write": write, "host": True}


@both
@kinds
@everywhere
def test_device_registers(xlen: int, host: bool, device: str, tier: str) -> None:
    m = Machine(device_program(xlen), LANES, device, tier)
    hook = m.hook_memory(REGISTERS, 16, **(host_device() if host else compiled_device()))
    r = m.run()
    assert r.stops() == {"EXIT": LANES}
    found = np.stack([m.registers[name] for name in ("a1", "a2", "a3", "a4", "a5", "s1")])
    mask = (1 << xlen) - 1
    assert found.T.tolist() == [[v & mask for v in expected(lane)] for lane in range(LANES)]
    assert (r.retired == r.retired[0]).all()
    assert int(r.retired[0]) == 2 + 40 + 10
    state = m.memory.read(STATE, 4).view(np.uint32)[:, 0]
    assert (state == found[5].astype(np.uint32)).all()
    m.unhook(hook)
    m.reset()
    r = m.run()
    assert r.stops() == {"FAULT": LANES}
    assert (r.fault_address == REGISTERS).all()
    with pytest.raises(ArgumentError):
        m.unhook(hook)


@kinds
@everywhere
def test_budgets_and_snapshots(host: bool, device: str, tier: str) -> None:
    """However runs are cut, each access is made once."""
    m = Machine(device_program(64), 3, device, tier)
    m.hook_memory(REGISTERS, 16, **(host_device() if host else compiled_device()))
    m.run()
    total, state = m.retired, m.memory.read(STATE, 4)
    m.reset()
    retired = 0
    while m.run(max_instructions=3).stops() != {"EXIT": 3}:
        retired += 3
        assert (m.retired == np.minimum(retired, total)).all()
    assert host or (m.memory.read(STATE, 4) == state).all(), "the host's device remembers the first run"


@kinds
@everywhere
def test_one_direction_and_edges(host: bool, device: str, tier: str) -> None:
    """What no function stands for is a fault as before, at its place; also across the end of the range."""
    m = Machine(device_program(64), 3, device, tier)
    if host:
        m.hook_memory(REGISTERS, 8, write=lambda accesses, values: None, host=True)
    else:
        m.hook_memory(REGISTERS, 8, write=lambda memory, address, size, value: None)
    r = m.run()
    assert r.stops() == {"FAULT": 3}
    assert (r.fault_address == REGISTERS + 8).all()
    assert (r.fault_access == int(Access.READ)).all()
    short = Machine(device_program(64), 3, device, tier)
    if host:
        short.hook_memory(REGISTERS, 3, write=lambda accesses, values: None, host=True)
    else:
        short.hook_memory(REGISTERS, 3, write=lambda memory, address, size, value: None)
    r = short.run()
    assert r.stops() == {"FAULT": 3}
    assert (r.fault_address == REGISTERS).all()
    assert (r.fault_access == int(Access.WRITE)).all()
    assert (r.fault_pc == short.program.symbols["loop"] + 4).all()


@everywhere
def test_functions_that_fail(device: str, tier: str) -> None:
    def bad(memory: Any, address: int, size: int, value: int) -> None:
        if value == 9:
            raise ValueError("nine")

    m = Machine(device_program(64), 3, device, tier)
    hook = m.hook_memory(REGISTERS, 16, write=bad, read=lambda memory, address, size: load(memory, 8, 4))
    with pytest.raises(HookError, match=r"hook of memory at 0x70000000 raised an exception in lane \d"):
        m.run()
    m.unhook(hook)
    m.reset()
    m.hook_memory(
        REGISTERS,
        16,
        write=lambda memory, address, size, value: None,
        read=lambda memory, address, size: load(memory, 8, 4),
    )
    r = m.run()
    assert r.stops() == {"FAULT": 3}
    assert (r.fault_address == 8).all(), "the access that the hook itself made"
    assert (r.fault_pc == m.program.symbols["loop"] + 16).all()


def test_exceptions_on_the_host() -> None:
    m = Machine(device_program(64), 3)
    fail = True

    def write(accesses: MemoryAccesses, values: Any) -> None:
        if fail and (values == 9).any():
            raise KeyError("nine")

    m.hook_memory(REGISTERS, 8, write=write, host=True)
    m.hook_memory(REGISTERS + 8, 8, read=lambda accesses: 7, write=write, host=True)
    with pytest.raises(KeyError):
        m.run()
    fail = False
    assert m.run().stops() == {"EXIT": 3}
    assert (m.registers["a1"] == 7).all()

    def stops(accesses: MemoryAccesses) -> int:
        accesses.stop()
        return 0

    m.reset()
    m = Machine(device_program(64), 3)
    m.hook_memory(REGISTERS, 16, read=stops, write=write, host=True)
    with pytest.raises(ArgumentError, match="stopped in the middle"):
        m.run()


def test_places_that_cannot_be() -> None:
    m = Machine(device_program(32), 2)

    def read(memory: Any, address: int, size: int) -> int:
        return 0

    m.hook_memory(REGISTERS, 16, read=read)
    for place, size, message in (
        (DATA, 4, "there is memory"),
        (DATA - 4, 8, "there is memory"),
        (REGISTERS + 15, 1, "a memory hook"),
        (0xFFFF_FFF0, 32, "not in the 32-bit address space"),
        (-4, 4, "not in the"),
        (REGISTERS + 64, 0, "size"),
    ):
        with pytest.raises(ArgumentError, match=message):
            m.hook_memory(place, size, read=read)
    with pytest.raises(ArgumentError, match="a function for reads"):
        m.hook_memory(REGISTERS + 64, 4)
    with pytest.raises(ArgumentError, match="function"):
        m.hook_memory(REGISTERS + 64, 4, read=5)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="Numba cannot compile"):
        m.hook_memory(REGISTERS + 64, 4, read=lambda memory, address, size: {}.nothing)  # type: ignore[attr-defined]


@pytest.mark.parametrize("host", [False, True])
def test_float_accesses(host: bool) -> None:
    """Floats are loaded and stored as any number, NaN-boxed as the ISA says."""
    from tests.differential.asm import encode

    code = b"".join(
        (
            encode("lui", rd=8, imm=REGISTERS >> 12),
            bytes.fromhex("07 25 04 00"),  # flw fa0, 0(s0)
            bytes.fromhex("87 35 84 00"),  # fld fa1, 8(s0)
            bytes.fromhex("27 38 b4 00"),  # fsd fa1, 16(s0)
            encode("ebreak"),
        )
    )
    m = Machine(program("rv64imafdc", code), 3)
    seen: list[int] = []
    if host:
        m.hook_memory(
            REGISTERS,
            32,
            read=lambda accesses: 0x4000_0000_3F80_0000 if accesses.size == 8 else 0x3F80_0000,
            write=lambda accesses, values: seen.extend(values.tolist()),
            host=True,
        )
    else:

        def read(memory: Any, address: int, size: int) -> int:
            return 0x4000_0000_3F80_0000

        m.hook_memory(REGISTERS, 16, read=read)
    r = m.run()
    assert (m.registers["fa0"] == 0xFFFFFFFF_3F800000).all()
    assert (m.registers["fa1"] == 0x4000_0000_3F80_0000).all()
    if host:
        assert r.stops() == {"EBREAK": 3}
        assert seen == [0x4000_0000_3F80_0000] * 3
    else:
        assert r.stops() == {"FAULT": 3}


def test_on_executed_ptx() -> None:
    m = Machine(device_program(64), 3, "ptx", "interpreter")
    m.hook_memory(REGISTERS, 16, **compiled_device())
    assert m.run().stops() == {"EXIT": 3}
    assert m.registers["s1"].astype(np.uint32).tolist() == [expected(lane)[5] & 0xFFFFFFFF for lane in range(3)]
