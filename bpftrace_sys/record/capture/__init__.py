"""Copying a call in its stop, and what is kept until it is told."""
