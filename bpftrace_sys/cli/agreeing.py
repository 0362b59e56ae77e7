"""Options that need or exclude each other."""

from __future__ import annotations

from bpftrace_sys.cli.getopt_long import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from bpftrace_sys.cli.settings import Settings

FOR_A_PROGRAM: Final = {
    "user": "-u", "argv0": "--argv0", "environment": "-E", "kill": "--kill-on-exit",
    "same_cpu": "--same-cpu",
}  # fmt: skip
"""Settings that mean nothing for what is attached to."""
FOR_STRACE_STYLE: Final = {
    "arguments": "-N (--arg-names)", "raw": "-e raw= (--raw)",
    "undecoded": "-e verbose= (--verbose=)", "summary_order": "-S (--summary-sort-by)",
    "signals_asked": "-e signal= (--signals)", "summary_columns": "-U (--summary-columns)",
    "unabbreviated": "-e abbrev= (--abbrev=) for some calls",
    "overhead": "-O (--summary-syscall-overhead)",
}  # fmt: skip
"""Settings that shape lines and a table which bpfstrace's own style has not."""
FOR_A_TABLE: Final = {
    "summary_columns": "-U (--summary-columns)", "wall": "-w (--summary-wall-clock)",
}
"""Of strace's style, what must be given with -c or -C."""
FOR_BPF: Final = {"ring": "--ring", "uid": "--uid", "cgroup": "--cgroup"}
"""Settings of the eBPF engine."""


def agreed(settings: Settings) -> None:
    """Makes of the settings what they mean together; UsageError where they exclude each other."""
    if settings.output is None:
        settings.split = False  # as strace: -ff is -f then
    elif settings.split and settings.output[:1] in ("|", "!"):
        raise UsageError("-ff makes files FILE.TID of -o FILE; a command cannot be split")
    elif settings.split and settings.output == "-":
        raise UsageError("-ff makes files FILE.TID of -o FILE; stdout cannot be split")
    if settings.split and settings.counts:
        raise UsageError("-c prints one summary of all threads; it cannot be split by -ff")
    if settings.append and settings.output is None:
        raise UsageError("-A needs -o FILE, to append to")
    if settings.output == "-" and "-" in (settings.json, settings.report, settings.events):
        raise UsageError("-o -: there is one stdout only, and it is asked for twice")
    if settings.aligned and settings.style != "strace":
        raise UsageError("--columns aligns the results of --style strace; give that as well")
    if settings.style != "strace":
        given = [flag for name, flag in FOR_STRACE_STYLE.items() if getattr(settings, name)]
        if settings.constants != "abbrev":
            given.append("-X (--const-print-style)")
        for flag in given:
            raise UsageError(f"{flag} is for --style strace; give that as well")
    if settings.style == "strace" and not settings.canonical:
        _agree_on_table(settings)
    for rule in settings.injections:
        if rule.syscall not in settings.traced:
            raise UsageError(f"inject= is for calls that are traced; -e trace={rule.syscall}, too")
    _agree_on_redacting(settings)
    _agree_on_panes(settings)
    _agree_on_engine(settings)
    if not settings.pids and not settings.everybody:
        return
    whom = "-a" if settings.everybody else "-p"
    if settings.background:
        raise UsageError(f"-D runs a program in front; with {whom} there is none")
    for name, flag in FOR_A_PROGRAM.items():
        if getattr(settings, name):
            raise UsageError(f"{flag} is for a program to run; with {whom} there is none")


def _agree_on_table(settings: Settings) -> None:
    if settings.counts and settings.summary:
        raise UsageError("-c is the table alone, -C the table besides the calls: give one of them")
    for name, flag in FOR_A_TABLE.items():
        if getattr(settings, name) and not (settings.counts or settings.summary):
            raise UsageError(f"{flag} shapes the table of -c and -C; give one of them as well")


def _agree_on_redacting(settings: Settings) -> None:
    if not settings.redacted:
        return
    if settings.kernel:
        raise UsageError(
            "-e kernel= shows what is left of map values; it cannot be had with --redact"
        )
    if settings.paths and "paths" in settings.redacted:
        raise UsageError(
            "-P chooses by paths, which --redact hides; try: --redact=values,strings,argv,host"
        )


def _agree_on_panes(settings: Settings) -> None:
    if not settings.tui:
        return
    if settings.background:
        raise UsageError("-D traces from the background; --tui is in front")
    if "-" in (settings.output, settings.json, settings.report, settings.events):
        raise UsageError("--tui draws on the terminal; outputs beside it go to files, not to -")
    if settings.rotate[0] is not None:
        raise UsageError("--rotate begins files anew; --tui reads the one trace as it grows")
    if settings.json is not None and settings.json.endswith((".gz", ".zst")):
        raise UsageError(
            "--tui reads the trace as it grows: --json FILE without .gz or .zst; compress it after"
        )


def _agree_on_engine(settings: Settings) -> None:
    if settings.everybody:
        if settings.engine == "ptrace":
            raise UsageError("-a needs --engine bpf: ptrace cannot watch everybody")
        if settings.pids:
            raise UsageError("-a watches everybody, those of -p as well")
        if settings.args:
            number = settings.args[0]
            if number.isdigit():
                raise UsageError(f"-a is the whole machine; to align results: --columns {number}")
            raise UsageError("-a watches everybody; run the program besides")
        settings.engine = "bpf"
        settings.follow = True
    if settings.rotate[0] is not None:
        if settings.json is None or settings.json == "-":
            raise UsageError("--rotate needs --json FILE: that is what it begins anew")
        if settings.engine != "bpf":
            raise UsageError("--rotate is for --engine bpf, or -a")
    if settings.engine != "bpf":
        for name, flag in FOR_BPF.items():
            if getattr(settings, name) is not None:
                raise UsageError(f"{flag} is for --engine bpf, or -a")
