"""Colours: when there are any, of what, and that they change nothing but colours."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bpftrace_sys.render.insn_paint import InsnPainter
from bpftrace_sys.render.native_paint import NativePainter
from bpftrace_sys.trace.kernel_view import KernelView
from bpftrace_sys.trace.reader import Reader
from decoders.formats.insn_wordings import VARIANTS, WORDINGS
from decoders.formats.native import disassemble
from tests.support.needs import needs_tool
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


NATIVE = bytes.fromhex(
    "4881ec10000000"  # sub
    "66897dfc"  # mov to a byte behind a register
    "8b448d10"  # base, index, scale, displacement
    "48bf6f72646c6c6f2c20"  # movabs
    "0f8410000000"  # je
    "e8fbffffff"  # call
    "ffd0"  # call through a register
    "f00fc15500"  # lock xadd
    "65488b0425080000 00"  # a segment
    "410fb6c8 0fb7c1 4088f1 4488e5"  # parts of registers
    "f3a4 c3 c9 cc"
)
"""x86-64, as the kernel's compiler makes it and as it does not."""


def test_parts_of_native_instructions() -> None:
    """Registers and immediate values, as LLVM marks them up; Intel's syntax has the same ones."""
    needs_tool("llvm-mc")
    octets = " ".join(f"{byte:#04x}" for byte in NATIVE)
    words = ["llvm-mc", "--mdis", "--triple=x86_64"]
    done = subprocess.run(words, input=octets, capture_output=True, text=True, check=True)
    theirs = joined(done.stdout)
    paint = NativePainter(lambda style, text: f"<{style}:{text}>")
    ours, intel = (
        [paint(insn.text) for insn in disassemble(NATIVE, 0, "x86_64", syntax)]
        for syntax in ("att", "intel")
    )
    for line, other, third in zip(ours, theirs, intel, strict=True):
        registers = re.findall(r"<register:(.*?)>", line)
        assert registers == re.findall(r"<reg:(.*?)>", other)
        # Only AT&T's names the segment that a string is written to.
        assert sorted(re.findall(r"<register:(.*?)>", third)) == sorted(
            name[1:] for name in registers if name != "%es"
        )
        values = {number(text) for text in re.findall(r"<(?:constant|target):(.*?)>", line)}
        assert {number(text) for text in re.findall(r"<imm:(.*?)>", other)} <= values


def joined(told: str) -> list[str]:
    """A line an instruction: LLVM has prefixes in lines of their own."""
    text = "\n".join(line.strip() for line in told.splitlines() if ".text" not in line)
    return re.sub(r"(?m)^(lock|rep)\n", r"\1 ", text).splitlines()


def number(text: str) -> int:
    return int(text.lstrip("$#"), 0) & (1 << 64) - 1


def test_registers_of_aarch64() -> None:
    """The operands that capstone calls registers."""
    capstone = pytest.importorskip("capstone")
    paint = NativePainter(lambda style, text: f"<{text}>" if style == "register" else text)
    view = next(
        item
        for item in Reader(str(FIXTURES / "aarch64-hello" / "trace.jsonl.gz"))
        if isinstance(item, KernelView)
    )
    code = view.info.jited
    engine = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)
    engine.detail = engine.skipdata = True
    seen = 0
    for insn, ours in zip(
        engine.disasm(code, 0), disassemble(code, 0, "aarch64"), strict=True
    ):
        if insn.id == 0:
            continue
        named = []
        for operand in insn.operands:
            if operand.type == capstone.arm64.ARM64_OP_REG:
                named.append(insn.reg_name(operand.reg))
            elif operand.type == capstone.arm64.ARM64_OP_MEM:
                named += [insn.reg_name(operand.mem.base)]
                named += [insn.reg_name(operand.mem.index)] if operand.mem.index else []
        if ours.text.split()[0] != "ret":  # whose operand is left out
            shown = re.findall(r"<(.*?)>", paint(ours.text))
            assert [{"x29": "fp", "x30": "lr"}.get(name, name) for name in shown] == named
            seen += 1
    assert seen > 30


def test_a_jump_s_target_and_a_name() -> None:
    paint = NativePainter(lambda style, text: f"<{style} {text}>" if text else "")
    assert {text: paint(text) for text in (
        "je     0x1f",
        "call   0xffffffffac3f22c0 <bpf_trace_printk>",
        "call   *%rax",
        "tbz    w0, #3, 0x40",
        "b.eq   0x8",
        "lock xadd %edx,0x0(%rbp)",
        ".byte  0xff",
        "nop",
    )} == {
        "je     0x1f": "<insn je>     <target 0x1f>",
        "call   0xffffffffac3f22c0 <bpf_trace_printk>":
            "<insn call>   <target 0xffffffffac3f22c0> <helper <bpf_trace_printk>>",
        "call   *%rax": "<insn call>   *<register %rax>",
        "tbz    w0, #3, 0x40":
            "<insn tbz>    <register w0>, <constant #3>, <target 0x40>",
        "b.eq   0x8": "<insn b.eq>   <target 0x8>",
        "lock xadd %edx,0x0(%rbp)":
            "<insn lock xadd> <register %edx>,<constant 0x0>(<register %rbp>)",
        ".byte  0xff": "<insn .byte>  <constant 0xff>",
        "nop": "<insn nop>",
    }  # fmt: skip


@pytest.mark.parametrize("kernel", ["xlated,jited", "map,jited", "jited,intel"])
def test_colours_of_the_kernel_s_view(kernel: str) -> None:
    """They change nothing else, and end in their line."""
    for name in ("bcc-kprobe-hello", "aarch64-hello"):
        words = ["replay", "-q", f"--kernel={kernel}", str(FIXTURES / name / "trace.jsonl.gz")]
        plain, painted = run_cli(*words), run_cli(*words[:1], "--color", *words[1:])
        assert (painted.returncode, painted.stderr) == (0, "")
        assert OWN_COLOURS.sub("", painted.stdout) == plain.stdout
        assert all(
            not codes or codes[-1] == "\x1b[0m"
            for codes in map(OWN_COLOURS.findall, painted.stdout.splitlines())
        )
        register = "x29" if name[0] == "a" else "rbp" if "intel" in kernel else "%rbp"
        assert f"\x1b[36m{register}\x1b[0m" in painted.stdout


def test_colours_of_disasm(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.write_bytes(bytes.fromhex("b701000021000000 9500000000000000"))
    plain, painted = run_cli("disasm", str(code)), run_cli("disasm", "--color", str(code))
    assert plain.stdout == "   0: (b7) r1 = 33\n   1: (95) exit\n"
    assert "\x1b[36mr1\x1b[0m = \x1b[32m33" in painted.stdout
    assert OWN_COLOURS.sub("", painted.stdout) == plain.stdout


def test_less_shows_them() -> None:
    """As they are: less -R knows no other sequences, and shows those as ESC."""
    needs_tool("less")
    words = f"{MAIN[0]} -m bpftrace_sys replay --color {TRACE}"
    env = environment(TERM="xterm-256color", LESS="", LESSCHARSET="utf-8")
    # What fits on the screen, so that less is done with it.
    shell = f"{words} | head -30 | less -RFX"
    code, shown = on_terminal(["sh", "-c", shell], columns=300, env=env)
    told = run_cli("replay", "--color", str(TRACE)).stdout
    assert code == 0
    assert "ESC" not in shown
    for line in told.splitlines()[:20]:
        assert OWN_COLOURS.sub("", line) in OWN_COLOURS.sub("", shown)
        assert all(code in shown for code in OWN_COLOURS.findall(line))


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
