"""BPF_PROG_QUERY: which programs are attached to a cgroup, device, namespace or sockmap."""

from __future__ import annotations

import ctypes
import errno
import struct
from typing import Final

from bpftrace_sys.record.machine import bpf
from decoders.records import NamedTuple
from decoders.uapi import const

_QUERY: Final = struct.Struct("<IIIIQII")
"""union bpf_attr's query: target, attach_type, query_flags, attach_flags, prog_ids, count, pad."""
_LINKS: Final = struct.Struct("<QQQQ")
"""What follows since 6.6: prog_attach_flags, link_ids, link_attach_flags, revision."""
ROOM: Final = 64
"""Programs that mostly suffice: the kernel allows as many to a cgroup or hook."""


class Answer(NamedTuple):
    """Programs, in the order in which they run, and the links that hold them (0: none)."""

    prog_ids: tuple[int, ...]
    link_ids: tuple[int, ...]
    attach_flags: int
    revision: int = 0
    """It grows with each change (tcx, netkit; only where links were asked for)."""


NOTHING: Final = Answer((), (), 0)


class Query:
    """Asks, with room that is made once. Not for use by several threads at a time."""

    def __init__(self) -> None:
        self._make(ROOM)
        self._short = ctypes.create_string_buffer(_QUERY.size)
        self._long = ctypes.create_string_buffer(_QUERY.size + _LINKS.size)

    def _make(self, count: int) -> None:
        self._progs = (ctypes.c_uint32 * count)()
        self._links = (ctypes.c_uint32 * count)()

    def __call__(self, target: int, attach_type: int, links: bool = False) -> Answer:
        """``target``: an fd or an ifindex; raises OSError (EINVAL: no such hook there).

        ``links``: also which links hold the programs, where the hook can tell (tcx, netkit).
        """
        attr = self._long if links else self._short
        while True:
            count = len(self._progs)
            _QUERY.pack_into(
                attr, 0, target, attach_type, 0, 0, ctypes.addressof(self._progs), count, 0
            )
            if links:
                ctypes.memset(self._links, 0, ctypes.sizeof(self._links))
                _LINKS.pack_into(attr, _QUERY.size, 0, ctypes.addressof(self._links), 0, 0)
            try:
                bpf.bpf(const.BPF_PROG_QUERY, attr)
            except OSError as error:
                told = _QUERY.unpack_from(attr.raw)[5]
                if error.errno != errno.ENOSPC or told <= count:
                    raise
                self._make(told)
                continue
            _, _, _, flags, _, told, _ = _QUERY.unpack_from(attr.raw)
            told = min(told, count)
            held = tuple(self._links[:told]) if links else (0,) * told
            revision = _LINKS.unpack_from(attr.raw, _QUERY.size)[3] if links else 0
            return Answer(tuple(self._progs[:told]), held, flags, revision)
