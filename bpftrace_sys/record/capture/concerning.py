"""Which calls are BPF's, of those of which the seccomp filter cannot tell."""

from __future__ import annotations

from bpftrace_sys.record.capture.paths import BEGIN, LIMIT, PREFIXES, defining, interesting
from bpftrace_sys.record.ptrace.stop_filter import StopFilter
from decoders import arch as arches
from decoders.uapi import const

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from bpftrace_sys.record.ptrace.tracee import Tracee
    from decoders.raw import RawCall
    from decoders.walk.follow import Node, View

SOL_SOCKET: Final = 1
WATCHED: Final = StopFilter({"write": None, "close": None})
WATCHING: Final = frozenset({"openat", "close"})
"""Calls after which there is something to watch, or no longer."""
FILTERED: Final = frozenset({"setsockopt", "write", "close"})
"""Calls of which only some are BPF's."""


class Concerning:
    """``explicit``: calls that were asked for by name, all of them."""

    def __init__(self, explicit: frozenset[str]) -> None:
        self.watch: Callable[[Tracee, StopFilter | None], None] | None = None
        """Engine.watch, where there is an engine."""
        self._filtered = FILTERED - explicit
        self._defining: dict[int, int] = {}
        """Thread -> the fd through which it defines probes in tracefs."""
        self._openats = {
            (arch, arches.number(arch, "openat"))
            for arch in arches.NAMES
            if "openat" not in explicit
        }
        self._sockets: Any = None
        """bpftrace_sys.record.capture.netlink_sockets.Sockets, once one is asked about."""
        self._netlinks = {
            (arch, arches.number(arch, name))
            for arch in arches.NAMES
            for name in arches.NETLINK_CALLS
            if name not in explicit
        }

    def may_be(self, tracee: Tracee, arch: int, nr: int, args: tuple[int, ...]) -> bool:
        """Whether a call that begins is to be copied: not one that opens another file, or is of
        another socket."""
        call = (arch, nr)
        if call in self._openats:
            begin = tracee.memory.glance(args[1], BEGIN)
            if begin is not None and not begin.startswith(PREFIXES):
                return False
            return interesting(tracee.memory.cstr(args[1], LIMIT))
        return call not in self._netlinks or self._is_netlink(tracee.tid, args[0])

    def _is_netlink(self, tid: int, fd: int) -> bool:
        """Whether an fd is a route netlink socket."""
        if self._sockets is None:
            from bpftrace_sys.record.capture.netlink_sockets import Sockets

            self._sockets = Sockets()
        return bool(self._sockets.is_route(tid, fd & 0xFFFFFFFF))

    def wanted(self, name: str, raw: RawCall, node: Node) -> bool:
        """Whether a call that was copied belongs to BPF's story."""
        if name not in self._filtered:
            return True
        if name == "setsockopt":
            from decoders.uapi.system import so_filter

            return bool(node.view["level"] == SOL_SOCKET and node.view["optname"] in so_filter)
        return bool(self._defining.get(raw.tid) == node.view["fd"])

    def returned(self, tracee: Tracee, raw: RawCall, name: str, view: View) -> None:
        """From the open of a file that defines probes to its close, see what is written."""
        if self.watch is None or name not in WATCHING:
            return
        if name == "openat":
            writes = not raw.failed and view["flags"] & const.O_ACCMODE
            if writes and any(defining(chunk.data) for chunk in raw.chunks):
                assert raw.ret is not None
                self._defining[raw.tid] = raw.ret
                self.watch(tracee, WATCHED)
        elif self._defining.get(raw.tid) == view["fd"]:
            del self._defining[raw.tid]
            self.watch(tracee, None)
