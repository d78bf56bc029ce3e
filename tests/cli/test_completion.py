"""`vmjit completion`."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.cli.conftest import Cli
from vmjit.cli.main import COMMANDS


def completed(script: str, words: list[str], shell: str = "bash") -> set[str]:
    """What bash offers behind the last word."""
    line = " ".join(f"'{word}'" for word in words)
    ask = f'{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _vmjit; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run([shell, "-c", ask], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash(cli: Cli) -> None:
    script = cli("completion", "bash").text
    assert set(COMMANDS) < completed(script, ["vmjit", ""])
    assert completed(script, ["vmjit", "tra"]) == {"trace", "translate"}
    assert completed(script, ["vmjit", "run", "--ma"]) == {"--max-instructions", "--max-seconds"}
    assert completed(script, ["vmjit", "run", "--tier", "s"]) == {"scalar", "simd"}
    assert completed(script, ["vmjit", "diff", "--against", ""]) == {"unicorn", "qemu", "reference"}
    assert completed(script, ["vmjit", "translate", "--emit", "p"]) == {"ptx"}
    assert "/etc/passwd" in completed(script, ["vmjit", "run", "/etc/pass"])


def test_other_shells(cli: Cli) -> None:
    assert cli("completion", "zsh").text.startswith("autoload -U +X bashcompinit")
    text = cli("completion", "fish").text
    assert (
        "complete -c vmjit -n '__fish_seen_subcommand_from run' -l tier -x -a 'auto interpreter scalar simd'\n" in text
    )
    for name in COMMANDS:
        assert f" -a {name} " in text


def test_an_unknown_shell(cli: Cli) -> None:
    assert "invalid choice" in cli("completion", "tcsh").complaint()
