"""What the measurements were made on: hardware and versions, no host names and no paths."""

from __future__ import annotations

import datetime
import platform
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from vmjit.bench.cores import usable_cores

PROJECT = Path(__file__).resolve().parents[2]


def cpu_model(cpuinfo: str) -> str:
    """The first CPU's model as /proc/cpuinfo's text names it."""
    found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def tool_version(tool: str) -> str:
    """The first number with a dot that `tool --version` says; empty if there is no such tool."""
    if shutil.which(tool) is None:
        return ""
    done = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False)
    numbers: list[str] = re.findall(r"\d+(?:\.\d+)+", done.stdout)
    return numbers[0] if numbers else "unknown"


def llvm_version() -> str:
    import llvmlite.binding as llvm

    return ".".join(str(part) for part in llvm.llvm_version_info)


def git_commit() -> str:
    """The commit, with `+changes` where files differ from it; empty outside a checkout."""
    # What is installed elsewhere may lie in some other project's checkout.
    if shutil.which("git") is None or not (PROJECT / "pyproject.toml").is_file():
        return ""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=PROJECT, capture_output=True, text=True, check=False)
    if commit.returncode:
        return ""
    status = ["git", "--no-optional-locks", "status", "--porcelain"]
    changes = subprocess.run(status, cwd=PROJECT, capture_output=True, text=True, check=False)
    return commit.stdout.strip() + ("+changes" if changes.stdout.strip() else "")


def machine_info() -> dict[str, str | int]:
    """Everything a reader needs to judge the figures."""
    cpuinfo = Path("/proc/cpuinfo")
    return {
        "cpu": cpu_model(cpuinfo.read_text() if cpuinfo.is_file() else ""),
        "cores": len(usable_cores()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": version_of("numpy"),
        "llvmlite": version_of("llvmlite"),
        "llvm": llvm_version(),
        "vmjit": version_of("vmjit"),
        "qemu": tool_version("qemu-riscv64") or tool_version("qemu-riscv32"),
        "gcc": tool_version("gcc"),
        "unicorn": version_of("unicorn"),
        "icicle": version_of("icicle-emu"),
        "commit": git_commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
    }
