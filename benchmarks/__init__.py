"""Benchmarks: what the method and the code achieve; run one as `python -m benchmarks.NAME`."""
