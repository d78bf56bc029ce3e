"""Code spaces for devices: guest code as slots and tables that a device kernel looks instructions up in.

The structure is described in `kernels/device_layout.py`. The arrays here are the host's; the engine copies them to the
device when they have changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vmjit.decoders.riscv.decoder import Decoder, Instruction
from vmjit.decoders.riscv.row import REGISTER_SLOTS, register_index
from vmjit.guest_code import CodeSpan, GuestCode
from vmjit.translators.interpreter import UNSUPPORTED, TemplateKey, fetch_fault, template_key
from vmjit.translators.regions import Region

_MASK64 = (1 << 64) - 1

SLOT_TYPE = np.dtype(
    [("handler", "<u4"), ("entry", "<u4"), ("registers", "<u4"), ("visits", "<u4"), ("constants", "<u8", (2,))]
)

# Instructions in a row without a jump, after which a link goes on.
_MAX_STRAIGHT = 4096


class DeviceCodeSpace(GuestCode):
    """The code of lanes whose executable memory holds `spans`. `numbers` are the interpreter's, by template.

    All methods may be called from any thread.
    """

    def __init__(self, decoder: Decoder, numbers: Mapping[TemplateKey, int], spans: Sequence[CodeSpan]) -> None:
        super().__init__(decoder, spans)
        self.numbers = numbers
        self.slots = np.zeros(256, SLOT_TYPE)
        self.pcs = np.zeros(256, np.uint64)
        self.used = 1  # slot 0 stands for "not decoded"
        self.tables = [np.zeros((len(s.data) + 1) // 2, np.uint32) for s in self.spans]
        self.changes = 0
        """Counts changes, so that a copy on a device can be told to be old."""
        self.submitted: set[int] = set()
        """Addresses for which compiled code was asked for already."""
        self.covered: dict[int, int] = {}
        """Blocks that compiled regions have, and how often each was visited by then."""
        self._promised: set[int] = set()  # entries of regions that no kernel has yet
        self._jumps: dict[int, set[int]] = {}  # slot of a computed jump -> where it went
        self._link = len(numbers)

    # -- guest code

    def slot(self, pc: int) -> int:
        """The slot of the instruction at an address; 0 if it is not decoded."""
        for span, table in zip(self.spans, self.tables, strict=True):
            if span.lo <= pc < span.end:
                return int(table[(pc - span.lo) >> 1])
        return 0

    # -- decoding

    def _is_decoded(self, pc: int) -> bool:
        return self.slot(pc) != 0

    def _decode_from(self, pc: int) -> list[int]:
        """Write slots up to the next jump, or to code that has some; the addresses it leads to."""
        for _ in range(_MAX_STRAIGHT):
            if self.slot(pc) or not self.executable(pc):
                break
            instruction = self.instruction(pc)
            following = self._write(instruction)
            pc = (pc + instruction.size) & self._mask
            if following is not None:
                return following
        self._append(self._link, 0, (pc, 0), pc)
        return [pc]

    def _write(self, instruction: Instruction) -> list[int] | None:
        """One instruction's slot. None if the next slot follows, else the addresses that control may go to."""
        matched = instruction.matched
        xlen = self.decoder.registers.type
        after = (instruction.pc + instruction.size) & self._mask
        if instruction.missing:
            self._place(instruction, self.numbers[fetch_fault(xlen)], 0, (instruction.target, 0))
            return []
        if matched is None or not self.decoder.has_meaning(instruction):
            self._place(instruction, self.numbers[UNSUPPORTED], 0, (0, 0))
            return []
        template = self.decoder.template(instruction)
        registers = 0
        for name, place in REGISTER_SLOTS.items():
            if name in matched.values:
                registers |= register_index(name, matched.values[name]) << (8 * place)
        words = [0, 0]
        named = {"target": instruction.target, "next_pc": after, "rest": 0}
        for i, name in enumerate(template.constants):
            words[i] = (named[name] if name in named else matched.values[name]) & _MASK64
        number = self.numbers[template_key(template.ops, template.terminator)]
        self._place(instruction, number, registers, (words[0], words[1]))
        if template.terminator is None:
            return None
        following = [words[i] for i in template.links]
        if matched.base.name == "ecall":  # a call that a device can serve itself goes on behind it
            self._append(self._link, 0, (after, 0), after)
        if matched.base.name == "ecall" or matched.values.get("rd", 0) != 0:
            following.append(after)  # where the call returns to
        return following

    def _place(self, instruction: Instruction, number: int, registers: int, constants: tuple[int, int]) -> None:
        slot = self._append(number, registers, constants, instruction.pc)
        for span, table in zip(self.spans, self.tables, strict=True):
            if span.lo <= instruction.pc < span.end:
                table[(instruction.pc - span.lo) >> 1] = slot

    def _append(self, number: int, registers: int, constants: tuple[int, int], pc: int) -> int:
        if self.used == len(self.slots):
            self.slots = np.concatenate([self.slots, np.zeros_like(self.slots)])
            self.pcs = np.concatenate([self.pcs, np.zeros_like(self.pcs)])
        slot = self.used
        self.slots[slot] = (number, 0, registers, 0, constants)
        self.pcs[slot] = pc
        self.used += 1
        self.changes += 1
        return slot

    # -- what region formation asks (regions.CodeView)

    def visits(self, pc: int) -> int:
        """How often a jump went to `pc`, as far as counted."""
        slot = self.slot(pc)
        return int(self.slots["visits"][slot]) if slot else 0

    def indirect_targets(self, pc: int) -> list[int]:
        return sorted(self._jumps.get(self.slot(self.block(pc).instructions[-1].pc), ()))

    def take_profile(self, visits: NDArray[np.uint32], targets: NDArray[np.uint64]) -> None:
        """Take over what a device counted for the first slots, and where computed jumps last went.

        Of several devices with the same code, the one that counted most is believed.
        """
        known = self.slots["visits"][: len(visits)]
        np.maximum(known, visits, out=known)
        for slot in np.flatnonzero(targets):
            target = int(targets[slot])
            if self.executable(target):
                self._jumps.setdefault(int(slot), set()).add(target)

    # -- compiled code

    def install(self, entries: Sequence[tuple[int, int]]) -> None:
        """Let jumps to these addresses enter compiled code: (pc, entry word)."""
        with self.lock:
            for pc, word in entries:
                if not self.slot(pc):
                    self.decode(pc)
                self.slots["entry"][self.slot(pc)] = word
            self.changes += 1

    def promise(self, region: Region, entries: Sequence[int]) -> None:
        """A region was translated: no other is to be made for its blocks while it waits for a kernel."""
        with self.lock:
            self._promised.update(entries)
            self.covered.update({pc: self.visits(pc) for pc in region.blocks})

    def has_compiled(self, pc: int) -> bool:
        """Whether compiled code begins at an address, or will soon."""
        return pc in self._promised or self.entry(pc) != 0

    def entry(self, pc: int) -> int:
        """The entry word of compiled code at an address; 0 if there is none."""
        return int(self.slots["entry"][self.slot(pc)])
