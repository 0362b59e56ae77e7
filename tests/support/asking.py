"""Running bpfstrace on small programs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.running import run_cli

PYTHON = sys.executable


# bpf(PROG_GET_NEXT_ID) and bpf(MAP_GET_NEXT_ID), which nobody needs a right to be refused;
# an openat of a dull path and of a telling one; a dull ioctl and a perf ioctl.
ASKS = """\
import ctypes, os, platform
libc = ctypes.CDLL(None)
bpf = {"x86_64": 321, "aarch64": 280}[platform.machine()]
attr = ctypes.create_string_buffer(64)
libc.syscall(bpf, 11, attr, 16)
libc.syscall(bpf, 12, attr, 16)
os.close(os.open("/dev/null", os.O_RDONLY))
try:
    os.close(os.open("/sys/fs/bpf/nowhere", os.O_RDONLY))
except OSError:
    pass
libc.ioctl(0, 0x5401, attr)
libc.ioctl(0, 0x2400, 0)
"""

# Asks for the first program's id three times: a bpf(2) call that needs nothing.
ASK = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
for _ in range(3):
    ret = libc.syscall(BPF, 11, ctypes.create_string_buffer(12), 12)
    print(ret, ctypes.get_errno() if ret < 0 else 0, flush=True)
"""
CALL = "bpf(BPF_PROG_GET_NEXT_ID"


def run(*words: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """bpfstrace, which never shows a traceback."""
    done = run_cli(*words, **kwargs)
    assert "Traceback" not in done.stderr
    return done


def plain(*words: str, **kwargs: Any) -> subprocess.CompletedProcess[bytes]:
    """A program without bpfstrace."""
    return subprocess.run(words, capture_output=True, timeout=60, check=False, **kwargs)


def script(folder: Path, name: str, text: str, mode: int = 0o755) -> Path:
    """A file to execute."""
    path = folder / name
    path.write_text(text)
    path.chmod(mode)
    return path
