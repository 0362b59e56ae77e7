"""What takes the decoded trace, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bpftrace_sys.story.kernel_view import Seen
    from bpftrace_sys.story.objects import Attachment, NotedCall, Object
    from bpftrace_sys.trace.header import Header
    from bpftrace_sys.trace.inventory import ObjectState, Unseen
    from decoders.events import Ending, ProcessEvent
    from decoders.loop_calls import Rounds, Strand


TOGETHER: Final = 1024
"""Calls that are written at once, at most."""


class Template:
    """What a renderer tells of calls that are alike but for time and for ``chunks[1:]``."""

    __slots__ = ()

    @property
    def room(self) -> int:
        """How many calls can be told at once; looked at before any template is asked."""
        return TOGETHER

    def fits(self, strand: Strand) -> int:
        """How many of these calls, from the first on, are told so; changes nothing that another
        call could notice."""
        return strand.size

    def alone(self, strand: Strand) -> bool:
        """Whether what is written of these calls depends on whether calls of other loops between
        them were written before."""
        return False

    def texts(self, strand: Strand) -> Sequence[str]:
        """What is written of each call; all of them fit. Nothing where nothing ever is."""
        return ()

    def told(self, strand: Strand) -> None:
        """These calls were told."""


def text_of(templates: Sequence[Template], rounds: Rounds) -> str:
    """What is written of calls of loops, of templates that have texts."""
    pairs = zip(templates, rounds.strands, strict=True)
    return "".join(rounds.in_order([template.texts(strand) for template, strand in pairs]))


class Renderer:
    """Takes the decoded trace, in order.

    Each method does nothing; a renderer has its own where it has something to say.
    """

    has_templates: bool = False
    """Whether :meth:`template` is worth asking: loops take a short cut (repeats.py) where
    all renderers have some."""

    def header(self, header: Header) -> None:
        """The trace begins."""

    def fact(self, kind: str, key: int, name: str) -> None:
        """A name that only the machine of the trace knew; before the first call that needs it."""

    def held(self, state: ObjectState, known: Object) -> None:
        """An object that a process held when it was attached to (-p); before all calls."""

    def unseen(self, unseen: Unseen) -> None:
        """What could not be looked at then."""

    def running(self, call: NotedCall) -> None:
        """A call as it is known before its end; it comes once more when that is there."""

    def call(self, call: NotedCall) -> None:
        """A call that has returned, or never will."""

    def template(self, call: NotedCall) -> Template | None:
        """How calls are written that are like this one but for their data; None: as any other."""
        return None

    def fitting(self, templates: Sequence[Template], rounds: Rounds) -> int:
        """How many calls of loops, from the first on, can be told by templates of ours, one a
        strand; changes nothing that another call could notice."""
        count = len(rounds)
        for number, (template, strand) in enumerate(zip(templates, rounds.strands, strict=True)):
            fits = template.fits(strand)
            if fits < strand.size:
                count = min(count, rounds.where(number, fits))
        return count

    def loop(self, templates: Sequence[Template], rounds: Rounds) -> None:
        """Calls of loops that fit."""
        for template, strand in zip(templates, rounds.strands, strict=True):
            template.told(strand)

    def again(self, call: NotedCall, before: NotedCall) -> None:
        """A refused load that differs from the one just told in time and in its attempt only."""
        self.call(call)

    def attachment(self, told: Attachment) -> None:
        """A program was attached, enabled, replaced or detached."""

    def kernel_view(self, seen: Seen) -> None:
        """What the kernel made of a program, behind the call that loaded it (-e kernel=)."""

    def process(self, event: ProcessEvent) -> None:
        """A fork, exec or exit."""

    def waits(self) -> bool:
        """Whether something is held back that a :meth:`lull` is to bring out."""
        return False

    def lull(self) -> None:
        """Nothing has come for a while: what was held back is to be told now."""

    def end(self, ending: Ending) -> None:
        """The trace is whole, and ended so."""

    def cut(self) -> None:
        """The trace breaks off here, without an end."""
