"""Device kernels for this computer's processor: the device functions as they are, and a loop over threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from vmjit.ir.registers import RegisterFile
from vmjit.kernels.device_lanes import emit_run_lane
from vmjit.kernels.device_memory import I64
from vmjit.translators.cpu import cpu_target
from vmjit.translators.device_interpreter import INTERPRETER_TYPE, emit_interpreter_function
from vmjit.translators.device_region import REGION_TYPE, DeviceWindowPlan, emit_region_function
from vmjit.translators.interpreter import TemplateKey
from vmjit.translators.regions import Region


class HostDeviceTarget:
    """Images are object files for the host."""

    links = False

    def __init__(self) -> None:
        self.identity: tuple[str, ...] = ("host device", *cpu_target().identity)

    def compile_interpreter(self, registers: RegisterFile, keys: Sequence[TemplateKey], name: str) -> bytes:
        return _compiled(lambda module: emit_interpreter_function(registers, list(keys), module, name))

    def compile_region(self, region: Region, registers: RegisterFile, windows: DeviceWindowPlan, name: str) -> bytes:
        return _compiled(lambda module: emit_region_function(region, registers, windows, module, name))

    def compile_kernel(self, registers: RegisterFile, interpreter: str, regions: Sequence[str], name: str) -> bytes:
        return _compiled(lambda module: _emit_kernel(module, registers, interpreter, regions, name))

    def link(self, images: Sequence[bytes], registers: RegisterFile) -> list[bytes]:
        """The images as they are: they are linked where they are loaded."""
        return list(images)

    def report(self, linked: Sequence[bytes]) -> dict[str, int]:
        return {}


def _compiled(emit: Callable[[Any], Any]) -> bytes:
    module = ir.Module(name="device")
    emit(module)
    return cpu_target().compile(str(module))


def _emit_kernel(module: Any, registers: RegisterFile, interpreter: str, regions: Sequence[str], name: str) -> None:
    """`name(machine, threads)` runs the lanes 0 to threads - 1."""
    interpret = ir.Function(module, INTERPRETER_TYPE, interpreter)
    functions = [ir.Function(module, REGION_TYPE, region) for region in regions]
    kernel = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64, I64]), name)
    machine, threads = kernel.args
    entry, head, body, done = (kernel.append_basic_block(n) for n in ("entry", "head", "body", "end"))
    b = ir.IRBuilder(entry)
    b.branch(head)
    b.position_at_end(head)
    lane = b.phi(I64)
    lane.add_incoming(ir.Constant(I64, 0), entry)
    b.cbranch(b.icmp_unsigned("<", lane, threads), body, done)
    b.position_at_end(body)
    emit_run_lane(
        b,
        machine,
        lane,
        registers=registers,
        interpret=interpret,
        regions=functions,
    )
    lane.add_incoming(b.add(lane, ir.Constant(I64, 1)), b.block)
    b.branch(head)
    b.position_at_end(done)
    b.ret_void()
