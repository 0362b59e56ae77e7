"""What telling takes calls from, where the engine made of eBPF sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from decoders.raw import RawCall

if TYPE_CHECKING:
    from bpftrace_sys.record.capture.kernel_views import KernelViews
    from bpftrace_sys.record.ebpf.engine import Watch
    from bpftrace_sys.record.ebpf.held_runs import HeldRuns
    from bpftrace_sys.trace.items import Take, Taken


class Source:
    """What Telling takes from, in the place of a Capture: here nothing waits."""

    stacks = None

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self.machine = watch.machine
        self.before = watch.before
        self.take: Take
        self.views: KernelViews | None = None
        """-e kernel="""
        self.runs: HeldRuns | None = None
        """--stats"""

    def begin(self, take: Take, ask: Any, learn: Any) -> None:
        """As Capture.begin."""
        from bpftrace_sys.record.ebpf.worlds import keeping

        take = keeping(take, self._watch)
        if self.views is not None:
            take = _looking(self.views, take)
        if self.runs is not None:
            take = _counting(self.runs, take)
        self.take = take

    def drain(self) -> None:
        """Nothing waits."""

    def tell_events(self) -> bool:
        """All is told at once."""
        return False

    def rest(self) -> None:
        """Nothing waits."""


def _looking(views: KernelViews, take: Take) -> Take:
    """What takes items; of a load it is asked at once what became of the program."""
    from bpftrace_sys.record.ebpf.made import Made

    def taking(item: Taken) -> None:
        if isinstance(item, RawCall) and item.ret is not None and not item.failed:
            views.returned(item, Made(item))
        take(item)

    return taking


def _counting(runs: HeldRuns, take: Take) -> Take:
    """What takes items; programs that come by are held until they were counted."""
    from bpftrace_sys.record.capture.run_stats import OFTEN

    def taking(item: Taken) -> None:
        if isinstance(item, RawCall) and item.ret is not None and not item.failed:
            runs.call(item)
        runs.look(OFTEN)
        take(item)

    return taking
