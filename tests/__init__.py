"""The tests, one folder a technique. A regular package, so that ``tests.scale`` is ours whatever else is installed."""
