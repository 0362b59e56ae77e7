"""Pinned objects: a walk over the BPF file systems that processes have mounted."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Final

from bpftrace_sys.record.files.mounts import mounts
from bpftrace_sys.record.files.walk import Place, beside, walk
from bpftrace_sys.record.machine.holders import pinned
from decoders.records import dataclass, field

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
    behind: list[str] = field(default_factory=list)
    """Paths that lead over file systems that would have to ask others, and may never answer."""
    unread: int = 0
    """Mount namespaces that we may not look into."""
    cut: bool = False


def pins(namespaces: dict[int, int]) -> Pins:
    """Looks at each BPF file system once; ``namespaces``: mount namespace -> a process in it."""
    found = Pins()
    seen: set[str] = set()
    own = os.stat("/proc/self/ns/mnt").st_ino
    others = [pid for inode, pid in namespaces.items() if inode != own]
    left = PINS
    for pid in (os.getpid(), *others):
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
            prefix = f"/proc/{pid}/root" if pid in others else ""
            for path, link in _files(pid, prefix, mount.path, found):
                left -= 1
                if left < 0:
                    found.cut = True
                    return found
                _pin(path, link, found)
    return found


def _pin(path: str, link: str, found: Pins) -> None:
    what = pinned(link)
    if what is not None:
        paths = found.by_object.setdefault(what, [])
        if path not in paths:
            paths.append(path)
    elif os.path.basename(path) not in OURS:
        found.denied.append(path)


def _files(pid: int, prefix: str, top: str, found: Pins) -> Iterator[tuple[str, str]]:
    """What is in a BPF file system of a process's: paths, each with one by which it is found
    without a look at what else is mounted on the way, which may ask who never answers."""
    root = f"/proc/{pid}/root"
    folders = [top]
    while folders:
        folder = folders.pop()
        try:
            with walk(pid, root, root, folder) as place:
                if not place.answers:
                    found.behind.append(prefix + folder)
                if place.kind != "bpf":
                    continue  # or something else is mounted over it
                for name, inner in _inside(place):
                    path = f"{folder.rstrip('/')}/{os.fsdecode(name)}"
                    if inner:
                        folders.append(path)
                        continue
                    with contextlib.suppress(FileNotFoundError), beside(place, name) as file:
                        yield prefix + path, file.link
        except FileNotFoundError:
            continue
        except OSError:
            found.denied.append(prefix + folder)


def _inside(folder: Place) -> list[tuple[bytes, bool]]:
    """Names in a folder, and whether those are folders; raises OSError."""
    with os.scandir(folder.link) as entries:
        return sorted(
            (os.fsencode(entry.name), entry.is_dir(follow_symlinks=False))
            for entry in entries
            if not entry.is_symlink()
        )
