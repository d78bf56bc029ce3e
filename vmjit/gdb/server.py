"""The commands of GDB's remote protocol (GDB manual, "Remote Serial Protocol", Packets), for lanes as threads."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import numpy as np

from vmjit.checks import check_on_cpu
from vmjit.errors import ArgumentError
from vmjit.gdb.debuggee import SIGTRAP, Debuggee, Happened, Lanes, Watch
from vmjit.gdb.packets import INTERRUPT, Disconnected, Packets
from vmjit.gdb.target_description import PC, TargetRegister, description, target_registers
from vmjit.lane_bytes import LaneBytes
from vmjit.machine import Machine
from vmjit.stops import Stop

_LOOPBACK = "127.0.0.1"
_FEATURES = (
    "PacketSize=8000;qXfer:features:read+;vContSupported+;swbreak+;hwbreak+;QStartNoAckMode+;ReverseStep+;"
    "ReverseContinue+"
)
_WATCHES = {2: "watch", 3: "rwatch", 4: "awatch"}
_ACTIONS = ("c", "C", "s", "S")
# Lanes in one packet of the list.
_IN_A_LIST = 1024


class GdbServer:
    """Listens on the loopback device alone. `port` 0: one that is free."""

    def __init__(self, machine: Machine, port: int) -> None:
        check_on_cpu(machine.device, "debugged")
        self._listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listening.bind((_LOOPBACK, port))
        except (OSError, OverflowError) as error:
            self._listening.close()
            raise ArgumentError(f"cannot listen on port {port}: {error}") from None
        self._listening.listen(1)
        self._machine = machine
        self.port: int = self._listening.getsockname()[1]

    def close(self) -> None:
        self._listening.close()

    def serve(self) -> bool:
        """Serve one GDB until it goes; whether the lanes shall go on without it."""
        connection, _ = self._listening.accept()
        with contextlib.closing(connection):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                return _Session(self._machine, Packets(connection)).serve()
            except Disconnected:
                return False


class _Session:
    def __init__(self, machine: Machine, packets: Packets) -> None:
        self._machine, self._packets = machine, packets
        self._debuggee = Debuggee(machine)
        self._registers = target_registers(machine._engine.decoder.registers)
        self._chosen = {"g": 0, "c": 0}  # lanes, by what they are chosen for
        self._last = Happened("signal", 0, SIGTRAP)
        self._listed = 0  # threads in the list so far
        self._commands: dict[str, Callable[[str], str]] = {
            "?": lambda _: self._said(self._last),
            "g": lambda _: self._all_registers(),
            "G": self._set_all_registers,
            "p": self._register,
            "P": self._set_register,
            "m": self._read,
            "M": self._write,
            "X": self._write_binary,
            "H": self._choose,
            "T": lambda text: "OK" if self._lane(text) is not None else "E01",
            "Z": lambda text: self._point(text, present=True),
            "z": lambda text: self._point(text, present=False),
            "s": lambda text: self._go(text, step=True),
            "c": lambda text: self._go(text, step=False),
            "b": self._go_back,
            "q": self._query,
            "Q": self._set,
            "v": self._verb,
        }

    def serve(self) -> bool:
        while True:
            packet = self._packets.receive()
            if packet == INTERRUPT:
                continue
            if packet == "D" or packet.startswith("D;"):
                self._packets.send("OK")
                return True
            if packet == "k" or packet.startswith("vKill"):
                if packet != "k":
                    self._packets.send("OK")
                return False
            command = self._commands.get(packet[:1])
            try:
                answer = "" if command is None else command(packet[1:])
            except (ValueError, IndexError, KeyError):
                answer = "E01"
            self._packets.send(answer)
            if packet == "QStartNoAckMode":
                self._packets.acknowledges = False

    # -- lanes as threads: number i + 1 is lane i

    def _lane(self, text: str) -> int | None:
        number = int(text, 16)
        return number - 1 if 1 <= number <= self._machine.lanes else None

    def _choose(self, text: str) -> str:
        kind, number = text[0], int(text[1:], 16)
        if number > self._machine.lanes:
            return "E01"
        if number > 0:
            self._chosen[kind] = number - 1
        return "OK"

    # -- registers

    def _value(self, register: TargetRegister) -> str:
        state, lane = self._machine._state, self._chosen["g"]
        value = int(state.pc[lane]) if register.index is None else int(state.registers[register.index, lane])
        value = value >> register.shift & (register.mask if register.mask >= 0 else (1 << register.bits) - 1)
        return value.to_bytes(register.bits // 8, "little").hex()

    def _assign(self, register: TargetRegister, value: int) -> None:
        state, lane = self._machine._state, self._chosen["g"]
        if register.index is None:
            state.pc[lane] = value
        elif register.index != self._machine._engine.decoder.registers.zero:
            held = int(state.registers[register.index, lane])
            mask = register.mask if register.mask >= 0 else (1 << register.bits) - 1
            kept = held & ~(mask << register.shift)
            state.registers[register.index, lane] = kept | (value & mask) << register.shift
        self._changed()

    def _all_registers(self) -> str:
        return "".join(self._value(self._registers[i]) for i in range(PC + 1))

    def _set_all_registers(self, text: str) -> str:
        data, size = bytes.fromhex(text), self._machine.program.xlen // 8
        for i in range(min(len(data) // size, PC + 1)):
            self._assign(self._registers[i], int.from_bytes(data[i * size : (i + 1) * size], "little"))
        return "OK"

    def _register(self, text: str) -> str:
        return self._value(self._registers[int(text, 16)])

    def _set_register(self, text: str) -> str:
        number, _, value = text.partition("=")
        self._assign(self._registers[int(number, 16)], int.from_bytes(bytes.fromhex(value), "little"))
        return "OK"

    # -- memory

    def _read(self, text: str) -> str:
        address, size = (int(part, 16) for part in text.split(","))
        memory = LaneBytes(self._machine, self._chosen["g"])
        while size:
            found = memory.peek(address, size)
            if found is not None:
                return found.hex()
            size //= 2
        return "E0e"

    def _write(self, text: str) -> str:
        where, _, data = text.partition(":")
        return self._write_at(where, bytes.fromhex(data))

    def _write_binary(self, text: str) -> str:
        where, _, data = text.partition(":")
        return self._write_at(where, data.encode("latin-1"))

    def _write_at(self, where: str, data: bytes) -> str:
        address, size = (int(part, 16) for part in where.split(","))
        if size != len(data):
            return "E01"
        if not data:
            return "OK"
        machine, lane = self._machine, np.array([self._chosen["g"]])
        place, given = np.array([address], np.uint64), np.frombuffer(data, np.uint8)
        if not machine._lane_memory.scatter(lane, place, np.array([size]), given, by_host=True)[0]:
            return "E0e"
        self._changed()
        machine._engine.code_may_have_changed(lane)
        return "OK"

    def _changed(self) -> None:
        self._machine._residence.changed()
        self._machine._snapshots.changed()
        self._debuggee.changed()

    # -- breakpoints

    def _point(self, text: str, *, present: bool) -> str:
        kind, address, size = (int(part, 16) for part in text.split(";")[0].split(","))
        if kind in (0, 1):
            (self._debuggee.breakpoints.add if present else self._debuggee.breakpoints.discard)(address)
            return "OK"
        watch = Watch(_WATCHES[kind], address, size)
        if present:
            self._debuggee.watches.append(watch)
        elif watch in self._debuggee.watches:
            self._debuggee.watches.remove(watch)
        return "OK"

    # -- going on

    def _verb(self, text: str) -> str:
        if text == "Cont?":
            return "vCont;c;C;s;S"
        if not text.startswith("Cont;"):
            return ""
        actions = [action.partition(":") for action in text[5:].split(";") if action]
        if not all(action[:1] in _ACTIONS for action, _, _ in actions):
            return "E01"
        for action, colon, thread in actions:
            if action[:1] in ("s", "S"):
                # Only this lane: the others have nothing to do with it.
                return self._stepped(self._thread(thread if colon else ""))
        lanes = [self._thread(thread) for action, colon, thread in actions if colon and action[:1] in ("c", "C")]
        every = any(not colon or thread.startswith("-1") for _, colon, thread in actions)
        chosen = np.arange(self._machine.lanes) if every or not lanes else np.array(sorted(set(lanes)))
        return self._resumed(chosen)

    def _thread(self, text: str) -> int:
        number = int(text, 16) if text else 0
        return number - 1 if number > 0 else self._chosen["c"]

    def _go(self, text: str, *, step: bool) -> str:
        if text:
            self._assign(self._registers[PC], int(text, 16))
        if step:
            return self._stepped(self._chosen["c"])
        return self._resumed(np.arange(self._machine.lanes))

    def _stepped(self, lane: int) -> str:
        return self._after(lambda: self._debuggee.step(lane))

    def _resumed(self, lanes: Lanes) -> str:
        return self._after(lambda: self._debuggee.resume(lanes, self._packets.is_interrupted))

    def _go_back(self, text: str) -> str:
        lane = self._chosen["c"]
        if text == "s":
            return self._after(lambda: self._debuggee.step_back(lane))
        return self._after(lambda: self._debuggee.resume_back(lane)) if text == "c" else ""

    def _after(self, act: Callable[[], Happened]) -> str:
        self._last = act()
        self._chosen = {"g": self._last.lane, "c": self._last.lane}
        return self._said(self._last)

    def _said(self, happened: Happened) -> str:
        """A stop reply."""
        thread = f"thread:{happened.lane + 1:x};"
        match happened.reason:
            case "exit":
                return f"W{happened.number:02x}"
            case "break":
                return f"T05{thread}swbreak:;"
            case "watch" | "rwatch" | "awatch":
                return f"T05{thread}{happened.reason}:{happened.number:x};"
            case "begin":
                return f"T05{thread}replaylog:begin;"
            case "step":
                return f"T05{thread}"
        return f"T{happened.number:02x}{thread}"

    # -- questions

    def _query(self, text: str) -> str:
        if text.startswith("Supported"):
            return _FEATURES
        if text.startswith("Xfer:features:read:target.xml:"):
            start, size = (int(part, 16) for part in text.rpartition(":")[2].split(","))
            whole = description(self._machine._engine.decoder.registers)
            part = whole[start : start + size]
            return ("m" if start + len(part) < len(whole) else "l") + part
        if text == "C":
            return f"QC{self._chosen['g'] + 1:x}"
        if text.startswith("Attached"):
            return "1"
        if text == "fThreadInfo":
            self._listed = 0
            return self._threads()
        if text == "sThreadInfo":
            return self._threads()
        if text.startswith("ThreadExtraInfo,"):
            lane = self._lane(text.partition(",")[2])
            return "E01" if lane is None else self._about(lane).encode().hex()
        return ""

    def _threads(self) -> str:
        numbers = range(self._listed + 1, min(self._listed + _IN_A_LIST, self._machine.lanes) + 1)
        self._listed += len(numbers)
        return "m" + ",".join(f"{number:x}" for number in numbers) if len(numbers) else "l"

    def _about(self, lane: int) -> str:
        stop = int(self._machine._state.stop[lane])
        name = Stop(stop).name.lower() if stop in Stop._value2member_map_ else "running"
        shown = "stopped" if name in ("running", "budget", "arrived") else name
        return f"lane {lane}, {shown}, {int(self._machine._state.retired[lane]):,} instructions"

    def _set(self, text: str) -> str:
        return "OK" if text == "StartNoAckMode" else ""
