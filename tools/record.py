#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Records fixtures again, on this machine or in a virtual one, as their manifests say.

    tools/record.py NAME...           writes fixtures/NAME/trace.jsonl.gz
    tools/record.py --all             every fixture; those of a virtual machine in one boot
    tools/record.py --list            the names, where each is recorded, and what it shows
    tools/record.py --strace NAME...  runs the workload under strace instead, writes nothing

A workload runs in a copy of its folder below /tmp, so that a recording holds no path of the
machine that made it. docs/testing.md describes the manifest. Root is needed, as for tracing.
A workload takes seconds; in the virtual machine its boot (15 s, 30 s with an aarch64 processor),
and up to a minute more.

Exit code: 0, 1 when a workload or a recording was not as its manifest says, 2 for a wrong name
or manifest, 125 when the virtual machine could not be booted.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import venv_python
import vm

REPO = Path(__file__).resolve().parent.parent
FIXTURES = REPO / "fixtures"
MANIFEST = "manifest.toml"
TRACE = "trace.jsonl.gz"
# The same for everybody who records; where the workloads run.
WORK = Path("/tmp/bpfstrace-fixture")
HOST = "host"
# "vm-6.1", "vm-6.12-aarch64"
IN_VM = re.compile(r"vm-(?P<series>\d+\.\d+)(-(?P<arch>\w+))?")
TIME_LIMIT = 120  # seconds for one workload; qemu without KVM is some 20 times slower
BOOT_LIMIT = 120  # seconds more for a virtual machine
TRACER_OPTIONS = ("-f",)
# A recording names its host and, of each program, its cgroup; that is nobody's business.
NAMED = 'echo fixture >/proc/sys/kernel/hostname && exec "$@"'
HOSTNAME = ("unshare", "--uts", "--cgroup", "sh", "-c", NAMED, "sh")
STRACE = ("strace", "-f", "-qq", "-e", "trace=bpf,perf_event_open", "-e", "signal=none")


class ManifestError(Exception):
    """A manifest that is missing or wrong; the text names it."""


class Guest(NamedTuple):
    """A virtual machine that tools/vm.py knows."""

    series: str  # of its kernel
    arch: str


@dataclasses.dataclass(frozen=True)
class Fixture:
    """One manifest. Field names are its keys."""

    name: str
    title: str
    where: str  # "host", or "vm-SERIES" or "vm-SERIES-ARCH" of a Guest
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()  # Debian packages
    files: tuple[str, ...] = ()  # copied beside each other; ../OTHER/FILE shares a file
    bpf_sources: tuple[str, ...] = ()  # NAME.c, compiled to NAME.o for the bpf target
    clang_flags: tuple[str, ...] = ("-O2",)
    setup: tuple[tuple[str, ...], ...] = ()  # further commands before, not traced
    options: tuple[str, ...] = ()  # of bpfstrace, for the recording
    exit_code: int = 0
    expect: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the manifest lies and the recording goes."""
        return FIXTURES / self.name

    @property
    def guest(self) -> Guest | None:
        """What to boot, or None for this machine's own kernel."""
        match = IN_VM.fullmatch(self.where)
        return Guest(match["series"], match["arch"] or vm.HOST_ARCH) if match else None


def load(name: str) -> Fixture:
    """Read fixtures/NAME/manifest.toml; ManifestError when it is missing or malformed."""
    path = FIXTURES / name / MANIFEST
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ManifestError(f"{path}: {error}") from None
    known = {field.name for field in dataclasses.fields(Fixture)} - {"name"}
    if unknown := sorted(table.keys() - known):
        raise ManifestError(f"{path}: unknown keys: {', '.join(unknown)}")
    if missing := sorted({"title", "where", "command"} - table.keys()):
        raise ManifestError(f"{path}: missing keys: {', '.join(missing)}")
    if "setup" in table:
        table["setup"] = tuple(tuple(command) for command in table["setup"])
    for key in ("command", "needs", "files", "bpf_sources", "clang_flags", "options"):
        if key in table:
            table[key] = tuple(table[key])
    fixture = Fixture(name=name, **table)
    if fixture.where != HOST and fixture.guest is None:
        raise ManifestError(f"{path}: where is neither {HOST!r} nor 'vm-SERIES[-ARCH]'")
    for file in fixture.files:
        if not (fixture.folder / file).is_file():
            raise ManifestError(f"{path}: no file {file}")
    return fixture


def all_names() -> list[str]:
    """Every folder of fixtures/ that has a manifest, sorted."""
    return sorted(path.parent.name for path in FIXTURES.glob(f"*/{MANIFEST}"))


# -- one workload --------------------------------------------------------------------------------


def compile_command(source: str, work: Path, flags: Iterable[str]) -> list[str]:
    """How a BPF source is compiled: with BTF, and with no path of this machine in it."""
    return [
        *("clang", *flags, "-g", "-target", "bpf", f"-ffile-prefix-map={work}=."),
        f"-I/usr/include/{platform.machine()}-linux-gnu",  # asm/types.h
        *("-c", source, "-o", Path(source).stem + ".o"),
    ]


def prepare(fixture: Fixture) -> Path:
    """Make a fresh copy of the workload, built and ready; its folder."""
    work = WORK / fixture.name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for folder in (WORK, work):
        folder.chmod(0o755)  # a workload may run as an ordinary user
    for file in fixture.files:
        shutil.copyfile(fixture.folder / file, work / Path(file).name)
    commands = [list(command) for command in fixture.setup]
    for source in fixture.bpf_sources:
        commands.append(compile_command(source, work, fixture.clang_flags))
        commands.append(["llvm-strip", "-g", Path(source).stem + ".o"])  # DWARF; BTF stays
    for command in commands:
        subprocess.run(command, cwd=work, check=True, stdin=subprocess.DEVNULL)
    return work


def record_here(fixture: Fixture, tracer: Sequence[str]) -> list[str]:
    """Run one workload on this machine under `tracer`; what was not as it should be."""
    try:
        work = prepare(fixture)
        done = subprocess.run(
            [*HOSTNAME, *tracer, *fixture.command],
            cwd=work,
            # The workload's own messages must not depend on who records.
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": "/root",
                "LC_ALL": "C.UTF-8",
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONPATH": str(REPO),
            },
            stdin=subprocess.DEVNULL,
            timeout=TIME_LIMIT,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return [str(error)]
    finally:
        shutil.rmtree(WORK / fixture.name, ignore_errors=True)
    if done.returncode != fixture.exit_code:
        return [f"ended with {done.returncode}, expected {fixture.exit_code}"]
    return []


def bpfstrace(out: Path, options: Sequence[str]) -> list[str]:
    """The tracer's command line that leaves trace and text in `out`."""
    return [
        *(sys.executable, "-m", "bpftrace_sys", *TRACER_OPTIONS, *options),
        *("-o", str(out / "trace.txt"), "--json", str(out / TRACE), "--"),
    ]


def problems_of(fixture: Fixture, trace: Path) -> list[str]:
    """What is wrong with a recording: unreadable, private, or not what the manifest promises."""
    try:
        text = gzip.decompress(trace.read_bytes()).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        return [f"no readable recording: {error}"]
    problems = [
        f"the recording holds a path of this machine: {private}"
        for private in {str(REPO), str(Path.home() / ".cache")}
        if private in text
    ]
    # Words of the JSON text are enough here; the tests look at the decoded trace.
    problems += [
        f"expected {key} {word!r}, not in the recording"
        for key, words in fixture.expect.items()
        for word in words
        if word not in text
    ]
    return problems


def run_here(fixtures: Sequence[Fixture], out: Path, with_strace: bool) -> int:
    """Record all of these on this machine into out/NAME/; how many went wrong."""
    failed = 0
    for fixture in fixtures:
        print(f"== {fixture.name}: {fixture.title}", flush=True)
        folder = out / fixture.name
        folder.mkdir(parents=True, exist_ok=True)
        if with_strace:
            problems = record_here(fixture, STRACE)
        else:
            problems = record_here(fixture, bpfstrace(folder, fixture.options))
            problems = problems or problems_of(fixture, folder / TRACE)
        for problem in problems:
            print(f"record: {fixture.name}: {problem}", flush=True)
        failed += bool(problems)
    return failed


def run_in_vm(
    guest: Guest, fixtures: Sequence[Fixture], out: Path, options: argparse.Namespace
) -> int:
    """Record all of these in one virtual machine into out/NAME/; how many went wrong."""
    kernel = vm.prepare(guest.series, options.cache, arch=guest.arch)
    words = ["--here", "--out", str(out), *(["--strace"] if options.strace else [])]
    result = vm.run(
        kernel,
        [kernel.python, str(Path(__file__).resolve()), *words, *(f.name for f in fixtures)],
        cache=options.cache,
        rw=[out],
        cwd=Path("/tmp"),
        timeout=BOOT_LIMIT + TIME_LIMIT * len(fixtures),
    )
    sys.stdout.write(result.stdout.decode(errors="replace"))
    sys.stdout.write(result.stderr.decode(errors="replace"))
    print(f"record: {kernel.release} ran for {result.seconds:.0f}s")
    return result.exit_code


# -- command line --------------------------------------------------------------------------------


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line; argparse exits with 2 when it is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--all", action="store_true", help="every fixture")
    parser.add_argument("--list", action="store_true", help="print the fixtures and stop")
    parser.add_argument("--strace", action="store_true", help="try the workloads under strace")
    parser.add_argument("--out", type=Path, help="write to OUT/NAME/ and not to fixtures/NAME/")
    parser.add_argument("--cache", type=Path, default=vm.default_cache(), help="see tools/vm.py")
    parser.add_argument(
        "--here", action="store_true", help="on this machine, whatever the manifest says"
    )
    args = parser.parse_args(argv)
    if args.all:
        args.names = all_names()
    if not args.names and not args.list:
        parser.error("which fixture? Name some, or say --all or --list")
    return args


def main(argv: Sequence[str]) -> int:
    """Record what was named; the exit code is the module docstring's."""
    args = parse(argv)
    try:
        fixtures = [load(name) for name in (args.names or all_names())]
    except ManifestError as error:
        print(f"record: {error}", file=sys.stderr)
        return 2
    if args.list:
        for fixture in fixtures:
            print(f"{fixture.name:24} {fixture.where:15} {fixture.title}")
        return 0
    venv_python.needs("construct", "ptrace")
    with tempfile.TemporaryDirectory(prefix="bpfstrace-record-") as scratch:
        out = (args.out or Path(scratch)).resolve()
        out.mkdir(parents=True, exist_ok=True)  # a guest can only be given what there is
        failed = 0
        guests = {fixture.guest for fixture in fixtures} if not args.here else {None}
        for guest in sorted(guests, key=lambda guest: guest or ()):
            chosen = [f for f in fixtures if args.here or f.guest == guest]
            if guest is None:
                failed += run_here(chosen, out, args.strace)
                continue
            try:
                failed += run_in_vm(guest, chosen, out, args)
            except vm.VmError as error:
                print(f"record: {error}", file=sys.stderr)
                return vm.TROUBLE
        if not args.out and not args.strace and not failed:
            for fixture in fixtures:
                # copyfile, not copy: traces are 0600, and files of the repository are not.
                shutil.copyfile(out / fixture.name / TRACE, fixture.folder / TRACE)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
