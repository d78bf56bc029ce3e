"""The device that these tests run on: `--gpu-device`, cuda unless said otherwise. Skipped where it is not there.

`pytest tests/gpu -m gpu --gpu-device ptx` runs a part of them in the PTX machine, to test the tests.
"""

from __future__ import annotations

import pytest

from vmjit.devices.registry import back_end_of, open_device
from vmjit.errors import DeviceMissingError


@pytest.fixture(scope="session")
def gpu(pytestconfig: pytest.Config) -> str:
    """The device's name."""
    name: str = pytestconfig.getoption("--gpu-device")
    try:
        open_device(name)
    except DeviceMissingError as error:
        pytest.skip(str(error))
    return name


@pytest.fixture
def hardware(gpu: str) -> str:
    """The device's name, for tests that would take too long where it is no hardware."""
    if not back_end_of(gpu).gpu:
        pytest.skip(f"{gpu} is no hardware")
    return gpu
