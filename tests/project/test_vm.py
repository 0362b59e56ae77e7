# SPDX-License-Identifier: GPL-2.0-only
"""Our own hello world on other kernels and another processor.

    pytest --vm tests/project/test_vm.py

It may download a kernel and a user space first, and takes minutes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import vm

from bpftrace_sys.cli.repro import main

pytestmark = pytest.mark.usefixtures("boots")


@pytest.fixture
def boots(request: pytest.FixtureRequest) -> None:
    """Skips where booting was not asked for."""
    if not request.config.getoption("--vm"):
        pytest.skip("virtual machine tests are off")


@pytest.mark.parametrize(("series", "arch"), [("6.1", "x86_64"), ("6.12", "aarch64")])
def test_hello_world_is_traced(series: str, arch: str) -> None:
    kernel = vm.prepare(series, vm.default_cache(), arch=arch)
    hello = [kernel.python, "-m", "bpftrace_sys.hello"]
    command = [kernel.python, "-m", "bpftrace_sys", "-f", *hello]
    result = vm.run(kernel, command, cache=vm.default_cache(), cwd=vm.REPO, timeout=600)
    text = result.stderr.decode()
    assert result.exit_code == 0, text
    # The tag is the kernel's hash of the instructions: the same everywhere.
    program = "hello_world (kprobe, 13 insns, tag 38dd440716c4900f)"
    assert f"attached  {program} -> kprobe do_sys_openat2" in text


REPEATED = [
    "bcc-kprobe-hello", "bcc-kretprobe-fentry", "freplace", "libbpf-tcpconnect", "libbpf-vfsstat",
]  # fmt: skip
"""Recordings of what other kernels refuse: kprobes, fentry, freplace."""


def test_reproducers_repeat_what_was_recorded_there(tmp_path: Path) -> None:
    """Every call of every recording of Linux 6.1 returns there what it returned."""
    kernel = vm.prepare("6.1", vm.default_cache())
    for name in REPEATED:
        trace = str(vm.REPO / "fixtures" / name / "trace.jsonl.gz")
        assert main([trace, "-o", str(tmp_path / f"{name}.py")]) == 0
    script = f"cd {tmp_path}; for file in *.py; do {kernel.python} $file || exit; done"
    result = vm.run(
        kernel, ["sh", "-c", script], cache=vm.default_cache(), cwd=vm.REPO, timeout=600,
        rw=[tmp_path],
    )  # fmt: skip
    text = result.stdout.decode() + result.stderr.decode()
    assert result.exit_code == 0, text
    assert text.count("as recorded") == len(REPEATED)
