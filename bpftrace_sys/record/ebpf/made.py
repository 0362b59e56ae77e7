"""What a call made, asked for by its id: nobody is stopped who holds an fd of it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from bpftrace_sys.record.machine import bpf
from decoders.raw import EXIT

if TYPE_CHECKING:
    from decoders.raw import RawCall


class Made:
    """The program that a call made, as FdLookup gives it; it may be gone again."""

    def __init__(self, raw: RawCall) -> None:
        self._raw = raw

    def duplicate(self, tid: int, fd: int) -> int:
        """An fd of ours, to be closed soon. OSError where there is none to be had."""
        for fact in self._raw.fds:
            if fact.stage == EXIT and fact.fd == fd and fact.kind == "prog" and fact.id:
                try:
                    return bpf.fd_by_id("prog", fact.id)
                except FileNotFoundError:
                    break
        raise OSError(errno.ENOENT, "it was gone when it was asked for")
