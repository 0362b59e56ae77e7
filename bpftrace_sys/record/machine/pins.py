"""Pinned objects: a walk over the BPF file systems that processes have mounted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from bpftrace_sys.record.machine.holders import pinned
from bpftrace_sys.record.machine.mounts import mounts

PINS: Final = 1 << 17
"""Files that are looked at."""
OURS: Final = frozenset({"maps.debug", "progs.debug"})
"""Files that the kernel makes in the root (bpf_populate_inode_relationships: iterators)."""


@dataclass(slots=True)
class Pins:
    """What was found, and what could not be looked at."""

    by_object: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    denied: list[str] = field(default_factory=list)
    """Paths of folders and files that we may not read."""
    unread: int = 0
    """Mount namespaces that we may not look into."""
    cut: bool = False


def pins(namespaces: dict[int, int]) -> Pins:
    """Looks at each BPF file system once; ``namespaces``: mount namespace -> a process in it."""
    found = Pins()
    seen: set[str] = set()
    own = os.stat("/proc/self/ns/mnt").st_ino
    places = [(None, "")] + [
        (pid, f"/proc/{pid}/root") for inode, pid in namespaces.items() if inode != own
    ]
    left = PINS
    for pid, prefix in places:
        try:
            bpf = [mount for mount in mounts(pid) if mount.kind == "bpf"]
        except OSError:
            found.unread += 1
            continue
        # The whole of it before parts that are mounted elsewhere, and short paths first.
        for mount in sorted(bpf, key=lambda mount: (mount.root != "/", len(mount.path))):
            if mount.device in seen:
                continue
            if mount.root == "/":
                seen.add(mount.device)
            for path in _files(prefix + mount.path, found):
                left -= 1
                if left < 0:
                    found.cut = True
                    return found
                _pin(path, found)
    return found


def _pin(path: str, found: Pins) -> None:
    what = pinned(path)
    if what is not None:
        paths = found.by_object.setdefault(what, [])
        if path not in paths:
            paths.append(path)
    elif os.path.basename(path) not in OURS and os.path.lexists(path):
        found.denied.append(path)


def _files(top: str, found: Pins) -> Iterator[str]:
    folders = [top]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            if os.path.lexists(folder):
                found.denied.append(folder)
            continue
        for entry in inside:
            if entry.is_symlink():
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            else:
                yield entry.path
