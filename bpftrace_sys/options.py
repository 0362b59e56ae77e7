"""The command line of tracing and replaying: one table, parsed as strace does.

Options stand before PROG; everything from PROG on belongs to it.
"""

from __future__ import annotations

from bpftrace_sys.words import UsageError as UsageError
from bpftrace_sys.words import scan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, Literal, NamedTuple

    from bpftrace_sys.inject import Rule
else:
    from decoders.records import NamedTuple

TRACED: Final = ("bpf", "perf_event_open", "ioctl", "openat", "setsockopt")
NETLINK: Final = "netlink"
"""The word for the calls on route netlink sockets, which attach XDP and tc programs."""
NETLINK_CALLS: Final = ("sendto", "sendmsg", "recvfrom", "recvmsg")


class Settings:
    """What the command line said."""

    def __init__(self, args: list[str]) -> None:
        self.args = args
        """The program, and what is its own."""
        self.follow = False
        self.output: str | None = None
        self.json: str | None = None
        self.traced: tuple[str, ...] = TRACED
        self.explicit: frozenset[str] = frozenset()
        """Calls that -e named: all of them are shown, BPF's story or not."""
        self.commands: tuple[str, ...] = ()
        """Patterns of -e bpf=; one that begins with ! takes away."""
        self.progs: tuple[str, ...] = ()
        self.paths: tuple[str, ...] = ()
        self.succeeded: bool | None = None
        self.counts = False
        self.verbose = False
        self.insns = True
        self.style = "bpfstrace"
        self.canonical = False
        self.column = 40
        self.string_limit: int | None = None
        self.quiet = False
        self.seccomp = True
        self.split = False
        """-ff: a text file a thread."""
        self.times = ""
        """t, tt, ttt or r."""
        self.spent = False
        self.comms = False
        self.stacks = False
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
        self.help = False
        self.version = False


if TYPE_CHECKING:
    Apply = Callable[[Settings, str, str], None]


def _set(name: str, value: object) -> Apply:
    """An option without an argument."""

    def apply(settings: Settings, flag: str, text: str) -> None:
        setattr(settings, name, value)

    return apply


def _nothing(settings: Settings, flag: str, text: str) -> None:
    """An option that asks for what is done in any case."""


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


def _add(name: str) -> Apply:
    """An option that may stand several times."""

    def apply(settings: Settings, flag: str, text: str) -> None:
        setattr(settings, name, (*getattr(settings, name), text))

    return apply


def _follow(settings: Settings, flag: str, text: str) -> None:
    settings.split = settings.follow
    settings.follow = True


def _split(settings: Settings, flag: str, text: str) -> None:
    settings.split = settings.follow = True


def _times(settings: Settings, flag: str, text: str) -> None:
    if settings.times == "r" or len(settings.times) == 3:
        raise UsageError(f"{flag}: of -t, -tt, -ttt and -r one is enough")
    settings.times += "t"


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
    settings.background = min(settings.background + 1, 3)


def _interruptible(settings: Settings, flag: str, text: str) -> None:
    if text not in INTERRUPTIBLE:
        raise UsageError(f"{flag} takes 1, 2, 3 or 4 (as strace), not {text!r}")
    settings.interruptible = int(text)


def _unsupported(settings: Settings, flag: str, text: str) -> None:
    raise UsageError(f"{flag} is not supported: {UNSUPPORTED[flag.lstrip('-')]}")


def _style(settings: Settings, flag: str, text: str) -> None:
    if text not in STYLES:
        raise UsageError(f"{flag} takes {' or '.join(STYLES)}, not {text!r}")
    settings.style = text


def _expression(settings: Settings, flag: str, text: str) -> None:
    """``-e KEY=VALUES``; the word ``trace=`` may be left out, as in strace."""
    key, equals, values = text.partition("=")
    if not equals:
        key, values = "trace", text
    row = EXPRESSIONS.get(key)
    if row is None:
        known = ", ".join(f"{name}=" for name in EXPRESSIONS)
        raise UsageError(f"{flag} {text}: {key!r} is none of {known}")
    row(settings, text, [word for word in values.split(",") if word])


def _trace(settings: Settings, text: str, words: list[str]) -> None:
    known = (*TRACED, NETLINK)
    for word in words:
        if word not in known:
            raise UsageError(f"-e {text}: {word!r} is none of {', '.join(known)}")
    if not words:
        raise UsageError(f"-e {text}: names no system call; take any of {', '.join(known)}")
    explicit = frozenset(words) - {NETLINK}
    # Alone it adds to what is traced anyway: the programs are loaded by bpf().
    settings.traced = tuple(call for call in TRACED if call in explicit or not explicit)
    if NETLINK in words:
        settings.traced += NETLINK_CALLS
    settings.explicit = explicit


def _bpf(settings: Settings, text: str, words: list[str]) -> None:
    settings.commands = (*settings.commands, *words)
    if not bpf_commands(settings.commands):
        raise UsageError(f"-e {text}: no bpf command is left; they are {', '.join(_lower())}")


def _prog(settings: Settings, text: str, words: list[str]) -> None:
    settings.progs = (*settings.progs, *words)


def _lower() -> dict[str, int]:
    from decoders.uapi import names

    plain = {name.removeprefix("BPF_").lower(): number for number, name in names.bpf_cmd.items()}
    for alias, number in names.ALIASES.get("bpf_cmd", {}).items():
        plain[alias.removeprefix("BPF_").lower()] = number
    return plain


def bpf_commands(patterns: tuple[str, ...]) -> frozenset[int]:
    """The commands that ``prog_load,map_*,!map_freeze`` selects.

    Names without BPF_, in any case; the first pattern decides whether the rest
    begins with nothing or with everything.  UsageError for a name that is none.
    """
    import fnmatch

    known = _lower()
    first = patterns[0].startswith("!") if patterns else True
    chosen = set(known.values()) if first else set()
    for pattern in patterns:
        word = pattern.removeprefix("!").lower().removeprefix("bpf_")
        found = {number for name, number in known.items() if fnmatch.fnmatchcase(name, word)}
        if not found:
            raise UsageError(f"-e bpf={pattern}: no such bpf command; see bpf(2)")
        if pattern.startswith("!"):
            chosen -= found
        else:
            chosen |= found
    return frozenset(chosen)


def _status(settings: Settings, text: str, words: list[str]) -> None:
    for word in words:
        if word not in STATUSES:
            raise UsageError(f"-e {text}: {word!r} is none of {', '.join(STATUSES)}")
    settings.statuses = settings.statuses | frozenset(words)


def _inject(settings: Settings, text: str, words: list[str]) -> None:
    from bpftrace_sys.inject import InjectError, parse

    rest = text.partition("=")[2]
    try:
        rule = parse(rest, bpf_commands)
    except InjectError as error:
        raise UsageError(f"-e {text}: {error}") from None
    if rule.syscall not in TRACED:
        raise UsageError(f"-e {text}: {rule.syscall!r} is none of {', '.join(TRACED)}")
    settings.injections.append(rule)


STATUSES: Final = ("successful", "failed", "unfinished")
INTERRUPTIBLE: Final[dict[str, Literal["wait", "end", "ignore"]]] = {
    "1": "end",
    "2": "end",
    "3": "wait",
    "4": "ignore",
}
"""What an interrupt does (strace's numbers): ends or detaches at once, waits for the
program, or nothing at all."""
UNSUPPORTED: Final = {
    "A": "traces are not appended to a file",
    "C": "the tables at the end come by themselves; -c prints them alone",
    "b": "tracees are never let go before they end; -p and Ctrl-C detach",
    "d": "there is no debug output",
    "i": "instruction pointers are not shown",
    "n": "system calls are named, not numbered",
    "w": "the tables' times are the wall clock's already",
    "x": "bytes that are no text are in hex already",
    "X": "names come with numbers where both matter; --json has them all",
    "S": "the tables are sorted by time; --json has what sorts otherwise",
    "U": "the tables' columns are fixed; --json has them all",
    "O": "no overhead is subtracted",
}
"""Options of strace's that we refuse by name, and what to use instead."""
STYLES: Final = ("bpfstrace", "strace")
EXPRESSIONS: Final[dict[str, Callable[[Settings, str, list[str]], None]]] = {
    "trace": _trace,
    "t": _trace,
    "bpf": _bpf,
    "prog": _prog,
    "status": _status,
    "inject": _inject,
}


class Option(NamedTuple):
    """A row of the table."""

    short: str
    long: str
    metavar: str
    help: str
    apply: Apply
    only: str = ""
    """``live`` or ``replay`` where it makes sense for one of them only."""


OPTIONS: Final = (
    Option("f", "follow-forks", "", "follow forks, vforks, clones and threads",
           _follow, "live"),
    Option("", "output-separately", "", "with -o FILE: a file a thread, FILE.TID (also -ff)",
           _split, "live"),
    Option("p", "attach", "PID", "attach to running processes (repeat, or separate by commas);\n"
           "Ctrl-C detaches", _pids, "live"),
    Option("u", "user", "USER", "run PROG as USER", _text("user"), "live"),
    Option("E", "env", "VAR=VAL", "set VAR for PROG; -E VAR takes it away", _environment, "live"),
    Option("", "argv0", "NAME", "PROG's own idea of its name", _text("argv0"), "live"),
    Option("D", "daemonize", "", "trace from the background, as a grandchild (-DD own process\n"
           "group, -DDD own session)", _background, "live"),
    Option("I", "interruptible", "N", "1, 2: Ctrl-C ends tracing; 3: it is PROG's; 4: nobody's",
           _interruptible, "live"),
    Option("", "kill-on-exit", "", "PROG dies with bpfstrace (it does so in any case)",
           _nothing, "live"),
    Option("o", "output", "FILE", "text to FILE instead of stderr", _text("output")),
    Option("", "json", "FILE", "the trace as JSON lines to FILE (- is stdout), for replay",
           _text("json")),
    Option("e", "expr", "EXPR", "trace=CALLS: any of bpf, perf_event_open, ioctl,\n"
           "openat, setsockopt, netlink (XDP and tc; alone: besides\n"
           "the others);\n"
           "bpf=prog_load,map_*,!map_freeze: only these commands;\n"
           "prog=NAME: only what concerns that program;\n"
           "status=successful,failed,unfinished: only these;\n"
           "inject=bpf(prog_load,name=x):error=EPERM:when=2+:\n"
           "make calls fail", _expression),
    Option("P", "trace-path", "PATH", "only calls that have to do with PATH", _add("paths")),
    Option("z", "successful-only", "", "only calls that succeeded", _set("succeeded", True)),
    Option("Z", "failed-only", "", "only calls that failed", _set("succeeded", False)),
    Option("c", "summary-only", "", "only the tables at the end", _set("counts", True)),
    Option("v", "verbose", "", "fold nothing: all fields, all log lines, where lines come from",
           _set("verbose", True)),
    Option("", "no-insns", "", "instruction listings as one word", _set("insns", False)),
    Option("", "style", "STYLE", "strace: one line a call, in the syntax of strace -v",
           _style),
    Option("", "canonical", "", "stable text, without pids, fds, ids, addresses and times,\n"
           "for plain diff and git's textconv", _set("canonical", True), "replay"),
    Option("a", "columns", "N", "with --style strace: align results at column N (40)",
           _number("column")),
    Option("t", "absolute-timestamps", "", "time of day before each call; -tt with microseconds,\n"
           "-ttt as seconds since the epoch", _times),
    Option("r", "relative-timestamps", "", "time since the call before", _set("times", "r")),
    Option("T", "syscall-times", "", "time that each call took", _set("spent", True)),
    Option("Y", "decode-pids", "", "names of processes with their ids", _set("comms", True)),
    Option("y", "decode-fds", "", "names of fds (they are shown in any case)",
           _nothing),
    Option("k", "stack-traces", "", "after each call the stack of the code that made it",
           _set("stacks", True)),
    Option("s", "string-limit", "N", "show at most N bytes of a string (64)",
           _number("string_limit")),
    Option("q", "quiet", "", "no exits of processes, no summary at the end",
           _set("quiet", True)),
    Option("", "no-seccomp", "", "stop on every system call rather than filter",
           _set("seccomp", False), "live"),
    Option("h", "help", "", "this text", _set("help", True)),
    Option("V", "version", "", "the version", _set("version", True)),
)
"""In the order of the help."""

EXAMPLES: Final = """\
examples:
  bpfstrace -f python3 hello.py           what hello.py asks of the kernel's BPF
  bpfstrace -f -o out.txt ./loader        the loader's own output stays apart
  bpfstrace -f --json trace.jsonl ./loader
  bpfstrace replay -v trace.jsonl         the same text again, unfolded
  bpfstrace -f -e bpf=prog_load,link_create ./loader
"""


def parse(words: list[str], command: str) -> Settings:
    """Parses what follows ``bpfstrace`` (command ``live``) or ``bpfstrace replay``."""
    rows = [row for row in OPTIONS if row.only in ("", command)]
    rows += [Option(letter, "", "", "", _unsupported) for letter in UNSUPPORTED]
    by_flag = {f"-{row.short}": row for row in rows if row.short}
    by_flag |= {f"--{row.long}": row for row in rows if row.long}
    takes = {flag: bool(row.metavar) for flag, row in by_flag.items()}
    pairs, rest = scan(words, takes, anywhere=command != "live")
    settings = Settings(rest)
    for flag, text in pairs:
        by_flag[flag].apply(settings, flag, text)
    _agree(settings)
    return settings


def _agree(settings: Settings) -> None:
    """Options that need or exclude each other."""
    if settings.split and settings.output is None:
        raise UsageError("-ff needs -o FILE: the files are FILE.TID")
    if settings.pids and settings.background:
        raise UsageError("-D runs a program in front; with -p there is none")
    for name in ("user", "argv0"):
        if settings.pids and getattr(settings, name) is not None:
            raise UsageError(f"--{name} is for a program to run; with -p there is none")


def narrowed(settings: Settings) -> list[str]:
    """The options that leave something out of a trace, as they were given."""
    words = [f"-e bpf={pattern}" for pattern in settings.commands]
    words += [f"-e prog={pattern}" for pattern in settings.progs]
    words += [f"-P {path}" for path in settings.paths]
    words += [f"-e status={word}" for word in sorted(settings.statuses)]
    if settings.succeeded is not None:
        words.append("-z" if settings.succeeded else "-Z")
    return words


def usage() -> str:
    """The help text."""
    lines = [
        "usage: bpfstrace [OPTIONS] PROG [ARGS]     trace a program's use of eBPF",
        "       bpfstrace replay [OPTIONS] FILE     print a saved trace again",
        "       bpfstrace diff [OPTIONS] A B        what differs between two traces",
        "       bpfstrace check FILE --lock LOCK    only what a reviewed file allows?",
        "       bpfstrace extract FILE -o DIR       its programs as ELF objects, its BTF",
        "       bpfstrace schema                    the JSON Schema of a trace's lines",
        "       bpfstrace disasm FILE               print raw instructions",
        "",
        "options (before PROG):",
    ]
    for row in OPTIONS:
        flags = f"-{row.short}, " if row.short else "    "
        flags += f"--{row.long}" + (f" {row.metavar}" if row.metavar else "")
        first, *more = row.help.split("\n")
        lines.append(f"  {flags:<26} {first}")
        lines += [f"  {'':<26} {line}" for line in more]
    return "\n".join([*lines, "", EXAMPLES])
