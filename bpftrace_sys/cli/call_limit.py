"""--syscall-limit: after so many calls the trace ends, and what is traced goes on without us."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bpftrace_sys.cli.settings import silenced
from bpftrace_sys.render.output import complain
from bpftrace_sys.story.renderer import Renderer
from decoders.events import Exit, ProcessEvent
from decoders.loop_calls import Rounds
from decoders.raw import RawCall

if TYPE_CHECKING:
    from bpftrace_sys.cli.settings import Settings
    from bpftrace_sys.trace.items import Take, Taken
    from decoders.call import Call


class CallLimit(Renderer):
    """Counts the calls that it is shown, and stands before the pipeline to close it.

    Other threads, and with the eBPF engine all, make more calls by the time that the last one is
    counted. These belong to no output.
    """

    def __init__(self, settings: Settings, let_go: Callable[[], None]) -> None:
        """``let_go``: of whoever is traced; called once."""
        assert settings.limit is not None
        self.left = settings.limit
        self._settings = settings
        self._let_go = let_go
        self._until = 0
        """When the last call that counts was over."""

    @property
    def over(self) -> bool:
        """Whether the limit is reached."""
        return not self.left

    def call(self, call: Call) -> None:
        raw = call.raw
        if raw.ret is None or not self.left:
            return
        self.left -= 1
        if not self.left:
            self._until = raw.time + (raw.duration or 0)
            self._say()
            self._let_go()

    def _say(self) -> None:
        if self._settings.style == "strace":
            if "attach" not in silenced(self._settings):
                complain("System call limit has been reached, detaching tracees")
        elif not self._settings.quiet:
            complain("--syscall-limit is reached: what was traced goes on untraced")

    def before(self, take: Take) -> Take:
        """What takes items until then, and later only what was left open."""

        def taking(item: Taken) -> None:
            rest: Rounds | None = item if isinstance(item, Rounds) else None
            # Of calls that come together some may be too many; not all need count.
            while rest is not None and self.left:
                some, rest = rest.cut(self.left)
                take(some)
            if not isinstance(item, Rounds) and (self.left or self._left_open(item)):
                take(item)

        return taking

    def _left_open(self, item: Taken) -> bool:
        if isinstance(item, RawCall):
            return item.extra.detached and item.time < self._until
        if isinstance(item, ProcessEvent):
            return isinstance(item.what, Exit) and item.what == Exit()
        return False
