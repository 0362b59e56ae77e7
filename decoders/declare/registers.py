"""A system call's row, and what stands in its argument registers."""

from __future__ import annotations

from typing import Any

from decoders.constructs import cs
from decoders.declare.fields import FdField, Field, Skip
from decoders.records import dataclass
from decoders.values import Name, Struct
from decoders.walk import measures
from decoders.walk.scope import Scope


def half(name: str, field: Field) -> tuple[Any, Any]:
    """An int argument: 4 bytes of an 8-byte register."""
    return name / field, "_" / Skip(4)


FD_ARG = FdField(cs.Int32sl)


@dataclass(frozen=True, slots=True)
class Syscall:
    """A traced call: its name, its arguments' declaration, what it returns."""

    name: str
    args: Any
    returns: frozenset[int] | bool = False
    """Whether a successful result is an fd; or the commands whose result is one."""
    label: str | None = None
    """The argument that says what the call does: bpf's cmd, ioctl's request."""

    def returns_fd(self, args: Scope) -> bool:
        """Whether the result of a call with these raw arguments is an fd."""
        if isinstance(self.returns, bool):
            return self.returns
        return measures.command(args) in self.returns

    def command(self, args: Struct) -> str:
        """The name by which to speak of a call with these arguments."""
        if self.label is not None:
            value = args.get(self.label)
            if isinstance(value, Name) and value.name is not None:
                return value.name
        return self.name
