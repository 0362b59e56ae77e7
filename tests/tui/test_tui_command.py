"""``bpfstrace tui`` as a command: on a terminal, without one, and without textual."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.support.rewriting import recording
from tests.support.running import FIXTURES, ROOT, environment, run_cli
from tests.support.tmux import Tmux

TRACE = str(recording("verifier-reject"))


def test_without_textual_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['textual'] = None; sys.argv[0] = 'bpfstrace'; "
        "from bpftrace_sys.cli.main import run; run()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, "tui", TRACE],
        capture_output=True, text=True, env=environment(), check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert "pip install 'bpfstrace[tui]'" in ran.stderr


def test_a_textual_that_is_too_old_is_named(tmp_path: Path) -> None:
    """Debian's own, for one."""
    package = tmp_path / "textual-0.1.13.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: textual\nVersion: 0.1.13\n")
    (tmp_path / "textual").mkdir()
    (tmp_path / "textual" / "__init__.py").write_text("")
    ran = run_cli("tui", TRACE, env=environment(PYTHONPATH=f"{tmp_path}:{ROOT}"))
    assert ran.returncode == 2
    assert "textual 0.1.13 is too old, 8 is needed" in ran.stderr


def test_without_a_terminal_it_says_so() -> None:
    for words in (["tui", TRACE], ["tui", "-"]):
        ran = run_cli(*words, stdin=subprocess.DEVNULL)
        assert ran.returncode == 2
        assert ran.stderr == "bpfstrace: tui: it is drawn on a terminal, and stdout is none\n"


def test_what_is_no_trace_is_said_before_the_screen_is_taken(tmp_path: Path) -> None:
    with Tmux(80, 24, tmp_path) as terminal:
        terminal.run("tui", "/none")
        terminal.until("bpfstrace: /none: No such file")
        terminal.until("code 2")


def test_on_a_real_terminal(tmp_path: Path) -> None:
    """tmux draws what a person sees, at 80x24 and after a change of size."""
    with Tmux(80, 24, tmp_path) as terminal:
        terminal.run("tui", TRACE)
        screen = terminal.until("exited with 255", "1 CALLS", "quit")
        assert max(map(len, screen)) <= 80
        terminal.keys("x")
        terminal.until("2 of 17", "EACCES", "forgetful")
        terminal.keys("2")
        terminal.until("2 OBJECTS", "refused")
        terminal.size(120, 40)
        terminal.until("1 Calls", "2 Objects", "3 Attachments", "4 Details", "invalid mem access")
        terminal.keys("?")
        terminal.until("to the call that made the object")
        terminal.keys("Escape")
        # Esc and q at once would be Alt-q.
        terminal.until("3 Attachments", "invalid mem access")
        terminal.keys("q")
        terminal.until("code 0")


def test_a_trace_from_a_pipe_leaves_the_keys_to_the_terminal(tmp_path: Path) -> None:
    with Tmux(80, 24, tmp_path) as terminal:
        terminal.run("tui", "-", before=f"zcat {TRACE} |")
        terminal.until("exited with 255")
        terminal.keys("q")
        terminal.until("code 0")


def test_textual_is_imported_by_the_browser_only() -> None:
    wanted = re.compile(r"^\s*(?:from|import) textual", re.MULTILINE)
    found = [
        path for path in (ROOT / "bpftrace_sys").rglob("*.py") if wanted.search(path.read_text())
    ]
    assert found
    assert {path.parent.name for path in found} == {"tui"}
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bpftrace_sys", "replay",
         str(FIXTURES / "kprobe-multi" / "trace.jsonl.gz")],
        capture_output=True, text=True, env=environment(), check=True,
    )  # fmt: skip
    assert "textual" not in ran.stderr
    assert "bpftrace_sys.tui" not in ran.stderr
