"""The benchmark harness: `python -m benchmarks.run`. See README.md in this folder."""
