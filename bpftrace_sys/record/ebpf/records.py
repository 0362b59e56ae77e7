"""What comes through the ring, as RawCalls and ProcessEvents: state.h's structs, unpacked.

A call is one record, with its short pieces in it; the longer ones came ahead of it, each page a
record that names the call. A piece that could not be read at the entry was tried again at the exit,
when the kernel had read its page in: such a one is late, and takes the place of what was missing.
"""

from __future__ import annotations

import os
import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bpftrace_sys.record.capture.credentials import INIT_USER_NS
from bpftrace_sys.record.ebpf.layout import (
    APART,
    ASKED,
    CALL,
    CRED,
    EXEC,
    FD,
    FORK,
    HEADER,
    LATE,
    NARROW,
    PIECE,
    PIECE_APART,
    PROCESS,
    PROCESS_EVENT,
    ROOT,
    STRING,
    THERE,
    UNFINISHED,
    WHO,
    WHO_IS,
)
from bpftrace_sys.record.ebpf.loops import RingLoops
from bpftrace_sys.record.ebpf.seen import SeenDevice, SeenFile, SeenRoot
from bpftrace_sys.record.proc import argv_of
from decoders.events import Exec, Exit, Fork, ProcessEvent, What
from decoders.loop_calls import Rounds, Strand, in_strands
from decoders.raw import Chunk, Cred, FdFact, RawCall
from decoders.records import NamedTuple
from decoders.uapi import const, names

if TYPE_CHECKING:
    from decoders.loop_calls import Round

FD_KINDS: Final = ("", "map", "prog", "link", "btf", "perf_event", "token", "file")

_CLONE_VFORK: Final = 0x4000
_CLONE_NO_SIGCHLD: Final = 1 << 63
"""A bit of ours in the flags of a clone: its child does not end with SIGCHLD."""
_LINK_NAMES: Final = {"perf_event": "perf"}
"""What fdinfo calls a type of links, where that is not the end of the enum's name."""
_XDP_MODES: Final = ("skb", "drv", "hw")
"""enum bpf_xdp_mode of include/linux/netdevice.h"""
_ANON_INODE_FS: Final = 0x09041934
_SOCK_FS: Final = 0x534F434B
_PIPE_FS: Final = 0x50495045
"""include/uapi/linux/magic.h"""
_CUT, _GONE, _TOP = 0x80 << 56, 0x40 << 56, 0x20 << 56
_MAGIC: Final = 0xFFFFFFFF
"""fds.h: bits beside a file's magic."""
REMEMBERED: Final = 4096
"""Facts about fds that are remembered; then all are forgotten."""
WAITING: Final = 1024
"""Calls whose pieces may wait for them; the oldest go first."""


class Part(NamedTuple):
    """A page of a piece that came ahead of its call."""

    stage: int
    late: bool
    first: bool
    kind: int
    addr: int
    wanted: int
    data: bytes


class WhoRecord(NamedTuple):
    """Who a process is that asks something of BPF for the first time."""

    time: int
    """Nanoseconds since the epoch."""
    pid: int
    tid: int
    uid: int
    parent: int
    cgroup: int
    """The id of its cgroup: the inode of the cgroup's folder."""
    comm: str
    argv: tuple[str, ...]
    """Empty where it could not be read."""
    exe: str
    """The path of its program, from the root of its mounts; empty likewise."""


class Records:
    """Makes items of records.

    ``take`` gets each RawCall and ProcessEvent, and calls of loops as Rounds, ``who`` each
    :class:`WhoRecord`, ``narrow`` each process that begins to run a 32-bit program.
    ``offset``: nanoseconds from CLOCK_MONOTONIC to the epoch.
    """

    def __init__(
        self,
        take: Callable[[RawCall | Rounds | ProcessEvent], None],
        who: Callable[[WhoRecord], None],
        narrow: Callable[[int], None],
        offset: int,
    ) -> None:
        self._hand_over = take
        self._who = who
        self._narrow = narrow
        self._offset = offset
        self._parts: OrderedDict[int, list[Part]] = OrderedDict()
        self._facts: dict[tuple[int, int, bytes], FdFact] = {}
        self._comms: dict[bytes, str] = {}
        self._loops = RingLoops()
        self._rounds: list[Round] = []
        """Those that were read last, and not handed over yet."""
        self.types: dict[tuple[str, int], int] = {}
        """Of tracing programs and struct_ops maps, by kind and id, the type in vmlinux BTF that
        they are for (LiveFacts.types)."""
        self.lost_pieces = 0
        """Of calls that came."""
        self.read = 0
        self.late = 0
        """Pieces that were read at the exit only."""

    def record(self, buffer: memoryview, at: int, size: int, room: int) -> int:
        """One record of the ring, and those of a loop behind it, within ``room`` bytes. Returns
        how many (Ring.drain)."""
        kind = buffer[at]
        if kind == CALL:
            found = self._loops.rounds(buffer, at, size, room)
            if found is None:
                self._call(buffer, at)
            elif isinstance(found, Strand):
                self.read += found.size
                self.flush()
                self._hand_over(Rounds((found,)))
                return found.size
            else:
                self.read += 1
                self._rounds.append(found)
        elif kind == PIECE_APART:
            self._part(buffer, at)
        elif kind == PROCESS_EVENT:
            self._process(buffer, at)
        elif kind == WHO_IS:
            self._who_is(buffer, at)
        return 1

    def flush(self) -> None:
        """Hands over what was kept back to be handed over with others."""
        if self._rounds:
            rounds, self._rounds = self._rounds, []
            self._hand_over(in_strands(rounds))

    def _take(self, item: RawCall | ProcessEvent) -> None:
        self.flush()
        self._hand_over(item)

    # ------------------------------------------------------------ calls

    def _part(self, buffer: memoryview, at: int) -> None:
        _, got, call, addr, wanted, _, kind, stage, last, first = APART.unpack_from(buffer, at)
        start = at + APART.size
        data = bytes(buffer[start : start + got])
        if kind == STRING and got == wanted and last:
            data = data[:-1] + bytes((last,))
        parts = self._parts.get(call)
        if parts is None:
            parts = self._parts[call] = []
            if len(self._parts) > WAITING:
                self._parts.popitem(last=False)  # its call was lost
        if stage & THERE and not got and first:
            return
        parts.append(
            Part(stage & 1, bool(stage & LATE), bool(first), kind, addr, wanted, data)
        )

    def _call(self, buffer: memoryview, at: int) -> None:
        (
            _, flags, number, began, ended, pid_tgid, a, b, c, d, e, f, ret, nr, arch,
            apart, lost, size, _, comm,
        ) = HEADER.unpack_from(buffer, at)  # fmt: skip
        self.read += 1
        done = not flags & UNFINISHED
        raw = RawCall(
            number,
            began + self._offset,
            pid_tgid >> 32,
            pid_tgid & 0xFFFFFFFF,
            self._comms.get(comm) or self._comm(comm),
            arch,
            nr,
            (a, b, c, d, e, f),
            ret if done else None,
            done and -4096 < ret < 0,
            ended - began if done else None,
        )
        place = at + HEADER.size
        end = place + size
        chunks = raw.chunks
        late: list[Part] = []
        while place < end:
            addr, wanted, got, kind, stage = PIECE.unpack_from(buffer, place)
            place += PIECE.size
            data = bytes(buffer[place : place + got])
            place += got + 7 & ~7
            if kind == FD:
                self._fd(raw, addr, stage, data)
            elif kind == ASKED:
                _interface(raw, addr, stage, data)
            elif kind == CRED:
                raw.extra = raw.extra._replace(cred=_credentials(data))
            elif kind == ROOT:
                raw.carried += (SeenRoot(data[0] == 1),)
            elif stage & THERE and not got:
                continue  # what stands there is not known
            elif stage & LATE:
                late.append(Part(stage & 1, True, True, kind, addr, wanted, data))
            else:
                # A string ends with its NUL: so long it was, and no longer.
                chunks.append(Chunk(stage, addr, data, got if kind == STRING and got else wanted))
        if apart:
            self._join(raw, self._parts.pop(number, []), late)
        if late:
            self._late(raw, late)
        if lost:
            self.lost_pieces += lost
            raw.extra = raw.extra._replace(lost=lost)
        self._loops.learn(raw, buffer, at)
        self._take(raw)

    def _join(self, raw: RawCall, parts: list[Part], late: list[Part]) -> None:
        """Pages of one piece become one Chunk again, up to where memory ended."""
        run: list[Part] = []
        for part in parts:
            if part.kind == FD:
                self._fd(raw, part.addr, part.stage | (LATE if part.late else 0), part.data)
                continue
            if part.kind == ASKED:
                _interface(raw, part.addr, part.stage, part.data)
                continue
            if part.first and run:
                _keep(raw, run, late)
                run = []
            run.append(part)
        if run:
            _keep(raw, run, late)

    def _late(self, raw: RawCall, late: list[Part]) -> None:
        """What was missing at the entry, as it was read at the exit; the call says it."""
        known = {(chunk.stage, chunk.addr): at for at, chunk in enumerate(raw.chunks)}
        filled = []
        for part in late:
            wanted = len(part.data) if part.kind == STRING and part.data else part.wanted
            chunk = Chunk(part.stage, part.addr, part.data, wanted)
            at = known.get((part.stage, part.addr))
            if at is None:
                known[part.stage, part.addr] = len(raw.chunks)
                raw.chunks.append(chunk)
            elif len(raw.chunks[at].data) < len(part.data) and not _whole(raw.chunks[at]):
                raw.chunks[at] = chunk
            else:
                continue
            if part.data:
                filled.append(f"{part.addr:#x}")
        if filled:
            self.late += len(filled)
            raw.extra = raw.extra._replace(late=tuple(filled))

    def _comm(self, comm: bytes) -> str:
        if len(self._comms) > REMEMBERED:
            self._comms.clear()
        text = self._comms[comm] = os.fsdecode(comm.partition(b"\0")[0])
        return text

    # ------------------------------------------------------------ fds

    def _fd(self, raw: RawCall, what: int, stage: int, data: bytes) -> None:
        fd = what & 0xFFFFFFFF
        if stage & LATE and any(fact.fd == fd for fact in raw.fds):
            return
        key = (what, stage & 1, data)
        fact = self._facts.get(key)
        if fact is None:
            if len(self._facts) > REMEMBERED:
                self._facts.clear()
            fact = self._facts[key] = fd_fact(fd, what >> 32, stage & 1, data)
            self._learn(fact, data)
        raw.fds.append(fact)
        if raw.failed and fact.kind == "file":
            magic, inode = struct.unpack_from("<QQ", data)
            path = str(fact.info["path"])
            raw.carried += (SeenFile(fd, magic & _MAGIC, inode, bool(magic & _TOP), path),)

    def _learn(self, fact: FdFact, data: bytes) -> None:
        info = fact.info
        if fact.kind == "prog" and info["prog_type"] == const.BPF_PROG_TYPE_TRACING:
            type_id = struct.unpack_from("<I", data, 16)[0]
        elif fact.kind == "map" and info["map_type"] == const.BPF_MAP_TYPE_STRUCT_OPS:
            type_id = struct.unpack_from("<I", data, 36)[0]
        else:
            return
        if len(self.types) > REMEMBERED:
            self.types.clear()
        if type_id and fact.id is not None:
            self.types[fact.kind, fact.id] = type_id

    # ------------------------------------------------------------ processes

    def _process(self, buffer: memoryview, at: int) -> None:
        _, kind, time, pid_tgid, one, two, how = PROCESS.unpack_from(buffer, at)
        pid, tid = pid_tgid >> 32, pid_tgid & 0xFFFFFFFF
        what: What
        if kind == NARROW:
            self._narrow(pid)
            return
        if kind == FORK:
            what = Fork(one, two, _how(pid, one, how))
        elif kind == EXEC:
            what = Exec(one if one != tid else None)
        elif one & 0x7F:
            what = Exit(signal=one & 0x7F, core=bool(one & 0x80))
        else:
            what = Exit(code=one >> 8 & 0xFF)
        self._take(ProcessEvent(what, time + self._offset, pid, tid))

    def _who_is(self, buffer: memoryview, at: int) -> None:
        (
            _, uid, time, pid_tgid, cgroup, parent, size, exe_size, former, comm, exe,
        ) = WHO.unpack_from(buffer, at)  # fmt: skip
        self.flush()
        start = at + WHO.size
        argv = argv_of(bytes(buffer[start : start + size]))
        path = file_path(exe[:exe_size]) if exe_size > 16 else ""
        time += self._offset
        pid, tid = pid_tgid >> 32, pid_tgid & 0xFFFFFFFF
        if former:
            what = Exec(former if former != tid else None, path, argv, uid, cgroup_id=cgroup)
            self._take(ProcessEvent(what, time, pid, tid))
            return
        comm = self._comms.get(comm) or self._comm(comm)
        self._who(WhoRecord(time, pid, tid, uid, parent, cgroup, comm, argv, path))


def attaches(buffer: memoryview, at: int) -> bool:
    """Whether a record is of a call that attached or detached something, or may be: which system
    call it is cannot be seen here."""
    if buffer[at] != CALL:
        return False
    _, _, _, _, _, _, command, *_, ret, _, _, _, _, _, _, _ = HEADER.unpack_from(buffer, at)
    return ret >= 0 and command & 0xFFFF in CHANGING


CHANGING: Final = frozenset(
    {
        const.BPF_PROG_ATTACH, const.BPF_PROG_DETACH, const.BPF_LINK_CREATE,
        const.BPF_LINK_UPDATE, const.BPF_LINK_DETACH,
    }
)  # fmt: skip
"""Commands that change what stands at a hook."""


def _keep(raw: RawCall, run: list[Part], late: list[Part]) -> None:
    first = run[0]
    data = b""
    for part in run:
        data += part.data
        if len(part.data) < part.wanted:
            break
    ended = first.kind == STRING and data.endswith(b"\0")
    wanted = len(data) if ended else sum(part.wanted for part in run)
    if first.late:
        late.append(Part(first.stage, True, True, first.kind, first.addr, wanted, data))
    else:
        raw.chunks.append(Chunk(first.stage, first.addr, data, wanted))


def _whole(chunk: Chunk) -> bool:
    return len(chunk.data) >= chunk.wanted


def _how(pid: int, child: int, flags: int) -> str:
    """As ptrace's events tell a new task apart (kernel_clone() in kernel/fork.c)."""
    if child == pid:
        return "thread"
    if flags & _CLONE_VFORK:
        return "vfork"
    return "clone" if flags & _CLONE_NO_SIGCHLD else "fork"


def _interface(raw: RawCall, number: int, stage: int, data: bytes) -> None:
    """An interface's name; where a link was made there, how XDP runs on it afterwards.

    As capture's CallEnv.fact() and xdp_modes() keep them.
    """
    name = data[:16].partition(b"\0")[0]
    if name:
        devices = {**raw.extra.devices, number: os.fsdecode(name)}
        raw.extra = raw.extra._replace(devices=devices)
    if raw.failed:
        netns, *progs = struct.unpack_from("<4I", data, 20)
        found = {mode: prog for mode, prog in zip(_XDP_MODES, progs, strict=True) if prog}
        raw.carried += (SeenDevice(number, netns, bool(name), found),)
    elif stage & 1 and raw.args[0] & 0xFFFF == const.BPF_LINK_CREATE:
        modes = [mode for bit, mode in enumerate(_XDP_MODES) if data[16] >> bit & 1]
        mode = modes[0] if len(modes) == 1 else "multi" if modes else ""
        raw.extra = raw.extra._replace(xdp_modes={**raw.extra.xdp_modes, number: mode})


def _credentials(data: bytes) -> Cred:
    effective, user = struct.unpack_from("<QI", data)
    return Cred(eff=f"{effective:016x}", userns=None if user == INIT_USER_NS else user)


def fd_fact(fd: int, kind: int, stage: int, data: bytes) -> FdFact:
    """What an fd is, with the names that fdinfo has for it."""
    name = FD_KINDS[kind] if kind < len(FD_KINDS) else "file"
    info: dict[str, int | str]
    if name == "map":
        word = struct.unpack_from("<6IQB", data)
        info = {
            "map_type": word[0], "key_size": word[2], "value_size": word[3],
            "max_entries": word[4], "map_flags": word[5], "map_extra": word[6],
            "map_id": word[1], "frozen": word[7],
        }  # fmt: skip
    elif name == "prog":
        kind_of_prog, number = struct.unpack_from("<II", data)
        info = {"prog_type": kind_of_prog, "prog_tag": data[8:16].hex(), "prog_id": number}
    elif name == "link":
        link_type, number, prog = struct.unpack_from("<III", data)
        word_of = names.bpf_link_type.get(link_type, f"BPF_LINK_TYPE_<{link_type}>")[14:].lower()
        info = {"link_type": _LINK_NAMES.get(word_of, word_of), "link_id": number}
        if prog:
            info |= {"prog_tag": data[16:24].hex(), "prog_id": prog}
    elif name == "btf":
        info = {"btf_id": struct.unpack_from("<I", data)[0]}
    elif name == "perf_event":
        info = {
            "path": "anon_inode:[perf_event]",
            "perf_event_id": struct.unpack_from("<Q", data)[0],
        }
    elif name == "token":
        words = ("allowed_cmds", "allowed_maps", "allowed_progs", "allowed_attachs")
        found = zip(words, struct.unpack_from("<4Q", data), strict=True)
        info = {word: f"{bits:#x}" for word, bits in found}
    else:
        info = {"path": file_path(data)}
    return FdFact(fd, stage, name, info)


def file_path(data: bytes) -> str:
    """The path of a file as the link in /proc/PID/fd reads, from its components, last first."""
    magic, inode = struct.unpack_from("<QQ", data)
    components = []
    at = 16
    while at < len(data):
        size = data[at]
        components.append(data[at + 1 : at + 1 + size].rstrip(b"\0"))
        at += 1 + max(1, size)
    gone = magic & _GONE
    if magic & _MAGIC == _ANON_INODE_FS:
        return "anon_inode:" + os.fsdecode(components[0] if components else b"?")
    if magic == _SOCK_FS:
        return f"socket:[{inode}]"
    if magic == _PIPE_FS:
        return f"pipe:[{inode}]"
    head = ".../" if magic & _CUT else "/"
    path = head + os.fsdecode(b"/".join(reversed(components)))
    return f"{path} (deleted)" if gone else path


__all__ = ["Records", "WhoRecord", "fd_fact", "file_path"]
