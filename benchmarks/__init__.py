"""Figures that anyone can rerun: see README.md. Not part of the distribution."""
