"""What an fd of a tracee is, from /proc/TID/fdinfo/N and the link /proc/TID/fd/N.

An fdinfo file that is kept open looks the fd number up again on each read, in
the files of the task that it was opened for. So a kept one costs one pread
instead of open, read and close, follows close() and reuse of the number, and
holds nothing of the tracee's. Duplicates of the tracee's own fds are never kept:
they would keep its objects alive.

Of a perf event fdinfo says nothing, but the event has an id, which is never
given again (PERF_EVENT_IOC_ID). To ask for it, the fd is duplicated for the
moment of that ioctl, while its thread stands still; so a perf event is known
however its fd came to be, as BPF objects are.
"""

from __future__ import annotations

import ctypes
import fcntl
import os

from bpftrace_sys.common.light import OrderedDict
from bpftrace_sys.record.proc import process_of
from decoders.raw import EXIT, FdFact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_MAX_OPEN: Final = 128
_READ: Final = 4096
_MAX_INFO: Final = 1 << 16

# The key whose presence tells what a BPF fd is (kernel/bpf/: bpf_prog_show_fdinfo,
# bpf_map_show_fdinfo, bpf_link_show_fdinfo, bpf_btf_show_fdinfo, bpf_token_show_fdinfo).
# link_id before prog_id: a link shows the id of its program too.
_KIND_BY_KEY: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\nlink_id:", "link"),
    (b"\nmap_id:", "map"),
    (b"\nprog_id:", "prog"),
    (b"\nbtf_id:", "btf"),
    (b"\nallowed_cmds:", "token"),
)

_PERF_EVENT: Final = "anon_inode:[perf_event]"
_TUN: Final = "/dev/net/tun"

_PIDFD_THREAD: Final = os.O_EXCL
_PIDFD_GETFD: Final = 438
"""The number of pidfd_getfd(2) on every architecture."""
_PERF_EVENT_IOC_ID: Final = 0x80082407

# Files' own state, of no use to anybody here, and ever changing.
_FILE_KEYS: Final = frozenset({"pos", "flags", "mnt_id", "ino"})

# Values that stay text though they may look like numbers.
_TEXT_KEYS: Final = frozenset(
    {
        "prog_tag",
        "link_type",
        "map_extra",
        "map_flags",
        "flags",
        "allowed_cmds",
        "allowed_maps",
        "allowed_progs",
        "allowed_attachs",
    }
)
_HEX_KEYS: Final = frozenset({"map_extra", "map_flags"})


def parse_fdinfo(text: str) -> dict[str, int | str]:
    """``key:\\tvalue`` lines; decimal values as int, map_flags and map_extra
    (``0x..``) as int too, everything else as str. Lines without a colon and
    those after the first of a repeated key are left out."""
    info: dict[str, int | str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        key = key.strip()
        if not colon or not key or key in info:
            continue
        info[key] = _value(key, value.strip())
    return info


def _value(key: str, text: str) -> int | str:
    if key in _HEX_KEYS:
        try:
            return int(text, 16)
        except ValueError:
            return text
    if key in _TEXT_KEYS or not text.isascii():
        return text
    digits = text[1:] if text.startswith("-") else text
    return int(text) if digits.isdigit() and len(digits) <= 20 else text


class Seen:
    """What was last read about one (tid, fd)."""

    __slots__ = ("event", "facts", "file", "link", "raw")

    def __init__(self, file: int) -> None:
        self.file = file
        self.raw = b""
        self.link = ""
        self.event = 0
        self.facts: dict[int, FdFact] = {}

    def says(self, text: bytes) -> bool:
        """Whether it reads as it did when it said this; what it said last may be of another."""
        try:
            return os.pread(self.file, len(text) + 1, 0) == text
        except OSError:
            return False


class FdLookup:
    """Facts about tracees' fds. Not for use by several threads at a time."""

    __slots__ = ("_events", "_max_open", "_pidfds", "_seen")

    def __init__(self, max_open: int = _MAX_OPEN) -> None:
        self._max_open = max_open
        self._seen: OrderedDict[tuple[int, int], Seen] = OrderedDict()
        self._pidfds: dict[int, int] = {}
        self._events: set[int] = set()
        """Ids of perf events that were told of already."""

    def fact(self, tid: int, fd: int, stage: int) -> FdFact | None:
        """What ``fd`` is now; None where it is not open, or the thread is gone.

        Equal readings in a row give the same object. ``info`` holds every key of
        fdinfo of a BPF object (ids and sizes int, tags and lists str); for other
        files ``path``, as the link reads, without the file position and such.
        A perf event also has its ``perf_event_id`` and, where its making was not
        seen, what BPF_TASK_FD_QUERY tells of it.
        """
        if fd < 0 or fd > 0x7FFFFFFF:
            return None
        key = (tid, fd)
        seen = self._seen.get(key)
        if seen is not None:
            raw = _read_all(seen.file)
            if raw is None:
                # The thread is gone, the fd closed, or the number in use anew
                # by a thread that reuses the tid: look again from the start.
                self._drop(key)
                seen = None
            else:
                self._seen.move_to_end(key)
        if seen is None:
            opened = self._open(tid, fd)
            if opened is None:
                return None
            raw = _read_all(opened)
            if raw is None:
                os.close(opened)
                return None
            seen = Seen(opened)
            self._seen[key] = seen
            if len(self._seen) > self._max_open:
                self._drop(next(iter(self._seen)))
        assert raw is not None
        kind = _kind(raw)
        link = ""
        if kind is None:
            # All anonymous inodes share one number: only the link tells a perf
            # event from another file whose fdinfo reads alike.
            try:
                link = os.readlink(f"/proc/{tid}/fd/{fd}")
            except OSError:
                self._drop(key)
                return None
        event = self._event_id(tid, fd) if link == _PERF_EVENT else 0
        if raw == seen.raw and link == seen.link and event == seen.event:
            known = seen.facts.get(stage)
            if known is not None:
                return known
        else:
            seen.raw = raw
            seen.link = link
            seen.event = event
            seen.facts = {}
        fact = _build(fd, stage, kind, raw, link)
        if event:
            fact.info["perf_event_id"] = event
            # At an exit it is new: what it is stands in the call.
            if event not in self._events:
                self._events.add(event)
                if stage != EXIT:
                    from bpftrace_sys.record.machine.bpf import task_fd_query

                    fact.info.update(task_fd_query(tid, fd))
        seen.facts[stage] = fact
        return fact

    def seen(self, fact: FdFact, tid: int) -> Seen | None:
        """Where a fact about a BPF object was read; None where that is no longer so."""
        seen = self._seen.get((tid, fact.fd))
        if seen is None or seen.link or seen.facts.get(fact.stage) is not fact:
            return None
        return seen

    def duplicate(self, tid: int, fd: int) -> int:
        """A duplicate of a tracee's fd, to be closed before its thread goes on.

        OSError where the kernel does not let us, ValueError where the thread is gone.
        """
        pidfd = self._pidfds.get(tid)
        if pidfd is None:
            if len(self._pidfds) >= self._max_open:
                os.close(self._pidfds.pop(next(iter(self._pidfds))))
            pidfd = self._pidfds[tid] = _pidfd_open(tid)
        copy: int = _libc.syscall(_PIDFD_GETFD, pidfd, fd, 0)
        if copy < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return copy

    def _event_id(self, tid: int, fd: int) -> int:
        """The id of a perf event; 0 where the kernel does not let us ask."""
        try:
            copy = self.duplicate(tid, fd)
            try:
                answer = bytearray(8)
                fcntl.ioctl(copy, _PERF_EVENT_IOC_ID, answer)
                return int.from_bytes(answer, "little")
            finally:
                os.close(copy)
        except (OSError, ValueError):
            return 0

    def forget(self, tid: int) -> None:
        """A thread has ended: close what was kept open for it."""
        for key in [key for key in self._seen if key[0] == tid]:
            self._drop(key)
        pidfd = self._pidfds.pop(tid, None)
        if pidfd is not None:
            os.close(pidfd)

    def close(self) -> None:
        """Close everything."""
        while self._seen:
            _, seen = self._seen.popitem()
            os.close(seen.file)
        while self._pidfds:
            os.close(self._pidfds.popitem()[1])

    def __len__(self) -> int:
        return len(self._seen)

    def _drop(self, key: tuple[int, int]) -> None:
        seen = self._seen.pop(key, None)
        if seen is not None:
            os.close(seen.file)
            seen.file = -1  # whoever still has it is not to read another file

    def _open(self, tid: int, fd: int) -> int | None:
        path = f"/proc/{tid}/fdinfo/{fd}"
        while True:
            try:
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
            except OSError as error:
                # Out of fds: make do with fewer.
                if error.errno in (23, 24) and self._seen:
                    self._max_open = max(1, len(self._seen) // 2)
                    self._drop(next(iter(self._seen)))
                    continue
                return None


def _read_all(file: int) -> bytes | None:
    """The whole of an fdinfo file; None where its fd or its task is no more."""
    try:
        raw = os.pread(file, _READ, 0)
        while len(raw) % _READ == 0 and 0 < len(raw) < _MAX_INFO:
            more = os.pread(file, _READ, len(raw))
            if not more:
                break
            raw += more
    except OSError:
        return None
    return raw or None


def _kind(raw: bytes) -> str | None:
    for key, kind in _KIND_BY_KEY:
        if key in raw:
            return kind
    return None


def _build(fd: int, stage: int, kind: str | None, raw: bytes, link: str) -> FdFact:
    if kind is not None:
        info = parse_fdinfo(raw.decode("utf-8", "surrogateescape"))
        for key in _FILE_KEYS:
            info.pop(key, None)
        return FdFact(fd, stage, kind, info)
    fact = FdFact(fd, stage, "perf_event" if link == _PERF_EVENT else "file", {"path": link})
    if link == _TUN:
        # tun_chr_show_fdinfo() in drivers/net/tun.c: the device, not only how one is had.
        device = parse_fdinfo(raw.decode("utf-8", "surrogateescape")).get("iff")
        if device is not None:
            fact.info["iff"] = str(device)
    return fact


_libc = ctypes.CDLL(None, use_errno=True)


def _pidfd_open(tid: int) -> int:
    """A pidfd of a thread, or where the kernel has those of processes only, of its process."""
    try:
        return os.pidfd_open(tid, _PIDFD_THREAD)
    except OSError:
        return os.pidfd_open(process_of(tid))


