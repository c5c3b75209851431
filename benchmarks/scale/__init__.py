"""How far leases scale: one owner and the processes it serves, simulated from measured constants (``docs/scale.md``)."""
