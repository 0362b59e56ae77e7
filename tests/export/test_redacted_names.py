"""Names of programs, maps and BTF as a further class: none planted is left, one name stays one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bpftrace_sys.cli.redact import main
from bpftrace_sys.export.stand_ins import StandIns
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import Prog
from bpftrace_sys.story.renderer import Renderer
from bpftrace_sys.story.whole_trace import read
from decoders.formats import btf
from tests.export.test_redaction import NAMES, SECRETS, calls, planted, redacted, trace_it
from tests.support.redacted import found
from tests.support.running import FIXTURES, run_cli
from tests.tracees.planted import NAMED

__all__ = ["planted"]
EVERYTHING = "--keep=values,strings,paths,argv,host"


@pytest.mark.live
def test_no_planted_name_is_left(planted: Path, needs_bpf: None, tmp_path: Path) -> None:
    assert found([planted], NAMED) == set(NAMED)
    # They are no strings: what is hidden without a word of them leaves them, but for the log.
    usual = redacted(planted, tmp_path / "usual.jsonl")
    assert found([usual], NAMED) == set(NAMED) - {"info"}
    both = redacted(planted, tmp_path / "both.jsonl", "--names")
    assert found([both], {**SECRETS, **NAMED}) == set()
    alone = redacted(planted, tmp_path / "alone.jsonl", "--names", EVERYTHING)
    assert found([alone], NAMED) == set()
    # The log can be read, and says the same in the same words as source, BTF and objects.
    text = run_cli("replay", str(alone)).stdout
    assert "why: verifier: R0 !read_ok" in text
    [prog] = set(re.findall(r'prog_name="(\w{13})"', text))
    assert f"<prog {prog} id=" in text
    [line] = set(re.findall(r"; return (\w{13})\(ctx\); /\* \w{13} \*/", text))
    assert line != prog
    [name] = set(re.findall(r'map_name="(\w{12})"', text))
    assert f"<map {name} id=" in text
    assert re.search(rf'name="{name}"', text)


@pytest.mark.live
@pytest.mark.parametrize("engine", ["ptrace", "bpf"])
def test_in_no_output_while_tracing(needs_bpf: None, tmp_path: Path, engine: str) -> None:
    outputs = [tmp_path / name for name in ("text", "json", "report", "events")]
    words = [f"--{path.name}={path}" for path in outputs[1:]]
    words += ["--engine", engine]
    (tmp_path / "in").mkdir()
    done = trace_it(tmp_path / "in", "-f", "--redact=all", "-o", str(outputs[0]), *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert found(outputs, {**SECRETS, **NAMED}) == set()
    again = run_cli("replay", str(outputs[1]))
    assert (again.returncode, again.stdout) == (0, outputs[0].read_text())


class Seen(Renderer):
    """Objects of a trace by kind and number in it, with their names; feature probes."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def names(self) -> dict[tuple[str, int], str]:
        """Names by kind and id."""
        return {key: known.name for key, known in self.model.objects.items() if known.name}

    def insns(self) -> dict[tuple[str, int], object]:
        """Instructions by kind and id."""
        return {key: known.insns for key, known in self.model.objects.items()
                if isinstance(known, Prog)}  # fmt: skip


def seen(path: Path) -> Seen:
    """What a trace has."""
    kept: list[Seen] = []

    def make(model: Model) -> Seen:
        kept.append(Seen(model))
        return kept[0]

    read(str(path), make)
    return kept[0]


PROBES = re.compile(r"^\[\d+\] (\d+ feature probes?,.*)$", re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_one_name_stays_one(name: str, tmp_path: Path) -> None:
    trace, out = FIXTURES / name / "trace.jsonl.gz", tmp_path / "out.jsonl"
    assert main([str(trace), "-o", str(out), "--names", EVERYTHING]) == 0
    before, after = seen(trace), seen(out)
    was, now = before.names(), after.names()
    assert was.keys() == now.keys()
    # As many names as before, and each stands for one.
    assert len({*zip(was.values(), now.values(), strict=True)}) == len(set(was.values()))
    assert len(set(now.values())) == len(set(was.values()))
    assert {len(text) for text in was.values()} == {len(text) for text in now.values()}
    assert before.insns() == after.insns()
    for (one, _), (other, _) in zip(calls(trace), calls(out), strict=True):
        assert [len(chunk.data) for chunk in one.chunks] == [
            len(chunk.data) for chunk in other.chunks
        ]
        for was_chunk, now_chunk in zip(one.chunks, other.chunks, strict=True):
            if was_chunk.data[:2] == b"\x9f\xeb" and len(was_chunk.data) > 300:
                a, b = btf.parse(was_chunk.data), btf.parse(now_chunk.data)
                pairs = {(a.name(at), b.name(at)) for at in a.ids}
                for side in (0, 1):
                    assert len({pair[side] for pair in pairs}) == len(pairs)


@pytest.mark.parametrize("name", ["libbpf-execsnoop", "cilium-features", "bpftool-loadall"])
def test_what_is_told_is_the_same_but_for_names(name: str, tmp_path: Path) -> None:
    trace = FIXTURES / name / "trace.jsonl.gz"
    out = redacted(trace, tmp_path / "out.jsonl", "--names", EVERYTHING)
    one, other = (run_cli("replay", str(path)).stdout for path in (trace, out))
    assert PROBES.findall(one) == PROBES.findall(other) != []
    assert len(one.splitlines()) == len(other.splitlines())
    # A name has the same stand-in wherever it is; it may be a word of ours as well.
    same: dict[str, set[str]] = {}
    for a, b in zip(one.splitlines(), other.splitlines(), strict=True):
        words, others = re.findall(r"\w{2,}", a), re.findall(r"\w{2,}", b)
        assert len(words) == len(others), (a, b)
        for word, instead in zip(words, others, strict=True):
            same.setdefault(word, set()).add(instead)
    assert {word for word, found in same.items() if len(found - {word}) > 1} == set()
    assert sum(found != {word} for word, found in same.items()) >= 2
    assert run_cli("diff", "-q", str(out), str(out)).returncode == 0


def test_stand_ins_for_names() -> None:
    made = StandIns()
    whole, short = made.name(b"tracepoint__syscalls"), made.name(b"tracepoint__sys")
    assert whole.startswith(short)  # as the kernel cuts names
    assert made.name(b"tracepoint__syscallz") not in (whole, b"tracepoint__syscallz")
    every = [f"{a}{b}".encode() for a in "abcXYZ_019" for b in "abcXYZ_019"]
    others = {made.name(word) for word in every}
    assert len(others) == len(every)
    assert all(len(word) == 2 and word.replace(b"_", b"a").isalnum() for word in others)
    line = made.renamed(b"if (u32 secret = 0x1f + 17UL) /* of_me */ return;")
    assert re.fullmatch(rb"if \(u32 \w{6} = 0x1f \+ 17UL\) /\* \w{5} \*/ return;", line)
    assert b"secret" not in line
    left = made.left_renamed(b"\0\1secret\0\2othe\0\3longer_one\0\x7f\0\0\1")
    assert left == b"\0\1" + made.name(b"secret") + b"\0\2othe\0\3" + made.name(
        b"longer_one") + b"\0\x7f\0\0\1"  # fmt: skip
    log = b"; u32 zero = secret;\n1: (b7) r1 = 0 ; R1_w=0 R10=fp0 frame1: zero\nsecret() is wrong"
    said = made.log_renamed(log)
    secret = made.name(b"secret")
    assert said == (
        b"; u32 " + made.name(b"zero") + b" = " + secret + b";\n"
        b"1: (b7) r1 = 0 ; R1_w=0 R10=fp0 frame1: zero\n" + secret + b"() is wrong"
    )
    assert len(made.name(b"x" * 10_000)) == 10_000
