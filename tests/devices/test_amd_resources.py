"""What kernels for AMD need: registers, scratch memory, spills, by architecture and wavefront. Nothing ran on a GPU.

The numbers stand in golden/amd_resources.json for one release of llvmlite, whose LLVM they are of; with others only the
limits hold. After a change that makes them other ones on purpose:

    pytest tests/devices/test_amd_resources.py --update-golden -s

writes the file and prints the difference.
"""

from __future__ import annotations

import difflib
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.devices.amd_kernels import images
from vmjit.decoders.riscv.registers import REGISTERS
from vmjit.translators.cpu import llvmlite_version
from vmjit.translators.hip import GATHER, SCATTER, HipTarget, resources

GOLDEN = Path(__file__).parent / "golden" / "amd_resources.json"
INTERPRETER = ""
GUESTS = ("crc32", "sha256", "sort")
KERNELS = [("gfx90a", 64), ("gfx942", 64), ("gfx1100", 32), ("gfx1100", 64), ("gfx1201", 32), ("gfx1201", 64)]

# A wavefront of 64 lanes takes twice the registers of one of 32: so many leave a SIMD unit at least three waves.
MOST_VGPRS = {64: 168, 32: 192}

# The stack of the functions for rare accesses, and the registers that a region saves.
MOST_SCRATCH = 128

quick = {("gfx90a", 64, "rv32im"), ("gfx1100", 32, "rv64imac")}


def _cases() -> list[Any]:
    found = []
    for architecture, wavefront in KERNELS:
        for isa in ("rv32im", "rv64imac"):
            marks = () if (architecture, wavefront, isa) in quick else (pytest.mark.slow,)
            found.append(pytest.param(architecture, wavefront, isa, marks=marks))
    return found


def _measured(architecture: str, wavefront: int, isa: str) -> dict[str, dict[str, int]]:
    command = [sys.executable, "-m", "tests.devices.amd_kernels", architecture, str(wavefront), isa]
    done = subprocess.run([*command, INTERPRETER, *GUESTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, int]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(("architecture", "wavefront", "isa"), _cases())
def test_resources(architecture: str, wavefront: int, isa: str, request: pytest.FixtureRequest) -> None:
    name = f"{architecture} wave{wavefront} {isa}"
    measured = {guest or "interpreter": values for guest, values in _measured(architecture, wavefront, isa).items()}
    for needs in measured.values():
        assert needs["wavefront"] == wavefront
        assert needs["vgpr_spills"] == 0
        assert 0 < needs["vgprs"] <= MOST_VGPRS[wavefront]
        assert needs["scratch"] <= MOST_SCRATCH
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if request.config.getoption("--update-golden"):
        _update(golden, name, measured)
    elif golden["llvmlite"] == llvmlite_version():
        assert measured == golden["kernels"][name]


def _update(golden: dict[str, Any], name: str, measured: dict[str, dict[str, int]]) -> None:
    before = _text(golden)
    golden["llvmlite"] = llvmlite_version()
    golden.setdefault("kernels", {})[name] = measured
    after = _text(golden)
    print("\n".join(difflib.unified_diff(before.splitlines(), after.splitlines(), "before", "after", "", "", 1, "")))
    GOLDEN.write_text(after)


def _text(golden: dict[str, Any]) -> str:
    """JSON with a line a kernel, which is what differences are read by."""
    kernels = golden.get("kernels", {})
    lines = [
        f'  "{name}": {{\n'
        + ",\n".join(f'   "{guest}": {json.dumps(values)}' for guest, values in kernels[name].items())
        + "\n  }"
        for name in sorted(kernels)
    ]
    head = f'{{\n "llvmlite": {json.dumps(golden.get("llvmlite", ""))},\n "kernels": {{\n'
    return head + ",\n".join(lines) + "\n }\n}\n"


def test_every_kernel_has_its_numbers() -> None:
    """A file with gaps would let a kernel pass unseen."""
    kernels = json.loads(GOLDEN.read_text())["kernels"]
    names = {f"{a} wave{w} {isa}" for a, w in KERNELS for isa in ("rv32im", "rv64imac")}
    assert kernels.keys() == names
    assert all(list(guests) == ["interpreter", *GUESTS] for guests in kernels.values())


@pytest.mark.parametrize(("architecture", "wavefront"), KERNELS)
def test_copy_kernels_need_little(architecture: str, wavefront: int) -> None:
    target = HipTarget(architecture, wavefront)
    for name in (GATHER, SCATTER):
        needs = resources(target.copy_assembly(name))
        assert needs.scratch == needs.vgpr_spills == needs.sgpr_spills == 0
        assert needs.vgprs <= 16


@pytest.mark.skipif(
    find_spec("ziglang") is None, reason='no linker; install one with: pip install "vmjit[rocm-offline]"'
)
def test_a_code_object() -> None:
    """It links, and is an ELF file for the HSA runtime on AMDGPU."""
    target = HipTarget("gfx942")
    (code,) = target.link(images(target, "rv32im", INTERPRETER), REGISTERS[32, False])
    assert code[:4] == b"\x7fELF"
    assert (code[7], int.from_bytes(code[18:20], "little")) == (64, 224)  # ELFOSABI_AMDGPU_HSA, EM_AMDGPU
    assert b"vmjit_run_lanes.kd" in code
