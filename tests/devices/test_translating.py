"""Offline translation for GPUs: what the tools of NVIDIA and LLVM make of it."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Cli, cli, guest
from vmjit.translators.ptx_text import merge

__all__ = ["cli"]

HEADER = ".version 8.0\n.target sm_80\n.address_size 64\n"
CALLEE = f"""{HEADER}
.visible .func (.param .b64 r) twice(.param .b64 x) {{ .reg .b64 %a; ld.param.b64 %a, [x]; st.param.b64 [r], %a; ret; }}
"""
CALLER = f"""{HEADER}
.extern .func (.param .b64 r) twice
(
    .param .b64 x
)
;
.visible .entry k(.param .u64 p) {{ ret; }}
"""


def test_merging_ptx() -> None:
    text = merge([CALLEE, CALLER])
    assert text.count(".version") == text.count(".target") == 1
    assert ".extern" not in text
    assert ".visible .func" not in text
    assert ".visible .entry k" in text
    assert text.index("twice") < text.index(".entry")


def test_what_cannot_be_merged() -> None:
    with pytest.raises(ValueError, match="different architectures"):
        merge([CALLEE, CALLER.replace("sm_80", "sm_90")])
    with pytest.raises(ValueError, match="defined twice: twice"):
        merge([CALLEE, CALLEE])


@pytest.mark.parametrize("architecture", ["sm_75", "sm_90", "sm_120"])
def test_ptxas_takes_it_without_spills(cli: Cli, architecture: str) -> None:
    """The whole kernel: interpreter, a region of a guest, and what goes between them."""
    pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
    ended = cli("translate", guest("crc32"), "--at", "guest_main", "--emit", "resources", "--arch", architecture)
    assert ended.status == 0, ended
    values = {line.rsplit(None, 1)[0].strip(): line.rsplit(None, 1)[1] for line in ended.text.splitlines()}
    assert values["architecture"] == architecture
    assert int(values["registers a thread"]) <= 128
    assert values["spill stores, bytes"] == values["spill loads, bytes"] == values["stack, bytes"] == "0"
    assert int(values["machine instructions of the region"]) > int(values["guest instructions"])


def test_ptx_and_sass_of_a_function(cli: Cli) -> None:
    pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
    ptx = cli("translate", guest("crc32"), "--at", "update", "--emit", "ptx", "--arch", "sm_80").text
    assert ".target sm_80" in ptx
    assert "ld.global.u8" in ptx
    sass = cli("translate", guest("crc32"), "--at", "update", "--emit", "sass").text
    assert "LDG.E.U8" in sass


@pytest.mark.parametrize("architecture", ["gfx90a", "gfx1100"])
def test_amd_assembly(cli: Cli, architecture: str) -> None:
    """It assembles; no GPU ran it."""
    text = cli("translate", guest("crc32", "rv32im"), "--at", "update", "--emit", "amdgcn", "--arch", architecture).text
    assert f"amdgcn-amd-amdhsa--{architecture}" in text
    assert ".amdhsa_kernel vmjit_run_lanes" in text


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--emit", "amdgcn", "--arch", "sm_90"), "for AMD"),
        (("--emit", "ptx", "--arch", "gfx942"), "for NVIDIA"),
        (("--emit", "ptx", "--arch", "vax"), "no architecture 'vax'"),
    ],
)
def test_what_does_not_go_together(cli: Cli, words: tuple[str, ...], complaint: str) -> None:
    assert complaint in cli("translate", guest("crc32"), "--at", "update", *words).complaint()
