"""The engine made of eBPF: programs in the kernel, which copy what calls ask of BPF.

Nobody is stopped. What the programs copy fills the same RawCalls as a ptrace stop does; from
there on nothing can tell the two apart.
"""

from __future__ import annotations

import os
import select
import struct
import time
from collections.abc import Callable
from enum import Enum
from typing import Final

from bpftrace_sys.record.capture.paths import PREFIXES, interesting
from bpftrace_sys.record.ebpf import steps
from bpftrace_sys.record.ebpf.cgroups import Cgroups
from bpftrace_sys.record.ebpf.hooks import KINDS, Hooks
from bpftrace_sys.record.ebpf.loader import LoadError, Programs
from bpftrace_sys.record.ebpf.records import Records, WhoRecord, attaches
from bpftrace_sys.record.ebpf.refusals import why
from bpftrace_sys.record.ebpf.ring import Ring
from bpftrace_sys.record.machine.hardware import Machine
from bpftrace_sys.record.machine.newest_ids import highest
from bpftrace_sys.record.proc import cgroup_of
from bpftrace_sys.record.ptrace.errors import EngineError
from decoders import arch as arches
from decoders.events import Exec, Exit, Fork, LeftAlone, Lost, ProcessEvent
from decoders.loop_calls import Rounds
from decoders.raw import RawCall
from decoders.records import dataclass, field
from decoders.uapi import system

CALLS: Final = ("bpf", "perf_event_open", "ioctl", "openat", "setsockopt")
"""In the order of enum call in watch.bpf.c, from 1."""
RING: Final = 64 << 20
"""Bytes of the ring: what a loader writes in the time that telling it takes."""
BATCH: Final = 512
"""Records between two looks at what else there is to do."""
BREATH: Final = 0.004
"""Seconds that we let the ring fill after it was read empty: who wakes us, pays for it."""
LONGEST: Final = 1.0
"""Seconds that we sleep at most."""
ITSELF: Final = 1
CHILDREN: Final = 2
THREADS: Final = 4
PREFIX: Final = struct.Struct("<6Q6Q")
ROW: Final = struct.Struct("<4B4H5I")
ROWS_OF: Final = struct.Struct("<4H")
CANARY: Final = struct.Struct("<Q8I")
RINGBUF: Final = 27
"""BPF_MAP_TYPE_RINGBUF: the program says 99 unless the kernel has put in its own number."""


@dataclass
class Wanted:
    """Which calls of whom; the kernel leaves the others out."""

    calls: tuple[str, ...] = CALLS
    explicit: frozenset[str] = frozenset()
    """Calls that are kept whatever they concern."""
    commands: frozenset[int] | None = None
    """Of bpf(2); None: all."""
    everybody: bool = True
    """Else threads that are added, and with ``follow`` what they start."""
    follow: bool = True
    uid: int | None = None
    cgroup: str | None = None
    """A folder of cgroup2."""
    ring: int = RING
    kinds: tuple[str, ...] = KINDS
    """Ways of attaching, by preference."""


@dataclass
class Told:
    """What a Watch hands on; as it comes."""

    take: Callable[[RawCall | ProcessEvent], None]
    rounds: Callable[[Rounds], None] | None = None
    """Calls of loops, where they are wanted as such; else ``take`` gets them one by one."""
    who: Callable[[WhoRecord], None] = field(default=lambda who: None)
    lost: Callable[[Lost], None] = field(default=lambda lost: None)
    unseen: Callable[[int], None] = field(default=lambda pid: None)
    """A process whose calls are not seen: it runs a 32-bit program, and the hooks see none."""


class Since(Enum):
    """What has happened since a call."""

    NOTHING = 0
    SOMETHING = 1
    """But nothing was attached or detached by a call: only links may have been closed."""
    ATTACHED = 2
    """Something was, or it may be so."""


class Watch:
    """From :meth:`open` to :meth:`close` the programs run."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.machine = Machine()
        self.programs = Programs()
        self.hooks = Hooks(self.programs)
        self.lost = Lost()
        self.alive: set[int] = set()
        """Threads that are watched, where not everybody is."""
        self.before: dict[str, int] = {}
        self.own_pid = 0
        """Our process as the kernel numbers it."""
        self._ring: Ring
        self._records: Records
        self._counters: list[memoryview] = []
        self._over: memoryview
        self._alone: list[memoryview] = []
        self._holders = -1
        """The program that counts them; and its answer."""
        self._held: memoryview
        self._told: Told
        self._cgroups = Cgroups()
        self._openat = arches.number(arches.of_machine()[0], "openat")
        self._poll = select.epoll()
        self._at_once = False
        self._skipped = 0
        """Calls of which the kernel did not tell us, as programs do not interrupt each other."""
        self._counted = 0.0

    # ------------------------------------------------------------ setting up

    def open(self) -> None:
        """Loads and attaches; EngineError, with nothing left attached, where that cannot be."""
        try:
            self._load()
        except LoadError as error:
            self.close()
            raise EngineError(why(error)) from None
        except OSError as error:
            self.close()
            raise EngineError(why(LoadError("bpf(2)", error))) from None

    def _load(self) -> None:
        wanted, programs = self.wanted, self.programs
        self._set_calls()
        self._set_rows()
        self._set_filters()
        programs.create({"ring": wanted.ring})
        for request, rows in steps.REQUESTS.items():
            programs.update(
                programs.maps["requests"], struct.pack("<I", request), ROWS_OF.pack(*rows)
            )
        self.hooks.processes()
        self._learn()
        self._ring = Ring(programs.maps["ring"], wanted.ring)
        self._counters = [
            programs.variable(name).cast("Q") for name in ("lost_calls", "lost_events")
        ]
        self._over = programs.variable("over")
        self._alone = [programs.variable(f"alone_{name}").cast("Q") for name in LeftAlone._fields]
        if not wanted.everybody:
            # What we start is watched, though we are not.
            self._thread(self.own_pid, CHILDREN)
        find = programs.load("find")
        self.hooks.attach(wanted.calls, find, wanted.kinds)
        self.before = highest()
        self._poll.register(self._ring.fd, select.EPOLLIN)

    def _set_calls(self) -> None:
        programs, wanted = self.programs, self.wanted
        numbers = arches.of_machine()
        for arch, variable in zip(numbers, ("native", "compat"), strict=False):
            table = bytearray(512)
            for index, name in enumerate(CALLS, 1):
                number = arches.number(arch, name)
                if number is not None and name in wanted.calls:
                    table[number] = index
            programs.set(f"{variable}_calls", bytes(table))
            programs.set(f"{variable}_arch", struct.pack("<I", arch))
        for name in ("clone", "clone3", "vfork"):
            number = arches.number(numbers[0], name)
            if number is not None:
                programs.set(f"nr_{name}", struct.pack("<I", number))

    def _set_rows(self) -> None:
        programs = self.programs
        pmus = {name: number for number, name in self.machine.pmus.items()}
        rows = bytearray()
        for index, row in enumerate(steps.ROWS):
            pmu = steps.PMUS.get(index)
            if pmu is not None:
                # A PMU that this machine lacks has a type that no attr has.
                row = (*row[:11], pmus.get(pmu, 0xFFFFFFFF), row[12])
            rows += ROW.pack(*row)
        programs.set("rows", bytes(rows))
        unknown = ROWS_OF.pack(*steps.COMMANDS[-1])
        commands = bytearray(unknown * 64)
        for command, four in steps.COMMANDS.items():
            if command >= 0:
                ROWS_OF.pack_into(commands, command * ROWS_OF.size, *four)
        programs.set("by_command", bytes(commands))
        for index, name in enumerate(CALLS, 1):
            if name in steps.CALLS:
                programs.set("by_call", ROWS_OF.pack(*steps.CALLS[name]), index * ROWS_OF.size)
        programs.set("cpus", struct.pack("<I", self.machine.cpus))

    def _set_filters(self) -> None:
        programs, wanted = self.programs, self.wanted
        if not wanted.everybody:
            programs.set("only_threads", struct.pack("<I", 1))
            bits = ITSELF | THREADS | CHILDREN if wanted.follow else ITSELF
            programs.set("child_bits", struct.pack("<I", bits))
        if wanted.commands is not None:
            word = sum(1 << command for command in wanted.commands if command < 64)
            programs.set("only_commands", struct.pack("<Q", word))
        if wanted.uid is not None:
            programs.set("only_uid", struct.pack("<Q", wanted.uid))
        if wanted.cgroup is not None:
            inode, level = _cgroup(wanted.cgroup)
            programs.set("only_cgroup", struct.pack("<Q", inode))
            programs.set("cgroup_level", struct.pack("<I", level))
        for name, variable in (
            ("openat", "any_path"), ("ioctl", "any_request"), ("setsockopt", "any_option"),
        ):  # fmt: skip
            programs.set(variable, struct.pack("<I", name in wanted.explicit))
        for index, prefix in enumerate(PREFIXES):
            programs.set("prefixes", _prefix(prefix), index * PREFIX.size)
        programs.set("prefix_count", struct.pack("<I", len(PREFIXES)))
        options = [0, 0]
        for option in system.so_filter:
            options[option // 64] |= 1 << option % 64
        programs.set("socket_options", struct.pack("<QQ", *options))

    def _learn(self) -> None:
        """Shows the programs an fd of each kind, and asks whether what they read is right."""
        programs = self.programs
        learn = programs.load("learn")
        event = _perf_event()
        try:
            samples = (programs.maps["told"], learn, self.hooks.a_link, programs.btf, event)
            for kind, fd in enumerate(samples, 1):
                if fd >= 0:
                    programs.run(learn, struct.pack("<QQ", fd, kind))
        finally:
            if event >= 0:
                os.close(event)
        found = CANARY.unpack(programs.variable("canary")[: CANARY.size])
        pid_tgid, map_type, number, key, value, entries, _, ringbuf, _ = found
        if (map_type, key, value, entries) != (9, 4, 4, 8192) or not number or ringbuf != RINGBUF:
            raise LoadError(
                "the canary: the kernel did not apply CO-RE relocations", OSError(95, "unusable")
            )
        self.own_pid = pid_tgid >> 32

    # ------------------------------------------------------------ whom

    @property
    def numbered_alike(self) -> bool:
        """Whether processes have the numbers here that the kernel's programs see."""
        return self.own_pid == os.getpid()

    def _thread(self, tid: int, bits: int) -> None:
        self.programs.update(
            self.programs.maps["threads"], struct.pack("<I", tid), struct.pack("<I", bits)
        )

    def spawned(self, pid: int) -> None:
        """What was started while we were open is watched already; this says who it is."""
        self.alive.add(pid)
        self.programs.delete(self.programs.maps["threads"], struct.pack("<I", self.own_pid))

    def attach(self, pid: int) -> None:
        """Watches a process that runs, all its threads. EngineError where there is none."""
        if not self.numbered_alike:
            raise EngineError(
                f"cannot watch process {pid}: bpfstrace runs in a pid namespace, where processes "
                "have other numbers than for the kernel's programs; try: -a"
            )
        if not os.path.exists(f"/proc/{pid}"):
            raise EngineError(f"cannot watch process {pid}: there is no such process")
        bits = ITSELF | THREADS | (CHILDREN if self.wanted.follow else 0)
        found: set[int] = set()
        while True:
            # Threads that one starts before it is in the table are found the next time.
            try:
                new = {int(name) for name in os.listdir(f"/proc/{pid}/task")} - found
            except OSError:
                break
            if not new:
                break
            for tid in new:
                self._thread(tid, bits)
            found |= new
        self.alive |= found

    def holders(self, fd: int) -> int:
        """How many hold the program that an fd of ours leads to, we included; 0: it is none."""
        if self._holders < 0:
            self._holders = self.programs.load("holders")
            self._held = self.programs.variable("held").cast("Q")
        self.programs.run(self._holders, struct.pack("<Q", fd))
        return self._held[0]

    # ------------------------------------------------------------ reading

    def tell(self, told: Told) -> None:
        """From now on what comes is handed on."""
        offset = time.time_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        self._told = told
        narrow = (lambda pid: None) if self.hooks.compat else told.unseen
        self._records = Records(self._take, told.who, narrow, offset)

    def _take(self, item: RawCall | Rounds | ProcessEvent) -> None:
        if isinstance(item, Rounds):
            if self._told.rounds is not None:
                self._told.rounds(item)
                return
            for call in item.calls():
                self._told.take(call)
            return
        if isinstance(item, RawCall):
            # The kernel knows the beginnings of paths, not the patterns.
            if (
                item.nr == self._openat
                and "openat" not in self.wanted.explicit
                and not any(interesting(chunk.data.rstrip(b"\0")) for chunk in item.chunks)
            ):
                return
        elif isinstance(item.what, Fork):
            self.alive.add(item.what.child_tid)
        elif isinstance(item.what, Exit):
            self.alive.discard(item.tid)
        elif isinstance(item.what, Exec):
            if item.what.former_tid is not None:
                self.alive.discard(item.what.former_tid)
                self.alive.add(item.tid)
            if item.what.cgroup_id is not None:
                # As who_is(): by its process where that is still there.
                cgroup = cgroup_of(item.pid) or self._cgroups.path(item.what.cgroup_id)
                item = item._replace(what=item.what._replace(cgroup=cgroup))
        self._told.take(item)

    def read(self) -> int:
        """Hands over what has come, up to a batch; returns the number of records."""
        count = self._ring.drain(self._records.record, BATCH)
        self._records.flush()
        if (now := time.monotonic()) > self._counted + LONGEST:
            self._counted = now
            self._skipped = self.programs.skipped()
        calls, events = self._counters[0][0], self._counters[1][0]
        lost = Lost(calls + self._skipped, self._records.lost_pieces, events)
        before = self.lost
        if lost != before:
            self.lost = lost
            self._told.lost(lost.since(before))
        return count

    @property
    def left_alone(self) -> LeftAlone:
        """What was started and is not watched."""
        return LeftAlone(*(counter[0] for counter in self._alone))

    def since(self) -> Since:
        """What has happened, as far as we see, since the call whose record is handed over."""
        found = Since.NOTHING
        for count, record in enumerate(self._ring.behind()):
            if record is None or count == BATCH or attaches(*record[:2]):
                return Since.ATTACHED
            found = Since.SOMETHING
        return found

    def stop(self) -> None:
        """From now on no call is begun, though the programs are attached until :meth:`close`."""
        self._over[0] = 1
        self._skipped = self.programs.skipped()

    def wait(self, timeout: float | None) -> None:
        """Until there is something to read, or something else that was registered happens.

        Right after something was read it waits a moment in any case, for more.
        """
        if self._at_once:
            time.sleep(BREATH)
        # Should a wake-up ever be missed, it is made up for soon.
        self._at_once = bool(self._poll.poll(LONGEST if timeout is None else timeout))

    def register(self, fd: int) -> None:
        """Another fd whose readiness ends :meth:`wait`."""
        self._poll.register(fd, select.EPOLLIN)

    def unregister(self, fd: int) -> None:
        """No longer."""
        self._poll.unregister(fd)

    @property
    def records(self) -> Records:
        """What was read, for counts."""
        return self._records

    def close(self, behind: bool = False) -> None:
        """Detaches and unloads; nothing can be read any more.

        ``behind``: nobody waits for the kernel, which takes a grace period for each tracepoint,
        half a second in all; a child of ours does, if there can be one.
        """
        if behind:
            self.hooks.close_behind()
        self.hooks.close()
        # The mappings hold the maps, too: they go with the last that looks into them.
        self._counters.clear()
        self._alone.clear()
        self.__dict__.pop("_ring", None)
        self.__dict__.pop("_over", None)
        self.__dict__.pop("_held", None)
        self.programs.close()
        self._poll.close()


def _prefix(prefix: bytes) -> bytes:
    """A prefix and its mask, as words that are compared at once."""
    size = PREFIX.size // 2
    return prefix.ljust(size, b"\0") + (b"\xff" * len(prefix)).ljust(size, b"\0")


def _cgroup(path: str) -> tuple[int, int]:
    """The id of a cgroup (its folder's inode) and how deep it is."""
    from bpftrace_sys.record.ebpf.cgroups import root_of

    try:
        inode = os.stat(path).st_ino
        root = root_of(path)
    except OSError as error:
        raise EngineError(f"--cgroup {path}: {error.strerror}") from None
    if root is None:
        raise EngineError(f"--cgroup {path}: not a folder of cgroup2")
    level = len([part for part in os.path.realpath(path)[len(root) :].split("/") if part])
    return inode, level


def _perf_event() -> int:
    """A perf event that counts nothing; -1 where we may have none."""
    import ctypes

    # PERF_TYPE_SOFTWARE, PERF_ATTR_SIZE_VER0, PERF_COUNT_SW_DUMMY; disabled, exclude_kernel.
    attr = struct.pack("<IIQQQQQ16x", 1, 64, 9, 0, 0, 0, 1 | 1 << 5)
    number = arches.number(arches.of_machine()[0], "perf_event_open")
    return int(ctypes.CDLL(None, use_errno=True).syscall(number, attr, -1, 0, -1, 8))


__all__ = ["CALLS", "RING", "Told", "Wanted", "Watch"]
