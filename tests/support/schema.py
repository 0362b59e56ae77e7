"""The schema of the JSON lines, closed: we write nothing that it does not name."""

from __future__ import annotations

import copy
import json
from typing import Any

from jsonschema import Draft202012Validator

from bpftrace_sys.cli.schema import schema

SCHEMA: dict[str, Any] = json.loads(schema())
LINES = (
    "trace", "fact", "syscall", "running", "process", "attachment", "kernel_view", "flush", "end",
)  # fmt: skip


def closed() -> dict[str, Any]:
    """The schema without room for what it does not name: we write nothing that it does not."""
    strict = copy.deepcopy(SCHEMA)
    for name in (*LINES, "object", "raw"):
        strict["$defs"][name]["additionalProperties"] = False
    strict["properties"]["type"] = {"enum": list(LINES)}
    # Words that may get company in a later release; these are today's.
    verbs = ["attached", "enabled", "disabled", "replaced", "detached"]
    strict["$defs"]["attachment"]["properties"]["verb"]["enum"] = verbs
    strict["$defs"]["object"]["properties"]["origin"]["enum"] = ["found", "before"]
    strict["$defs"]["process"]["properties"]["event"]["enum"] = [
        "fork", "exec", "exit", "signal", "who", "lost",
    ]
    return strict


VALIDATOR = Draft202012Validator(closed())


def check(lines: list[dict[str, Any]]) -> None:
    """Every line is as the schema says."""
    assert lines
    for number, line in enumerate(lines, 1):
        errors = [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(line)]
        assert errors == [], f"line {number}, {line['type']}"
