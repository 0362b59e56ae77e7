"""From recorded items to renderers: the one path of live tracing and of replay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from bpftrace_sys.attach import Attachment, Attachments
from bpftrace_sys.facts import Facts
from bpftrace_sys.header import Header
from bpftrace_sys.model import Model
from decoders.call import Call
from decoders.events import ProcessEvent
from decoders.raw import RawCall


class Renderer(Protocol):
    """Takes the decoded trace, in order."""

    def header(self, header: Header) -> None: ...
    def fact(self, kind: str, key: int, name: str) -> None: ...
    def call(self, call: Call) -> None: ...
    def attachment(self, told: Attachment) -> None: ...
    def process(self, event: ProcessEvent) -> None: ...
    def end(self, status: dict[str, Any]) -> None: ...


class Pipeline:
    """Decodes, lets the model see, and hands on to every renderer."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.model = Model(facts)
        self.attachments = Attachments(self.model)
        self.renderers: Sequence[Renderer] = ()
        self._decode: Callable[[RawCall, Facts], Call] | None = None

    def header(self, header: Header) -> None:
        """The trace begins."""
        for renderer in self.renderers:
            renderer.header(header)

    def fact(self, kind: str, key: int, name: str) -> None:
        """A name was learned from the live machine."""
        for renderer in self.renderers:
            renderer.fact(kind, key, name)

    def take(self, item: RawCall | ProcessEvent) -> None:
        """A call or event."""
        if isinstance(item, ProcessEvent):
            if item.what == "exit":
                self._tell(self.attachments.flush(item.tid))
            self.model.process(item)
            for renderer in self.renderers:
                renderer.process(item)
            return
        if self._decode is None:
            # Most programs ask nothing of BPF: for them none of this is imported.
            from decoders.decode import decode

            self._decode = decode
        if hasattr(self.facts, "pid"):
            self.facts.pid = item.pid
        call = self._decode(item, self.facts)
        self.model.observe(call)
        self._tell(self.attachments.before(call))
        told = self.attachments.after(call)
        for renderer in self.renderers:
            renderer.call(call)
        self._tell(told)

    def flush(self) -> None:
        """Attachments that waited for a sequel are told now."""
        self._tell(self.attachments.flush())

    def end(self, status: dict[str, Any]) -> None:
        """The trace ends."""
        self.flush()
        self.model.settle()
        for renderer in self.renderers:
            renderer.end(status)

    def _tell(self, told: Iterable[Attachment]) -> None:
        for attachment in told:
            if attachment.prog is not None:
                attachment.prog.info["used"] = True
            for renderer in self.renderers:
                renderer.attachment(attachment)
