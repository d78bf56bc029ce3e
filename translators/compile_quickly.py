"""Tier 1, first code: a region as LLVM translates it fastest.

What takes long is to keep guest registers in host registers, and to have each exit store its own set of them. Here they
stay in the lane's frame: there is little text, no pass has anything to do, and every way of leaving exists once.
"""

from __future__ import annotations

from vmjit.block_counters import BlockCounters
from vmjit.ir.registers import RegisterFile
from vmjit.kernels.emit import Value, load_field, store_field
from vmjit.kernels.layout import register_offset
from vmjit.translators.compile_region import RegionEmitter, RegionModule
from vmjit.translators.guest_locations import GuestLocations
from vmjit.translators.region_body import RegionBody, WindowPlan
from vmjit.translators.regions import Region


class _QuickEmitter(RegionEmitter):
    optimised = False

    def place_registers(self) -> None:
        pass  # they are where they belong

    def load_register(self, index: int) -> Value:
        return load_field(self.builder, self.handler.frame, register_offset(index), self.register_type(index))

    def store_register(self, index: int, value: Value) -> None:
        store_field(self.builder, self.handler.frame, register_offset(index), value)

    def emit_blocks(self) -> None:
        RegionBody.emit_blocks(self)  # loops once, with their checks

    def to_store(self) -> frozenset[int]:
        return frozenset()


def emit_quick_region(
    region: Region,
    registers: RegisterFile,
    windows: WindowPlan,
    locations: GuestLocations | None = None,
    counters: BlockCounters | None = None,
) -> RegionModule:
    """Lower a region to LLVM IR for `Effort.QUICK`, as `emit_region`."""
    return _QuickEmitter(region, registers, windows, locations, counters).emit()
