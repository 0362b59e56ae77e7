"""What is said of probes: a run of them in a line, or one by one."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Final

from bpftrace_sys.story.objects import NotedCall
from decoders.raw import ENTRY

LISTED: Final = 6
"""How many features are named in a line."""
FEW: Final = 3
"""Up to so many are named though all are supported."""


def result(call: NotedCall) -> bool | None:
    """Whether a probe found its feature supported; None if it could not tell."""
    probe = call.notes.probe
    return None if probe is None else probe.verdict(call)


def summary(calls: Iterable[NotedCall]) -> str:
    """A run of probes in a line: ``9 feature probes, 2 unsupported: ...``."""
    results: dict[str, bool | None] = {}
    refused: dict[str, None] = {}
    makers: dict[tuple[str, int | None], str] = {}
    for call in calls:
        assert call.notes.probe is not None
        name = call.notes.probe.name
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
        made = call.notes.made
        if made is not None and made.id is not None:
            makers[(made.kind, made.id)] = name
    lacking = [name for name, known in results.items() if known is False]
    count = len(results)
    text = f"{count} feature probe{'s' if count != 1 else ''}"
    if refused:
        which = "" if count == 1 else "all " if len(refused) == count else f"{len(refused)} "
        text += f", {which}refused with EPERM: {_listed(list(refused))}"
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


def _told(run: list[NotedCall]) -> list[tuple[int, str, list[str]] | NotedCall]:
    """A run in a line; and why, where probes were refused for want of privilege."""
    if not run:
        return []
    reasons: dict[str, None] = {}
    for call in run:
        if call.raw.ret == -errno.EPERM:
            reasons.update(dict.fromkeys(call.notes.explanation))
    return [(run[0].raw.tid, summary(run), list(reasons)[:LISTED])]


class Folds:
    """Probes that wait to be told in a line, by process, in order."""

    def __init__(self) -> None:
        self._held: dict[int, list[NotedCall]] = {}

    def __bool__(self) -> bool:
        return bool(self._held)

    def hold(self, call: NotedCall) -> bool:
        """Takes a call that is, or may be, a probe; False if it is none."""
        if call.notes.probe is None:
            return False
        self._held.setdefault(call.raw.pid, []).append(call)
        return True

    def take(self) -> list[tuple[int, str, list[str]] | NotedCall]:
        """What was held: (tid, line, reasons) for a run of probes, and calls that were none."""
        told: list[tuple[int, str, list[str]] | NotedCall] = []
        for calls in self._held.values():
            run: list[NotedCall] = []
            for call in calls:
                if call.notes.is_probe:
                    run.append(call)
                    continue
                told += _told(run)
                run = []
                told.append(call)
            told += _told(run)
        self._held.clear()
        return told


def remark(call: NotedCall) -> str | None:
    """A probe told on its own: ``feature probe of libbpf: BTF floats: supported``."""
    probe = call.notes.probe
    if probe is None or not probe.certain:
        return None
    said = {True: "supported", False: "unsupported", None: "no telling"}[result(call)]
    return f"feature probe of {probe.by}: {probe.name}: {said}"
