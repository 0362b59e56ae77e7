"""The BPF objects of a trace, and its calls with what is noted of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from bpftrace_sys.story.notes import Listing, Probe, Retry
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
    call: NotedCall | None = None
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


@dataclass(slots=True)
class Notes:
    """What the story adds to a call: each stage its own, in the order in which they stand here."""

    objects: dict[tuple[int, int], Object] = field(default_factory=dict)
    """The model's: what the fds are, by (fd, stage)."""
    made: Object | None = None
    """The model's: what the call returned an fd of."""
    mismatch: list[str] = field(default_factory=list)
    """The model's: where the kernel made something else than was seen to be asked for."""
    probe: Probe | None = None
    """The probes': that it is a feature probe, or may be one."""
    retry: Retry | None = None
    """The retries': that it is another attempt."""
    explanation: list[str] = field(default_factory=list)
    """Why the call was refused, in lines; empty where nothing proves it."""
    listing: Listing | None = None
    """Of the instructions that it loads, once a renderer has asked."""
    translated: Listing | None = None
    """Of the instructions that the kernel gives back, likewise."""

    @property
    def usual(self) -> bool:
        """Nothing is remarkable about the call."""
        return (
            self.made is None
            and self.probe is None
            and self.retry is None
            and self.listing is None
            and self.translated is None
            and not self.mismatch
            and not self.explanation
        )

    @property
    def is_probe(self) -> bool:
        """It is a feature probe, for all that is known so far."""
        return self.probe is not None and self.probe.certain


@dataclass(slots=True)
class NotedCall(Call):
    """A decoded call with the story's notes."""

    notes: Notes = field(default_factory=Notes)


def text_of(value: Value | None) -> str:
    """A Text as str; bytes that are not UTF-8 stay visible."""
    value = plain(value)
    if isinstance(value, Text):
        return value.data.decode("utf-8", "backslashreplace")
    return ""


SIZES: Final = ("map_type", "key_size", "value_size", "max_entries")
