"""The renderer: a line a call, and how processes ended."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Final

from bpftrace_sys.render.strace.calls import (
    DETACHED,
    UNFINISHED,
    call_line,
    call_words,
    outcome,
)
from bpftrace_sys.render.strace.manner import PLAIN, Manner
from bpftrace_sys.render.strace.signals import signal_line, signal_name
from bpftrace_sys.render.times import Stamp, spent
from bpftrace_sys.story.renderer import Renderer
from bpftrace_sys.story.targets import printable
from bpftrace_sys.trace.header import Header
from decoders.call import Call
from decoders.events import Ending, Exec, Exit, Fork, ProcessEvent, Signal
from decoders.raw import AUDIT_ARCH_I386, RawCall
from decoders.records import NamedTuple

if TYPE_CHECKING:
    from bpftrace_sys.render.output import TextOut

SIGNALS: Final = 64
"""The kernel's _NSIG."""
NARROW: Final = frozenset({AUDIT_ARCH_I386})
"""Architectures of 32 bits."""


def event_line(event: ProcessEvent, *, prefix: str = "") -> str | None:
    """The line for the end of a process; None for events that strace says nothing of."""
    ended = event.what
    if not isinstance(ended, Exit):
        return None
    if ended.signal is not None:
        core = "(core dumped) " if ended.core else ""
        return f"{prefix}+++ killed by {signal_name(ended.signal)} {core}+++"
    return None if ended.code is None else f"{prefix}+++ exited with {ended.code} +++"


class Begun(NamedTuple):
    """A call that was told of before its end."""

    seq: int
    text: str
    width: int
    """Of the line until now."""


class StraceRenderer(Renderer):
    """Writes each call as strace would, and how processes ended.

    Where another line comes between a call's beginning and its end, it is cut in two:
    ``bpf(BPF_PROG_LOAD, ... <unfinished ...>`` and ``<... bpf resumed>) = 5``.

    As soon as there are two threads, lines begin with whose they are: the pid
    in brackets on a terminal or pipe, and just the pid in a file, as strace does
    with and without -o.
    """

    def __init__(
        self,
        out: TextOut,
        manner: Manner = PLAIN,
        *,
        say: Callable[[str], None] | None = None,
        silent: frozenset[str] = frozenset(),
        signals: frozenset[int] | None = None,
        stamp: Stamp | None = None,
        spent: str = "",
        comms: bool = False,
        stacks: bool = False,
    ) -> None:
        self.out = out
        self.manner = manner
        self.say = say
        self.silent = silent
        """Of what nothing is said: exit, personality, thread-execve (--quiet=)."""
        self.signals = signals
        """Those that are shown, and by which a thread's end is (-e signal=); None: all."""
        self.stacks = stacks
        self.stamp = stamp
        self.spent = spent
        self.comms = comms
        self._file = getattr(out, "name", "<stderr>") not in ("<stderr>", "<stdout>")
        self._threads: set[int] = set()
        self._many = False
        self._narrow: set[int] = set()
        """Threads whose last call was one of 32 bits."""
        self._open: tuple[int, Begun] | None = None
        """The thread whose call the last line begins with, where that has no end yet."""
        self._cut: dict[int, Begun] = {}
        """Calls whose line was cut, by thread."""

    def header(self, header: Header) -> None:
        """With -f each line of a file says whose it is."""
        if header.options.get("follow") is True:
            self._many = True

    def running(self, call: Call) -> None:
        """The beginning of a line."""
        raw = call.raw
        self._personality(raw)
        self._break()
        text, _ = call_words(call, self.manner, apart=True)
        line = f"{self._head(raw.tid, raw.comm, raw.time)}{text}"
        self.out.write(line)
        self._open = raw.tid, Begun(raw.seq, text, len(line))

    def _break(self) -> None:
        """Another line is to follow."""
        if self._open is not None:
            tid, begun = self._open
            self._open = None
            self._cut[tid] = begun
            self.out.write(f"{UNFINISHED}\n")

    def _rest(self, call: Call) -> str | None:
        """What is left to say of a call that was told of before, which may be nothing; None: it
        was not told of."""
        raw = call.raw
        if self._open is not None and self._open[1].seq == raw.seq:
            begun = self._open[1]
            self._open = None
            if raw.extra.detached:
                return DETACHED
            head, width = "", begun.width
        else:
            self._break()
            cut = self._cut.pop(raw.tid, None)
            if cut is None or cut.seq != raw.seq:
                return None
            if raw.extra.detached:
                return ""
            begun = cut
            head = self._head(raw.tid, raw.comm, raw.time + (raw.duration or 0))
            head += f"<... {call.syscall.name} resumed>"
            width = 0
        text, whole = call_words(call, self.manner, apart=True)
        # Where another text begins than was told, all of it is told again.
        text = text.removeprefix(begun.text) + ("" if whole else UNFINISHED)
        column = max(0, self.manner.column - width)
        return f"{f'{head}{text}) ':<{column}}= {outcome(call, self.manner)}"

    def call(self, call: Call) -> None:
        """A line, or what was missing of it."""
        self._personality(call.raw)
        line = self._rest(call)
        if line is None:
            head = self._head(call.raw.tid, call.raw.comm, call.raw.time)
            line = call_line(call, self.manner, head)
        elif not line:
            return
        self.out.write(f"{line}{spent(call.raw.duration, self.spent)}\n")
        if self.stacks and call.raw.stack is not None:
            from bpftrace_sys.render.stack import stack_lines

            for line in islice(stack_lines(call.raw.stack), self.manner.frames):
                self.out.write(line + "\n")

    def process(self, event: ProcessEvent) -> None:
        """A line where a thread ended, or where another took its id."""
        if isinstance(event.what, Exec) and event.what.former_tid is not None:
            self._threads.discard(event.what.former_tid)
        prefix = self._prefix(event.tid)
        if isinstance(event.what, Fork):
            self._prefix(event.what.child_tid)
            if event.tid in self._narrow:
                self._narrow.add(event.what.child_tid)
            if self.say is not None:
                self.say(f"Process {event.what.child_tid} attached")
        elif isinstance(event.what, Exec) and event.what.former_tid is not None:
            former = event.what.former_tid
            if "thread-execve" not in self.silent:
                self._put(event.time, prefix, f"+++ superseded by execve in pid {former} +++")
        elif isinstance(event.what, Signal):
            if not self._shows(event.what.signal):
                return
            self._put(event.time, prefix, signal_line(event.what, self.manner.names))
        elif isinstance(event.what, Exit):
            self._threads.discard(event.tid)
            self._narrow.discard(event.tid)
            line = event_line(event)
            number = event.what.signal
            shown = "exit" not in self.silent if number is None else self._shows(number)
            if line is not None and shown:
                self._put(event.time, prefix, line)

    def _shows(self, number: int) -> bool:
        return self.signals is None or number in self.signals or not 0 < number <= SIGNALS

    def _put(self, time: int, prefix: str, line: str) -> None:
        self._break()
        stamp = self.stamp(time) if self.stamp else ""
        self.out.write(f"{prefix}{stamp}{line}\n")

    def _personality(self, raw: RawCall) -> None:
        """Says it where a thread's calls are of another architecture than the one before."""
        narrow = raw.arch in NARROW
        if narrow != (raw.tid in self._narrow):
            self._narrow ^= {raw.tid}
            if "personality" not in self.silent:
                bits = 32 if narrow else 64
                line = f"[ Process PID={raw.tid} runs in {bits} bit mode. ]"
                self._put(raw.time, self._prefix(raw.tid, raw.comm), line)

    def end(self, ending: Ending) -> None:
        """A line without an end ends here."""
        self._break()

    def cut(self) -> None:
        """The same."""
        self._break()

    def _head(self, tid: int, comm: str, time: int) -> str:
        return self._prefix(tid, comm) + (self.stamp(time) if self.stamp else "")

    def _prefix(self, tid: int, comm: str = "") -> str:
        self._threads.add(tid)
        if self.manner.pids == "none":
            return ""
        name = f"<{printable(comm)}>" if self.comms and comm else ""
        several = self.manner.pids == "all" or len(self._threads) > 1
        if self._file:
            self._many = self._many or several
            return f"{f'{tid}{name}':<5} " if self._many else ""
        return f"[pid {f'{tid}{name}':>5}] " if several else ""
