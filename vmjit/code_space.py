"""Code spaces: guest code as the code stream that lanes run, decoded when lanes first get there.

Lanes with the same code share one; a lane that changed its code (`fence.i`) moves to another. The stream's structure is
described in `kernels/layout.py`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from vmjit.decoders.riscv.decoder import MAX_BLOCK_INSTRUCTIONS, Decoder, Instruction, Template
from vmjit.decoders.riscv.row import REGISTER_OPERANDS
from vmjit.guest_code import CodeSpan, GuestCode
from vmjit.host_memory import HostMemory
from vmjit.interpreter import Interpreter
from vmjit.kernels.layout import (
    ENTRY_BYTES,
    ENTRY_FUNCTION,
    ENTRY_LINKS,
    ENTRY_NUMBER,
    RECORD_COUNT,
    RECORD_ENTRY,
    RECORD_HANDLER,
    RECORD_INTERPRET,
    SLOT_BYTES,
    SLOT_NUMBER,
    SLOT_OPERANDS,
    SLOT_REGISTERS,
    SLOT_WORDS,
    CodeSpaceBlock,
    register_offset,
)
from vmjit.translators.interpreter import UNSUPPORTED, fetch_fault, link_jump, remembered, template_key

_MASK64 = (1 << 64) - 1

_NUMBER_SHIFT = 8 * (SLOT_NUMBER - SLOT_REGISTERS)

# One table of records covers executable memory within this many bytes; farther segments have tables of their own.
_MAX_TABLE_SPAN = 256 << 20


@dataclass(frozen=True, slots=True)
class _Plan:
    """How the instructions of one template are written to slots. `number` is its handler's."""

    number: int
    constants: tuple[str, ...]
    links: frozenset[int]
    ends: bool


@dataclass
class CompiledEntries:
    """What keeps installed compiled code alive: its link table and entry words."""

    links: np.ndarray[tuple[int], np.dtype[np.uint64]]
    entries: list[np.ndarray[tuple[int], np.dtype[np.uint64]]]
    code: object


class CodeSpaceFullError(Exception):
    """The stream has no room: the owner drops this space and makes a new one."""


def _write_word(address: int, value: int) -> None:
    ctypes.c_uint64.from_address(address).value = value


class CodeSpace(GuestCode):
    """The code stream of one version of the guest's code.

    `visits_until_hot` 0 counts nothing. With `compiled_only`, blocks lead to a stop until code is
    installed for them, and are not counted, until `watch`.
    All methods may be called from any thread.
    """

    def __init__(
        self,
        decoder: Decoder,
        interpreter: Interpreter,
        spans: Iterable[CodeSpan],
        *,
        visits_until_hot: int = 0,
        compiled_only: bool = False,
    ) -> None:
        super().__init__(decoder, spans)
        self.interpreter = interpreter
        self.visits_until_hot = visits_until_hot
        self.compiled_only = compiled_only
        self._plans: dict[int, _Plan] = {}
        self._jump_handlers: dict[int, int] = {}  # a computed jump's handler -> the one that remembers
        self._templates: list[Template] = []  # keeps the templates alive whose ids key the plans
        self._jumps: dict[int, set[int]] = {}  # guest address of a computed jump -> where it went
        self.compiled: list[CompiledEntries] = []
        self._entries: set[int] = set()
        self.watched = not compiled_only
        self._counts: dict[int, tuple[int, int]] = {}  # pc -> (visits armed for, visits before that)
        self.covered: dict[int, int] = {}  # block -> number of the last installed region that has it
        self._allocate()

    # -- storage

    def _allocate(self) -> None:
        code_bytes = sum(len(s.data) for s in self.spans)
        self.capacity = 4 * code_bytes + (1 << 14)
        self._stream_memory = HostMemory(self.capacity * SLOT_BYTES)
        self._pcs_memory = HostMemory(self.capacity * 8)
        self._rests_memory = HostMemory(self.capacity)
        self.stream = self._stream_memory.array.view(np.uint64).reshape(-1, SLOT_WORDS)
        self.pcs = self._pcs_memory.array.view(np.uint64)
        self.rests = self._rests_memory.array
        self.base = self._stream_memory.address
        self.used = 0
        self.records: dict[int, int] = {}  # pc -> slot of its record
        self._stubs: dict[int, tuple[int, list[int]]] = {}  # pc -> (slot of the stub, addresses of links to it)
        self.descriptor = np.zeros(CodeSpaceBlock.BYTES // 8, np.uint64)
        self._tables: list[tuple[int, int, HostMemory]] = []
        for lo, end in self._table_ranges():
            self._tables.append((lo, end - lo, HostMemory((end - lo + 1) // 2 * 8)))
        self._more = np.array([[lo, size, t.address] for lo, size, t in self._tables[1:]], np.uint64).reshape(-1, 3)
        first = self._tables[0] if self._tables else (0, 0, HostMemory(8))
        fields = {
            CodeSpaceBlock.LO: first[0],
            CodeSpaceBlock.SIZE: first[1],
            CodeSpaceBlock.TABLE: first[2].address,
            CodeSpaceBlock.MORE: self._more.ctypes.data,
            CodeSpaceBlock.MORE_COUNT: len(self._more),
            CodeSpaceBlock.SLOTS: self.base,
            CodeSpaceBlock.SLOT_PCS: self._pcs_memory.address,
            CodeSpaceBlock.SLOT_RESTS: self._rests_memory.address,
        }
        for place, value in fields.items():
            self.descriptor[place // 8] = value
        self.descriptor_address = int(self.descriptor.ctypes.data)

    def _table_ranges(self) -> list[tuple[int, int]]:
        ranges: list[tuple[int, int]] = []
        for span in self.spans:
            if ranges and span.end - ranges[-1][0] <= _MAX_TABLE_SPAN:
                ranges[-1] = (ranges[-1][0], span.end)
            else:
                ranges.append((span.lo, span.end))
        return sorted(ranges, key=lambda r: r[0] - r[1])

    def _take(self, slots: int) -> int:
        if self.used + slots > self.capacity:
            raise CodeSpaceFullError
        place, self.used = self.used, self.used + slots
        return place

    def _address(self, slot: int) -> int:
        return self.base + slot * SLOT_BYTES

    # -- decoding

    def _is_decoded(self, pc: int) -> bool:
        return pc in self.records

    def _decode_from(self, pc: int) -> list[int]:
        """Write one block to the stream; the addresses it leads to."""
        instructions: list[Instruction] = []
        place = pc
        plan: _Plan | None = None
        plans: list[_Plan] = []
        while len(instructions) < MAX_BLOCK_INSTRUCTIONS and (plan is None or not plan.ends):
            if instructions and not self.executable(place):
                break
            instruction = self.decoder.decode(self.fetch, place)
            plan = self._plan(instruction)
            instructions.append(instruction)
            plans.append(plan)
            place = (place + instruction.size) & self._mask
        size = len(instructions)
        cut = not plans[-1].ends
        record = self._take(1 + size + cut)
        handlers = self._handlers([plan.number for plan in plans])
        rows: list[tuple[int, int, int, int]] = []
        links: list[tuple[int, int]] = []  # (address of a link, guest address it leads to)
        for i, (instruction, plan) in enumerate(zip(instructions, plans, strict=True)):
            operands = self._encode(instruction, plan, self._address(record + 1 + i), size - i, links)
            rows.append((handlers[i], *operands))
        if cut:
            jump = self.interpreter.numbers[link_jump(self.decoder.registers.type)]
            rows.append((self.interpreter.handlers[jump], jump << _NUMBER_SHIFT, 0, 0))
            links.append((self._address(record + 1 + size) + SLOT_OPERANDS, place))
        handler = rows[0][0] if self.watched else self.interpreter.need_code
        head = (handler, rows[0][0], size | (self.visits_until_hot << 32 if self.watched else 0), 0)
        end = record + 1 + len(rows)
        self.stream[record:end] = np.array([head, *rows], np.uint64)
        self.pcs[record] = pc
        self.pcs[record + 1 : end] = [i.pc for i in instructions] + [place] * cut
        self.rests[record + 1 : end] = list(range(size, 0, -1)) + [0] * cut
        for address, target in links:
            _write_word(address, self._link(target, address))
        self._publish(pc, record)
        following = [target for _, target in links]
        if plans[-1].ends and instructions[-1].matched is not None:
            matched = instructions[-1].matched
            if matched.base.name == "ecall" or matched.values.get("rd", 0) != 0:
                following.append(place)  # where the call returns to
        return following

    def _handlers(self, numbers: list[int]) -> list[int]:
        """The handlers of a block's instructions: with the fewest dispatches from each of them to the end."""
        handlers = [self.interpreter.handlers[number] for number in numbers]
        dispatches = [0] * (len(numbers) + 1)
        for i in range(len(numbers) - 1, -1, -1):
            dispatches[i] = 1 + dispatches[i + 1]
            fused = self.interpreter.fused.get((numbers[i], numbers[i + 1])) if i + 1 < len(numbers) else None
            if fused is not None and dispatches[i + 2] < dispatches[i + 1]:
                handlers[i] = fused
                dispatches[i] = 1 + dispatches[i + 2]
        return handlers

    def _plan(self, instruction: Instruction) -> _Plan:
        xlen = self.decoder.registers.type
        if instruction.missing:
            return _Plan(self.interpreter.numbers[fetch_fault(xlen)], ("fault_address",), frozenset(), True)
        if not self.decoder.has_meaning(instruction):
            return _Plan(self.interpreter.numbers[UNSUPPORTED], (), frozenset(), True)
        template = self.decoder.template(instruction)
        plan = self._plans.get(id(template))
        if plan is None:
            key = template_key(template.ops, template.terminator)
            number = self.interpreter.numbers[key]
            if template.terminator is not None and template.terminator.name == "indirect":
                self._jump_handlers[number] = self.interpreter.numbers[remembered(key)]
            plan = _Plan(number, template.constants, template.links, template.terminator is not None)
            self._plans[id(template)] = plan
            self._templates.append(template)
        if plan.number in self._jump_handlers and self.visits_until_hot and not self.decoder.returns(instruction):
            return replace(plan, number=self._jump_handlers[plan.number])
        return plan

    def _encode(
        self, instruction: Instruction, plan: _Plan, address: int, rest: int, links: list[tuple[int, int]]
    ) -> tuple[int, int, int]:
        values = instruction.matched.values if instruction.matched is not None else {}
        registers = plan.number << _NUMBER_SHIFT
        for i, name in enumerate(REGISTER_OPERANDS):
            if name in values:
                registers |= register_offset(values[name]) << (16 * i)
        words = [0, 0]
        for slot, name in enumerate(plan.constants):
            if name == "target":
                value = instruction.target
            elif name == "next_pc":
                value = (instruction.pc + instruction.size) & self._mask
            elif name == "rest":
                value = rest
            elif name == "fault_address":
                value = instruction.target
            else:
                value = values[name] & _MASK64
            if slot in plan.links:
                links.append((address + SLOT_OPERANDS + 8 * slot, value))
            else:
                words[slot] = value
        return (registers, words[0], words[1])

    def _link(self, pc: int, address: int) -> int:
        """The record for `pc`, or a stub that asks for it; the link at `address` will follow when it is decoded."""
        record = self.records.get(pc)
        if record is not None:
            return self._address(record)
        stub = self._stubs.get(pc)
        if stub is None:
            slot = self._take(2)
            self.stream[slot] = (self.interpreter.need_code, self.interpreter.need_code, 0, 0)
            self.stream[slot + 1, 0] = self.interpreter.need_code
            self.pcs[slot] = self.pcs[slot + 1] = pc
            stub = self._stubs[pc] = (slot, [])
        stub[1].append(address)
        return self._address(stub[0])

    def _publish(self, pc: int, record: int) -> None:
        self.records[pc] = record
        address = self._address(record)
        for lo, size, table in self._tables:
            if lo <= pc < lo + size:
                _write_word(table.address + (pc - lo >> 1) * 8, address)
        stub = self._stubs.pop(pc, None)
        if stub is not None:
            for link in stub[1]:
                _write_word(link, address)

    # -- what region formation asks (regions.CodeView)

    def visits(self, pc: int) -> int:
        """How often the block at `pc` was entered, as far as counted; 1 where nothing is counted."""
        record = self.records.get(pc)
        if record is None:
            return 0
        if not self.watched or not self.visits_until_hot:
            return 1
        armed, before = self._counts.get(pc, (self.visits_until_hot, 0))
        return before + max(armed - (int(self.stream[record, 2]) >> 32), 0)

    def note_jump(self, site: int, target: int) -> None:
        """A computed jump was seen: `site` is its slot's host address or its guest address."""
        slot = (site - self.base) // SLOT_BYTES
        if 0 <= slot < self.used:
            site = int(self.pcs[slot])
        elif not self.executable(site):
            return
        if self.executable(target):
            self._jumps.setdefault(site, set()).add(target)

    def indirect_targets(self, pc: int) -> list[int]:
        return sorted(self._jumps.get(self.block(pc).instructions[-1].pc, ()))

    # -- compiled code

    def pc_of_record(self, address: int) -> int | None:
        """The guest address of a record by host address; None if it is not of this space."""
        slot = (address - self.base) // SLOT_BYTES
        return int(self.pcs[slot]) if 0 <= slot < self.used else None

    def has_compiled(self, pc: int) -> bool:
        return pc in self._entries

    def arm(self, pc: int, visits: int) -> None:
        """Have the block reported as hot after this many further visits (0: never)."""
        record = self.records.get(pc)
        if record is not None:
            self._counts[pc] = (visits, self.visits(pc))
            ctypes.c_uint32.from_address(self._address(record) + RECORD_COUNT).value = visits

    def watch(self) -> None:
        """Lead all blocks back to the interpreter, counting visits: compiled code that ran before anything was known of
        the program gives way to regions formed by what is visited."""
        with self.lock:
            self.watched = True
            self._entries.clear()
            self.covered.clear()
            for pc in self.records:
                self.arm(pc, self.visits_until_hot)
                self.interpret_only(pc)
            self._counts.clear()

    def interpret_only(self, pc: int) -> None:
        """Let lanes interpret the block at `pc`: it could not be compiled."""
        with self.lock:
            record = self._address(self.records[pc])
            _write_word(record + RECORD_HANDLER, ctypes.c_uint64.from_address(record + RECORD_INTERPRET).value)

    def install(
        self,
        entries: list[tuple[int, int]],
        blocks: Iterable[int],
        links: tuple[int, ...],
        function: int,
        code: object,
    ) -> None:
        """Lead the blocks at `entries` (number, pc) to a compiled region, one atomic store each, while lanes run.

        `blocks` are the region's blocks: it may leave to any instruction of them. `links` are the guest addresses its
        link table wants, `code` what must stay alive.
        """
        with self.lock:
            for pc in blocks:
                if pc not in self.records:
                    self._decode_from(pc)
            table = np.zeros(max(len(links), 1), np.uint64)
            for i, pc in enumerate(links):
                table[i] = self._link(pc, int(table.ctypes.data) + 8 * i)
            kept = CompiledEntries(table, [], code)
            for number, pc in entries:
                words = np.zeros(ENTRY_BYTES // 8, np.uint64)
                words[ENTRY_FUNCTION // 8] = function
                words[ENTRY_LINKS // 8] = table.ctypes.data
                words[ENTRY_NUMBER // 8] = number
                kept.entries.append(words)
                address = self._address(self.records[pc])
                _write_word(address + RECORD_ENTRY, int(words.ctypes.data))
                _write_word(address + RECORD_HANDLER, self.interpreter.enter_compiled)
                self._entries.add(pc)
                self.arm(pc, 0)
            self.compiled.append(kept)
