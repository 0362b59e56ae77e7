"""Declarations: what the bytes of each call mean."""
