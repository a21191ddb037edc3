"""Benchmarks of the method and the code; run one with `python -m benchmarks.NAME`."""
