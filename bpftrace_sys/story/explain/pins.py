"""EPERM, ENOENT, EEXIST, EACCES of BPF_OBJ_PIN and BPF_OBJ_GET: paths of pins."""

from __future__ import annotations

import errno

from bpftrace_sys.story.explain.failure import NONE, Failure
from decoders.uapi import const


def pin_path(failure: Failure) -> list[str]:
    """A pin outside of bpffs, over something, or nowhere."""
    path = failure.text("pathname")
    if not path or failure.number("file_flags") & const.BPF_F_PATH_FD:
        return []
    if failure.errno == errno.EEXIST:
        return [f"{path} exists already"]  # nothing else says EEXIST, and it may be gone by now
    folder = path.rpartition("/")[0] or "/"
    stands = failure.now(f"path {folder}")
    if failure.errno == errno.ENOENT:
        return [f"there is no directory {folder}"] if stands == NONE else []
    kind = failure.now(f"file_system {folder}")
    name = path.rpartition("/")[2]
    if failure.errno == errno.EPERM and kind == "bpf" and "." in name:
        return [f"{name} has a dot, and names on a bpf file system have none (bpf_lookup())"]
    if failure.errno == errno.EPERM and kind not in (None, "bpf"):
        return [f"{folder} is on {kind}; pins live on a bpf file system (mount -t bpf)"]
    return []


def get_path(failure: Failure) -> list[str]:
    """BPF_OBJ_GET of nothing, or of something that is no pin."""
    path = failure.text("pathname")
    if not path or failure.number("file_flags") & const.BPF_F_PATH_FD:
        return []
    stands = failure.now(f"path {path}")
    if failure.errno == errno.ENOENT:
        return [f"nothing is pinned at {path}"] if stands == NONE else []
    if failure.errno == errno.EACCES and stands == "directory":
        return [f"{path} is a directory, not a pin"]
    if failure.errno == errno.EACCES and stands in ("file", "device"):
        kind = failure.now(f"file_system {path}")
        if kind not in (None, "bpf"):
            return [f"{path} is on {kind}, not on a bpf file system: it is no pin"]
    return []
