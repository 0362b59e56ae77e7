"""Tracing the clients that people use: BCC, bpftrace, bpftool; bpftool says what is right."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.needs import needs_tool
from tests.support.running import FIXTURES, environment, run_cli

PYTHON = sys.executable
BCC_PYTHON = "/usr/bin/python3"

pytestmark = pytest.mark.usefixtures("needs_bpf")


class Trace:
    """A finished trace: its text, its lines, where they are, and what bpftool said meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.text_file = folder / "trace.txt"
        self.file = folder / "trace.jsonl"
        self.progs: dict[str, dict[str, Any]] = {}
        self.text = ""
        self.lines: list[dict[str, Any]] = []

    def load(self) -> Trace:
        """Reads what was written."""
        self.text = self.text_file.read_text()
        self.lines = [json.loads(line) for line in self.file.read_text().splitlines()]
        return self

    def calls(self, what: str) -> list[dict[str, Any]]:
        """The calls of one syscall, command or request."""
        return [
            line
            for line in self.lines
            if line["type"] == "syscall"
            and what in (line["syscall"], line["args"].get("cmd"), line["args"].get("request"))
        ]

    def loads(self, name: str) -> dict[str, Any]:
        """The load of a program."""
        (found,) = (
            line
            for line in self.calls("BPF_PROG_LOAD")
            if line.get("fd", {}).get("name") == name
        )
        return found

    def attached(self, prog: str) -> dict[str, Any]:
        """The one attachment of a program."""
        (found,) = (
            line
            for line in self.lines
            if line["type"] == "attachment"
            and line["verb"] == "attached"
            and line["prog"]["name"] == prog
        )
        return found

    def block(self, prog: str) -> list[str]:
        """The text that tells of a program's attachment."""
        found = re.search(rf"^attached  {prog} .*\n(?:  .*\n)+", self.text, re.MULTILINE)
        assert found, self.text
        return found[0].splitlines()


def assert_replays(trace: Trace) -> None:
    """Text and JSON of the replay are those of the live trace."""
    again = trace.file.with_name("again.jsonl")
    done = run_cli("replay", "--json", str(again), str(trace.file))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == trace.text
    assert again.read_text() == trace.file.read_text()


def prog_show() -> dict[str, dict[str, Any]]:
    """bpftool's view of the programs there are, by id."""
    done = subprocess.run(
        ["bpftool", "-j", "prog", "show"], capture_output=True, check=True, timeout=120
    )
    return {str(prog["id"]): prog for prog in json.loads(done.stdout)}


def trace_and_look(folder: Path, *words: str, cwd: Path) -> Trace:
    """Traces a program that says "attached" and waits for a line; asks bpftool meanwhile."""
    trace = Trace(folder)
    with subprocess.Popen(
        [PYTHON, "-m", "bpftrace_sys", "-f", "-o", str(trace.text_file),
         "--json", str(trace.file), *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd,
        env=environment(), text=True,
    ) as traced:  # fmt: skip
        assert traced.stdout is not None
        said = traced.stdout.readline()
        if said == "attached\n":
            trace.progs = prog_show()
        out, err = traced.communicate("\n", timeout=60)
    assert said == "attached\n", said + out + err
    assert traced.returncode == 0, err
    return trace.load()


def needs_bcc() -> None:
    """Skips where BCC cannot work."""
    found = subprocess.run([BCC_PYTHON, "-c", "import bcc"], capture_output=True, check=False)
    if found.returncode:
        pytest.skip("python3-bpfcc is not installed")
    if not os.path.isdir(f"/lib/modules/{os.uname().release}/build"):
        pytest.skip("BCC needs kernel headers")


def copied(name: str, folder: Path) -> Path:
    """A fixture's workload, elsewhere."""
    return Path(shutil.copytree(FIXTURES / name, folder / name))


# ------------------------------------------------------------------ BCC, a uprobe


@pytest.fixture(scope="module")
def bcc_uprobe(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """BCC's hello world on a uprobe and a uretprobe of libc's getppid."""
    needs_bcc()
    needs_tool("bpftool")
    folder = tmp_path_factory.mktemp("uprobe")
    cwd = copied("bcc-uprobe", folder)
    return trace_and_look(folder, BCC_PYTHON, "hello.py", cwd=cwd)


def getppid() -> tuple[str, int]:
    """libc's file and the offset of getppid in it, by nm."""
    needs_tool("nm")
    maps = Path("/proc/self/maps").read_text()
    found = re.search(r"(/\S+/libc\.so\.6)$", maps, re.MULTILINE)
    assert found
    symbols = subprocess.run(
        ["nm", "-D", found[1]], capture_output=True, text=True, check=True
    ).stdout
    address = re.search(r"^([0-9a-f]+) \w getppid", symbols, re.MULTILINE)
    assert address
    return found[1], int(address[1], 16)


def test_bcc_uprobe_load_with_source_lines(bcc_uprobe: Trace) -> None:
    load = bcc_uprobe.loads("hello_world")
    attr = load["args"]["attr"]
    assert attr["prog_type"] == "BPF_PROG_TYPE_KPROBE"
    assert attr["license"]["value"] == "GPL"
    assert attr["insn_cnt"] == 13
    insns = attr["insns"]["value"]
    assert insns[0]["src"] == "int hello_world(void *ctx)"
    sources = [insn["src"] for insn in insns if "src" in insn]
    assert any("bpf_trace_printk" in source for source in sources)
    assert "return 0;" in sources
    assert insns[-1] == {"pc": 12, "text": "(95) exit"}
    text = bcc_uprobe.text
    assert "; int hello_world(void *ctx)\n" in text
    assert "/* Hello, W */" in text
    assert re.search(r"10: \(85\) call bpf_trace_printk#6\n +; return 0;\n", text)


def test_bcc_uprobe_path_offset_and_pmu(bcc_uprobe: Trace) -> None:
    path, offset = getppid()
    number = int(Path("/sys/bus/event_source/devices/uprobe/type").read_text())
    events = bcc_uprobe.calls("perf_event_open")
    assert len(events) == 2
    for event, retprobe in zip(events, (0, 1), strict=True):
        attr = event["args"]["attr"]
        assert attr["type"] == {"value": number, "name": "uprobe"}
        assert os.path.samefile(attr["uprobe_path"]["value"], path)
        assert int(str(attr["probe_offset"]), 0) == offset
        config = attr["config"]
        value = config["value"] if isinstance(config, dict) else config
        assert int(str(value), 0) & 1 == retprobe
    assert f"/* PMU uprobe = {number} */" in bcc_uprobe.text
    assert re.search(
        rf'uprobe_path=0x[0-9a-f]+ "/\S+/libc\.so\.6",\s+probe_offset={offset:#x}', bcc_uprobe.text
    )


@pytest.mark.parametrize(("prog", "what"), [("hello_world", "uprobe"), ("goodbye", "uretprobe")])
def test_bcc_uprobe_attachment(prog: str, what: str, bcc_uprobe: Trace) -> None:
    attached = bcc_uprobe.attached(prog)
    assert re.fullmatch(rf"{what} /\S+/libc\.so\.6:(getppid|0x[0-9a-f]+)", attached["target"])
    by_seq = {line["seq"]: line for line in bcc_uprobe.lines if line["type"] == "syscall"}
    steps = [(step["role"], by_seq[step["seq"]]) for step in attached["steps"]]
    assert [role for role, _ in steps] == ["load", "type", "event", "attach", "enable"]
    load, kind, event, attach, enable = (line for _, line in steps)
    assert load["ret"] == attach["args"]["arg"]
    assert kind["args"]["pathname"]["value"] == "/sys/bus/event_source/devices/uprobe/type"
    assert event["ret"] == attach["args"]["fd"] == enable["args"]["fd"]
    assert attach["args"]["request"] == "PERF_EVENT_IOC_SET_BPF"
    assert enable["args"]["request"] == "PERF_EVENT_IOC_ENABLE"
    head, *rows = bcc_uprobe.block(prog)
    assert head == (
        f"attached  {prog} (kprobe, {load['args']['attr']['insn_cnt']} insns, "
        f"tag {load['fd']['tag']}) -> {attached['target']} via the uprobe PMU"
    )
    assert rows == [
        f"  load    bpf(BPF_PROG_LOAD) = {load['ret']}",
        f'  type    openat("/sys/bus/event_source/devices/uprobe/type") = {kind["ret"]}',
        f"  event   perf_event_open({attached['target']}) = {event['ret']}",
        f"  attach  ioctl({event['ret']}, PERF_EVENT_IOC_SET_BPF, {load['ret']})",
        f"  enable  ioctl({event['ret']}, PERF_EVENT_IOC_ENABLE)",
    ]


@pytest.mark.parametrize("prog", ["hello_world", "goodbye"])
def test_bcc_uprobe_tag_is_bpftools(prog: str, bcc_uprobe: Trace) -> None:
    load = bcc_uprobe.loads(prog)
    shown = bcc_uprobe.progs[str(load["fd"]["id"])]
    assert shown["name"] == prog
    assert shown["tag"] == load["fd"]["tag"]
    release = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))
    assert shown["tag"] == load["tag"]["sha256" if release >= (6, 18) else "sha1"]
    if prog == "hello_world":
        assert load["tag"]["sha1"] == "38dd440716c4900f"  # the lesson's program, everywhere


def test_bcc_uprobe_replays(bcc_uprobe: Trace) -> None:
    assert_replays(bcc_uprobe)


# ------------------------------------------------------------------ BCC, tracepoints


@pytest.fixture(scope="module")
def bcc_tracepoint(tracefs: Path, tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """BCC on two tracepoints with a hash map."""
    needs_bcc()
    folder = tmp_path_factory.mktemp("tracepoint")
    trace = Trace(folder)
    done = run_cli(
        "-f", "-o", str(trace.text_file), "--json", str(trace.file), BCC_PYTHON, "count.py",
        cwd=copied("bcc-tracepoint", folder),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "getppid() was called 3 times\n"
    return trace.load()


def test_bcc_tracepoint_events(bcc_tracepoint: Trace, tracefs: Path) -> None:
    events = bcc_tracepoint.calls("perf_event_open")
    names = ["syscalls:sys_enter_getppid", "sched:sched_switch"]
    for event, name in zip(events, names, strict=True):
        attr = event["args"]["attr"]
        assert attr["type"] == "PERF_TYPE_TRACEPOINT"
        number = int((tracefs / "events" / name.replace(":", "/") / "id").read_text())
        assert attr["config"] == {"value": number, "name": name}
        assert f"config={number} /* {name} */" in bcc_tracepoint.text


def test_bcc_tracepoint_attachments(bcc_tracepoint: Trace) -> None:
    targets = {
        line["prog"]["name"]: line["target"]
        for line in bcc_tracepoint.lines
        if line["type"] == "attachment" and line["verb"] == "attached"
    }
    assert targets.pop("switched") == "tracepoint sched:sched_switch"
    ((name, target),) = targets.items()
    # The kernel has 15 letters of it; BTF has them all.
    assert name == "tracepoint__syscalls__sys_enter_getppid"
    assert target == "tracepoint syscalls:sys_enter_getppid"
    block = bcc_tracepoint.block("switched")
    steps = ["load", "type", "event", "attach", "enable"]
    assert [row.split()[0] for row in block[1:6]] == steps
    assert block[6].split()[0] == "given"  # the tracepoint's fields
    assert "/events/sched/sched_switch/id" in block[2]


def test_bcc_tracepoint_map_is_named_everywhere(bcc_tracepoint: Trace) -> None:
    (made,) = bcc_tracepoint.calls("BPF_MAP_CREATE")
    assert made["args"]["attr"]["map_name"] == "counts"
    assert made["args"]["attr"]["max_entries"] == 64
    fd = made["ret"]
    text = bcc_tracepoint.text
    assert re.search(rf"= {fd}<map counts id={made['fd']['id']} hash 4/8>", text)
    assert re.search(rf"\(18\) r1 = {fd:#x} +/\* map fd {fd} counts \*/", text)
    (looked_up,) = bcc_tracepoint.calls("BPF_MAP_LOOKUP_ELEM")
    assert looked_up["fds"][str(fd)]["name"] == "counts"
    # The value is what the program counted, and what the workload printed.
    assert re.search(rf"map_fd={fd}<map counts id=\d+>, key=\d+, value=3\b", text)
    assert "; *count += 1;\n" in text


def test_bcc_tracepoint_replays(bcc_tracepoint: Trace) -> None:
    assert_replays(bcc_tracepoint)


# ------------------------------------------------------------------ bpftrace

ONE_LINER = "tracepoint:syscalls:sys_enter_openat { @[comm] = count(); } interval:s:1 { exit(); }"


@pytest.fixture(scope="module")
def bpftrace(tracefs: Path, tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """The one-liner."""
    needs_tool("bpftrace")
    trace = Trace(tmp_path_factory.mktemp("bpftrace"))
    words = ["-f", "-o", str(trace.text_file), "--json", str(trace.file), "bpftrace", "-e"]
    done = run_cli(*words, ONE_LINER)
    assert done.returncode == 0, done.stderr
    assert "@[" in done.stdout
    return trace.load()


def test_bpftrace_attachments(bpftrace: Trace, tracefs: Path) -> None:
    targets = [line["target"] for line in bpftrace.lines if line["type"] == "attachment"]
    assert "tracepoint syscalls:sys_enter_openat" in targets
    # interval:s:1 is a software clock that fires once a second.
    assert any(target.startswith("software cpu-clock") for target in targets), targets
    assert re.search(r"^attached  sys_enter_opena\w* \(tracepoint, \d+ insns, tag [0-9a-f]{16}\) "
                     r"-> tracepoint syscalls:sys_enter_openat\b", bpftrace.text, re.MULTILINE)


def test_bpftrace_programs_have_the_kernels_tags(bpftrace: Trace) -> None:
    loads = [line for line in bpftrace.calls("BPF_PROG_LOAD") if "fd" in line]
    assert len(loads) >= 2
    for load in loads:
        assert load["fd"]["tag"] in load["tag"].values()


def test_bpftrace_reads_its_map(bpftrace: Trace) -> None:
    assert bpftrace.calls("BPF_MAP_GET_NEXT_KEY")
    looked_up = bpftrace.calls("BPF_MAP_LOOKUP_ELEM")
    assert looked_up
    # A per-CPU map has a value for each possible CPU.
    values = looked_up[-1]["args"]["attr"]["value"]["value"]
    assert len(json.dumps(values)) > 8
    assert any(name in bpftrace.text for name in ("percpu_hash 16/8", "percpu_hash 16/"))


def test_bpftrace_replays(bpftrace: Trace) -> None:
    assert_replays(bpftrace)


# ------------------------------------------------------------------ bpftool

SOURCE = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 4);
  __type(key, __u32);
  __type(value, __u64);
} packets SEC(".maps");
SEC("xdp")
int count_them(struct xdp_md *ctx)
{
  __u32 key = 0;
  __u64 *count = bpf_map_lookup_elem(&packets, &key);
  if (count)
    *count += 1;
  return XDP_PASS;
}
"""


@pytest.fixture(scope="module")
def bpftool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Trace, str]]:
    """``bpftool prog load``, which pins; the pin is looked at and removed."""
    needs_tool("bpftool", "clang")
    folder = tmp_path_factory.mktemp("bpftool")
    if not os.path.ismount("/sys/fs/bpf"):
        pytest.skip("bpffs is not mounted")
    (folder / "count.c").write_text(SOURCE)
    built = subprocess.run(
        ["clang", "-O2", "-g", "-target", "bpf", f"-I/usr/include/{os.uname().machine}-linux-gnu",
         "-c", "count.c", "-o", "count.o"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if built.returncode:
        pytest.skip(f"clang cannot build a BPF object here: {built.stderr[:200]}")
    trace = Trace(folder)
    pin = f"/sys/fs/bpf/bpfstrace-test-{os.getpid()}"
    try:
        done = run_cli(
            "-f", "-o", str(trace.text_file), "--json", str(trace.file),
            "bpftool", "prog", "load", str(folder / "count.o"), pin,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        trace.progs = prog_show()
        yield trace.load(), pin
    finally:
        Path(pin).unlink(missing_ok=True)


def test_bpftool_load(bpftool: tuple[Trace, str]) -> None:
    trace, pin = bpftool
    load = trace.loads("count_them")
    attr = load["args"]["attr"]
    assert attr["prog_type"] == "BPF_PROG_TYPE_XDP"
    shown = trace.progs[str(load["fd"]["id"])]
    assert shown["tag"] == load["fd"]["tag"]
    assert shown["tag"] in load["tag"].values()
    assert shown["bytes_xlated"] >= attr["insn_cnt"] * 8
    sources = [insn["src"] for insn in attr["insns"]["value"] if "src" in insn]
    assert "int count_them(struct xdp_md *ctx)" in sources
    assert "*count += 1;" in sources
    (pinned,) = trace.calls("BPF_OBJ_PIN")
    assert pinned["args"]["attr"]["pathname"]["value"] == pin
    assert pinned["args"]["attr"]["bpf_fd"] == load["ret"]
    assert f'pathname="{pin}", bpf_fd={load["ret"]}<prog count_them id=' in trace.text
    # func_info and line_info, which BCC does not pass here.
    assert attr["func_info_cnt"] == 1
    assert attr["line_info_cnt"] >= 3
    assert re.search(r"^not seen attached  count_them ", trace.text, re.MULTILINE)


def test_bpftool_load_replays(bpftool: tuple[Trace, str]) -> None:
    assert_replays(bpftool[0])


def test_bpftool_listing_is_ours(bpftool: tuple[Trace, str]) -> None:
    """``prog dump xlated`` is after the kernel's rewriting; what that leaves is the same."""
    trace, pin = bpftool
    dumped = subprocess.run(
        ["bpftool", "prog", "dump", "xlated", "pinned", pin],
        capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    theirs = set(re.findall(r"^ *\d+: (\(.*\) .*)$", dumped, re.MULTILINE))
    ours = {insn["text"] for insn in trace.loads("count_them")["args"]["attr"]["insns"]["value"]}
    assert {"(95) exit", "(b7) r0 = 2"} <= ours & theirs
    assert len(ours & theirs) >= len(ours) // 2


def test_bpftool_prog_list(bpftool: tuple[Trace, str], tmp_path: Path) -> None:
    loaded, _ = bpftool
    trace = Trace(tmp_path)
    done = run_cli("-f", "-o", str(trace.text_file), "--json", str(trace.file),
                   "bpftool", "-j", "prog", "list")  # fmt: skip
    assert done.returncode == 0, done.stderr
    listed = {prog["id"]: prog for prog in json.loads(done.stdout)}
    trace.load()
    seen = {}
    for call in trace.calls("BPF_OBJ_GET_INFO_BY_FD"):
        info = call["args"]["attr"]["info"]["info"]
        info = info.get("value", info)
        if "prog_tag" in json.dumps(info) or "tag" in info:
            number = info["id"]
            seen[number["after"] if isinstance(number, dict) else number] = info
    number = loaded.loads("count_them")["fd"]["id"]
    assert number in listed
    assert number in seen
    assert seen[number]["tag"] in (listed[number]["tag"], {"hex": listed[number]["tag"]})
    assert "looked through" in trace.text
    whole = run_cli("replay", "-v", str(trace.file)).stdout
    assert f"<prog count_them id={number} (from before)>" in whole
    assert f"tag={listed[number]['tag']}" in whole
    assert_replays(trace)


def test_time_is_not_lost(bpftool: tuple[Trace, str]) -> None:
    """Times of calls lie within the run, in order."""
    trace, _ = bpftool
    times = [line["time"] for line in trace.lines if line["type"] == "syscall"]
    assert times == sorted(times)
    assert trace.lines[0]["start"] <= times[0]
    assert times[-1] / 1e9 <= time.time()
