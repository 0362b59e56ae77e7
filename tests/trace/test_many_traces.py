"""docs/many-traces.md, word for word: its SQL, in DuckDB, over a folder of real recordings.

What the queries should give is worked out here in plain Python from the traces' JSON.
"""

from __future__ import annotations

import base64
import gzip
import importlib.util
import io
import json
import os
import re
import struct
import subprocess
import sys
from collections import Counter, defaultdict
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys.cli.main import main
from tests.support.running import FIXTURES, ROOT, run_cli

if importlib.util.find_spec("duckdb") is None:
    pytest.skip("duckdb is not installed", allow_module_level=True)

DOCS = ROOT / "docs" / "many-traces.md"
HOSTS = {
    "web-1": ("0.29", ("libbpf-opensnoop-6.1", "bcc-kprobe-hello", "eperm")),
    "web-2": ("0.30", ("libbpf-opensnoop", "libbpf-tcpconnect", "verifier-reject")),
    "db-1": ("0.30", ("libbpf-execsnoop", "bpftool-loadall", "xdp-link")),
}
"""By host: a release, and what was recorded there."""
SPY = "db-1"
"""Where hello_world calls another helper."""


def spied(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """hello_world with its ``call 6`` made a ``call 36``, bpf_probe_write_user."""
    old, new = (struct.pack("<BBhi", 0x85, 0, 0, number) for number in (6, 36))
    for line in lines:
        if line["type"] == "syscall" and line["args"].get("cmd") == "BPF_PROG_LOAD":
            for chunk in line["raw"]["entry"]:
                if isinstance(chunk[1], str):
                    data = base64.b64decode(chunk[1])
                    chunk[1] = base64.b64encode(data.replace(old, new)).decode()
    return lines


def put(name: str, folder: Path, host: str, release: str, spy: bool = False) -> None:
    """A recording as if it had been made on a host: decoded by today's bpfstrace."""
    with gzip.open(FIXTURES / name / "trace.jsonl.gz", "rt") as file:
        lines = [json.loads(line) for line in file]
    lines[0]["host"] = host
    if spy:
        lines = spied(lines)
    source = folder / "source.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    target = folder / "traces" / f"release={release}" / f"{host}-{name}.jsonl.gz"
    target.parent.mkdir(parents=True, exist_ok=True)
    with redirect_stdout(io.StringIO()):
        assert main(["replay", "-q", "--json", str(target), str(source)]) == 0
    source.unlink()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("many")
    for host, (release, names) in HOSTS.items():
        for name in names:
            put(name, made, host, release)
    put("bcc-kprobe-hello", made, SPY, "0.30", spy=True)
    return made


@pytest.fixture(scope="module")
def lines(folder: Path) -> list[dict[str, Any]]:
    """Every line, with its trace's header and file."""
    found = []
    for path in sorted(folder.glob("traces/**/*.jsonl.gz")):
        with gzip.open(path, "rt") as file:
            rows = [json.loads(line) for line in file]
        for row in rows:
            found.append({**row, "trace": rows[0], "file": path})
    return found


@pytest.fixture(scope="module")
def loads(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        line
        for line in lines
        if line["type"] == "syscall"
        and line["args"].get("cmd") == "BPF_PROG_LOAD"
        and "probe" not in line
    ]


def sections() -> dict[str, str]:
    """The page's SQL by the heading that it stands under."""
    parts = re.split(r"^## (.*)$", DOCS.read_text(), flags=re.M)[1:]
    return {
        title: "\n".join(re.findall(r"^```sql\n(.*?)^```", body, re.M | re.S))
        for title, body in zip(parts[::2], parts[1::2], strict=True)
    }


IN_DUCKDB = """
import json, sys
import duckdb
connection = duckdb.connect()
setup, query = json.load(sys.stdin)
connection.execute(setup)
rows = []
for statement in connection.extract_statements(query):
    rows.append(connection.execute(statement).fetchall())
json.dump(rows, sys.stdout)
"""


@pytest.fixture
def ask(folder: Path) -> Any:
    """Runs SQL, or what stands under a heading; the rows of its first statement.

    In a process of its own: at its end DuckDB's binding complains of leaks.
    """
    sql = sections()

    def run(query: str) -> list[tuple[Any, ...]]:
        done = subprocess.run(
            [sys.executable, "-c", IN_DUCKDB],
            input=json.dumps([sql["Reading"], sql.get(query, query)]),
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return [tuple(row) for row in json.loads(done.stdout)[0]]

    return run


def program(line: dict[str, Any]) -> str:
    return str(line.get("fd", {}).get("name") or line["args"]["attr"]["prog_name"])


@pytest.mark.live
def test_a_trace_names_its_host(tmp_path: Path) -> None:
    first, again = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    assert run_cli("--json", str(first), "-o", os.devnull, "true").returncode == 0
    assert json.loads(first.read_text().splitlines()[0])["host"] == os.uname().nodename
    assert run_cli("replay", "--json", str(again), str(first)).returncode == 0
    assert again.read_bytes() == first.read_bytes()


def test_every_sql_block_is_tested() -> None:
    assert [title for title, sql in sections().items() if sql] == [
        "Reading",
        "Which hosts load a program that calls bpf_probe_write_user?",
        "Tags per release of a tool",
        "The slowest loads",
        "Who is attached where",
        "What fails, and where",
    ]


def test_hosts_that_load_a_program_that_writes_user_memory(ask: Any) -> None:
    rows = ask("Which hosts load a program that calls bpf_probe_write_user?")
    assert rows == [(SPY, "/usr/bin/python3", "hello_world")]


def test_tags_per_release(ask: Any, loads: list[dict[str, Any]]) -> None:
    wanted: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for line in loads:
        if "errno" not in line:
            release = line["file"].parent.name.removeprefix("release=")
            wanted[line["trace"]["argv"][0], program(line), release].add(line["tag"]["sha1"])
    rows = ask("Tags per release of a tool")
    assert {row[:3]: set(row[3]) for row in rows} == wanted
    by_key = {row[:3]: row[3] for row in rows}
    hello = [by_key["/usr/bin/python3", "hello_world", each] for each in ("0.29", "0.30")]
    assert hello[0] == ["38dd440716c4900f"]
    assert hello[1] != hello[0]


def test_slowest_loads(ask: Any, loads: list[dict[str, Any]]) -> None:
    slowest = sorted(loads, key=lambda line: -line["duration"])[:5]
    assert ask("The slowest loads") == [
        (
            line["trace"]["host"],
            line["trace"]["kernel"],
            program(line),
            line["duration"] // 1000,
            len(line["args"]["attr"]["insns"]["value"]),
        )
        for line in slowest
    ]


def test_attach_points(ask: Any, lines: list[dict[str, Any]]) -> None:
    wanted: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for line in lines:
        if line["type"] == "attachment" and line["verb"] == "attached":
            wanted[line["target"]][0].add(line["trace"]["host"])
            wanted[line["target"]][1].add(line["trace"]["argv"][0])
    rows = ask("Who is attached where")
    assert {row[0]: (set(row[1]), set(row[2])) for row in rows} == wanted
    assert {row[0]: row[1] for row in rows}["kprobe do_sys_openat2"] == ["db-1", "web-1"]


def test_failures(ask: Any, lines: list[dict[str, Any]]) -> None:
    failed = [
        line
        for line in lines
        if line.get("syscall") == "bpf" and "errno" in line and "probe" not in line
    ]
    counts = Counter((line["args"]["cmd"], line["errno"]) for line in failed)
    rows = ask("What fails, and where")
    assert {row[:2]: row[2] for row in rows} == counts
    assert ("BPF_PROG_LOAD", "EACCES") in counts
    assert [row[2] for row in rows] == sorted(counts.values(), reverse=True)
    # The second statement keeps all of it for the next time.
    assert ask("SELECT count(*) FROM 'traces.parquet'") == [(len(lines),)]


# ---------------------------------------------------------------- other engines

ELSEWHERE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bpfstrace/engines"
"""Where tools/setup_test_env.sh --tables installs ClickHouse (chDB) and Spark."""

IN_CLICKHOUSE = """
import json, sys
from chdb import session
connection = session.Session()
rows = []
for statement in json.load(sys.stdin).split(";"):
    if statement.strip():
        said = connection.query(statement, "JSONCompactEachRow").bytes().decode()
        if said:
            rows.append([json.loads(line) for line in said.splitlines()])
json.dump(rows, sys.stdout)
"""
IN_SPARK = """
import json, sys
from pyspark.sql import SparkSession
spark = (
    SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    .config("spark.sql.shuffle.partitions", "1").getOrCreate()
)
names = {"spark": spark}
exec(json.load(sys.stdin), names)
rows = [names[name].collect() for name in ("spies", "tags", "slowest")]
json.dump([[list(row) for row in one] for one in rows], sys.stdout)
"""


def elsewhere(script: str, code: str, folder: Path, module: str) -> list[list[Any]]:
    """What another engine answers to the page's three questions."""
    python = ELSEWHERE / "bin" / "python"
    there = [python, "-c", f"import {module}"]
    if not python.exists() or subprocess.run(there, capture_output=True, check=False).returncode:
        pytest.skip(f"{module} is not installed (tools/setup_test_env.sh --tables)")
    done = subprocess.run(
        [python, "-c", script],
        input=json.dumps(code), cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[list[Any]] = json.loads(done.stdout)
    return found


def block(language: str) -> str:
    (code,) = re.findall(rf"^```{language}\n(.*?)^```", DOCS.read_text(), re.M | re.S)
    return str(code)


@pytest.mark.parametrize(
    ("script", "language", "module"),
    [(IN_CLICKHOUSE, "clickhouse", "chdb"), (IN_SPARK, "python", "pyspark")],
    ids=["clickhouse", "spark"],
)
def test_other_engines_answer_alike(
    ask: Any, folder: Path, script: str, language: str, module: str
) -> None:
    """The same three questions, and DuckDB's answers."""
    spies, tags, slowest = elsewhere(script, block(language), folder, module)
    asked = "Which hosts load a program that calls bpf_probe_write_user?"
    assert [tuple(row) for row in spies] == ask(asked)
    wanted = {row[:3]: row[3] for row in ask("Tags per release of a tool")}
    assert {tuple(row[:3]): row[3] for row in tags} == wanted
    assert [[*row[:3], int(row[3]), int(row[4])] for row in slowest] == [
        list(row) for row in ask("The slowest loads")
    ]
