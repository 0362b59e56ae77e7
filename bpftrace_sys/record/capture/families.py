"""Loads that differ from each other in their instructions, copied without a walk.

Feature probes are thousands of PROG_LOADs with the very same registers, of which one has another
helper's number, the next another program type.  Neither decides what else is read, so long as the
instructions name nothing: a Family remembers where everything stood.
"""

from __future__ import annotations

import struct

from bpftrace_sys.record.capture.copying import Recorder
from bpftrace_sys.record.ptrace.memory import Ranges
from decoders.raw import ENTRY, EXIT, NOTHING, Chunk, RawCall
from decoders.walk.follow import LOG_HEAD
from decoders.walk.measures import LOG_LIMIT, naming_loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from bpftrace_sys.record.machine.fds import FdLookup
    from bpftrace_sys.record.ptrace.memory import LiveMemory

ATTR: Final = struct.Struct("<4xIQQ4xIQ")
"""union bpf_attr of PROG_LOAD: insn_cnt, insns, license, log_size, log_buf (uapi/linux/bpf.h)."""
FREE: Final = 4
"""Bytes of the attr that may be others in each: prog_type."""
ROOM: Final = 512
"""Bytes of the log that are read at once with the attr; of a probe it has some 200."""


class Family:
    """How PROG_LOADs are copied that are like one that was walked, but for their instructions."""

    __slots__ = (
        "_after", "_at", "_attr", "_attr_after", "_chunks", "_data", "_log", "_log_after",
        "_ranges",
    )  # fmt: skip

    def __init__(self, raw: RawCall) -> None:
        """``raw``: one that :func:`may_found`."""
        self._chunks = [chunk for chunk in raw.chunks if chunk.stage == ENTRY]
        """Of the last that took it."""
        self._data = b"".join(chunk.data for chunk in self._chunks)
        self._ranges = Ranges([(chunk.addr, chunk.wanted) for chunk in self._chunks])
        at = [0]
        for chunk in self._chunks:
            at.append(at[-1] + chunk.wanted)
        self._at = at
        self._attr = self._chunks[0]
        self._log = _log(self._attr.data)
        after = [(self._attr.addr, self._attr.wanted)]
        if self._log is not None:
            addr, size = self._log
            after.append((addr, min(size, ROOM)))
        self._after = Ranges(after)
        self._attr_after = self._log_after = Chunk(EXIT, 0, b"", 0)

    def enter(self, raw: RawCall, memory: LiveMemory, lookup: FdLookup) -> bool:
        """Copies a call; False: it has to be walked."""
        data = memory.gather(self._ranges)
        if data is None:
            return False
        known = self._data
        if data != known:
            insns, license_, head, end = self._at[1:4] + self._at[-1:]
            if data[FREE:insns] != known[FREE:insns] or data[license_:head] != known[license_:head]:
                return False
            chunks = self._chunks[:]
            if data[:FREE] != known[:FREE]:
                chunks[0] = _other(chunks[0], data[:insns])
            code = data[insns:license_]
            if code != chunks[1].data:
                if names_more(code):
                    return False
                chunks[1] = _other(chunks[1], code)
            if end > head and data[head:] != known[head:]:
                chunks[3] = _other(chunks[3], data[head:])
            self._data, self._chunks = data, chunks
        raw.chunks = self._chunks[:]
        return True

    def leave(self, raw: RawCall, memory: LiveMemory, lookup: FdLookup) -> bool:
        """Copies what the call has written; False: for that the walk is needed."""
        data = memory.gather(self._after)
        if data is None:
            return False
        attr, known = self._attr, self._attr_after
        if known.data != data[: attr.wanted]:
            known = Chunk(EXIT, attr.addr, data[: attr.wanted], attr.wanted)
            self._attr_after = known
        raw.chunks.append(known)
        if self._log is not None:
            self._leave_log(*self._log, data[attr.wanted :], raw.chunks, memory)
        assert raw.ret is not None
        made = None if raw.failed else lookup.fact(raw.tid, raw.ret, EXIT)
        if made is not None:
            raw.fds.append(made)
        return True

    def _leave_log(
        self, addr: int, size: int, text: bytes, chunks: list[Chunk], memory: LiveMemory
    ) -> None:
        """Copies the log, of which ``text`` is the beginning."""
        end = text.find(b"\0") + 1
        if not end:
            Recorder(memory, EXIT, chunks).cstr(addr, size)
            return
        if self._log_after.data != text[:end]:
            self._log_after = Chunk(EXIT, addr, text[:end], end)
        chunks.append(self._log_after)

    def learn(self, raw: RawCall) -> None:
        """Nothing: all was known from the first."""


def may_found(raw: RawCall) -> bool:
    """Whether of a PROG_LOAD that was walked, and in which nothing was asked for, only the attr
    and what the instructions name decided what was read."""
    before = [chunk for chunk in raw.chunks if chunk.stage == ENTRY]
    if raw.extra._replace(cred=None) != NOTHING or raw.carried or len(before) not in (3, 4):
        return False
    if any(len(chunk.data) != chunk.wanted for chunk in before):
        return False
    if any(fact.stage == ENTRY for fact in raw.fds):
        return False
    attr, _, license_ = before[:3]
    if (attr.addr, attr.wanted) != raw.args[1:3] or attr.wanted < ATTR.size:
        return False
    count, at_code, at_license, log_size, _ = ATTR.unpack_from(attr.data)
    log = _log(attr.data)
    expected = [(at_code, 8 * count), (at_license, license_.wanted)]
    if log is not None:
        expected.append((log[0], min(LOG_HEAD, log_size)))
    return (
        log_size <= LOG_LIMIT
        and [(chunk.addr, chunk.wanted) for chunk in before[1:]] == expected
        and Ranges.possible([(attr.addr, attr.wanted), *expected])
    )


def _log(attr: bytes) -> tuple[int, int] | None:
    """Address and size of the log's buffer, where there is one."""
    _, _, _, size, addr = ATTR.unpack_from(attr)
    return (addr, size) if addr and size else None


def names_more(code: bytes) -> bool:
    """Whether instructions may name what is looked at with them: maps, by fd or by index."""
    return any(True for _ in naming_loads(code))


def _other(chunk: Chunk, data: bytes) -> Chunk:
    """What stands there now."""
    return Chunk(ENTRY, chunk.addr, data, chunk.wanted)
