"""Measurements: each module is one benchmark; `python -m benchmarks` runs them all and writes `docs/benchmarks.md`.

Nothing here is part of the layer. Times are only ever compared with times of the same run.
"""
