"""Colours: when there are any, of what, and that they change nothing but colours."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from bpftrace_sys.render.insn_paint import InsnPainter
from decoders.formats.insn_wordings import VARIANTS, WORDINGS
from tests.support.running import FIXTURES, environment, run_cli
from tests.support.terminal import OWN_COLOURS, on_terminal

MAIN = [sys.executable, "-m", "bpftrace_sys"]


def colours(text: str) -> bool:
    return bool(OWN_COLOURS.search(text))


TRACE = FIXTURES / "bcc-kprobe-hello" / "trace.jsonl.gz"


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, True),  # as no-color.org says: not empty
        ({"TERM": "dumb"}, False),
    ],
)
def test_colours_on_a_terminal(change: dict[str, str], wanted: bool) -> None:
    env = {**environment(TERM="xterm-256color", NO_COLOR=""), **change}
    code, text = on_terminal([*MAIN, "replay", str(TRACE)], env=env)
    assert code == 0
    assert colours(text) == wanted
    if not wanted:
        assert "\x1b" not in text


def test_no_colours_in_a_pipe_or_a_file(tmp_path: Path) -> None:
    env = environment(TERM="xterm-256color", NO_COLOR="")
    piped = run_cli("replay", str(TRACE), env=env).stdout
    out = tmp_path / "t.txt"
    code, text = on_terminal([*MAIN, "replay", "-o", str(out), str(TRACE)], env=env)
    assert (code, text) == (0, "")
    assert "\x1b" not in piped
    assert out.read_text() == piped


def test_colours_change_nothing_but_colours() -> None:
    on = environment(TERM="xterm-256color", NO_COLOR="")
    off = environment(TERM="dumb")
    words = [*MAIN, "replay", "-q", str(TRACE)]
    assert OWN_COLOURS.sub("", on_terminal(words, env=on)[1]) == on_terminal(words, env=off)[1]


@pytest.mark.parametrize(
    ("words", "change", "wanted"),
    [
        (["--color"], {"NO_COLOR": "1", "TERM": "dumb"}, True),
        (["--color=always"], {}, True),
        (["--color=auto"], {}, False),
        (["--color=never"], {"FORCE_COLOR": "1"}, False),
        ([], {"FORCE_COLOR": "1"}, True),
        ([], {"FORCE_COLOR": "0"}, False),
        ([], {"CLICOLOR_FORCE": "1", "TERM": "dumb"}, True),
        ([], {"CLICOLOR_FORCE": "0"}, False),
        ([], {"CLICOLOR_FORCE": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colours_in_a_pipe_as_asked(
    words: list[str], change: dict[str, str], wanted: bool
) -> None:
    env = {**environment(TERM="xterm-256color", NO_COLOR=""), **change}
    plain = run_cli("replay", str(TRACE), env=environment()).stdout
    done = run_cli("replay", *words, str(TRACE), env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert colours(done.stdout) is wanted
    # The same but for colours, and rich's blanks at the ends of the tables' rows.
    told = [line.rstrip() for line in OWN_COLOURS.sub("", done.stdout).splitlines()]
    assert told == plain.splitlines()


def test_only_the_option_colours_a_file(tmp_path: Path) -> None:
    env = environment(TERM="xterm-256color", NO_COLOR="", FORCE_COLOR="1")
    out = tmp_path / "t.txt"
    run_cli("replay", "-o", str(out), str(TRACE), env=env)
    assert "\x1b" not in out.read_text()
    run_cli("replay", "--color", "-o", str(out), str(TRACE), env=env)
    assert colours(out.read_text())


def test_a_colour_ends_in_its_line() -> None:
    """less -R takes each line by itself."""
    for name in ("bcc-kprobe-hello", "verifier-reject"):
        done = run_cli("replay", "--color", str(FIXTURES / name / "trace.jsonl.gz"))
        for line in done.stdout.splitlines():
            codes = OWN_COLOURS.findall(line)
            assert not codes or codes[-1] == "\x1b[0m", line


def test_parts_of_instructions() -> None:
    paint = InsnPainter(lambda style, text: f"<{style} {text}>" if text else "")
    assert {text: paint(text) for text in (
        "(b7) r1 = 33",
        "(7b) *(u64 *)(r10 -8) = r1",
        "(15) if r0 == 0xffffffff goto pc+5",
        "(db) r0 = atomic64_cmpxchg((u64 *)(r1 +8), r0, r2)",
        "(dc) r3 = be16 r3",
        "(85) call bpf_trace_printk#6",
        "(85) call pc+3#r1 = 0x5",
        "(18) r1 = 0x4",
        "(95) exit",
        "BUG_ld_60",
    )} == {
        "(b7) r1 = 33": "<opcode (b7)> <register r1> = <constant 33>",
        "(7b) *(u64 *)(r10 -8) = r1":
            "<opcode (7b)> *(u64 *)(<register r10> <constant -8>) = <register r1>",
        "(15) if r0 == 0xffffffff goto pc+5":
            "<opcode (15)> if <register r0> == <constant 0xffffffff> goto <target pc+5>",
        "(db) r0 = atomic64_cmpxchg((u64 *)(r1 +8), r0, r2)":
            "<opcode (db)> <register r0> = atomic64_cmpxchg((u64 *)(<register r1> <constant +8>)"
            ", <register r0>, <register r2>)",
        "(dc) r3 = be16 r3": "<opcode (dc)> <register r3> = be16 <register r3>",
        "(85) call bpf_trace_printk#6": "<opcode (85)> call <helper bpf_trace_printk#6>",
        "(85) call pc+3#r1 = 0x5": "<opcode (85)> call <target pc+3>#<helper r1 = 0x5>",
        "(18) r1 = 0x4": "<opcode (18)> <register r1> = <constant 0x4>",
        "(95) exit": "<opcode (95)> exit",
        "BUG_ld_60": "BUG_ld_60",
    }  # fmt: skip


def test_every_wording_has_its_registers_painted() -> None:
    """What the wordings call dst and src is what is painted, for all codes and variants."""
    paint = InsnPainter(lambda style, text: f"<{text}>" if style == "register" else text)
    wordings = [*WORDINGS, *(text for row in VARIANTS.values() for text in row.wordings.values())]
    for wording in wordings:
        fields = dict.fromkeys(("off", "imm", "uimm", "imm64", "to", "origin"), 5)
        text = wording.format(dst=7, src=8, name="bpf_x", **fields)
        marked = re.sub(r"(?<![a-z])[rw]\{(dst|src)\}|(?<![a-z])r0\b", r"<\g<0>>", wording)
        expected = marked.format(dst=7, src=8, name="bpf_x", **fields)
        if text.startswith("("):
            assert paint(text) == expected


def test_a_theme_of_one_s_own() -> None:
    env = environment(
        TERM="xterm-256color", NO_COLOR="", FORCE_COLOR="1",
        BPFSTRACE_THEME="register=bold #ff8700:opcode=:nobody=red:why=link https://x:field=loud",
    )  # fmt: skip
    done = run_cli("replay", "-q", str(TRACE), env=env)
    assert "(b7) \x1b[1;38;5;208mr1\x1b[0m = " in done.stdout
    assert "nothing is called 'nobody'; there are syscall, name" in done.stderr
    assert "why='link https' is no style" in done.stderr
    assert "field='loud' is no style" in done.stderr
    assert "\x1b]" not in done.stdout
