"""What a terminal says of a call that does not return."""

from __future__ import annotations

from bpftrace_sys.render.style import columns_of
from decoders import arch as arches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bpftrace_sys.render.output import Output
    from decoders.raw import RawCall

SECOND = 1_000_000_000


def waiting_line(raw: RawCall, others: int, now: int) -> str:
    """``[4711] bpf(BPF_PROG_LOAD, ...) ... running for 3 s``; ``now``: nanoseconds since the
    epoch; ``others``: calls that have begun later and have not returned, either."""
    name = arches.name(raw.arch, raw.nr) or f"syscall_{raw.nr}"
    first = ""
    if name == "bpf":
        from decoders.uapi import const, names

        command = raw.args[0] & 0xFFFFFFFF & ~const.BPF_COMMON_ATTRS
        first = names.bpf_cmd.get(command, str(command)) + ", "
    more = f" (and {others} more)" if others else ""
    seconds = max(now - raw.time, 0) // SECOND
    return f"[{raw.tid}] {name}({first}...) ... running for {seconds} s{more}"


class Waiting:
    """Keeps that line up to date while nothing else is written."""

    def __init__(self, out: Output) -> None:
        self.out = out

    def look(self, raw: RawCall | None, others: int, now: int) -> None:
        """``raw``: the call that has run for longest, if that is long enough to be said."""
        if raw is None:
            self.out.passing("")
            return
        line = waiting_line(raw, others, now)
        # A line that were broken could not be taken back.
        self.out.passing(line[: max(columns_of(self.out.stream) - 1, 0)])
