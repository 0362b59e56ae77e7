#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Writes the man pages and the completions of shells, from the tables of options and subcommands.

    tools/gen_manual.py            writes share/man and what shells read below share/
    tools/gen_manual.py --check    says which of them are not what they would be; exit code 1

It takes a second. pyproject.toml lists them as data files, so that pip puts them where man and
the shells look.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

REPO: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

from bpftrace_sys import __version__  # noqa: E402
from bpftrace_sys.cli.commands import HELP, ROWS, Command, Flag  # noqa: E402
from bpftrace_sys.cli.help import EXAMPLES, USAGE  # noqa: E402
from bpftrace_sys.cli.options import GROUPS, OPTIONS, SILENT, Option  # noqa: E402

SHARE: Final = REPO / "share"
DATE: Final = "2026-11-26"
"""Of the manual: the day of its version."""
STATUSES: Final = (
    ("127, 126", "the program was not found; was found, but cannot be executed"),
    ("125", "bpfstrace could not do its work: tracing is not permitted, an output cannot be "
            "opened or was lost; memory or fds ran out, and the program ran on unseen"),
    ("2", "wrong arguments, or a trace that cannot be read to its end"),
)  # fmt: skip
FILES: Final = frozenset({"FILE", "PATH", "PAGE"})
DIRS: Final = frozenset({"DIR"})
"""Words for an argument that completions know, beside USER, PID, and ``a|b``."""


# ---------------------------------------------------------------- man


def roff(text: str) -> str:
    """Text as it is, for a line of roff."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\`")
    return "\\&" + text if text.startswith((".", "'")) else text


def _head(name: str, summary: str) -> list[str]:
    title = name.upper().replace("-", "\\-")
    return [
        '.\\" Made by tools/gen_manual.py; changes belong into bpftrace_sys/cli/.',
        f'.TH {title} 1 "{DATE}" "bpfstrace {__version__}" "User Commands"',
        ".SH NAME",
        f"{roff(name)} \\- {roff(summary)}",
    ]


def _synopsis(forms: list[tuple[str, str]]) -> list[str]:
    lines = [".SH SYNOPSIS"]
    for at, (command, form) in enumerate(forms):
        lines += [".br"] * (at > 0) + [f"\\fB{roff(command)}\\fR {roff(form)}".rstrip()]
    return lines


def _entry(short: str, long: str, metavar: str, text: str) -> list[str]:
    spellings = [f"\\fB{roff(f'-{short}')}\\fR"] if short else []
    gap = "" if metavar.startswith("[") or not metavar else " "
    spellings.append(f"\\fB{roff(f'--{long}')}\\fR{gap}\\fI{roff(metavar)}\\fR")
    lines = [".TP", ", ".join(spellings).replace("\\fI\\fR", "")]
    for at, part in enumerate(text.split("\n")):
        lines += [".br"] * (at > 0) + [roff(part)]
    return lines


def _grouped(rows: list[Option]) -> list[str]:
    lines = []
    for group in GROUPS:
        mine = [row for row in rows if row.group == group]
        if mine:
            lines.append(f".SS {roff(group)}")
        for row in mine:
            lines += _entry(row.short, row.long, row.metavar, row.help)
    return lines


def main_page() -> str:
    """bpfstrace(1)."""
    lines = _head("bpfstrace", "trace what a program asks of the kernel's BPF")
    lines += _synopsis([("bpfstrace", form) for form, _ in USAGE])
    lines += [
        ".SH DESCRIPTION",
        roff("bpfstrace runs a program and prints, decoded, everything that the program asks of "
             "the kernel's BPF machinery: each program that it loads, as a listing with source "
             "lines; each map, BTF blob and perf event, under its name; and how they were tied "
             "together. The trace can be saved as JSON, replayed without a kernel or privileges, "
             "compared and checked."),
        ".PP",
        roff("Options stand before PROG, as in strace; what follows PROG is its own. A first word "
             "that is a subcommand is taken for one; to trace a program of that name put an "
             "option or -- before it: bpfstrace -- replay."),
        ".SH SUBCOMMANDS",
    ]  # fmt: skip
    for row in ROWS:
        lines += [".TP", f"\\fB{row.name}\\fR", f"{roff(row.summary)}; see",
                  f".BR bpfstrace\\-{row.name} (1)"]  # fmt: skip
    lines += [".SH OPTIONS", *_grouped(list(OPTIONS)), ".SH EXIT STATUS",
              roff("That of the program. If a signal killed the program, bpfstrace dies by the "
                   "same signal. Besides:")]  # fmt: skip
    for status, text in STATUSES:
        lines += [".TP", f"\\fB{status}\\fR", roff(text)]
    lines.append(".SH EXAMPLES")
    for command, text in EXAMPLES:
        lines += [".TP", f"\\fB{roff(command)}\\fR", roff(text or "only these commands")]
    lines += [".SH SEE ALSO", ".BR strace (1),", ".BR bpf (2),", ".BR ptrace (2)"]
    return "\n".join(lines) + "\n"


def page_of(row: Command) -> str:
    """bpfstrace-NAME(1)."""
    lines = _head(f"bpfstrace-{row.name}", row.summary.rstrip("?"))
    lines += _synopsis([(f"bpfstrace {row.name}", form) for form in row.usage])
    lines.append(".SH DESCRIPTION")
    for at, text in enumerate(row.about):
        lines += [".PP"] * (at > 0) + [roff(text)]
    lines.append(".SH OPTIONS")
    if row.name == "replay":
        lines += _grouped([option for option in OPTIONS if option.only != "live"])
    else:
        for flag in (*row.flags, HELP):
            lines += _entry(flag.short, flag.long, flag.metavar, flag.help)
    lines += [".SH EXIT STATUS", roff(row.exit_words), ".SH SEE ALSO", ".BR bpfstrace (1)"]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- completions


def _rows(row: Command | None) -> list[Flag]:
    """What may be completed: of tracing (None), or of a subcommand."""
    if row is not None and row.name != "replay":
        return [*row.flags, HELP]
    unwanted = "replay" if row is None else "live"
    return [
        Flag(option.short, option.long, option.metavar, option.help.split("\n")[0])
        for option in (*OPTIONS, *SILENT)
        if option.only != unwanted
    ]


def _spellings(flag: Flag) -> list[str]:
    return [f"-{flag.short}"] * bool(flag.short) + [f"--{flag.long}"]


def _case(flags: list[Flag], indent: str) -> list[str]:
    """Bash: what stands behind an option that takes an argument."""
    lines = []
    for flag in flags:
        if not flag.metavar or flag.metavar.startswith("["):
            continue
        if "|" in flag.metavar:
            word = f'COMPREPLY=($(compgen -W "{flag.metavar.replace("|", " ")}" -- "$cur"))'
        elif flag.metavar in FILES:
            word = 'COMPREPLY=($(compgen -f -- "$cur"))'
        elif flag.metavar in DIRS:
            word = 'COMPREPLY=($(compgen -d -- "$cur"))'
        elif flag.metavar == "USER":
            word = 'COMPREPLY=($(compgen -u -- "$cur"))'
        else:
            word = "COMPREPLY=()"
        lines.append(f"{indent}{'|'.join(_spellings(flag))}) {word}; return ;;")
    return lines


def bash() -> str:
    """For bash, with or without the bash-completion package."""
    lines = [
        "# bpfstrace(1) completion. Made by tools/gen_manual.py.",
        "_bpfstrace() {",
        "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} at=1 options",
        "    compopt -o filenames 2>/dev/null",
        "    case ${COMP_WORDS[1]} in",
    ]
    for row in ROWS:
        flags = _rows(row)
        words = " ".join(word for flag in flags for word in _spellings(flag))
        files = 'COMPREPLY=($(compgen -f -- "$cur"))' if row.takes else "COMPREPLY=()"
        lines += [
            f"    {row.name})",
            '        if [ "$COMP_CWORD" -gt 1 ]; then',
            '            case $prev in',
            *_case(flags, " " * 16),
            "            esac",
            f'            case $cur in -*) COMPREPLY=($(compgen -W "{words}" -- "$cur")) ;;',
            f"            *) {files} ;; esac",
            "            return",
            "        fi ;;",
        ]  # fmt: skip
    flags = _rows(None)
    takes = [word for flag in flags for word in _spellings(flag)
             if flag.metavar and not flag.metavar.startswith("[")]  # fmt: skip
    words = " ".join(word for flag in flags for word in _spellings(flag))
    names = " ".join(row.name for row in ROWS)
    lines += [
        "    esac",
        "    # The first word that is neither an option nor its argument is the program.",
        '    while [ "$at" -lt "$COMP_CWORD" ]; do',
        "        case ${COMP_WORDS[at]} in",
        f"        {'|'.join(takes)}) at=$((at + 2)) ;;",
        "        -*) at=$((at + 1)) ;;",
        "        *) break ;;",
        "        esac",
        "    done",
        '    if [ "$at" -lt "$COMP_CWORD" ]; then',
        "        if declare -F _command_offset >/dev/null; then _command_offset \"$at\"",
        '        else COMPREPLY=($(compgen -f -- "$cur")); fi',
        "        return",
        "    fi",
        "    case $prev in",
        *_case(flags, "    "),
        "    esac",
        "    case $cur in",
        f'    -*) options="{words}"',
        '        COMPREPLY=($(compgen -W "$options" -- "$cur")) ;;',
        '    *) COMPREPLY=($(compgen -c -- "$cur") $(compgen -d -- "$cur"))',
        f'        [ "$COMP_CWORD" -gt 1 ] || COMPREPLY+=($(compgen -W "{names}" -- "$cur")) ;;',
        "    esac",
        "}",
        "complete -F _bpfstrace bpfstrace",
    ]
    return "\n".join(lines) + "\n"


def _zsh_text(text: str) -> str:
    for letter in "\\[]:":
        text = text.replace(letter, f"\\{letter}")
    return text.replace("'", "'\\''")


def _zsh_specs(flags: list[Flag]) -> list[str]:
    specs = []
    for flag in flags:
        action = ""
        if flag.metavar and not flag.metavar.startswith("["):
            if "|" in flag.metavar:
                what = f"({flag.metavar.replace('|', ' ')})"
            elif flag.metavar in FILES | DIRS:
                what = "_files -/" if flag.metavar in DIRS else "_files"
            else:
                what = {"USER": "_users", "PID": "_pids"}.get(flag.metavar, " ")
            action = f":{_zsh_text(flag.metavar)}:{what}"
        for word in _spellings(flag):
            joint = ""
            if action:
                joint = "=" if word.startswith("--") else "+"
            specs.append(f"'*{word}{joint}[{_zsh_text(flag.help)}]{action}'")
    return specs


def zsh() -> str:
    """For zsh's compinit."""
    lines = ["#compdef bpfstrace", "# Made by tools/gen_manual.py.", "", "local -a subcommands",
             "subcommands=("]  # fmt: skip
    lines += [f"    '{row.name}:{_zsh_text(row.summary)}'" for row in ROWS]
    lines += [")", "case $words[2] in"]
    for row in ROWS:
        lines += [
            f"{row.name})",
            "    if (( CURRENT > 2 )); then",
            "        shift words; (( CURRENT-- ))",
            "        _arguments -s -S \\",
            *(f"            {spec} \\" for spec in _zsh_specs(_rows(row))),
            "            '*:file:_files'" if row.takes else "            '*: :'",
            "        return",
            "    fi ;;",
        ]
    lines += [
        "esac",
        "_bpfstrace_first() {",
        "    (( CURRENT == 2 )) && _describe -t subcommands subcommand subcommands",
        "    _path_commands",
        "}",
        "_arguments -s -S \\",
        *(f"    {spec} \\" for spec in _zsh_specs(_rows(None))),
        "    '1:program or subcommand:_bpfstrace_first' \\",
        "    '*::argument:_normal'",
    ]
    return "\n".join(lines) + "\n"


def _fish_row(flag: Flag, when: str) -> str:
    text = flag.help.replace("\\", "\\\\").replace("'", "\\'")
    words = f"complete -c bpfstrace -n '{when}'"
    if flag.short:
        words += f" -s {flag.short}"
    words += f" -l {flag.long}"
    if flag.metavar and not flag.metavar.startswith("["):
        if "|" in flag.metavar:
            words += f" -x -a '{flag.metavar.replace('|', ' ')}'"
        elif flag.metavar in DIRS:
            words += " -x -a '(__fish_complete_directories)'"
        elif flag.metavar in FILES:
            words += " -r -F"
        elif flag.metavar == "USER":
            words += " -x -a '(__fish_complete_users)'"
        elif flag.metavar == "PID":
            words += " -x -a '(__fish_complete_pids)'"
        else:
            words += " -x"
    return f"{words} -d '{text}'"


def fish() -> str:
    """For fish."""
    names = " ".join(row.name for row in ROWS)
    lines = [
        "# Made by tools/gen_manual.py.",
        "function __bpfstrace_sub",
        "    set -l words (commandline -opc)",
        "    if test (count $words) -lt 2; or not contains -- $words[2] " + names,
        "        test -z \"$argv[1]\"",
        "    else",
        "        test \"$argv[1]\" = $words[2]",
        "    end",
        "end",
        "function __bpfstrace_first",
        "    test (count (commandline -opc)) -eq 1",
        "end",
        "complete -c bpfstrace -n __bpfstrace_sub -x -a '(__fish_complete_subcommand)'",
    ]  # fmt: skip
    for row in ROWS:
        text = row.summary.replace("'", "\\'")
        lines.append(f"complete -c bpfstrace -n __bpfstrace_first -a {row.name} -d '{text}'")
    for row in ROWS:
        if not row.takes:
            lines.append(f"complete -c bpfstrace -n '__bpfstrace_sub {row.name}' -f")
        lines += [_fish_row(flag, f"__bpfstrace_sub {row.name}") for flag in _rows(row)]
    lines += [_fish_row(flag, "__bpfstrace_sub") for flag in _rows(None)]
    return "\n".join(lines) + "\n"


# ----------------------------------------------------------------


def files() -> dict[Path, str]:
    """All that is made: text by path."""
    pages = SHARE / "man" / "man1"
    made = {pages / "bpfstrace.1": main_page()}
    made |= {pages / f"bpfstrace-{row.name}.1": page_of(row) for row in ROWS}
    made[SHARE / "bash-completion" / "completions" / "bpfstrace"] = bash()
    made[SHARE / "zsh" / "site-functions" / "_bpfstrace"] = zsh()
    made[SHARE / "fish" / "vendor_completions.d" / "bpfstrace.fish"] = fish()
    return made


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="only say what is not up to date")
    check: bool = parser.parse_args().check
    made = files()
    there = {path for path in SHARE.rglob("*") if path.is_file()}
    wrong = sorted(there - set(made))
    wrong += [path for path, text in made.items()
              if path not in there or path.read_text() != text]  # fmt: skip
    if check:
        for path in wrong:
            print(f"{path.relative_to(REPO)}: run tools/gen_manual.py", file=sys.stderr)
        return 1 if wrong else 0
    for path in there - set(made):
        path.unlink()
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
