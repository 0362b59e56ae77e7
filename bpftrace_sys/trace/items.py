"""What a trace file consists of besides calls and events."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, Union

from bpftrace_sys.common import BpfstraceError
from decoders.events import Ending, ProcessEvent
from decoders.raw import RawCall
from decoders.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

    from bpftrace_sys.trace.inventory import ObjectState, Unseen
    from bpftrace_sys.trace.kernel_view import KernelView
    from bpftrace_sys.trace.running import Running
    from decoders.loop_calls import Rounds


class TraceError(BpfstraceError):
    """A trace file that cannot be read on; says where and why."""

    def __init__(self, path: str, line: int, why: str) -> None:
        place = f"{path}:{line}" if line else path
        super().__init__(f"{place}: {why}")
        self.path = path
        self.line = line
        self.why = why


@dataclass(slots=True)
class Fact:
    """A name that only the machine of the trace knew."""

    kind: str
    key: int
    name: str


@dataclass(slots=True)
class Flush:
    """An attachment stood here: whatever the model held back came out at this point.

    ``lull``: a ``flush`` stood here: nothing came for a while, so all that waited to be told
    was told.
    """

    lull: bool = False


@dataclass(slots=True)
class End:
    """The trace is whole."""

    ending: Ending


Item: TypeAlias = Union[
    RawCall, ProcessEvent, "KernelView", "ObjectState", "Unseen", "Running", Fact, Flush, End
]
"""What stands in a trace file."""

Live: TypeAlias = Union[
    RawCall, ProcessEvent, "KernelView", "ObjectState", "Unseen", "Running"
]
"""What of it stands there as it came from a recorder."""

Taken: TypeAlias = Union[Live, "Rounds"]
"""What a recorder hands on: some calls are rounds of a loop."""

Take: TypeAlias = "Callable[[Taken], None]"
