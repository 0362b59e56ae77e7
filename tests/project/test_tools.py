# SPDX-License-Identifier: GPL-2.0-only
"""The machinery around the code: manifests, the skip check of CI, set-up, the virtual machine."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import record
import vm
import vm_root
from check_skips import read_allowed

from tests.support.running import ROOT

SKIPS = ROOT / ".ci" / "check_skips.py"


def test_tools_take_the_python_of_the_environment() -> None:
    # Without site-packages Python has nothing of what a tool imports.
    for tool, said in (("gallery.py", "page-head"), ("fuzz.py", "--minutes")):
        done = subprocess.run(
            [sys.executable, "-S", "-E", str(ROOT / "tools" / tool),
             "--list" if tool == "gallery.py" else "--help"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if (ROOT / ".venv").exists():
            assert (done.returncode, said in done.stdout) == (0, True), done.stderr
        else:
            assert done.returncode == 1
            assert "CONTRIBUTING.md says how to make .venv" in done.stderr


@pytest.mark.parametrize("name", record.all_names())
def test_manifest_is_well_formed(name: str) -> None:
    fixture = record.load(name)
    assert fixture.title
    assert fixture.expect
    listed = {(fixture.folder / file).resolve() for file in fixture.files}
    assert {Path(source).name for source in fixture.bpf_sources} <= {p.name for p in listed}


def test_every_fixture_file_belongs_to_a_manifest() -> None:
    known = {"manifest.toml", "trace.jsonl.gz"}
    used = {
        (record.FIXTURES / name / file).resolve()
        for name in record.all_names()
        for file in record.load(name).files
    }
    orphans = [
        path
        for path in record.FIXTURES.rglob("*")
        if path.is_file()
        and path.name not in known
        and not path.name.startswith("golden")
        and path.resolve() not in used
    ]
    assert orphans == []
    folders = {path.name for path in record.FIXTURES.iterdir() if path.is_dir()}
    assert folders == set(record.all_names())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = 'x'", "missing keys: command, where"),
        ("title = 'x'\nwhere = 'host'\ncommand = ['true']\nfoo = 1", "unknown keys: foo"),
        ("title = 'x'\nwhere = 'moon'\ncommand = ['true']", "where is neither"),
        ("title = 'x'\nwhere = 'host'\ncommand = ['true']\nfiles = ['gone']", "no file gone"),
        ("title = ", "manifest.toml"),
    ],
)
def test_a_wrong_manifest_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.setattr(record, "FIXTURES", tmp_path)
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "manifest.toml").write_text(text)
    with pytest.raises(record.ManifestError, match=message):
        record.load("f")


@pytest.mark.parametrize(
    ("where", "guest"),
    [
        ("host", None),
        ("vm-6.1", ("6.1", vm.HOST_ARCH)),
        ("vm-6.12-aarch64", ("6.12", "aarch64")),
    ],
)
def test_a_manifest_says_which_machine(where: str, guest: tuple[str, str] | None) -> None:
    assert record.Fixture("f", "t", where, ("true",)).guest == guest


def test_a_machine_that_there_is_not_is_named(tmp_path: Path) -> None:
    with pytest.raises(vm.VmError, match="no virtual machine for s390x, only for x86_64, aarch64"):
        vm.prepare("6.12", tmp_path, arch="s390x")


def test_the_plain_kernel_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flavours with another page size, or for clouds, have names that begin alike."""
    names = [
        *("linux-image-6.12.9+deb12-arm64", "linux-image-6.12.11+deb12-arm64"),
        *("linux-image-6.12.12+deb12-arm64-16k", "linux-image-6.12.12+deb12-cloud-arm64"),
    ]
    monkeypatch.setattr(vm, "call", lambda command: "\n".join(names))
    assert vm.newest_release("6.12", "arm64") == "6.12.11+deb12-arm64"


def test_a_guest_of_another_processor_sees_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vm_root, "compile_for", lambda root, folders: None)
    out = tmp_path / "out"
    out.mkdir()
    root = tmp_path / "root"
    kernel = vm.Kernel("6.12.11+deb12-arm64", tmp_path / "image", "aarch64", root)
    options = vm.own_root(kernel, root, [out])
    assert f"--rodir={ROOT}={ROOT}" in options
    assert f"--rwdir={out}={out}" in options
    for folder in (ROOT, out):  # the guest's root is read-only: it cannot make them itself
        assert (root / folder.relative_to("/")).is_dir()


def test_kernel_releases_sort_by_number() -> None:
    names = ["6.1.0-9-amd64", "6.1.0-56-amd64", "6.1.0-47-amd64"]
    assert max(names, key=vm.natural_key) == "6.1.0-56-amd64"


def test_guest_script_runs_as_written(tmp_path: Path) -> None:
    """The script is plain sh: run it here, with the mounts left out."""
    vm_setup, vm.GUEST_SETUP = vm.GUEST_SETUP, ""
    try:
        script = vm.guest_script(
            ["sh", "-c", 'echo "$A"; echo oops >&2; exit 7'], tmp_path, {"A": "b c"}, tmp_path
        )
    finally:
        vm.GUEST_SETUP = vm_setup
    subprocess.run(["sh"], input=script.encode(), check=True)
    assert (tmp_path / "stdout").read_text() == "b c\n"
    assert (tmp_path / "stderr").read_text() == "oops\n"
    assert (tmp_path / "rc").read_text() == "7\n"


def junit(tmp_path: Path, *reasons: str) -> Path:
    cases = "".join(
        f'<testcase classname="t" name="n{i}"><skipped type="pytest.skip" message="{reason}"/>'
        "</testcase>"
        for i, reason in enumerate(reasons)
    )
    path = tmp_path / "junit.xml"
    path.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    return path


def check_skips(xml: Path, allowed: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    rows = tmp_path / "allowed.toml"
    rows.write_text(allowed)
    return subprocess.run(
        [sys.executable, SKIPS, xml, rows], capture_output=True, text=True, check=False
    )


def test_ci_accepts_only_listed_skips(tmp_path: Path) -> None:
    allowed = '[[skip]]\nreason = "no kprobes"\nwhy = "old"\n'
    assert check_skips(junit(tmp_path), allowed, tmp_path).returncode == 0
    done = check_skips(junit(tmp_path, "kernel has no kprobes"), allowed, tmp_path)
    assert done.returncode == 0
    assert "allowed: old" in done.stdout
    done = check_skips(junit(tmp_path, "no kprobes", "lazy"), allowed, tmp_path)
    assert done.returncode == 1
    assert "UNEXPECTED" in done.stdout


def test_skips_of_both_halves_count(tmp_path: Path) -> None:
    rows = tmp_path / "allowed.toml"
    rows.write_text('[[skip]]\nreason = "no kprobes"\nwhy = "old"\n')
    files = []
    for reason in ("no kprobes", "lazy"):
        files.append(tmp_path / f"{reason}.xml")
        junit(tmp_path, reason).rename(files[-1])
    for order in (files, files[::-1]):
        done = subprocess.run(
            [sys.executable, SKIPS, *order, rows], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "2 skipped, 1 of them unexpectedly" in done.stdout


def test_a_listed_skip_is_unexpected_where_its_path_exists(tmp_path: Path) -> None:
    allowed = f'[[skip]]\nreason = "x"\nwhy = "y"\nunless_path = "{tmp_path}"\n'
    assert check_skips(junit(tmp_path, "x"), allowed, tmp_path).returncode == 1


def test_ci_list_of_skips_is_readable() -> None:
    assert read_allowed(ROOT / ".ci" / "allowed_skips.toml")


def test_set_up_without_root_says_so(tmp_path: Path) -> None:
    """It must not fail a developer's machine, but must fail CI."""
    if os.geteuid() == 0:
        prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    else:
        prefix = []
    script = (ROOT / "tools" / "setup_test_env.sh").read_text()
    for ci, code in (("", 0), ("true", 1)):
        done = subprocess.run(
            [*prefix, "bash", "-s"],
            input=script,
            env={"PATH": os.environ["PATH"], "CI": ci},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code
        assert "NOT DONE: not root" in done.stdout


@pytest.mark.parametrize("amid", [False, True], ids=["later", "amid its start"])
def test_a_machine_ends_with_its_starter(amid: bool, tmp_path: Path) -> None:
    """Killed by SIGTERM, tools/vm.py leaves neither qemu nor its folder behind."""
    vng = tmp_path / "vng"
    vng.write_text("#!/bin/sh\nsleep 600 & echo $$ $! > " + str(tmp_path / "pids") + "\nwait\n")
    vng.chmod(0o755)
    code = (
        "import os, subprocess, sys, time, vm; from pathlib import Path\n"
        "class Slow(subprocess.Popen):\n"
        "    def __init__(self, *words, **options):\n"
        "        super().__init__(*words, **options)\n"
        f"        while not Path({str(tmp_path / 'pids')!r}).exists(): time.sleep(0.02)\n"
        "        os.kill(os.getpid(), 15)\n"
        f"if {amid}: subprocess.Popen = Slow\n"
        f"vm.find_vng = lambda cache: Path({str(vng)!r})\n"
        "vm.prepare = lambda *_: vm.Kernel('6.1', Path('/boot/vmlinuz'))\n"
        "sys.exit(vm.main(['run', '--', 'true']))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tools"), "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], env=env) as starter:
        pids: list[int] = []
        deadline = time.monotonic() + 120
        while len(pids) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
            with contextlib.suppress(FileNotFoundError):
                pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
        if not amid:
            starter.terminate()
        assert starter.wait(120) == 128 + signal.SIGTERM
    for pid in pids:
        while time.monotonic() < deadline and _runs(pid):
            time.sleep(0.02)
        assert not _runs(pid)
    assert not list(tmp_path.glob("bpfstrace-vm-*"))


def _runs(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


TOOLS = sorted(
    path
    for path in (ROOT / "tools").iterdir()
    if os.access(path, os.X_OK | os.R_OK) and path.is_file()
)
TAKES = re.compile(r"\btakes?\b[^.]*\b(seconds?|minutes?)\b|\bten minutes:")


@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.name)
def test_every_tool_says_how_long_it_takes(tool: Path) -> None:
    """As it is called, and where contributors look."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [tool, "--help"], capture_output=True, text=True, check=True,
        env={**os.environ, "PATH": path},
    )  # fmt: skip
    assert TAKES.search(done.stdout), done.stdout
    table = (ROOT / "CONTRIBUTING.md").read_text()
    assert f"tools/{tool.name}" in table


def test_what_is_started_as_a_command_is_one() -> None:
    for path in (ROOT / "tools").iterdir():
        if path.is_file() and path.suffix in (".py", ".sh"):
            assert path.read_bytes().startswith(b"#!") == (path in TOOLS), path
