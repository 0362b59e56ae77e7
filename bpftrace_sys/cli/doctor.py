"""``bpfstrace doctor``: what this machine allows, and what to do."""

from __future__ import annotations

import sys
from typing import Final

from bpftrace_sys.cli.arguments import arguments
from bpftrace_sys.cli.getopt_long import UsageError
from bpftrace_sys.cli.messages import DIFFERENT, DONE, OWN_FAILURE
from bpftrace_sys.common.escape import printable
from bpftrace_sys.common.strict_json import dumps
from bpftrace_sys.record.abilities import BAD, Ability, abilities
from bpftrace_sys.render.output import Output, close

SIGNS: Final = {"yes": "ok", "no": "NO", "partly": "--", "unseen": "??"}


def main(words: list[str]) -> int:
    """``bpfstrace doctor``; returns the exit code."""
    found = arguments("doctor", words)
    if found is None:
        return DONE
    if found[1]:
        raise UsageError(f"doctor takes no {found[1][0]!r}")
    rows = abilities()
    out = Output(sys.stdout, "<stdout>")
    for row in rows:
        out.write(_line(row) if ("--json", "") in found[0] else _text(row))
    out.flush()
    code = DIFFERENT if any(row.needed and row.state == BAD for row in rows) else DONE
    return code if out.closed_pipe or close([out]) else OWN_FAILURE


def _line(row: Ability) -> str:
    return dumps({"name": row.name, "state": row.state, "found": row.found, "advice": row.advice,
                  "needed": row.needed}) + "\n"  # fmt: skip


def _text(row: Ability) -> str:
    text = f"{SIGNS[row.state]}  {row.name:<20} {printable(row.found)}\n"
    return text + (f"{'':<24} -> {printable(row.advice)}\n" if row.advice else "")
