"""Devices: the kernels that GPUs get, on this computer's processor and in the PTX machine."""
