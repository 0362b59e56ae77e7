"""The subcommands as rows: what each takes. Help, man pages and completions are made of them.

Tracing and replaying have their options in options.py; the other subcommands have them here,
and read their words with ``arguments`` of arguments.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bpftrace_sys.cli.options import colour_of
from bpftrace_sys.cli.values import kinds_of, seconds_of
from decoders.records import NamedTuple


class Flag(NamedTuple):
    """An option of a subcommand."""

    short: str
    long: str
    metavar: str
    """What it takes; empty: nothing. As in options.Option."""
    help: str
    also: tuple[str, ...] = ()
    """Other long names."""
    value: Callable[[str, str], object] | None = None
    """What an argument means, of the option as it was written and its text; else any will do."""


class Command(NamedTuple):
    """A subcommand."""

    name: str
    usage: tuple[str, ...]
    """What may follow ``bpfstrace NAME``."""
    summary: str
    """For the list of subcommands, below 45 letters."""
    about: tuple[str, ...]
    """Paragraphs."""
    flags: tuple[Flag, ...]
    exits: str
    takes: str = "FILE"
    """What its words are, for completions: FILE, or nothing."""
    program: bool = False
    """There is a well-known program of this name, which somebody may mean to trace."""

    @property
    def exit_words(self) -> str:
        """With what is so of all."""
        return f"{self.exits} 125 where an output was lost or cannot be written."


HELP: Final = Flag("h", "help", "", "this text")
COLOR: Final = Flag("", "color", "[=WHEN]", "auto (on a terminal), always or never", ("colour",),
                    colour_of)
TRACE_OUTPUT: Final = "the file to write (- is stdout, and so is none in a pipe)"
ROWS: Final = (
    Command(
        "replay", ("[OPTIONS] TRACE",), "print a saved trace again",
        ("Prints what the live trace printed, from the file that --json wrote (- is stdin; "
         "compressed ones are known by their content). Needs neither privileges nor the "
         "machine of the trace. The options that choose and show calls are those of tracing.",),
        (),
        "0, or 2 where the trace cannot be read, or not to its end (what could be read was "
        "printed).",
    ),
    Command(
        "report", ("TRACE -o PAGE",), "a saved trace as a page for the browser",
        ("The page needs nothing but a browser: no network, no other file. It holds what the "
         "trace holds, the program's memory included. TRACE may be - (stdin).",
         "Live: bpfstrace --report PAGE PROG. Two traces: bpfstrace diff --report PAGE A B."),
        (Flag("o", "output", "FILE", TRACE_OUTPUT),),
        "0, or 2 where the trace is damaged or not whole (the page shows what stood before).",
    ),
    Command(
        "tui", ("TRACE [--filter WORDS]",), "a saved trace in the terminal, to look around",
        ("Calls, objects, attachments and listings in panes, with search, filter and ways from "
         "one to the other; ? lists the keys. TRACE may be - (stdin). It needs the extra tui "
         "(textual).",),
        (Flag("", "filter", "WORDS", "calls to show at first, in the words of docs/tui.md"),),
        "0, or 2 where the trace is damaged or not whole (what stood before was shown).",
    ),
    Command(
        "perfetto", ("TRACE -o FILE",), "a saved trace for https://ui.perfetto.dev",
        ("A track a process and thread, a slice a call with its arguments, flows from a load to "
         "what attaches it, counters of objects and attachments. The file is opened in the "
         "browser; it holds strings and values of the traced program.",),
        (Flag("o", "output", "FILE", TRACE_OUTPUT),),
        "0, or 2 where the trace is damaged or not whole (what stood before is written).",
    ),
    Command(
        "redact", ("TRACE -o FILE [--keep CLASSES] [--names]",), "a saved trace to show to others",
        ("Keys and values of maps and other data, strings and logs, paths, command lines and "
         "names of threads, and the host's name become stand-ins: of the same length, the same "
         "for the same, and made with a key that is thrown away. Instructions stay, and without "
         "--names BTF and the names of programs and maps; docs/trust.md says what else does.",),
        (
            Flag("o", "output", "FILE", "the trace to write"),
            Flag("", "keep", "CLASSES",
                 "what stays: any of values, strings, paths, argv, host"),
            Flag("", "names", "",
                 "hide names of programs, maps and BTF, and lines of source, too"),
        ),
        "0, or 2 where the trace is damaged or not whole (what stood before is written).",
    ),
    Command(
        "diff", ("[OPTIONS] A B",), "what differs between two traces",
        ("Compares two traces by what they mean: fds, ids, addresses and times are no "
         "differences.",),
        (
            Flag("", "json", "", "one JSON object instead of text"),
            Flag("", "report", "FILE", "also a page for the browser, instructions side by side"),
            Flag("", "only", "PART",
                 "compare only progs, maps or attachments (may be repeated)", value=kinds_of),
            Flag("", "ignore", "FIELD",
                 "leave a field out: license, attr.log_level, 'kern_*', target, count, order, "
                 "source, insns, result, probe (may be repeated)"),
            Flag("", "strict", "",
                 "also what was read from maps, how often, the logs of loads that succeeded, and "
                 "exit codes"),
            COLOR,
            Flag("q", "quiet", "", "no output, only the exit code"),
        ),
        "0 the same, 1 different, 2 trouble (a trace that is damaged or not whole).",
    ),
    Command(
        "check",
        ("TRACE... --lock FILE [--json] [--junit FILE] [--sarif FILE] [--annotate=github]",
         "TRACE... --lock FILE --update [--no-tags]"),
        "only what a reviewed file allows?",
        ("Compares what traces do with a reviewed lock file (TOML, or JSON if FILE ends in "
         ".json): programs by name, type and tag, the helpers and kfuncs that they call, where "
         "they are attached, maps, and pins. Whatever is outside the file is listed.",),
        (
            Flag("", "lock", "FILE", "the lock file"),
            Flag("", "json", "", "the verdict as one JSON object instead of text"),
            Flag("", "junit", "FILE",
                 "besides, as JUnit's XML: a case for each thing that a trace does"),
            Flag("", "sarif", "FILE", "besides, as a SARIF 2.1.0 log, with places in the source"),
            Flag("", "annotate", "github", "besides, as annotations of GitHub Actions, on stderr"),
            Flag("", "update", "", "write FILE so that it allows just what these traces do"),
            Flag("", "no-tags", "", "with --update: let instructions change (pin_tags = false)"),
            Flag("", "tags", "", "with --update: hold them again"),
        ),
        "0 nothing is outside, 1 something is, 2 trouble: a damaged or partial trace is never a "
        "pass.",
    ),
    Command(
        "extract", ("TRACE -o DIR [--force]",), "its programs as ELF objects, its BTF",
        ("Writes each program that a trace loads to DIR as an ELF object (NAME.o), with its maps, "
         "BTF and source lines, and each BTF blob as it was loaded (NAME.btf). `llvm-objdump "
         "-dS` disassembles the objects, `bpftool prog load` loads them.",),
        (
            Flag("o", "output", "DIR", "where to; made if need be"),
            Flag("", "force", "", "overwrite files that are there"),
        ),
        "0, or 2 for trouble; of a damaged trace, what stands before the damage is extracted.",
    ),
    Command(
        "ps", ("[--json] [--watch SECONDS] [--color[=WHEN]]",),
        "BPF on this machine: whose, attached where",
        ("Programs, maps, links and BTF of this machine, who has them open or pinned, where they "
         "are attached. A program called ps is traced by `bpfstrace -- ps`.",),
        (
            Flag("", "json", "", "one JSON object a line (bpfstrace schema describes them)"),
            Flag("", "watch", "SECONDS", "again every so many seconds, until Ctrl-C",
                 value=seconds_of),
            COLOR,
        ),
        "0.",
        takes="",
        program=True,
    ),
    Command(
        "dump", ("[--xlated] [--jited] [--intel] [-v] [--json] ID|NAME|PIN",),
        "a program of this machine, as it is loaded",
        ("A program by its id, its name, or a path at which it or its link is pinned (bpfstrace "
         "ps lists them). A program called dump is traced by `bpfstrace -- dump`.",),
        (
            Flag("", "xlated", "",
                 "the instructions that the verifier left (if neither is asked for)"),
            Flag("", "jited", "", "the native code"),
            Flag("", "intel", "", "native code in Intel's syntax instead of AT&T's"),
            Flag("v", "verbose", "", "with the bytes of native code, and source positions"),
            Flag("", "json", "", "as lines of JSON (bpfstrace schema describes them)"),
            COLOR,
        ),
        "0, 1 where there is no such program or we may not have it, 2 for wrong arguments.",
        program=True,
    ),
    Command(
        "repro", ("TRACE [-o FILE] [--seq A-B] [--c]",), "a program that issues its calls again",
        ("Writes a program that issues the calls of a trace again and prints what each returns "
         "beside what was recorded, DIFFERS where they are not the same: one file that needs "
         "Python's standard library. It runs as root; its --help says more.",),
        (
            Flag("o", "output", "FILE",
                 "where to, else stdout; readable by its owner only, for it holds the tracee's "
                 "memory"),
            Flag("", "seq", "A-B",
                 "only these calls (A-, -B, or one number), and all earlier ones that they depend "
                 "on"),
            Flag("", "c", "", "in C instead: cc -o repro repro.c"),
        ),
        "0, or 2 for trouble; of a damaged trace, what stands before the damage is written.",
    ),
    Command(
        "doctor", ("[--json]",), "what this machine allows, and what to do",
        ("Looks at what tracing needs: ptrace, bpf(2), both engines, the kernel's BTF, tracefs, "
         "probes, settings of the kernel, optional Python packages. Each is tried where that "
         "leaves nothing behind, else read; what could not be looked at is told as `??`, what "
         "costs a part of what is shown as `--`.",),
        (Flag("", "json", "", "an object a line: name, state (yes, no, partly, unseen), found, "
              "advice, needed"),),
        "0, 1 where nothing can be traced by ptrace.",
        takes="",
    ),
    Command(
        "schema", ("",), "the JSON Schema of a trace's lines",
        ("Prints the JSON Schema of the lines of a trace, and of ps --json and dump --json.",),
        (), "0.", takes="",
    ),
    Command(
        "disasm", ("FILE [--color[=WHEN]]",), "print raw instructions",
        ("Disassembles raw eBPF instructions, 8 bytes each, as the verifier prints them (- is "
         "stdin). Of an ELF object, llvm-objdump -d shows what is in it.",),
        (COLOR,), "0, 1 where bytes are left over at the end, 2 where the file cannot be read.",
    ),
)  # fmt: skip
"""In the order of the help."""
BY_NAME: Final = {row.name: row for row in ROWS}
