"""Long lines are broken, between words only, and lose nothing."""

from __future__ import annotations

import re

import pytest

from bpftrace_sys.render.line_breaks import filled
from bpftrace_sys.render.style import visible
from tests.render.test_text import MAIN
from tests.support.running import FIXTURES, environment, run_cli
from tests.support.terminal import on_terminal

RED, END = "\x1b[31m", "\x1b[0m"


def test_units_hold_together_where_they_can() -> None:
    units = ["open(one,", "two three,", "four) = 5"]
    assert filled(units, 40, "    ") == "open(one, two three, four) = 5"
    assert filled(units, 22, "    ") == "open(one, two three,\n    four) = 5"
    assert filled(units, 16, "    ") == "open(one,\n    two three,\n    four) = 5"


def test_a_unit_that_is_too_long_is_broken_between_words() -> None:
    assert filled(["  a=/* one two three */,"], 14, "    ") == "  a=/* one two\n    three */,"
    assert filled(["x=AAAA|BBBB|CCCC,"], 8, "  ") == "x=AAAA|\n  BBBB|\n  CCCC,"


def test_a_string_is_never_broken() -> None:
    path = '"/a path/with blanks \\" and quotes|OR"'
    assert path in filled(["open(", f"{path},", "O_RDONLY) = 3"], 12, "  ").split("\n")[1]
    # What is not closed ends nothing.
    assert filled(['one" two three'], 8, " ") == 'one" two\n three'


def test_a_style_ends_with_its_line_and_begins_anew() -> None:
    text = filled([f"{RED}one two three{END} four"], 8, "  ")
    assert text == f"{RED}one two{END}\n  {RED}three{END}\n  four"


FIRST_WORDS = re.compile(r"\[\d+\] (?:openat|ioctl|bpf|perf_event_open)\(|attached  |disabled  "
                         r"| +(?:btf|value|data_in|info)=|      }, ")  # fmt: skip


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize(
    "name", ["bcc-uprobe", "bcc-tracepoint", "libbpf-tcpconnect", "libbpf-execsnoop", "perf-record",
             "freplace", "bpftool-loadall", "kprobe-multi", "cgroup-attach"]
)  # fmt: skip
def test_real_lines_fit_a_terminal(name: str, columns: int) -> None:
    trace = FIXTURES / name / "trace.jsonl.gz"
    env = {**environment(), "TERM": "xterm-256color"}
    env.pop("NO_COLOR", None)
    code, text = on_terminal([*MAIN, "replay", str(trace)], columns=columns, env=env)
    assert code == 0
    looked_at = 0
    for line in text.splitlines():
        bare = re.sub(r"\x1b\[[0-9;]*m", "", line)
        if not FIRST_WORDS.match(bare):
            continue
        looked_at += 1
        # One word may be longer than a line; a string is a word.
        words = re.findall(r'(?:"[^"]*"|[^ ])+', bare)
        assert visible(line) <= columns or len(words) <= 2, bare
        # less -R forgets a style at the end of a line.
        assert line.count("\x1b") % 2 == 0
    assert looked_at > 3


def test_what_is_attached_stays_on_its_line_in_a_file() -> None:
    trace = FIXTURES / "bcc-uprobe" / "trace.jsonl.gz"
    whole = "-> uprobe /lib/x86_64-linux-gnu/libc.so.6:getppid via the uprobe PMU\n"
    assert whole in run_cli("replay", str(trace)).stdout
    code, text = on_terminal([*MAIN, "replay", str(trace)], env=environment())
    assert code == 0
    assert f"\n          {whole}" in text
