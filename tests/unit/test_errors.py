"""The errors: one hierarchy, comparable, picklable, with their facts as attributes, chained to their cause."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest

import vmjit
from vmjit import errors


def all_errors(kind: type[errors.VmjitError] = errors.VmjitError) -> list[type[errors.VmjitError]]:
    return [kind, *(e for sub in kind.__subclasses__() if sub.__module__ == errors.__name__ for e in all_errors(sub))]


@pytest.mark.parametrize("kind", sorted(set(all_errors()), key=lambda e: e.__name__))
def test_every_error(kind: type[errors.VmjitError]) -> None:
    error = kind("what is wrong", device="cuda:0", bytes=17)
    assert str(error) == error.message == "what is wrong"
    assert (error.device, error.bytes) == ("cuda:0", 17)
    with pytest.raises(AttributeError):
        _ = error.nothing
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert again == error
        assert hash(again) == hash(error)
        assert type(again) is kind
        assert again.details == error.details
    assert error != kind("what is wrong", device="cuda:1", bytes=17)
    assert error != kind("something else", device="cuda:0", bytes=17)
    assert error != ValueError("what is wrong")
    assert getattr(vmjit, kind.__name__) is kind


def test_the_kinds_that_users_tell_apart() -> None:
    for kind in (
        vmjit.DeviceMissingError,
        vmjit.DeviceInitializationError,
        vmjit.DeviceMemoryError,
        vmjit.DeviceCopyError,
        vmjit.KernelLoadError,
        vmjit.KernelExecutionError,
        vmjit.UnsupportedFeatureError,
    ):
        assert issubclass(kind, vmjit.DeviceError)
    assert issubclass(vmjit.DeviceMemoryError, MemoryError)
    assert not issubclass(vmjit.CompileForbiddenError, vmjit.CompileError | vmjit.DeviceError)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(vmjit.FileError, match="No such file") as caught:
        vmjit.load(tmp_path / "nothing.elf")
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert caught.value.path == str(tmp_path / "nothing.elf")
