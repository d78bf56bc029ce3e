"""What surrounds a kernel's functions: the search for an access's segment, the loops over blocks and threads."""

from __future__ import annotations

from vmjit.ptx.assembly.syntax import Function
from vmjit.ptx.thread.context import Fault, Word

# An access hits the segment that its site hit last, or comes here. A hit stores base and limit at the site: from then
# on `address - base < limit` is the whole test. Returns false with the context's fault set.
FIND_SEGMENT = f"""
define internal i1 @find_segment(ptr %ctx, ptr %site, i64 %address, i64 %size, i64 %store, i64 %line, i64 %function)
    noinline {{
entry:
  %segments.p = getelementptr i64, ptr %ctx, i64 {Word.SEGMENTS:d}
  %segments.i = load i64, ptr %segments.p
  %segments = inttoptr i64 %segments.i to ptr
  %count.p = getelementptr i64, ptr %ctx, i64 {Word.SEGMENT_COUNT:d}
  %count = load i64, ptr %count.p
  %low = sub i64 %size, 1
  %misalignment = and i64 %address, %low
  %is.aligned = icmp eq i64 %misalignment, 0
  br i1 %is.aligned, label %loop, label %bad
loop:
  %k = phi i64 [ 0, %entry ], [ %k.next, %next ]
  %is.over = icmp uge i64 %k, %count
  br i1 %is.over, label %bad, label %test
test:
  %index = mul i64 %k, 3
  %base.p = getelementptr i64, ptr %segments, i64 %index
  %length.p = getelementptr i64, ptr %base.p, i64 1
  %writable.p = getelementptr i64, ptr %base.p, i64 2
  %base = load i64, ptr %base.p
  %length = load i64, ptr %length.p
  %writable = load i64, ptr %writable.p
  %beyond = add i64 %length, 1
  %is.short = icmp ult i64 %beyond, %size
  %limit.long = sub i64 %beyond, %size
  %limit = select i1 %is.short, i64 0, i64 %limit.long
  %offset = sub i64 %address, %base
  %is.inside = icmp ult i64 %offset, %limit
  %is.allowed = icmp uge i64 %writable, %store
  %is.hit = and i1 %is.inside, %is.allowed
  br i1 %is.hit, label %hit, label %next
next:
  %k.next = add i64 %k, 1
  br label %loop
hit:
  store i64 %base, ptr %site
  %limit.p = getelementptr i64, ptr %site, i64 1
  store i64 %limit, ptr %limit.p
  ret i1 true
bad:
  %fault.p = getelementptr i64, ptr %ctx, i64 {Word.FAULT:d}
  store i64 {Fault.ACCESS:d}, ptr %fault.p
  %fault.address.p = getelementptr i64, ptr %ctx, i64 {Word.FAULT_ADDRESS:d}
  store i64 %address, ptr %fault.address.p
  %size.doubled = shl i64 %size, 1
  %size.and.store = or i64 %size.doubled, %store
  %fault.size.p = getelementptr i64, ptr %ctx, i64 {Word.FAULT_SIZE:d}
  store i64 %size.and.store, ptr %fault.size.p
  %fault.line.p = getelementptr i64, ptr %ctx, i64 {Word.FAULT_LINE:d}
  store i64 %line, ptr %fault.line.p
  %fault.function.p = getelementptr i64, ptr %ctx, i64 {Word.FAULT_FUNCTION:d}
  store i64 %function, ptr %fault.function.p
  ret i1 false
}}
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
!0 = !{{!"branch_weights", i32 10000, i32 1}}
"""

_READ = {
    "width": Word.NTID,
    "height": Word.NTID_Y,
    "deep": Word.NTID_Z,
    "grid.x": Word.NCTAID,
    "grid.y": Word.NCTAID_Y,
    "shared": Word.SHARED,
    "shared.bytes": Word.SHARED_BYTES,
    "local": Word.LOCAL,
    "local.step": Word.LOCAL_STEP,
    "local.size": Word.LOCAL_SIZE,
    "poison.word": Word.POISON,
}
_WRITTEN = {
    "block.x": Word.BLOCK,
    "block.y": Word.BLOCK_Y,
    "block.z": Word.BLOCK_Z,
    "thread.x": Word.THREAD,
    "thread.y": Word.THREAD_Y,
    "thread.z": Word.THREAD_Z,
    "stack": Word.STACK,
    "stack.end": Word.STACK_END,
    "resume": Word.RESUME,
    "barrier": Word.BARRIER,
    "arriving.true": Word.ARRIVING_TRUE,
    "arriving": Word.ARRIVING,
    "leaving.true": Word.LEAVING_TRUE,
    "leaving": Word.LEAVING,
    "fault": Word.FAULT,
    "fault.line": Word.FAULT_LINE,
    "fault.function": Word.FAULT_FUNCTION,
    "count": Word.COUNT,
    "budget": Word.BUDGET,
}
_ENDED = -2  # a thread's state; else the number of the barrier it goes on from, 0 at first
_NO_BARRIER = -1


def driver(name: str, kernel: Function, frame_bytes: int) -> str:
    """A function that runs the threads of blocks `first` to `end`: each to its next barrier, until all have ended."""
    pointers = "\n".join(
        f"  %{name}.p = getelementptr i64, ptr %ctx, i64 {word:d}" for name, word in (_READ | _WRITTEN).items()
    )
    loads = "\n".join(f"  %{name} = load i64, ptr %{name}.p" for name in _READ)
    return f"""
define i64 @{name}(ptr %ctx, ptr %params, i64 %first, i64 %end, ptr %frames, ptr %states) {{
entry:
{pointers}
{loads}
  %layer = mul i64 %width, %height
  %threads = mul i64 %layer, %deep
  %grid.layer = mul i64 %grid.x, %grid.y
  %poison = trunc i64 %poison.word to i8
  %shared.ptr = inttoptr i64 %shared to ptr
  %local.ptr = inttoptr i64 %local to ptr
  %local.bytes = mul i64 %threads, %local.step
  %frame.bytes = mul i64 %threads, {frame_bytes}
  %state.bytes = mul i64 %threads, 8
  br label %block
block:
  %b = phi i64 [ %first, %entry ], [ %b.next, %block.done ]
  %is.last = icmp uge i64 %b, %end
  br i1 %is.last, label %finished, label %block.start
block.start:
  %spent = load i64, ptr %count.p
  %allowed = load volatile i64, ptr %budget.p
  %is.over = icmp ugt i64 %spent, %allowed
  br i1 %is.over, label %stopped, label %block.begin
block.begin:
  %bx = urem i64 %b, %grid.x
  %b.row = udiv i64 %b, %grid.x
  %by = urem i64 %b.row, %grid.y
  %bz = udiv i64 %b, %grid.layer
  store i64 %bx, ptr %block.x.p
  store i64 %by, ptr %block.y.p
  store i64 %bz, ptr %block.z.p
  call void @llvm.memset.p0.i64(ptr %shared.ptr, i8 %poison, i64 %shared.bytes, i1 false)
  call void @llvm.memset.p0.i64(ptr %local.ptr, i8 %poison, i64 %local.bytes, i1 false)
  call void @llvm.memset.p0.i64(ptr %frames, i8 0, i64 %frame.bytes, i1 false)
  call void @llvm.memset.p0.i64(ptr %states, i8 0, i64 %state.bytes, i1 false)
  store i64 0, ptr %arriving.true.p
  store i64 0, ptr %arriving.p
  br label %phase
phase:
  %came.true = load i64, ptr %arriving.true.p
  %came = load i64, ptr %arriving.p
  store i64 %came.true, ptr %leaving.true.p
  store i64 %came, ptr %leaving.p
  store i64 0, ptr %arriving.true.p
  store i64 0, ptr %arriving.p
  br label %thread
thread:
  %t = phi i64 [ 0, %phase ], [ %t.next, %thread.done ]
  %at = phi i64 [ {_NO_BARRIER}, %phase ], [ %at.next, %thread.done ]
  %is.all = icmp uge i64 %t, %threads
  br i1 %is.all, label %phase.done, label %thread.look
thread.look:
  %state.p = getelementptr i64, ptr %states, i64 %t
  %state = load i64, ptr %state.p
  %has.ended = icmp eq i64 %state, {_ENDED}
  br i1 %has.ended, label %thread.skip, label %thread.run
thread.skip:
  br label %thread.done
thread.run:
  %tx = urem i64 %t, %width
  %t.row = udiv i64 %t, %width
  %ty = urem i64 %t.row, %height
  %tz = udiv i64 %t, %layer
  store i64 %tx, ptr %thread.x.p
  store i64 %ty, ptr %thread.y.p
  store i64 %tz, ptr %thread.z.p
  %local.offset = mul i64 %t, %local.step
  %stack = add i64 %local, %local.offset
  %stack.end = add i64 %stack, %local.size
  store i64 %stack, ptr %stack.p
  store i64 %stack.end, ptr %stack.end.p
  store i64 %state, ptr %resume.p
  %frame.offset = mul i64 %t, {frame_bytes}
  %frame = getelementptr i8, ptr %frames, i64 %frame.offset
  %result = call i64 @f{kernel.number}(ptr %ctx, ptr %params, ptr %frame)
  %is.fault = icmp slt i64 %result, 0
  br i1 %is.fault, label %failed, label %thread.ran
thread.ran:
  %is.end = icmp eq i64 %result, 0
  %state.next = select i1 %is.end, i64 {_ENDED}, i64 %result
  store i64 %state.next, ptr %state.p
  br i1 %is.end, label %thread.ended, label %thread.waits
thread.ended:
  br label %thread.done
thread.waits:
  %number = load i64, ptr %barrier.p
  %is.first = icmp eq i64 %at, {_NO_BARRIER}
  %is.same = icmp eq i64 %at, %number
  %is.good = or i1 %is.first, %is.same
  br i1 %is.good, label %thread.done, label %deadlock
thread.done:
  %at.next = phi i64 [ %at, %thread.skip ], [ %at, %thread.ended ], [ %number, %thread.waits ]
  %t.next = add i64 %t, 1
  br label %thread
phase.done:
  %nobody.waits = icmp eq i64 %at, {_NO_BARRIER}
  br i1 %nobody.waits, label %block.done, label %phase
block.done:
  %b.next = add i64 %b, 1
  br label %block
stopped:
  store i64 {Fault.BUDGET:d}, ptr %fault.p
  store i64 {kernel.line}, ptr %fault.line.p
  store i64 {kernel.number}, ptr %fault.function.p
  ret i64 -1
deadlock:
  store i64 {Fault.BARRIERS:d}, ptr %fault.p
  ret i64 -1
finished:
  ret i64 0
failed:
  ret i64 -1
}}
"""
