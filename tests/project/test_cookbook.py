"""The recipes of docs/cookbook.md, as they stand there."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.needs import needs_tool
from tests.support.running import FIXTURES, ROOT

pytestmark = pytest.mark.offline

TEXT = (ROOT / "docs" / "cookbook.md").read_text()
BLOCKS = {
    part.split("\n")[0].split(":")[0]: re.findall(r"```(\w+)\n(.*?)```", part, re.S)
    for part in TEXT.split("\n## ")[1:]
}
"""Of each recipe, by the first word of its title: language and text of its blocks."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the trace, and bpfstrace in ``bin``."""
    shutil.copy(FIXTURES / "bpftool-loadall" / "trace.jsonl.gz", tmp_path / "trace.jsonl.gz")
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "bpfstrace"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m bpftrace_sys "$@"\n')
    script.chmod(0o755)
    return tmp_path


def sh(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "HOME": str(folder),
           "GIT_CONFIG_NOSYSTEM": "1", "GIT_PAGER": "cat"}  # fmt: skip
    return subprocess.run(
        ["sh", "-ec", script], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


def loads(folder: Path) -> list[dict[str, object]]:
    """The loads of the trace, read by us."""
    import gzip

    with gzip.open(folder / "trace.jsonl.gz", "rt") as file:
        lines = [json.loads(line) for line in file]
    return [line for line in lines
            if line.get("args", {}).get("cmd") == "BPF_PROG_LOAD"]  # fmt: skip


def test_every_recipe_is_run() -> None:
    assert set(BLOCKS) == {
        "jq", "DuckDB", "pytest", "GitHub Actions", "journald", "git", "Two kernels",
    }  # fmt: skip


def test_jq(folder: Path) -> None:
    needs_tool("jq")
    (_, loaded), (_, refused) = BLOCKS["jq"]
    done = sh(loaded, folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(loads(folder)) > 1
    assert sh(refused, folder).returncode == 0


def test_duckdb(folder: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    [(_, query)] = BLOCKS["DuckDB"]
    rows = duckdb.sql(query.replace("trace.jsonl.gz", str(folder / "trace.jsonl.gz"))).fetchall()
    assert {name: calls for name, calls, _ in rows}["BPF_PROG_LOAD"] == len(loads(folder))


def test_pytest(folder: Path) -> None:
    [(_, text)] = BLOCKS["pytest"]
    (folder / "test_loader.py").write_text(text)
    done = sh(
        f"PYTHONPATH={ROOT} {sys.executable} -m pytest -q -p no:cacheprovider test_loader.py",
        folder,
    )
    assert "1 passed" in done.stdout, done.stdout


def test_github_actions(folder: Path) -> None:
    [(_, script)] = BLOCKS["GitHub Actions"]
    done = sh(script, folder)
    assert done.returncode == 0, done.stderr
    other = script.splitlines()[1].replace("trace.jsonl.gz", "other.jsonl.gz")
    shutil.copy(FIXTURES / "xdp-link" / "trace.jsonl.gz", folder / "other.jsonl.gz")
    assert sh(other, folder).returncode == 1


def test_journald(folder: Path) -> None:
    (_, unit), (_, replayed) = BLOCKS["journald"]
    parsed = configparser.ConfigParser()
    parsed.read_string(unit)
    command = parsed["Service"]["ExecStart"]
    assert command.startswith("/bin/sh -c '")
    # The unit's pipeline, with the journal's end replaced by a file.
    (folder / "bin" / "systemd-cat").write_text('#!/bin/sh\n[ "$1" = -t ] && cat > journal\n')
    (folder / "bin" / "systemd-cat").chmod(0o755)
    saved = command.removeprefix("/bin/sh -c '").removesuffix("'")
    saved = saved.replace("-a -q", "replay -q").replace("--events -", "--events - trace.jsonl.gz")
    assert sh(saved, folder).returncode == 0
    events = [json.loads(line) for line in (folder / "journal").read_text().splitlines()]
    assert events
    assert all(not isinstance(value, dict) for event in events for value in event.values())
    assert sh(replayed, folder).stdout == (folder / "journal").read_text()


def test_git(folder: Path) -> None:
    needs_tool("git")
    [(_, script)] = BLOCKS["git"]
    before = ("git init -q .; git config user.name x; git config user.email x@example.org;"
              "cp trace.jsonl.gz kept; git add trace.jsonl.gz; git commit -qm trace")  # fmt: skip
    assert sh(before, folder).returncode == 0
    shutil.copy(FIXTURES / "bpftool-loadall-o1" / "trace.jsonl.gz", folder / "trace.jsonl.gz")
    done = sh(script, folder)
    assert done.returncode == 0, done.stderr
    assert "Binary files" not in done.stdout
    assert re.search(r"^[-+].*r\d", done.stdout, re.M)


def test_two_kernels(folder: Path) -> None:
    [(_, script)] = BLOCKS["Two kernels"]
    for name, there in (("old", "libbpf-opensnoop-6.1"), ("new", "libbpf-opensnoop")):
        shutil.copy(FIXTURES / there / "trace.jsonl.gz", folder / f"{name}-kernel.jsonl.gz")
    done = sh(script, folder)
    assert done.returncode in (0, 1), done.stderr
    same = sh(script.replace("old-", "new-"), folder)
    assert same.returncode == 0, same.stdout
