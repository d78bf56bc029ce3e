"""A kernel that uses much of the language at once: tables, calls by address, structures, scopes, initial values."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ptx.kernels import HEADER
from vmjit.ptx import Module, Ptr

TEXT = (
    HEADER
    + r"""
.global .align 8 .u64 table[3] = {sum, product, generic(data)+16};
.const .align 4 .b8 data[32] = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,0xff,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32};
.global .align 8 .f64 one_and_a_half = 0d3FF8000000000000;
.global .align 4 .f32 floats[2] = {0f3F800000, 0f40490FDB};
.func (.param .b64 r) sum(.param .b64 x, .param .align 8 .b8 y[16])
{
    .reg .b64 %rd<5>;
    ld.param.u64 %rd1,[x]; ld.param.v2.u64 {%rd2,%rd3},[y]; add.s64 %rd1,%rd1,%rd2; add.s64 %rd1,%rd1,%rd3;
    st.param.b64 [r+0],%rd1; ret;
}
.func (.param .b64 r) product(.param .b64 x, .param .align 8 .b8 y[16])
{
    .reg .b64 %rd<5>;
    ld.param.u64 %rd1,[x]; ld.param.u64 %rd2,[y+8]; mul.lo.s64 %rd1,%rd1,%rd2; st.param.b64 [r+0],%rd1; ret;
}
.visible .entry k(.param .u64 pa, .param .u64 px, .param .align 8 .b8 st[24])
.maxntid 128, 1, 1
{
    .reg .pred %p<6>; .reg .b16 %rs<4>; .reg .b32 %r<20>; .reg .b64 %rd<40>; .reg .f64 %fd<4>; .reg .f32 %f<4>;
    .local .align 8 .b8 loc[64];
    mov.u32 %r1,%tid.x; mov.u32 %r2,%ctaid.x; mov.u32 %r3,%ntid.x; mad.lo.s32 %r4,%r2,%r3,%r1;
    ld.param.u64 %rd1,[pa]; ld.param.u64 %rd2,[px]; mul.wide.u32 %rd3,%r4,8; add.s64 %rd1,%rd1,%rd3; add.s64 %rd2,%rd2,%rd3;
    ld.global.u64 %rd4,[%rd1]; cvt.u32.u64 %r5,%rd4; and.b32 %r6,%r5,3;
    mov.u64 %rd10, 0;
ts: .branchtargets L0, L1, L2, L1;
    brx.idx %r6, ts;
L0: add.s64 %rd10,%rd4,100; bra.uni J;
L1: mul.lo.s64 %rd10,%rd4,3; bra J;
L2: { .reg .b64 %q; not.b64 %q,%rd4; mov.b64 %rd10,%q; }
J:  and.b32 %r7,%r5,1; mov.u64 %rd11, table; mul.wide.u32 %rd12,%r7,8; add.s64 %rd11,%rd11,%rd12; ld.global.u64 %rd13,[%rd11];
    {
        .param .b64 p0; .param .align 8 .b8 p1[16]; .param .b64 rv;
        st.param.b64 [p0+0],%rd10; st.param.b64 [p1+0],%rd4; ld.param.u64 %rd14,[st+16]; st.param.b64 [p1+8],%rd14;
        proto: .callprototype (.param .b64 _) _ (.param .b64 _, .param .align 8 .b8 _[16]);
        call (rv), %rd13, (p0, p1), proto;
        ld.param.b64 %rd15,[rv+0];
    }
    mov.u64 %rd16, loc; st.local.u64 [%rd16+8],%rd15; cvta.local.u64 %rd17,%rd16; ld.u8 %rs1,[%rd17+8]; cvt.u64.u16 %rd18,%rs1; add.s64 %rd15,%rd15,%rd18;
    ld.global.u64 %rd19,[table+16]; ld.u8 %rs2,[%rd19]; cvt.s64.s8 %rd20,%rs2; add.s64 %rd15,%rd15,%rd20;
    ld.const.u32 %r8,[data+4]; cvt.u64.u32 %rd21,%r8; xor.b64 %rd15,%rd15,%rd21;
    ld.global.f64 %fd1,[one_and_a_half]; ld.global.f32 %f1,[floats+4]; cvt.f64.f32 %fd2,%f1; add.f64 %fd1,%fd1,%fd2; cvt.rzi.s64.f64 %rd22,%fd1; add.s64 %rd15,%rd15,%rd22;
    setp.gt.u32 %p1,%r6,1; mov.b64 %rd23, st; cvta.param.u64 %rd23,%rd23; @%p1 ld.u64 %rd24,[%rd23+8]; @!%p1 mov.u64 %rd24,7; add.s64 %rd15,%rd15,%rd24;
    setp.eq.u32 %p2,%r6,0; @%p2 bra DONE; @!%p2 add.s64 %rd15,%rd15,1;
    ld.global.v2.u32 {%r10,_},[%rd1]; cvt.u64.u32 %rd25,%r10; add.s64 %rd15,%rd15,%rd25;
DONE: st.global.u64 [%rd2],%rd15; ret;
}
"""
)
COUNT = 1024
MASK = (1 << 64) - 1


def expected(x: int) -> int:
    kind = x & 3
    value = [x + 100, x * 3, ~x, x * 3][kind] & MASK
    value = (value + x + 33 if not kind & 1 else value * 33) & MASK
    value = (value + (value & 255)) & MASK
    value = (value - 1) & MASK  # the byte 0xff as s8
    value ^= 0x08070605
    value = (value + 4) & MASK  # 1.5 + pi, rounded to zero
    value += 22 if kind > 1 else 7
    if kind:
        value += 1 + (x & 0xFFFFFFFF)
    return value & MASK


@pytest.mark.parametrize(("engine", "jit_opt"), [("simt", None), ("thread", 0), ("thread", 1), ("thread", 3)])
def test_hand_written_kernel(engine: str, jit_opt: int | None) -> None:
    given = np.random.default_rng(3).integers(0, 1 << 64, COUNT, dtype=np.uint64)
    found = np.zeros(COUNT, np.uint64)
    structure = np.array([11, 22, 33], np.uint64)
    module = Module(TEXT, jit_opt=jit_opt)
    module.launch("k", COUNT // 128, 128, [Ptr(given), Ptr(found), structure.tobytes()], engine=engine)
    assert found.tolist() == [expected(int(x)) for x in given]
    assert (module.version, module.target) == ("7.0", "sm_70")
    assert module.entries == ["k"]
