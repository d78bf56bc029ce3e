"""A benchmark guest on a device against the CPU: outputs, retired counts and registers of every lane."""

from __future__ import annotations

import struct

import vmjit
from tests.cli.conftest import guest
from tests.differential.oracles import settle


def check_guest(device: str, name: str, isa: str, tier: str, lanes: int, *, cpu_tier: str = "interpreter") -> None:
    """Twice: the second run is in code compiled meanwhile."""
    prog = vmjit.load(guest(name, isa))
    inputs = [struct.pack("<II", seed, 1) for seed in range(lanes)]
    expected = vmjit.Machine(prog, lanes, "cpu", cpu_tier, "16KiB")
    expected.set_input(inputs)
    want = expected.run()
    m = vmjit.Machine(prog, lanes, device, tier, "16KiB", fallback=False)
    for _ in range(2):
        m.reset()
        m.set_input(inputs)
        got = m.run()
        assert [got.output(i) for i in range(lanes)] == [want.output(i) for i in range(lanes)]
        assert (m.retired == expected.retired).all()
        assert (m.registers.array() == expected.registers.array()).all()
        settle()
    assert got.device == device
    if tier != "interpreter":
        assert got.tiers["scalar"] > got.tiers["interpreter"]
