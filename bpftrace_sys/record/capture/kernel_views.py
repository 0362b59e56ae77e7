"""-e kernel=: what the kernel made of each program, fetched when it was loaded.

A program may be gone a moment after its load, so it is asked for in the exit stop, through a
duplicate of the new fd that is closed at once: two calls, below 0.1 ms.  What takes longer (names
of addresses, the copy that tells which instruction became which) is done after the stop.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from bpftrace_sys.record.machine import prog_info
from bpftrace_sys.trace.kernel_view import KernelView
from decoders.formats.prog_info import ProgInfo
from decoders.raw import EXIT, RawCall
from decoders.uapi import const

if TYPE_CHECKING:
    from bpftrace_sys.record.machine.fds import FdLookup

KEY: Final = "kernel_view"
"""Where it waits in a RawCall's ``extra``, until the call is told."""
NOTHING: Final = ProgInfo(b"", {})


def command(raw: RawCall) -> int:
    """enum bpf_cmd of a bpf() call."""
    return raw.args[0] & 0xFFFFFFFF & ~const.BPF_COMMON_ATTRS


class KernelViews:
    """Fetches in the stop (``copy``) and completes after it (``before``)."""

    def __init__(self, asked: tuple[str, ...]) -> None:
        self.asked = asked
        self._machine = os.uname().machine
        self._symbols: Any = None
        self._btfs: set[int] = set()
        """BTF that the trace saw being loaded."""
        self._btf: tuple[int, bytes] = (0, b"")
        """The last that it did not see, and that was asked for."""

    def copy(self, raw: RawCall, lookup: FdLookup) -> None:
        """In the exit stop of a bpf() that succeeded."""
        if command(raw) != const.BPF_PROG_LOAD or raw.ret is None:
            return
        try:
            fd = lookup.duplicate(raw.tid, raw.ret)
            try:
                raw.extra[KEY] = prog_info.fetch(fd)
            finally:
                os.close(fd)
        except (OSError, ValueError, OverflowError) as error:
            raw.extra[KEY] = str(getattr(error, "strerror", None) or error)

    def before(self, take: Callable[[Any], None]) -> Callable[[Any], None]:
        """What takes items; behind a load it gets the KernelView of its program."""

        def taking(item: Any) -> None:
            if not isinstance(item, RawCall):
                take(item)
                return
            found: Any = item.extra.pop(KEY, None)
            self._note(item)
            take(item)
            if found is not None:
                take(self.complete(item, found))

        return taking

    def _note(self, raw: RawCall) -> None:
        if raw.ret is None or raw.failed:
            return
        for fact in raw.fds:
            made = fact.kind == "btf" and fact.stage == EXIT and fact.fd == raw.ret
            if made and fact.id is not None and command(raw) == const.BPF_BTF_LOAD:
                self._btfs.add(fact.id)

    def complete(self, raw: RawCall, found: ProgInfo | str) -> KernelView:
        """A program's view with all that its text needs; ``found`` may be why there is none."""
        if isinstance(found, str):
            return KernelView(raw.seq, NOTHING, self._machine, self.asked, found)
        view = self.named(found)
        view.seq, view.asked = raw.seq, self.asked
        if "map" in self.asked:
            from bpftrace_sys.record.machine.copied_load import mapping

            view.mapping = mapping(raw, found)
        return view

    def named(self, info: ProgInfo) -> KernelView:
        """A view with names of addresses, and with the BTF that the trace did not see."""
        from decoders.formats import prog_symbols

        if self._symbols is None:
            from bpftrace_sys.record.machine.kallsyms import Kallsyms

            self._symbols = Kallsyms()
        base = self._symbols.call_base
        names = self._symbols.names(prog_symbols.wanted(info, self._machine, base))
        return KernelView(
            0, info, self._machine, call_base=base, symbols=names, btf=self._unseen(info.btf_id)
        )

    def _unseen(self, btf_id: int) -> bytes:
        if not btf_id or btf_id in self._btfs:
            return b""
        if self._btf[0] != btf_id:
            from bpftrace_sys.record.machine import bpf

            self._btf = (btf_id, bpf.btf_data(btf_id) or b"")
        return self._btf[1]
