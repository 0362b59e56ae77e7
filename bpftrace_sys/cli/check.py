"""``bpfstrace check``: does a trace do only what a reviewed lock file allows?"""

from __future__ import annotations

import getopt
import os
import sys
from collections.abc import Iterable
from typing import Final

from bpftrace_sys.cli.options import UsageError
from bpftrace_sys.compare.policy.deeds import KINDS, Deed, JudgementError, deeds_of, describe
from bpftrace_sys.compare.policy.lock_file import LockError, load, save, updated
from bpftrace_sys.story.targets import printable

WITHIN: Final = 0
OUTSIDE: Final = 1
TROUBLE: Final = 2

USAGE: Final = """\
usage: bpfstrace check TRACE... --lock FILE [--update [--no-tags]]

Compares what traces do with a reviewed lock file (TOML, or JSON if FILE ends in
.json): programs by name, type and tag, the helpers and kfuncs that they call,
where they are attached, maps, and pins. Whatever is outside the file is listed.

  --lock FILE   the lock file
  --update      write FILE so that it allows just what these traces do
  --no-tags     with --update: let instructions change (pin_tags = false)
  --tags        with --update: hold them again

Exit code: 0 nothing is outside, 1 something is, 2 trouble: a damaged or partial
trace is never a pass.
"""


def main(words: list[str]) -> int:
    """``bpfstrace check``; returns the exit code."""
    try:
        pairs, traces = getopt.gnu_getopt(
            words, "h", ["lock=", "update", "no-tags", "tags", "help"]
        )
    except getopt.GetoptError as error:
        raise UsageError(error.msg) from None
    given = dict(pairs)
    if "-h" in given or "--help" in given:
        print(USAGE, end="")
        return WITHIN
    path = given.get("--lock")
    if not path or not traces:
        raise UsageError("check takes traces and --lock FILE; see bpfstrace check --help")
    update = "--update" in given
    if not update and ("--no-tags" in given or "--tags" in given):
        raise UsageError("--tags and --no-tags go with --update")
    pin_tags = False if "--no-tags" in given else True if "--tags" in given else None
    try:
        return _update(path, traces, pin_tags) if update else _check(path, traces)
    except (JudgementError, LockError) as error:
        print(f"bpfstrace: {printable(str(error))}", file=sys.stderr)
        return TROUBLE


def _check(path: str, traces: list[str]) -> int:
    lock = load(path)
    code = WITHIN
    troubles = []
    for trace in traces:
        try:
            found = deeds_of(trace)
        except JudgementError as error:
            troubles.append(str(error))
            continue
        outside = _sorted(deed for deed in found if not lock.allows(deed))
        if not outside:
            print(f"{printable(trace)}: within {printable(path)}: {_counted(found)}")
            continue
        code = OUTSIDE
        print(f"{printable(trace)}: outside {printable(path)}: {len(outside)}")
        for deed in outside:
            print(f"  {describe(deed)}  [{found[deed]}]")
    if troubles:
        raise JudgementError("; ".join(troubles))
    return code


def _sorted(deeds: Iterable[Deed]) -> list[Deed]:
    order = list(KINDS)
    return sorted(deeds, key=lambda deed: (order.index(deed.kind), deed.prog, deed.value))


COUNTED: Final = {
    "program": "program",
    "helper": "helper call",
    "kfunc": "kfunc call",
    "attach": "attach point",
    "map": "map",
    "pin": "pin",
    "open": "opened pin",
}


def _counted(deeds: Iterable[Deed]) -> str:
    kinds = [deed.kind for deed in deeds]
    told = []
    for kind, word in COUNTED.items():
        count = kinds.count(kind)
        if count:
            told.append(f"{count} {word}{'s' if count > 1 else ''}")
    return ", ".join(told) or "it does nothing with BPF"


def _update(path: str, traces: list[str], pin_tags: bool | None) -> int:
    old = load(path) if os.path.exists(path) else None
    found: dict[Deed, str] = {}
    for trace in traces:
        for deed, where in deeds_of(trace).items():
            found.setdefault(deed, where)
    made = updated(old, found, pin_tags)
    save(made, path)
    if old is None:
        print(f"{printable(path)}: new: {_counted(found)}")
        return WITHIN
    added = _sorted(deed for deed in found if not old.allows(deed))
    print(f"{printable(path)}: written: {_counted(found)}; {len(added)} that it did not allow")
    for deed in added:
        print(f"  + {describe(deed)}  [{found[deed]}]")
    return WITHIN
