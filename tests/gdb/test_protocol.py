"""The protocol's packets, without GDB."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

import vmjit
from tests.cli.conftest import guest
from vmjit.cli.main import main
from vmjit.gdb import GdbServer


class Client:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""

    def ask(self, text: str) -> str:
        data = text.encode("latin-1")
        self.socket.sendall(b"$" + data + b"#%02x" % (sum(data) & 0xFF))
        return self.answer()

    def answer(self) -> str:
        while True:
            begin, end = self.received.find(b"$"), self.received.find(b"#")
            if 0 <= begin < end <= len(self.received) - 3:
                body, self.received = self.received[begin + 1 : end], self.received[end + 3 :]
                self.socket.sendall(b"+")
                return body.decode("latin-1")
            more = self.socket.recv(4096)
            assert more
            self.received += more


@contextmanager
def served(machine: vmjit.Machine) -> Iterator[Client]:
    server = GdbServer(machine, 0)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    client = Client(server.port)
    try:
        yield client
    finally:
        client.socket.close()
        thread.join(20)
        server.close()


@pytest.fixture
def machine() -> vmjit.Machine:
    return vmjit.Machine(vmjit.load(guest("sort")), 3, "cpu", memory="64KiB")


def test_registers_and_memory(machine: vmjit.Machine) -> None:
    with served(machine) as client:
        assert "ReverseStep+" in client.ask("qSupported:swbreak+")
        text = client.ask("qXfer:features:read:target.xml:0,4000")
        assert text.startswith("l<?xml")
        assert 'name="a0" bitsize="64"' in text
        assert client.ask("Hg2") == "OK"
        assert client.ask("p20") == machine.program.entry.to_bytes(8, "little").hex()
        assert client.ask("Pa=efbeadde00000000") == "OK"
        assert client.ask("g")[16 * 10 :][:16] == "efbeadde00000000"
        assert machine.registers["a0"].tolist() == [0, 0xDEADBEEF, 2]
        assert client.ask("P0=0100000000000000") == "OK"
        assert client.ask("p0") == "00" * 8
        place = int(machine.registers["sp"][0]) - 64
        assert client.ask(f"M{place:x},3:0a0b0c") == "OK"
        assert client.ask(f"m{place:x},4") == "0a0b0c00"
        assert client.ask(f"X{place:x},2:\x7d\x03z") == "OK"
        assert machine.memory.read(place, 3)[:, 0].tolist() == [0, 0x23, 0]
        assert client.ask("m0,8") == "E0e"
        assert client.ask("qfThreadInfo") == "m1,2,3"
        assert client.ask("qsThreadInfo") == "l"
        assert (client.ask("T3"), client.ask("T4"), client.ask("Hg9")) == ("OK", "E01", "E01")


@pytest.mark.parametrize("packet", ["m", "mzz,1", "p", "pff", "P1", "Z9,1,1", "Z", "G0", "M1,2:", "Hgx", "vCont;x:zz", "qXfer:features:read:target.xml:x", "Tzz"])  # fmt: skip
def test_nonsense_is_refused(machine: vmjit.Machine, packet: str) -> None:
    with served(machine) as client:
        assert client.ask(packet) in ("E01", "", "OK")
        assert client.ask("?").startswith("T05")


def test_unknown_packets_are_empty(machine: vmjit.Machine) -> None:
    with served(machine) as client:
        assert [client.ask(packet) for packet in ("vMustReplyEmpty", "qTStatus", "!", "jWhat")] == [""] * 4


def test_lanes_step_alone_and_stop_together(machine: vmjit.Machine) -> None:
    with served(machine) as client:
        assert client.ask("vCont;s:2;c") == "T05thread:2;"
        assert machine.retired.tolist() == [0, 1, 0]
        place = machine.program.symbols["guest_main"]
        assert client.ask(f"Z0,{place:x},4") == "OK"
        assert client.ask("vCont;c") == "T05thread:1;swbreak:;"
        assert machine.pc[0] == place
        assert client.ask("vCont;c:3") == "T05thread:3;swbreak:;"
        assert machine.pc.tolist()[2] == place
        assert client.ask(f"z0,{place:x},4") == "OK"
        retired = machine.retired.tolist()
        for _ in range(5):
            client.ask("vCont;s:3")
        for _ in range(5):
            assert client.ask("bs") == "T05thread:3;"
        assert machine.retired.tolist() == retired
        assert client.ask("bc") == "T05thread:3;replaylog:begin;"
        assert client.ask("vCont;c") == "W00"


def test_what_is_watched_is_told_before_the_access(machine: vmjit.Machine) -> None:
    """By steps as by going on; the next step then makes the access."""
    place = int(machine.registers["sp"][0]) - 0x100
    with served(machine) as client:
        assert client.ask(f"Z4,{place:x},100") == "OK"
        assert client.ask("vCont;c:1") == f"T05thread:1;awatch:{place:x};"
        assert client.ask("vCont;s:1") == "T05thread:1;"
        while True:
            before = int(machine.retired[0])
            if (told := client.ask("vCont;s:1")) != "T05thread:1;":
                break
        assert told == f"T05thread:1;awatch:{place:x};"
        assert machine.retired[0] == before
        assert client.ask("vCont;s:1") == "T05thread:1;"
        assert machine.retired[0] == before + 1


def test_going_back_finds_the_last_breakpoint(machine: vmjit.Machine) -> None:
    """Before it, the lanes are as they were."""
    symbols = machine.program.symbols
    with served(machine) as client:
        place = symbols["guest_main"]
        client.ask(f"Z0,{place:x},4")
        assert client.ask("c") == "T05thread:1;swbreak:;"
        there = machine.registers.array()[:, 0].tolist(), int(machine.retired[0])
        for _ in range(40):
            client.ask("vCont;s:1")
        assert client.ask("bc") == "T05thread:1;swbreak:;"
        assert (machine.registers.array()[:, 0].tolist(), int(machine.retired[0])) == there
        assert machine.pc[0] == place


def test_what_the_debugger_wrote_stays_on_the_way_back(machine: vmjit.Machine) -> None:
    with served(machine) as client:
        client.ask("vCont;s:1")
        place = int(machine.registers["sp"][0]) - 64
        assert client.ask("P1f=0700000000000000") == "OK"
        assert client.ask(f"M{place:x},1:2a") == "OK"
        for _ in range(3):
            client.ask("vCont;s:1")
        for _ in range(3):
            client.ask("bs")
        assert machine.retired[0] == 1
        assert machine.registers["t6"].tolist() == [7, 0, 0]
        assert machine.memory.read(place, 1)[:, 0].tolist() == [42, 0, 0]


def test_it_can_be_interrupted() -> None:
    from tests.differential.asm import encode
    from tests.differential.oracles import program

    machine = vmjit.Machine(program("rv64i", encode("jal", rd=0, imm=0)), 2, "cpu", memory="4KiB")
    with served(machine) as client:
        data = b"vCont;c"
        client.socket.sendall(b"$" + data + b"#%02x" % (sum(data) & 0xFF))
        time.sleep(0.3)
        client.socket.sendall(b"\x03")
        assert client.answer() == "T02thread:1;"
        assert (machine.retired > 1000).all()


def test_steps_take_less_than_five_milliseconds(machine: vmjit.Machine) -> None:
    """Told by the clock, with much to spare: what is asked is 5 ms."""
    with served(machine) as client:
        times = []
        for _ in range(30):
            start = time.perf_counter()
            client.ask("vCont;s:1")
            times.append(time.perf_counter() - start)
        assert np.median(times) < 0.05


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for options, said in (
            (["--gdb", port], f"cannot listen on port {port}"),
            (["--gdb", "99999"], "cannot listen on port 99999"),
            (["--gdb", "0", "--device", "host"], "debugged on the CPU"),
        ):
            assert main(["run", guest("hello"), *options]) == 2
            assert said in capsys.readouterr().err
