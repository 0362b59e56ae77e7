"""Who is traced, who is told of it, and how tracing fails."""

from __future__ import annotations

import os

from bpftrace_sys.record.ptrace.memory import LiveMemory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from bpftrace_sys.record.ptrace.clone_untraced import Cleared
    from bpftrace_sys.record.ptrace.stop_filter import StopFilter
    from decoders.events import LeftAlone

    class Sink(Protocol):
        """Who is told of what tracees do. The engine calls from one thread only.

        An exception out of any of these ends :meth:`Engine.run`, which may be called
        again (with another ``Engine.sink``, say) and takes up where it was.
        """

        def entry(
            self, tracee: Tracee, arch: int, nr: int, args: tuple[int, ...], time_ns: int
        ) -> bool:
            """A call begins; the tracee is stopped: copy only. True: wants the exit."""

        def exit(self, tracee: Tracee, ret: int, failed: bool, time_ns: int) -> None:
            """A call whose entry said True has returned; the tracee is stopped.

            ``ret`` is signed, the negative errno if ``failed``; a call that will be
            restarted fails with the kernel's own ERESTARTSYS (512) and relatives.
            """

        def work(self) -> bool:
            """No stop is waiting: time for a bite of queued work. True: there is more."""

        def forked(self, parent: Tracee, child_tid: int, child_pid: int, how: str) -> None:
            """``how``: fork, vfork, clone (another process) or thread.

            Comes before anything else is told of the child; not at all for a child
            whose parent was killed in the very call.
            """

        def execed(self, tracee: Tracee) -> None:
            """A new program. All other threads of the process are gone by now."""

        def exited(self, tracee: Tracee, code: int | None, signal: int | None, core: bool) -> None:
            """A thread's end: its exit code, or the signal that killed it; both None
            if it vanished in another thread's execve, or was detached from. A call
            whose exit was awaited will not return any more."""

        def note(self, tracee: Tracee | None, text: str) -> None:
            """Something that the person at the terminal ought to know, in words."""


class Tracee:
    """One thread of a traced process."""

    __slots__ = (
        "_comm",
        "also",
        "arch",
        "attached",
        "begets",
        "cleared",
        "detach",
        "entered",
        "every_call",
        "former_tid",
        "injected",
        "ip",
        "lapsing",
        "listening",
        "memory",
        "pid",
        "silent",
        "sp",
        "strict",
        "target",
        "tid",
        "unfiltered",
        "watched",
    )

    def __init__(self, tid: int, pid: int) -> None:
        self.tid = tid
        """Thread id, as the tracer's PID namespace has it."""
        self.pid = pid
        """Id of the process (tgid)."""
        self.memory = LiveMemory(tid)
        """Its memory; to be read in a stop."""
        self.arch = 0
        """AUDIT_ARCH_* of the last call or execve; 0: none seen yet."""
        self.ip = 0
        """Instruction pointer in the stop of a call's entry."""
        self.sp = 0
        """Stack pointer there."""
        self.former_tid = tid
        """In Sink.execed: the tid before, other than ``tid`` if another thread
        than the leader called execve."""
        self.attached = False
        """Was running before us, or descends from such a one: outlives the tracer."""
        self.entered = False  # the sink wants this call's exit
        self.watched = ""  # a call of our own interest is on its way
        self.begets: LeftAlone | None = None  # what this call makes, that nobody follows
        self.cleared: Cleared | None = None  # what we have taken out of a clone
        self.strict = False  # in seccomp's strict mode, which is ours to see to
        self.target = 0  # the pid in a ptrace call of the tracee's
        self.every_call = False  # PTRACE_SYSCALL rather than the filter
        self.unfiltered = False  # what every_call is without watch()
        self.lapsing = False  # a watch() ends at the next exit
        self.also: StopFilter | None = None
        """Further calls that this one thread stops for, for a while: see watch()."""
        self.listening = False  # left in a group-stop
        self.silent = False  # traced, but not told of
        self.detach = False  # at its next stop
        self.injected: int | None = None  # the call is skipped and returns this
        self._comm: str | None = None

    @property
    def comm(self) -> str:
        """The thread's name; looked up when first asked for, and again after an
        execve or a PR_SET_NAME. Empty if it is gone."""
        if self._comm is None:
            try:
                with open(f"/proc/{self.tid}/comm", "rb", buffering=0) as file:
                    self._comm = os.fsdecode(file.read(64).rstrip(b"\n"))
            except OSError:
                return ""
        return self._comm

    def skip_call(self, ret: int) -> bool:
        """In the stop before a call: it is not executed, but will return ``ret`` (signed, a
        negative errno to fail), set in the stop after it. False: the kernel refused."""
        from bpftrace_sys.record.ptrace.registers import skip_syscall

        if not skip_syscall(self.tid):
            return False
        self.injected = ret
        return True

    def __repr__(self) -> str:
        return f"Tracee({self.tid}, pid={self.pid}, comm={self._comm!r})"
