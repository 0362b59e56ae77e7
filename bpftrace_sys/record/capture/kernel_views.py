"""-e kernel=: what the kernel made of each program, fetched when it was loaded.

A program may be gone a moment after its load, so it is asked for in the exit stop, through a
duplicate of the new fd that is closed at once: two calls, below 0.1 ms.  What takes longer (names
of addresses, the copy that tells which instruction became which) is done after the stop.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from bpftrace_sys.record.machine import prog_info
from bpftrace_sys.trace.kernel_view import KernelView, Mapping
from decoders import arch as arches
from decoders.formats.prog_info import ProgInfo, btf_id_of
from decoders.raw import EXIT, RawCall
from decoders.records import dataclass
from decoders.uapi import const

if TYPE_CHECKING:
    from typing import Protocol

    from bpftrace_sys.record.machine.prog_info import Asked
    from bpftrace_sys.trace.items import Take, Taken

    class Duplicates(Protocol):
        """FdLookup, or what stands in for it where nobody is stopped."""

        def duplicate(self, tid: int, fd: int) -> int:
            """A duplicate of a tracee's fd; OSError, ValueError where there is none."""

NOTHING: Final = ProgInfo(b"", {})


def command(raw: RawCall) -> int:
    """enum bpf_cmd of a bpf() call."""
    return raw.args[0] & 0xFFFFFFFF & ~const.BPF_COMMON_ATTRS


@dataclass(slots=True)
class _Fetched:
    """What is known of a program before its load is told."""

    asked: Asked | None
    btf: bytes
    problem: str = ""
    """Why nothing is."""
    mapping: Mapping | None = None
    _info: ProgInfo | None = None

    @property
    def info(self) -> ProgInfo:
        """What the answer says."""
        if self._info is None:
            self._info = ProgInfo.answered(*self.asked.answer()) if self.asked else NOTHING
        return self._info


class KernelViews:
    """Fetches in the stop (``returned``) and completes after it (``before``)."""

    def __init__(self, asked: tuple[str, ...]) -> None:
        self.asked = asked
        self._machine = os.uname().machine
        self._bpf = {arch: arches.number(arch, "bpf") for arch in arches.NAMES}
        self._symbols: Any = None
        self._btfs: set[int] = set()
        """BTF that the trace saw being loaded."""
        self._btf: tuple[int, bytes] = (0, b"")
        """The last that it did not see, and that was asked for."""
        self._copied: deque[tuple[RawCall, _Fetched]] = deque()
        """Loads whose copy is to be loaded: before all else, for their maps may go."""
        if "map" in asked:
            # Imported here, and not while the loader may end.
            from bpftrace_sys.record.machine import copied_load

            self._copy = copied_load.mapping

    def returned(self, raw: RawCall, lookup: Duplicates) -> None:
        """In the exit stop of a bpf() or ioctl() that succeeded; by eBPF, right after it."""
        cmd = command(raw) if raw.nr == self._bpf.get(raw.arch) else -1
        if cmd == const.BPF_BTF_LOAD:
            self._btfs.update(fact.id or 0 for fact in raw.fds if fact.stage == EXIT)
        if cmd != const.BPF_PROG_LOAD or raw.ret is None:
            return
        try:
            fd = lookup.duplicate(raw.tid, raw.ret)
            try:
                asked = prog_info.ask(fd)
            finally:
                os.close(fd)
        except (OSError, ValueError, OverflowError) as error:
            why = str(getattr(error, "strerror", None) or error)
            raw.carried += (_Fetched(None, b"", why),)
        else:
            found = _Fetched(asked, self._unseen(btf_id_of(asked.head)))
            raw.carried += (found,)
            if "map" in self.asked:
                self._copied.append((raw, found))

    def soon(self) -> bool:
        """Loads the copy that tells which instruction became which."""
        if not self._copied:
            return False
        raw, found = self._copied.popleft()
        found.mapping = self._copy(raw, found.info)
        return True

    def before(self, take: Take) -> Take:
        """What takes items; behind a load it gets the KernelView of its program."""

        def taking(item: Taken) -> None:
            if not isinstance(item, RawCall):
                take(item)
                return
            fetched = [part for part in item.carried if isinstance(part, _Fetched)]
            item.carried = tuple(part for part in item.carried if part not in fetched)
            take(item)
            for found in fetched:
                take(self.complete(item, found))

        return taking

    def complete(self, raw: RawCall, found: _Fetched) -> KernelView:
        """A program's view with all that its text needs."""
        if found.problem:
            return KernelView(raw.seq, NOTHING, self._machine, self.asked, found.problem)
        while found.mapping is None and self.soon():
            pass
        view = self.named(found.info)
        view.seq, view.asked, view.btf = raw.seq, self.asked, found.btf
        view.mapping = found.mapping
        return view

    def named(self, info: ProgInfo) -> KernelView:
        """A view with the names of the addresses in it."""
        from decoders.formats import prog_symbols

        if self._symbols is None:
            from bpftrace_sys.record.machine.kallsyms import Kallsyms

            self._symbols = Kallsyms()
        base = self._symbols.call_base
        names = self._symbols.names(prog_symbols.wanted(info, self._machine, base))
        return KernelView(0, info, self._machine, call_base=base, symbols=names)

    def _unseen(self, btf_id: int) -> bytes:
        """BTF whose load was not traced; it may be gone with its program."""
        if not btf_id or btf_id in self._btfs:
            return b""
        if self._btf[0] != btf_id:
            from bpftrace_sys.record.machine import bpf

            self._btf = (btf_id, bpf.btf_data(btf_id) or b"")
        return self._btf[1]
