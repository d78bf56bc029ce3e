"""`vmjit run` with many lanes: inputs by lane, JSON, tables and dumps."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

import vmjit
from tests.cli.conftest import ISAS, Cli, guest


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Inputs for the guest `fault`: exit with 99, exit with 38, a fault, a breakpoint, and what is to be ignored."""
    folder = tmp_path / "corpus"
    (folder / "nested").mkdir(parents=True)
    for name, data in (("a", b"\xfe"), ("b", b"\x08"), ("c", b"\x00"), ("d", b"\x05"), (".hidden", b"\x07")):
        (folder / name).write_bytes(data)
    return folder


def test_json_has_everything(cli: Cli, corpus: Path) -> None:
    ended = cli("run", guest("fault"), "--inputs", corpus, "--json")
    assert (ended.status, ended.err) == (1, b"")
    found = ended.json
    assert list(found) == [
        "program", "isa", "lanes", "device", "tier", "seconds", "instructions", "mips", "interrupted",
        "timed_out", "placement", "fallbacks", "stops", "tiers",
        "unknown_calls", "exit_codes", "lane_stops", "signals", "retired", "pc", "faults", "inputs", "output", "error_output",
    ]  # fmt: skip
    assert found["program"] == guest("fault")
    assert found["isa"] == "rv64imac"
    assert (found["lanes"], found["device"], found["tier"], found["interrupted"]) == (4, "cpu", "auto", False)
    assert found["stops"] == {"EXIT": 2, "EBREAK": 1, "FAULT": 1}
    assert found["exit_codes"] == [99, 38, None, None]
    assert found["lane_stops"] == ["EXIT", "EXIT", "FAULT", "EBREAK"]
    assert found["inputs"] == ["a", "b", "c", "d"]
    assert found["instructions"] == sum(found["retired"]) == sum(found["tiers"].values())
    assert found["unknown_calls"] == {"9999": 1}
    assert found["seconds"] > 0
    assert found["mips"] > 0
    assert found["faults"] == [{"lane": 2, "pc": found["pc"][2], "address": "0x0", "access": "READ"}]
    assert found["output"] == found["error_output"] == ["", "", "", ""]


def test_json_of_many_lanes_leaves_the_output_out(cli: Cli) -> None:
    found = cli("run", guest("lanes"), "--lanes", 65, "--json").json
    assert found["output"] is None
    assert found["error_output"] is None
    assert found["exit_codes"] == [0] * 65


@pytest.mark.parametrize("isa", ISAS)
def test_a_table_sums_up(cli: Cli, corpus: Path, isa: str) -> None:
    ended = cli("run", guest("fault", isa), "--inputs", corpus)
    assert (ended.status, ended.err) == (1, b"")
    lines = ended.text.splitlines()
    words = [line.split() for line in lines]
    assert ["lanes", "4", "on", "cpu"] in words
    for cells in (["EXIT", "│", "99", "│", "1"], ["EXIT", "│", "38", "│", "1"], ["FAULT", "│", "│", "1"]):
        assert any(row[1:-1] == cells for row in words), cells
    (bad,) = [line for line in lines if "reading 0x0" in line]
    assert "│ c " in bad  # the input's name
    assert "<guest_start+0x" in bad
    assert any("c.ebreak" in line or "ebreak" in line for line in lines)
    assert any(row[:2] == ["unknown", "calls"] for row in words)


def test_a_table_shows_only_a_few_bad_lanes(cli: Cli, tmp_path: Path) -> None:
    np.save(tmp_path / "inputs.npy", np.zeros((300, 1), np.uint8))
    text = cli("run", guest("fault"), "--inputs", tmp_path / "inputs.npy").text
    assert text.count("reading 0x0") == 5
    assert "and 295 more lanes" in text


def test_a_table_shows_only_the_most_frequent_exit_codes(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "lengths"
    folder.mkdir()
    for i in range(20):
        (folder / f"{i:02}").write_bytes(b"x" * i)
    lines = cli("run", guest("echo"), "--inputs", folder).text.splitlines()
    assert sum("EXIT" in line for line in lines) == 12
    assert any("8 others" in line for line in lines)


def test_names_are_no_markup(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "[red]"
    folder.mkdir()
    for name in ("[bold]x", "y"):
        (folder / name).write_bytes(b"\x00")
    assert "[bold]x" in cli("run", guest("fault"), "--inputs", folder).text


def test_the_status_is_0_if_every_lane_exits_with_0(cli: Cli) -> None:
    assert cli("run", guest("lanes"), "--lanes", 3).status == 0
    assert cli("run", guest("hello"), "--lanes", 3).status == 1
    assert cli("run", guest("lanes"), "--lanes", 3, "--max-instructions", 1).status == 1


def test_lanes_know_their_number(cli: Cli, tmp_path: Path) -> None:
    cli("run", guest("lanes", "rv32im"), "--lanes", 5, "--dump", f"guest_start:4={tmp_path / 'x.npy'}")
    found = cli("run", guest("lanes", "rv32im"), "--lanes", 5, "--json").json
    assert found["output"] == [struct.pack("<II", lane, 5).decode() for lane in range(5)]


def test_inputs_from_an_array(cli: Cli, tmp_path: Path) -> None:
    rows = np.frombuffer(b"abcdefghi", np.uint8).reshape(3, 3)
    np.save(tmp_path / "rows.npy", rows)
    found = cli("run", guest("echo"), "--inputs", tmp_path / "rows.npy", "--lanes", 3, "--json").json
    assert found["output"] == ["ABC", "DEF", "GHI"]
    assert found["inputs"] is None


def test_one_input_for_all_lanes(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "given").write_bytes(b"same")
    found = cli("run", guest("echo"), "--input", tmp_path / "given", "--lanes", 2, "--json").json
    assert found["output"] == ["SAME", "SAME"]
    assert cli("run", guest("echo"), "--input", "-", "--lanes", 2, "--json", stdin=b"x").json["output"] == ["X", "X"]


def test_many_lanes_do_not_take_our_input(cli: Cli) -> None:
    assert cli("run", guest("echo"), "--lanes", 2, "--json", stdin=b"ours").json["output"] == ["", ""]


@pytest.mark.parametrize("isa", ISAS)
def test_dumps(cli: Cli, tmp_path: Path, isa: str) -> None:
    seeds = np.array([[seed, 1] for seed in range(1, 9)], "<u4")
    np.save(tmp_path / "inputs.npy", seeds.view(np.uint8))
    name = guest("crc32", isa)
    program = vmjit.load(name)
    table, block = program.symbols["table"], program.symbols["block"]
    files = [tmp_path / f"{i}" for i in range(5)]  # under exactly this name, without .npy
    specs = (f"table:1KiB={files[0]}", f"{table:#x}:0x400={files[1]}", f"table..{table + 1024}={files[2]}",
             f"block:2048={files[3]}", f"input_buffer..block={files[4]}")  # fmt: skip
    dumps = [word for spec in specs for word in ("--dump", spec)]
    assert cli("run", name, "--inputs", tmp_path / "inputs.npy", *dumps).status == 0
    found = [np.load(file, allow_pickle=False) for file in files]
    assert all(array.dtype == np.uint8 for array in found)
    assert [array.shape for array in found] == [(8, 1024)] * 3 + [
        (8, 2048),
        (8, block - program.symbols["input_buffer"]),
    ]
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])
    assert found[0][3].view("<u4")[1] == 0x77073096  # the table of CRC-32
    assert len(np.unique(found[3], axis=0)) == 8
    assert np.array_equal(found[4][:, :8], seeds.view(np.uint8))


@pytest.mark.parametrize("option", [("--threads", "2"), ("--memory", "64KiB"), ("--tier", "interpreter")])
def test_options_change_no_result(cli: Cli, option: tuple[str, str]) -> None:
    plain = cli("run", guest("lanes"), "--lanes", 40, "--json").json
    other = cli("run", guest("lanes"), "--lanes", 40, "--json", *option).json
    for key in ("output", "retired", "exit_codes", "lane_stops", "instructions"):
        assert plain[key] == other[key]
