"""Where the programs are attached: functions of system calls, tracepoints, raw tracepoints.

By preference, each tested by trying: fentry and fexit of the calls' own functions cost other calls
nothing; tracepoints of the calls make every call of the machine take its slow path while they are
there; raw tracepoints run at each call. Programs of exits are attached before those of entries.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from bpftrace_sys.record.ebpf.loader import LoadError, Memory, Programs, call
from decoders import arch
from decoders.uapi import const

TRACEFS: Final = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
PERF_TYPE_TRACEPOINT: Final = 2
PERF_FLAG_FD_CLOEXEC: Final = 8
PERF_EVENT_IOC_ENABLE: Final = 0x2400
PERF_EVENT_IOC_SET_BPF: Final = 0x40042408
BTF_KIND_FUNC: Final = 12
PREFIXES: Final = {"x86_64": ("__x64_sys_", "__ia32_sys_"), "aarch64": ("__arm64_sys_",)}
"""What the functions of system calls are called; the second is that of 32-bit programs
(arch/x86/include/asm/syscall_wrapper.h)."""
COMPAT: Final = {"ioctl": "__ia32_compat_sys_ioctl", "openat": "__ia32_compat_sys_openat"}
"""Calls that are others for them."""
KINDS: Final = ("fentry", "tracepoint", "raw_tracepoint")

_libc = ctypes.CDLL(None, use_errno=True)


class Hooks:
    """What is attached; closing it detaches."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._fds: list[int] = []
        self.kind = ""
        """Which of KINDS."""
        self.compat = False
        """Whether calls of 32-bit programs are seen."""

    def attach(self, calls: tuple[str, ...], find: int, kinds: tuple[str, ...] = KINDS) -> None:
        """Attaches processes' events, then calls; ``find``: the program that finds functions.

        Raises the LoadError of the last kind where none can be had.
        """
        ways = {
            "fentry": self._fentry,
            "tracepoint": self._tracepoints,
            "raw_tracepoint": self._raw,
        }
        for number, kind in enumerate(kinds):
            before = len(self._fds)
            try:
                ways[kind](calls, find)
                self.kind = kind
                return
            except LoadError:
                for fd in reversed(self._fds[before:]):
                    os.close(fd)
                del self._fds[before:]
                if number == len(kinds) - 1:
                    raise

    def processes(self) -> None:
        """Ends, execs and forks of processes."""
        for name, event in (("gone", "exit"), ("exec", "exec"), ("fork", "fork")):
            self._open(self._programs.load(name), f"sched_process_{event}")

    @property
    def a_link(self) -> int:
        """An fd of a link, to show what one looks like."""
        return self._fds[0] if self._fds else -1

    def _open(self, program: int, tracepoint: str = "") -> None:
        """BPF_RAW_TRACEPOINT_OPEN: of a raw tracepoint; without a name of what was loaded for."""
        name = Memory(tracepoint.encode() + b"\0")
        try:
            attr = struct.pack("<QI", name.addr if tracepoint else 0, program)
            self._fds.append(call(const.BPF_RAW_TRACEPOINT_OPEN, attr))
        except OSError as error:
            raise LoadError(f"attaching to {tracepoint or 'a function'}", error) from None

    def _fentry(self, calls: tuple[str, ...], find: int) -> None:
        machine = os.uname().machine
        prefixes = PREFIXES.get(machine, ())
        functions = [(prefix, name) for prefix in prefixes for name in calls]
        found = []
        for prefix, name in functions:
            function = COMPAT.get(name, prefix + name) if prefix == "__ia32_sys_" else prefix + name
            type_id = self._find(find, function)
            if type_id > 0:
                found.append(type_id)
            elif prefix == prefixes[0]:
                raise LoadError(function, OSError(2, "not in the kernel's BTF"))
        # A program for each, as the kernel wants it: so many are looked at side by side.
        wanted = [(name, type_id) for name in ("exit_fexit", "enter_fentry") for type_id in found]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            programs = list(pool.map(lambda one: self._programs.load(*one), wanted))
        for program in programs:
            self._open(program)
        self.compat = len(found) > len(calls)

    def _find(self, find: int, function: str) -> int:
        """The id of a function in the kernel's BTF; not above 0 where it has none."""
        question = struct.pack("<64sI4xq", function.encode(), BTF_KIND_FUNC, 0)
        try:
            answer: int = struct.unpack("<64sI4xq", self._programs.run(find, question))[2]
        except OSError as error:
            raise LoadError("looking for functions in the kernel's BTF", error) from None
        return answer & 0xFFFFFFFF if answer > 0 else answer

    def _tracepoints(self, calls: tuple[str, ...], find: int) -> None:
        leave = self._programs.load("exit_tp")
        enter = self._programs.load("enter_tp")
        for program, when in ((leave, "exit"), (enter, "enter")):
            for name in calls:
                self._tracepoint(program, f"syscalls/sys_{when}_{name}")

    def _tracepoint(self, program: int, event: str) -> None:
        """A perf event of a tracepoint; its program runs whatever the event's CPU is."""
        attr = Memory(
            struct.pack(
                "<IIQQQQQIIQQ", PERF_TYPE_TRACEPOINT, 72, _event_id(event), 1, 0, 0, 0, 1, 0, 0, 0
            )
        )
        number = arch.number(arch.of_machine()[0], "perf_event_open")
        fd = _libc.syscall(number, attr.buffer, -1, 0, -1, PERF_FLAG_FD_CLOEXEC)
        try:
            if fd < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            self._fds.append(fd)
            fcntl.ioctl(fd, PERF_EVENT_IOC_SET_BPF, program)
            fcntl.ioctl(fd, PERF_EVENT_IOC_ENABLE, 0)
        except OSError as error:
            raise LoadError(f"the tracepoint {event}", error) from None

    def _raw(self, calls: tuple[str, ...], find: int) -> None:
        self._open(self._programs.load("exit_raw"), "sys_exit")
        self._open(self._programs.load("enter_raw"), "sys_enter")
        self.compat = True

    def close_behind(self) -> int:
        """Leaves detaching to a child, which holds nothing else open, does it once our fds of the
        hooks are closed, and ends. Returns its pid; -1 where there can be none: nothing is done."""
        theirs, ours = os.pipe2(os.O_CLOEXEC)
        try:
            child = os.fork()
        except OSError:
            child = -1
        if child == 0:
            try:
                self._wait_and_close(theirs)
            finally:
                os._exit(0)
        if child > 0:
            # The child has them, too, so the kernel has nothing to wait for.
            for fd in self._fds:
                os.close(fd)
            self._fds.clear()
        os.close(theirs)
        os.close(ours)
        return child

    def _wait_and_close(self, pipe: int) -> None:
        kept = {*self._fds, pipe}
        for fd in map(int, os.listdir("/proc/self/fd")):
            if fd not in kept:
                with contextlib.suppress(OSError):  # the listing's own
                    os.close(fd)
        os.read(pipe, 1)
        self.close()

    def close(self) -> None:
        """Detaches. The kernel waits for each, so they are closed side by side."""
        if self._fds:
            with ThreadPoolExecutor(len(self._fds)) as pool:
                list(pool.map(os.close, self._fds))
        self._fds.clear()


def _event_id(event: str) -> int:
    for root in TRACEFS:
        try:
            with open(f"{root}/events/{event}/id", encoding="ascii") as file:
                return int(file.read())
        except (OSError, ValueError) as error:
            last = error
    why = last if isinstance(last, OSError) else OSError(2, "no id in tracefs")
    raise LoadError(f"the tracepoint {event}", why)
