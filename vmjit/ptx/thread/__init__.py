"""The thread engine: kernels compiled with LLVM, one thread run after another.

Fast, and without the collectives of a warp; barriers of whole blocks are there. Atomics are plain operations: nobody
else runs. Needs llvmlite.
"""
