"""Options and profiles of all tests."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import hypothesis
import pytest

# Runs are repeatable: the same examples every time, no database of earlier failures.
hypothesis.settings.register_profile(
    "ci",
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=False,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large],
)
# Looks for new failures: HYPOTHESIS_PROFILE=explore pytest tests/differential
hypothesis.settings.register_profile(
    "explore", hypothesis.settings.get_profile("ci"), derandomize=False, max_examples=2000
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite the expected IR in *.test files and pinned measurements; prints the differences",
    )
    parser.addoption("--gpu-device", default="cuda", help="the device of tests/gpu: cuda, cuda:1, ptx")


def pytest_configure(config: pytest.Config) -> None:
    """One fresh code cache for the whole run, shared by the workers: code of an older source must not be met. And
    Ctrl-C as at a terminal, though what a shell starts in the background ignores it: tests send it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput") or os.environ.get("VMJIT_TEST_CACHE_DIR"):
        os.environ.setdefault("VMJIT_CACHE_DIR", os.environ.get("VMJIT_TEST_CACHE_DIR", ""))
        return
    directory = tempfile.mkdtemp(prefix="vmjit-test-cache-")
    os.environ["VMJIT_CACHE_DIR"] = directory
    config.add_cleanup(lambda: shutil.rmtree(directory, ignore_errors=True))


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).resolve().parents[1]
