"""Machine code in the cache: linked once for a GPU, kept with what it needs, and linked anew where it was damaged."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")

import vmjit
from tests.devices.fake_cuda import FakeCuda, Fault, sealed
from tests.differential import asm
from tests.differential.oracles import program
from vmjit.cache import CodeCache, DiskCache, forbid_compiling
from vmjit.decoders.riscv.registers import REGISTERS
from vmjit.device_kernels import DeviceKernels
from vmjit.devices import selection
from vmjit.devices.cuda import CudaDevice
from vmjit.errors import CacheWarning
from vmjit.translators import cuda_tools
from vmjit.translators.cuda import CudaTarget
from vmjit.translators.device_region import DeviceWindowPlan
from vmjit.translators.region_body import WindowPlan

NEEDS = cuda_tools.Resources(90, 16, 4, 8, 12345)


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that were made machine code, of a fake GPU whose machine code notices damage."""
    texts: list[str] = []

    def assemble(ptx: str, architecture: str) -> tuple[bytes, cuda_tools.Resources]:
        texts.append(ptx)
        return sealed(ptx.encode()), NEEDS

    monkeypatch.setattr(cuda_tools, "assemble", assemble)
    monkeypatch.setattr(selection, "open_device", lambda name: CudaDevice(name, open_driver=lambda _: FakeCuda()))
    return texts


@pytest.fixture(scope="module")
def translated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with everything that is translated before it is linked, which takes seconds."""
    folder = tmp_path_factory.mktemp("translated")
    target = CudaTarget("sm_90")
    cache = CodeCache(DiskCache(folder))
    windows = DeviceWindowPlan(WindowPlan(0, 0, 0, 0, more=False), 0, 0)
    made = DeviceKernels([CudaDevice("cuda", open_driver=lambda _: FakeCuda())], REGISTERS[64, False], windows, cache)
    made.translate(target)
    return folder


@pytest.fixture
def disk(tmp_path: Path, translated: Path, monkeypatch: pytest.MonkeyPatch) -> DiskCache:
    folder = tmp_path / "cache"
    shutil.copytree(translated, folder)
    monkeypatch.setattr("vmjit.device_engine.process_cache", lambda: CodeCache(DiskCache(folder)))
    return DiskCache(folder)


def counting() -> vmjit.Machine:
    code = asm.encode("addi", rd=10, rs1=10, imm=-1) + asm.encode("bne", rs1=10, imm=-4) + asm.encode("ebreak")
    m = vmjit.Machine(program("rv64i", code), 33, "cuda", "interpreter", 4096, fallback=False)
    m.registers["a0"] = np.arange(33) + 5
    return m


def kernels(m: vmjit.Machine) -> Any:
    engine: Any = m._engine
    return engine.kernels


def test_a_kernel_is_linked_once(links: list[str], disk: DiskCache) -> None:
    first = counting()
    assert first.run().stops() == {"EBREAK": 33}
    assert len(links) == 1
    assert kernels(first).report(first._engine.parts[0].device) == {
        "registers": 90, "stack": 16, "spill_stores": 4, "spill_loads": 8, "code": 12345,
    }  # fmt: skip
    with forbid_compiling():
        second = counting()
        assert second.run().stops() == {"EBREAK": 33}
    assert len(links) == 1
    assert kernels(second).report(second._engine.parts[0].device)["registers"] == 90


def test_damage_that_only_the_driver_sees(links: list[str], disk: DiskCache, caplog: pytest.LogCaptureFixture) -> None:
    first = counting()
    first.run()
    key = kernels(first)._keys["cuda:0"]
    good = disk.get(key)
    assert good is not None
    disk.put(key, good[:-7] + b"x" + good[-6:])
    second = counting()
    result = second.run()
    assert result.stops() == {"EBREAK": 33}
    assert result.fallbacks == ()
    assert len(links) == 2
    assert "it is linked anew" in caplog.text
    assert disk.get(key) == good


def test_damage_that_the_cache_sees(links: list[str], disk: DiskCache) -> None:
    first = counting()
    first.run()
    path = disk.path(kernels(first)._keys["cuda:0"])
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.warns(CacheWarning, match="damaged"):
        assert counting().run().stops() == {"EBREAK": 33}
    assert len(links) == 2


def test_a_driver_that_takes_nothing(links: list[str], disk: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried once more and no oftener; then the CPU runs the lanes."""
    fault = Fault("load", 1, "CUDA_ERROR_INVALID_IMAGE", for_good=True)
    device = CudaDevice("cuda", open_driver=lambda _: FakeCuda())
    monkeypatch.setattr(selection, "open_device", lambda name: device)
    code = asm.encode("addi", rd=10, rs1=10, imm=-1) + asm.encode("bne", rs1=10, imm=-4) + asm.encode("ebreak")
    m = vmjit.Machine(program("rv64i", code), 33, "cuda", "interpreter", 4096)
    m.registers["a0"] = np.arange(33) + 5
    device.driver.faults = [fault]  # type: ignore[attr-defined]
    result = m.run()
    assert result.stops() == {"EBREAK": 33}
    assert "CUDA_ERROR_INVALID_IMAGE" in result.fallbacks[0].reason
    assert len(links) == 2
