"""The real driver class: NVIDIA's own bindings, with a library of ours in the place of libcuda."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")

from vmjit.devices.cuda import CudaDevice
from vmjit.devices.registry import open_device
from vmjit.errors import DeviceMissingError

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def found(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `fake_libcuda` prints."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("library")
    target = folder / "libcuda.so.1"
    command = [compiler, "-Wall", "-Werror", "-shared", "-fPIC", str(HERE / "libcuda.c"), "-o", str(target)]
    subprocess.run(command, check=True)
    done = subprocess.run(
        [sys.executable, "-m", "tests.devices.fake_libcuda"],
        cwd=repository,
        env={**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_what_is_known_of_the_gpu(found: dict[str, Any]) -> None:
    assert found["info"] == ["Library GPU", "sm_90", 7, 1980, 50 << 20, 1 << 28]
    assert found["free"] == 1 << 28
    assert found["driver"] == "13.2"


def test_a_guest_runs_as_on_the_cpu(found: dict[str, Any]) -> None:
    """Modules, functions, launches, copies and copy kernels."""
    assert found["same"]
    assert found["launches"] == ["vmjit_gather", "vmjit_run_lanes", "vmjit_scatter"]


def test_copies_in_rows_and_of_single_bytes(found: dict[str, Any]) -> None:
    assert found["rows"]
    assert found["bytes"]


def test_the_contexts_of_others_are_left_alone(found: dict[str, Any]) -> None:
    assert found["other context"]
    assert found["deepest"] == 2


@pytest.mark.parametrize(
    ("what", "kind", "message", "log"),
    [
        ("DeviceMemoryError", "DeviceMemoryError", "CUDA_ERROR_OUT_OF_MEMORY (the text of 2)", ""),
        (
            "KernelLoadError",
            "KernelLoadError",
            "CUDA_ERROR_INVALID_PTX (the text of 218): line 2: 'no",
            "line 2: 'nonsense'",
        ),
        ("unknown", "KernelExecutionError", "CUDA_ERROR_UNKNOWN (987654 is not a valid CUresult)", ""),
        ("second", "DeviceMissingError", "no cuda:1: the NVIDIA driver sees 1 GPUs", ""),
    ],
)
def test_failures(found: dict[str, Any], what: str, kind: str, message: str, log: str) -> None:
    assert found[what]["kind"] == kind
    assert message in found[what]["message"]
    assert log in found[what]["log"]


def test_without_a_driver() -> None:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        pass
    else:
        pytest.skip("this computer has an NVIDIA driver")
    with pytest.raises(DeviceMissingError, match=r"no NVIDIA driver .libcuda. on this computer"):
        open_device("cuda")


def test_without_the_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with pytest.raises(DeviceMissingError, match=r'pip install "vmjit\[cuda13\]"'):
        CudaDevice("cuda")
