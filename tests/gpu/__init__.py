"""On real GPUs."""
