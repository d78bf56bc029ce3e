"""Hooks and `run_until`: who is called for which lanes, and that a program does the same beside what hooks change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.differential.oracles import settle
from tests.machine.harness import A0, A1, A7, DATA, EVERYWHERE, RA, S0, S1, SP, T0, ZERO, Assembly, labelled
from vmjit import Access, ArgumentError, GuestAddressError, HookedLanes, HookError, Machine, Stop
from vmjit.hooks import load, store
from vmjit.program import Program

everywhere = pytest.mark.parametrize(("device", "tier"), EVERYWHERE)
both = pytest.mark.parametrize("xlen", [32, 64])
LANES = 70


def squares(xlen: int, isa: str = "imac", times: int = 5) -> Program:
    """Adds f(i) = i * i for i from 1 to `times` times the lane's number, calling f each time; exits with the sum."""
    a = Assembly(xlen)
    a.put("addi", S1, ZERO)
    a.put("addi", T0, ZERO, imm=times)
    a.put("mul", S0, A0, T0)
    a.label("loop")
    a.put("beq", rs1=S0, rs2=ZERO, to="done")
    a.put("addi", A0, S0)
    a.put("jal", RA, to="f")
    a.label("back")
    a.put("add", S1, S1, A0)
    a.put("addi", S0, S0, imm=-1)
    a.put("jal", ZERO, to="loop")
    a.label("f")
    a.put("mul", A0, A0, A0)
    a.label("leave")
    a.put("jalr", ZERO, RA)
    a.label("done")
    a.put("addi", A0, S1)
    a.put("addi", A7, ZERO, imm=93)
    a.label("end")
    a.put("ecall")
    return labelled(a, f"rv{xlen}{isa}", (DATA, 64))


def sums(xlen: int) -> list[int]:
    return [sum(i * i for i in range(1, 5 * lane + 1)) % (1 << xlen) for lane in range(LANES)]


@both
@everywhere
def test_calls_are_seen(xlen: int, device: str, tier: str) -> None:
    """Each call of f is seen once, with its argument; and nothing changes by that."""
    m = Machine(squares(xlen), LANES, device, tier)
    seen: list[list[int]] = [[] for _ in range(LANES)]

    def at_f(hooked: HookedLanes) -> None:
        assert (hooked.pc == hooked.address).all()
        for lane, value in zip(hooked.lanes.tolist(), hooked.registers["a0"].tolist(), strict=True):
            seen[lane].append(value)

    hook = m.hook("f", at_f, host=True)
    assert m.run().stops() == {"EXIT": LANES}
    assert m.registers["s1"].tolist() == sums(xlen)
    assert seen == [list(range(5 * lane, 0, -1)) for lane in range(LANES)]
    plain = Machine(squares(xlen), LANES)
    plain.run()
    assert (m.retired == plain.retired).all()
    m.reset()
    m.unhook(hook)
    assert m.run().stops() == {"EXIT": LANES}
    assert len(seen[1]) == 5
    with pytest.raises(ArgumentError):
        m.unhook(hook)


@both
@everywhere
def test_functions_are_replaced(xlen: int, device: str, tier: str) -> None:
    """A hook that gives the result itself and sends lanes back to their callers; half of them."""
    m = Machine(squares(xlen), LANES, device, tier)

    def cubes(hooked: HookedLanes) -> None:
        odd = hooked.lanes % 2 == 1
        argument = hooked.registers["a0"].astype(np.uint64)
        hooked.registers["a0"] = np.where(odd, argument**3, argument)
        hooked.pc = np.where(odd, hooked.registers["ra"], hooked.pc)

    m.hook("f", cubes, host=True)
    m.run()
    expected = [sum(i ** (3 if lane % 2 else 2) for i in range(1, 5 * lane + 1)) % (1 << xlen) for lane in range(LANES)]
    assert m.registers["s1"].tolist() == expected


@everywhere
def test_running_until(device: str, tier: str) -> None:
    p = squares(64)
    m = Machine(p, LANES, device, tier)
    r = m.run_until("f")
    assert r.stops() == {"ARRIVED": LANES - 1, "EXIT": 1}
    assert (r.pc[1:] == p.symbols["f"]).all()
    assert m.registers["a0"][1:].tolist() == [5 * lane for lane in range(1, LANES)]
    r = m.run_until("f")
    assert (r.retired[1:] == 8).all()
    assert m.registers["a0"][1:].tolist() == [5 * lane - 1 for lane in range(1, LANES)]
    here = m.snapshot()
    assert m.run().stops() == {"EXIT": LANES}
    assert m.registers["s1"].tolist() == sums(64)
    m.restore(here)
    assert (m.run_until("f").retired[1:] == 8).all()
    m.restore(here)
    assert m.run_until(p.symbols["end"]).stops() == {"ARRIVED": LANES - 1, "EXIT": 1}
    assert m.run_until("end").stops() == {"EXIT": LANES}
    m.reset()
    assert m.run_until("f", max_instructions=3).stops() == {"BUDGET": LANES}
    m.pc = p.symbols["f"]
    assert (m.run_until("f").retired == 0).all()


@everywhere
def test_budgets_are_exact(device: str, tier: str) -> None:
    """However runs are cut, hooks are called as often and lanes stop after as many instructions."""
    p = squares(64)
    m = Machine(p, 3, device, tier)
    calls = []
    m.hook("f", lambda hooked: calls.extend(hooked.lanes.tolist()), host=True)
    m.hook("leave", lambda hooked: calls.extend((10 + hooked.lanes).tolist()), host=True)
    m.hook("end", lambda hooked: calls.extend((20 + hooked.lanes).tolist()), host=True)
    m.run()
    total, expected = m.retired, sorted(calls)
    m.reset()
    for step in (1, 2, 3, 7):
        calls.clear()
        retired = 0
        while m.run(max_instructions=step).stops() != {"EXIT": 3}:
            retired += step
            assert (m.retired == np.minimum(retired, total)).all()
        assert sorted(calls) == expected
        m.reset()


@everywhere
def test_hooks_that_stop(device: str, tier: str) -> None:
    """A hook stops some lanes where they are; they go on from there without it being called for that again."""
    p = squares(64)
    m = Machine(p, LANES, device, tier)
    calls = np.zeros(LANES, int)

    def stop_some(hooked: HookedLanes) -> None:
        calls[hooked.lanes] += 1
        hooked.stop(hooked.lanes % 3 == 0)

    m.hook("back", stop_some, host=True)
    r = m.run()
    assert (r.stop[3::3] == int(Stop.ARRIVED)).all()
    assert (r.pc[3::3] == p.symbols["back"]).all()
    assert (r.stop[1::3] == int(Stop.EXIT)).all()
    assert calls[3] == 1
    for expected in (2, 3):
        m.run()
        assert calls[3] == expected
    while m.run().stops() != {"EXIT": LANES}:
        pass
    assert m.registers["s1"].tolist() == sums(64)
    assert calls.tolist() == [5 * lane for lane in range(LANES)]


def test_several_hooks_at_one_place() -> None:
    m = Machine(squares(64), 4)
    order = []
    m.hook("f", lambda hooked: order.append(("first", hooked.lanes.tolist())), host=True)

    def second(hooked: HookedLanes) -> None:
        order.append(("second", hooked.lanes.tolist()))
        hooked.pc = np.where(hooked.lanes == 2, hooked.registers["ra"], hooked.pc)

    m.hook("f", second, host=True)
    m.hook("f", lambda hooked: order.append(("third", hooked.lanes.tolist())), host=True)
    r = m.run_until("f")
    assert r.stops() == {"EXIT": 2, "ARRIVED": 2}
    assert order[:3] == [("first", [1, 2, 3]), ("second", [1, 2, 3]), ("third", [1, 3])]


@everywhere
def test_memory_of_hooked_lanes(device: str, tier: str) -> None:
    m = Machine(squares(64), LANES, device, tier)

    def keep(hooked: HookedLanes) -> None:
        sp = hooked.registers["sp"]
        count = hooked.read(sp - np.uint64(8), 8).view(np.uint64)[:, 0] + np.uint64(1)
        hooked.write(sp - np.uint64(8), count.view(np.uint8).reshape(-1, 8))
        hooked.write(DATA, b"seen")
        assert (hooked.retired > 0).all()
        assert len(hooked) == len(hooked.lanes)

    m.hook("f", keep, host=True)
    m.run()
    top = int(m.registers["sp"][0])
    assert m.memory.read(top - 8, 8).view(np.uint64)[:, 0].tolist() == [5 * lane for lane in range(LANES)]
    assert m.memory.read(DATA, 4)[1:].tobytes() == b"seen" * (LANES - 1)


def test_mistakes_in_hooks() -> None:
    """They end the run as exceptions; the machine can go on, and the hook is called again."""
    p = squares(64)
    m = Machine(p, 3)
    wrong = True
    calls = 0

    def bad(hooked: HookedLanes) -> None:
        nonlocal calls
        calls += 1
        if wrong:
            hooked.read(8, 4)

    m.hook("f", bad, host=True)
    with pytest.raises(GuestAddressError, match=r"lane 1 may not read at 0x8 \(hook at"):
        m.run()
    with pytest.raises(GuestAddressError):
        m.run()
    wrong = False
    assert m.run().stops() == {"EXIT": 3}
    assert m.registers["s1"].tolist() == sums(64)[:3]
    assert calls == 2 + 10
    for place, message in (("nothing", "no symbol"), (8, "no executable"), (p.entry + 1, "no instruction")):
        with pytest.raises(ArgumentError, match=message):
            m.hook(place, bad, host=True)
    with pytest.raises(ArgumentError, match="function"):
        m.hook("f", "bad", host=True)  # type: ignore[arg-type]

    def write_badly(hooked: HookedLanes) -> None:
        with pytest.raises(GuestAddressError, match="may not write"):
            hooked.write(0, b"x")
        with pytest.raises(ArgumentError):
            hooked.write(DATA, np.zeros((1, 2, 3), np.uint8))
        with pytest.raises(ArgumentError):
            hooked.registers["a0"] = [1, 2, 3, 4, 5]

    m.reset()
    m.hook("f", write_badly, host=True)
    assert m.run().stops() == {"EXIT": 3}


@pytest.mark.parametrize("isa", ["im", "imac"])
@everywhere
def test_the_guest_has_breakpoints_too(isa: str, device: str, tier: str) -> None:
    """An ebreak of the guest under a hook stops lanes as ever, after the hook; code is read as it is."""
    a = Assembly(64)
    a.put("auipc", T0)
    a.label("load")
    a.put("lw", A1, T0, imm=12)
    a.put("sw", 0, SP, A1, imm=-4)
    a.label("stop")
    a.put("ebreak")
    m = Machine(labelled(a, f"rv64{isa}"), 5, device, tier)
    calls = []
    for place in a.labels:
        m.hook(place, lambda hooked: calls.append(hooked.address), host=True)
    r = m.run()
    assert r.stops() == {"EBREAK": 5}
    assert (r.pc == a.labels["stop"]).all()
    assert calls == [a.labels["load"], a.labels["stop"]]
    assert (m.registers["a1"] == 0x00100073).all()
    m.run()
    assert len(calls) == 3


def test_hooks_in_hot_loops() -> None:
    """What is around a hook is compiled, and the hook stays there."""
    m = Machine(squares(64, times=300), 40, tier="auto")
    calls = 0

    def count(hooked: HookedLanes) -> None:
        nonlocal calls
        calls += len(hooked)

    m.hook("done", count, host=True)
    for runs in range(1, 100):
        m.reset()
        r = m.run()
        assert calls == runs * 40
        if r.tiers["scalar"] + r.tiers["simd"] > r.tiers["interpreter"]:
            return
        settle()
    pytest.fail("nothing was compiled")


@pytest.mark.parametrize("tier", ["interpreter", pytest.param("scalar", marks=pytest.mark.slow)])
def test_on_executed_ptx(tier: str) -> None:
    m = Machine(squares(64), 3, "ptx", tier)
    calls = []
    m.hook("f", lambda hooked: calls.extend(hooked.lanes.tolist()), host=True)
    m.run_until("back")
    assert m.run().stops() == {"EXIT": 3}
    assert m.registers["s1"].tolist() == sums(64)[:3]
    assert sorted(calls) == [1] * 5 + [2] * 10


# -- compiled hooks


def counting(registers: Any, memory: Any) -> None:
    """Counts in front of the stack pointer, and in a register that the program does not use."""
    sp = registers[2]
    store(memory, sp - 8, 8, load(memory, sp - 8, 8) + 1)
    registers[20] += 1
    registers[0] = 7


@both
@everywhere
def test_compiled_hooks(xlen: int, device: str, tier: str) -> None:
    m = Machine(squares(xlen), LANES if device == "cpu" else 9, device, tier)
    hook = m.hook("f", counting)
    for _ in range(3):
        assert m.run().stops() == {"EXIT": m.lanes}
        assert m.registers["s1"].tolist() == sums(xlen)[: m.lanes]
        calls = [5 * lane for lane in range(m.lanes)]
        top = int(m.registers["sp"][0])
        assert m.memory.read(top - 8, 8).view(np.uint64)[:, 0].tolist() == calls
        assert m.registers["s4"].tolist() == calls
        m.reset()
    plain = Machine(squares(xlen), m.lanes)
    plain.run()
    m.run()
    assert (m.retired == plain.retired).all()
    m.reset()
    m.unhook(hook)
    m.run()
    assert not m.registers["s4"].any()


@everywhere
def test_compiled_hooks_keep_budgets_exact(device: str, tier: str) -> None:
    m = Machine(squares(64), 3, device, tier)
    for place in ("f", "leave", "loop", "end"):
        m.hook(place, counting)
    m.run()
    total, calls = m.retired, m.registers["s4"]
    assert calls.tolist() == [1 + 15 * lane + 1 for lane in range(3)]
    for step in (1, 2, 3, 7):
        m.reset()
        retired = 0
        while m.run(max_instructions=step).stops() != {"EXIT": 3}:
            retired += step
            assert (m.retired == np.minimum(retired, total)).all()
        assert (m.registers["s4"] == calls).all()


@everywhere
def test_compiled_conditions(device: str, tier: str) -> None:
    """A hook that gives true stops its lane, as a breakpoint with a condition; the next run goes on behind it."""
    p = squares(64)
    m = Machine(p, 20, device, tier)
    m.hook("f", lambda registers, memory: registers[10] == 3)
    r = m.run()
    assert r.stops() == {"ARRIVED": 19, "EXIT": 1}
    assert (r.pc[1:] == p.symbols["f"]).all()
    assert (m.registers["a0"][1:] == 3).all()
    here = m.snapshot()
    assert m.run().stops() == {"EXIT": 20}
    assert m.registers["s1"].tolist() == sums(64)[:20]
    m.restore(here)
    assert m.run().stops() == {"EXIT": 20}


@everywhere
def test_compiled_hooks_fault(device: str, tier: str) -> None:
    """An access that the lane may not make is its fault, at the hooked instruction."""
    p = squares(64)
    m = Machine(p, 9, device, tier)

    def bad(registers: Any, memory: Any) -> None:
        if registers[8] == 2:
            store(memory, 24, 4, load(memory, registers[2] - 16, 1))

    m.hook("f", bad)
    r = m.run()
    assert r.stops() == {"FAULT": 8, "EXIT": 1}
    assert (r.fault_pc[1:] == p.symbols["f"]).all()
    assert (r.fault_address[1:] == 24).all()
    assert (r.fault_access[1:] == int(Access.WRITE)).all()
    assert (m.registers["s0"][1:] == 2).all()


@pytest.mark.parametrize(("device", "tier"), [("cpu", "auto"), ("cpu", "scalar"), ("host", "interpreter")])
def test_mistakes_in_compiled_hooks(device: str, tier: str) -> None:
    m = Machine(squares(64), 5, device, tier)

    def outside(registers: Any, memory: Any) -> None:
        registers[100 - registers[8]] = 0

    hook = m.hook("f", outside)
    with pytest.raises(HookError, match="raised an exception in lane 1") as caught:
        m.run()
    assert caught.value.pc == m.program.symbols["f"]
    m.unhook(hook)
    assert m.run().stops() == {"EXIT": 5}
    assert m.registers["s1"].tolist() == sums(64)[:5]
    m.reset()
    m.hook("f", lambda registers, memory: load(memory, registers[2], 3))
    with pytest.raises(HookError):
        m.run()
    with pytest.raises(ArgumentError, match="Numba cannot compile the hook"):
        m.hook("f", lambda registers, memory: print(memory.nothing))


def test_both_kinds_at_one_place() -> None:
    m = Machine(squares(64), 5)
    order: list[int] = []
    m.hook("f", counting)
    m.hook("f", lambda hooked: order.extend(hooked.registers["s4"].tolist()), host=True)
    m.hook("f", counting)
    m.hook("f", counting)
    m.hook("back", counting)
    m.run()
    assert m.registers["s4"].tolist() == [20 * lane for lane in range(5)]
    assert sorted(order) == sorted(1 + 4 * i for lane in range(5) for i in range(5 * lane))


def test_compiled_hooks_in_hot_loops() -> None:
    m = Machine(squares(64, times=300), 40, tier="auto")
    m.hook("back", counting)
    for _ in range(100):
        m.reset()
        r = m.run()
        assert m.registers["s4"].tolist() == [300 * lane for lane in range(40)]
        if r.tiers["scalar"] + r.tiers["simd"] > r.tiers["interpreter"]:
            return
    pytest.fail("nothing was compiled")
