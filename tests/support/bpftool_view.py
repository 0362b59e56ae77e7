"""bpftool's view of the machine, and of loaders that are traced while it is taken.

What bpfstrace says of objects and attachments is held against this: it comes
from another program, which asks the kernel by other ways.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bpftool_compare.said import Said, tables
from bpftool_compare.view import View, look

from decoders.uapi import names
from tests.support.running import LOADERS, Ran, environment

Facts = dict[str, Any]


def bpftool(*words: str, pid: int | None = None) -> Any:
    """``bpftool -j WORDS``, in the network namespace of a process if one is given."""
    enter = [] if pid is None else ["nsenter", "--net", "--target", str(pid)]
    done = subprocess.run(
        [*enter, "bpftool", "-j", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # bpftool 7.1 forgets the braces of what is in here.
    text = re.sub(r'\["id":(\d+)\]', r'[{"id":\1}]', done.stdout)
    return json.loads(text) if text.strip() else []


def view(pid: int | None = None) -> View:
    """All of it; ``pid``: whose network devices."""
    return look(pid)


class Traced:
    """A loader under bpfstrace: what it told, what bpftool saw meanwhile, and the trace."""

    def __init__(self, facts: Facts, folder: Path) -> None:
        self.facts = facts
        self.folder = folder
        self.view = View()
        self.ran = Ran(0, "", "", "", [])

    @property
    def attachments(self) -> list[tuple[str, str | None, str, str]]:
        """(verb, program's name, target, via) of each attachment, in order."""
        return [
            (line["verb"], (line["prog"] or {}).get("name"), line["target"], line["via"])
            for line in self.ran.attachments()
        ]

    @property
    def said(self) -> Said:
        """What the trace says, as tools/compare_bpftool.py takes it."""
        return Said(self.ran.lines, self.ran.text)

    def objects(self) -> dict[tuple[str, int], list[Facts]]:
        """All that the trace says of each object, at each place where it stands."""
        found: dict[tuple[str, int], list[Facts]] = {}
        for line in self.ran.lines:
            said = [*line.get("fds", {}).values()]
            said += [line[key] for key in ("fd", "prog", "link") if line.get(key)]
            for each in said:
                if isinstance(each, dict) and "id" in each:
                    found.setdefault((each["kind"], each["id"]), []).append(each)
        return found


@contextmanager
def under_bpfstrace(
    folder: Path, options: Sequence[str], program: Sequence[str]
) -> Iterator[tuple[subprocess.Popen[str], Ran]]:
    """A program that is being traced; the Ran is filled in when it has ended."""
    text, trace = folder / "trace.txt", folder / "trace.jsonl"
    ran = Ran(0, "", "", "", [])
    tracer = [sys.executable, "-m", "bpftrace_sys", "-f", "-o", str(text), "--json", str(trace)]
    with subprocess.Popen(
        [*tracer, *options, *program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        try:
            yield process, ran
            ran.stdout, ran.stderr = process.communicate(timeout=60)
        except BaseException:
            process.kill()
            raise
    ran.code = process.returncode
    ran.text = text.read_text()
    ran.lines = [json.loads(line) for line in trace.read_text().splitlines()]


@contextmanager
def loader(name: str, folder: Path, *options: str) -> Iterator[Traced]:
    """A loader under bpfstrace, alive inside the with; the trace is there after it."""
    release = folder / "release"
    program = [sys.executable, str(LOADERS / f"{name}.py"), "--wait", str(release)]
    with under_bpfstrace(folder, options, program) as (process, ran):
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        traced = Traced(json.loads(line), folder)
        yield traced
        release.touch()
    traced.ran = ran
    assert (ran.code, ran.stderr) == (0, "")


def seen(name: str, folder: Path, *options: str) -> Traced:
    """A loader's whole trace, with bpftool's view of the moment when all was attached."""
    with loader(name, folder, *options) as traced:
        traced.view = view(traced.facts["pid"])
    return traced


_made: dict[str, Traced] = {}


def trace_of(name: str, folders: pytest.TempPathFactory) -> Traced:
    """:func:`seen`, once a session however many test files ask."""
    if name not in _made:
        _made[name] = seen(name, folders.mktemp(name))
    return _made[name]


def tables_of(text: str) -> dict[str, list[dict[str, str]]]:
    """The ledger's plain tables: by title, the rows by column."""
    return tables(text)


def same_prog(ours: Facts, theirs: Facts) -> None:
    assert ours.get("name", "") == theirs.get("name", "")
    assert ours["tag"] == theirs["tag"]
    if isinstance(theirs["type"], str) and "type" in ours:
        assert ours["type"] == theirs["type"]


def same_map(ours: Facts, theirs: Facts) -> None:
    assert ours.get("name", "") == theirs.get("name", "")
    sizes = (theirs["bytes_key"], theirs["bytes_value"], theirs["max_entries"])
    assert (ours["key_size"], ours["value_size"], ours["max_entries"]) == sizes
    kind = names.bpf_map_type[ours["map_type"]].removeprefix("BPF_MAP_TYPE_").lower()
    if isinstance(theirs["type"], str):
        assert kind == theirs["type"]


def same_link(ours: Facts, theirs: Facts) -> None:
    if isinstance(theirs.get("type"), str):
        assert ours["type"] == theirs["type"]
