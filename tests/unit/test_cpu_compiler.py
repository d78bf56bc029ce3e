"""Compiling for CPUs that need not be this computer's."""

from __future__ import annotations

import pytest

from vmjit.errors import ArgumentError
from vmjit.translators.cpu import CpuCompiler, cpu_target

IR = """\
define i64 @double_it(i64 %x) {
  %y = shl i64 %x, 1
  ret i64 %y
}
"""


def test_a_named_cpu() -> None:
    arm = CpuCompiler.of("aarch64-unknown-linux-gnu", "neoverse-n1")
    assert "lsl\tx0, x0, #1" in arm.assembly(IR)
    image = arm.compile(IR)
    assert (image[:4], int.from_bytes(image[18:20], "little")) == (b"\x7fELF", 183)  # EM_AARCH64
    assert arm.identity[:2] == ("aarch64-unknown-linux-gnu", "neoverse-n1")


def test_this_computers_cpu_by_its_name() -> None:
    host = cpu_target()
    same = CpuCompiler.of(host.triple, host.cpu, host.features)
    assert same.identity == host.identity
    assert same.assembly(IR) == host.assembly(IR)


def test_no_such_architecture() -> None:
    with pytest.raises(ArgumentError, match="does not compile for nothing-unknown-linux-gnu"):
        CpuCompiler.of("nothing-unknown-linux-gnu", "")
