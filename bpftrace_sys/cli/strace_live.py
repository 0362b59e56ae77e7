"""What --style strace asks of tracing itself, and not only of the lines."""

from __future__ import annotations

from bpftrace_sys.cli.settings import silenced
from bpftrace_sys.render.output import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bpftrace_sys.cli.settings import Settings
    from bpftrace_sys.record.ptrace.engine import Engine


def prepare(settings: Settings, capture: Any, engine: Engine) -> None:
    """What is read besides, and told of signals, set before the first stop."""
    if settings.signals:
        from bpftrace_sys.record.capture.signals import Signals

        engine.tell_signals(Signals(capture.happened, settings.signals))
    fds = settings.shown_fds
    timed = (settings.counts or settings.summary) and not settings.wall
    if settings.release or fds or timed:
        from bpftrace_sys.record.capture.strace_reads import StraceReads

        limit = 32 if settings.string_limit is None else settings.string_limit
        reads = capture.besides = StraceReads(limit, bool(settings.release), fds)
        if timed:
            from bpftrace_sys.record.capture.cpu_times import CpuTimes

            reads.cpu = CpuTimes(engine.note_usage().system)


def tell_attached(settings: Settings, engine: Engine) -> None:
    """Says whom we have attached to, in strace's words."""
    threads: dict[int, int] = {}
    for tracee in engine.tracees.values():
        threads[tracee.pid] = threads.get(tracee.pid, 0) + 1
    for pid, count in threads.items():
        if "attach" not in silenced(settings):
            complain(f"Process {pid} attached" + (f" with {count} threads" if count > 1 else ""))


def tell_detached(settings: Settings, capture: Any) -> None:
    """Says whom we have let go of."""
    for tid in capture.detached:
        if "attach" not in silenced(settings):
            complain(f"Process {tid} detached")
