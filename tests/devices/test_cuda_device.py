"""The CUDA back end on a driver of our own: what it asks of a driver, how it launches, what failures become."""

from __future__ import annotations

import gc
import pickle
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite import ir

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")

import vmjit
from tests.cli.conftest import guest
from tests.devices.fake_cuda import FakeCuda, Fault, Gpu, device_on, sealed
from tests.differential import asm
from tests.differential.oracles import machine, program, settle
from vmjit.cache import CodeCache, DiskCache
from vmjit.decoders.riscv.registers import REGISTERS
from vmjit.devices import registry, selection
from vmjit.devices.cuda import CudaDevice
from vmjit.devices.driver_error import DriverError
from vmjit.errors import (
    ArgumentError,
    CompileError,
    DeviceCopyError,
    DeviceError,
    DeviceInitializationError,
    DeviceMemoryError,
    DeviceMissingError,
    KernelExecutionError,
    KernelLoadError,
)
from vmjit.translators import cuda as cuda_target
from vmjit.translators import cuda_tools

H100 = Gpu("NVIDIA H100", (9, 0), multiprocessors=132)
T4 = Gpu("Tesla T4", (7, 5), multiprocessors=40, threads=1024, blocks=16, kernel_registers=64)
LAPTOP = Gpu("Laptop GPU", (8, 6), multiprocessors=16, threads=1536, blocks=16, kernel_registers=128)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeCuda], CudaDevice]:
    """Makes machines that ask for "cuda" run on a driver."""

    def install(fake: FakeCuda) -> CudaDevice:
        device = device_on(fake)
        monkeypatch.setattr(selection, "open_device", lambda name: device)
        return device

    return install


# -- what is known, and names


def test_what_is_known_of_a_gpu() -> None:
    device = device_on(FakeCuda(H100), "cuda:0")
    info = device.info()
    assert (info.name, info.kind, info.architecture) == ("NVIDIA H100", "cuda", "sm_90")
    assert (info.multiprocessors, info.clock, info.l2, info.lockstep) == (132, 1980, 50 << 20, 32)
    assert info.memory_total == info.memory_free == 1 << 34
    buffer = device.allocate(1000)
    assert device.info().memory_free == (1 << 34) - 1000
    device.free(buffer)
    device.free(buffer)
    assert device.info().memory_free == 1 << 34


def test_names() -> None:
    asked: list[int] = []

    def opened(ordinal: int) -> FakeCuda:
        asked.append(ordinal)
        return FakeCuda()

    assert [CudaDevice(name, open_driver=opened).name for name in ("cuda", "cuda:0", "cuda:12")] == [
        "cuda:0",
        "cuda:0",
        "cuda:12",
    ]
    assert asked == [0, 0, 12]
    for name in ("cuda:", "cuda:x", "cuda:-1", "cuda:1234", "cudas"):
        with pytest.raises(ArgumentError, match="no device"):
            CudaDevice(name, open_driver=opened)


def test_it_is_registered_as_a_gpu() -> None:
    assert registry.back_end_of("cuda:3").gpu
    assert not registry.back_end_of("ptx").gpu


@pytest.mark.parametrize(
    ("capability", "architecture", "machine_code"), [((9, 0), "sm_90", True), ((13, 7), "sm_121", False)]
)
def test_the_architecture_that_is_compiled_for(
    capability: tuple[int, int], architecture: str, machine_code: bool
) -> None:
    """Machine code is for one generation; a GPU of a later one gets PTX."""
    target = CudaDevice(open_driver=lambda _: FakeCuda(Gpu(capability=capability))).target
    assert isinstance(target, cuda_target.CudaTarget)
    assert target.architecture == architecture
    assert bool(target.assembler) == machine_code


def test_a_gpu_that_is_too_old_for_the_compiler() -> None:
    with pytest.raises(DeviceInitializationError, match=r"compute capability 3\.5 is too old"):
        CudaDevice(open_driver=lambda _: FakeCuda(Gpu(capability=(3, 5))))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("CUDA_ERROR_NO_DEVICE", DeviceMissingError),
        ("CUDA_ERROR_INVALID_DEVICE", DeviceMissingError),
        ("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", DeviceInitializationError),
        ("CUDA_ERROR_DEVICE_UNAVAILABLE", DeviceInitializationError),
        ("CUDA_ERROR_OUT_OF_MEMORY", DeviceInitializationError),
    ],
)
def test_a_driver_that_does_not_begin(status: str, kind: type[DeviceError]) -> None:
    def refuse(ordinal: int) -> FakeCuda:
        raise DriverError(status, "it said why")

    with pytest.raises(kind, match=f"cuda:1: {status} .it said why.") as caught:
        CudaDevice("cuda:1", open_driver=refuse)
    assert isinstance(caught.value.__cause__, DriverError)
    assert caught.value.device == "cuda:1"


# -- memory


@settings(max_examples=60)
@given(st.integers(0, 50), st.integers(0, 30), st.integers(0, 7), st.integers(0, 40), st.booleans())
def test_copies(size: int, gap: int, rows: int, offset: int, far: bool) -> None:
    """There and back, in rows with gaps; also where rows lie farther apart than the driver can copy at once."""
    device = device_on(FakeCuda(Gpu(max_pitch=1 if far else 1 << 31)))
    pitch = size + gap
    content = np.random.default_rng(size).integers(0, 256, offset + pitch * rows + 3, np.uint8)
    buffer = device.allocate(len(content))
    assert not device.copy_from(buffer, len(content)).any()
    device.copy_to(buffer, content)
    data = np.random.default_rng(gap).integers(0, 256, (rows, 2 * size), np.uint8)[:, ::2]
    device.copy_to(buffer, data, offset, pitch)
    for row in range(rows):
        content[offset + row * pitch : offset + row * pitch + size] = data[row]
    assert (device.copy_from(buffer, len(content))[0] == content).all()
    assert (device.copy_from(buffer, size, offset, pitch, rows) == data).all()
    device.clear(buffer)
    assert not device.copy_from(buffer, len(content)).any()


def test_copies_that_leave_the_buffer() -> None:
    device = device_on(FakeCuda())
    buffer = device.allocate(100)
    for size, offset, pitch, rows in ((101, 0, 0, 1), (1, 100, 0, 1), (1, -1, 0, 1), (10, 0, 31, 4), (5, 50, -10, 3)):
        with pytest.raises(IndexError, match="leave a buffer of 100"):
            device.copy_from(buffer, size, offset, pitch, rows)
        with pytest.raises(IndexError, match="leave a buffer of 100"):
            device.copy_to(buffer, np.zeros((rows, size), np.uint8), offset, pitch)
    assert device.driver.log.calls["read"] == device.driver.log.calls["write"] == 0  # type: ignore[attr-defined]


def test_memory_that_nobody_has_any_more_is_given_back() -> None:
    """Also a machine's, which is in a cycle of references: at the latest when memory is short."""
    fake = FakeCuda(Gpu(memory=1 << 20))
    device = device_on(fake)
    kept = device.allocate(1000)
    for _ in range(50):
        device.allocate(100_000)
    cycle: list[Any] = [device.allocate(900_000)]
    cycle.append(cycle)
    gc.disable()
    try:
        del cycle
        assert sum(fake.log.live.values()) == 901_000
        device.allocate(900_000)
    finally:
        gc.enable()
    assert kept.address in fake.log.live


# -- launches


@pytest.mark.parametrize(
    ("gpu", "threads", "shape"),
    [
        # An H100 holds 21 blocks of 32, 10 of 64, 5 of 128 threads with 96 registers each.
        (H100, 1, (1, 32)),
        (H100, 4096, (128, 32)),
        (H100, 132 * 21 * 32, (132 * 21, 32)),
        (H100, 1 << 20, (1 << 15, 32)),
        # A T4 holds 16 blocks of 32 threads, half of what it holds in blocks of 64.
        (T4, 4096, (128, 32)),
        (T4, 40 * 16 * 32, (640, 32)),
        (T4, 40 * 16 * 32 + 1, (321, 64)),
        (T4, 1 << 20, (1 << 14, 64)),
        # 16 blocks of 32 threads with 128 registers are all that 65,536 registers can be had for.
        (LAPTOP, 1 << 20, (1 << 15, 32)),
    ],
)
def test_the_shape_of_a_launch(gpu: Gpu, threads: int, shape: tuple[int, int]) -> None:
    device = device_on(FakeCuda(gpu))
    kernel = device.load([device.target.copy_kernel("vmjit_gather")], "vmjit_gather")
    assert device.launch_shape(kernel, threads) == shape


def test_small_launches_come_to_every_multiprocessor(installed: Callable[[FakeCuda], CudaDevice]) -> None:
    fake = FakeCuda(H100)
    installed(fake)
    code = asm.encode("addi", rd=10, rs1=10, imm=1) + asm.encode("ebreak")
    m = machine(program("rv64i", code), 500, "interpreter", device="cuda")
    assert m.run().stops() == {"EBREAK": 500}
    assert {(one.blocks, one.threads) for one in fake.log.launches if one.name == "vmjit_run_lanes"} == {(16, 32)}


# -- whole guests


@pytest.mark.parametrize(
    ("name", "isa", "tier"),
    [
        ("crc32", "rv32im", "auto"),
        ("echo", "rv64imac", "interpreter"),
        ("fault", "rv64imac", "interpreter"),
        pytest.param("fault", "rv64imac", "auto", marks=pytest.mark.slow),
    ],
)
def test_guests_run_as_on_the_cpu(installed: Callable[[FakeCuda], CudaDevice], name: str, isa: str, tier: str) -> None:
    device = installed(FakeCuda())
    lanes = 35
    prog = vmjit.load(guest(name, isa))
    inputs = [struct.pack("<II", seed, 1) for seed in range(lanes)]
    machines = [vmjit.Machine(prog, lanes, where, tier, "16KiB", arguments=["guest", "1"]) for where in ("cpu", "cuda")]
    for _ in range(2):
        results = []
        for m in machines:
            m.reset()
            m.set_input(inputs)
            results.append(m.run(1_000_000))
        cpu, gpu = results
        assert [gpu.output(i) for i in range(lanes)] == [cpu.output(i) for i in range(lanes)]
        assert (gpu.stop == cpu.stop).all()
        assert (gpu.fault_address == cpu.fault_address).all()
        assert (machines[0].registers.array() == machines[1].registers.array()).all()
        assert (machines[0].retired == machines[1].retired).all()
        settle()
    assert device.driver.log.live  # type: ignore[attr-defined]


def test_machines_in_several_threads(installed: Callable[[FakeCuda], CudaDevice]) -> None:
    installed(FakeCuda())
    prog = vmjit.load(guest("echo", "rv64imac"))
    found: dict[int, list[bytes]] = {}

    def work(number: int) -> None:
        m = vmjit.Machine(prog, 33, "cuda", "interpreter", "16KiB")
        m.set_input([bytes([65 + number]) * (lane % 5) for lane in range(33)])
        found[number] = [m.run().output(lane) for lane in range(33)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {n: [bytes([65 + n]) * (lane % 5) for lane in range(33)] for n in range(3)}


# -- failures


def used(device: CudaDevice) -> None:
    """Every method once."""
    buffer = device.allocate(256)
    device.copy_to(buffer, np.arange(64, dtype=np.uint8))
    device.gather(buffer, np.arange(4))
    device.synchronize()
    device.copy_from(buffer, 64)
    device.clear(buffer)
    device.info()
    device.free(buffer)


@pytest.mark.parametrize(
    ("operation", "status", "kind"),
    [
        ("allocate", "CUDA_ERROR_INVALID_VALUE", DeviceMemoryError),
        ("clear", "CUDA_ERROR_INVALID_VALUE", DeviceMemoryError),
        ("free", "CUDA_ERROR_INVALID_VALUE", DeviceMemoryError),
        ("memory_free", "CUDA_ERROR_UNKNOWN", DeviceInitializationError),
        ("write", "CUDA_ERROR_INVALID_VALUE", DeviceCopyError),
        ("read", "CUDA_ERROR_CONTEXT_IS_DESTROYED", DeviceCopyError),
        ("read", "CUDA_ERROR_ILLEGAL_ADDRESS", KernelExecutionError),
        ("load", "CUDA_ERROR_INVALID_PTX", KernelLoadError),
        ("load", "CUDA_ERROR_OUT_OF_MEMORY", DeviceMemoryError),
        ("function", "CUDA_ERROR_NOT_FOUND", KernelLoadError),
        ("launch", "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", KernelExecutionError),
        ("launch", "CUDA_ERROR_OUT_OF_MEMORY", DeviceMemoryError),
        ("resident_blocks", "CUDA_ERROR_UNKNOWN", KernelExecutionError),
        ("synchronize", "CUDA_ERROR_LAUNCH_TIMEOUT", KernelExecutionError),
    ],
)
def test_what_becomes_of_a_status(operation: str, status: str, kind: type[DeviceError]) -> None:
    fake = FakeCuda()
    device = device_on(fake)
    # What is tried twice fails twice.
    fake.faults = [Fault(operation, fake.log.calls[operation] + n, status) for n in (1, 2)]
    with pytest.raises(kind, match=status) as caught:
        used(device)
    assert type(caught.value) is kind
    assert isinstance(caught.value.__cause__, DriverError)
    assert (caught.value.device, caught.value.status) == ("cuda:0", status)
    assert pickle.loads(pickle.dumps(caught.value)) == caught.value
    fake.faults.clear()
    used(device)


def counting(lanes: int = 33, tier: str = "interpreter", *, fallback: bool = False) -> vmjit.Machine:
    """Counts a0 down to zero."""
    code = asm.encode("addi", rd=10, rs1=10, imm=-1) + asm.encode("bne", rs1=10, imm=-4) + asm.encode("ebreak")
    m = vmjit.Machine(program("rv64i", code), lanes, "cuda", tier, 4096, fallback=fallback)
    m.registers["a0"] = np.arange(lanes) + 5000
    return m


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 7, 8, 9])  # buffers for outputs, the sixth, can be done without
def test_an_allocation_that_fails_half_way(installed: Callable[[FakeCuda], CudaDevice], number: int) -> None:
    """What was allocated before it is given back, and the device goes on."""
    fake = FakeCuda()
    device = installed(fake)
    fake.faults = [Fault("allocate", n, "CUDA_ERROR_OUT_OF_MEMORY") for n in (number, number + 1)]
    with pytest.raises(DeviceMemoryError, match=r"cannot give [0-9]+ bytes") as caught:
        counting().run()
    assert caught.value.bytes > 0
    assert isinstance(caught.value, MemoryError)
    caught.value.__traceback__ = None
    del caught
    gc.collect()
    device.allocate(1)
    assert sum(fake.log.live.values()) <= 1
    assert counting().run().stops() == {"EBREAK": 33}


@pytest.mark.parametrize("number", [1, 2])
def test_a_gpu_that_is_lost_in_a_launch(installed: Callable[[FakeCuda], CudaDevice], number: int) -> None:
    fake = FakeCuda(faults=[Fault("launch", number, "CUDA_ERROR_LAUNCH_FAILED", for_good=True)])
    installed(fake)
    m = counting()
    with pytest.raises(KernelExecutionError, match="cuda:0: vmjit_run_lanes cannot be started: CUDA_ERROR_LAUNCH_FAI"):
        m.run()
    with pytest.raises(DeviceError, match="CUDA_ERROR_LAUNCH_FAILED"):
        m.run()


def test_a_gpu_that_vanishes_between_two_runs(installed: Callable[[FakeCuda], CudaDevice]) -> None:
    """The lanes' state on this computer is that of the last run."""
    fake = FakeCuda()
    installed(fake)
    m = counting()
    m.run(100)
    before = m.registers["a0"], m.retired
    fake.faults = [Fault("write", fake.log.calls["write"] + 1, "CUDA_ERROR_DEVICE_UNAVAILABLE", for_good=True)]
    with pytest.raises(DeviceCopyError, match="it was lost"):
        m.run()
    assert (m.registers["a0"] == before[0]).all()
    assert (m.retired == before[1]).all()
    with pytest.raises(DeviceError):
        counting()
    assert vmjit.Machine(m.program, 1, "cpu").run(10).stops() == {"BUDGET": 1}


@pytest.mark.parametrize(
    "fault",
    [
        Fault("allocate", 3, "CUDA_ERROR_OUT_OF_MEMORY", for_good=True),
        Fault("load", 1, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", for_good=True),
        Fault("launch", 2, "CUDA_ERROR_LAUNCH_FAILED", for_good=True),
        Fault("synchronize", 3, "CUDA_ERROR_ECC_UNCORRECTABLE", for_good=True),
        Fault("read", 1, "CUDA_ERROR_DEVICE_UNAVAILABLE", for_good=True),
    ],
    ids=lambda fault: fault.operation,
)
def test_lanes_go_on_without_the_gpu(installed: Callable[[FakeCuda], CudaDevice], fault: Fault) -> None:
    fake = FakeCuda()
    installed(fake)
    fake.faults = [fault]
    m = counting(fallback=True)
    results = [m.run(1000), m.run(1000), m.run()]
    assert results[-1].device == "cpu"
    (fallback,) = [f for r in results for f in r.fallbacks]
    assert fault.status in fallback.reason
    assert results[-1].stops() == {"EBREAK": 33}
    assert m.registers["a0"].tolist() == [0] * 33
    assert m.retired.tolist() == [2 * (lane + 5000) for lane in range(33)]


def test_what_a_kernel_did_is_told() -> None:
    """A stray access: on a GPU the driver tells only that there was one, the PTX machine where."""
    device = device_on(FakeCuda())
    kernel = device.load([device.target.copy_kernel("vmjit_gather")], "vmjit_gather")
    with pytest.raises(KernelExecutionError, match="CUDA_ERROR_LAUNCH_FAILED"):
        device._start(kernel, 32, [0, 0, 8, 1, 64, 8, 1] * 3)


# -- linking and loading


def images(xlen: int = 32) -> list[bytes]:
    """A kernel and its interpreter, which has no instructions."""
    target = cuda_target.PtxTarget("sm_90")
    registers = REGISTERS[xlen, False]
    return [
        target.compile_kernel(registers, "interpret", [], "vmjit_run_lanes"),
        target.compile_interpreter(registers, [], "interpret"),
    ]


def test_linking_to_machine_code() -> None:
    cuda_tools.ptxas_version()
    target = cuda_target.CudaTarget("sm_90")
    linked = target.link(images(), REGISTERS[32, False])
    assert [image[:4] for image in linked] == [b"\x7fELF"]
    report = target.report(linked)
    assert 0 < report["registers"] <= cuda_target.MAX_REGISTERS[32]
    assert report["code"] == len(linked[0])
    assert target.report([b"something else"]) == {}
    assert any(part.startswith("ptxas 1") for part in target.identity)


def test_what_cannot_be_linked() -> None:
    target = cuda_target.CudaTarget("sm_90", machine_code=False)
    other = cuda_target.PtxTarget("sm_80").compile_interpreter(REGISTERS[32, False], [], "interpret")
    for parts in ([*images()[:1], other], [*images(), images()[1]], [b"\xff"]):
        with pytest.raises(CompileError, match="for sm_90 cannot be linked"):
            target.link(parts, REGISTERS[32, False])


def test_linking_without_ptxas(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver compiles, and finds the bound on registers in the text."""

    def missing(name: str) -> str:
        raise DeviceMissingError("no ptxas", device="cuda")

    monkeypatch.setattr(cuda_tools, "find_tool", missing)
    cuda_tools.ptxas_version.cache_clear()
    target = cuda_target.CudaTarget("sm_90")
    cuda_tools.ptxas_version.cache_clear()
    (text,) = target.link(images(), REGISTERS[32, False])
    assert text.count(b".version") == 1
    assert b".maxnreg 96" in text
    assert target.report([text]) == {}
    assert target.identity[-1] == "linked by the driver"
    device = device_on(FakeCuda())
    assert device.load([text], "vmjit_run_lanes").name == "vmjit_run_lanes"


def test_machine_code_that_was_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused when it is loaded; linked anew, it is taken."""
    needs = cuda_tools.Resources(90, 0, 0, 0, 1)
    monkeypatch.setattr(cuda_tools, "assemble", lambda ptx, architecture: (sealed(ptx.encode()), needs))
    device = CudaDevice(open_driver=lambda _: FakeCuda())
    (good,) = device.target.link(images(), REGISTERS[32, False])
    damaged = good[:-7] + b"x" + good[-6:]
    with pytest.raises(KernelLoadError, match=r"CUDA_ERROR_INVALID_IMAGE.*damaged or for a newer driver"):
        device.load([damaged], "vmjit_run_lanes")
    assert device.load([good], "vmjit_run_lanes") is device.load([good], "vmjit_run_lanes")
    assert device.target.report([good])["registers"] == 90


def test_a_copy_kernel_that_was_damaged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is compiled once for all devices, and again where what was kept is refused."""
    cache = CodeCache(DiskCache(tmp_path))
    monkeypatch.setattr("vmjit.devices.cuda.process_cache", lambda: cache)
    compiled: list[str] = []
    compile_one = cuda_target.PtxTarget.copy_kernel

    def counted(self: cuda_target.PtxTarget, name: str) -> bytes:
        compiled.append(name)
        return compile_one(self, name)

    monkeypatch.setattr(cuda_target.PtxTarget, "copy_kernel", counted)
    used(device_on(FakeCuda()))
    used(device_on(FakeCuda()))
    assert compiled == ["vmjit_gather"]
    fake = FakeCuda(faults=[Fault("load", 1, "CUDA_ERROR_INVALID_IMAGE")])
    used(device_on(fake))
    assert compiled == ["vmjit_gather"] * 2
    assert fake.log.calls["load"] == 2


def test_a_driver_that_is_too_old() -> None:
    fake = FakeCuda(Gpu(driver="12.2"), [Fault("load", 1, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION")])
    device = device_on(fake)
    with pytest.raises(KernelLoadError, match=r"the driver knows CUDA 12\.2; update it.*vmjit\[cuda12\]"):
        device.load(images(), "vmjit_run_lanes")


def test_a_kernel_that_is_not_there() -> None:
    fake = FakeCuda()
    device = device_on(fake)
    with pytest.raises(KernelLoadError, match="CUDA_ERROR_NOT_FOUND"):
        device.load(images(), "another")
    gc.collect()
    device.load(images(), "vmjit_run_lanes")
    assert fake.log.modules == 1


def test_modules_that_nobody_has_any_more_are_unloaded() -> None:
    fake = FakeCuda()
    device = device_on(fake)
    text = images()
    kept = device.load(text, "vmjit_run_lanes")
    for number in range(12):
        device.load([text[0] + b"// %d\n" % number, *text[1:]], "vmjit_run_lanes")
    assert fake.log.modules <= 10
    assert device.launch_shape(kept, 1) == (1, 32)


def test_code_that_the_compiler_refuses() -> None:
    """The error has the compiler's words and the IR."""

    def emit(b: Any, args: Any) -> Any:
        strange = ir.Function(b.module, ir.FunctionType(ir.IntType(64), [ir.IntType(64)]), "llvm.round.i64")
        return b.call(strange, [args[0]])

    target = cuda_target.PtxTarget("sm_90")
    with pytest.raises(CompileError, match="strange_one cannot be compiled for sm_90") as caught:
        target._device_function(emit, cuda_target._INTERPRETER, "strange_one")
    assert "llvm.round.i64" in caught.value.ir
    assert caught.value.log
