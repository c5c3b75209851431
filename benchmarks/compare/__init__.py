"""``python -m benchmarks compare BASE [HEAD]``: the speed rows of two commits, side by side, and a verdict for each figure."""
