"""The eBPF engine's programs: how they are built, that they load, and what holds them together."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys.record.ebpf import engine, records, refusals, steps
from bpftrace_sys.record.ebpf.engine import Told, Wanted, Watch
from bpftrace_sys.record.ebpf.hooks import Hooks
from bpftrace_sys.record.ebpf.loader import LoadError, Programs
from bpftrace_sys.record.machine.holders import fact_once
from bpftrace_sys.record.ptrace.errors import EngineError
from decoders.formats import btf
from decoders.raw import RawCall
from decoders.walk import measures
from decoders.walk.layouts import Blob, Layout, Pointer, Slot
from decoders.walk.table import WALKS

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "tools"))

import build_watch  # noqa: E402
import gen_steps  # noqa: E402
from steps_gen import rows as step_rows  # noqa: E402
from steps_gen import walker  # noqa: E402


@pytest.fixture(scope="module")
def built() -> build_watch.Object:
    return build_watch.Object(build_watch.OBJECT)


# ---------------------------------------------------------------- building


def test_rows_are_generated_from_the_walks() -> None:
    assert gen_steps.TARGET.read_text() == gen_steps.generated(), "run tools/gen_steps.py"


def test_the_image_is_the_object_s(built: build_watch.Object) -> None:
    assert build_watch.image(built) == build_watch.IMAGE.read_bytes(), "run tools/build_watch.py"


def test_the_object_is_the_source_s(built: build_watch.Object, tmp_path: Path) -> None:
    """clang makes the same instructions again."""
    if shutil.which(build_watch.CLANG) is None:
        pytest.skip("needs clang-14")
    again = tmp_path / "again.o"
    build_watch.compile_object(build_watch.CLANG, build_watch.SOURCE, again)
    ours = {one.name: bytes(one.code) for one in built.programs()}
    assert {one.name: bytes(one.code) for one in build_watch.Object(again).programs()} == ours


def members(built: build_watch.Object, struct_name: str) -> list[tuple[str, int]]:
    types = btf.parse(built.blob)
    found = types.find(struct_name, btf.Kind.STRUCT)
    assert found is not None
    return [(member.name, member.bit_offset // 8) for member in found.members]


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("header", records.HEADER),
        ("piece", records.PIECE),
        ("apart", records.APART),
        ("process", records.PROCESS),
        ("who", records.WHO),
        ("row", engine.ROW),
        ("rows_of", engine.ROWS_OF),
        ("canary", engine.CANARY),
    ],
)
def test_python_unpacks_what_c_packs(
    built: build_watch.Object, name: str, form: struct.Struct
) -> None:
    """The struct formats, against the structs in the object's own BTF."""
    types = btf.parse(built.blob)
    expected: list[int] = []

    def leaves(struct_name: str, base: int) -> None:
        for member, offset in members(built, struct_name):
            if member == "piece":
                leaves("piece", base + offset)
            elif member == "args" and struct_name == "header":
                expected.extend(base + offset + 8 * number for number in range(6))
            else:
                expected.append(base + offset)

    leaves(name, 0)
    found, at = [], 0
    for number, code in re.findall(r"(\d*)([a-zA-Z])", form.format):
        for _ in range(1 if code == "s" else int(number or 1)):
            found.append(at)
            at += struct.calcsize("<" + (number + code if code == "s" else code))
    assert found == expected[: len(found)]
    assert expected[len(found) :] in ([], [form.size]), "only what varies in length may follow"
    assert types.find(name, btf.Kind.STRUCT) is not None


def test_places_are_where_the_generator_believes(built: build_watch.Object) -> None:
    places = dict(members(built, "places"))
    assert places["ret"] == step_rows.RET
    assert places["fd_kind"] == step_rows.FD_KIND
    assert places["map_type"] == step_rows.MAP_TYPE
    assert places["link_type"] == step_rows.LINK_TYPE
    assert (places["attr"], places["inner"]) == step_rows.SLOTS
    assert places["attr_again"] == places["attr"] + step_rows.AGAIN
    assert places["inner_again"] == places["inner"] + step_rows.AGAIN


@pytest.mark.parametrize(
    ("name", "words"), [("op", step_rows.OPS), ("length", step_rows.LENGTHS),
                        ("test", step_rows.TESTS)],
)  # fmt: skip
def test_words_of_the_rows(name: str, words: tuple[str, ...]) -> None:
    """The enums of state.h, in the generator's order."""
    source = (build_watch.FOLDER / "state.h").read_text()
    body = source.split(f"enum {name} {{")[1].split("}")[0]
    body = re.sub(r"/\*.*?\*/", "", body, flags=re.DOTALL)
    assert tuple(word.strip() for word in body.split(",") if word.strip()) == words


def test_every_row_stays_in_its_place() -> None:
    rows = steps.ROWS
    assert len(rows) <= 1024
    for op, _, _, _, at, by, slot, _, _, limit, _, _, _ in rows:
        assert at < 2048
        assert by < 2048
        assert limit <= 16 << 20
        if op == step_rows.OPS.index("FETCH"):
            assert slot in (*step_rows.SLOTS, *(one + step_rows.AGAIN for one in step_rows.SLOTS))


def test_a_length_that_is_unknown_is_an_error() -> None:
    def new_size(scope: Any) -> int:
        return 1

    new_size.__module__ = measures.__name__
    layout = Layout("<Q", ("p",), (Slot("ptr", 0, 0, 8, Pointer(Blob(new_size), "in")),))
    with pytest.raises(step_rows.GenerateError, match="new_size"):
        walker.Walker().layout(layout, 0, None, 0)


# ---------------------------------------------------------------- loading


@pytest.fixture
def watch(needs_bpf: None) -> Iterator[Any]:
    """Opens Watches, and closes them."""
    opened = []

    def opener(**wanted: Any) -> Watch:
        one = Watch(Wanted(**{"ring": 1 << 20, **wanted}))
        opened.append(one)
        one.open()
        return one

    yield opener
    for one in opened:
        one.close()


def shown(prog_id: int) -> str | None:
    """The name of a program as bpftool shows it; None where it is gone."""
    ran = subprocess.run(
        ["bpftool", "-j", "prog", "show", "id", str(prog_id)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return str(json.loads(ran.stdout)["name"]) if ran.returncode == 0 else None


def read_all(one: Watch, items: list[Any]) -> None:
    while one.read():
        pass


def test_programs_are_named_and_gone(watch: Any) -> None:
    if shutil.which("bpftool") is None:
        pytest.skip("needs bpftool")
    one = watch()
    facts = [fact_once(os.getpid(), fd, 0) for fd in one.programs._open]
    ids = [fact.id for fact in facts if fact is not None and fact.id is not None]
    names = {shown(prog_id) for prog_id in ids}
    assert {"bpfstrace_enter_tp", "bpfstrace_exit_tp", "bpfstrace_fork"} <= names
    assert all(str(name).startswith("bpfstrace_") for name in names)
    one.close()
    deadline = time.monotonic() + 20  # the kernel frees them a while after
    while any(shown(prog_id) for prog_id in ids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [shown(prog_id) for prog_id in ids] == [None] * len(ids)


@pytest.mark.parametrize("kind", ["tracepoint", "raw_tracepoint"])
def test_calls_come_by_every_hook(watch: Any, kind: str) -> None:
    items: list[Any] = []
    one = watch(kinds=(kind,), everybody=False)
    one.tell(Told(items.append))
    child = subprocess.Popen([sys.executable, "-c", ASKING, "3"])
    child.wait()
    read_all(one, items)
    made = [item for item in items if isinstance(item, RawCall) and item.args[0] == 39]
    assert [call.ret for call in made] == [-22] * 3
    assert {call.pid for call in made} == {child.pid}


ASKING = """
import ctypes, sys, struct
libc = ctypes.CDLL(None)
told = ctypes.create_string_buffer(b"what is new" + b"!" * 300)
attr = ctypes.create_string_buffer(struct.pack("<QII", ctypes.addressof(told), 311, 7), 16)
nr = {"x86_64": 321, "aarch64": 280}[__import__("os").uname().machine]
for _ in range(int(sys.argv[1])):
    libc.syscall(nr, 39, attr, 16)
"""
"""bpf(39): a command that no kernel knows yet."""


def test_a_new_command_needs_no_new_program(
    watch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row of the declarations is enough: what it points at is copied."""
    args, _ = WALKS["bpf"]
    attr, _ = args.followed
    new = Layout(
        "<QII", ("text", "size", "number"),
        (Slot("ptr", 0, 0, 8, Pointer(Blob(lambda scope: scope["size"]), "in")),),
    )  # fmt: skip
    union = attr.visit.target.inner
    monkeypatch.setattr(union, "rows", {**union.rows, 39: new})
    rows = walker.bpf_commands()[39]
    first = len(steps.ROWS)
    added = tuple(row.packed() for row in rows.entry + rows.exit)
    monkeypatch.setattr(steps, "ROWS", (*steps.ROWS, *added))
    four = (first, len(rows.entry), first + len(rows.entry), len(rows.exit))
    monkeypatch.setattr(steps, "COMMANDS", {**steps.COMMANDS, 39: four})
    items: list[Any] = []
    one = watch(everybody=False)
    one.tell(Told(items.append))
    subprocess.run([sys.executable, "-c", ASKING, "1"], check=True)
    read_all(one, items)
    (call,) = [item for item in items if isinstance(item, RawCall) and item.args[0] == 39]
    assert b"what is new" + b"!" * 300 in [chunk.data for chunk in call.chunks]


def bpf_fds() -> int:
    """How many fds of ours lead to maps, programs and the like."""
    links = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sum(link.startswith(("anon_inode:bpf", "anon_inode:[event")) for link in links)


def test_closing_lets_all_go(watch: Any) -> None:
    """The mappings of maps are fds, too (mmap keeps a copy of its own)."""
    before = bpf_fds()
    one = watch()
    one.tell(Told(lambda item: None))
    read_all(one, [])
    assert bpf_fds() > before
    one.close()
    assert bpf_fds() < before + 1


def test_nobody_waits_for_the_kernel_to_detach() -> None:
    """A child closes the hooks, once we have; it keeps nothing else open, as pipes to others."""
    left, hook = os.pipe()
    reader, output = os.pipe()
    hooks = Hooks(Programs())
    hooks._fds = [hook]
    child = hooks.close_behind()
    try:
        assert hooks._fds == []
        os.close(output)
        assert os.read(reader, 1) == b""
        assert os.read(left, 1) == b""
    finally:
        os.close(left)
        os.close(reader)
        os.waitpid(child, 0)


def test_hooks_are_closed_where_there_can_be_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise BlockingIOError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(os, "fork", fork)
    left, hook = os.pipe()
    one = Watch(Wanted())
    one.hooks._fds = [hook]
    one.close(behind=True)
    assert os.read(left, 1) == b""
    os.close(left)


def test_what_is_asked_after_the_end_is_not_told(watch: Any) -> None:
    """Though the programs are attached until they are detached."""
    items: list[Any] = []
    one = watch(everybody=False)
    one.tell(Told(items.append))
    script = ASKING + "sys.stdin.readline(); libc.syscall(nr, 39, attr, 16)\n"
    child = subprocess.Popen([sys.executable, "-c", script, "2"], stdin=subprocess.PIPE)
    made: list[RawCall] = []
    deadline = time.monotonic() + 60
    while len(made) < 2 and time.monotonic() < deadline:
        one.wait(None)
        read_all(one, items)
        made = [item for item in items if isinstance(item, RawCall) and item.args[0] == 39]
    one.stop()
    child.communicate(b"\n")
    count = len(items)
    read_all(one, items)
    assert len(made) == 2
    assert len(items) == count
    assert not one.lost


def test_a_kernel_that_does_not_relocate_is_noticed(
    needs_bpf: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without core_relos the programs load, and read at offsets that are wrong."""
    one = Watch(Wanted(ring=1 << 16))
    for program in one.programs._programs.values():
        program["core_relos"] = [0, 0]
    with pytest.raises(EngineError, match="did not apply CO-RE relocations"):
        one.open()
    assert one.hooks._fds == []


def test_the_verifier_s_work_is_bounded(needs_bpf: None) -> None:
    """Far from the million instructions that the kernel allows."""
    programs = Programs()
    programs.create({"ring": 1 << 16})
    try:
        for name in ("enter_tp", "exit_tp", "enter_raw", "exit_raw"):
            programs.load(name, log_level=4)
            processed = int(programs.log.rsplit("processed ", 1)[1].split()[0])
            assert processed < 100_000
    finally:
        programs.close()


# ---------------------------------------------------------------- what is refused


def test_without_privileges(needs_bpf: None) -> None:
    """One sentence, and 125."""
    ran = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED], capture_output=True, text=True, cwd=REPO, check=False
    )
    assert ran.returncode == 125
    assert ran.stderr == (
        "bpfstrace: cannot watch by eBPF: that takes root, or CAP_BPF and CAP_PERFMON; "
        "--engine ptrace needs none of this\n"
    )


UNPRIVILEGED = """
import os, sys
from bpftrace_sys.cli import live, main, watch
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.exit(main.main(["-a"]))
"""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (LoadError("the program enter", OSError(22, "x"), "unknown func bpf_loop#181"), "too old"),
        (LoadError("the program enter", OSError(7, "x")), "too old"),
        (LoadError("the map ring", OSError(22, "x")), "no ring buffer"),
        (LoadError("the map ring", OSError(12, "x")), "--ring 8M"),
        (LoadError("the map told", OSError(5, "Input/output error")), "Input/output error"),
    ],
)
def test_what_the_kernel_refuses_is_said_in_words(error: LoadError, said: str) -> None:
    sentence = refusals.why(error)
    assert said in sentence
    assert sentence.startswith("cannot watch by eBPF: ")
    assert "\n" not in sentence


def test_lockdown_and_missing_btf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    locked = tmp_path / "lockdown"
    locked.write_text("none integrity [confidentiality]\n")
    error = LoadError("the program enter", OSError(1, "Operation not permitted"))
    monkeypatch.setattr(refusals, "VMLINUX", str(tmp_path / "none"))
    assert "has no BTF" in refusals.why(LoadError("x", OSError(22, "x")))
    monkeypatch.setattr(refusals, "LOCKDOWN", str(locked))
    assert "locked down" in refusals.why(error)
