"""Calls that do not return: told of after a second, and then each second on a terminal."""

from __future__ import annotations

import os
import time

from bpftrace_sys.render.waiting import SECOND, Waiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bpftrace_sys.cli.settings import Settings
    from bpftrace_sys.record.capture.begun import Begun
    from bpftrace_sys.render.output import Output


class SlowCalls:
    """Looks at the calls that have begun when there is nothing else to do."""

    def __init__(self, begun: Begun, recorded: bool, terminal: Output | None) -> None:
        """``recorded``: an output has lines for them. ``terminal``: where they are said."""
        self._begun = begun
        self._recorded = recorded
        self._waiting = None if terminal is None else Waiting(terminal)

    def look(self) -> float | None:
        """How many seconds later to look again; None: there is nothing to wait for."""
        begun = self._begun
        since = begun.since()
        if since is None:
            if self._waiting is not None:
                self._waiting.look(None, 0, 0)
            return None
        now = time.time_ns()
        age = now - since
        if age >= SECOND and self._recorded:
            begun.tell_slow(now - SECOND)
        if self._waiting is not None:
            oldest = begun.oldest() if age >= SECOND else None
            self._waiting.look(oldest, len(begun.calls) - 1, now)
        # Whoever began later is looked at in a second at the latest, too.
        return (SECOND - age % SECOND if age >= 0 else SECOND) / SECOND


def slow_calls(settings: Settings, begun: Begun, text: Output) -> SlowCalls | None:
    """What looks, where an output would say anything."""
    shown = not settings.counts and not settings.split
    strace = settings.style == "strace" and not settings.canonical and shown
    begun.apart = strace
    recorded = settings.json is not None or (settings.style == "strace" and not settings.counts)
    terminal = None
    if shown and not strace and os.environ.get("TERM") != "dumb":
        try:
            terminal = text if text.stream.isatty() else None
        except ValueError:
            terminal = None
    if not recorded and terminal is None:
        return None
    return SlowCalls(begun, recorded, terminal)
