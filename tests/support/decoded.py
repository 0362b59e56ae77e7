"""What is decoded of a tracee's calls, beside what the tracee itself tells of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class Traced:
    """A tracee's own facts, and the calls of it that were traced."""

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self.path = path
        self.facts = facts
        self.lines = [json.loads(line) for line in path.read_text().splitlines()]
        self.syscalls = [line for line in self.lines if line["type"] == "syscall"]

    def calls(self, command: str, **wanted: Any) -> list[dict[str, Any]]:
        """Calls of a command, syscall or request; with these fields in what they are about."""
        found = []
        for line in self.syscalls:
            args = line["args"]
            names = (line["syscall"], args.get("cmd"), args.get("request"))
            if command in names or f"BPF_{command}" in names:
                about = flat(args)
                if all(about.get(name) == value for name, value in wanted.items()):
                    found.append(line)
        return found

    def attrs(self, command: str, **wanted: Any) -> list[dict[str, Any]]:
        """Attrs of calls, as :meth:`calls` finds them, out of the union's struct."""
        return [inner(line["args"]["attr"]) for line in self.calls(command, **wanted)]

    def refused(self, step: str) -> None:
        """Skips where this kernel did not take that step."""
        if step in self.facts["refused"]:
            pytest.skip(f"{step}: {self.facts['refused'][step]} on this kernel")


def plain(value: Any) -> Any:
    """A value of the JSON without its address and its past."""
    while isinstance(value, dict):
        if "addr" in value and "value" in value:
            value = value["value"]
        elif "after" in value and "before" in value:
            value = value["after"]
        elif set(value) == {"value", "name"}:
            value = value["value"]
        elif set(value) == {"hex"}:
            return bytes.fromhex(value["hex"])
        else:
            return {name: plain(member) for name, member in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def inner(attr: dict[str, Any]) -> dict[str, Any]:
    """An attr without the struct that stands alone in it (``query``, ``link_create``)."""
    if len(attr) == 1:
        only = next(iter(attr.values()))
        if isinstance(only, dict) and "addr" not in only and "before" not in only:
            return only
    return attr


def flat(args: dict[str, Any]) -> dict[str, Any]:
    """All plain fields of a call, whatever struct they are in."""
    found: dict[str, Any] = {}

    def add(value: Any) -> None:
        for name, member in value.items():
            found.setdefault(name, plain(member))
            member = plain(member)
            if isinstance(member, dict):
                add(member)

    add(args)
    return found


Run = Callable[[str], Traced]
