"""When all lanes of a machine run one by one for a while, since running together cost more."""

from __future__ import annotations

import itertools

import numpy as np

from vmjit.kernels.layout import MachineBlock
from vmjit.vector_tier import GroupGovernor

MUCH = 1_000_000_000


def block(together: float, alone: float, work: int = MUCH) -> np.ndarray:
    """A machine's block with what an instruction took, in cycles, of so many in groups."""
    found = np.zeros(MachineBlock.BYTES // 8, np.uint64)
    measured(found, together, work)
    found[MachineBlock.SCALAR_CYCLES // 8] = int(alone * MUCH)
    found[MachineBlock.SCALAR_WORK // 8] = MUCH
    return found


def measured(found: np.ndarray, together: float, work: int = MUCH) -> None:
    found[MachineBlock.GROUP_CYCLES // 8] = int(together * work)
    found[MachineBlock.GROUP_WORK // 8] = work


def rests(found: np.ndarray) -> bool:
    return bool(found[MachineBlock.ALONE // 8])


def test_what_is_quicker_goes_on() -> None:
    found = block(together=0.1, alone=0.5)
    GroupGovernor(found).look(0.0, 0)
    assert not rests(found)


def test_what_is_slower_rests_twice_as_long_each_time() -> None:
    found = block(together=0.6, alone=0.5)
    governor = GroupGovernor(found)
    now, pauses = 0.0, []
    for _ in range(4):
        measured(found, 0.6)
        governor.look(now, 0)
        assert rests(found)
        began = now
        while rests(found):
            now += 0.01
            governor.look(now, 0)
        pauses.append(now - began)
    assert all(1.8 < later / sooner < 2.2 for sooner, later in itertools.pairwise(pauses))


def test_success_makes_the_next_rest_short() -> None:
    found = block(together=0.6, alone=0.5)
    governor = GroupGovernor(found)
    for now in (0.0, 100.0, 200.0, 300.0):  # slower, tried again, slower, tried again
        measured(found, 0.6)
        governor.look(now, 0)
    measured(found, 0.1)
    governor.look(301.0, 0)
    measured(found, 0.6)
    governor.look(302.0, 0)
    assert rests(found)
    governor.look(302.2, 0)
    assert not rests(found)


def test_nothing_is_decided_while_code_arrives() -> None:
    found = block(together=9.0, alone=0.5)
    governor = GroupGovernor(found)
    governor.look(0.0, 1)
    assert not rests(found)
    measured(found, 9.0)
    governor.look(0.1, 1)
    assert rests(found)


def test_little_tells_nothing() -> None:
    found = block(together=9.0, alone=0.5, work=1_000_000)
    GroupGovernor(found).look(0.0, 0)
    assert not rests(found)
    found = block(together=9.0, alone=0.5)
    found[MachineBlock.SCALAR_WORK // 8] = 0
    GroupGovernor(found).look(0.0, 0)
    assert not rests(found)


def test_new_code_ends_a_rest_once_all_has_come() -> None:
    found = block(together=9.0, alone=0.5)
    governor = GroupGovernor(found)
    governor.look(0.0, 1)
    measured(found, 9.0)
    governor.look(0.01, 1, awaited=True)
    assert rests(found)
    governor.look(0.02, 2, awaited=True)
    assert rests(found)
    governor.look(0.03, 2, awaited=False)
    assert not rests(found)
