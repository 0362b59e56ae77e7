"""The package: the wheel holds the program and nothing else, the sdist all that it is made of."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipapp
import zipfile
from pathlib import Path

import pytest

from bpftrace_sys import __version__
from tests.support.needs import needs_tool
from tests.support.running import ROOT

pytestmark = pytest.mark.offline

BUILD = """
import sys
from setuptools import build_meta
out = sys.argv[1]  # setuptools sets others
build_meta.build_sdist(out)
build_meta.build_wheel(out)
"""


def tracked() -> list[str]:
    """What git has; where there is no repository (in an unpacked sdist), what lies here."""
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files"], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode == 0:
        return [name for name in done.stdout.splitlines() if (ROOT / name).exists()]
    skipped = ("egg-info", "__pycache__", ".venv", "build/", ".pytest_cache", ".hypothesis")
    names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()]
    return [name for name in names if not any(word in name for word in skipped)
            and name not in ("PKG-INFO", "setup.cfg")]  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel, built of a copy of what is tracked."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    for name in tracked():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(ROOT / name, copy / name, follow_symlinks=False)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(out)], cwd=copy, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


def test_the_sdist_is_whole(built: Path) -> None:
    [path] = built.glob("*.tar.gz")
    with tarfile.open(path) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames() if "/" in name}
    assert path.name == f"bpfstrace-{__version__}.tar.gz"
    left = set(tracked()) - names - {".gitignore", ".gitattributes"}
    assert not left
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_the_sdist_passes_its_tests(built: Path, tmp_path: Path) -> None:
    """A short part of them, which needs fixtures, helpers, documents and tools."""
    [path] = built.glob("*.tar.gz")
    with tarfile.open(path) as sdist:
        sdist.extractall(tmp_path, filter="data")
    [folder] = tmp_path.iterdir()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         "tests/project/test_documents.py", "tests/decoders/test_insn.py"],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"\d\d+ passed", done.stdout)


def test_the_wheel_is_clean(built: Path) -> None:
    [path] = built.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        [meta] = [wheel.read(name).decode() for name in names if name.endswith("/METADATA")]
    base = f"bpfstrace-{__version__}"
    tops = {name.split("/")[0] for name in names}
    assert tops == {"bpftrace_sys", "decoders", f"{base}.data", f"{base}.dist-info"}
    share = {str(path.relative_to(ROOT)) for path in (ROOT / "share").rglob("*") if path.is_file()}
    assert {name.partition("/data/")[2] for name in names if ".data/" in name} == share
    ours = {name for name in tracked() if name.startswith(("bpftrace_sys/", "decoders/"))}
    packed = {name for name in names if name.startswith(("bpftrace_sys/", "decoders/"))}
    # Sources of what is compiled, and shipped as compiled, stay out.
    assert {Path(name).suffix for name in ours - packed} <= {".c", ".h", ".o"}
    assert not packed - ours
    assert f"Version: {__version__}\n" in meta


def test_the_long_description_works_away_from_the_repository(built: Path) -> None:
    """No link in it that leads to a file beside it."""
    [path] = built.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        [name] = [name for name in wheel.namelist() if name.endswith("/METADATA")]
        text = wheel.read(name).decode().partition("\n\n")[2]
    assert text.startswith("# bpfstrace")
    assert not re.findall(r"\]\((?!https://)", text)


CLEAN_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""dh-python takes the first python3, which has to be Debian's."""


@pytest.fixture(scope="module")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package, built of a copy of what is tracked."""
    needs_tool("dpkg-buildpackage", "dh", "pybuild", "lintian")
    folder = tmp_path_factory.mktemp("deb")
    copy = folder / "bpfstrace"
    for name in tracked():
        if not name.startswith(("tests/", "fixtures/", "docs/gallery/")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    done = subprocess.run(
        ["dpkg-buildpackage", "-us", "-uc", "-b"], cwd=copy, capture_output=True, text=True,
        check=False, env={"PATH": CLEAN_PATH, "HOME": str(folder), "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    [made] = folder.glob("*.deb")
    return made


def test_the_debian_package(deb: Path, tmp_path: Path) -> None:
    """It holds what the wheel holds, and what it holds runs."""
    assert deb.name == f"bpfstrace_{__version__}_all.deb"
    subprocess.run(["dpkg-deb", "-x", str(deb), str(tmp_path / "root")], check=True)
    usr = tmp_path / "root" / "usr"
    files = {str(each.relative_to(usr)) for each in usr.rglob("*") if each.is_file()}
    assert "bin/bpfstrace" in files
    assert "share/zsh/vendor-completions/_bpfstrace" in files
    assert "share/man/man1/bpfstrace-replay.1.gz" in files
    assert not [name for name in files if name.endswith((".o", ".bpf.c"))]
    packages = usr / "lib" / "python3" / "dist-packages"
    said = subprocess.run(
        [sys.executable, "-m", "bpftrace_sys", "--version"], capture_output=True, text=True,
        check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(packages)},
    )  # fmt: skip
    assert said.stdout == f"bpfstrace {__version__}\n"


def test_lintian_finds_no_error(deb: Path) -> None:
    done = subprocess.run(
        ["lintian", "--allow-root", "--fail-on", "error", str(deb)], capture_output=True,
        text=True, check=False, env={"PATH": CLEAN_PATH, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


INSTALLED = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
for place in proc sys dev; do mount --rbind "/$place" "$1/root/$place"; done
cp "$2" "$1/root/bpfstrace.deb"
exec chroot "$1/root" /bin/sh -ec '
    cd /
    dpkg -i bpfstrace.deb >&2
    bpfstrace --version
    bpfstrace -f -q --json /t.jsonl.gz -o /t.txt python3 -m bpftrace_sys.hello >&2 || true
    grep -c BPF_PROG_LOAD /t.txt
    bpfstrace replay -q /t.jsonl.gz | grep -c BPF_PROG_LOAD
    man -P cat bpfstrace-replay | head -n 1
    dpkg -r bpfstrace >&2
    test ! -e /usr/bin/bpfstrace
'
"""


def test_the_debian_package_installed(deb: Path, tmp_path: Path, needs_bpf: None) -> None:
    """In a chroot: this system, on which all that is written is dropped afterwards.

    dpkg refuses what it depends on and is not there. tools/try_packages.py does the same with
    fresh systems of two releases.
    """
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", INSTALLED, "sh", str(tmp_path), str(deb)],
        capture_output=True, text=True, check=False,
        env={"PATH": CLEAN_PATH, "HOME": "/root", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    version, loads, again, title = done.stdout.splitlines()
    assert version == f"bpfstrace {__version__}"
    assert loads == again != "0"
    assert title.split()[0] == "BPFSTRACE-REPLAY(1)"


def test_a_zipapp_runs(built: Path, tmp_path: Path) -> None:
    """What is read beside the modules (the schema, the engine's programs) is read from a zip."""
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "app")
    app = tmp_path / "bpfstrace.pyz"
    zipapp.create_archive(tmp_path / "app", app, main="bpftrace_sys.cli.main:run")
    shutil.rmtree(tmp_path / "app")
    script = "from bpftrace_sys.record.ebpf import loader; print(len(loader.Programs().maps))"
    for words in (["-c", script], [str(app), "schema"], [str(app), "--help", "diff"]):
        done = subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, check=False, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(app)},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout
