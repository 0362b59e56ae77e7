"""Comparing traces: with each other, and with what was reviewed."""
