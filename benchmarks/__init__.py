"""Speed and memory, side by side: `make bench`. Quality on real clips: `python -m benchmarks.quality`."""
