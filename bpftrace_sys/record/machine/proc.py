"""Small files of /proc and /sys, read with a bound."""

from __future__ import annotations


def read_text(path: str, limit: int = 1 << 16) -> str | None:
    """A small file of the kernel's, or None."""
    try:
        with open(path, "rb") as file:
            return file.read(limit).decode("utf-8", "replace")
    except OSError:
        return None
