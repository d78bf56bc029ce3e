"""Programs and regions that the tests explain."""

from __future__ import annotations

import vmjit
from tests.cli.conftest import guest
from vmjit.explain.explanation import Explanation, explain
from vmjit.explain.targets import Assumed, Subject
from vmjit.memory_layout import plan_memory
from vmjit.static_code import StaticCode

ISAS = ("rv32im", "rv64imac")


def explained(name: str, isa: str, place: str, targets: list[str]) -> Explanation:
    return explain(vmjit.load(guest(name, isa)), place, targets=targets)


def subject_of(name: str, isa: str, place: str) -> Subject:
    program = vmjit.load(guest(name, isa))
    code = StaticCode(program)
    region = code.region(program.address(place))
    assert region is not None
    return Subject(region, region, code.decoder.registers, plan_memory(program, 1 << 20), Assumed(0b11110))
