"""Benchmarks: ``python -m benchmarks``. What each asks, and how to read the figures, is in README.md."""
