"""A program that is refused where it asks, attaches, detaches. Like refusals.py, with its frame.

    python3 tests/tracees/refused_hooks.py GROUP
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from refusals import attempt, load, make, results

sys.path.insert(0, str(Path(__file__).resolve().parent / "loaders"))

from _common import (
    ATTACH,
    CLONE_NEWNS,
    PROG,
    buffer,
    call,
    checked,
    libc,
    perf_event,
    unshare,
)

NOBODY = 0xFFFFFFFF
SET_BPF = 0x40042408


def queries() -> None:
    """Questions about what is not there, or is something else."""
    room = buffer(64)
    null = os.open(os.devnull, os.O_RDONLY)
    array = make("ARRAY", 4, 8, 2, map_name=b"array")
    event = perf_event(1, 0, pid=0, cpu=-1)

    def task(pid: int, fd: int, **more: Any) -> Any:
        return call("TASK_FD_QUERY", pid=pid, fd=fd, buf=room, buf_len=64, **more)

    def query(target: int, hook: str) -> Any:
        return call("PROG_QUERY", target_fd=target, attach_type=ATTACH[hook])

    def info(fd: int) -> Any:
        return call("OBJ_GET_INFO_BY_FD", bpf_fd=fd, info_len=64, info=room)

    me = os.getpid()
    attempt("a file of a task", lambda: task(me, null))
    attempt("an fd that is not open", lambda: task(me, 777))
    attempt("a task that is not there", lambda: task(0x3FFFFF, 1))
    attempt("an event without a program", lambda: task(me, event))
    attempt("flags of a question", lambda: task(me, event, flags=1))
    attempt("no object", lambda: info(null))
    attempt("no fd", lambda: info(NOBODY - 1))
    attempt("no cgroup", lambda: query(null, "CGROUP_INET_INGRESS"))
    attempt("a map for a cgroup", lambda: query(array, "CGROUP_INET_INGRESS"))
    attempt("no namespace", lambda: query(null, "SK_LOOKUP"))
    attempt("no map", lambda: query(null, "SK_SKB_VERDICT"))
    attempt("no sockmap", lambda: query(array, "SK_SKB_VERDICT"))
    for hook, number in ATTACH.items():
        attempt(f"of {hook}", lambda number=number: call(
            "PROG_QUERY", target_fd=NOBODY, attach_type=number))  # fmt: skip
    attempt("a token of a file", lambda: call("TOKEN_CREATE", bpffs_fd=null))
    folder = Path(f"/sys/fs/bpf/refused_{me}")
    folder.mkdir()
    inside = os.open(folder, os.O_RDONLY)
    attempt("a token of a folder", lambda: call("TOKEN_CREATE", bpffs_fd=inside))
    folder.rmdir()


def tokens() -> None:
    """What libbpf 1.5 does of each object that it opens."""
    fs = os.open("/sys/fs/bpf", os.O_RDONLY)
    attempt("token", lambda: call("TOKEN_CREATE", bpffs_fd=fs))
    unshare(CLONE_NEWNS)
    checked("private", libc.mount(b"none", b"/", None, 0x44000, None))  # MS_REC | MS_PRIVATE
    with tempfile.TemporaryDirectory() as folder:
        checked("mount", libc.mount(b"bpf", os.fsencode(folder), b"bpf", 0, None))
        own = os.open(folder, os.O_RDONLY)
        attempt("token of another", lambda: call("TOKEN_CREATE", bpffs_fd=own))
        os.close(own)
        libc.umount2(os.fsencode(folder), 2)  # MNT_DETACH


def admin() -> None:
    """What takes a token in a user namespace, and what does not."""
    for command in ("PROG_GET_NEXT_ID", "BTF_GET_FD_BY_ID", "PROG_GET_FD_BY_ID"):
        attempt(command, lambda command=command: call(command, start_id=1))
    attempt("PROG_LOAD", lambda: load(prog_type=PROG["XDP"]))


GROUPS: dict[str, Callable[[], None]] = {"queries": queries, "tokens": tokens, "admin": admin}


if __name__ == "__main__":
    GROUPS[sys.argv[1]]()
    print(json.dumps(results))
