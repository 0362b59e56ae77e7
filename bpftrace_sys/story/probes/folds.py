"""What is said of probes: a run of them in a line, or one by one."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Final

from bpftrace_sys.story.objects import Object
from bpftrace_sys.story.probes.verdicts import Found
from decoders.call import Call
from decoders.raw import ENTRY

LISTED: Final = 6
"""How many features are named in a line."""
FEW: Final = 3
"""Up to so many are named though all are supported."""


def result(call: Call) -> bool | None:
    """Whether a probe found its feature supported; None if it could not tell."""
    found = call.notes.get("probe_found")
    return found.verdict(call) if isinstance(found, Found) else None


def summary(calls: Iterable[Call]) -> str:
    """A run of probes in a line: ``9 feature probes, 2 unsupported: ...``."""
    results: dict[str, bool | None] = {}
    refused: dict[str, None] = {}
    makers: dict[tuple[str, int | None], str] = {}
    for call in calls:
        name = str(call.notes["probe"])
        # What a later probe builds on is a part of that one.
        for fact in call.raw.fds:
            part = makers.get((fact.kind, fact.id)) if fact.stage == ENTRY else None
            if part is not None and part != name:
                results.pop(part, None)
        known = results.pop(name, True)
        now = result(call)
        # A probe of several calls finds its feature if none of them fails to.
        results[name] = now if known else known
        if call.raw.ret == -errno.EPERM:
            refused[name] = None
        made = call.notes.get("made")
        if isinstance(made, Object) and made.id is not None:
            makers[(made.kind, made.id)] = name
    lacking = [name for name, known in results.items() if known is False]
    count = len(results)
    text = f"{count} feature probe{'s' if count != 1 else ''}"
    if refused:
        which = "" if count == 1 else "all " if len(refused) == count else f"{len(refused)} "
        text += f", {which}refused with EPERM"
    if lacking:
        text += f", {len(lacking)} unsupported: {_listed(lacking)}"
    elif all(results.values()):
        text += ", all supported" if count > 1 else ", supported"
        if count <= FEW:
            text += f": {_listed(list(results))}"
    return text


def _listed(words: list[str]) -> str:
    more = len(words) - LISTED
    shown = ", ".join(words[:LISTED])
    return f"{shown} and {more} more" if more > 0 else shown


def _told(run: list[Call]) -> list[tuple[int, str, list[str]] | Call]:
    """A run in a line; and why, where probes were refused for want of privilege."""
    if not run:
        return []
    reasons: dict[str, None] = {}
    for call in run:
        if call.raw.ret == -errno.EPERM:
            reasons.update(dict.fromkeys(call.notes.get("explanation", ())))
    return [(run[0].raw.tid, summary(run), list(reasons)[:LISTED])]


class Folds:
    """Probes that wait to be told in a line, by process, in order."""

    def __init__(self) -> None:
        self._held: dict[int, list[Call]] = {}

    def __bool__(self) -> bool:
        return bool(self._held)

    def hold(self, call: Call) -> bool:
        """Takes a call that is, or may be, a probe; False if it is none."""
        if "probe" not in call.notes and "maybe_probe" not in call.notes:
            return False
        self._held.setdefault(call.raw.pid, []).append(call)
        return True

    def take(self) -> list[tuple[int, str, list[str]] | Call]:
        """What was held: (tid, line, reasons) for a run of probes, and calls that were none."""
        told: list[tuple[int, str, list[str]] | Call] = []
        for calls in self._held.values():
            run: list[Call] = []
            for call in calls:
                if "probe" in call.notes:
                    run.append(call)
                    continue
                told += _told(run)
                run = []
                told.append(call)
            told += _told(run)
        self._held.clear()
        return told


def remark(call: Call) -> str | None:
    """A probe told on its own: ``feature probe of libbpf: BTF floats: supported``."""
    found = call.notes.get("probe_found")
    if "probe" not in call.notes or not isinstance(found, Found):
        return None
    said = {True: "supported", False: "unsupported", None: "no telling"}[result(call)]
    return f"feature probe of {found.by}: {found.name}: {said}"
