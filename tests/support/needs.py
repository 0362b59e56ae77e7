"""What this machine can do; what it cannot makes a test skip."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil

import pytest


def may_bpf() -> str | None:
    """None if bpf(2) works here, else why not."""
    if os.geteuid() != 0:
        return "needs root"
    libc = ctypes.CDLL(None, use_errno=True)
    numbers = {"x86_64": 321, "aarch64": 280}
    number = numbers.get(os.uname().machine)
    if number is None:
        return f"bpf(2) is not known on {os.uname().machine}"
    attr = ctypes.create_string_buffer(12)
    if libc.syscall(number, 11, attr, 12) == 0:
        return None  # and errno is that of some call before
    error = ctypes.get_errno()
    return None if error == errno.ENOENT else f"bpf(2) is refused here: {os.strerror(error)}"


def needs_tool(*names: str) -> None:
    """Skips where a program is not installed."""
    for name in names:
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")


def c_compiler() -> str:
    """clang, or else GCC; skips where there is neither."""
    found = shutil.which("clang") or shutil.which("gcc")
    if found is None:
        pytest.skip("no C compiler")
    return found
