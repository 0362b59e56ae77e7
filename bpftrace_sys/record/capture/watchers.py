"""Who else looks at calls in their exit stops: the kernel's view, counts of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from bpftrace_sys.record.machine.fds import FdLookup
    from decoders.raw import RawCall


class Returned(Protocol):
    """Looks at bpf() and ioctl() calls that succeeded, in their exit stop."""

    def returned(self, raw: RawCall, lookup: FdLookup) -> None: ...

    def soon(self) -> bool:
        """Does a piece of what must not wait for the call to be told; whether there was any."""
