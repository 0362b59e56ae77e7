"""The ledger agrees with bpftool, and with the trace that stands above it.

The loaders' traces are those of test_objects and test_attach; what stays behind
is asked bpftool when the tracee is gone.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys.render.tables import narrow_lines, plain_lines
from bpftrace_sys.story.summary import Table
from tests.support.bpftool_view import Traced, bpftool, tables_of, trace_of, under_bpfstrace
from tests.support.loaders import EXPECTED, NAMES, skip_if_it_lacks_more
from tests.support.needs import needs_tool
from tests.support.running import LOADERS, environment, run_cli
from tests.support.terminal import OWN_COLOURS, on_terminal

pytestmark = pytest.mark.usefixtures("needs_bpf")

LOADED = [name for name in NAMES if name not in ("common_attrs", "bpf_token", "errors")]


@pytest.fixture
def traced_loader(name: str, tmp_path_factory: pytest.TempPathFactory) -> Traced:
    """The trace of the loader that a test is about."""
    needs_tool("bpftool")
    trace = trace_of(name, tmp_path_factory)
    skip_if_it_lacks_more(trace.facts, EXPECTED[name])
    return trace


@pytest.mark.parametrize("name", LOADED)
def test_programs_maps_and_links_are_bpftools(name: str, traced_loader: Traced) -> None:
    tables, view = tables_of(traced_loader.ran.text), traced_loader.view
    compared = 0
    for row in tables.get("programs", ()):
        theirs = view.progs.get(int(row["id"]))
        if theirs is None:
            continue
        compared += 1
        assert row["name"] == (theirs.get("name") or "(anonymous)")
        assert row["tag"] == theirs["tag"]
        if isinstance(theirs["type"], str):
            assert row["type"] == theirs["type"]
    for row in tables.get("maps", ()):
        theirs = view.maps.get(int(row["id"]))
        if theirs is None:
            continue
        compared += 1
        assert row["name"] == (theirs.get("name") or "(anonymous)")
        assert [int(row[key]) for key in ("key", "value", "entries")] == [
            theirs[key] for key in ("bytes_key", "bytes_value", "max_entries")
        ]
        if isinstance(theirs["type"], str):
            assert row["type"] == theirs["type"]
    names = {number: prog.get("name", "") for number, prog in view.progs.items()}
    for row in tables.get("links", ()):
        theirs = view.links.get(int(row["id"]))
        if theirs is None:
            continue
        compared += 1
        if isinstance(theirs["type"], str):
            assert row["type"] == theirs["type"]
        if theirs.get("prog_id") in names:
            assert row["program"] == names[theirs["prog_id"]]
    assert compared or name == "pidfd_getfd"


@pytest.mark.parametrize("name", LOADED)
def test_nothing_is_missing(name: str, traced_loader: Traced) -> None:
    tables, facts = tables_of(traced_loader.ran.text), traced_loader.facts
    for kind, title in (("progs", "programs"), ("maps", "maps"), ("links", "links")):
        ids = {row["id"] for row in tables.get(title, ())}
        assert {str(each["id"]) for each in facts.get(kind, ())} <= ids
    insns = {row["id"]: row["insns"] for row in tables.get("programs", ())}
    for line in traced_loader.ran.calls("BPF_PROG_LOAD"):
        if line["ret"] != -1 and "probe" not in line:
            assert insns[str(line["fd"]["id"])] == str(line["args"]["attr"]["insn_cnt"])


@pytest.mark.parametrize("name", ["map_ops", "tail_calls", "errors", "cgroup_attach"])
def test_calls_are_counted_as_they_are_in_the_trace(name: str, traced_loader: Traced) -> None:
    ours: dict[tuple[str, str], list[int]] = {}
    for line in traced_loader.ran.calls():
        word = line["args"].get("cmd") or line["args"].get("request") or ""
        if isinstance(word, int):
            word = ""  # one that nobody knows
        count = ours.setdefault((line["syscall"], str(word)), [0, 0, 0])
        count[0] += 1
        count[1] += line["ret"] == -1
        count[2] += line["duration"] or 0
    rows = tables_of(traced_loader.ran.text)["calls"]
    said = {
        (row["syscall"], row["command"]): [int(row["calls"]), int(row["errors"] or 0)]
        for row in rows
    }
    known = {key: value for key, value in ours.items() if not key[1].startswith("0x")}
    for key, (calls, errors, spent) in known.items():
        assert said[key] == [calls, errors]
        (row,) = [each for each in rows if (each["syscall"], each["command"]) == key]
        assert abs(int(row["us"]) - spent / 1000) <= 1
    assert [int(row["us"]) for row in rows] == sorted(
        (int(row["us"]) for row in rows), reverse=True
    )


def test_refused_programs_have_a_table(tmp_path_factory: pytest.TempPathFactory) -> None:
    needs_tool("bpftool")
    trace = trace_of("errors", tmp_path_factory)
    loads = {line["seq"]: line for line in trace.ran.calls("BPF_PROG_LOAD") if "probe" not in line}
    for line in list(loads.values()):
        if "retry" in line:
            loads.pop(line["retry"]["after"], None)
    refused = [line for line in loads.values() if line["ret"] == -1]
    rows = tables_of(trace.ran.text)["refused programs"]
    assert [row["errno"] for row in rows] == [line["errno"] for line in refused]
    for row, line in zip(rows, refused, strict=True):
        assert row["name"] == (line["args"]["attr"].get("prog_name") or "(anonymous)")
        assert row["reason"]
    (read,) = [row for row in rows if row["reason"] == "R2 !read_ok"]
    assert (read["name"], read["type"], read["errno"]) == ("refused", "socket_filter", "EACCES")
    assert read["source"] == "refused.c:2:1"


def test_operations_of_a_map_are_counted(tmp_path_factory: pytest.TempPathFactory) -> None:
    needs_tool("bpftool")
    trace = trace_of("map_ops", tmp_path_factory)
    rows = {row["id"]: int(row["operations"]) for row in tables_of(trace.ran.text)["maps"]}
    for kind, number in trace.objects():
        if kind != "map":
            continue
        used = 0
        for line in trace.ran.calls():
            command = str(line["args"].get("cmd"))
            if command.startswith("BPF_MAP_") and command != "BPF_MAP_CREATE":
                attr = line["args"]["attr"]
                fd = attr.get("map_fd", attr.get("batch", {}).get("map_fd"))
                used += line.get("fds", {}).get(str(fd), {}).get("id") == number
        assert rows[str(number)] == used


# ---------------------------------------------------------------- what stays


@pytest.fixture
def bpffs(tmp_path: Path) -> Any:
    """A bpffs of the test's own, which the tracee and we see."""
    place = tmp_path / "bpffs"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "bpf", "bpf", str(place)], check=False)
    if done.returncode:
        pytest.skip("no bpffs can be mounted")
    yield place
    subprocess.run(["umount", str(place)], check=True)


SEND = """
import os, socket, sys
sys.path.insert(0, sys.argv[1])
from _common import Kit, returning
kit = Kit()
prog = kit.prog("SOCKET_FILTER", returning(0), "sent_away")
kit.prog("SOCKET_FILTER", returning(1), "dropped")
with socket.socket(socket.AF_UNIX) as to:
    to.connect(sys.argv[2])
    socket.send_fds(to, [b"x"], [prog])
    to.recv(1)
"""


def test_what_is_pinned_stays_behind(bpffs: Path) -> None:
    needs_tool("bpftool", "clang")
    source = bpffs.parent / "two.c"
    source.write_text(
        'struct { int (*type)[2]; int *key; long *value; int (*max_entries)[4]; }\n'
        ' kept_map __attribute__((section(".maps"), used));\n'
        'char l[] __attribute__((section("license"), used)) = "GPL";\n'
        '__attribute__((section("socket"), used)) int with_a_very_long_name(void *ctx)\n'
        '{ return *(int *)&kept_map ? 1 : 2; }\n'
    )  # fmt: skip
    subprocess.run(
        ["clang", "-O2", "-g", "-target", "bpf", "-c", "two.c", "-o", "two.o"],
        cwd=bpffs.parent,
        check=True,
    )
    script = (
        f"bpftool prog loadall two.o {bpffs}/progs pinmaps {bpffs}/maps &&"
        f" bpftool prog load two.o {bpffs}/short && rm {bpffs}/short"
    )
    program = ["sh", "-c", f"cd {bpffs.parent}; {script}"]
    with under_bpfstrace(bpffs.parent, [], program) as (_, ran):
        pass
    assert ran.code == 0, ran.stderr
    rows = tables_of(ran.text)["left behind"]
    pins = {each.name: each for folder in ("progs", "maps") for each in (bpffs / folder).iterdir()}
    assert len(rows) == len(pins) == 2
    for row in rows:
        shown = bpftool(row["what"], "show", "id", row["id"])
        assert shown["name"] == row["name"]
        (pin,) = [path for path in pins.values() if row["why"] == f"pinned at {path}"]
        assert bpftool(row["what"], "show", "pinned", str(pin))["id"] == int(row["id"])
    assert {row["name"] for row in rows} == {"with_a_very_long_name", "kept_map"}
    names = [row["name"] for row in tables_of(ran.text)["programs"]]
    assert names.count("with_a_very_long_name") == 2


def test_a_map_is_held_by_its_program(bpffs: Path) -> None:
    """Nobody has pinned it, and no process has it open: a program of the same table holds it."""
    needs_tool("bpftool")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from _common import *\n"
        "kit = Kit(); counts = kit.map('ARRAY', 4, 8, 1, 'counted')\n"
        "prog = kit.prog('SOCKET_FILTER', counting(counts), 'counter')\n"
        "call('OBJ_PIN', pathname=os.fsencode(sys.argv[2]) + b'\\0', bpf_fd=prog, size=16)\n"
    )
    pin = bpffs / "counter"
    done = run_cli("-f", sys.executable, "-c", code, str(LOADERS), str(pin))
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in tables_of(done.stderr)["left behind"]}
    shown = bpftool("prog", "show", "pinned", str(pin))
    assert shown["map_ids"] == [int(rows["counted"]["id"])]
    assert rows["counted"]["why"] == f"used by prog counter id={shown['id']}"
    assert rows["counter"]["why"] == f"pinned at {pin}"


def test_what_is_attached_stays_behind(bpffs: Path) -> None:
    needs_tool("bpftool")
    cgroup = None
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            cgroup = Path(where) / f"ledger.{os.getpid()}"
    if cgroup is None:
        pytest.skip("no cgroup v2 is mounted")
    cgroup.mkdir()
    try:
        code = (
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "from _common import *\n"
            "kit = Kit(); fd = os.open(sys.argv[2], os.O_RDONLY)\n"
            "prog = kit.prog('CGROUP_SKB', returning(1), 'stays', 'CGROUP_INET_EGRESS')\n"
            "call('PROG_ATTACH', target_fd=fd, attach_bpf_fd=prog, attach_flags=2,\n"
            "     attach_type=ATTACH['CGROUP_INET_EGRESS'])\n"
            "link = kit.prog('CGROUP_SKB', returning(1), 'goes', 'CGROUP_INET_EGRESS')\n"
            "kit.link('CGROUP_INET_EGRESS', link, fd)\n"
        )
        words = [sys.executable, "-c", code, str(LOADERS), str(cgroup)]
        done = run_cli("-f", *words)
        assert done.returncode == 0, done.stderr
        rows = tables_of(done.stderr)["left behind"]
        (shown,) = bpftool("cgroup", "show", str(cgroup))
        assert [(row["id"], row["name"], row["why"]) for row in rows] == [
            (str(shown["id"]), "stays", f"attached to cgroup_skb egress on {cgroup}")
        ]
    finally:
        cgroup.rmdir()


def test_what_went_with_its_fds_is_not_said_to_be_attached(bpffs: Path) -> None:
    """A program that is pinned stays; its perf event does not."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from fcntl import ioctl\n"
        "from _common import *\n"
        "kit = Kit(); path, offset = libc_function('getppid')\n"
        "prog = kit.prog('KPROBE', returning(0), 'pinned_one')\n"
        "event = perf_event(pmu('uprobe'), text=path.encode(), config2=offset)\n"
        "ioctl(event, PERF_EVENT_IOC_SET_BPF, prog)\n"
        "call('OBJ_PIN', pathname=os.fsencode(sys.argv[2]) + b'\\0', bpf_fd=prog, size=16)\n"
    )
    pin = bpffs / "one"
    words = [sys.executable, "-c", code, str(LOADERS), str(pin)]
    done = run_cli("-f", *words)
    assert done.returncode == 0, done.stderr
    tables = tables_of(done.stderr)
    assert [row["why"] for row in tables["left behind"]] == [f"pinned at {pin}"]
    assert tables["programs"][0]["attached to"].startswith("uprobe /")


def test_what_another_process_has_open_stays_behind(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        server.listen()
        words = ["-c", SEND, str(LOADERS), str(tmp_path / "socket")]
        with subprocess.Popen(
            [sys.executable, "-m", "bpftrace_sys", "-f", sys.executable, *words],
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        ) as tracer:
            peer, _ = server.accept()
            _, fds, _, _ = socket.recv_fds(peer, 1, 1)
            peer.close()
            text = tracer.communicate(timeout=60)[1]
        rows = tables_of(text)["left behind"]
        comm = Path("/proc/self/comm").read_text().strip()
        assert [(row["name"], row["why"]) for row in rows] == [
            ("sent_away", f"open in {os.getpid()} ({comm})")
        ]
        os.close(fds[0])


def test_nothing_is_left_behind_by_who_tidies_up(tmp_path: Path) -> None:
    done = run_cli("-f", sys.executable, str(LOADERS / "tail_calls.py"))
    assert "left behind" not in done.stderr
    assert "programs\n" in done.stderr


# ---------------------------------------------------------------- how it looks


def test_alone_with_c(tmp_path: Path) -> None:
    done = run_cli("-c", "-f", sys.executable, str(LOADERS / "tail_calls.py"))
    assert done.returncode == 0
    assert set(tables_of(done.stderr)) == {"programs", "maps", "calls"}
    assert "bpf(" not in done.stderr
    assert "attached  " not in done.stderr


def test_not_at_all_with_q(tmp_path: Path) -> None:
    done = run_cli("-q", "-f", sys.executable, str(LOADERS / "tail_calls.py"))
    assert tables_of(done.stderr) == {}


def test_plain_in_a_pipe() -> None:
    done = run_cli("-c", "-f", sys.executable, str(LOADERS / "cgroup_attach.py"))
    assert "\x1b" not in done.stderr
    for row in tables_of(done.stderr).get("programs", ()):
        assert row["id"].isdigit()
        assert re.fullmatch("[0-9a-f]{16}", row["tag"])


@pytest.mark.parametrize("colours", [True, False])
@pytest.mark.parametrize("columns", [60, 100])
def test_aligned_on_a_terminal(columns: int, colours: bool) -> None:
    env = environment()
    if colours:
        env.pop("NO_COLOR")
        env["TERM"] = "xterm-256color"
    words = [sys.executable, "-m", "bpftrace_sys", "-f", "-c", "-e", "trace=bpf"]
    code, shown = on_terminal(
        [*words, sys.executable, str(LOADERS / "tail_calls.py")], columns=columns, env=env
    )
    assert code == 0
    assert ("\x1b[1m" in shown) is colours
    lines = OWN_COLOURS.sub("", shown).splitlines()[1:]  # the first is the loader's own
    assert max(map(len, lines)) <= columns
    facts = json.loads(shown.splitlines()[0])
    start = next(at for at, line in enumerate(lines) if line.strip() == "programs")
    heads = lines[start + 1]
    at, end = heads.index("tag"), heads.index("tag") + 16
    found = [line for line in lines if line.split()[:1] in (["entry"], ["first"], ["last"])]
    assert [line[at:end] for line in found] == [prog["tag"] for prog in facts["progs"]]
    right = heads.index("insns") + len("insns")
    assert [line[:right].split()[-1] for line in found] == [
        str(prog["insns"]) for prog in facts["progs"]
    ]
    assert "tail call 0 of map jumps" in " ".join(" ".join(lines).split())


def test_narrow_lines_lose_nothing() -> None:
    table = Table(
        "things", ("name", "number", "what it is"),
        [("short", "1", "x" * 50), ("longer", "22", "a b c")], frozenset({"number"}),
    )  # fmt: skip
    for width in range(12, 80):
        lines = narrow_lines(table, width)
        assert max(map(len, lines)) <= width
        text = "".join("".join(lines).split())
        assert all(cell.replace(" ", "") in text for row in table.rows for cell in row)
    assert narrow_lines(table, 200) == plain_lines(table)


def test_a_path_that_fits_nowhere_loses_its_middle() -> None:
    path = "/sys/fs/bpf/" + "a-folder/" * 20 + "the-map"
    table = Table("things", ("name", "why"), [("short", f"pinned at {path}; open in x")])
    lines = narrow_lines(table, 60)
    (line,) = [line for line in lines if "/sys/fs/bpf/" in line]
    assert "\u2026" in line
    assert line.endswith("the-map;")
    assert max(map(len, lines)) <= 60
    short = Table("things", ("name", "why"), [("short", "pinned at /sys/fs/bpf/a-folder/a-map")])
    assert "/sys/fs/bpf/a-folder/a-map" in " ".join(narrow_lines(short, 40))
