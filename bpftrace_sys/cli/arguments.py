"""What follows ``bpfstrace SUBCOMMAND``, read by its row."""

from __future__ import annotations

from bpftrace_sys.cli.commands import BY_NAME, HELP, Command
from bpftrace_sys.cli.config import NO_CONFIG, WITH_OPTIONS, ConfigError, load, use_theme
from bpftrace_sys.cli.getopt_long import UnknownOptionError, UsageError, scan


def arguments(name: str, words: list[str]) -> tuple[list[tuple[str, str]], list[str]] | None:
    """What follows ``bpfstrace NAME``: each option by its long name with its argument (or ""),
    in order, and the words that are none; options of the configuration file first. None: help was
    asked for, and is printed.

    Raises UsageError.
    """
    row = BY_NAME[name]
    given, rest = _scanned(row, [word for word in words if word != NO_CONFIG])
    if ("--help", "") in given:
        from bpftrace_sys.cli.help import of_command

        print(of_command(row), end="")
        return None
    return [*([] if NO_CONFIG in words else _configured(row)), *given], rest


def _configured(row: Command) -> list[tuple[str, str]]:
    """The options of the file. Raises ConfigError, which names the line of a mistake."""
    if row.name not in WITH_OPTIONS:
        return []
    found = load()
    use_theme(found)
    pairs = []
    for table, key, word in found.words(row.name):
        try:
            ((flag, text),), _ = _scanned(row, [word])
            if flag == "--help":
                raise UsageError(f"{key} does not belong here")
            check = {f"--{each.long}": each.value for each in row.flags}[flag]
            if check is not None:
                check(flag, text)
        except UsageError as error:
            raise ConfigError(f"{found.place(table, key)}: {error}") from None
        pairs.append((flag, text))
    return pairs


def _scanned(row: Command, words: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    name = row.name
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
    return [(long[spelling], text) for spelling, text in given], rest


def or_trace(name: str, words: list[str]) -> str:
    """To follow a message: how a program of that name is traced."""
    return f"; to trace the program {name}: bpfstrace -- {' '.join([name, *words])}"
