"""What ps --json prints, by kinds of objects."""

from __future__ import annotations

import json
from typing import Any

from tests.support.running import run_cli

Line = dict[str, Any]


class Told:
    """What ``ps --json`` printed."""

    def __init__(self, text: str) -> None:
        self.lines: list[Line] = [json.loads(line) for line in text.splitlines()]
        self.objects = {
            (line["object"]["kind"], line["object"].get("id")): line
            for line in self.lines
            if line["type"] == "object"
        }

    def of(self, kind: str) -> dict[int, Line]:
        return {number: line for (each, number), line in self.objects.items() if each == kind}

    def targets(self, kind: str, number: int) -> set[str]:
        return {place["target"] for place in self.objects[kind, number]["attached"]}


def ps(*words: str, **how: Any) -> Told:
    done = run_cli("ps", "--json", *words, **how)
    assert (done.returncode, done.stderr) == (0, "")
    return Told(done.stdout)
