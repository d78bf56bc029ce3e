"""Fixed kernels: lane state, memory access, the code stream, the loop over lanes. Import as `vmjit.kernels`."""
