"""Refusals of tests/tracees/refusals.py as traces tell of them."""

from __future__ import annotations

from typing import Any

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
