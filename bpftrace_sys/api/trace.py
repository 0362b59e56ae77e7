"""Traces: calls one by one, and the story as a whole."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bpftrace_sys.api.objects import Attachment, Link, Map, Named, Program
from bpftrace_sys.common.errnos import errno_name
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import NotedCall
from bpftrace_sys.story.pipeline import Pipeline
from bpftrace_sys.story.renderer import Renderer
from bpftrace_sys.story.whole_trace import fed
from bpftrace_sys.trace.facts import RecordedFacts
from bpftrace_sys.trace.items import TraceError
from bpftrace_sys.trace.reader import Reader

if TYPE_CHECKING:
    from bpftrace_sys.api.story import Story, Teller
    from bpftrace_sys.story.refusals import Refusal


class Call:
    """A decoded system call."""

    def __init__(self, call: NotedCall, model: Model) -> None:
        self._call = call
        self._model = model

    @property
    def seq(self) -> int:
        """Its number in the trace, from 1, in the order of entries."""
        return self._call.raw.seq

    @property
    def time(self) -> int:
        """When it was made, in nanoseconds since the epoch."""
        return self._call.raw.time

    @property
    def duration(self) -> int | None:
        """How long it took, in nanoseconds; None where it never returned."""
        return self._call.raw.duration

    @property
    def pid(self) -> int:
        """The process that made it."""
        return self._call.raw.pid

    @property
    def tid(self) -> int:
        """The thread that made it."""
        return self._call.raw.tid

    @property
    def comm(self) -> str:
        """The thread's name."""
        return self._call.raw.comm

    @property
    def syscall(self) -> str:
        """``bpf``, ``perf_event_open``, ``ioctl``, ..."""
        return self._call.syscall.name

    @property
    def command(self) -> str:
        """What it does: ``BPF_PROG_LOAD``, ``PERF_EVENT_IOC_SET_BPF``; else the syscall's name."""
        return self._call.command.partition("|")[0]

    @property
    def failed(self) -> bool:
        """Whether the kernel refused it."""
        return self._call.raw.failed

    @property
    def result(self) -> int | None:
        """What it returned, ``-errno`` where it failed; None where it never returned."""
        return self._call.raw.ret

    @property
    def errno(self) -> str | None:
        """``EACCES``, ...; None where it did not fail."""
        ret = self._call.raw.ret
        return errno_name(-ret) if self.failed and ret is not None else None

    @property
    def explanation(self) -> list[str]:
        """Why it was refused, in lines; empty where nothing proves it."""
        return list(self._call.notes.explanation)

    @property
    def is_probe(self) -> bool:
        """Whether it is a feature probe, for all that is known at this point of the trace."""
        return self._call.notes.is_probe

    @cached_property
    def json(self) -> dict[str, Any]:
        """The call as a line of the trace has it (``bpfstrace schema``), without ``raw``."""
        from bpftrace_sys.render.json_lines import call_json

        return call_json(self._call, self._model)

    @property
    def args(self) -> dict[str, Any]:
        """The arguments by name, decoded: ``call.args["attr"]["map_name"]``."""
        found: dict[str, Any] = self.json["args"]
        return found

    def __str__(self) -> str:
        result = self.errno or self.result
        name = self.syscall if self.command == self.syscall else f"{self.syscall}({self.command})"
        return f"#{self.seq} {name} = {result}"

    def __repr__(self) -> str:
        return f"<Call {self}>"


class Trace:
    """A saved trace.

    Iterating gives its calls one by one, and reads the file as it goes. All that needs the
    whole of it (``programs``, ``refusals``, ...) reads it once more, when first asked for.
    TraceError where the file is damaged or ends without its end line, unless it was opened
    with ``partial``.
    """

    def __init__(self, path: str | os.PathLike[str], *, partial: bool = False) -> None:
        self.path = os.fspath(path)
        """The file."""
        if self.path == "-":
            self.path = "./-"  # not stdin, which could be read once only
        self.partial = partial
        self.damage = ""
        """With ``partial``: what is wrong with the file, once it has been read to its end."""
        header = Reader(self.path).header
        self.argv: list[str] = header.argv
        """The traced command line."""
        self.kernel: str = header.kernel
        """The kernel's release, as ``uname -r`` has it."""
        self.machine: str = header.machine
        """The processor: ``x86_64``, ``aarch64``."""
        self.host: str = header.host
        """The machine's name; may be empty."""
        self.started: datetime = datetime.fromtimestamp(header.start / 1e9, UTC)
        """When tracing began."""

    # ------------------------------------------------------------ calls

    def __iter__(self) -> Iterator[Call]:
        """The calls in the order in which they completed, read as they are asked for."""
        taken: list[Call] = []

        class Take(Renderer):
            def call(self, call: NotedCall) -> None:
                taken.append(Call(call, pipeline.model))

        reader, facts, pipeline = self._open()
        pipeline.renderers = [Take()]
        pipeline.header(reader.header)
        steps = fed(reader, pipeline, facts)
        while self._step(steps):
            yield from taken
            taken.clear()

    def calls(
        self,
        command: str = "*",
        *,
        failed: bool | None = None,
        pid: int | None = None,
        probes: bool = True,
    ) -> Iterator[Call]:
        """The calls that match.

        ``command``: a bpf command with or without ``BPF_``, an ioctl's request or a system
        call's name, in either case, with ``*`` for any text: ``prog_load``, ``map_*``.
        ``failed``: only those that failed, or only those that did not. ``pid``: only those of
        a process. ``probes``: False leaves feature probes out.
        """
        wanted = command.upper()
        for call in self:
            name = call.command.upper()
            known = fnmatch.fnmatchcase(name, wanted) or fnmatch.fnmatchcase(
                name.removeprefix("BPF_"), wanted
            )
            if (
                (known or fnmatch.fnmatchcase(call.syscall.upper(), wanted))
                and (failed is None or failed == call.failed)
                and (pid is None or pid == call.pid)
                and (probes or not call.is_probe)
            ):
                yield call

    def _open(self) -> tuple[Reader, RecordedFacts, Pipeline]:
        reader = Reader(self.path)
        facts = RecordedFacts.of(reader.header)
        return reader, facts, Pipeline(facts)

    def _step(self, steps: Iterator[int]) -> bool:
        """One item further; False at the end."""
        try:
            next(steps)
        except StopIteration:
            return False
        except TraceError as error:
            if not self.partial:
                raise
            self.damage = str(error)
            return False
        return True

    # ------------------------------------------------------------ the story

    @cached_property
    def _teller(self) -> Teller:
        from bpftrace_sys.api.story import Teller

        reader, facts, pipeline = self._open()
        teller = Teller(pipeline.model)
        pipeline.renderers = [teller]
        pipeline.header(reader.header)
        steps = fed(reader, pipeline, facts)
        while self._step(steps):
            pass
        if self.damage:
            pipeline.flush()
        return teller

    @cached_property
    def _story(self) -> Story:
        return self._teller.story()

    @cached_property
    def programs(self) -> Named[Program]:
        """The programs, those that were refused among them; feature probes are left out."""
        return Named(self._story.programs, "program")

    @cached_property
    def maps(self) -> Named[Map]:
        """The maps; those of feature probes are left out."""
        return Named(self._story.maps, "map")

    @cached_property
    def links(self) -> Named[Link]:
        """The BPF links; their names are their targets."""
        return Named(self._story.links, "link")

    @property
    def attachments(self) -> list[Attachment]:
        """Attaching and detaching, in order."""
        return list(self._story.attachments)

    @property
    def refusals(self) -> list[Refusal]:
        """The calls that the kernel refused in the end.

        Left out are feature probes, attempts that were followed by another one, errors that
        say no more than that a key, a pin or an id is not there, and files that could not be
        opened.
        """
        return list(self._story.refusals)

    @property
    def exit_code(self) -> int | None:
        """The traced program's; None where a signal ended it, or the trace does not know."""
        return self._story.ending.code

    @property
    def signal(self) -> int | None:
        """The signal that ended the traced program, or None."""
        return self._story.ending.signal

    def __repr__(self) -> str:
        return f"<Trace {self.path} of {' '.join(self.argv)}>"


def open_trace(path: str | os.PathLike[str], *, partial: bool = False) -> Trace:
    """Opens a saved trace, compressed or not.

    TraceError where it cannot be opened or is no trace. ``partial``: of a damaged trace, or
    one that is still being written, what stands before the damage is told, and
    ``Trace.damage`` says what is wrong; else reading it raises TraceError.
    """
    return Trace(path, partial=partial)
