"""System calls that the ptrace loop itself has to see, whatever the sink wants: those that
change how we trace."""

from __future__ import annotations

import errno
import os

from bpftrace_sys.common.light import suppress
from bpftrace_sys.record.ptrace.stop_filter import ArgRule, StopFilter
from decoders import arch as arches
from decoders.events import LeftAlone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from bpftrace_sys.record.ptrace.family import Family
    from bpftrace_sys.record.ptrace.teller import Teller
    from bpftrace_sys.record.ptrace.tracee import Tracee

_PR_SET_NAME: Final = 15
_PR_SET_SECCOMP: Final = 22
_SECCOMP_SET_MODE_STRICT: Final = 0
_SECCOMP_SET_MODE_FILTER: Final = 1
_PTRACE_TRACEME: Final = 0
_PTRACE_ATTACH: Final = 16
_PTRACE_SEIZE: Final = 0x4206
_UFFD_USER_MODE_ONLY: Final = 1
_USERFAULTFD_IOC_NEW: Final = 0xAA00
_CLONE_UNTRACED: Final = 0x00800000
_CLONE_THREAD: Final = 0x00010000
WATCHED: Final = StopFilter(
    {
        "prctl": ArgRule(0, frozenset({_PR_SET_NAME, _PR_SET_SECCOMP})),
        "seccomp": ArgRule(0, frozenset({_SECCOMP_SET_MODE_STRICT, _SECCOMP_SET_MODE_FILTER})),
        "ptrace": ArgRule(0, frozenset({_PTRACE_TRACEME, _PTRACE_ATTACH, _PTRACE_SEIZE})),
        "clone": ArgRule(0, frozenset({_CLONE_UNTRACED}), mask=_CLONE_UNTRACED),
        "clone3": None,  # its flags are in memory
        "userfaultfd": ArgRule(0, frozenset({0}), mask=_UFFD_USER_MODE_ONLY),
        "ioctl": ArgRule(1, frozenset({_USERFAULTFD_IOC_NEW})),  # of /dev/userfaultfd
    }
)
_BIRTHS: Final = dict.fromkeys(("fork", "vfork", "clone", "clone3"))
"""The calls that make children; where those are not followed, they are counted."""


class OwnCalls:
    """``children``: whether those of spawned tracees are traced, ``quiet``: without a word;
    ``follow``: whether those of attached ones are, too."""

    __slots__ = ("_children", "_family", "_quiet", "_teller", "filtered", "left_alone", "watched")

    def __init__(
        self, teller: Teller, family: Family, *, children: bool, quiet: bool, follow: bool
    ) -> None:
        self.filtered = False
        """Whether spawned tracees have a seccomp filter of ours."""
        self.watched = WATCHED if follow or quiet else WATCHED.merged(StopFilter(_BIRTHS))
        """The calls that begins() is to be told of."""
        self.left_alone = LeftAlone()
        self._teller = teller
        self._family = family
        self._children = children
        self._quiet = quiet

    def begins(self, tracee: Tracee, arch: int, nr: int, args: tuple[int, ...]) -> None:
        """One of the few calls that change how we trace."""
        called = arches.name(arch, nr)
        what = args[0] & 0xFFFFFFFF
        if called == "prctl" and what == _PR_SET_NAME:
            # By the time that anybody asks, the call is over.
            tracee._comm = None
        elif called in ("prctl", "seccomp"):
            from bpftrace_sys.record.ptrace import strict_mode

            strict = (
                self.filtered
                and strict_mode.is_wanted(called, args)
                and strict_mode.hindered_by_us(tracee)
            )
            tracee.watched = "strict" if strict and tracee.skip_call(0) else "seccomp"
        elif called == "ptrace":
            tracee.watched = "ptrace"
            tracee.target = args[1] & 0xFFFFFFFF if what != _PTRACE_TRACEME else 0
            if tracee.target:
                self._refuse_to_be_traced(tracee)
        elif called in ("userfaultfd", "ioctl"):
            tracee.watched = "userfaultfd"
        elif called:
            if called.startswith("clone") and (self._children or tracee.attached):
                self._unhide(tracee, called, args)
            if self.watched is not WATCHED:
                self._begets(tracee, called, args)

    def _begets(self, tracee: Tracee, called: str, args: tuple[int, ...]) -> None:
        """Nobody follows what this call makes: at its exit it is counted."""
        from bpftrace_sys.record.ptrace.clone_untraced import flags_of

        flags = flags_of(tracee.memory, called, args) if called.startswith("clone") else 0
        if not flags & _CLONE_THREAD:
            tracee.begets = LeftAlone(processes=1)
        elif not tracee.attached:
            tracee.begets = LeftAlone(threads=1)
        tracee.watched = tracee.watched or "birth"

    def _unhide(self, tracee: Tracee, called: str, args: tuple[int, ...]) -> None:
        """A clone or clone3: none that we follow may have a child that we do not get."""
        from bpftrace_sys.record.ptrace.clone_untraced import asked_for, clear

        if not asked_for(tracee.memory, called, args):
            return
        tracee.cleared = clear(tracee.tid, tracee.arch, tracee.memory, called, args)
        if tracee.cleared is not None:
            tracee.watched = "clone"
            says = "it is traced all the same, without that flag"
        else:
            lost = ", and the calls that we trace fail there" if self.filtered else ""
            says = f"which hides it from us{lost}"
        if not tracee.silent and not (self._quiet and tracee.cleared):
            self._teller.note(tracee, f"{tracee.comm} starts a child with CLONE_UNTRACED: {says}")

    def _refuse_to_be_traced(self, tracee: Tracee) -> None:
        """In the stop before a ptrace: a tracee that stops its tracer waits for it, and is itself
        in a stop from which only the tracer lets it go."""
        if not os.path.exists(f"/proc/self/task/{tracee.target}"):
            return
        with suppress(OSError):
            if os.readlink(f"/proc/{tracee.tid}/ns/pid") != os.readlink("/proc/self/ns/pid"):
                return  # there that number is somebody else's
        if tracee.skip_call(-errno.EPERM) and not tracee.silent:
            self._teller.note(
                tracee,
                f"{tracee.comm} asked to trace bpfstrace, which traces it, and was refused: each"
                " would wait for the other for ever",
            )

    def returns(self, tracee: Tracee, ret: int, failed: bool) -> None:
        """The exit of a call that :meth:`begins` has marked."""
        watched, tracee.watched = tracee.watched, ""
        if tracee.begets is not None:
            if ret > 0:
                self.left_alone = self.left_alone.plus(tracee.begets)
            tracee.begets = None
        if watched == "seccomp" and ret >= 0:
            # Its filter may now refuse calls before ours can report them: from
            # here on every call stops, ahead of all filters. Its other threads
            # may have been given the filter too (SECCOMP_FILTER_FLAG_TSYNC).
            for other in self._family.tracees.values():
                if other.pid == tracee.pid:
                    other.every_call = other.unfiltered = True
        elif watched == "userfaultfd" and ret >= 0:
            # Memory that others share with it is meant, too (CLONE_VM), which nothing tells.
            for other in self._family.tracees.values():
                other.memory.be_careful()
        elif watched == "strict":
            tracee.strict = True
            tracee.every_call = tracee.unfiltered = True
        elif watched == "clone" and tracee.cleared is not None:
            tracee.cleared.put_back(tracee.tid, child=False)
            tracee.cleared = None
        elif watched == "ptrace" and failed and -ret in (errno.EPERM, errno.ESRCH):
            self._told_ptrace(tracee)

    def _told_ptrace(self, tracee: Tracee) -> None:
        if tracee.silent or (tracee.target and tracee.target not in self._family.tracees):
            return
        whom = f"process {tracee.target}" if tracee.target else "itself"
        self._teller.note(
            tracee,
            f"{tracee.comm} asked to trace {whom} with ptrace and was refused, since bpfstrace"
            " traces it and a process has one tracer only",
        )
