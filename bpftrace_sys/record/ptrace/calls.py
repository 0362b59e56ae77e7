"""Entries and exits of system calls, but for the two usual ones, which the loop itself has:
calls of a thread that stops at every call, with a result that is set, of our own interest."""

from __future__ import annotations

import errno
import time

from bpftrace_sys.record.ptrace import requests as px
from bpftrace_sys.record.ptrace import stop_filter
from decoders import arch as arches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bpftrace_sys.record.ptrace.own_calls import OwnCalls
    from bpftrace_sys.record.ptrace.stop_filter import StopFilter
    from bpftrace_sys.record.ptrace.teller import Teller
    from bpftrace_sys.record.ptrace.tracee import Tracee


class Calls:
    """``stops``: the calls that are the sink's."""

    __slots__ = ("_own", "_stops", "_teller", "_x32")

    def __init__(self, teller: Teller, stops: StopFilter, own: OwnCalls) -> None:
        self._teller = teller
        self._stops = stops
        self._own = own
        self._x32: set[int] = set()  # processes that were told of

    def begins(self, tracee: Tracee, info: tuple[int, ...]) -> None:
        """A call begins: tell the sink if it is one of its calls."""
        _, arch, tracee.ip, tracee.sp, nr, *rest = info
        tracee.arch = arch
        args = tuple(rest[:6])
        if self._own.watched.wants(arch, nr, args):
            self._own.begins(tracee, arch, nr, args)
        if not tracee.silent and (
            self._stops.wants(arch, nr, args)
            or (tracee.also is not None and tracee.also.wants(arch, nr, args))
        ):
            if arches.is_x32(arch, nr):
                tracee.entered = False
                self._told_x32(tracee)
                return
            self._teller.working = True
            tracee.entered = self._teller.sink.entry(tracee, arch, nr, args, time.time_ns())
        else:
            tracee.entered = False
        if tracee.strict:
            from bpftrace_sys.record.ptrace.strict_mode import confine

            confine(tracee, arch, nr)

    def _told_x32(self, tracee: Tracee) -> None:
        if tracee.pid in self._x32:
            return
        self._x32.add(tracee.pid)
        self._teller.note(
            tracee,
            f"{tracee.comm} makes system calls through the x32 ABI, which bpfstrace does not"
            " know: they are not shown",
        )

    def seccomp_stop(self, tracee: Tracee, info: tuple[int, ...]) -> None:
        """A seccomp stop that is not simply the entry of a call for the sink."""
        data = info[-1]
        if not tracee.every_call:
            self.begins(tracee, info)
        if data != stop_filter.RET_DATA and tracee.injected is None:
            # The tracee's own filter asks for a tracer that it does not have: the
            # kernel would fail the call, and so it shall.
            tracee.skip_call(-errno.ENOSYS)
        more = tracee.every_call or tracee.entered or tracee.watched or tracee.injected is not None
        px.resume(px.PTRACE_SYSCALL if more else px.PTRACE_CONT, tracee.tid)

    def returns(self, tracee: Tracee, ret: int, failed: bool) -> None:
        """The exit of a call that is injected, or that we had an interest in ourselves."""
        if tracee.injected is not None:
            ret = tracee.injected
            failed = -4096 < ret < 0
            tracee.injected = None
            from bpftrace_sys.record.ptrace.registers import set_return

            set_return(tracee.tid, ret)
        if tracee.lapsing:
            tracee.lapsing = False
            tracee.every_call = tracee.unfiltered
        self._own.returns(tracee, ret, failed)
        if tracee.entered:
            tracee.entered = False
            self._teller.working = True
            self._teller.sink.exit(tracee, ret, failed, time.time_ns())

    # -- what a sink asks for ---------------------------------------------------

    def watch(self, tracee: Tracee, calls: StopFilter | None) -> None:
        """As Engine.watch."""
        if calls is not None:
            if not tracee.lapsing and tracee.also is None:
                tracee.unfiltered = tracee.every_call
            tracee.every_call = True
            tracee.lapsing = False
        elif tracee.also is not None:
            # Not at once: this may be a call's entry, which the filter, too, will report.
            tracee.lapsing = True
            tracee.watched = tracee.watched or "also"
        tracee.also = calls

    def inject(self, tracee: Tracee, ret: int) -> bool:
        """As Engine.inject."""
        return tracee.skip_call(ret)
