"""The configuration file: what it sets, what is said of mistakes, whose is read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bpftrace_sys.cli.config import ConfigError, folder, load
from tests.support.running import FIXTURES, environment, run_cli

TRACE = str(FIXTURES / "bcc-kprobe-hello" / "trace.jsonl.gz")
OTHER = 65534
"""A user that we are not."""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the file is looked for; it is not there yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "bpfstrace").mkdir(mode=0o700)
    return tmp_path / "bpfstrace" / "config.toml"


def written(config: Path, text: str) -> None:
    config.write_text(text)
    config.chmod(0o600)


def replayed(*words: str) -> str:
    done = run_cli("replay", *words, TRACE)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_same_as_on_the_command_line(config: Path) -> None:
    usual = replayed()
    wanted = replayed("--no-insns", "-q", "-e", "bpf=prog_load", "-e", "trace=bpf")
    quiet = replayed("--no-insns", "-e", "bpf=prog_load", "-e", "trace=bpf")
    written(
        config,
        "[options]\nno-insns = true\nfollow-forks = true\nquiet = false\n"
        'expr = ["bpf=prog_load"]\n[replay]\nquiet = true\ntrace="bpf"\n[live]\nverbose = true\n',
    )
    assert replayed() == wanted != usual
    assert replayed("--no-config") == usual
    written(config, '[options]\nno-insns = true\nexpr = ["bpf=prog_load", "trace=bpf"]\n')
    assert replayed() == quiet
    # The command line has the last word.
    written(config, "[options]\nstring-limit = 2\n")
    assert replayed("-s", "64") == usual != replayed()


def test_tracing_takes_it(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    written(config, f'[live]\noutput = "{out}"\n')
    done = run_cli(sys.executable, "-c", "print('mine')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "mine\n", "")
    assert "exited with 0" in out.read_text()
    # What stands behind PROG is its own.
    out.unlink()
    done = run_cli(sys.executable, "-c", "import sys; print(sys.argv[1])", "--no-config")
    assert (done.stdout, out.exists()) == ("--no-config\n", True)


def test_theme_and_colours_of_other_commands(config: Path) -> None:
    written(config, '[diff]\ncolor = "always"\n[theme]\ngone = "bold #ff8700"\nnone = "red"\n')
    other = str(FIXTURES / "libbpf-vfsstat" / "trace.jsonl.gz")
    done = run_cli("diff", TRACE, other)
    assert "\x1b[1;38;5;208m" in done.stdout
    assert f"{config}:5: nothing is called 'none'" in done.stderr
    done = run_cli("diff", "--no-config", TRACE, other)
    assert (done.stderr, "\x1b" in done.stdout) == ("", False)
    done = run_cli(
        "diff", TRACE, other, env=environment(BPFSTRACE_THEME="gone=underline")
    )
    assert "\x1b[4m" in done.stdout
    assert "\x1b[1;38;5;208m" not in done.stdout


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("[options]\nno-insns = \n", "", "not TOML: Invalid value (at line 2, column 12)"),
        ("[options]\n\nno-inns = true\n", ":3", "option --no-inns not recognized"),
        ("[options]\nstring-limit = 'x'\n", ":2", "--string-limit takes a number, not 'x'"),
        ("[replay]\nfollow-forks = true\n", ":2", "is only for when a program is traced"),
        ("[options]\nhelp = true\n", ":2", "help does not belong here"),
        ("[options]\nno-config = true\n", ":2", "no-config does not belong here"),
        ("[options]\nquiet = 1.5\n", ":2", "quiet takes true, a number, a text or a list"),
        ("\n[colours]\na = 1\n", ":2", "not 'colours'"),
        ("quiet = true\n", ":1", "not 'quiet'"),
        ("[options]\n'' = true\n", ":2", "no option has an empty name"),
        ("[theme]\nwhy = 1\n", ":2", "why takes a text"),
        ("[options]\nquiet = true\ncolumns = 3\n", ":3", "--columns aligns the results of --style"),
    ],
)
def test_mistakes_are_told_with_their_line(
    config: Path, text: str, place: str, words: str
) -> None:
    written(config, text)
    done = run_cli("replay", TRACE)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{config}{place}" in done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "command", "said"),
    [
        ("[diff]\nloud = true\n", "diff", "2: diff: option --loud not recognized"),
        ("[diff]\nquiet = true\nonly = 'all'\n", "diff", "3: --only all: 'all' is none of"),
        ("[ps]\n\nwatch = 0\n", "ps", "3: --watch takes a number of seconds from 0.1"),
        ("[ps]\ncolor = 'red'\n", "ps", "2: --color takes auto, always, never, not 'red'"),
        ("[dump]\nxlated = 'yes'\n", "dump", "2: dump: option --xlated must not have"),
        ("[dump]\nhelp = true\n", "dump", "2: help does not belong here"),
        ("[disasm]\nx = 1\n", "disasm", "2: disasm: option --x not recognized"),
        ("[diff]\nreport = true\n", "diff", "2: diff: option --report requires argument"),
        ("[diff]\nignore = [1.5]\n", "diff", "2: ignore takes true, a number, a text"),
    ],
)
def test_mistakes_of_other_commands(config: Path, text: str, command: str, said: str) -> None:
    written(config, text)
    done = run_cli(command, TRACE, TRACE)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"bpfstrace: {config}:{said}" in done.stderr


def test_a_hint_holds_the_person_s_words_only(config: Path) -> None:
    written(config, '[ps]\ncolor = "always"\n')
    done = run_cli("ps", "aux")
    assert done.stderr.splitlines()[0] == (
        "bpfstrace: ps takes no 'aux'; to trace the program ps: bpfstrace -- ps aux"
    )


def _foreign(config: Path) -> str:
    os.chown(config, OTHER, OTHER)
    return "belongs to the user 65534, not to 0"


def _folder_of_another(config: Path) -> str:
    os.chown(config.parent, OTHER, OTHER)
    return "belongs to the user 65534, not to 0"


def _open_to_all(config: Path) -> str:
    config.chmod(0o666)
    return "may be written by others (chmod go-w"


def _folder_open_to_all(config: Path) -> str:
    config.parent.chmod(0o1777)
    return "may be written by others (chmod go-w"


def _link(config: Path) -> str:
    config.rename(config.with_name("real.toml"))
    config.symlink_to("real.toml")
    return "is a link, so it is not read"


def _link_of_a_folder(config: Path) -> str:
    config.parent.rename(config.parent.with_name("real"))
    config.parent.symlink_to("real")
    return "is a link, so it is not read"


def _fifo(config: Path) -> str:
    config.unlink()
    os.mkfifo(config, 0o600)
    return "is no regular file, so it is not read"


def _large(config: Path) -> str:
    config.write_text("#" * (1 << 17))
    return "has more than 65536 bytes"


def _not_text(config: Path) -> str:
    config.write_bytes(b"\xff\xfe")
    return "is not UTF-8"


@pytest.mark.parametrize(
    "plant",
    [_foreign, _folder_of_another, _open_to_all, _folder_open_to_all, _link, _link_of_a_folder,
     _fifo, _large, _not_text],
)  # fmt: skip
def test_what_others_may_have_written_is_not_read(
    config: Path, plant: Callable[[Path], str]
) -> None:
    written(config, "[options]\nno-insns = true\n")
    said = plant(config)
    with pytest.raises(ConfigError) as caught:
        load()
    assert said in str(caught.value)


def test_root_reads_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under sudo: HOME and XDG_CONFIG_HOME are still another user's."""
    os.chown(tmp_path, OTHER, OTHER)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert folder() == "/root/.config"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert folder() == "/root/.config"
    os.chown(tmp_path, 0, 0)
    assert folder() == f"{tmp_path}/.config"


def test_toml_is_read_only_where_there_is_a_file(config: Path) -> None:
    words = [sys.executable, "-X", "importtime", "-m", "bpftrace_sys", "replay", TRACE]
    import subprocess

    def imported() -> str:
        return subprocess.run(
            words, env=environment(), capture_output=True, text=True, check=True
        ).stderr

    assert "tomllib" not in imported()
    written(config, "[options]\nquiet = true\n")
    assert "tomllib" in imported()
