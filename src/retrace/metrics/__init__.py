"""Metrics: arrays in, numbers out. Per item first, averaged last; degenerate cases stand in the docstrings."""
