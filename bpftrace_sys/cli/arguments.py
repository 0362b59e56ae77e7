"""What follows ``bpfstrace SUBCOMMAND``, read by its row."""

from __future__ import annotations

from bpftrace_sys.cli.commands import BY_NAME, HELP
from bpftrace_sys.cli.getopt_long import UnknownOptionError, UsageError, scan


def arguments(name: str, words: list[str]) -> tuple[list[tuple[str, str]], list[str]] | None:
    """What follows ``bpfstrace NAME``: each option by its long name with its argument (or ""),
    in order, and the words that are none. None: help was asked for, and is printed.

    Raises UsageError.
    """
    row = BY_NAME[name]
    takes: dict[str, bool | None] = {}
    long = {}
    for flag in (*row.flags, HELP):
        for spelling in (f"-{flag.short}", *(f"--{name}" for name in (flag.long, *flag.also))):
            if spelling != "-":
                takes[spelling] = None if flag.metavar[:1] == "[" else bool(flag.metavar)
                long[spelling] = f"--{flag.long}"
    try:
        given, rest = scan(words, takes, anywhere=True)
    except UnknownOptionError as error:
        from bpftrace_sys.cli.suggest import meant

        if row.program:
            raise UsageError(f"{name} takes no {error.flag!r}{or_trace(name, words)}") from None
        raise UsageError(f"{name}: {error}{meant(error.flag, takes)}") from None
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None
    pairs = [(long[spelling], text) for spelling, text in given]
    if ("--help", "") in pairs:
        from bpftrace_sys.cli.help import of_command

        print(of_command(row), end="")
        return None
    return pairs, rest


def or_trace(name: str, words: list[str]) -> str:
    """To follow a message: how a program of that name is traced."""
    return f"; to trace the program {name}: bpfstrace -- {' '.join([name, *words])}"
