"""Measurements, each next to a comparable tool in the same run. `make bench` writes RESULTS.md."""
