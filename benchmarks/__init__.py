"""Measurements: `python -m benchmarks.AREA.NAME [--json]`. Figures go to stdout, progress to stderr."""
