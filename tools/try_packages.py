#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Builds the wheel, the sdist and the Debian package, and tries each in fresh systems.

    tools/try_packages.py                      Debian 12 and 13, in chroots made by mmdebstrap
    tools/try_packages.py --release trixie     one of them
    tools/try_packages.py --python python3.12  wheel and sdist with another Python, no chroot
    tools/try_packages.py --keep DIR           leaves what was built in DIR

Run as root with the tests' own Python (.venv/bin/python has setuptools 77) on Debian with
mmdebstrap, debhelper, dh-python, pybuild-plugin-pyproject and lintian. A release takes some
minutes, most of it the download. Each package is installed in a system that has nothing of
bpfstrace and removed again; then it says its version, traces `bpftrace_sys.hello`, replays the
trace, and its man page is where man looks. Exit code 1 where one of them failed, which is said.
pip's settings in the environment, proxies and certificates are those of this machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

REPO: Final = Path(__file__).resolve().parents[1]
MIRROR: Final = "http://deb.debian.org/debian"
RELEASES: Final = ("bookworm", "trixie")
BUILD: Final = """
import sys, setuptools
if int(setuptools.__version__.split(".")[0]) < 77:
    sys.exit("try_packages: needs setuptools 77 or newer; run it with .venv/bin/python")
from setuptools import build_meta
out = sys.argv[1]  # setuptools sets others
build_meta.build_sdist(out)
build_meta.build_wheel(out)
"""
INCLUDED: Final = "ca-certificates,python3,python3-pip,python3-venv"
SMOKE: Final = """
set -e
{bin}bpfstrace --version
{bin}bpfstrace -f -q --json /tmp/t.jsonl.gz -o /tmp/t.txt \\
    {python} -m bpftrace_sys.hello >/tmp/t.out || true
grep -q BPF_PROG_LOAD /tmp/t.txt
{bin}bpfstrace replay -q /tmp/t.jsonl.gz | grep -q BPF_PROG_LOAD
{bin}bpfstrace --help replay >/dev/null
test -e {prefix}/share/man/man1/bpfstrace.1 || test -e {prefix}/share/man/man1/bpfstrace.1.gz
rm -f /tmp/t.*
"""
WAYS: Final = {
    "wheel": "python3 -m venv /v && /v/bin/pip install -q /dist/*.whl",
    "sdist": "python3 -m venv /v && /v/bin/pip install -q /dist/*.tar.gz",
    "deb": "apt-get update -qq && apt-get install -y -qq /dist/*.deb </dev/null >/dev/null",
}
AWAY: Final = {
    "wheel": "rm -rf /v",
    "sdist": "rm -rf /v",
    "deb": "apt-get purge -y -qq bpfstrace </dev/null >/dev/null",
}
CLEAN_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
CERTIFICATES: Final = "/etc/ssl/certs/ca-certificates.crt"
MOUNTS: Final = {"proc": "proc", "sysfs": "sys", "tracefs": "sys/kernel/tracing"}


def build(out: Path) -> None:
    """Puts the three packages into ``out``; CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "bpfstrace"
        names = subprocess.run(
            ["git", "ls-files", "-z"], cwd=REPO, capture_output=True, text=True, check=True
        ).stdout
        for name in names.split("\0")[:-1]:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, copy / name, follow_symlinks=False)
        made = subprocess.run(
            [sys.executable, "-c", BUILD, str(out)], cwd=copy, check=False,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        if made.returncode:
            sys.exit(made.returncode)
        # dh-python takes the first python3, which has to be Debian's.
        subprocess.run(
            ["dpkg-buildpackage", "-us", "-uc", "-b"], cwd=copy, check=True,
            env={**os.environ, "PATH": CLEAN_PATH}, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        [deb] = Path(folder).glob("*.deb")
        lintian = ["lintian", "--allow-root", "--fail-on", "error", str(deb)]
        subprocess.run(lintian, check=True)
        shutil.copy2(deb, out)


def inside(root: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Runs a script in the chroot."""
    mine = {name: value for name, value in os.environ.items()
            if name.startswith("PIP_") or name.lower().endswith("_proxy")}  # fmt: skip
    return subprocess.run(
        ["chroot", str(root), "/bin/sh", "-c", script], capture_output=True, text=True,
        check=False, env={"PATH": CLEAN_PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", **mine},
    )  # fmt: skip


def release(name: str, dist: Path, work: Path) -> list[str]:
    """Tries all three in a fresh system; what went wrong."""
    root = work / name
    wrong = []
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=apt", f"--include={INCLUDED}", name, str(root),
         MIRROR], check=True,
    )  # fmt: skip
    shutil.copy2("/etc/resolv.conf", root / "etc/resolv.conf")
    shutil.copy2(CERTIFICATES, f"{root}{CERTIFICATES}")
    shutil.copytree(dist, root / "dist")
    for kind, place in MOUNTS.items():
        subprocess.run(["mount", "-t", kind, kind, str(root / place)], check=True)
    try:
        for way, how in WAYS.items():
            smoke = SMOKE.format(
                bin="" if way == "deb" else "/v/bin/", prefix="/usr" if way == "deb" else "/v",
                python="python3" if way == "deb" else "/v/bin/python",
            )  # fmt: skip
            done = inside(root, how)
            if done.returncode == 0:
                done = inside(root, smoke)
            print(f"{name} {way}: {'ok' if done.returncode == 0 else 'FAILED'}", flush=True)
            if done.returncode:
                wrong.append(f"{name} {way}:\n{done.stdout}{done.stderr}")
            inside(root, AWAY[way])
    finally:
        for place in reversed(MOUNTS.values()):
            subprocess.run(["umount", str(root / place)], check=False)
    return wrong


def interpreter(python: str, dist: Path, work: Path) -> list[str]:
    """Tries the wheel and the sdist with a Python of this machine; what went wrong."""
    wrong = []
    for way, pattern in (("wheel", "*.whl"), ("sdist", "*.tar.gz")):
        place = work / f"{Path(python).name}-{way}"
        [package] = dist.glob(pattern)
        smoke = SMOKE.format(
            bin=f"{place}/bin/", prefix=place, python=place / "bin" / "python"
        )
        script = f'"$0" -m venv {place} && {place}/bin/pip install -q "$1" && {{ {smoke} }}'
        done = subprocess.run(
            ["sh", "-c", script, python, str(package)], capture_output=True, text=True,
            check=False, cwd=work,
        )  # fmt: skip
        print(f"{python} {way}: {'ok' if done.returncode == 0 else 'FAILED'}", flush=True)
        if done.returncode:
            wrong.append(f"{python} {way}:\n{done.stdout}{done.stderr}")
    return wrong


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--release", choices=RELEASES, action="append")
    parser.add_argument("--python", action="append", metavar="PROGRAM")
    parser.add_argument("--keep", type=Path, metavar="DIR")
    options = parser.parse_args()
    pythons: list[str] = options.python or []
    chosen: list[str] = options.release or ([] if pythons else list(RELEASES))
    keep: Path | None = options.keep
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        dist = keep or Path(folder) / "dist"
        dist.mkdir(parents=True, exist_ok=True)
        build(dist)
        for name in chosen:
            wrong += release(name, dist, Path(folder))
        for name in pythons:
            wrong += interpreter(name, dist, Path(folder))
    for text in wrong:
        print(f"try_packages: {text}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
