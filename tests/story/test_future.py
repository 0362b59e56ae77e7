"""What no kernel at hand can do, in traces saved as if one could (tests/support/future.py).

The helper itself is held against a kernel's own success: a call is refused by injection, made to
succeed in the saved trace, and must then be told as where the kernel had taken it.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from bpftrace_sys.trace.header import Header
from bpftrace_sys.trace.items import End
from decoders.events import Ending
from decoders.raw import AUDIT_ARCH_X86_64, RawCall
from decoders.uapi import const
from tests.support import rewriting
from tests.support.by_hand import Room
from tests.support.future import Success, in_future
from tests.support.made_up import record
from tests.support.running import LOADERS, TRACEES, run_cli

PROG: Final = ("prog", {"prog_id": 900, "prog_type": 26, "prog_tag": "90" * 8})
LINK: Final = (
    "link",
    {"link_id": 901, "link_type": "tracing_multi", "prog_id": 900, "prog_tag": "90" * 8},
)


def told(trace: Path, *words: str) -> str:
    """What replay prints."""
    done = run_cli("replay", *words, str(trace))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# ------------------------------------------------------------------ the helper


def test_a_success_is_what_the_kernel_makes_of_it(needs_bpf: None, tmp_path: Path) -> None:
    real, refused, future = (tmp_path / f"{name}.jsonl" for name in ("real", "refused", "future"))
    program = ["python3", str(LOADERS / "raw_tracepoint.py")]
    inject = ["-e", "inject=bpf(raw_tracepoint_open):error=EINVAL:when=1"]
    for trace, options in ((real, []), (refused, inject)):
        done = run_cli("-f", *options, "-o", "/dev/null", "--json", str(trace), *program)
        assert done.returncode == 0, done.stderr
    opened = next(
        item
        for item in rewriting.items(real)[1]
        if rewriting.is_bpf(item, const.BPF_RAW_TRACEPOINT_OPEN)
    )
    assert isinstance(opened, RawCall)
    made = opened.fds[-1]
    assert opened.ret == made.fd
    success = Success("BPF_RAW_TRACEPOINT_OPEN", made.fd, (made.kind, made.info))
    in_future(refused, future, success)

    def lines(trace: Path) -> list[str]:
        """Of the call and what it attaches, without what differs from run to run."""
        text = told(trace, "--canonical")
        found = re.search(r"^bpf RAW_TRACEPOINT_OPEN.*?(?=^bpf )", text + "bpf ", re.M | re.S)
        assert found is not None
        return found[0].splitlines()

    wanted = lines(real)
    assert any(line.startswith("attached") for line in wanted), wanted
    assert lines(refused) != wanted
    assert lines(future)[: len(wanted)] == wanted


def test_what_the_kernel_wrote(tmp_path: Path) -> None:
    """Numbers in the attr, and bytes behind a pointer of it."""
    room = Room()
    ids = room.put(bytes(12))
    attr = struct.pack("<IIIIQI", 1, const.BPF_TCX_INGRESS, 0, 0, ids, 3).ljust(64, b"\0")
    args = (const.BPF_PROG_QUERY, room.put(attr), len(attr), 0, 0, 0)
    call = record(AUDIT_ARCH_X86_64, 321, args, room.memory(), room.memory(), -22)
    header = Header(["x"], "99.0", "x86_64", 4, {}, 1)
    trace = rewriting.save(tmp_path / "a.jsonl", header, [call, End(Ending(code=0))])
    assert "prog_ids=0x7f0000000000 /* not written */" in told(trace)
    wrote = {"query.prog_ids": struct.pack("<II", 70, 71), "query.count": 2, "query.revision": 5}
    future = in_future(trace, tmp_path / "b.jsonl", Success("BPF_PROG_QUERY", wrote=wrote))
    shown = told(future, "-v")
    assert "prog_ids=[70, 71]" in shown
    assert "count=3 => 2" in shown
    assert "revision=0 => 5" in shown


@pytest.mark.parametrize(
    "success",
    [
        Success("BPF_LINK_CREATE"),
        Success("BPF_PROG_QUERY", nth=1),
        Success("BPF_PROG_QUERY", wrote={"link_create.flags": 1}),
    ],
)
def test_a_call_that_is_not_there_is_told(success: Success, tmp_path: Path) -> None:
    attr = bytes(64)
    room = Room()
    args = (const.BPF_PROG_QUERY, room.put(attr), len(attr), 0, 0, 0)
    call = record(AUDIT_ARCH_X86_64, 321, args, room.memory(), room.memory(), -22)
    header = Header(["x"], "99.0", "x86_64", 4, {}, 1)
    trace = rewriting.save(tmp_path / "a.jsonl", header, [call, End(Ending(code=0))])
    with pytest.raises(LookupError):
        in_future(trace, tmp_path / "b.jsonl", success)


# ------------------------------------------------------------------ of newer kernels


class Tried(NamedTuple):
    """future_calls.py as it was traced, and as a newer kernel would have it."""

    now: Path
    future: Path
    said: dict[str, Any]


@pytest.fixture(scope="module")
def tried(needs_bpf: None, tmp_path_factory: pytest.TempPathFactory) -> Tried:
    place = tmp_path_factory.mktemp("future")
    now = place / "now.jsonl"
    program = ["python3", str(TRACEES / "future_calls.py")]
    done = run_cli("-f", "-o", "/dev/null", "--json", str(now), *program)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert len(said["refused"]) == 4
    successes = (
        Success("BPF_PROG_ASSOC_STRUCT_OPS"),
        Success("BPF_PROG_LOAD", said["prog"], PROG),
        Success("BPF_LINK_CREATE", said["link"], LINK),
        Success("BPF_LINK_DETACH"),
    )
    return Tried(now, in_future(now, place / "future.jsonl", *successes), said)


def test_a_program_that_is_attached_to_many_functions(tried: Tried) -> None:
    """LINK_CREATE with BPF_TRACE_FENTRY_MULTI; the tracee had the functions' ids from the kernel's
    BTF, and the trace has their names."""
    text = told(tried.future)
    prog, link = tried.said["prog"], tried.said["link"]
    first, second = tried.said["ids"]
    target = "fentry_multi vfs_read, vfs_write"
    assert f"ids=[{first} /* vfs_read */, {second} /* vfs_write */], cookies=[0x7, 0x8]" in text
    assert f" = {prog}<prog many id=900 tag={'90' * 8}>" in text
    assert f" = {link}<link tracing_multi id=901 -> {target}>" in text
    for verb, arrow, call in (
        ("attached", "->", f"BPF_LINK_CREATE) = {link}"), ("detached", "-x", "BPF_LINK_DETACH)"),
    ):  # fmt: skip
        line = f"{verb}  many (tracing, 2 insns, tag {'90' * 8}) {arrow} {target}\n"
        assert line in text
        assert call in text[text.index(line) :]
    assert re.search(rf"^ *901  tracing_multi +many +{target}$", text, re.M)


def test_a_program_that_belongs_to_struct_ops(tried: Tried) -> None:
    text = told(tried.future)
    assert re.search(
        # Where ids are long, the struct has lines of its own.
        r"prog_assoc_struct_ops=\{\s*map_fd=3<map array id=\d+>, prog_fd=4<prog filter id=\d+>, "
        r"\.\.\.\s*\}\s+\}, 12\) = 0\n", text
    )  # fmt: skip
    lines = told(tried.future, "--style", "strace").splitlines()
    found = [line for line in lines if "BPF_PROG_ASSOC_STRUCT_OPS" in line]
    assert [re.sub(r", flags=0(?=\})", "", line) for line in found] == [
        "bpf(BPF_PROG_ASSOC_STRUCT_OPS, {prog_assoc_struct_ops={map_fd=3, prog_fd=4}}, 12) = 0"
    ]


def test_what_differs(tried: Tried) -> None:
    """Between the kernel that refuses and the one that does not."""
    done = run_cli("diff", str(tried.now), str(tried.future))
    assert done.returncode == 1
    assert "new       attached prog many -> fentry_multi vfs_read, vfs_write\n" in done.stdout
    assert "changed   bpf PROG_ASSOC_STRUCT_OPS on map array\n  result: EINVAL" in done.stdout
