"""Code spaces: guest code as the code stream that lanes run, decoded when lanes first get there.

Lanes with the same code share one; a lane that changed its code (`fence.i`) moves to another. The stream's structure is
described in `kernels/layout.py`.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vmjit.decoders.riscv.decoder import MAX_BLOCK_INSTRUCTIONS, Decoder, Instruction
from vmjit.decoders.riscv.row import REGISTER_SLOTS, register_index
from vmjit.guest_code import CodeSpan, GuestCode
from vmjit.host_memory import HostMemory
from vmjit.interpreter import Interpreter
from vmjit.kernels.layout import (
    ENTRY_BYTES,
    ENTRY_FUNCTION,
    ENTRY_LINKS,
    ENTRY_NUMBER,
    ENTRY_VECTOR,
    RECORD_COUNT,
    RECORD_ENTRY,
    RECORD_HANDLER,
    RECORD_INTERPRET,
    SLOT_BYTES,
    SLOT_FOURTH_REGISTER,
    SLOT_NUMBER,
    SLOT_OPERANDS,
    SLOT_REGISTERS,
    SLOT_WORDS,
    CodeSpaceBlock,
    register_offset,
)
from vmjit.translators.interpreter import UNSUPPORTED, fetch_fault, link_jump, remembered, template_key
from vmjit.translators.origins import SeenPointers

_MASK64 = (1 << 64) - 1

_NUMBER_SHIFT = 8 * (SLOT_NUMBER - SLOT_REGISTERS)

# One table of records covers executable memory within this many bytes; farther segments have tables of their own.
_MAX_TABLE_SPAN = 256 << 20


# Registers that the slot's word names.
_NAMED_REGISTERS = 3

# Constants of a slot that depend on more than the instruction's word.
_PLACED = frozenset({"target", "next_pc", "rest"})


@dataclass(frozen=True, slots=True)
class _Encoding:
    """How the instructions of one word are written to slots.

    number: their handler's. registers: the slot's word that names registers and the handler.
    constants: two numbers. placed: the names of those that are of `_PLACED`, "" for the others; None if there is none.
    links: which of the constants are links. ends: whether they end a block.
    returns: whether control may come back behind them. writes, reads: registers (0: none) by slot, for fusing.
    """

    number: int
    registers: int = 0
    constants: tuple[int, int] = (0, 0)
    placed: tuple[str, str] | None = None
    links: frozenset[int] = frozenset()
    ends: bool = True
    returns: bool = False
    writes: int = 0
    reads: tuple[tuple[int, int], ...] = ()


@dataclass
class CompiledEntries:
    """What keeps installed compiled code alive: its link table and entry words."""

    links: np.ndarray[tuple[int], np.dtype[np.uint64]]
    entries: list[np.ndarray[tuple[int], np.dtype[np.uint64]]]
    code: list[object]

    def replace(self, function: int, code: object) -> None:
        """Lead the same entries to other code of the same region, one atomic store each, while lanes run."""
        self.code.append(code)  # lanes may be in the old code
        for words in self.entries:
            _write_word(int(words.ctypes.data) + ENTRY_FUNCTION, function)


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
        hooks: Mapping[int, Sequence[int]] | None = None,
    ) -> None:
        super().__init__(decoder, spans, hooks)
        self.interpreter = interpreter
        self.visits_until_hot = visits_until_hot
        self.compiled_only = compiled_only
        self._encodings: dict[tuple[int, bool], _Encoding] = {}  # by the word, and whether its target is misaligned
        self._jumps: dict[int, set[int]] = {}  # guest address of a computed jump -> where it went
        self.compiled: list[CompiledEntries] = []
        self._vector_words: list[np.ndarray[tuple[int], np.dtype[np.uint64]]] = []
        self._entries: set[int] = set()
        self.watched = not compiled_only
        self._counts: dict[int, tuple[int, int]] = {}  # pc -> (visits armed for, visits before that)
        self.covered: dict[int, int] = {}  # block -> number of the last installed region that has it
        self.seen: dict[int, SeenPointers] = {}  # block -> where a lane's registers led when it became hot
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
        self._words, self._pc_words = (m.view.cast("Q") for m in (self._stream_memory, self._pcs_memory))
        self._rest_bytes = self._rests_memory.view
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
        instructions: list[tuple[Instruction, _Encoding]] = []
        place = pc
        ends = False
        hooks = self.hooks.get(pc, ())
        while len(instructions) < (1 if hooks else MAX_BLOCK_INSTRUCTIONS) and not ends:
            if instructions and not self.goes_on_at(place):
                break
            instruction = self.instruction(place)
            encoding = self._encoding(instruction)
            instructions.append((instruction, encoding))
            ends = encoding.ends
            place = (place + instruction.size) & self._mask
        size = len(instructions)
        record = self._take(1 + len(hooks) + size + (not ends))
        handlers = self._handlers([encoding for _, encoding in instructions])
        watched = self.watched
        first = self.interpreter.call_hook if hooks else handlers[0]
        handler = first if watched else self.interpreter.need_code
        words = [handler, first, size | (self.visits_until_hot << 32 if watched else 0), 0]
        pcs, rests = [pc], [0]
        for hook in hooks:
            words += (self.interpreter.call_hook, 0, hook, 0)
            pcs.append(pc)
            rests.append(1)
        links: list[tuple[int, int]] = []  # (address of a link, guest address it leads to)
        for rest, handler, (instruction, encoding) in zip(range(size, 0, -1), handlers, instructions, strict=True):
            words += (handler, encoding.registers)
            constants = self._constants(encoding, instruction, rest) if encoding.placed else encoding.constants
            links += [(self._address(record) + 8 * (len(words) + slot), constants[slot]) for slot in encoding.links]
            words += constants
            pcs.append(instruction.pc)
            rests.append(rest)
        if not ends:
            jump = self.interpreter.numbers[link_jump(self.decoder.registers.type)]
            links.append((self._address(record + len(pcs)) + SLOT_OPERANDS, place))
            words += (self.interpreter.handlers[jump], jump << _NUMBER_SHIFT, 0, 0)
            pcs.append(place)
            rests.append(0)
        end = record + len(pcs)
        # Through memoryviews: an assignment to a NumPy array costs as much as decoding an instruction.
        self._words[SLOT_WORDS * record : SLOT_WORDS * end] = array("Q", words)
        self._pc_words[record:end] = array("Q", pcs)
        self._rest_bytes[record:end] = bytes(rests)
        for address, target in links:
            _write_word(address, self._link(target, address))
        self._publish(pc, record)
        following = [target for _, target in links]
        if instructions[-1][1].returns:
            following.append(place)
        return following

    def _handlers(self, encodings: list[_Encoding]) -> list[int]:
        """The handlers of a block's instructions. To fuse whenever the next two can be leaves the fewest dispatches."""
        handlers = [self.interpreter.handlers[encoding.number] for encoding in encodings]
        for i, (first, second) in enumerate(pairwise(encodings)):
            handlers[i] = self._fused(first, second) or handlers[i]
        return handlers

    def _fused(self, first: _Encoding, second: _Encoding) -> int | None:
        """The handler of two instructions in a row, if there is one."""
        fused, pair = self.interpreter.fused, (first.number, second.number)
        if first.writes:
            for slot, register in second.reads:
                if register == first.writes and (handler := fused.get((*pair, slot))):
                    return handler
        return fused.get((*pair, None))

    def _encoding(self, instruction: Instruction) -> _Encoding:
        if instruction.missing:
            number = self.interpreter.numbers[fetch_fault(self.decoder.registers.type)]
            return _Encoding(number, number << _NUMBER_SHIFT, (instruction.target, 0))
        key = (instruction.raw, instruction.misaligned)
        encoding = self._encodings.get(key)
        if encoding is None:
            encoding = self._encodings[key] = self._new_encoding(instruction)
        return encoding

    def _new_encoding(self, instruction: Instruction) -> _Encoding:
        matched = instruction.matched
        if matched is None or not self.decoder.has_meaning(instruction):
            number = self.interpreter.numbers[UNSUPPORTED]
            return _Encoding(number, number << _NUMBER_SHIFT)
        template = self.decoder.template(instruction)
        terminator, values = template.terminator, matched.values
        number = self.interpreter.number(template)
        computed = terminator is not None and terminator.name == "indirect" and not self.decoder.returns(instruction)
        if computed and self.visits_until_hot:
            number = self.interpreter.numbers[remembered(template_key(template.ops, terminator))]
        registers = number << _NUMBER_SHIFT
        fourth = 0
        for name, slot in REGISTER_SLOTS.items():
            if name in values:
                offset = register_offset(register_index(name, values[name]))
                if slot < _NAMED_REGISTERS:
                    registers |= offset << (16 * slot)
                else:
                    fourth = offset << (8 * (SLOT_FOURTH_REGISTER - SLOT_OPERANDS - 8))
        first, second = (*template.constants, "", "")[:2]
        placed = (first if first in _PLACED else "", second if second in _PLACED else "")
        return _Encoding(
            number,
            registers,
            (values.get(first, 0) & _MASK64, values.get(second, 0) & _MASK64 | fourth),
            placed if any(placed) else None,
            template.links,
            terminator is not None,
            terminator is not None and (matched.base.name == "ecall" or values.get("rd", 0) != 0),
            values.get("rd", 0),
            tuple((REGISTER_SLOTS[name], values[name]) for name in ("rs1", "rs2") if name in values),
        )

    def _constants(self, encoding: _Encoding, instruction: Instruction, rest: int) -> tuple[int, int]:
        """The constants in this place."""
        places = {
            "target": instruction.target,
            "next_pc": (instruction.pc + instruction.size) & self._mask,
            "rest": rest,
        }
        assert encoding.placed is not None
        (first, second), (name0, name1) = encoding.constants, encoding.placed
        return places.get(name0, first), places.get(name1, second)

    def _link(self, pc: int, address: int) -> int:
        """The record for `pc`, or a stub that asks for it; the link at `address` will follow when it is decoded."""
        record = self.records.get(pc)
        if record is not None:
            return self._address(record)
        stub = self._stubs.get(pc)
        if stub is None:
            slot = self._take(2)
            need_code = self.interpreter.need_code
            words = (need_code, need_code, 0, 0, need_code, 0, 0, 0)
            self._words[SLOT_WORDS * slot : SLOT_WORDS * (slot + 2)] = array("Q", words)
            self._pc_words[slot] = self._pc_words[slot + 1] = pc
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

    def record_address(self, pc: int) -> int:
        """The host address of a decoded block's record."""
        return self._address(self.records[pc])

    def lead_vector(self, pc: int, vector: int) -> None:
        """Have groups find a VectorEntry at a block that is no entry of compiled code for single lanes."""
        with self.lock:
            if pc not in self.records:
                self._decode_from(pc)
            address = self._address(self.records[pc])
            old = ctypes.c_uint64.from_address(address + RECORD_ENTRY).value
            if old:
                _write_word(old + ENTRY_VECTOR, vector)
                return
            words = np.zeros(ENTRY_BYTES // 8, np.uint64)
            words[ENTRY_VECTOR // 8] = vector
            self._vector_words.append(words)
            _write_word(address + RECORD_ENTRY, int(words.ctypes.data))

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
        vectors: Mapping[int, int] | None = None,
    ) -> CompiledEntries:
        """Lead the blocks at `entries` (number, pc) to a compiled region, one atomic store each, while lanes run.

        `blocks` are the region's blocks: it may leave to any instruction of them. `links` are the guest addresses its
        link table wants, `code` what must stay alive, `vectors` the VectorEntry of entries by guest address.
        """
        with self.lock:
            for pc in blocks:
                if pc not in self.records:
                    self._decode_from(pc)
            table = np.zeros(max(len(links), 1), np.uint64)
            for i, pc in enumerate(links):
                table[i] = self._link(pc, int(table.ctypes.data) + 8 * i)
            kept = CompiledEntries(table, [], [code])
            for number, pc in entries:
                words = np.zeros(ENTRY_BYTES // 8, np.uint64)
                words[ENTRY_FUNCTION // 8] = function
                words[ENTRY_LINKS // 8] = table.ctypes.data
                words[ENTRY_NUMBER // 8] = number
                words[ENTRY_VECTOR // 8] = (vectors or {}).get(pc, 0)
                kept.entries.append(words)
                address = self._address(self.records[pc])
                _write_word(address + RECORD_ENTRY, int(words.ctypes.data))
                _write_word(address + RECORD_HANDLER, self.interpreter.enter_compiled)
                self._entries.add(pc)
                self.arm(pc, 0)
            self.compiled.append(kept)
            return kept
