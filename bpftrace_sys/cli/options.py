"""The command line of tracing and replaying: one table, parsed as strace does.

Options stand before PROG; everything from PROG on belongs to it.
"""

from __future__ import annotations

from bpftrace_sys.cli.agreeing import agreed
from bpftrace_sys.cli.getopt_long import UnknownOptionError, scan, words_of
from bpftrace_sys.cli.getopt_long import UsageError as UsageError
from bpftrace_sys.cli.settings import INTERRUPTIBLE, QUIETER, Settings
from decoders.records import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from bpftrace_sys.cli.settings import Apply


def _set(name: str, value: object) -> Apply:
    """An option without an argument."""

    def apply(settings: Settings, flag: str, text: str) -> None:
        setattr(settings, name, value)

    return apply


def _nothing(settings: Settings, flag: str, text: str) -> None:
    """An option that asks for what is done in any case."""


def _late(name: str) -> Apply:
    """One of those in expressions.py."""

    def apply(settings: Settings, flag: str, text: str) -> None:
        from bpftrace_sys.cli import expressions

        getattr(expressions, name)(settings, flag, text)

    return apply


def _strace(name: str) -> Apply:
    """One of those in strace_style.py."""

    def apply(settings: Settings, flag: str, text: str) -> None:
        from bpftrace_sys.cli import strace_style

        getattr(strace_style, name)(settings, flag, text)

    return apply


def _quiet(settings: Settings, flag: str, text: str) -> None:
    if text:
        _late("quiet")(settings, flag, text)
        return
    settings.quiet = True
    before = settings.silenced
    level = QUIETER.index(before) + 1 if flag == "-q" and before in QUIETER else 0
    settings.silenced = QUIETER[min(level, len(QUIETER) - 1)]


def _text(name: str) -> Apply:
    """An option whose argument is taken as it is."""

    def apply(settings: Settings, flag: str, text: str) -> None:
        setattr(settings, name, text)

    return apply


def _number(name: str) -> Apply:
    """An option that takes a count."""

    def apply(settings: Settings, flag: str, text: str) -> None:
        if not text.isascii() or not text.isdigit():
            raise UsageError(f"{flag} takes a number, not {text!r}")
        setattr(settings, name, int(text))

    return apply


def _limit(settings: Settings, flag: str, text: str) -> None:
    _number("limit")(settings, flag, text)
    if not settings.limit:
        raise UsageError(f"{flag} takes a number of calls from 1 on, not {text!r}")


def _add(name: str) -> Apply:
    """An option that may stand several times."""

    def apply(settings: Settings, flag: str, text: str) -> None:
        setattr(settings, name, (*getattr(settings, name), text))

    return apply


def _follow(settings: Settings, flag: str, text: str) -> None:
    settings.follow = True
    if flag == "-f":
        settings.split = settings.split or settings.forks
        settings.forks = True


def _column(settings: Settings, flag: str, text: str) -> None:
    _number("column")(settings, flag, text)
    settings.aligned = True


def _times(settings: Settings, flag: str, text: str) -> None:
    """-t, -tt, -ttt, and strace's words for them and for more, which may be said one by one."""
    if flag == "-t":
        if settings.times not in LEVELS:
            raise UsageError("-t says how times are shown, and so did --absolute-timestamps")
        settings.times = LEVELS[settings.times]
        return
    form, _, unit = settings.times.partition(".")
    for word in words_of(text.lower() or "time"):
        key, _, value = word.rpartition(":")
        if key not in ("", "format", "precision"):
            raise UsageError(f"{flag}: {key!r} is none of format:, precision:")
        if key != "precision" and value in ("none", "time", "unix"):
            form = value
        elif key == "format":
            raise UsageError(f"{flag}: format: is none, time or unix, not {value!r}")
        else:
            unit = _unit(flag, value)
    settings.times = "" if form == "none" else f"{form or 'time'}.{unit or 's'}"


def _since(settings: Settings, flag: str, text: str) -> None:
    settings.since = _unit(flag, text or "us")


def _spent(settings: Settings, flag: str, text: str) -> None:
    settings.spent = _unit(flag, text or "us")


def _unit(flag: str, text: str) -> str:
    """A precision: strace's words, in full or short."""
    unit = UNITS.get(text)
    if unit is None:
        raise UsageError(f"{flag} knows the precisions s, ms, us and ns, not {text!r}")
    return unit


LEVELS: Final = {
    "": "time.s", "time.s": "time.us", "time.us": "unix.us", "unix.us": "unix.us",
}  # fmt: skip
"""What one more -t makes of it."""
UNITS: Final = {
    "s": "s", "sec": "s", "second": "s", "ms": "ms", "millisecond": "ms",
    "us": "us", "microsecond": "us", "ns": "ns", "nanosecond": "ns",
}  # fmt: skip


def _pids(settings: Settings, flag: str, text: str) -> None:
    for word in text.replace(",", " ").split():
        if not word.isascii() or not word.isdigit() or int(word) == 0:
            raise UsageError(f"{flag} takes process ids, not {word!r}")
        settings.pids = (*settings.pids, int(word))


def _environment(settings: Settings, flag: str, text: str) -> None:
    name, equals, value = text.partition("=")
    if not name:
        raise UsageError(f"{flag} takes NAME=VALUE, or NAME to take it away, not {text!r}")
    settings.environment[name] = value if equals else None


def _background(settings: Settings, flag: str, text: str) -> None:
    if text not in BACKGROUND:
        raise UsageError(f"{flag} takes grandchild, pgroup or session, not {text!r}")
    settings.background = BACKGROUND[text] if text else min(settings.background + 1, 3)


def _interruptible(settings: Settings, flag: str, text: str) -> None:
    number = INTERRUPTIBLE_WORDS.get(text, text)
    if number not in INTERRUPTIBLE:
        raise UsageError(
            f"{flag} takes 1 (anywhere), 2 (waiting), 3 (never) or 4 (never_tstp), not {text!r}"
        )
    settings.interruptible = int(number)


def _engine(settings: Settings, flag: str, text: str) -> None:
    if text not in ENGINES:
        raise UsageError(f"{flag} takes {' or '.join(ENGINES)}, not {text!r}")
    settings.engine = text


def _ring(settings: Settings, flag: str, text: str) -> None:
    size = size_of(flag, text)
    # Of the kernel: a power of two, of whole pages.
    settings.ring = 1 << max(16, (size - 1).bit_length())
    if settings.ring > 1 << 30:
        raise UsageError(f"{flag} goes up to 1G, not {text}")


def _rotate(settings: Settings, flag: str, text: str) -> None:
    size, comma, keep = text.partition(",")
    if not comma or not keep.isascii() or not keep.isdigit() or int(keep) == 0:
        raise UsageError(f"{flag} takes SIZE,N, as 100M,10, not {text!r}")
    settings.rotate = (size_of(flag, size), int(keep))


def size_of(flag: str, text: str) -> int:
    """A number of bytes, with K, M or G behind it or without."""
    digits = text.rstrip("KMGkmg")
    if not digits.isascii() or not digits.isdigit() or len(text) - len(digits) > 1:
        raise UsageError(f"{flag} takes a size, as 64M, not {text!r}")
    return int(digits) * UNITS_OF_SIZE[text[len(digits) :].upper()]


def _stacks(settings: Settings, flag: str, text: str) -> None:
    if text not in ("", "symbol"):
        raise UsageError(f"{flag}={text}: frames have symbols; addr2line(1) finds their lines")
    settings.stacks = True


def _annotate(settings: Settings, flag: str, text: str) -> None:
    if text != "github":
        raise UsageError(f"--annotate {text}: there is github only")
    settings.annotate = text


def _style(settings: Settings, flag: str, text: str) -> None:
    style, equals, release = text.partition("=")
    if style not in STYLES or (equals and (style, release) != ("strace", RELEASE)):
        raise UsageError(f"{flag} takes {', '.join(STYLES)} or strace={RELEASE}, not {text!r}")
    settings.style, settings.release = style, release


def colour_of(flag: str, text: str) -> str:
    """What --color says; without a word, as grep's and ls's, always."""
    if text not in ("", *COLOURS):
        raise UsageError(f"{flag} takes {', '.join(COLOURS)}, not {text!r}")
    return text or "always"


def _colour(settings: Settings, flag: str, text: str) -> None:
    settings.colour = colour_of(flag, text)


COLOURS: Final = ("auto", "always", "never")
INTERRUPTIBLE_WORDS: Final = {
    "anywhere": "1", "always": "1", "waiting": "2", "never": "3", "never_tstp": "4",
}  # fmt: skip
BACKGROUND: Final = {"": 1, "grandchild": 1, "pgroup": 2, "pgrp": 2, "session": 3}
STYLES: Final = ("bpfstrace", "strace")
RELEASE: Final = "7.2"
"""Of strace: the one whose lines can be had to the byte."""
ENGINES: Final = ("ptrace", "bpf")
UNITS_OF_SIZE: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


WHOM: Final = "Whom to trace"
WHICH: Final = "Which calls"
SHOWN: Final = "What is shown"
TIMES: Final = "What stands beside a call"
OUTPUT: Final = "Where it is written"
HOW: Final = "How it is traced"
SELF: Final = "About bpfstrace"
GROUPS: Final = (WHOM, WHICH, SHOWN, TIMES, OUTPUT, HOW, SELF)
"""In the order of the help."""
EXPRESSIONS_HELP: Final = """\
trace=CALLS: any of bpf, perf_event_open, ioctl, openat, setsockopt, netlink (XDP and tc; alone: \
besides the others), !CALLS, all, none, %desc, %file, %network, /REGEX
bpf=prog_load,map_*,!map_freeze: only these commands
prog=NAME: only what concerns that program
status=successful,failed,unfinished,detached: only these
kernel=xlated,jited,map[,intel]: what the kernel made of programs, as instructions and as native \
code, and which became which (--kernel= too)
inject=bpf(prog_load,name=x):error=EPERM:when=2+: make calls fail
--trace=, --status=, --inject= do the same"""


class Option(NamedTuple):
    """A row of the table."""

    short: str
    long: str
    metavar: str
    """In brackets: may be left out, and is taken by the long form only. docs/extending.md says
    which words completions know (FILE, DIR, USER, PID, or ``a|b`` for a choice)."""
    group: str
    """Under which of GROUPS the help has it."""
    help: str
    """A line or more, wrapped where it is shown; a line break is one there, too."""
    apply: Apply
    only: str = ""
    """``live`` or ``replay`` where it makes sense for one of them only."""
    also: tuple[str, ...] = ()
    """Other long names, of strace's."""


OPTIONS: Final = (
    Option("f", "follow-forks", "", WHOM,
           "follow forks, vforks, clones and threads", _follow, "live"),
    Option("p", "attach", "PID", WHOM,
           "attach to running processes (repeat, or separate by commas); Ctrl-C detaches",
           _pids, "live"),
    Option("a", "all", "", WHOM,
           "everybody on this machine, until Ctrl-C; by eBPF", _set("everybody", True), "live"),
    Option("", "engine", "ptrace|bpf", HOW,
           "ptrace stops PROG at each call, bpf never stops it", _engine, "live"),
    Option("", "ring", "SIZE", HOW, "with bpf: how much may wait to be read (64M)", _ring, "live"),
    Option("", "uid", "USER", WHOM, "with bpf: only processes of USER", _text("uid"), "live"),
    Option("", "cgroup", "DIR", WHOM,
           "with bpf: only processes in this cgroup and below", _text("cgroup"), "live"),
    Option("u", "user", "USER", WHOM,
           "run PROG as USER, with USER's groups, or as UID:GID", _text("user"),
           "live", also=("username",)),
    Option("E", "env", "VAR=VAL", WHOM,
           "set VAR for PROG; -E VAR takes it away", _environment, "live"),
    Option("", "argv0", "NAME", WHOM, "PROG's own idea of its name", _text("argv0"), "live"),
    Option("D", "daemonize", "[=HOW]", HOW,
           "trace from the background, as a grandchild (-DD, pgroup: own process group; -DDD, "
           "session: own session)", _background, "live", also=("daemonized", "daemonised")),
    Option("I", "interruptible", "N", HOW,
           "1, 2: Ctrl-C ends tracing; 3: it is ignored; 4: Ctrl-Z too", _interruptible, "live"),
    Option("", "kill-on-exit", "", WHOM,
           "PROG dies with bpfstrace (it does so in any case)", _set("kill", True), "live"),
    Option("o", "output", "FILE", OUTPUT,
           "text to FILE instead of stderr; - is stdout, '|COMMAND' and '!COMMAND' a command's "
           "stdin", _text("output")),
    Option("A", "output-append-mode", "", OUTPUT, "with -o: append to FILE", _set("append", True)),
    Option("", "json", "FILE", OUTPUT,
           "the trace as JSON lines to FILE (- is stdout), for replay", _text("json")),
    Option("", "output-separately", "", OUTPUT,
           "with -o FILE: a file a thread, FILE.TID (-ff: with -f)", _set("split", True), "live"),
    Option("", "rotate", "SIZE,N", OUTPUT,
           "with bpf and --json FILE: begin another file after SIZE, and keep N old ones",
           _rotate, "live"),
    Option("", "events", "FILE", OUTPUT,
           "a flat JSON object for each load, attachment, pin and refusal, appended to FILE (- "
           "is stdout)", _text("events")),
    Option("", "report", "FILE", OUTPUT,
           "a page for the browser to FILE, at the end (bpfstrace report makes one of a saved "
           "trace)", _text("report")),
    Option("", "tui", "", OUTPUT,
           "the trace in panes on this terminal while PROG runs, and PROG's own terminal in one "
           "(tui.md)", _set("tui", True), "live"),
    Option("", "redact", "[=CLASSES]", OUTPUT,
           "stand-ins in all outputs for what a trace may give away: values, strings, paths, "
           "argv, host, or for some of them; names (of programs, maps and BTF, and source) if "
           "asked for, by all, too (trust.md; bpfstrace redact does it to a saved trace)",
           _late("redact"), "live"),
    Option("e", "expr", "EXPR", WHICH,
           EXPRESSIONS_HELP, _late("expression")),
    Option("P", "trace-path", "PATH", WHICH, "only calls that have to do with PATH", _add("paths")),
    Option("", "syscall-limit", "N", WHICH,
           "end after N calls, and let go of what is traced", _limit, "live"),
    Option("z", "successful-only", "", WHICH, "only calls that succeeded", _set("succeeded", True)),
    Option("Z", "failed-only", "", WHICH,
           "only calls that failed", _set("succeeded", False), also=("failing-only",)),
    Option("c", "summary-only", "", SHOWN, "only the tables at the end", _set("counts", True)),
    Option("v", "verbose", "[=all]", SHOWN,
           "fold nothing: all fields, all log lines, where lines come from",
           _late("verbose"), also=("no-abbrev",)),
    Option("", "no-insns", "", SHOWN, "instruction listings as one word", _set("insns", False)),
    Option("", "style", "bpfstrace|strace|strace=7.2", SHOWN,
           "strace: one line a call, in strace's syntax and with all that is known; strace=7.2: to "
           "the byte as that release has it", _style),
    Option("", "canonical", "", SHOWN,
           "stable text, without pids, fds, ids, addresses and times, for plain diff and git's "
           "textconv", _set("canonical", True), "replay"),
    Option("", "annotate", "github", OUTPUT,
           "what was refused as annotations of GitHub Actions, with the verifier's "
           "place in the source; on stderr", _annotate),
    Option("", "columns", "N", SHOWN,
           "with --style strace: align results at column N (40)", _column),
    Option("X", "const-print-style", "raw|abbrev|verbose", SHOWN,
           "with --style strace: numbers that have names as numbers, names, or both",
           _strace("const_style")),
    Option("N", "arg-names", "", SHOWN,
           "with --style strace: the names of arguments, too", _set("arguments", True)),
    Option("t", "absolute-timestamps", "[=HOW]", TIMES,
           "time of day before each call; -tt with microseconds, -ttt as seconds since the "
           "epoch; HOW: time or unix, s, ms, us or ns", _times, also=("timestamps",)),
    Option("r", "relative-timestamps", "[=UNIT]", TIMES, "time since the call before", _since),
    Option("T", "syscall-times", "[=UNIT]", TIMES, "time that each call took", _spent),
    Option("Y", "decode-pids", "[=comm]", TIMES,
           "names of processes with their ids", _late("decode_pids")),
    Option("y", "decode-fds", "[=SET]", SHOWN,
           "what fds are (is shown in any case)", _late("decode_fds")),
    Option("k", "stack-traces", "[=symbol]", SHOWN,
           "after each call the stack of the code that made it", _stacks, also=("stack-trace",)),
    Option("", "stats", "", SHOWN,
           "count runs of programs and their time meanwhile, for all programs of the machine",
           _set("stats", True), "live"),
    Option("s", "string-limit", "N", SHOWN,
           "show at most N bytes of a string (64)", _number("string_limit")),
    Option("q", "quiet", "[=SET]", SHOWN,
           "no exits of processes, no summary at the end",
           _quiet, also=("silent", "silence")),
    Option("", "color", "[=WHEN]", SHOWN,
           "auto (on a terminal), always or never", _colour, also=("colour",)),
    Option("", "no-config", "", SELF,
           "without the options of the configuration file", _set("config", False)),
    Option("d", "debug", "", SELF,
           "where bpfstrace's own faults are, as tracebacks", _set("debug", True)),
    Option("", "no-seccomp", "", HOW,
           "stop on every system call rather than filter", _set("seccomp", False), "live"),
    Option("", "same-cpu", "", HOW,
           "bind PROG and bpfstrace to one CPU: cheaper stops, but PROG and its children see "
           "that CPU only", _set("same_cpu", True), "live"),
    Option("h", "help", "", SELF, "this text", _set("help", True)),
    Option("V", "version", "", SELF, "the version", _set("version", True)),
)
"""In the order of the help, inside of each group."""
SILENT: Final = (
    Option("C", "summary", "", "", "", _set("summary", True)),
    Option("S", "summary-sort-by", "COLUMN", "", "", _strace("sort_by")),
    Option("U", "summary-columns", "COLUMNS", "", "", _strace("columns")),
    Option("", "always-show-pid", "", "", "", _set("show_pid", True)),
    Option("", "stack-trace-frame-limit", "N", "", "", _number("frames")),
    Option("w", "summary-wall-clock", "", "", "", _set("wall", True)),
    Option("O", "summary-syscall-overhead", "TIME", "", "", _strace("overhead")),
    Option("", "seccomp-bpf", "", "", "", _nothing, "live"),
    Option("", "abbrev", "SET", "", "", _late("abbreviate")),
    Option("", "trace", "SET", "", "", _late("trace")),
    Option("", "raw", "SET", "", "", _strace("raw")),
    Option("", "status", "SET", "", "", _late("status")),
    Option("", "kernel", "SET", "", "", _late("kernel")),
    Option("", "signals", "SET", "", "", _late("signals"), also=("signal",)),
    Option("", "inject", "RULE", "", "", _late("inject"), "live"),
    Option("", "fault", "RULE", "", "", _late("fault"), "live"),
)
"""Options of strace's that ask for what is done anyway, or that have a better name here."""


def meant_for(flag: str, command: str) -> bool:
    """Whether an option is for a command; those that do not exist are for all."""
    return all(
        row.only in ("", command)
        for row in (*OPTIONS, *SILENT)
        if flag.removeprefix("--") in (row.long, *row.also)
    )


def parse(words: list[str], command: str, agree: bool = True) -> Settings:
    """Parses what follows ``bpfstrace`` (command ``live``) or ``bpfstrace replay``.

    ``agree``: options that need or exclude each other are looked at, too.
    """
    by_flag: dict[str, Option] = {}
    takes: dict[str, bool | None] = {}
    for row in (*OPTIONS, *SILENT):
        flags = [f"--{name}" for name in (row.long, *row.also)]
        by_flag.update(dict.fromkeys(flags, row))
        takes.update(dict.fromkeys(flags, None if row.metavar[:1] == "[" else bool(row.metavar)))
        if row.short:
            by_flag[f"-{row.short}"] = row
            takes[f"-{row.short}"] = bool(row.metavar) and row.metavar[0] != "["
    try:
        pairs, rest = scan(words, takes, anywhere=command != "live")
    except UnknownOptionError as error:
        from bpftrace_sys.cli.suggest import meant
        from bpftrace_sys.cli.unsupported import why

        text = why(error.flag) or f"{error}{meant(error.flag, takes)}"
        raise UsageError(text) from None
    settings = Settings(rest)
    for flag, text in pairs:
        row = by_flag[flag]
        if row.only not in ("", command):
            raise UsageError(f"{flag} is only for when {WHERE[row.only]}")
        row.apply(settings, flag, text)
    if agree and not settings.help:
        agreed(settings)
    return settings


WHERE: Final = {"live": "a program is traced", "replay": "a trace is replayed"}
