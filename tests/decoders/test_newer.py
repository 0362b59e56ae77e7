"""A kernel that is newer than our tables: its own BTF names what they lack.

``older.py`` is bpfstrace with pieces of its tables taken out, which makes every
kernel a newer one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import construct as cs
import pytest

from decoders.declare.bpf_attr import PROG_ATTACH
from decoders.declare.bpf_map_attr import MAP_CREATE
from decoders.declare.fields import U32
from decoders.declare.structs import kernel, layout_of
from decoders.newer import NewerField, explained, packed, read, struct_for, unpacked
from decoders.values import Bytes, Int, Name, Struct, Text
from tests.support.decoded import Traced, plain
from tests.support.running import ROOT, TRACEES, environment


def older(*words: str) -> subprocess.CompletedProcess[str]:
    """``bpfstrace WORDS``, of an older version."""
    return subprocess.run(
        [sys.executable, str(ROOT / "tests" / "support" / "older.py"), *words],
        capture_output=True, text=True, timeout=60, check=False, env=environment(),
    )  # fmt: skip


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory, needs_bpf: None) -> tuple[Traced, str]:
    """The calls of newer_calls.py, traced by the older one; and the text of them."""
    if not Path("/sys/kernel/btf/vmlinux").exists():
        pytest.skip("this kernel has no BTF")
    place = tmp_path_factory.mktemp("newer")
    trace, text = place / "trace.jsonl", place / "trace.txt"
    done = older(
        *("--json", str(trace), "-o", str(text), sys.executable, str(TRACEES / "newer_calls.py"))
    )
    assert done.returncode == 0, done.stderr
    return Traced(trace, json.loads(done.stdout)), text.read_text()


MARK = "from this kernel"


def test_names(newer: tuple[Traced, str]) -> None:
    """Of a type, of a bit, of a command."""
    traced, text = newer
    ring, mapped, _ = traced.attrs("MAP_CREATE")
    assert ring["map_type"] == "BPF_MAP_TYPE_RINGBUF"
    assert f"map_type=BPF_MAP_TYPE_RINGBUF /* {MARK} */" in text
    assert mapped["map_flags"] == ["BPF_F_MMAPABLE"]
    assert f"map_flags=BPF_F_MMAPABLE /* {MARK} */" in text
    assert len(traced.calls("ENABLE_STATS")) == 2
    assert f"bpf(BPF_ENABLE_STATS /* {MARK} */" in text
    (event,) = traced.calls("perf_event_open")
    assert event["args"]["attr"]["sample_type"] == ["PERF_SAMPLE_IP", "PERF_SAMPLE_AUX"]
    assert f"PERF_SAMPLE_IP|PERF_SAMPLE_AUX /* PERF_SAMPLE_AUX {MARK} */" in text


def test_fields(newer: tuple[Traced, str]) -> None:
    """At the end of an attr and of an info, bits among reserved ones, a command's struct."""
    traced, text = newer
    *_, bloom = traced.attrs("MAP_CREATE")
    assert bloom["map_extra"] == {"value": "0x3", "name": MARK}
    assert f"map_extra=0x3 /* {MARK} */" in text
    first, second = traced.calls("ENABLE_STATS")
    for line, value in ((first, 0), (second, 77)):
        assert line["args"]["attr"] == {"enable_stats": {"type": {"value": value, "name": MARK}}}
    infos = [plain(attr["info"]) for attr in traced.attrs("OBJ_GET_INFO_BY_FD", name="verified")]
    assert infos[0]["verified_insns"] == 2
    (event,) = traced.calls("perf_event_open")
    attr = event["args"]["attr"]
    assert attr["sigtrap"] == {"value": 1, "name": MARK}
    assert attr["sig_data"] == {"value": "0xabcdef", "name": MARK}
    assert attr["remove_on_exec"] == 1
    assert attr["__reserved_1"] == 0
    assert "extra_data" not in json.dumps([line["args"] for line in traced.syscalls])


def test_replay(newer: tuple[Traced, str], tmp_path: Path) -> None:
    """The facts are in the trace: its replay needs no kernel to say the same."""
    traced, text = newer
    again, shown = tmp_path / "again.jsonl", tmp_path / "again.txt"
    done = older("replay", "--json", str(again), "-o", str(shown), str(traced.path))
    assert done.returncode == 0, done.stderr
    assert shown.read_text() == text
    assert [line["args"] for line in Traced(again, {}).syscalls] == [
        line["args"] for line in traced.syscalls
    ]


# ---------------------------------------------------------------- the rules


def field(path: str, offset: int, size: int = 4, beside: str = "", **more: Any) -> NewerField:
    """A newer field, a number unless said otherwise."""
    return NewerField(
        path, offset, size, more.get("bit"), more.get("bits"), more.get("ctype", "__u32"), beside
    )


def test_packed_and_unpacked() -> None:
    fields = (field("a.b", 8, beside="first"), field("c", 16, 8, bit=3, bits=2))
    assert unpacked(packed(fields)) == fields
    for spoiled in ("", "{", "[1]", "[[]]", '[["x",-1,4,null,null,"",""]]', "[" * 100_000):
        assert unpacked(spoiled) == ()


def test_reading() -> None:
    data = bytes(range(32))
    assert read(field("x", 4), data) == Int(0x07060504, 10, MARK)
    assert read(field("x", 4, ctype="__s32"), b"\xff" * 8) == Int(-1, 10, MARK)
    assert read(field("x", 0, 8, bit=4, bits=4), b"\xa5" * 8) == Int(0xA, 10, MARK)
    assert read(field("x", 0, 16, ctype="char[16]"), b"name".ljust(16, b"\0")) == Text(b"name")
    assert read(field("x", 0, 20, ctype="__u8[20]"), data) == Bytes(data[:20], 20)
    assert read(field("x", 30), data) is None
    assert read(field("x", 20), data, base=16) == Int(0x07060504, 10, MARK)


def test_a_command_has_its_own_fields_only() -> None:
    """Unnamed structs of the union are told apart by their first members."""
    known = packed((field("other", 96, beside="prog_type"), field("ours", 96, beside="map_type")))
    data = bytes(96) + b"\x05\0\0\0\x06\0\0\0"
    extra = [("extra_data", Bytes(data[96:], 8))]
    assert explained(list(extra), layout_of(MAP_CREATE), data, known) == [
        ("extra_data", Bytes(b"\0\0\0\0\x06\0\0\0", 8)),
        ("ours", Int(5, 10, MARK)),
    ]


def test_the_first_member_may_be_a_union() -> None:
    known = packed((field("ours", 32, beside="target_fd"),))
    data = bytes(32) + b"\x05\0\0\0"
    extra = [("extra_data", Bytes(data[32:], 4))]
    assert explained(extra, layout_of(PROG_ATTACH), data, known) == [("ours", Int(5, 10, MARK))]


def test_new_struct_in_a_known_one() -> None:
    """It is shown if an enum value that is new as well bears its name."""
    layout = layout_of(kernel("bpf_attr.link_create", cs.Struct("attach_type" / U32)))
    data = bytes(16) + b"\x07\0\0\0"
    known = packed((field("link_create.foo_multi.cnt", 16),))
    extra = ("extra_data", Bytes(data[4:], 16))
    for name, shown in (("BPF_TRACE_FOO_MULTI", True), ("BPF_TRACE_BAR", False)):
        kind = ("attach_type", Name(99, name, "bpf_attach_type", True))
        result = explained([kind, extra], layout, data, known)
        if shown:
            assert result == [kind, ("foo_multi", Struct((("cnt", Int(7, 10, MARK)),)))]
        else:
            assert result == [kind, extra]


def test_which_struct_a_command_has() -> None:
    fields = (
        field("prog_dance.speed", 0), field("prog_dance.turns", 4), field("map_sing.loud", 0),
    )  # fmt: skip
    found = struct_for("BPF_PROG_DANCE_BY_FD", b"\1\0\0\0\2\0\0\0\3", fields)
    assert found == Struct(
        (
            ("prog_dance", Struct((("speed", Int(1, 10, MARK)), ("turns", Int(2, 10, MARK))))),
            ("extra_data", Bytes(b"\3", 1)),
        )
    )
    assert struct_for("BPF_NONE_OF_THESE", bytes(8), fields) is None
    only = struct_for("BPF_NONE_OF_THESE", bytes(8), fields[:2])
    assert only is not None
    assert only.fields[0][0] == "prog_dance"
