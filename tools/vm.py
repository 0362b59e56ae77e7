#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Boots a Debian kernel in qemu and runs one command there as root.

    tools/vm.py run --kernel 6.1 --rw /tmp/out -- sh -c 'uname -r > /tmp/out/release'
    tools/vm.py run --kernel 6.12 --arch aarch64 -- python3 -m bpftrace_sys.hello
    tools/vm.py prepare --kernel 6.1

The guest sees the host's file system: system folders through an overlay that is thrown away,
everything else read-only, and the folders named with --rw as they are, so results are left
there. No KVM, no root on the host and no disk image are needed. A boot takes about 15 seconds (with
an aarch64 processor 30), fetching a kernel 10, an aarch64 user space 75.

With --arch of another processor the guest cannot use the host's programs: it sees a user space of
its own (tools/vm_root.py) instead, and of the host only this checkout and the folders of --rw.

What is fetched (Debian's kernel image and headers by `apt-get download`, virtme-ng from PyPI)
is unpacked below $XDG_CACHE_HOME/bpfstrace/vm (or --cache) and used again from there.
Needs: qemu-system-x86 or -arm, busybox-static, kmod (tools/setup_test_env.sh --vm installs them).

Exit code: the command's own, or 125 when the machine could not be prepared or booted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import vm_root

REPO = Path(__file__).resolve().parent.parent
TROUBLE = 125
ENDING = (signal.SIGTERM, signal.SIGHUP)
VIRTME_NG = "virtme-ng==1.42"


class Arch(NamedTuple):
    """A processor's names, and what emulates it."""

    debian: str  # dpkg's name, and virtme-ng's
    qemu: str  # the command
    package: str  # the Debian package that it is in


# By the name that `uname -m` has for it.
ARCHES = {
    "x86_64": Arch("amd64", "qemu-system-x86_64", "qemu-system-x86"),
    "aarch64": Arch("arm64", "qemu-system-aarch64", "qemu-system-arm"),
}
HOST_ARCH = platform.machine()
# Further commands that we run, and the Debian package of each.
NEEDED = {
    "busybox": "busybox-static",
    "depmod": "kmod",
    "dpkg": "dpkg",
    "apt-get": "apt",
}
# Mounted or made by the guest before the command; all harmless when there already.
GUEST_SETUP = """\
mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf
mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug
mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
ip link set lo up
"""


class VmError(Exception):
    """The machine could not be prepared or did not run the command; the text says why."""


class Kernel(NamedTuple):
    """A kernel that is unpacked and ready to boot."""

    release: str  # what uname -r prints, e.g. 6.1.0-56-amd64
    image: Path  # boot/vmlinuz-RELEASE, with lib/modules/RELEASE beside boot
    arch: str = HOST_ARCH
    root: Path | None = None  # the user space; None: the host's

    @property
    def python(self) -> str:
        """The command that runs Python with all that bpfstrace depends on in the guest."""
        return sys.executable if self.root is None else "/usr/bin/python3"


class Result(NamedTuple):
    """How a command in the guest ended."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    seconds: float  # boot and command together


def default_cache() -> Path:
    """The folder for kernels and tools, outside the repository."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "bpfstrace" / "vm"


# -- getting a kernel ----------------------------------------------------------------------------


def check_host(arch: str) -> None:
    """Raise VmError that names the packages of all missing commands."""
    if arch not in ARCHES:
        raise VmError(f"no virtual machine for {arch}, only for {', '.join(ARCHES)}")
    needed = {**NEEDED, ARCHES[arch].qemu: ARCHES[arch].package}
    missing = [package for command, package in needed.items() if not which(command)]
    if missing:
        names = " ".join(sorted(missing))
        raise VmError(f"not installed: {names} (tools/setup_test_env.sh --vm installs them)")


def which(command: str) -> str | None:
    """Like shutil.which, but also where an ordinary user's PATH does not reach."""
    return shutil.which(command, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def call(command: Sequence[str | Path], cwd: Path | None = None) -> str:
    """Run a host command and return its stdout; VmError with its stderr when it fails."""
    words = [which(str(command[0])) or str(command[0]), *map(str, command[1:])]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise VmError(f"{shlex.join(words)} failed:\n{done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def natural_key(name: str) -> list[int]:
    """Sort key that counts: 6.1.0-9 before 6.1.0-56."""
    return [int(digits) for digits in re.findall(r"\d+", name)]


def newest_release(series: str, debian: str, apt: Sequence[str] = ()) -> str:
    """The newest release of a series ("6.1") that apt knows: the plain amd64 or arm64 flavour.

    The cloud flavour lacks 9p, over which the guest sees the host's files.
    """
    pattern = re.compile(rf"linux-image-({re.escape(series)}[.\d][\d.+a-z-]*-{debian})")
    releases = [
        match[1]
        for name in call(["apt-cache", *apt, "pkgnames", f"linux-image-{series}."]).split()
        if (match := pattern.fullmatch(name)) and not re.search("-(cloud|rt)-", name)
    ]
    if not releases:
        raise VmError(f"apt knows no linux-image-{series}.*-{debian} (apt-get update?)")
    return max(releases, key=natural_key)


def unpacked(series: str, debian: str, cache: Path) -> str | None:
    """The newest release of the series that is in the cache."""
    kernels = [path.name for path in cache.glob(f"{series}.*-{debian}") if path.is_dir()]
    return max(kernels, key=natural_key, default=None)


def fetch(release: str, cache: Path, apt: Sequence[str] = ()) -> None:
    """Download and unpack the kernel, its modules and its headers; finished or not there."""
    common = release.rpartition("-")[0] + "-common"
    packages = [f"linux-image-{release}", f"linux-headers-{release}", f"linux-headers-{common}"]
    with tempfile.TemporaryDirectory(dir=cache, prefix="unpack-") as scratch:
        root = Path(scratch) / "root"
        # One by one, each removed after use: an image is 70 MB packed and 400 MB unpacked.
        for package in packages:
            call(["apt-get", *apt, "download", "-q", package], cwd=Path(scratch))
            for deb in Path(scratch).glob("*.deb"):
                call(["dpkg", "-x", deb, root])
                deb.unlink()
        call(["depmod", "-b", root, release])
        # Where BCC and others look for headers. Relative: the tree is moved below.
        modules = root / "lib" / "modules" / release
        for link, name in (("build", release), ("source", common)):
            with contextlib.suppress(FileNotFoundError):
                (modules / link).unlink()
            (modules / link).symlink_to(f"../../../usr/src/linux-headers-{name}")
        root.chmod(0o755)
        root.rename(cache / release)


def prepare(series: str, cache: Path, refresh: bool = False, arch: str = HOST_ARCH) -> Kernel:
    """A kernel of that series, from the cache or else from Debian; VmError when neither.

    If its processor is not this machine's, a user space for it, too.
    """
    check_host(arch)
    debian = ARCHES[arch].debian
    cache.mkdir(parents=True, exist_ok=True)
    root: Path | None = None
    apt: list[str] = []
    if arch != HOST_ARCH:
        apt = vm_root.apt(debian, cache, call, refresh)
        root = vm_root.prepare(arch, cache / f"root-{debian}", apt, call, refresh)
    release = unpacked(series, debian, cache)
    if release is None or refresh:
        release = newest_release(series, debian, apt)
        if not (cache / release).exists():
            fetch(release, cache, apt)
    return Kernel(release, cache / release / "boot" / f"vmlinuz-{release}", arch, root)


def find_vng(cache: Path) -> Path:
    """The `vng` command: an installed one, or one in a venv of our own in the cache."""
    if found := which("vng"):
        return Path(found)
    vng = cache / "venv" / "bin" / "vng"
    if not vng.exists():
        # --without-pip and pip's --python also work where Debian's python3-venv is missing.
        call([vm_root.PYTHON, "-m", "venv", "--without-pip", cache / "venv"])
        python = cache / "venv" / "bin" / "python"
        call([vm_root.PYTHON, "-m", "pip", "--python", python, "install", "-q", VIRTME_NG])
    return vng


# -- running -------------------------------------------------------------------------------------


def guest_script(command: Sequence[str], cwd: Path, env: Mapping[str, str], work: Path) -> str:
    """The shell script that the guest runs: results go to files in `work`.

    Files, since Debian's kernels have the virtio console as a module that comes too late for
    virtme-ng to hand on output or exit codes.
    """
    exports = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in env.items())
    work_q = shlex.quote(str(work))
    return (
        f"exec >{work_q}/stdout 2>{work_q}/stderr </dev/null\n"
        "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
        "export LC_ALL=C.UTF-8 HOME=/root PYTHONDONTWRITEBYTECODE=1\n"
        f"{exports}{GUEST_SETUP}"
        f"cd {shlex.quote(str(cwd))} || exit 1\n"
        f"{shlex.join(command)}\n"
        # Renamed last: a half-written exit code is never read.
        f"echo $? >{work_q}/rc.part; sync; mv {work_q}/rc.part {work_q}/rc\n"
    )


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    """A folder that host and guest share for one run."""
    with tempfile.TemporaryDirectory(prefix="bpfstrace-vm-") as name:
        yield Path(name)


def run(
    kernel: Kernel,
    command: Sequence[str],
    *,
    cache: Path,
    rw: Sequence[Path] = (),
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    memory: str = "2G",
    cpus: int = 2,
    timeout: float = 300,
) -> Result:
    """Boot the kernel, run the command as root, return how it ended.

    `rw`: folders that the guest may write to, under the same path. `cwd`: this one's, or the
    checkout's where the guest does not see the host's files. `timeout`: seconds, boot included.
    VmError when the command was not run or did not end in time.
    """
    vng = find_vng(cache)
    start = time.monotonic()
    with work_folder() as work:
        script = work / "run.sh"
        folder = cwd or (Path.cwd() if kernel.root is None else REPO)
        script.write_text(guest_script(command, folder, env or {}, work))
        shared = [f"--rwdir={folder.resolve()}" for folder in (*rw, work)]
        if kernel.root is not None:
            shared = own_root(kernel, kernel.root, [*rw, work])
        machine = [
            *(str(vng), "--disable-kvm", "--disable-microvm", "--user", "root"),
            *("--cpus", str(cpus), "--memory", memory, *shared),
            *("--run", str(kernel.image), "--verbose", "--", "sh", str(script)),
        ]
        # virtme-ng starts its other parts by name.
        path = f"{vng.parent}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        console = boot(machine, {**os.environ, "PATH": path}, timeout)
        seconds = time.monotonic() - start
        rc = work / "rc"
        if not rc.exists():
            raise VmError(
                f"the guest did not run the command to its end within {seconds:.0f}s; console:\n"
                + console[-2000:].decode(errors="replace").strip()
            )
        return Result(
            int(rc.read_text()),
            (work / "stdout").read_bytes(),
            (work / "stderr").read_bytes(),
            seconds,
        )


def own_root(kernel: Kernel, root: Path, rw: Sequence[Path]) -> list[str]:
    """virtme-ng's options for a guest with a user space of its own, and folders of ours in it."""
    options = ["--arch", ARCHES[kernel.arch].debian, "--root", str(root)]
    options += ["--busybox", str(root / "usr/bin/busybox")]
    vm_root.compile_for(root, [REPO / name for name in ("bpftrace_sys", "decoders")])
    for option, folder in (("--rodir", REPO), *(("--rwdir", folder) for folder in rw)):
        path = folder.resolve()
        # The guest cannot make it: its root is read-only.
        (root / path.relative_to("/")).mkdir(parents=True, exist_ok=True)
        options.append(f"{option}={path}={path}")
    return options


def boot(machine: Sequence[str], env: Mapping[str, str], timeout: float) -> bytes:
    """Run virtme-ng to its end or its time limit; what it printed."""
    # A signal amid Popen would leave a child that nobody knows: it waits until there is a try.
    came: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: came.append(number)) for number in ENDING
    }
    process = subprocess.Popen(
        machine,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # so that qemu, its grandchild, can be ended with it
    )
    try:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            sys.exit(128 + came[0])
        return process.communicate(timeout=timeout)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0]
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise


# -- command line --------------------------------------------------------------------------------


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line; argparse exits with 2 when it is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sub = parser.add_subparsers(dest="action", required=True)
    for action, text in (
        ("prepare", "download and unpack a kernel, print its release"),
        ("run", "boot it and run a command there"),
    ):
        options = sub.add_parser(action, help=text)
        options.add_argument("--kernel", default="6.1", help="series, e.g. 6.1 or 6.12")
        options.add_argument("--arch", default=HOST_ARCH, choices=ARCHES, help="the processor")
        options.add_argument("--cache", type=Path, default=default_cache())
        options.add_argument("--refresh", action="store_true", help="ask apt for a newer release")
        if action == "run":
            options.add_argument(
                "--rw", type=Path, action="append", default=[], help="folder the guest may write"
            )
            options.add_argument("--cwd", type=Path, help="working directory (default: this one)")
            options.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
            options.add_argument("--memory", default="2G")
            options.add_argument("--cpus", type=int, default=2)
            options.add_argument("--timeout", type=float, default=300, help="seconds, with boot")
            options.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    args = parser.parse_args(argv)
    if args.action == "run":
        args.command = args.command[1:] if args.command[:1] == ["--"] else args.command
        if not args.command:
            parser.error("no command to run in the machine")
        if bad := [word for word in args.env if "=" not in word]:
            parser.error(f"--env wants NAME=VALUE, not {bad[0]}")
        if missing := [str(folder) for folder in args.rw if not folder.is_dir()]:
            parser.error(f"--rw {missing[0]}: no such folder")
    return args


def main(argv: Sequence[str]) -> int:
    """Run one action; the exit code is the module docstring's."""
    args = parse(argv)
    for number in ENDING:
        # As an exception: the machine, in a session of its own, is ended on the way out.
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        kernel = prepare(args.kernel, args.cache, args.refresh, args.arch)
        if args.action == "prepare":
            print(kernel.release)
            return 0
        result = run(
            kernel,
            args.command,
            cache=args.cache,
            rw=args.rw,
            cwd=args.cwd,
            env=dict(word.split("=", 1) for word in args.env),
            memory=args.memory,
            cpus=args.cpus,
            timeout=args.timeout,
        )
    except VmError as error:
        print(f"vm: {error}", file=sys.stderr)
        return TROUBLE
    sys.stdout.buffer.write(result.stdout)
    sys.stderr.buffer.write(result.stderr)
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
