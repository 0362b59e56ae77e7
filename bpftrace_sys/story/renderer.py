"""What takes the decoded trace, in order."""

from __future__ import annotations

from typing import Any, Protocol

from bpftrace_sys.story.attach.ways import Attachment
from bpftrace_sys.story.objects import NotedCall
from bpftrace_sys.trace.header import Header
from decoders.events import ProcessEvent
from decoders.raw import RawCall


class Template(Protocol):
    """What a renderer writes of calls that are alike but for time and for ``chunks[1:]``."""

    def fits(self, raw: RawCall) -> bool:
        """Whether a call is written so; changes nothing that another call could notice."""

    def write(self, raw: RawCall) -> None:
        """Writes the call that :meth:`fits` was just asked about."""


class Renderer(Protocol):
    """Takes the decoded trace, in order.

    One that has ``template(call)`` as well lets loops take a short cut (repeats.py).
    """

    def header(self, header: Header) -> None: ...
    def fact(self, kind: str, key: int, name: str) -> None: ...
    def call(self, call: NotedCall) -> None: ...
    def attachment(self, told: Attachment) -> None: ...
    def process(self, event: ProcessEvent) -> None: ...
    def end(self, status: dict[str, Any]) -> None: ...
