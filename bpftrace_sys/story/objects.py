"""A BPF object as the trace knows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from decoders.call import Call, plain
from decoders.uapi import names
from decoders.values import Text, Value

MADE: Final = "made"
FOUND: Final = "found"
"""The trace did not see it being made."""
BEFORE: Final = "before"
"""The trace did not see it being made, and it is older than the trace."""
IDENTIFIED: Final = frozenset({"prog", "map", "btf", "link"})
"""Kinds that have ids and that the kernel lists by id."""
NAME_LEN: Final = 15
"""What the kernel keeps of a name (BPF_OBJ_NAME_LEN, less the NUL)."""


@dataclass(slots=True)
class Object:
    """A kernel object.  ``id`` is None where the kernel gives none (perf events)."""

    kind: str
    id: int | None
    name: str = ""
    origin: str = MADE
    """MADE in the trace, FOUND or BEFORE."""
    call: Call | None = None
    """The call that made it."""
    info: dict[str, Any] = field(default_factory=dict)
    attached: list[str] = field(default_factory=list)
    """Targets, while attached."""
    pins: list[str] = field(default_factory=list)
    operations: int = 0
    """bpf() calls on a map."""

    @property
    def label(self) -> str:
        """How an fd of it is named in an argument: ``map events id=4``."""
        words = [self.kind if self.kind not in ("perf_event", "file") else ""]
        if self.kind == "link" and self.info.get("type"):
            words.append(str(self.info["type"]))
        if self.name:
            words.append(self.name)
        elif self.kind == "perf_event":
            words.append("perf event ?")
        if self.id is not None:
            words.append(f"id={self.id}")
        if self.origin == BEFORE:
            words.append("(from before)")
        if self.kind == "link" and self.info.get("target"):
            words.append(f"-> {self.info['target']}")
        return " ".join(word for word in words if word)

    @property
    def long_label(self) -> str:
        """How it is named where it is returned: with tag, type and sizes."""
        words = [self.label]
        if self.kind == "prog" and self.info.get("tag"):
            words.append(f"tag={self.info['tag']}")
        if self.kind == "map" and "key_size" in self.info:
            kind = names.bpf_map_type.get(self.info.get("map_type", -1), "")
            words.append(
                f"{kind.removeprefix('BPF_MAP_TYPE_').lower()} "
                f"{self.info['key_size']}/{self.info['value_size']}"
            )
        return " ".join(words)


def text_of(value: Value | None) -> str:
    """A Text as str; bytes that are not UTF-8 stay visible."""
    value = plain(value)
    if isinstance(value, Text):
        return value.data.decode("utf-8", "backslashreplace")
    return ""


SIZES: Final = ("map_type", "key_size", "value_size", "max_entries")
