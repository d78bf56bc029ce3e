"""Code as LLVM's own PTX back end emits it, against the same code compiled for the host."""

from __future__ import annotations

import ctypes

import llvmlite.binding as llvm
import numpy as np
import pytest

from tests.ptx.running import ENGINES
from vmjit.ptx import Module, Ptr

COUNT = 256

# A function of one number, with what emitted kernels have: a loop around a switch, tables of functions and constants,
# calls with structures, local arrays, bytes, wide products, floats, a place that is never reached.
WORK = """
@functions = internal constant [3 x ptr] [ptr @plus, ptr @times, ptr @mixed]
@primes = internal constant [8 x i16] [i16 2, i16 3, i16 5, i16 7, i16 11, i16 13, i16 17, i16 -19]
@counter = internal global i64 41

declare i64 @llvm.ctpop.i64(i64)
declare i64 @llvm.ctlz.i64(i64, i1)
declare i64 @llvm.bitreverse.i64(i64)
declare i64 @llvm.bswap.i64(i64)
declare i64 @llvm.fshl.i64(i64, i64, i64)
declare double @llvm.fma.f64(double, double, double)
declare double @llvm.sqrt.f64(double)
declare double @llvm.floor.f64(double)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare { i64, i1 } @llvm.umul.with.overflow.i64(i64, i64)

define internal i64 @plus(i64 %a, i64 %b) noinline { %r = add i64 %a, %b ret i64 %r }
define internal i64 @times(i64 %a, i64 %b) noinline { %r = mul i64 %a, %b ret i64 %r }
define internal i64 @mixed(i64 %a, i64 %b) noinline {
  %w = zext i64 %a to i128
  %v = sext i64 %b to i128
  %p = mul i128 %w, %v
  %h = lshr i128 %p, 64
  %r = trunc i128 %h to i64
  ret i64 %r
}
define internal { i64, i32, i8 } @pieces(i64 %a, i8 signext %k) noinline {
  %t = trunc i64 %a to i32
  %x = insertvalue { i64, i32, i8 } poison, i64 %a, 0
  %y = insertvalue { i64, i32, i8 } %x, i32 %t, 1
  %z = insertvalue { i64, i32, i8 } %y, i8 %k, 2
  ret { i64, i32, i8 } %z
}
define internal i64 @sum_of_bytes(ptr byval([16 x i8]) align 8 %p, i32 %n) noinline {
entry:
  br label %loop
loop:
  %k = phi i32 [ 0, %entry ], [ %k1, %loop ]
  %s = phi i64 [ 0, %entry ], [ %s1, %loop ]
  %q = getelementptr i8, ptr %p, i32 %k
  %b = load i8, ptr %q
  %e = sext i8 %b to i64
  %s1 = add i64 %s, %e
  %k1 = add i32 %k, 1
  %d = icmp eq i32 %k1, %n
  br i1 %d, label %end, label %loop
end:
  ret i64 %s1
}
define internal i64 @depth(i64 %n) noinline {
  %own = alloca i64
  store volatile i64 %n, ptr %own
  %z = icmp eq i64 %n, 0
  br i1 %z, label %end, label %more
more:
  %m = sub i64 %n, 1
  %r = call i64 @depth(i64 %m)
  %v = load volatile i64, ptr %own
  %t = mul i64 %r, 3
  %s = add i64 %t, %v
  ret i64 %s
end:
  ret i64 1
}
define i64 @work(i64 %start) noinline {
entry:
  %array = alloca [16 x i8], align 8
  store i64 %start, ptr %array, align 8
  %upper = getelementptr i8, ptr %array, i64 8
  store i64 -1, ptr %upper, align 8
  br label %loop
loop:
  %k = phi i64 [ 0, %entry ], [ %k.next, %next ]
  %x = phi i64 [ %start, %entry ], [ %x.next, %next ]
  %amount = mul i64 %k, 3
  %shifted = lshr i64 %start, %amount
  %digit = and i64 %shifted, 15
  switch i64 %digit, label %never [
    i64 0, label %c0 i64 1, label %c1 i64 2, label %c2 i64 3, label %c3 i64 4, label %c4 i64 5, label %c5
    i64 6, label %c6 i64 7, label %c7 i64 8, label %c8 i64 9, label %c9 i64 10, label %c10 i64 11, label %c11
    i64 12, label %c12 i64 13, label %c13 i64 14, label %c14 i64 15, label %c15 ]
never:
  unreachable
c0:
  %which = urem i64 %x, 3
  %slot = getelementptr ptr, ptr @functions, i64 %which
  %f = load ptr, ptr %slot
  %v0 = call i64 %f(i64 %x, i64 %k)
  br label %next
c1:
  %c = call i64 @llvm.ctpop.i64(i64 %x)
  %z = call i64 @llvm.ctlz.i64(i64 %x, i1 false)
  %cz = shl i64 %c, 7
  %v1 = xor i64 %cz, %z
  br label %next
c2:
  %r = call i64 @llvm.bitreverse.i64(i64 %x)
  %v2 = call i64 @llvm.bswap.i64(i64 %r)
  br label %next
c3:
  %v3 = call i64 @llvm.fshl.i64(i64 %x, i64 %start, i64 %k)
  br label %next
c4:
  %i = and i64 %x, 7
  %place = getelementptr i16, ptr @primes, i64 %i
  %prime = load i16, ptr %place
  %wide = sext i16 %prime to i64
  %q4 = sdiv i64 %x, %wide
  %m4 = srem i64 %x, %wide
  %v4 = sub i64 %q4, %m4
  br label %next
c5:
  %small = trunc i64 %x to i8
  %all = call { i64, i32, i8 } @pieces(i64 %x, i8 signext %small)
  %p0 = extractvalue { i64, i32, i8 } %all, 0
  %p1 = extractvalue { i64, i32, i8 } %all, 1
  %p2 = extractvalue { i64, i32, i8 } %all, 2
  %e1 = sext i32 %p1 to i64
  %e2 = sext i8 %p2 to i64
  %s5 = add i64 %e1, %e2
  %v5 = xor i64 %s5, %p0
  br label %next
c6:
  %n6 = and i64 %x, 7
  %n6t = trunc i64 %n6 to i32
  %n6p = add i32 %n6t, 3
  %v6 = call i64 @sum_of_bytes(ptr byval([16 x i8]) align 8 %array, i32 %n6p)
  br label %next
c7:
  %low = and i64 %x, 1048575
  %d = uitofp i64 %low to double
  %d2 = call double @llvm.sqrt.f64(double %d)
  %d3 = call double @llvm.fma.f64(double %d2, double %d, double 0.5)
  %d4 = call double @llvm.floor.f64(double %d3)
  %s7 = fptrunc double %d4 to float
  %t7 = fdiv float %s7, 3.0
  %v7 = fptosi float %t7 to i64
  br label %next
c8:
  %at = and i64 %x, 15
  %byte = getelementptr i8, ptr %array, i64 %at
  %t8 = trunc i64 %k to i8
  store i8 %t8, ptr %byte
  %v8 = load i64, ptr %array, align 8
  br label %next
c9:
  %n9 = and i64 %x, 15
  %v9 = call i64 @depth(i64 %n9)
  br label %next
c10:
  %copy = alloca [16 x i8], align 8
  call void @llvm.memcpy.p0.p0.i64(ptr align 8 %copy, ptr align 8 %array, i64 16, i1 false)
  %odd = getelementptr i8, ptr %copy, i64 5
  %v10 = load i64, ptr %odd, align 1
  br label %next
c11:
  %o = call { i64, i1 } @llvm.umul.with.overflow.i64(i64 %x, i64 5)
  %o0 = extractvalue { i64, i1 } %o, 0
  %o1 = extractvalue { i64, i1 } %o, 1
  %v11 = select i1 %o1, i64 %o0, i64 %k
  br label %next
c12:
  %n12 = trunc i64 %x to i32
  %a12 = ashr i32 %n12, 3
  %b12 = mul i32 %a12, -7
  %v12 = zext i32 %b12 to i64
  br label %next
c13:
  %v13 = load i64, ptr @counter
  br label %next
c14:
  %h14 = trunc i64 %x to i16
  %m14 = mul i16 %h14, 77
  %u14 = udiv i16 %m14, 9
  %v14 = sext i16 %u14 to i64
  br label %next
c15:
  %l = icmp slt i64 %x, %start
  %u = icmp ult i64 %x, %start
  %lu = xor i1 %l, %u
  %v15 = sext i1 %lu to i64
  br label %next
next:
  %v = phi i64 [ %v0, %c0 ], [ %v1, %c1 ], [ %v2, %c2 ], [ %v3, %c3 ], [ %v4, %c4 ], [ %v5, %c5 ], [ %v6, %c6 ],
    [ %v7, %c7 ], [ %v8, %c8 ], [ %v9, %c9 ], [ %v10, %c10 ], [ %v11, %c11 ], [ %v12, %c12 ], [ %v13, %c13 ],
    [ %v14, %c14 ], [ %v15, %c15 ]
  %x5 = mul i64 %x, 31
  %x.next = add i64 %x5, %v
  %k.next = add i64 %k, 1
  %done = icmp eq i64 %k.next, 20
  br i1 %done, label %end, label %loop
end:
  ret i64 %x.next
}
"""

KERNEL = """
declare i32 @llvm.nvvm.read.ptx.sreg.tid.x()
declare i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
declare i32 @llvm.nvvm.read.ptx.sreg.ntid.x()
define ptx_kernel void @k(ptr %in, ptr %out) {
  %t = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()
  %b = call i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
  %n = call i32 @llvm.nvvm.read.ptx.sreg.ntid.x()
  %bn = mul i32 %b, %n
  %i = add i32 %bn, %t
  %p = getelementptr i64, ptr %in, i32 %i
  %x = load i64, ptr %p
  %y = call i64 @work(i64 %x)
  %q = getelementptr i64, ptr %out, i32 %i
  store i64 %y, ptr %q
  ret void
}
"""


def target_machine(triple: str, cpu: str, level: int) -> llvm.TargetMachine:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=level)


def optimized(text: str, machine: llvm.TargetMachine, level: int) -> llvm.ModuleRef:
    module = llvm.parse_assembly(text)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=level))
    builder.getModulePassManager().run(module, builder)
    return module


def ptx_of(level: int, cpu: str) -> str:
    machine = target_machine("nvptx64-nvidia-cuda", cpu, level)
    return str(machine.emit_assembly(optimized(WORK + KERNEL, machine, level)))


@pytest.fixture(scope="module")
def numbers() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 1 << 64, COUNT, dtype=np.uint64)


@pytest.fixture(scope="module")
def expected(numbers: np.ndarray) -> list[int]:
    """The numbers through the host's code of the same function."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(opt=1)
    engine = llvm.create_mcjit_compiler(optimized(WORK, machine, 1), machine)
    engine.finalize_object()
    work = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)(engine.get_function_address("work"))
    return [work(int(x)) for x in numbers]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("cpu", ["sm_70", "sm_90"])
@pytest.mark.parametrize("level", [0, 3])
def test_as_on_the_host(engine: str, level: int, cpu: str, numbers: np.ndarray, expected: list[int]) -> None:
    found = np.zeros(COUNT, np.uint64)
    module = Module(ptx_of(level, cpu))
    module.launch("k", COUNT // 64, 64, [Ptr(numbers), Ptr(found)], engine=engine)
    assert found.tolist() == expected
