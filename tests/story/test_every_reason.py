"""Each reason that may be said has been said of a real refusal, or docs/refusals.md names it.

Real are calls of the workloads in tests/tracees, traced on the running kernel, and those of
fixtures, recorded on others. What of a row of the table was said, and by which sentence of
story/explain/, is seen by replaying their traces.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bpftrace_sys
from bpftrace_sys.common.errnos import errno_name
from bpftrace_sys.story.explain import rows
from bpftrace_sys.story.explain.failure import ANY, ANY_ERRNO, ENOTSUPP, Explainer, Failure
from decoders.commands import BATCH, ELEMENT
from tests.support.needs import needs_tool
from tests.support.refusals import DONE, group
from tests.support.running import FIXTURES, LOADERS, ROOT, TRACEES, Ran

pytestmark = pytest.mark.usefixtures("needs_bpf")
SOURCES = ROOT / "bpftrace_sys" / "story" / "explain"
DOCUMENT = ROOT / "docs" / "refusals.md"
GROUPS = {
    "refusals.py": ("maps", "single", "lacking", "capabilities"),
    "refused_hooks.py": ("queries", "tokens", "cgroups", "devices", "uprobes", "filtered",
                         "probe_files"),
    "refused_maps.py": ("sizes", "btf", "inside", "values"),
    "refused_rest.py": ("elements", "loads", "events", "hooks", "powerless"),
}  # fmt: skip
RECORDED = ("refused-kprobes", "refused-devices", "refused-older", "lockdown", "verifier-reject")
"""Fixtures with refusals of other kernels, and of libbpf's programs."""
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
FOREIGN = ("unshare", "--user", "--map-root-user")
OTHERS: dict[str, tuple[str, ...]] = {
    "objects": (sys.executable, str(TRACEES / "refused_objects.py")),
    "errors": (sys.executable, str(LOADERS / "errors.py")),
    "ids": (sys.executable, str(LOADERS / "ids.py")),
    "token": (sys.executable, str(LOADERS / "bpf_token.py")),
    "events of nobody": (*NOBODY, "perf", "stat", "-e", "cpu-clock:k", "-a", "true"),
    "a loader of nobody": (*NOBODY, "opensnoop"),
    "a loader elsewhere": (*FOREIGN, sys.executable, str(TRACEES / "refused_hooks.py"), "admin"),
    "events elsewhere": (*FOREIGN, "perf", "stat", "-e", "cpu-clock:k", "-a", "true"),
}
"""Commands that are refused something."""


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A trace of each: what another test has traced already is not traced again."""
    needs_tool("setpriv", "unshare", "perf", "opensnoop")
    folder = tmp_path_factory.mktemp("refused")

    def traced(options: list[str], *program: str) -> Ran:
        from tests.support.running import run_cli

        trace = folder / "trace.jsonl"
        done = run_cli("-q", "-f", "-o", "/dev/null", "--json", str(trace), *options, *program)
        lines = [json.loads(line) for line in trace.read_text().splitlines()]
        return Ran(done.returncode, done.stdout, done.stderr, "", lines)

    found = [FIXTURES / name / "trace.jsonl.gz" for name in RECORDED]
    lines = {}
    for workload, names in GROUPS.items():
        for name in names:
            key = (str(TRACEES / workload), name)
            if key not in DONE:
                group(traced, name, key[0])
            lines[f"{workload} {name}"] = DONE[key]
    for name, command in OTHERS.items():
        lines[name] = traced([], *command).lines
    for at, one in enumerate(lines.values()):
        path = folder / f"{at}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in one))
        found.append(path)
    return found


class Said:
    """What was said of all refused calls: by row of the table, and all together."""

    def __init__(self) -> None:
        self.rows: set[int] = set()
        self.lines: set[str] = set()

    def watching(self, index: int, row: Explainer) -> Explainer:
        def explain(failure: Failure) -> list[str]:
            lines = row(failure)
            if lines:
                self.rows.add(index)
                self.lines.update(lines)
            return lines

        return explain


@pytest.fixture(scope="module")
def said(traces: list[Path]) -> Iterator[Said]:
    """All that is said when the traces are replayed."""
    found = Said()
    kept = dict(rows.TABLE)
    rows.TABLE.clear()
    for index, (commands, number, row) in enumerate(rows.ROWS):
        for command in commands:
            rows.TABLE.setdefault((command, number), []).append(found.watching(index, row))
    try:
        for path in traces:
            for _ in bpftrace_sys.open_trace(path, partial=True):
                pass
    finally:
        rows.TABLE.clear()
        rows.TABLE.update(kept)
    return found


def test_every_row_has_a_case(said: Said) -> None:
    without = {
        f"{'/'.join(commands[:2])} {number} {row.__name__}"
        for index, (commands, number, row) in enumerate(rows.ROWS)
        if index not in said.rows
    }
    assert without == set()


# ---------------------------------------------------------------- sentences


QUESTIONS = {
    "fact", "now", "sysctl", "word_set", "search", "compile", "removeprefix", "startswith",
    "replace",
}  # fmt: skip
"""Functions whose arguments are not said."""
NOT_SAID = {
    "NO_RULE", "NO_PROGS", "HOLDS", "_READS", "_TAKEN", "BEYOND",
}  # fmt: skip
"""Tables of notes to who reads the code, or of what comes into sentences."""


def sentences() -> Iterator[tuple[str, str]]:
    """(file, sentence) of all that story/explain/ may say: names and numbers in braces."""
    for path in sorted(SOURCES.glob("*.py")):
        tree = ast.parse(path.read_text())
        silent: set[ast.AST] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # docstrings
                silent.add(node.value)
            if isinstance(node, ast.Call) and _called(node) in QUESTIONS:
                for argument in node.args:
                    silent.update(ast.walk(argument))
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and _target(node) in NOT_SAID:
                silent.update(ast.walk(node))
            if isinstance(node, ast.JoinedStr):
                silent.update(part for value in node.values for part in ast.walk(value))
        for node in ast.walk(tree):
            if node not in silent and (text := _text(node)) is not None and " " in text.strip():
                yield path.name, text


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _target(node: ast.Assign | ast.AnnAssign) -> str:
    target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
    return target.id if isinstance(target, ast.Name) else ""


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values
        )
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return None


def says(line: str, text: str) -> bool:
    return re.search("(?s:.*)".join(map(re.escape, text.split("{}"))), line) is not None


def document(title: str) -> set[str]:
    """The sentences of a table of docs/refusals.md, by its beginning."""
    table = DOCUMENT.read_text().partition(title)[2].lstrip("\n").partition("\n\n")[0]
    found = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    return {text.replace("…", "{}") for text in found}


def test_every_sentence_has_a_case(said: Said) -> None:
    without = {
        text
        for _, text in sentences()
        if not any(says(line, text) for line in said.lines if _longest(text) in line)
    }
    here, elsewhere = document("### Reasons without a case"), document("on some machines:")
    assert here
    assert elsewhere
    assert without - elsewhere == here
    assert elsewhere <= {text for _, text in sentences()}


def _longest(text: str) -> str:
    return max(text.split("{}"), key=len)


# ---------------------------------------------------------------- the document's table


def spoken(command: str) -> set[str]:
    """How the table may call a command."""
    name = command.removeprefix("BPF_").removeprefix("PERF_EVENT_IOC_")
    words = {name, "all"}
    if command in ELEMENT:
        words.add("map elements")
    if command in BATCH:
        words.add("batches")
    if name.endswith(("_GET_NEXT_ID", "_GET_FD_BY_ID")):
        words |= {"\\*_GET_NEXT_ID", "\\*_GET_FD_BY_ID", "ids"}
    return words | ({"bpf"} if command.startswith("BPF_") else set())


def test_the_table_is_complete() -> None:
    """Each command and errno of the code has a row in the document."""
    table = DOCUMENT.read_text().partition("## What is explained")[2].partition("\n\nThe rules")[0]
    cells = [
        [cell.strip() for cell in line.strip("| ").split(" | ")]
        for line in table.splitlines()
        if line.startswith("| ")
    ]
    missing = set()
    for commands, number, _ in rows.ROWS:
        name = {ENOTSUPP: "ENOTSUPP", ANY_ERRNO: "any"}.get(number) or errno_name(number)
        for command in commands:
            words = {"all"} if command == ANY else spoken(command)
            if not any(
                name in re.findall(r"\w+", errors) and any(_is_in(word, calls) for word in words)
                for errors, calls, *_ in cells
            ):
                missing.add(f"{name} {command}")
    assert not missing, "\n".join(sorted(missing))


def _is_in(word: str, text: str) -> bool:
    return re.search(rf"(?<![\w(]){re.escape(word)}(?!\w)", text) is not None
