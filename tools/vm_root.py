# SPDX-License-Identifier: GPL-2.0-only
"""Makes the user space of a virtual machine whose processor is not this machine's.

A folder of Debian packages, unpacked and not installed: no maintainer script can run here. What
those would have done and the guest needs is in `finish`. Python packages come as wheels into the
same folder. apt works on a state of its own, so this machine's dpkg knows nothing of it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
# What the guest's init, the tests and the fixtures call, and what apt says that these need.
PACKAGES = (
    *("bash", "busybox-static", "kmod", "mount", "procps", "util-linux"),  # virtme-ng's init
    *("coreutils", "dash", "findutils", "grep", "sed"),  # essential: nothing depends on them
    "libc-bin",  # the locale C.UTF-8
    *("python3", "strace", "bpftool", "iproute2"),
    *("gcc", "libc6-dev"),  # tests compile what they trace
)
# Of the test extra: what only lints, or is large and tests nothing of the processor's.
NO_WHEELS = ("mypy", "ruff", "types-jsonschema", "duckdb")
MERGED = ("bin", "lib", "sbin")  # links into usr, which Debian's packages count on
ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    # Mount points of virtme-ng's init.
    "etc/fstab": "",
    "etc/shadow": "",
    "etc/hosts": "127.0.0.1 localhost\n",
}
FOLDERS = ("etc/lvm", "mnt", "opt", "srv")  # virtme-ng's init, and people, mount things there
LINKS = {
    "usr/sbin/poweroff": "../bin/busybox",
    "usr/bin/cc": "gcc",  # of update-alternatives
}
# The Python that a venv was made from: the venv itself may be without pip.
PYTHON = Path(sys.base_prefix) / "bin" / "python3"
RECIPE = "etc/bpfstrace-recipe"  # says from what a folder was made

Call = Callable[[Sequence[str | Path]], str]


def apt_options(debian: str, state: Path) -> list[str]:
    """Options that make apt work for another architecture, with this machine's own sources."""
    settings = {
        "APT::Architecture": debian,
        "APT::Architectures": debian,
        "APT::Sandbox::User": "root",  # it could not write where we want the packages
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
    }
    return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]


def apt(debian: str, cache: Path, call: Call, refresh: bool) -> list[str]:
    """Let apt read what there is for that architecture, if it has not; its options."""
    state = cache / f"apt-{debian}"
    options = apt_options(debian, state)
    if refresh or not (state / "read").exists():
        for folder in ("lists/partial", "cache/archives/partial"):
            (state / folder).mkdir(parents=True, exist_ok=True)
        (state / "status").touch()
        call(["apt-get", *options, "update", "-q"])
        (state / "read").touch()
    return options


def wheels() -> list[str]:
    """The requirements of bpfstrace and of its tests, as pyproject.toml has them."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    return [line for line in wanted if not line.startswith(NO_WHEELS)]


def recipe() -> str:
    """Changes when a folder made before no longer is what would be made now."""
    return "\n".join(
        (*PACKAGES, *wheels(), *ACCOUNTS.values(), *FOLDERS, *map(" ".join, LINKS.items()))
    )


def prepare(uname: str, root: Path, options: Sequence[str], call: Call, refresh: bool) -> Path:
    """The folder `root`, as it is or else made anew; finished or not there."""
    made_from = root / RECIPE
    if not refresh and made_from.exists() and made_from.read_text() == recipe():
        return root
    with tempfile.TemporaryDirectory(dir=root.parent, prefix="unpack-") as scratch:
        new = Path(scratch) / "root"
        unpack(options, Path(scratch), new, call)
        finish(new, uname, call)
        new.chmod(0o755)
        if root.exists():
            shutil.rmtree(root)
        new.rename(root)
    return root


def unpack(options: Sequence[str], scratch: Path, root: Path, call: Call) -> None:
    """Download the packages with all that they depend on, and unpack them."""
    archives = scratch / "archives"
    (archives / "partial").mkdir(parents=True)
    call([
        *("apt-get", *options, "-o", f"Dir::Cache::archives={archives}", "install", "-qy"),
        *("--download-only", "--no-install-recommends", *PACKAGES),
    ])  # fmt: skip
    for name in MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for deb in sorted(archives.glob("*.deb")):
        # Not `dpkg -x`: it puts a folder where the links of MERGED are.
        with subprocess.Popen(["dpkg", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as tar:
            subprocess.run(
                ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", root],
                stdin=tar.stdout,
                check=True,
            )


def finish(root: Path, uname: str, call: Call) -> None:
    """What installing would have done, Python's packages, and the recipe."""
    for name, text in ACCOUNTS.items():
        (root / name).write_text(text)
    for name, target in LINKS.items():
        (root / name).symlink_to(target)
    for name in FOLDERS:
        (root / name).mkdir(exist_ok=True)
    (version,) = (path.name for path in (root / "usr/lib").glob("python3.*"))
    packages = root / "usr/local/lib" / version / "dist-packages"
    call([
        *(PYTHON, "-m", "pip", "install", "-q", "--target", packages),
        *("--only-binary=:all:", "--python-version", version.removeprefix("python")),
        *(f"--platform=manylinux_2_28_{uname}", f"--platform=manylinux2014_{uname}"),
        *wheels(),
    ])  # fmt: skip
    compile_for(root, [root / "usr/lib" / version, root / "usr/lib/python3", packages])
    (root / RECIPE).write_text(recipe())


def compile_for(root: Path, folders: Sequence[Path]) -> None:
    """Compile Python files here if our byte code is the guest's too: there it takes minutes."""
    if (root / f"usr/lib/python{sys.version_info.major}.{sys.version_info.minor}").is_dir():
        subprocess.run(
            [sys.executable, "-m", "compileall", "-q", "-j0", *folders],
            stdout=subprocess.DEVNULL,  # lib2to3 has files that are wrong on purpose
            check=False,
        )
