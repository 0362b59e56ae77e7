"""Programs, maps, links and attachments of a trace, as programs see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Generic, TypeVar, overload

from bpftrace_sys.story.places import Place

if TYPE_CHECKING:
    from bpftrace_sys.story.refusals import Refusal

T = TypeVar("T", bound="Program | Map | Link", covariant=True)


class Named(Sequence[T], Generic[T]):
    """Objects in the order in which they were made, also by name: ``trace.programs["hello"]``.

    A name that several objects have gives the one that was made last; ``all()`` gives each.
    """

    def __init__(self, items: Sequence[T], what: str) -> None:
        self._items: tuple[T, ...] = tuple(items)
        self._what = what

    @overload
    def __getitem__(self, key: str | int) -> T: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[T]: ...
    def __getitem__(self, key: str | int | slice) -> T | Sequence[T]:
        """The object of that name, or at that place.  KeyError says which names there are."""
        if not isinstance(key, str):
            return self._items[key]
        found = self.all(key)
        if not found:
            names = ", ".join(dict.fromkeys(item.name or "(unnamed)" for item in self._items))
            raise KeyError(f"no {self._what} is named {key!r}; there are: {names or 'none'}")
        return found[-1]

    def all(self, name: str) -> list[T]:
        """Every object of that name."""
        return [item for item in self._items if item.name == name]

    @property
    def names(self) -> list[str]:
        """The names, each once, in order."""
        return list(dict.fromkeys(item.name for item in self._items))

    def __contains__(self, key: object) -> bool:
        return bool(self.all(key)) if isinstance(key, str) else key in self._items

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        plural = "" if len(self) == 1 else "s"
        return f"<{len(self)} {self._what}{plural}: {', '.join(self.names)}>"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of a program as it was loaded."""

    pc: int
    """Its index, counted in slots of 8 bytes."""
    text: str
    """As bpftool writes it: ``(85) call bpf_trace_printk#6``."""
    comment: str = ""
    """What bpfstrace has to add: the characters that a number spells, a map's name."""
    source: str = ""
    """The source line that begins here, where the program's BTF has it."""
    where: str = ""
    """``file:line:column`` of that line."""
    function: str = ""
    """The prototype of the function that begins here."""

    def __str__(self) -> str:
        comment = f"   /* {self.comment} */" if self.comment else ""
        return f"{self.pc:4}: {self.text}{comment}"


@dataclass(eq=False)
class Program:
    """A program that was loaded, or that the kernel refused (``refused`` says why).

    Feature probes are no programs.
    """

    name: str
    """The whole one, from BTF, where that goes on beyond the kernel's 15 characters."""
    type: str
    """``kprobe``, ``xdp``, ``socket_filter``, ..."""
    id: int | None
    """The kernel's id; None where it was refused."""
    tag: str
    """The kernel's hash of the instructions, 16 hex digits; empty where it was refused."""
    origin: str
    """``made`` in the trace; ``found`` or ``before``: the trace did not see it being loaded."""
    size: int
    """Instructions, in slots of 8 bytes; 0 where the trace does not know."""
    seq: int | None
    """The number of the call that loaded it, or tried to."""
    refused: Refusal | None = None
    """Why the kernel refused it in the end; None where it took it."""
    attached_to: list[str] = field(default_factory=list)
    """Targets that it was attached to, each once, also those that it was detached from:
    ``kprobe do_sys_openat2``, ``xdp on eth0 (drv)``."""
    pins: list[str] = field(default_factory=list)
    """Paths that it was pinned at."""
    _listing: Callable[[], list[Instruction]] = field(default=list, repr=False)
    _called: Callable[[], tuple[list[str], list[str]]] = field(
        default=lambda: ([], []), repr=False
    )

    @cached_property
    def instructions(self) -> list[Instruction]:
        """Its instructions; empty where the trace lacks them."""
        return self._listing()

    @cached_property
    def _calls(self) -> tuple[list[str], list[str]]:
        return self._called()

    @property
    def helpers(self) -> list[str]:
        """The helpers that its instructions call, reached or not: ``bpf_trace_printk``."""
        return self._calls[0]

    @property
    def kfuncs(self) -> list[str]:
        """The kernel functions that its instructions call (kfuncs)."""
        return self._calls[1]


@dataclass(eq=False)
class Map:
    """A map."""

    name: str
    type: str
    """``hash``, ``array``, ``perf_event_array``, ..."""
    id: int | None
    origin: str
    """As of a program."""
    key_size: int
    value_size: int
    """Both in bytes."""
    max_entries: int
    operations: int
    """bpf() calls on it."""
    seq: int | None
    pins: list[str] = field(default_factory=list)


@dataclass(eq=False)
class Link:
    """A BPF link."""

    id: int | None
    type: str
    """``xdp``, ``perf_event``, ``tracing``, ..."""
    program: str
    """The name of its program."""
    target: str
    """What it is on."""
    origin: str
    seq: int | None
    pins: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its target, by which links are told apart."""
        return self.target


@dataclass(frozen=True, slots=True)
class Attachment:
    """A program was attached to a target, or detached from one."""

    verb: str
    """``attached``, ``enabled``, ``disabled``, ``detached`` or ``replaced``."""
    program: str
    """The program's name; empty where the trace does not know it."""
    target: str
    via: str
    """How: ``link``, ``the kprobe PMU``, ``netlink``, ...; may be empty."""
    calls: tuple[int, ...]
    """The numbers of the calls that did it, load and event among them."""

    def __str__(self) -> str:
        way = f" via {self.via}" if self.via else ""
        return f"{self.verb} {self.program or '?'} -> {self.target}{way}"


__all__ = ["Attachment", "Instruction", "Link", "Map", "Named", "Place", "Program"]
