"""Where it is measured: bpfstrace in a folder of its own, and the ways of running work."""

from __future__ import annotations

import compileall
import importlib.util
import shutil
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.work import WORK_C, WORK_PY

REPO: Final = Path(__file__).resolve().parent.parent.parent
PACKAGES: Final = ("bpftrace_sys", "decoders")
NEEDED: Final = ("construct", "ptrace", "rich")

UNTRACED, FLOOR, OURS = "untraced", "bare filter", "bpfstrace"
STRACE, PLAIN = "strace --seccomp-bpf", "strace"
"""The ways; they are the columns of the table.

FLOOR: no tracer at all, but a seccomp filter of one instruction that allows everything:
what the kernel takes for having any filter.
"""
WAYS: Final = (UNTRACED, FLOOR, OURS, STRACE, PLAIN)


class Place:
    """The temporary folder: bpfstrace installed, and what the work needs, made when asked for."""

    def __init__(self, folder: Path, full: bool) -> None:
        self.folder = folder
        self.full = full
        self.text = str(folder / "out")
        self.python, self.script = install(folder / "installed")
        self._work: list[str] | None = None

    def work(self, *words: str) -> list[str]:
        """The tiny program, in C if it can be compiled."""
        if self._work is None:
            compiler = shutil.which("cc") or shutil.which("clang")
            source = self.folder / ("work.c" if compiler else "work.py")
            source.write_text(WORK_C if compiler else WORK_PY)
            if compiler is None:
                self._work = [self.python, str(source)]
            else:
                self._work = [str(self.folder / "work")]
                subprocess.run([compiler, "-O2", "-o", self._work[0], str(source)], check=True)
        return [*self._work, *words]

    def floor(self, work: Sequence[str]) -> dict[str, Sequence[str]]:
        """Under a filter that allows everything; nothing where there is no compiler."""
        filtered = self.work("filter", *work)
        return {} if filtered[0] == self.python else {FLOOR: filtered}

    def ours(self, options: Sequence[str], work: Sequence[str]) -> list[str]:
        """Traced by bpfstrace, text to a file."""
        return [self.script, "-f", "-q", "-o", self.text, *options, *work]

    def strace(self, options: Sequence[str], work: Sequence[str], seccomp: bool) -> list[str]:
        """Traced by strace, text to a file."""
        return [
            "strace", "-f", *(["--seccomp-bpf"] if seccomp else []), "-o", self.text,
            *options, *work,
        ]  # fmt: skip

    def four(
        self, ours: Sequence[str], theirs: Sequence[str], work: Sequence[str]
    ) -> dict[str, Sequence[str]]:
        """The usual ways, with options for each tracer."""
        ways: dict[str, Sequence[str]] = {UNTRACED: work, OURS: self.ours(ours, work)}
        if shutil.which("strace"):
            ways[STRACE] = self.strace(theirs, work, True)
            ways[PLAIN] = self.strace(theirs, work, False)
        return ways


def install(folder: Path) -> tuple[str, str]:
    """bpfstrace in a virtual environment; the paths of its Python and its script."""
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    for package in PACKAGES:
        shutil.copytree(
            REPO / package, site / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    specs = [importlib.util.find_spec(name) for name in NEEDED]
    origins = {Path(spec.origin).parent.parent for spec in specs if spec and spec.origin}
    # A line of a .pth adds a folder, whose own .pth files are not read.
    (site / "needed.pth").write_text("".join(f"{origin}\n" for origin in sorted(origins)))
    compileall.compile_dir(str(site), quiet=2, workers=1)
    python, script = folder / "bin" / "python", folder / "bin" / "bpfstrace"
    script.write_text(
        f"#!{python}\nfrom bpftrace_sys.cli.main import run\nrun()\n"
    )
    script.chmod(0o755)
    return str(python), str(script)
