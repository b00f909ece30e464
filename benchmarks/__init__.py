"""Measured ratios that docs/performance.md quotes. Every figure is against a reference in the same run."""
