"""The line that tells of a process: who it is, its end; and of what was lost."""

from __future__ import annotations

from decoders.events import Exit, Lost, Who

TYPE_CHECKING = False
if TYPE_CHECKING:
    from decoders.events import ProcessEvent


def exit_line(event: ProcessEvent) -> str | None:
    """What stands behind the process's id; None for what strace says nothing of."""
    what = event.what
    if isinstance(what, Who):
        from bpftrace_sys.render.watching import who_line

        return who_line(what)
    if isinstance(what, Lost):
        from bpftrace_sys.render.watching import lost_line

        return lost_line(what)
    if not isinstance(what, Exit) or event.tid != event.pid:
        return None
    if what.signal is not None:
        import signal

        number = what.signal
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        core = " (core dumped)" if what.core else ""
        return f"+++ killed by {name}{core} +++"
    return None if what.code is None else f"+++ exited with {what.code} +++"
