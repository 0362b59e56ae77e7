"""-e KEY=SET and the long options of the same names: what is traced, shown, made to fail."""

from __future__ import annotations

from bpftrace_sys.cli.call_sets import BARE, call_set
from bpftrace_sys.cli.getopt_long import UsageError, words_of
from bpftrace_sys.cli.settings import NETLINK, TRACED
from bpftrace_sys.cli.strace_style import abbreviated, decoded, raw, signals
from bpftrace_sys.cli.suggest import meant
from decoders.arch import NETLINK_CALLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from typing import Final

    from bpftrace_sys.cli.settings import Apply, Settings
    from bpftrace_sys.record.capture.inject import Rule

STATUSES: Final = ("successful", "failed", "unfinished", "unavailable", "detached")
"""strace's. None is unavailable: that is one whose result could not be had though it returned."""
KERNEL: Final = ("xlated", "jited", "map")
SYNTAXES: Final = ("att", "intel")
FD_DETAILS: Final = ("path", "socket", "dev", "eventfd", "pidfd", "signalfd")
QUIET: Final = ("attach", "exit", "path-resolution", "personality", "thread-execve")
QUIET_ALSO: Final = {"superseded": "thread-execve", "exits": "exit"}


def choice(
    flag: str, text: str, known: Collection[str], also: Mapping[str, str] = {}
) -> frozenset[str]:
    """A set as strace writes it: ``a,b``, ``!a``, ``all``, ``none``. UsageError for others.

    ``also``: other names of known ones.
    """
    negated = text.startswith("!")
    chosen: set[str] = set()
    for name in words_of(text.removeprefix("!")):
        word = also.get(name, name)
        if word == "all":
            chosen |= set(known)
        elif word in known:
            chosen.add(word)
        elif word != "none":
            raise UsageError(f"{flag}: {word!r} is none of {', '.join(known)}{meant(word, known)}")
    return frozenset(known) - chosen if negated else frozenset(chosen)


def expression(settings: Settings, flag: str, text: str) -> None:
    """``-e KEY=VALUES``; the word ``trace=`` may be left out, as in strace."""
    key, equals, values = text.partition("=")
    if not equals:
        key, values = "trace", text
    row = EXPRESSIONS.get(key)
    if row is not None:
        row(settings, f"{flag} {text}", values)
        return
    from bpftrace_sys.cli.unsupported import QUALIFIERS, UNSUPPORTED

    if key in QUALIFIERS:
        raise UsageError(f"{flag} {key}= is not supported: {UNSUPPORTED[QUALIFIERS[key]]}")
    known = ", ".join(f"{name}=" for name in EXPRESSIONS if len(name) > 1)
    raise UsageError(f"{flag} {text}: {key!r} is none of {known}{meant(key, EXPRESSIONS)}")


def redact(settings: Settings, flag: str, text: str) -> None:
    """--redact[=CLASSES]"""
    from bpftrace_sys.trace.redacted import CLASSES, USUAL

    chosen = choice(flag, text or ",".join(USUAL), CLASSES)
    # ``!`` leaves something out of what is hidden without a word of it.
    settings.redacted = chosen & frozenset(USUAL) if text.startswith("!") else chosen


def trace(settings: Settings, flag: str, text: str) -> None:
    """Which calls: see call_sets.py."""
    negated, words = call_set(flag, text)
    calls = words - {NETLINK}
    if not words:  # all, or none
        settings.traced = TRACED if negated else ()
        settings.explicit = frozenset(settings.traced)
        return
    if negated:
        settings.traced = tuple(call for call in TRACED if call not in calls)
        settings.explicit = frozenset()
        return
    # Alone it adds to what is traced anyway: the programs are loaded by bpf().
    settings.traced = tuple(call for call in TRACED if call in calls or not calls)
    if NETLINK in words:
        settings.traced += NETLINK_CALLS
    settings.explicit = calls


def bpf(settings: Settings, flag: str, text: str) -> None:
    """Only these bpf commands."""
    settings.commands = (*settings.commands, *words_of(text))
    if not bpf_commands(settings.commands):
        raise UsageError(f"{flag}: no bpf command is left; they are {', '.join(_lower())}")


def prog(settings: Settings, flag: str, text: str) -> None:
    """Only what concerns these programs."""
    settings.progs = (*settings.progs, *words_of(text))


def kernel(settings: Settings, flag: str, text: str) -> None:
    """What the kernel made of each program: translated, native, which became which."""
    words = words_of(text)
    settings.syntax = "intel" if "intel" in words else "att"
    known = choice(flag, ",".join(word for word in words if word not in SYNTAXES), KERNEL)
    if not known:
        raise UsageError(f"{flag}: names none of {', '.join(KERNEL)}")
    settings.kernel = tuple(word for word in KERNEL if word in known or word in settings.kernel)


def status(settings: Settings, flag: str, text: str) -> None:
    """Only calls that ended so."""
    settings.statuses = settings.statuses | choice(flag, text, STATUSES)
    if not settings.statuses:
        raise UsageError(f"{flag}: names none of {', '.join(STATUSES)}")


def quiet(settings: Settings, flag: str, text: str) -> None:
    """What is not said; in bpfstrace's own style that is about ends of processes only."""
    settings.silenced = choice(flag, text, QUIET, QUIET_ALSO)
    settings.quiet = "exit" in settings.silenced


def decode_fds(settings: Settings, flag: str, text: str) -> None:
    """What an fd is stands with it in any case; --style strace has it as strace does."""
    words = choice(flag, text, FD_DETAILS) if text else frozenset(("path",))
    if not words:
        raise UsageError(f"{flag}: what an fd is cannot be left out; replay --canonical does")
    again = flag == "-y" and settings.shown_fds
    settings.shown_fds = frozenset(FD_DETAILS) if again else words


def decode_pids(settings: Settings, flag: str, text: str) -> None:
    """Names with thread ids."""
    words = choice(flag, text or "comm", ("comm", "pidns"))
    if "pidns" in words and text != "all":
        raise UsageError(f"{flag}: ids are shown as bpfstrace's own PID namespace has them")
    settings.comms = "comm" in words


def abbreviate(settings: Settings, flag: str, text: str) -> None:
    """strace's way to say -v: which calls are abbreviated."""
    settings.unabbreviated = abbreviated(flag, text)
    settings.verbose = settings.unabbreviated == frozenset(TRACED)
    if settings.verbose:
        settings.unabbreviated = frozenset()


def verbose(settings: Settings, flag: str, text: str) -> None:
    """-v; with a set, strace's other meaning: the calls whose structures are decoded."""
    if text:
        decoded(settings, flag, text)
    else:
        settings.verbose = True


def inject(settings: Settings, flag: str, text: str) -> None:
    """Calls that are made to fail."""
    _inject(settings, flag, text)


def fault(settings: Settings, flag: str, text: str) -> None:
    """inject=, with ENOSYS where no error is named."""
    if ":retval=" in text:
        raise UsageError(f"{flag}: fault= makes calls fail; what they return is inject='s retval=")
    _inject(settings, flag, text if ":error=" in text else f"{text}:error=ENOSYS")


def _inject(settings: Settings, flag: str, text: str) -> None:
    from bpftrace_sys.record.capture.inject import InjectError, parse

    calls, colon, how = text.partition(":")
    # Between calls, not between the commands of one.
    for word in _outside(calls):
        for call in _injected(flag, word):
            try:
                rule = parse(f"{call}{colon}{how}", bpf_commands)
            except InjectError as error:
                raise UsageError(f"{flag}: {error}") from None
            if rule.syscall not in TRACED:
                near = meant(rule.syscall, TRACED)
                raise UsageError(f"{flag}: {rule.syscall!r} is none of {', '.join(TRACED)}{near}")
            _replace(settings, rule)


def _replace(settings: Settings, rule: Rule) -> None:
    """As in strace the last rule for a call is the one that counts; those for some commands of
    bpf(2), or for one name, stand beside each other."""
    if rule.commands is None and rule.name is None:
        settings.injections = [
            other for other in settings.injections
            if other.syscall != rule.syscall or other.commands is not None or other.name is not None
        ]  # fmt: skip
    settings.injections.append(rule)


def _injected(flag: str, word: str) -> list[str]:
    """A call, perhaps with commands; or those of a class or pattern."""
    if word[:1] not in ("%", "/", "!", "?") and word not in ("all", "none", *BARE):
        return [word]
    negated, calls = call_set(flag, word)
    return [call for call in TRACED if (call in calls) is not negated]


def _outside(text: str) -> list[str]:
    """The parts between commas that stand in no parentheses; at least one."""
    parts = [""]
    depth = 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _lower() -> dict[str, int]:
    from decoders.uapi import names

    numbers = {name.removeprefix("BPF_").lower(): number for number, name in names.bpf_cmd.items()}
    for alias, number in names.ALIASES.get("bpf_cmd", {}).items():
        numbers[alias.removeprefix("BPF_").lower()] = number
    return numbers


def bpf_commands(patterns: Iterable[str]) -> frozenset[int]:
    """The commands that ``prog_load,map_*,!map_freeze`` selects.

    Names without BPF_, in any case; the first pattern decides whether the rest
    begins with nothing or with everything.  UsageError for a name that is none.
    """
    import fnmatch

    patterns = tuple(patterns)
    known = _lower()
    first = patterns[0].startswith("!") if patterns else True
    chosen = set(known.values()) if first else set()
    for pattern in patterns:
        word = pattern.removeprefix("!").lower().removeprefix("bpf_")
        found = {number for name, number in known.items() if fnmatch.fnmatchcase(name, word)}
        if not found:
            near = meant(word, known)
            raise UsageError(f"-e bpf={pattern}: no such bpf command{near or '; see bpf(2)'}")
        if pattern.startswith("!"):
            chosen -= found
        else:
            chosen |= found
    return frozenset(chosen)


EXPRESSIONS: Final[dict[str, Apply]] = {
    "trace": trace,
    "t": trace,
    "bpf": bpf,
    "prog": prog,
    "kernel": kernel,
    "status": status,
    "inject": inject,
    "fault": fault,
    "quiet": quiet,
    "silent": quiet,
    "silence": quiet,
    "q": quiet,
    "signal": signals,
    "signals": signals,
    "s": signals,
    "decode-fds": decode_fds,
    "decode-fd": decode_fds,
    "decode-pids": decode_pids,
    "decode-pid": decode_pids,
    "abbrev": abbreviate,
    "a": abbreviate,
    "verbose": decoded,
    "v": decoded,
    "raw": raw,
    "x": raw,
}
"""By the word before the ``=``, and strace's short forms of it."""
