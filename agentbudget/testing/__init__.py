"""For tests, public: the ports of this package in memory (``twins``), a fake of the providers' HTTP APIs (``provider``), and
the tests that every integration passes (``integration_suite``). The last two are imported by their own names."""

from agentbudget.testing.twins import ManualClock, MemoryJournal, MemoryStore, SampleBody, sample_chain

__all__ = ["ManualClock", "MemoryJournal", "MemoryStore", "SampleBody", "sample_chain"]
