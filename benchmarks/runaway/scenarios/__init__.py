"""One file a scenario; ``catalogue.SCENARIOS`` finds them by themselves."""
