"""What the command line of tracing and replaying said, as one record."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, Literal

    from bpftrace_sys.record.capture.inject import Rule


TRACED: Final = ("bpf", "perf_event_open", "ioctl", "openat", "setsockopt")
NETLINK: Final = "netlink"
"""The word for the calls on route netlink sockets, which attach XDP and tc programs."""


class Settings:
    """What the command line said."""

    def __init__(self, args: list[str]) -> None:
        self.args = args
        """The program, and what is its own."""
        self.follow = False
        self.forks = False
        """-f was given: another one is -ff."""
        self.output: str | None = None
        self.append = False
        """-A: what stands in the output's file stays there."""
        self.json: str | None = None
        self.replayed = False
        """A trace is shown again: what is not asked for has to be left out here."""
        self.report: str | None = None
        """--report: the page's file."""
        self.traced: tuple[str, ...] = TRACED
        self.explicit: frozenset[str] = frozenset()
        """Calls that -e named: all of them are shown, BPF's story or not."""
        self.commands: tuple[str, ...] = ()
        """Patterns of -e bpf=; one that begins with ! takes away."""
        self.progs: tuple[str, ...] = ()
        self.paths: tuple[str, ...] = ()
        self.succeeded: bool | None = None
        self.limit: int | None = None
        """--syscall-limit: calls after which the trace ends."""
        self.counts = False
        self.verbose = False
        self.unabbreviated: frozenset[str] = frozenset()
        """Calls that are not in -e abbrev=, where that names some: -v for these."""
        self.insns = True
        self.style = "bpfstrace"
        self.release = ""
        """--style strace=RELEASE: the release whose lines are wanted to the byte."""
        self.summary = False
        """-C: the table, too; in bpfstrace's own style there are tables in any case."""
        self.summary_columns: tuple[str, ...] = ()
        """-U: words of strace_style.COLUMNS."""
        self.summary_order = ""
        """-S: one of them, or nothing."""
        self.wall = False
        """-w: the table's times are from a call's beginning to its end."""
        self.overhead = 0
        """-O: nanoseconds that are taken off each call's time."""
        self.signals = frozenset(range(1, 65))
        """-e signal=: those that --style strace shows."""
        self.signals_asked = False
        """Some were named."""
        self.show_pid = False
        """--always-show-pid."""
        self.frames: int | None = None
        """--stack-trace-frame-limit."""
        self.constants = "abbrev"
        """-X: how numbers that have names are shown."""
        self.arguments = False
        """-N: arguments have names."""
        self.raw: frozenset[str] = frozenset()
        """-e raw=: calls whose arguments are numbers."""
        self.undecoded: frozenset[str] = frozenset()
        """Calls that are not in -e verbose=: their structures are addresses."""
        self.canonical = False
        self.annotate = ""
        """Whose annotations refusals are told as: github."""
        self.column = 40
        self.aligned = False
        """--columns was given."""
        self.string_limit: int | None = None
        self.quiet = False
        self.silenced: frozenset[str] | None = None
        """-q, --quiet=: what --style strace does not say, words of expressions.QUIET; None: that
        was not said."""
        self.config = True
        """The configuration file is read (cli/config.py)."""
        self.colour = "auto"
        """--color: auto, always or never."""
        self.seccomp = True
        self.split = False
        """-ff: a text file a thread."""
        self.times = ""
        """How calls are stamped: FORMAT.UNIT, see render/times.py; empty: not at all."""
        self.since = ""
        """-r: the unit to which the time since the call before is shown; empty: not at all."""
        self.spent = ""
        """The unit to which the time that a call took is shown; empty: not at all."""
        self.comms = False
        self.shown_fds: frozenset[str] = frozenset()
        """-y, -yy: what --style strace says of fds."""
        self.stacks = False
        self.kernel: tuple[str, ...] = ()
        """Of -e kernel=: what to show of what the kernel made of programs, in this order."""
        self.syntax = "att"
        """Of native code."""
        self.stats = False
        """How often programs run, and how long, is counted while tracing."""
        self.statuses: frozenset[str] = frozenset()
        """Of -e status=; empty: all."""
        self.injections: list[Rule] = []
        self.pids: tuple[int, ...] = ()
        self.user: str | None = None
        self.environment: dict[str, str | None] = {}
        """-E: what to set, and (None) what to take away."""
        self.argv0: str | None = None
        self.background = 0
        self.interruptible = 0
        self.kill = False
        """--kill-on-exit."""
        self.same_cpu = False
        """Tracer and program are bound to one CPU."""
        self.everybody = False
        """-a: whoever asks anything of BPF."""
        self.engine = ""
        """``bpf`` or ``ptrace``; empty: ptrace, with -a bpf."""
        self.ring: int | None = None
        """Bytes of the eBPF engine's ring."""
        self.rotate: tuple[int | None, int] = (None, 1)
        """Bytes after which a JSON file is full, None: never; and how many old ones stay."""
        self.events: str | None = None
        """--events"""
        self.redacted: frozenset[str] = frozenset()
        """--redact: of CLASSES (trace/redacted.py), what all outputs have stand-ins for."""
        self.uid: str | None = None
        """-a: processes of this user only."""
        self.cgroup: str | None = None
        """-a: processes below this folder of cgroup2 only."""
        self.tui = False
        """--tui: shown in panes while it is traced."""
        self.debug = False
        """Tracebacks of bpfstrace's own faults."""
        self.help = False
        self.version = False


INTERRUPTIBLE: Final[dict[str, Literal["wait", "end", "ignore", "ignore-stop"]]] = {
    "1": "end",
    "2": "end",
    "3": "ignore",
    "4": "ignore-stop",
}
"""What an interrupt does (strace's numbers): ends or detaches at once, or nothing at all;
with 4 Ctrl-Z does nothing, either."""


def silenced(settings: Settings) -> frozenset[str]:
    """What --style strace does not say of processes; as strace, nothing of how they come to be
    traced, nor of their bits, where a program is run and the lines go to a file."""
    if settings.silenced is not None:
        return settings.silenced
    in_file = settings.output is not None and settings.args and not settings.replayed
    return BRIEF if in_file else frozenset()


BRIEF: Final = frozenset(("attach", "personality"))
QUIETER: Final = (BRIEF, BRIEF | {"exit"}, BRIEF | {"exit", "path-resolution", "thread-execve"})
"""What -q, -qq and -qqq leave out with --style strace."""


if TYPE_CHECKING:
    Apply = Callable[[Settings, str, str], None]
    """``apply(settings, flag, text)``: ``flag`` is how the person wrote it, for messages."""


def narrowed(settings: Settings) -> list[str]:
    """The options that leave something out of a trace, as they were given."""
    words = [f"-e bpf={pattern}" for pattern in settings.commands]
    if settings.replayed and settings.traced != TRACED:
        words.append(f"-e trace={','.join(settings.traced) or 'none'}")
    words += [f"-e prog={pattern}" for pattern in settings.progs]
    words += [f"-P {path}" for path in settings.paths]
    words += [f"-e status={word}" for word in sorted(settings.statuses)]
    if settings.uid is not None:
        words.append(f"--uid {settings.uid}")
    if settings.cgroup is not None:
        words.append(f"--cgroup {settings.cgroup}")
    if settings.succeeded is not None:
        words.append("-z" if settings.succeeded else "-Z")
    return words
