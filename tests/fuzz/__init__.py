"""Seeded fuzz targets. `make test` runs a few cases of each; `make fuzz` sets CIEA_FUZZ_CASES to run more."""
