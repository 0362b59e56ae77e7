"""A refused caller's world as it can be had without stops: what was seen in the call, and what is
looked at when its record is read.

Nobody waited for us. What the programs in the kernel saw is evidence of the call's own moment
(seen.py). What is looked at afterwards is taken only where it was so in the call, too: a file that
is still the one which the fd was, a task that is there, a hook where nothing was attached since. A
task that is gone may have been there; seccomp filters refuse calls before any program of ours
runs, so such calls are not seen at all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, TypeVar

from bpftrace_sys.record.capture.world import COMMANDS, ERRORS, HELD, World
from bpftrace_sys.record.ebpf.engine import Since, Watch
from bpftrace_sys.record.ebpf.seen import SeenDevice, SeenFile, SeenRoot
from bpftrace_sys.record.files.walk import Place, place_of, walk
from bpftrace_sys.record.machine import bpf
from bpftrace_sys.record.machine.evidence import FILE_SYSTEMS, system_of
from bpftrace_sys.record.machine.hook_state import MPROG, progs_in, state
from decoders import arch
from decoders.raw import RawCall
from decoders.uapi import const

LATE: Final = 1_000_000_000
"""Nanoseconds after a call's end until which a look at a hook is evidence at all."""
SEEN: Final = (SeenDevice, SeenFile, SeenRoot)
Seen = TypeVar("Seen", SeenDevice, SeenFile)


class LateWorld(World):
    """As World, made when the record is read."""

    __slots__ = ("_raw", "_watch")

    def __init__(self, raw: RawCall, watch: Watch) -> None:
        self._raw = raw
        self._watch = watch
        super().__init__(raw.tid if watch.numbered_alike and _is_there(raw) else 0)
        if "root" not in self._fds and SeenRoot(True) in raw.carried:
            self._fds["root"] = os.open("/", os.O_PATH | os.O_CLOEXEC)
            self.mounts_of = os.getpid()
        devices = [part for part in raw.carried if isinstance(part, SeenDevice)]
        self.missing = frozenset(part.ifindex for part in devices if not part.there)

    def _seen(self, kind: type[Seen], number: int) -> Seen | None:
        parts = (part for part in self._raw.carried if isinstance(part, kind))
        return next((part for part in parts if part[0] == number), None)

    def asked_of(self, pid: int) -> None:
        """That a task is gone now says nothing of when the call was made."""
        if 0 < pid < 1 << 31 and os.path.exists(f"/proc/{pid}"):
            self.tasks[pid] = True

    def hold_file(self, fd: int) -> None:
        """The file that an fd of the call was, if it can still be reached."""
        seen = self._seen(SeenFile, fd)
        if seen is None:
            return
        self.system = FILE_SYSTEMS.get(seen.magic, f"{seen.magic:#x}")
        self.top = seen.top
        for place in self._places(fd, seen.path):
            with place:
                # What has to be asked is not waited for.
                same = place.answers and os.fstat(place.fd).st_ino == seen.inode
                if same and system_of(place) == self.system:
                    self._fds["file"] = os.dup(place.fd)
                    return

    def _places(self, fd: int, path: str) -> Iterator[Place]:
        """Where the file may be that an fd was: the same fd, and what stands at its path."""
        with suppress(OSError):
            if self.tid:
                there = os.open(f"/proc/{self.tid}/fd/{fd}", os.O_PATH | os.O_CLOEXEC)
                yield place_of(self.tid, there)
        with suppress(OSError, ValueError):
            yield walk(os.getpid(), "/proc/self/root", "/proc/self/cwd", path)

    def look_for_device(self, ifindex: int) -> None:
        """The call itself told whether it is there."""

    def look_at_hook(self, attach_type: int, target: int) -> None:
        raw, device = self._raw, self._seen(SeenDevice, target)
        if attach_type == const.BPF_XDP:
            if device is not None:  # as it was in the call
                self.hook = " ".join(f"{mode}:{prog}" for mode, prog in device.xdp.items())
            return
        if time.time_ns() - raw.time - (raw.duration or 0) > LATE:
            return
        tid = self.tid
        if device is not None and device.netns == os.stat("/proc/self/ns/net").st_ino:
            tid = os.getpid()  # whose namespace is the same; the caller may be gone
        found = state(tid, attach_type, target, self._fds.get("file"))
        since = self._watch.since()
        # Links that were closed since change a revision, but leave to others what they had.
        same = since is Since.NOTHING or (since is Since.SOMETHING and attach_type not in MPROG)
        if found is not None and same and all(
            _older(prog, raw) for prog in progs_in(found, attach_type)
        ):
            self.hook = found


def _is_there(raw: RawCall) -> bool:
    """Whether the thread of that number is the one that made the call."""
    try:
        with open(f"/proc/{raw.tid}/stat", "rb") as file:
            fields = file.read(4096).rpartition(b")")[2].split()
        started = int(fields[19]) * 10**9 // os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return False
    return started <= _since_boot(raw)


def _since_boot(raw: RawCall) -> int:
    return raw.time - (time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME))


def _older(prog_id: int, raw: RawCall) -> bool:
    """Whether a program was loaded before a call; of one that is gone nobody knows."""
    loaded = bpf.load_time(prog_id)
    return loaded is not None and loaded < _since_boot(raw)


NUMBERS: Final = {
    (at, arch.number(at, name)): name
    for at in arch.of_machine()
    for name in ("bpf", "perf_event_open")
}


def keep(raw: RawCall, watch: Watch) -> None:
    """As capture.world.keep()."""
    name = NUMBERS.get((raw.arch, raw.nr))
    asked = name == "perf_event_open" or (name == "bpf" and raw.args[0] in COMMANDS)
    kept: tuple[object, ...] = ()
    if asked and -(raw.ret or 0) in ERRORS and World.open < HELD:
        world = LateWorld(raw, watch)
        kept = (world,)
        if name == "bpf":
            world.look(raw)
        else:
            world.asked_of(raw.args[1])
    raw.carried = (*(part for part in raw.carried if not isinstance(part, SEEN)), *kept)
