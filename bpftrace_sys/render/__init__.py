"""Outputs: the decoded trace as text, JSON, strace's syntax, tables, canonical text, differences."""
