"""Every float instruction on operands that matter, on every tier and target, against the reference; and the reference
against Unicorn, which computes floats with an implementation of its own."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.differential.oracles import Unicorn, have_qemu, machine, run_qemu, write_elf
from tests.floats.encoding import INSTRUCTIONS
from tests.floats.vectors import CODE, DATA, Vectors, make_vectors, write_out
from vmjit import vector_tier
from vmjit.compile_thread import COMPILE_THREAD
from vmjit.translators.vector_unit import vector_unit

ISA = {32: "rv32imafdc_zfh", 64: "rv64imafdc_zfh"}
XLENS = pytest.mark.parametrize("xlen", [32, 64])


@cache
def _vectors(xlen: int, lanes: int, rows: int) -> Vectors:
    return make_vectors(xlen, lanes, rows)


def _check(vectors: Vectors, tier: str, device: str = "cpu", runs: int = 1) -> dict[str, int]:
    """Run the guest; gives the instructions by tier of the last run."""
    m = machine(vectors.program(ISA[vectors.xlen]), len(vectors.tables), tier, device=device)
    for run in range(runs):
        if run:
            assert COMPILE_THREAD.wait(300)
            m.reset()
        m.memory.write(DATA, vectors.given())
        result = m.run()
        assert result.stops() == {"EBREAK": len(vectors.tables)}
        found = vectors.complaints(m.memory.read(DATA, vectors.bytes))
        assert not found, f"{tier}, run {run}\n" + "\n".join(found)
    return dict(result.tiers)


@XLENS
def test_interpreter(xlen: int) -> None:
    _check(_vectors(xlen, 16, 30), "interpreter")


@XLENS
@pytest.mark.parametrize("tier", ["scalar", "full"])
def test_compiled_code(xlen: int, tier: str) -> None:
    tiers = _check(_vectors(xlen, 16, 30), tier)
    assert tiers["scalar"] > 0.9 * sum(tiers.values())


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vector_tier.POLICIES, "auto", vector_tier.ALWAYS)


@pytest.mark.parametrize(
    ("xlen", "formats"),
    [
        (64, "d"),
        (32, "d"),
        pytest.param(64, "sd", marks=pytest.mark.slow),
        pytest.param(64, "sdh", marks=pytest.mark.slow),
        pytest.param(32, "sdh", marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("always")
def test_lane_groups(xlen: int, formats: str) -> None:
    vectors = make_vectors(xlen, vector_unit().lanes, 16, formats=formats, groups=True)
    for one in vectors.each():  # a guest of its own each: code for groups is large
        tiers = _check(one, "auto", runs=4)
        assert tiers["simd"] > 0.5 * sum(tiers.values()), one.steps


@XLENS
@pytest.mark.parametrize("tier", ["interpreter", "scalar"])
def test_device_kernels(xlen: int, tier: str) -> None:
    _check(_vectors(xlen, 16, 30), tier, "host")


@XLENS
@pytest.mark.parametrize("tier", ["interpreter", "scalar"])
def test_executed_ptx(xlen: int, tier: str) -> None:
    pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
    _check(make_vectors(xlen, 32, 6, seed=2), tier, "ptx")


@XLENS
def test_unicorn(xlen: int) -> None:
    """Doubles alone, since it does not box narrower numbers; and its minimum is that of an earlier specification."""
    vectors = make_vectors(xlen, 1, 60, seed=3, formats="d", without=("fmv", "fmin", "fmax"))
    code, data = vectors.code(), vectors.given()[0].tobytes()
    emulator = Unicorn(xlen, [(CODE, code, 5), (DATA, data, 3)])
    emulator.enable_floats()
    emulator.run([0] * 32, CODE)
    found = vectors.complaints(np.frombuffer(emulator.memory(DATA, len(data)), np.uint8))
    assert not found, "\n".join(found)


@XLENS
def test_qemu(xlen: int, tmp_path: Path) -> None:
    if not have_qemu(xlen):
        pytest.skip("qemu-user is not installed")
    vectors = make_vectors(xlen, 1, 100, seed=4)
    data = vectors.given()[0].tobytes()
    code = vectors.code(ending=write_out(vectors.bytes))
    elf = write_elf(xlen, [(CODE, code, len(code), 5), (DATA, data, len(data), 3)], CODE)
    done = run_qemu(xlen, elf, tmp_path, cpu=f"rv{xlen},Zfh=true")
    assert done.returncode == 0, done.stderr
    found = vectors.complaints(np.frombuffer(done.stdout, np.uint8))
    assert not found, "\n".join(found)


def test_every_instruction_is_there() -> None:
    assert len(INSTRUCTIONS) == len({i.name for i in INSTRUCTIONS}) == 3 * (4 + 5 + 3 + 2 + 3 + 1 + 8 + 2 + 2)
