"""What is said of probes: a run of them in a line, or one by one."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from typing import Final

from bpftrace_sys.story.objects import NotedCall
from decoders.raw import ENTRY

LISTED: Final = 6
"""How many features are named in a line."""
TOLD: Final = 4_096
"""Probes that are remembered to have been told, of all processes."""
FEW: Final = 3
"""Up to so many are named though all are supported."""


def result(call: NotedCall) -> bool | None:
    """Whether a probe found its feature supported; None if it could not tell."""
    probe = call.notes.probe
    return None if probe is None else probe.verdict(call)


class Run:
    """Probes of a process that follow each other."""

    def __init__(self, calls: Iterable[NotedCall]) -> None:
        self.results: dict[str, bool | None] = {}
        """By feature, whether it was found; None where that could not be told."""
        self._refused: dict[str, None] = {}
        self._within: dict[str, str] = {}
        makers: dict[tuple[str, int | None], str] = {}
        for call in calls:
            probe = call.notes.probe
            assert probe is not None
            # What a later probe builds on is a part of that one.
            for fact in call.raw.fds:
                part = makers.get((fact.kind, fact.id)) if fact.stage == ENTRY else None
                if part is not None and part != probe.name:
                    self.results.pop(part, None)
            self._within[probe.name] = probe.within
            known = self.results.pop(probe.name, True)
            now = result(call)
            # A probe of several calls finds its feature if none of them fails to.
            self.results[probe.name] = now if known else known
            if call.raw.ret == -errno.EPERM:
                self._refused[probe.name] = None
            made = call.notes.made
            if made is not None and made.id is not None:
                makers[(made.kind, made.id)] = probe.name

    def summary(self) -> str:
        """In a line: ``9 feature probes, 2 unsupported: ...``."""
        results = self.results
        refused = [name for name in self._refused if name in results]
        lacking = [name for name, known in results.items() if known is False]
        count = len(results)
        text = f"{count} feature probe{'s' if count != 1 else ''}"
        if refused:
            which = "" if count == 1 else "all " if len(refused) == count else f"{len(refused)} "
            text += f", {which}refused with EPERM: {_listed(refused, self._within)}"
        if lacking:
            which = f"{len(lacking)} " if count > 1 else ""
            text += f", {which}unsupported: {_listed(lacking, self._within)}"
        elif all(results.values()):
            text += ", all supported" if count > 1 else ", supported"
            if count <= FEW:
                text += f": {_listed(list(results), self._within)}"
        return text


def _listed(names: list[str], within: Mapping[str, str]) -> str:
    """Features by name. Many helpers that were tried in several program types are told by type;
    one in many types by these."""
    types: dict[str, list[str]] = {}
    helpers: dict[str, list[str]] = {}
    for name in names:
        kind = within[name]
        if kind:
            helper = name.removesuffix(f" in {kind}")
            types.setdefault(kind, []).append(helper.removeprefix("helper "))
            helpers.setdefault(helper, []).append(kind)
    if sum(map(len, types.values())) <= LISTED:
        return _first(names)
    words = [name for name in names if not within[name]]
    if len(helpers) < len(types):
        for helper, kinds in helpers.items():
            few = len(kinds) <= FEW
            words.append(f"{helper} in {_and(kinds) if few else f'{len(kinds)} program types'}")
    else:
        for kind, found in types.items():
            few = len(found) <= FEW
            which = f"helpers {_and(found)}" if few else f"{len(found)} helpers"
            words.append(f"{which} in {kind}")
    return _first(words)


def _and(words: list[str]) -> str:
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def _first(words: list[str]) -> str:
    more = len(words) - LISTED
    shown = ", ".join(words[:LISTED])
    return f"{shown} and {more} more" if more > 0 else shown


class Folds:
    """Probes that wait to be told in a line, by process, in order."""

    def __init__(self) -> None:
        self._held: dict[int, list[NotedCall]] = {}
        self._known: dict[int, dict[str, bool | None]] = {}
        """By process and feature what was told: libbpf asks anew for each object."""
        self._room = TOLD

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
                told += self._told(run)
                run = []
                told.append(call)
            told += self._told(run)
        self._held.clear()
        return told

    def forget(self, pid: int) -> None:
        """The process is gone, or another program runs in it: what it asks, it asks anew."""
        self._room += len(self._known.pop(pid, ()))

    def _told(self, calls: list[NotedCall]) -> list[tuple[int, str, list[str]] | NotedCall]:
        """A run in a line; and why, where probes were refused for want of privilege. Nothing, if
        all of it was told before."""
        if not calls:
            return []
        run = Run(calls)
        known = self._known.setdefault(calls[0].raw.pid, {})
        for name, found in list(run.results.items()):
            if name in known and known[name] is found:
                del run.results[name]
            elif name in known or self._room:
                self._room -= name not in known
                known[name] = found
        if not run.results:
            return []
        reasons: dict[str, None] = {}
        for call in calls:
            if call.raw.ret == -errno.EPERM:
                reasons.update(dict.fromkeys(call.notes.explanation))
        return [(calls[0].raw.tid, run.summary(), list(reasons)[:LISTED])]


def remark(call: NotedCall) -> str | None:
    """A probe told on its own: ``feature probe of libbpf: BTF floats: supported``."""
    probe = call.notes.probe
    if probe is None or not probe.certain:
        return None
    said = {True: "supported", False: "unsupported", None: "no telling"}[result(call)]
    return f"feature probe of {probe.by}: {probe.name}: {said}"
