"""The line that tells of a process: who it is, its end; and of what was lost."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from decoders.events import ProcessEvent


def exit_line(event: ProcessEvent) -> str | None:
    """What stands behind the process's id; None for what strace says nothing of."""
    if event.what in ("who", "lost"):
        from bpftrace_sys.render.watching import lost_line, who_line

        return who_line(event) if event.what == "who" else lost_line(event)
    if event.what != "exit" or event.tid != event.pid:
        return None
    if "signal" in event.details:
        import signal

        number = event.details["signal"]
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        core = " (core dumped)" if event.details.get("core") else ""
        return f"+++ killed by {name}{core} +++"
    if "code" in event.details:
        return f"+++ exited with {event.details['code']} +++"
    return None
