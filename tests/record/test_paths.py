"""Which files' opens are told, wherever their path stands in memory."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.support.running import run_cli

OPENS = """
import ctypes, mmap, os
libc = ctypes.CDLL(None, use_errno=True)
OPENAT = {"x86_64": 257, "aarch64": 56}[os.uname().machine]
pages = mmap.mmap(-1, 3 * mmap.PAGESIZE)
start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
end = start + 2 * mmap.PAGESIZE
libc.munmap(ctypes.c_void_p(end), ctypes.c_size_t(mmap.PAGESIZE))

def opens(path, at):
    ctypes.memmove(at, path + b"\\0", min(len(path) + 1, end - at))
    return libc.syscall(OPENAT, -100, ctypes.c_void_p(at), os.O_RDONLY)

for times in (0, 40):  # what is asked for often is read in another way
    for _ in range(times):
        opens(b"/etc/hostname", start)
    for path in (b"/proc/kallsyms", b"/sys/fs/bpf", b"/sys/fs/bpf/none", b"/x"):
        opens(path, start + 100)
        opens(path, end - len(path) - 1)  # the last bytes that there are
        opens(path, end - len(path))  # without its end
        opens(path, start + mmap.PAGESIZE - 7)
    opens(b"/sys/fs/bp", start + 500)
    libc.syscall(OPENAT, -100, ctypes.c_void_p(end), os.O_RDONLY)
    libc.syscall(OPENAT, -100, ctypes.c_void_p(0), os.O_RDONLY)
    libc.syscall(OPENAT, -100, ctypes.c_void_p(-1), os.O_RDONLY)
"""


PATHS = ("/proc/kallsyms", "/sys/fs/bpf", "/sys/fs/bpf/none")
"""Those that are BPF's."""


def test_paths_at_the_end_of_memory(tmp_path: Path) -> None:
    trace = tmp_path / "t.jsonl"
    done = run_cli("--json", str(trace), "-o", "/dev/null", sys.executable, "-c", OPENS)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    calls = [line for line in lines if line["type"] == "syscall"]
    told = [(line["args"]["pathname"]["value"], line.get("errno")) for line in calls]
    # Three whole ones, and one of which the kernel finds no end.
    once = []
    for path in PATHS:
        errno = "ENOENT" if path.endswith("none") else None
        cut = {"text": path, "truncated": True}
        once += [(path, errno), (path, errno), (cut, "EFAULT"), (path, errno)]
    assert told == once * 2
