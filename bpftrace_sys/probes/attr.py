"""Fields of a call's attr, as the shapes of probes look at them."""

from __future__ import annotations

from typing import Final

from decoders.call import plain
from decoders.values import Text, Value

ANY_FD: Final = 0xFFFFFFFF
"""-1: an fd that nobody has, or an ifindex that no device has."""


def name_of(value: Value | None) -> str:
    """The name of an enum's value; empty where it has none."""
    return getattr(plain(value), "name", None) or ""


def string_of(value: Value | None) -> str:
    """A string; empty where there is none."""
    found = plain(value)
    return found.data.decode("utf-8", "replace") if isinstance(found, Text) else ""
