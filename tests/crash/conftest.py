"""Figures of the crash tests, shown at the end of a run."""

from __future__ import annotations

from tests.crash.summary import pytest_terminal_summary

__all__ = ["pytest_terminal_summary"]
