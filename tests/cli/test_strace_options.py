"""strace's options: what is taken, and for what; what is refused, and in which words."""

from __future__ import annotations

import errno
import re
import subprocess

import pytest

from bpftrace_sys.cli.expressions import FD_DETAILS, QUIET, STATUSES
from bpftrace_sys.cli.options import UsageError, parse
from bpftrace_sys.cli.settings import BRIEF, TRACED
from bpftrace_sys.cli.unsupported import UNSUPPORTED
from bpftrace_sys.record.capture import inject
from bpftrace_sys.render.strace.manner import RELEASES
from decoders.arch import NETLINK_CALLS
from tests.support.named_tests import TEST, functions_of, strings_of
from tests.support.needs import needs_tool
from tests.support.running import ROOT, run_cli
from tests.support.strace_options import INJECT, LONG, QUALIFIERS, RELEASE, SHORT, WORDS
from tools.gen_strace_options import Facts, rendered


@pytest.mark.parametrize(
    "rule",
    ["bpf", "bpf:error=EFOO", "bpf:when=0:error=EPERM", "write:error=EPERM", "bpf:frob=1",
     "ioctl(prog_load):error=EPERM", "bpf(frobnicate):error=EPERM",
     # As strace's tests/options-syntax.test and qual_fault-syntax.test have them.
     "bpf:error=", "bpf:error=0", "bpf:error=4096", "bpf:error=-1", "bpf:error=1:error=2",
     "bpf:error=1:retval=1", "bpf:retval=1:error=1", "bpf:retval=", "bpf:retval=0x",
     "bpf:retval=08", "bpf:retval=18446744073709551616", "bpf:error=1:when=", "bpf:when=-1:error=1",
     "bpf:error=1:when=65536", "bpf:error=1:when=1..65535", "bpf:error=1:when=1+65536",
     "bpf:error=1:when=1+0", "bpf:error=1:when=4..2", "bpf:error=1:when=1...3",
     "bpf:error=1:when=2.3", "bpf:error=1:when=1++", "bpf:error=1:when=1+2+3"],
)
def test_a_bad_rule_is_named(rule: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(["-e", f"inject={rule}", "true"], "live")
    assert rule.split(":")[0].split("(")[0] in str(raised.value)


@pytest.mark.parametrize(
    ("how", "ret"),
    [("error=eperm", -1), ("error=22", -22), ("error=010", -10), ("retval=0", 0),
     ("retval=-1", -1), ("retval=010", 8), ("retval=0x10", 16), ("retval=+7", 7),
     ("retval=18446744073709551615", -1), ("retval=0x7fffffffffffffff", (1 << 63) - 1)],
)  # fmt: skip
def test_what_a_rule_makes_calls_return(how: str, ret: int) -> None:
    """Errnos decimal and in any case, values as strtoull(3) reads them: strace's."""
    [rule] = parse(["-e", f"inject=bpf:{how}", "true"], "live").injections
    assert rule.ret == ret


def test_when() -> None:
    def hits(text: str) -> list[int]:
        chosen = inject.when(text)
        return [count for count in range(1, 10) if chosen.wants(count)]

    assert hits("3") == [3]
    assert hits("3+") == [3, 4, 5, 6, 7, 8, 9]
    assert hits("3+4") == [3, 7]
    assert hits("2..5") == [2, 3, 4, 5]
    assert hits("2..7+2") == [2, 4, 6]
    assert hits("2..4+") == [2, 3, 4]
    assert hits("1..1") == [1]


@pytest.mark.parametrize("names", sorted(UNSUPPORTED))
def test_what_is_not_supported_is_refused_by_name(names: str) -> None:
    for flag in names.split(", "):
        for words in ([flag], [f"{flag}=x"] if flag.startswith("--") else [f"{flag}x"]):
            with pytest.raises(UsageError, match=f"^{flag} is not supported: "):
                parse([*words, "true"], "live")
    done = run_cli(names.split(", ")[0], "true")
    assert done.returncode == 2
    assert " is not supported: " in done.stderr


STRACE: dict[str, dict[str, object]] = {
    "-A -o x": {"append": True, "output": "x"},
    "--output-append-mode --output=x": {"append": True, "output": "x"},
    "-C": {"summary": True, "counts": False},
    "--summary": {"summary": True},
    "--style strace -c -S calls": {"summary_order": "calls"},
    "--style strace -c --summary-sort-by=time_min": {"summary_order": "min-time"},
    "--style strace -c -S none": {"summary_order": "nothing"},
    "--style strace -c -U name,count,longest": {"summary_columns": ("name", "calls", "max-time")},
    "--style strace -c -U time": {"summary_columns": ("time-percent", "name")},
    "--stack-trace": {"stacks": True},
    "--stack-traces=symbol": {"stacks": True},
    "-k": {"stacks": True},
    "--always-show-pid": {"show_pid": True},
    "--stack-trace-frame-limit=5": {"frames": 5},
    "-w": {"wall": True},
    "--style strace -c --summary-wall-clock": {"wall": True},
    "--style strace -C -O 5us": {"overhead": 5_000},
    "--style strace -c -U total_wall,wall-min": {
        "summary_columns": ("wall-total", "wall-min", "name")
    },
    "--seccomp-bpf": {"seccomp": True},
    "-c": {"counts": True},
    "--summary-only": {"counts": True},
    "-D": {"background": 1},
    "-DDD": {"background": 3},
    "--daemonize": {"background": 1},
    "--daemonize=grandchild": {"background": 1},
    "--daemonize=pgroup": {"background": 2},
    "--daemonize=pgrp": {"background": 2},
    "--daemonize=session": {"background": 3},
    "-f": {"follow": True, "split": False},
    "--follow-forks": {"follow": True, "split": False},
    "-ff -o x": {"follow": True, "split": True},
    "--follow-forks --output-separately -o x": {"follow": True, "split": True},
    "-I 2": {"interruptible": 2},
    "--interruptible=anywhere": {"interruptible": 1},
    "--interruptible waiting": {"interruptible": 2},
    "-I never": {"interruptible": 3},
    "--interruptible=never_tstp": {"interruptible": 4},
    "--env=A=1 --env A": {"environment": {"A": None}},
    "-E A=1 -E B=2 -E A=3": {"environment": {"A": "3", "B": "2"}},
    "--user=nobody": {"user": "nobody"},
    "--argv0=x": {"argv0": "x"},
    "--trace=bpf": {"traced": ("bpf",)},
    "--trace=all": {"explicit": frozenset({*TRACED})},
    "-e trace=!openat,ioctl": {"traced": ("bpf", "perf_event_open", "setsockopt")},
    "-e trace=bpf,?openat2": {"traced": ("bpf",), "explicit": frozenset({"bpf"})},
    "-e trace=none": {"traced": (), "explicit": frozenset()},
    "-e none": {"traced": ()},
    "-e trace=!all": {"traced": ()},
    "-e trace=!none": {"traced": TRACED, "explicit": frozenset(TRACED)},
    "-e trace=!!bpf": {"traced": ("bpf",)},
    "-e %file": {"traced": ("openat",), "explicit": frozenset({"openat"})},
    "-e trace=file": {"traced": ("openat",)},
    "-e trace=%desc": {"traced": ("bpf", "perf_event_open", "ioctl", "openat")},
    "-e trace=%DESC": {"traced": ("bpf", "perf_event_open", "ioctl", "openat")},
    "-e trace=!%desc": {"traced": ("setsockopt",), "explicit": frozenset()},
    "-e trace=%network": {"traced": ("setsockopt", *NETLINK_CALLS)},
    "-e trace=/^(bpf|perf_)": {"traced": ("bpf", "perf_event_open")},
    "-e /bpf": {"traced": ("bpf",)},
    "-e trace=bpf,%memory": {"traced": ("bpf",)},
    "--output-separately -o x": {"follow": False, "split": True},
    "--follow-forks --follow-forks -o x": {"follow": True, "split": False},
    "--daemonized=session": {"background": 3},
    "--daemonised": {"background": 1},
    "--signals=none": {},
    "--argv0=": {"argv0": ""},
    "-ff": {"follow": True, "split": False},
    "-e signal=none": {"signals": frozenset()},
    "--signal=none": {},
    "--style strace -e s=int,15": {"signals": frozenset({2, 15})},
    "--style strace --signals=!SIGCHLD": {"signals": frozenset(range(1, 65)) - {17}},
    "--status=failed": {"statuses": frozenset({"failed"})},
    "-e status=!failed": {"statuses": frozenset(STATUSES) - {"failed"}},
    "-e status=all": {"statuses": frozenset(STATUSES)},
    "--trace-path=/x -P /y": {"paths": ("/x", "/y")},
    "--successful-only": {"succeeded": True},
    "--failed-only": {"succeeded": False},
    "--failing-only": {"succeeded": False},
    "--columns 60 --style strace": {"column": 60},
    "--columns=60 --style=strace": {"column": 60},
    "--abbrev=none": {"verbose": True},
    "-e abbrev=none": {"verbose": True},
    "-e abbrev=!all": {"verbose": True},
    "--style strace -e abbrev=bpf,openat": {
        "verbose": False, "unabbreviated": frozenset(TRACED) - {"bpf", "openat"}
    },
    "--style strace -e a=!bpf": {"verbose": False, "unabbreviated": frozenset({"bpf"})},
    "--style strace -e abbrev=ioctl -v": {"verbose": True},
    "-e abbrev=all": {"verbose": False},
    "-e verbose=all": {"verbose": False, "undecoded": frozenset()},
    "--verbose=all": {"verbose": False},
    "--verbose": {"verbose": True},
    "--style strace -e verbose=none": {"undecoded": frozenset(TRACED)},
    "--style strace -e v=bpf,ioctl": {"undecoded": frozenset(TRACED) - {"bpf", "ioctl"}},
    "--style strace -e verbose=!bpf": {"undecoded": frozenset({"bpf"})},
    "--style strace --raw=bpf": {"raw": frozenset({"bpf"})},
    "--style strace -e x=all": {"raw": frozenset(TRACED)},
    "--style strace -e raw=!%desc": {"raw": frozenset({"setsockopt"})},
    "--style strace -X raw": {"constants": "raw"},
    "--style strace --const-print-style=verbose": {"constants": "verbose"},
    "-X abbrev": {"constants": "abbrev"},
    "--style strace -N": {"arguments": True},
    "--style strace --arg-names": {"arguments": True},
    "--style strace=7.2": {"style": "strace", "release": "7.2"},
    "--style strace": {"style": "strace", "release": ""},
    "-I always": {"interruptible": 1},
    "--no-abbrev": {"verbose": True},
    "-q": {"quiet": True, "silenced": BRIEF},
    "-qq": {"quiet": True, "silenced": BRIEF | {"exit"}},
    "-qqq": {"quiet": True, "silenced": frozenset(QUIET)},
    "-qqqq": {"quiet": True, "silenced": frozenset(QUIET)},
    "--quiet": {"quiet": True, "silenced": BRIEF},
    "--quiet=attach,personality": {"quiet": False, "silenced": BRIEF},
    "--quiet=attach,personality,exits": {"quiet": True, "silenced": BRIEF | {"exit"}},
    "-e quiet=all": {"quiet": True, "silenced": frozenset(QUIET)},
    "-e q=!superseded": {"quiet": True, "silenced": frozenset(QUIET) - {"thread-execve"}},
    "--silence=exit": {"quiet": True, "silenced": frozenset({"exit"})},
    "--decode-fds": {"shown_fds": frozenset({"path"})},
    "-yy": {"shown_fds": frozenset(FD_DETAILS)},
    "-e decode-fds=!eventfd,signalfd": {"shown_fds": frozenset({"path", "socket", "dev", "pidfd"})},
    "-y": {"shown_fds": frozenset({"path"})},
    "--decode-fds=all": {},
    "-e decode-fds=path,dev,pidfd,socket": {},
    "-Y": {"comms": True},
    "--decode-pids=comm": {"comms": True},
    "-e decode-pids=comm": {"comms": True},
    "-t": {"times": "time.s"},
    "-tt": {"times": "time.us"},
    "-ttt": {"times": "unix.us"},
    "--absolute-timestamps": {"times": "time.s"},
    "--timestamps=unix": {"times": "unix.s"},
    "--absolute-timestamps=unix,us": {"times": "unix.us"},
    "--absolute-timestamps=format:time,precision:ms": {"times": "time.ms"},
    "--absolute-timestamps=ns": {"times": "time.ns"},
    "--absolute-timestamps=none": {"times": ""},
    "-tttt": {"times": "unix.us"},
    "--absolute-timestamps=format:unix --absolute-timestamps=precision:ns": {"times": "unix.ns"},
    "--timestamps=precision:ms --timestamps=format:time": {"times": "time.ms"},
    "--timestamps=UNIX,Precision:NS": {"times": "unix.ns"},
    "-r": {"since": "us", "times": ""},
    "-r -t": {"since": "us", "times": "time.s"},
    "-ttt -r": {"since": "us", "times": "unix.us"},
    "--relative-timestamps": {"since": "us"},
    "--relative-timestamps=ms": {"since": "ms"},
    "-T": {"spent": "us"},
    "--syscall-times=ns": {"spent": "ns"},
    "--string-limit=9": {"string_limit": 9},
    "--attach=1,2 -p 3": {"pids": (1, 2, 3)},
    "-p 1\t2\n3": {"pids": (1, 2, 3)},
    "--kill-on-exit": {"kill": True},
}
"""What strace takes, and what it is taken for here."""


@pytest.mark.parametrize("line", STRACE)
def test_what_strace_takes_is_taken(line: str) -> None:
    settings = parse([*line.split(" "), "true"], "live")
    assert settings.args == ["true"]
    assert {name: getattr(settings, name) for name in STRACE[line]} == STRACE[line]


def test_rules_for_several_calls_and_faults() -> None:
    rules = parse(["-e", "inject=bpf(map_*,prog_load),ioctl:error=EPERM", "x"], "live").injections
    assert [rule.syscall for rule in rules] == ["bpf", "ioctl"]
    assert {rule.ret for rule in rules} == {-errno.EPERM}
    [rule] = parse(["--fault=bpf:when=2", "x"], "live").injections
    assert (rule.ret, rule.when.first) == (-errno.ENOSYS, 2)
    [rule] = parse(["-e", "fault=bpf:error=EBUSY", "x"], "live").injections
    assert rule.ret == -errno.EBUSY


def test_the_last_rule_for_a_call_counts() -> None:
    """As in strace; rules for some commands stand beside each other."""
    words = ["-e", "inject=bpf,ioctl:error=EPERM", "-e", "inject=bpf(map_*):error=EBUSY",
             "--fault=bpf:when=2", "-e", "inject=bpf:retval=-1:when=3", "x"]  # fmt: skip
    rules = parse(words, "live").injections
    assert [(rule.syscall, rule.ret, rule.as_value) for rule in rules] == [
        ("ioctl", -errno.EPERM, False), ("bpf", -errno.EBUSY, False), ("bpf", -1, True),
    ]  # fmt: skip


SENTENCES = {
    "-e raw=bpf": "-e raw= (--raw) is for",
    "-N": "-N (--arg-names) is for --style strace",
    "-X raw": "-X (--const-print-style) is for",
    "--stack-trace=source": "addr2line(1) finds",
    "-S calls": "-S (--summary-sort-by) is for --style strace",
    "-U calls": "-U (--summary-columns) is for --style strace",
    "--style strace -c -S wall": "nothing, not 'wall'",
    "--style strace -c -U calls,count": "calls is asked for twice",
    "--style strace -c -U calls,": "wall-avg, not ''",
    "--style strace -U calls": "-U (--summary-columns) shapes the table of -c and -C",
    "--style strace -w": "-w (--summary-wall-clock) shapes the table of -c and -C",
    "--style strace -c -C": "give one of them",
    "-c -O 5us": "-O (--summary-syscall-overhead) is for --style strace",
    "-X both": "takes raw, abbrev, verbose",
    "--style strace=6.1": "strace=7.2",
    "--style strace=": "strace=7.2",
    "--style bpfstrace=7.2": "strace=7.2",
    "-e read=3": "-e read= is not supported: ",
    "-e w=all": "-e w= is not supported: ",
    "-e kvm=vcpu": "-e kvm= is not supported: ",
    "-e signal=SIGINT": "-e signal= (--signals) is for --style strace",
    "--signal=all": "(--signals) is for --style strace",
    "--style strace -e signal=SIGFOO": "'SIGFOO' is no signal",
    "-e verbose=none": "-e verbose= (--verbose=) is for",
    "-e abbrev=bpf": "-e abbrev= (--abbrev=) for some calls is for --style strace",
    "-e decode-pids=pidns": "own PID namespace",
    "-e decode-fds=none": "cannot be left out",
    "-e status=frob": "'frob' is none of successful, failed, unfinished, unavailable, det",
    "-e trace=%memory": "follows none of these",
    "-e trace=%frob": "'%frob' is none of bpf, ",
    "-e trace=": "names no system call",
    "-e trace=/xyz": "follows none of these",
    "-e trace=/(": "-e trace=/(: /(: ",
    "-e trace=bpf@32": "of all architectures, or not at all",
    "-e trace=bpf -e inject=ioctl:error=EPERM": "for calls that are traced",
    "-e inject=%desc,/frob:error=EPERM": "follows none of these",
    "-e fault=bpf:retval=1": "is inject='s retval=",
    "--trace-fds=3": "--trace-fds is not supported",
    "-e fd=3": "-e fd= is not supported",
    "-e secontext=full": "-e secontext= is not supported",
    "-o |cat -ff": "a command cannot be split",
    "-o - -ff": "stdout cannot be split",
    "-o - --json -": "one stdout only",
    "-t --timestamps=frob:us -p 1": "'frob' is none of format:, precision:",
    "--timestamps=format:us": "none, time or unix, not 'us'",
    "--timestamps=ns -t": "-t says how times are shown, and so did",
    "-e inject=bpf:signal=SIGUSR1": "signal= is not supported: no signals are sent",
    "-e inject=bpf:delay_enter=1": "delay_enter= is not supported",
    "-I 5": "1 (anywhere), 2 (waiting)",
    "--daemonize=forever": "grandchild, pgroup or session",
    "--syscall-times=weeks": "the precisions s, ms, us and ns",
    "--columns 60": "--style strace",
    "-a 60": "--columns 60",
    "-a": "-a watches everybody",
    "-a -p 1": "those of -p as well",
    "-a --engine ptrace": "-a needs --engine bpf",
    "--engine gdb": "ptrace or bpf",
    "--ring 8M": "--ring is for --engine bpf, or -a",
    "--engine bpf --ring lots": "takes a size, as 64M",
    "--engine bpf --ring 2G": "goes up to 1G",
    "-A": "-A needs -o FILE",
    "-c -ff -o x": "cannot be split",
    "-p 1 -D": "with -p there is none",
    "-p 1 -u root": "-u is for a program to run; with -p there is none",
    "-p 1 -E A=1": "-E is for a program to run; with -p there is none",
    "-p 1 --argv0 x": "--argv0 is for a program to run; with -p there is none",
    "-p 1 --same-cpu": "--same-cpu is for a program to run; with -p there is none",
    "-p 1 --kill-on-exit": "--kill-on-exit is for a program to run; with -p there is none",
}


@pytest.mark.parametrize("line", SENTENCES)
def test_what_is_refused_is_refused_in_words(line: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse([*line.split(" "), "true"], "live")
    assert SENTENCES[line] in str(raised.value)


def spellings() -> list[list[str]]:
    """Each option of strace's, without an argument and with one, as a command line has it."""
    found = [[f"-{letter}", *(["1"] if colon else [])] for letter, colon in
             re.findall(r"(\w)(:?)", SHORT)]  # fmt: skip
    for word in LONG:
        name = word.rstrip("[=]")
        if word in (name, f"{name}[=]"):
            found.append([f"--{name}"])
        if word != name:
            found.append([f"--{name}=1"])
    return [*found, *(["-e", f"{name}=1"] for name in QUALIFIERS)]


@pytest.mark.parametrize("words", spellings(), ids=" ".join)
def test_no_option_of_strace_is_unknown(words: list[str]) -> None:
    """It is taken, or refused in words that are about it."""
    if words[0] in ("-h", "--help"):
        return
    said = ""
    try:
        parse([*words, "-o", "x", "true"], "live")
    except UsageError as error:
        said = str(error)
    for unknown in ("not recognized", "unique prefix", "none of trace="):
        assert unknown not in said
    assert words[words[0] == "-e"].removesuffix("=1") in said or not said


def test_the_installed_strace_has_none_besides() -> None:
    """Whatever its help names stands in our list, as far as it is not newer than that."""
    needs_tool("strace")
    told = subprocess.run(["strace", "--help"], capture_output=True, text=True, check=True).stdout
    flags = set(re.findall(r"^ +(-\w)\b|(--[a-z][a-z0-9-]+)", told, re.M))
    listed = {f"-{letter}" for letter in SHORT} | {f"--{word.rstrip('[=]')}" for word in LONG}
    assert len(flags) > 60
    # Of the help only: --signal is short for --signals.
    assert {short or long for short, long in flags} - listed <= {"--signal"}


def test_the_list_is_as_it_was_generated() -> None:
    """Nobody has edited it; of which release it is, --style strace=RELEASE says."""
    facts = Facts(RELEASE, SHORT, tuple(LONG), tuple(QUALIFIERS), tuple(INJECT),
                  {option: tuple(words) for option, words in WORDS.items()})  # fmt: skip
    text = (ROOT / "tests" / "support" / "strace_options.py").read_text()
    assert rendered(facts) == text
    assert RELEASES == (RELEASE,)


TAKING = {"status": "-e status=", "secontext": "-e secontext=", "summary-columns": "-c -S "}
"""How words are given, where not as --OPTION=WORD."""


@pytest.mark.parametrize(
    ("option", "word"), [(option, word) for option, words in WORDS.items() for word in words]
)
def test_no_word_of_strace_is_unknown(option: str, word: str) -> None:
    """Of the words that an option takes: each is taken, or the option or it refused by name."""
    lines = [f"{TAKING.get(option, f'--{option}=')}{word}"]
    if option == "summary-columns" and word not in ("none", "nothing"):
        lines.append(f"-c -U {word}")
    for line in lines:
        said = ""
        try:
            parse(["--style", "strace", *line.split(" "), "true"], "live")
        except UsageError as error:
            said = str(error)
        assert not said or "is not supported" in said or (word == "pidns" and "PID name" in said)


@pytest.mark.parametrize("key", INJECT)
def test_no_way_to_inject_is_unknown(key: str) -> None:
    said = ""
    try:
        parse(["-e", f"inject=bpf:error=EPERM:{key}=1", "true"], "live")
    except UsageError as error:
        said = str(error)
    assert key == "when" or f"{key}=" in said


def rows() -> list[tuple[list[str], str, str]]:
    """Of docs/strace-options.md: flags, what is so here, and the tests."""
    found = []
    for line in (ROOT / "docs" / "strace-options.md").read_text().splitlines():
        if line.startswith("| `"):
            _, flags, here, held, _ = re.split(r"(?<!\\)\|", line)
            found.append((re.findall(r"`(-[^`]+)`", flags), here.strip(), held))
    return found


ROWS = rows()
FLAGS = [f"-{letter}" for letter in SHORT if letter != ":"] + [
    f"--{word.rstrip('[=]')}" for word in LONG
]


def test_every_option_has_its_row() -> None:
    """One row, of its own or with the options that are the same."""
    listed = [flag for flags, *_ in ROWS for flag in flags if flag not in ("-ff", "-e")]
    assert sorted(listed) == sorted({*FLAGS} - {"-e"})
    differing = (ROOT / "docs" / "usage.md").read_text().partition("## As with strace")[2]
    shown = set()
    for cell in re.findall(r"^\| (`-.*?) \|", differing.partition("\n## ")[0], re.M):
        shown |= {f"--{key}" if key else flag
                  for flag, key in re.findall(r"`(--?[\w-]+)(?: ([\w-]+)=)?", cell)}  # fmt: skip
    rows_of = {flag: row for row in ROWS for flag in row[0]}
    for flags, here, _ in ROWS:
        if "differs" in here:
            assert shown & set(flags), f"{flags}: not in the table of docs/usage.md"
    # What that table tells of an option is no news to its row.
    for flag in shown - {"-I3", "-I4"}:
        assert re.search("differs|refused", rows_of[flag][1]), flag


@pytest.mark.parametrize("row", ROWS, ids=[row[0][0] for row in ROWS])
def test_what_an_option_does_is_held(row: tuple[list[str], str, str]) -> None:
    """By tests that give it; what is refused is in the table of refusals."""
    flags, here, held = row
    refused = {flag for names in UNSUPPORTED for flag in names.split(", ")}
    assert (here == "refused") is (set(flags) <= refused)
    named = TEST.findall(held)
    if here == "refused":
        assert not named
        return
    assert named
    given = ""
    for file, name in named:
        assert name in functions_of(file), f"{file}::{name}"
        given += strings_of(file, name) + "\n"
    words = set(re.findall(r"(?<![\w-])(--?[a-zA-Z][\w-]*)", given))
    words |= {f"--{key.removesuffix('s')}" for key in re.findall(r"([a-z-]+)=", given)}  # -e KEY=
    wanted = {*flags, *(flag.removesuffix("s") for flag in flags)}
    assert words & wanted or any(
        word.startswith(flag) for word in words for flag in flags if len(flag) == 2
    ), f"none of {named} gives {flags}"
