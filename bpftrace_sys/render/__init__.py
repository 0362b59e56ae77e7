"""Outputs: the decoded trace as text, JSON, strace syntax, tables and canonical text."""
