"""A program's code as nobody has run it: for showing what it is translated to."""

from __future__ import annotations

from vmjit.decoders.riscv.decoder import Decoder
from vmjit.guest_code import CodeSpan, GuestCode
from vmjit.program import Program
from vmjit.translators.regions import Growth, Region, form_region, is_call


class StaticCode(GuestCode):
    """The executable segments of a program, of which is known what was decoded: what a place leads to."""

    def __init__(self, program: Program) -> None:
        spans = [CodeSpan(s.address, s.data.ljust(s.size, b"\0")) for s in program.segments if s.executable]
        super().__init__(Decoder(program.isa_config), spans)
        self._decoded: set[int] = set()

    def _is_decoded(self, pc: int) -> bool:
        return pc in self._decoded

    def _decode_from(self, pc: int) -> list[int]:
        self._decoded.add(pc)
        block = self.block(pc)
        following = list(block.successors())
        if is_call(block) or block.terminator.name == "ecall":
            following.append(block.end)
        return following

    def visits(self, pc: int) -> int:
        """1 for what the place that was asked for leads to: regions grow into it first."""
        return int(self._is_decoded(pc))

    def indirect_targets(self, pc: int) -> list[int]:
        return []

    def region(self, pc: int) -> Region | None:
        """The region that starts at `pc`, grown along all static edges; None if nothing can be executed there."""
        return form_region(self, pc, Growth(self.executable)) if self.decode(pc) else None
