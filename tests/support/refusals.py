"""Refusals of tests/tracees/refusals.py as traces tell of them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import Any

from bpftrace_sys.story.objects import NotedCall
from bpftrace_sys.trace.facts import Facts
from bpftrace_sys.trace.lines import extra_of
from decoders.decode import decode
from decoders.raw import AUDIT_ARCH_X86_64, ENTRY, Chunk, RawCall
from tests.support.running import TRACEES, Ran

WORKLOAD = str(TRACEES / "refusals.py")


def refused(ran: Ran) -> list[dict[str, Any]]:
    """The failed calls of a trace that a case made, in order."""
    return [
        line
        for line in ran.calls()
        if line["ret"] == -1 and line["syscall"] != "openat" and "errnum" in line
    ]


def why(line: dict[str, Any]) -> str:
    """The explanation of a call, in one line."""
    return " | ".join(line.get("explanation", ()))


def cases(ran: Ran) -> list[tuple[list[Any], dict[str, Any]]]:
    """The workload's results with the calls of those that were refused."""
    results = [entry for entry in json.loads(ran.stdout) if entry[1]]
    calls = refused(ran)
    assert [line["errnum"] for line in calls] == [entry[1] for entry in results]
    return list(zip(results, calls, strict=True))


DONE: dict[tuple[str, str], list[dict[str, Any]]] = {}
"""The lines of the traces of groups, by workload and name: those that were traced by now."""


def group(traced: Callable[..., Ran], name: str, workload: str = WORKLOAD) -> Ran:
    """A run of one group of a workload, traced by ptrace; kept for who wants it again."""
    ran = traced([], sys.executable, workload, name)
    assert ran.code == 0, ran.stderr
    DONE[workload, name] = ran.lines
    return ran


def noted(raw: RawCall, facts: Facts) -> NotedCall:
    """A call as the pipeline has it decoded."""
    return decode(raw, facts, NotedCall)


def refusal(number: int, attr: bytes, cmd: int = 5, **extra: object) -> RawCall:
    """A call as if it had been refused, with nothing known of the machine."""
    return RawCall(
        seq=1, time=0, pid=1, tid=1, comm="x", arch=AUDIT_ARCH_X86_64, nr=321,
        args=(cmd, 0x1000, len(attr), 0, 0, 0), ret=-number, failed=True, duration=1,
        chunks=[Chunk(ENTRY, 0x1000, attr, len(attr))], extra=extra_of(extra),
    )  # fmt: skip


def numbered(text: str) -> str:
    """A reason with its numbers as N; those within names stay, but for process ids."""
    return re.sub(r"(?<![\w.])\d+(?![\w.])|(?<=_)\d+\b", "N", text)


def told(ran: Ran) -> dict[str, str]:
    """The reason of each case that was refused."""
    return {entry[0]: numbered(why(line)) for entry, line in cases(ran)}
