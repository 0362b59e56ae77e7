"""Where a declaration's expressions look their fields up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from decoders.raw import Cred, FdFact


class Env(Protocol):
    """What a declaration may ask of the world around the call."""

    ret: int | None
    """The call's result; None before it returned."""
    arch: int
    """AUDIT_ARCH_* of the call."""

    @property
    def cpus(self) -> int:
        """Possible CPUs: per-CPU map values are that many."""

    def fd(self, fd: int) -> FdFact | None:
        """What that fd of the tracee is."""

    def fact(self, kind: str, key: int) -> str | None:
        """A name that only the live machine knows (``pmu``, ``ifindex``, ...)."""

    def cred(self) -> Cred | None:
        """Who makes the call; None: that was not seen."""

    def newer(self, enum: str, value: int) -> str | None:
        """The name of an enum value in the running kernel's BTF."""


class Scope(Protocol):
    """The raw fields that an expression can see; ``scope["_"]`` is the struct around."""

    @property
    def env(self) -> Env: ...
    def __getitem__(self, name: str) -> Any: ...
    def fetched(self, name: str, make: Callable[[bytes], Any], default: Any) -> Any:
        """``make`` of the bytes that an earlier pointer field of this struct led to."""
