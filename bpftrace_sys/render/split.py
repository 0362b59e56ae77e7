"""-ff: a file a thread, named FILE.TID."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bpftrace_sys.story.objects import Attachment, NotedCall
from bpftrace_sys.story.renderer import Renderer
from decoders.events import Exit, ProcessEvent
from decoders.records import replace

if TYPE_CHECKING:
    from bpftrace_sys.story.kernel_view import Seen
    from bpftrace_sys.story.objects import Object
    from bpftrace_sys.trace.inventory import ObjectState
    from decoders.events import Ending


class Split(Renderer):
    """Gives each thread a renderer of its own, made when the thread first has something to say."""

    def __init__(
        self, make: Callable[[int], Renderer], ended: Callable[[int], None] | None = None
    ) -> None:
        self._make = make
        self._ended = ended
        self._made: dict[int, Renderer] = {}

    def _of(self, tid: int) -> Renderer:
        found = self._made.get(tid)
        if found is None:
            found = self._made[tid] = self._make(tid)
        return found

    def running(self, call: NotedCall) -> None:
        """To its thread's file, in which nothing can come between."""
        self._of(call.raw.tid).running(call)

    def call(self, call: NotedCall) -> None:
        """To its thread's file."""
        self._of(call.raw.tid).call(call)

    def attachment(self, told: Attachment) -> None:
        """To the file of the thread that attached."""
        self._of(told.tid).attachment(told)

    def kernel_view(self, seen: Seen) -> None:
        """To the file of the thread that loaded it."""
        call = None if seen.prog is None else seen.prog.call
        if call is not None:
            self._of(call.raw.tid).kernel_view(seen)

    def held(self, state: ObjectState, known: Object) -> None:
        """To the file of each that holds it."""
        for holder in state.holders:
            self._of(holder.pid).held(replace(state, holders=[holder]), known)

    def process(self, event: ProcessEvent) -> None:
        """To its thread's file, where there is one; its end closes that."""
        if event.tid not in self._made:
            return
        self._made[event.tid].process(event)
        if isinstance(event.what, Exit) and self._ended is not None:
            del self._made[event.tid]
            self._ended(event.tid)

    def waits(self) -> bool:
        return any(renderer.waits() for renderer in self._made.values())

    def lull(self) -> None:
        for renderer in self._made.values():
            renderer.lull()

    def end(self, ending: Ending) -> None:
        """What is left to say of the whole trace is said once, in the last file made."""
        self.lull()
