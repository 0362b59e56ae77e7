"""Of a long program the beginning is listed; that there is more is said, and it still counts."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

import bpftrace_sys
from bpftrace_sys.cli.main import main
from decoders.formats import insn as isa
from decoders.formats.insn import insns
from tests.support import bombs
from tests.support import bpf_asm as asm
from tests.support.running import FIXTURES

SHOWN = 4
INSN = re.compile(r" +>? *(?:\d+: )?\([0-9a-f]{2}\)")
MOVES = asm.mov(1, 5) * (SHOWN - 1)
WIDE = asm.ld_imm64(1, 3, 1)
CALL = asm.call(6)
TAIL = CALL * 2 + asm.mov(0, 1) + asm.exit_()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long is what has more than four slots."""
    monkeypatch.setattr(isa, "LISTED", SHOWN)


def saved(path: Path, code: bytes) -> str:
    """A trace of a load of that code."""
    line = bombs.load(bombs.packed(code), len(code) // 8, **bombs.loaded(9))
    lines = (bombs.HEADER, line, bombs.END)
    path.write_text("".join(f"{json.dumps(each)}\n" for each in lines))
    return str(path)


def text_of(trace: str, folder: Path, *options: str) -> str:
    """What replay says."""
    out = folder / "out"
    assert main(["replay", "-o", str(out), *options, trace]) == 0
    return out.read_text()


def test_the_rest_is_counted(short: None, tmp_path: Path) -> None:
    """In slots; an ld_imm64 on the border is whole."""
    text = text_of(saved(tmp_path / "t", MOVES + WIDE + TAIL), tmp_path)
    assert "3: (18) r1 = 0x3" in text
    assert "4 more instructions not listed\n" in text
    assert "call bpf_trace_printk#6" not in text
    text = text_of(saved(tmp_path / "t", MOVES + WIDE + TAIL[-8:]), tmp_path)
    assert "1 more instruction not listed\n" in text
    for whole in (MOVES + WIDE, MOVES + CALL):
        text = text_of(saved(tmp_path / "t", whole), tmp_path)
        assert "not listed" not in text
        assert "3: (" in text


def test_json_and_the_api_say_so(short: None, tmp_path: Path) -> None:
    trace, lines = saved(tmp_path / "t", MOVES + WIDE + TAIL), tmp_path / "lines"
    assert main(["replay", "-q", "-o", "/dev/null", "--json", str(lines), trace]) == 0
    told_of = map(json.loads, lines.read_text().splitlines())
    (load,) = [line for line in told_of if line["type"] == "syscall"]
    told = load["args"]["attr"]["insns"]
    assert [row["pc"] for row in told["value"]] == [0, 1, 2, 3]
    assert told["unlisted"] == 4
    (program,) = bpftrace_sys.open_trace(trace).programs
    assert program.helpers == ["bpf_trace_printk"]  # called by what is not listed
    assert len(program.instructions or ()) == 4


def test_what_is_not_listed_is_compared_and_checked(
    short: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its hash, but for the numbers of maps, which are others in each run."""
    a = saved(tmp_path / "a", MOVES + WIDE + TAIL + WIDE)
    same = saved(tmp_path / "same", MOVES + WIDE + TAIL + asm.ld_imm64(1, 8, 1))
    b = saved(tmp_path / "b", MOVES + WIDE + CALL * 3 + asm.exit_() + WIDE)
    assert main(["diff", a, same]) == 0
    capsys.readouterr()
    assert main(["diff", a, b]) == 1
    said = capsys.readouterr().out
    assert said.count(" 6 more instructions, ") == 2
    assert "10 => 10 instructions (+1 -1)" in said
    assert "6 more instructions" in text_of(a, tmp_path, "--canonical")
    lock = tmp_path / "lock.toml"
    assert main(["check", a, "--lock", str(lock), "--update"]) == 0
    assert "bpf_trace_printk" in lock.read_text()


@pytest.mark.parametrize("options", [(), ("-v",), ("--canonical",)])
def test_recordings_cut_short(
    options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each instruction of a shortened text stands in the whole one."""
    counted = 0
    for recording in sorted(FIXTURES.glob("*/trace.jsonl.gz")):
        if recording.stat().st_size > 12_000:
            continue
        whole = set(text_of(str(recording), tmp_path, *options).splitlines())
        monkeypatch.setattr(isa, "LISTED", 3)
        for line in text_of(str(recording), tmp_path, *options).splitlines():
            counted += "more instruction" in line
            assert line in whole or not INSN.match(line) or line.endswith(" slots")
        monkeypatch.undo()
    assert counted > 9


def test_all_instructions_that_name_something() -> None:
    """Found without a look at the others."""
    draw = random.Random(20270)
    for _ in range(100):
        slots = draw.randrange(40)
        data = b"".join(
            bytes((draw.choice(b"\x18\x85\x95\x00\x8d"), draw.choice(b"\0\x10\x20"), 0, 0))
            + draw.randrange(4).to_bytes(4, "little")
            for _ in range(slots)
        ) + draw.randbytes(draw.randrange(9))
        wanted = [insn for insn in insns(data) if insn.code in (isa.LD_IMM64, isa.CALL_K)]
        assert list(isa.naming(data)) == [insn for insn in wanted if insn.src]
        firsts: dict[Any, isa.CallSite] = {}
        for site in isa.calls(wanted):
            if site.kind != "subprog":
                firsts.setdefault(site[1:], site)
        found = {site[1:]: site for site in isa.callees(data)}
        assert found.keys() == firsts.keys()
        assert {site.pc for site in firsts.values()} <= {site.pc for site in isa.callees(data)}
