"""``replay --canonical``: stable text, for plain diff and for git's textconv.

Processes come in the order of their tree, each with its own calls in order, so
that the text does not depend on who was scheduled when.  What does not fit in
memory waits in a temporary file.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Final

from bpftrace_sys.compare.canonical.canon import Canon
from bpftrace_sys.compare.canonical.entries import Entry, Tied, indexes, jump_text, walks
from bpftrace_sys.compare.canonical.objects import Known
from bpftrace_sys.compare.canonical.processes import Process
from bpftrace_sys.compare.canonical.text import ref, refs
from bpftrace_sys.render.source_line import LINE_0, Sources
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import Attachment, NotedCall
from bpftrace_sys.story.renderer import Renderer
from bpftrace_sys.story.targets import printable
from bpftrace_sys.trace.header import Header
from decoders.digests import short_of
from decoders.events import Ending, ProcessEvent

if TYPE_CHECKING:
    from bpftrace_sys.render.output import TextOut

VERSION: Final = 1
"""Raised when the text of an unchanged trace changes."""
HELD: Final = 8 << 20
"""Characters that are held in memory."""


class _Spool:
    """Texts by process, in memory and, beyond a limit, in a file without a name."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, ...], list[str]] = {}
        self._size = 0
        self._file: IO[bytes] | None = None
        self._extents: dict[tuple[int, ...], list[tuple[int, int]]] = {}

    def add(self, path: tuple[int, ...], text: str) -> None:
        """Appends to a process's text."""
        self._held.setdefault(path, []).append(text)
        self._size += len(text)
        if self._size > HELD:
            self._spill()

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="bpfstrace-")  # noqa: SIM115
        for path, texts in self._held.items():
            data = "".join(texts).encode("utf-8", "surrogateescape")
            self._extents.setdefault(path, []).append((self._file.tell(), len(data)))
            self._file.write(data)
        self._held.clear()
        self._size = 0

    def paths(self) -> list[tuple[int, ...]]:
        """All processes, in the order of the tree."""
        return sorted({*self._held, *self._extents})

    def text(self, path: tuple[int, ...]) -> Iterator[str]:
        """A process's text, in pieces that end with a line."""
        for start, length in self._extents.get(path, ()):
            assert self._file is not None
            self._file.seek(start)
            yield self._file.read(length).decode("utf-8", "surrogateescape")
        yield "".join(self._held.get(path, ()))


class CanonicalRenderer(Renderer):
    """The renderer.  All comes out at the end, when every object has its name."""

    def __init__(self, out: TextOut, model: Model, verbose: bool = False) -> None:
        self.out = out
        self.verbose = verbose
        self.canon = Canon(model, self._take)
        self.spool = _Spool()
        self._last: dict[tuple[int, ...], bytes] = {}
        self._collected: set[tuple[tuple[int, ...], str]] = set()
        self._by_path: dict[tuple[int, ...], Process] = {}
        self._done = False

    def header(self, header: Header) -> None:
        self.canon.header(header)

    def call(self, call: NotedCall) -> None:
        self.canon.call(call)

    def attachment(self, told: Attachment) -> None:
        self.canon.attachment(told)

    def process(self, event: ProcessEvent) -> None:
        self.canon.process(event)

    def end(self, ending: Ending) -> None:
        """Writes everything."""
        self.canon.end(ending)
        self._write("the trace is whole")

    def cut(self) -> None:
        if not self._done:
            self.canon.end(Ending())
            self._write("the trace is not whole")

    # -------------------------------------------------------------- one entry

    def _take(self, entry: Entry | Tied) -> None:
        path = entry.process.path
        self._by_path[path] = entry.process
        if isinstance(entry, Tied):
            via = f" ({entry.via})" if entry.via else ""
            roles = " ".join(entry.roles)
            arrow = "-x" if entry.verb == "detached" else "->"
            text = f"{entry.verb} {entry.prog} {arrow} {entry.target}{via}: {roles}\n"
        elif not self.verbose and (what := self._depends(entry)):
            if (path, what) in self._collected:
                return
            if len(self._collected) < 1 << 16:
                self._collected.add((path, what))
            text = f"{what}\n"
        else:
            text = "".join(line + "\n" for line in entry_lines(entry))
        if not self.verbose:
            # A call that is made again and again, as by a loop that waits, is one.
            digest = short_of(text.encode("utf-8", "replace"))
            if self._last.get(path) == digest:
                return
            self._last[path] = digest
        self.spool.add(path, text)

    def _depends(self, entry: Entry) -> str:
        """What a call is told as, if how often it is made and what it finds is up to chance."""
        if entry.collects:
            return f"reads {'a map' if entry.subject is None else ref(entry.subject)}"
        what = walks(entry, self.canon.known.objects.all)
        return f"looks at {what}" if what else ""

    # -------------------------------------------------------------- all of it

    def _write(self, last: str) -> None:
        self._done = True
        head = self.canon.head
        write = self.out.write
        write(f"canonical trace, version {VERSION}\n")
        if head is not None:
            write(f"argv: {' '.join(printable(word) for word in head.argv)}\n")
            write(f"kernel: {printable(head.kernel)} {printable(head.machine)}\n")
        names = _names(self.spool, self.canon.known.objects.all)
        for path in self.spool.paths():
            process = self._by_path[path]
            write(f"\nprocess {process.label}\n")
            for text in self.spool.text(path):
                write(_REF.sub(lambda match: names[int(match[1])], text))
            if process.exit:
                write(f"{process.exit}\n")
        write(f"\n{last}\n")
        self.out.flush()


_REF: Final = re.compile("\0([0-9]+)\0")


def _names(spool: _Spool, objects: list[Known]) -> list[str]:
    """Names of all objects, told apart in the order in which the text speaks of them."""
    labels = [""] * len(objects)
    taken: dict[str, int] = {}
    left = len(objects)
    for path in spool.paths():
        for text in spool.text(path):
            if not left:
                return labels
            for number in refs(text):
                if not labels[number]:
                    base = objects[number].base
                    count = taken[base] = taken.get(base, 0) + 1
                    labels[number] = base if count == 1 else f"{base}#{count}"
                    left -= 1
    return labels


def entry_lines(entry: Entry) -> Iterator[str]:
    """A call: its head and result, and a line for each field."""
    yield entry.head + (f" = {entry.result}" if entry.result else "")
    for name, text in entry.fields:
        yield f"    {name}: {text}"
    for block in entry.blocks:
        yield f"    {block.name}:"
        for row in block.lines:
            yield f"        {row}".rstrip()
    if entry.insns is not None:
        yield "    insns:"
        index_of = indexes(entry.insns)
        sources = Sources()
        for at, line in enumerate(entry.insns):
            if line.function is not None:
                yield f"        {line.function}:"
            if header := sources.above(line.source, None):
                yield f"        {header}"
            stray = f"   /* {LINE_0} */" if sources.stray else ""
            yield f"        {jump_text(line, index_of, at)}{stray}"
        if entry.missing:
            yield f"        {entry.missing} more, unreadable"
        if entry.unread:
            yield f"        {entry.unread} more, not read"
