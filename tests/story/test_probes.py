"""Feature probes: recognised, folded, never lost; and what only looks like one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpftrace_sys.story.probes.btf import BTF, btf_signature
from tests.support.needs import needs_tool
from tests.support.running import ROOT, TRACEES, Ran, run_cli

pytestmark = pytest.mark.usefixtures("needs_bpf")

WORKLOAD = str(TRACEES / "probing.py")


def scene(traced: Callable[..., Ran], name: str, *options: str) -> Ran:
    """A traced run of one scene of the workload."""
    ran = traced([*options], sys.executable, WORKLOAD, name)
    assert ran.code == 0, ran.stderr
    return ran


def folds(text: str) -> list[str]:
    """The lines that stand for runs of probes."""
    return re.findall(r"^\[\d+\] (\d+ feature probes?.*)$", text, re.M)


def probes(ran: Ran) -> list[str]:
    """The names of the calls that are marked as probes."""
    return [line["probe"] for line in ran.calls() if "probe" in line]


def shown(ran: Ran) -> int:
    """How many bpf() calls stand in the text."""
    return len(re.findall(r"^\[\d+\] bpf\(", ran.text, re.M))


def bpf_calls(ran: Ran) -> list[dict[str, Any]]:
    """The bpf() calls of the JSON."""
    return ran.calls("bpf")


def replays_alike(ran: Ran, tmp_path: Path, *options: str) -> None:
    """The recorded trace reads the same."""
    done = run_cli("replay", *options, str(tmp_path / "trace.jsonl"))
    assert done.stdout == ran.text


# ---------------------------------------------------------------- real clients


def test_libbpf(traced: Callable[..., Ran], tmp_path: Path) -> None:
    """opensnoop: its own programs and maps are shown, libbpf's probes are folded."""
    needs_tool("opensnoop")
    ran = traced([], "opensnoop", "-d", "1")
    assert folds(ran.text)
    marked = probes(ran)
    assert {"memory accounting by cgroup", "BTF", "BTF floats", "program names"} <= set(marked)
    assert "libbpf_nametest" not in ran.text
    # Whatever is folded is in the JSON, and what is not folded is in both.
    assert shown(ran) + len(marked) == len(bpf_calls(ran))
    programs = [line for line in ran.calls("BPF_PROG_LOAD") if "probe" not in line]
    assert programs
    assert all(line["args"]["attr"]["prog_name"].startswith("tracepoint__") for line in programs)
    maps = {line["args"]["attr"]["map_name"] for line in ran.calls("BPF_MAP_CREATE")
            if "probe" not in line}  # fmt: skip
    assert {"start", "events"} <= maps
    replays_alike(ran, tmp_path)


def test_verbose_shows_all(traced: Callable[..., Ran], tmp_path: Path) -> None:
    needs_tool("opensnoop")
    ran = traced(["-v"], "opensnoop", "-d", "1")
    assert folds(ran.text) == []
    assert shown(ran) == len(bpf_calls(ran))
    assert "  feature probe of libbpf: BTF floats: supported" in ran.text
    replays_alike(ran, tmp_path, "-v")


def test_bpftool(traced: Callable[..., Ran], tmp_path: Path) -> None:
    """Thousands of probes, a few lines; what is unsupported is what bpftool says."""
    needs_tool("bpftool")
    ran = traced(["-q"], "bpftool", "-j", "feature", "probe", "kernel")
    marked = [line for line in bpf_calls(ran) if "probe" in line]
    rest = [line for line in bpf_calls(ran) if "probe" not in line]
    assert len(marked) > 500
    assert len(rest) <= 1, [line["args"] for line in rest]
    assert len(folds(ran.text)) <= 3
    assert len(ran.text) < 4000
    told = json.loads(ran.stdout)
    verbose = run_cli("replay", "-v", "-q", str(tmp_path / "trace.jsonl")).stdout
    said = dict(re.findall(r"feature probe of [^:]+: (\w+ type \w+): (\w+)", verbose))
    for section, after in (("program_types", "_prog_type"), ("map_types", "_map_type")):
        for key, supported in told[section].items():
            kind = key.removeprefix("have_").removesuffix(after)
            name = f"{section.split('_')[0]} type {kind}"
            if name in said:  # a trivial socket filter is "loading a program"
                assert (said[name] == "supported") == supported, name
    assert len(said) > 50


def test_bpftrace(traced: Callable[..., Ran], tmp_path: Path) -> None:
    needs_tool("bpftrace")
    ran = traced([], "bpftrace", "--info")
    marked = set(probes(ran))
    assert any(name.startswith("helper ") for name in marked)
    assert {"memory accounting by cgroup"} <= marked
    loads = ran.calls("BPF_PROG_LOAD")
    assert len(loads) > 10
    assert all("probe" in line for line in loads)
    replays_alike(ran, tmp_path)


@pytest.mark.parametrize("name", ["libbpf-vfsstat", "bpftrace-kprobe", "bcc-perf-buffer"])
def test_recorded(name: str) -> None:
    """Probes that succeed on a kernel with kprobes and fentry attach nothing that is told."""
    found = list((ROOT / "fixtures" / name).glob("trace.jsonl*"))
    if not found:
        pytest.skip(f"fixtures/{name} has no trace")
    text = run_cli("replay", str(found[0])).stdout
    assert folds(text)
    assert "libbpf_nametest" not in text
    assert not re.search(r"^(attached|not attached)  (test|ksys_read|\(anonymous\)) ", text, re.M)


# ---------------------------------------------------------------- what only looks like one


def test_a_first_program_is_shown(traced: Callable[..., Ran]) -> None:
    """``r0 = 0; exit``, without a name, is all that this program is."""
    ran = scene(traced, "first_program")
    assert folds(ran.text) == []
    assert shown(ran) == len(bpf_calls(ran))
    assert probes(ran) == []


def test_with_company_too(traced: Callable[..., Ran]) -> None:
    """After an unmistakable probe: still shown, for it is used."""
    ran = scene(traced, "first_program_with_company")
    assert folds(ran.text) == ["1 feature probe, supported: memory accounting by cgroup"]
    assert "0: (b7) r0 = 0" in ran.text


def test_a_map_that_stays_open_is_shown(traced: Callable[..., Ran]) -> None:
    ran = scene(traced, "kept_map")
    assert ran.text.count("BPF_MAP_CREATE, {") == 2


def test_a_map_closed_unused_is_a_probe(traced: Callable[..., Ran], tmp_path: Path) -> None:
    """Its fd's number comes again at once: nobody can have used it."""
    ran = scene(traced, "closed_map")
    assert folds(ran.text) == ["2 feature probes, all supported: map type array, object names"]
    assert ran.text.count("BPF_MAP_CREATE, {") == 1
    replays_alike(ran, tmp_path)


# ---------------------------------------------------------------- cilium/ebpf, by its shapes


def test_cilium(traced: Callable[..., Ran], tmp_path: Path) -> None:
    ran = scene(traced, "cilium")
    assert probes(ran) == [
        "object names",
        "dots in object names",
        "map type array_of_maps",
        "bpf links",
        "BPF_PROG_QUERY",
        "calls between functions",
        "func_info",
        "kprobe_multi links",
        "kprobe_multi links",
    ]
    assert shown(ran) == 0
    kernel_has = subprocess.run(
        ["zgrep", "-q", "CONFIG_FPROBE=y", "/proc/config.gz"], capture_output=True, check=False
    ).returncode == 0  # fmt: skip
    expected = "8 feature probes, " + (
        "all supported" if kernel_has else "1 unsupported: kprobe_multi links"
    )
    if Path("/proc/config.gz").exists() and not kernel_has:
        assert folds(ran.text) == [expected]
    replays_alike(ran, tmp_path)


def test_cilium_alone(traced: Callable[..., Ran], tmp_path: Path) -> None:
    """A process loads nothing else, and ends: nobody writes ``r0 = 0 ll`` for its own sake; but
    what is used is no probe."""
    ran = scene(traced, "cilium_types", "-f")
    assert [line.rpartition(": ")[2] for line in folds(ran.text)] == [
        "program type lwt_in", "program type lirc_mode2", "program type syscall"
    ]
    assert shown(ran) == 0
    replays_alike(ran, tmp_path)
    ran = scene(traced, "like_cilium")
    assert folds(ran.text) == []
    assert shown(ran) == 2


def test_cilium_in_several_calls(traced: Callable[..., Ran], tmp_path: Path) -> None:
    ran = scene(traced, "cilium_more")
    assert shown(ran) == 0
    said = " ".join(folds(ran.text))
    assert "program type ext" in probes(ran)
    assert probes(ran).count("program type ext") == 3
    assert {"BPF_PROG_TEST_RUN", "ids of a program's maps"} < {*probes(ran)}
    refused = ran.calls("BPF_PROG_LOAD")[-1].get("errno")
    assert ("refused with EPERM: program type ext" in said) is (refused == "EPERM")
    replays_alike(ran, tmp_path)


def test_libxdp(traced: Callable[..., Ran], tmp_path: Path) -> None:
    """Whether the dispatcher's object is only tried, what it is configured to do says."""
    ran = scene(traced, "libxdp")
    (fold,) = folds(ran.text)
    assert fold == (
        "2 feature probes, all supported: XDP programs for packets in fragments, "
        "extensions of XDP dispatchers"
    )
    assert shown(ran) == 8  # the last, all of it
    replays_alike(ran, tmp_path)


def test_xdp_loader() -> None:
    """The real one, recorded: the dispatcher that stays is told once, the tries are not."""
    trace = str(ROOT / "fixtures" / "xdp-loader" / "trace.jsonl.gz")
    text = run_cli("replay", "-q", trace).stdout
    tried = run_cli("replay", "-q", "-v", trace).stdout
    name = 'prog_name="xdp_dispatcher"'
    assert (text.count(name), tried.count(name)) == (1, 4)
    assert "refused with EPERM: extensions of XDP dispatchers" in text
    assert text.count("magic=236") == tried.count("magic=236") == 1


# What the recorded program printed: the library's own reading of the kernel's answers.
CILIUM_SAID = {
    "map type array_of_maps": "yes",
    "map type sk_storage": "yes",
    "map type ringbuf": "yes",
    "map type inode_storage": "yes",
    "map type task_storage": "yes",
    "programs of 4097 instructions": "yes",
    "bounded loops": "yes",
    "instructions of ISA v2": "yes",
    "instructions of ISA v3": "yes",
    "helper map_lookup_elem in kprobe": "yes",
    "helper ringbuf_output in kprobe": "yes",
    "helper probe_read_kernel in kprobe": "yes",
    "helper get_func_ip in kprobe": "yes",
    "helper skb_load_bytes in kprobe": "no",
}


def test_a_go_program() -> None:
    """Its runtime's signals interrupt loads (EAGAIN), and are no answer."""
    trace = str(ROOT / "fixtures" / "cilium-features" / "trace.jsonl.gz")
    shown = run_cli("replay", "-v", trace).stdout
    told = dict(re.findall(r"feature probe of .*cilium/ebpf: (.*): (supported|unsupported)", shown))
    words = {"yes": "supported", "no": "unsupported"}
    assert {name: told.get(name) for name in CILIUM_SAID} == {
        name: words[said] for name, said in CILIUM_SAID.items()
    }
    (first, *rest) = folds(run_cli("replay", trace).stdout)
    assert first == "25 feature probes, 1 unsupported: helper skb_load_bytes in kprobe"
    assert all("1 feature probe, supported: " in line for line in rest)


# ---------------------------------------------------------------- when a fold comes out


def test_when_nothing_comes(traced: Callable[..., Ran], tmp_path: Path) -> None:
    """A program that probes and then sleeps: the line does not wait for its end."""
    ran = scene(traced, "sleeper")
    kinds = [line["type"] for line in ran.lines]
    assert "flush" in kinds
    assert kinds.index("flush") < max(
        at for at, line in enumerate(ran.lines) if line.get("event") == "exit"
    )
    replays_alike(ran, tmp_path)


def test_processes_are_folded_apart(traced: Callable[..., Ran], tmp_path: Path) -> None:
    ran = scene(traced, "two_processes", "-f")
    lines = re.findall(r"^\[(\d+)\] 1 feature probe", ran.text, re.M)
    assert len(set(lines)) == 2
    assert ran.text.index("feature probe") < ran.text.index("+++ exited")
    replays_alike(ran, tmp_path)


def test_another_program_in_the_same_process_asks_anew(
    traced: Callable[..., Ran], tmp_path: Path
) -> None:
    code = (
        "import contextlib, os, runpy, sys\n"
        f"sys.argv = [{str(WORKLOAD)!r}, 'closed_map']\n"
        "with contextlib.suppress(SystemExit):\n"
        "    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv])\n"
    )
    ran = traced(["-f"], sys.executable, "-c", code)
    assert ran.code == 0, ran.stderr
    once, *others = folds(ran.text)
    assert others == [once]
    replays_alike(ran, tmp_path)


def test_quiet_folds_too(traced: Callable[..., Ran]) -> None:
    ran = scene(traced, "closed_map", "-q")
    assert len(folds(ran.text)) == 1


# ---------------------------------------------------------------- hostile bytes


@given(st.binary(max_size=300))
def test_garbage_is_no_probe(data: bytes) -> None:
    """Whatever a tracee loads as BTF, nothing is raised and nothing loops."""
    for blob in (data, b"\x9f\xeb\x01\x00" + data):
        assert BTF.get(btf_signature(blob) or ((), frozenset())) is None or len(blob) < 300


def test_the_signature_of_real_btf() -> None:
    """libbpf's test of BTF_KIND_FLOAT: one FLOAT of 4 bytes by the name of float."""
    blob = bytes.fromhex(
        "9feb010018000000000000000c0000000c00000007000000"
        "01000000000000100400000000666c6f617400"
    )
    assert btf_signature(blob) == (((16, 0),), frozenset({b"float"}))
    assert BTF[btf_signature(blob)] == ("BTF floats", "libbpf")  # type: ignore[index]
