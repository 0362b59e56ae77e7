"""Unwinds what was copied in the stops, before the calls are decoded."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from bpftrace_sys.record.files.tracee_files import TraceeFiles
from bpftrace_sys.record.stacks.demangle import Demangler
from bpftrace_sys.record.stacks.elf_image import InMemory
from bpftrace_sys.record.stacks.files import Files, MappedFile
from bpftrace_sys.record.stacks.snapshot import STACK_COPIED, Copier, Process, Snapshot
from bpftrace_sys.record.stacks.walk import Walk
from decoders.raw import RawCall
from decoders.stack import Frame, Stack

if TYPE_CHECKING:
    from bpftrace_sys.record.ptrace.engine import Tracee
    from bpftrace_sys.trace.items import Take, Taken

WAITING: Final = 128
WAITING_BYTES: Final = 64 << 20
"""Calls that may wait to be decoded, and what they may hold, about: stack and memory map."""
VDSOS: Final = 8
MISTAKES: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a damaged file that nobody thought of might raise; it must not end the trace."""


class Stacks:
    """-k.  ``copy`` in the stop, ``resolve`` after it."""

    def __init__(self, looking: TraceeFiles | None = None) -> None:
        """``looking``: who reaches files on file systems that may not answer."""
        self.looking = looking or TraceeFiles()
        self._files = Files(self.looking)
        self._copier = Copier(self._files)
        self._vdsos: OrderedDict[bytes, MappedFile] = OrderedDict()
        self._demangler = Demangler()

    @property
    def waiting(self) -> int:
        """How many calls may wait to be decoded: each holds what was copied."""
        return min(WAITING, WAITING_BYTES // (STACK_COPIED + self._copier.map_size))

    def copy(self, tracee: Tracee) -> Snapshot | None:
        """In the stop of a call's entry."""
        return self._copier.copy(tracee)

    def resolve(self, snapshot: Snapshot) -> Stack:
        """The stack of a snapshot, with names.  Never raises."""
        try:
            return self._resolve(snapshot)
        except MISTAKES as error:
            return Stack((), f"{type(error).__name__}: {error}")

    def _resolve(self, snapshot: Snapshot) -> Stack:
        process = snapshot.process
        found = Walk(snapshot, self._files, self._vdso(process.vdso)).stack()
        return Stack(tuple(self._named(process, frame) for frame in found.frames), found.ended)

    def before(self, take: Take) -> Take:
        """What takes RawCalls, with their stacks resolved first."""

        def taking(item: Taken) -> None:
            if isinstance(item, RawCall):
                for part in item.carried:
                    if isinstance(part, Snapshot):
                        item.stack = self.resolve(part)
                        item.carried = tuple(each for each in item.carried if each is not part)
            take(item)

        return taking

    def _vdso(self, image: bytes) -> MappedFile | None:
        if not image:
            return None
        known = self._vdsos.get(image)
        if known is None:
            known = self._vdsos[image] = MappedFile(InMemory(image))
            if len(self._vdsos) > VDSOS:
                self._vdsos.popitem(last=False)
        return known

    def _named(self, process: Process, frame: Frame) -> Frame:
        """A frame by the name that people know; in memory of no file, by the one that a JIT gave
        to it."""
        if frame.symbol:
            name = self._demangler.name(frame.symbol)
            return frame if name == frame.symbol else frame._replace(symbol=name)
        if frame.file or process.jit is None:
            return frame
        found = process.jit.at(frame.addr - 1)
        return frame if found is None else frame._replace(symbol=found[0], offset=found[1] + 1)
