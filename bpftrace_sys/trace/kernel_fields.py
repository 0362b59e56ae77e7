"""What the kernel tells of an object, by the names of its own fields.

Which fields there are depends on the object, the kernel and what the reader may see, so they
are a mapping. It is read by what a field holds: who asks for a number gets one.
"""

from __future__ import annotations


class Info(dict[str, object]):
    """Fields by the kernel's own names; numbers, texts, and lists of these."""

    __slots__ = ()

    def number(self, name: str) -> int:
        """A number; 0 where there is none."""
        value = self.get(name)
        return value if isinstance(value, int) else 0

    def number_or_none(self, name: str) -> int | None:
        """A number, or that there is none."""
        value = self.get(name)
        return value if isinstance(value, int) else None

    def text(self, name: str) -> str:
        """A text; empty where there is none."""
        value = self.get(name)
        return value if isinstance(value, str) else ""

    def numbers(self, name: str) -> list[int]:
        """The numbers of a list; none where there is none."""
        value = self.get(name)
        return [each for each in value if isinstance(each, int)] if isinstance(value, list) else []
