"""Paths that belong to BPF's story."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from typing import Final

LIMIT: Final = 4096
PREFIXES: Final = (
    b"/sys/bus/event_source/",
    b"/sys/devices/",
    b"/sys/kernel/tracing",
    b"/sys/kernel/debug/",
    b"/sys/kernel/btf",
    b"/sys/fs/bpf",
    b"/sys/fs/cgroup",
    b"/proc/kallsyms",
    b"/proc/sys/kernel/perf_",
    b"/proc/sys/kernel/unprivileged_bpf",
    b"/proc/sys/kernel/kptr_",
    b"/proc/sys/net/core/bpf_",
    b"/boot/vmlinux",
    b"/usr/lib/debug/",
    b"/lib/modules/",
)
"""Of these alone some paths are none of BPF's: see _UNLESS."""
BEGIN: Final = max(map(len, PREFIXES))
"""Bytes of a path that tell whether it has one of them."""
_UNLESS: Final = {
    b"/sys/devices/": rb"/sys/devices/[^/]+/type$",
    b"/usr/lib/debug/": rb"/usr/lib/debug/.*vmlinux",
    b"/lib/modules/": rb"/lib/modules/[^/]+/(?:build/)?vmlinux",
    # Folders are attached to; what a controller says of them (Go's runtime reads cpu.max) is not
    # BPF's.
    b"/sys/fs/cgroup": rb"(?!.*/(?:cpu|cpuacct|cpuset|memory|io|blkio|pids|hugetlb|rdma|misc)\."
    rb"(?!slice$|service$|scope$)[\w.]+$)",
}
_DEFINING: Final = (
    rb"/sys/kernel/(?:debug/)?tracing/(?:kprobe|uprobe|dynamic|synthetic)_events(?:\0|$)"
)
_compiled: dict[bytes, re.Pattern[bytes]] = {}


def interesting(path: bytes) -> bool:
    """Whether opening this file belongs to BPF's story."""
    if not path.startswith(PREFIXES):
        return False
    for prefix, pattern in _UNLESS.items():
        if path.startswith(prefix):
            return _match(pattern, path)
    return True


def defining(path: bytes) -> bool:
    """Whether this is a file of tracefs that defines probes by what is written to it.
    ``path`` may be the beginning of a longer piece of memory, after its NUL."""
    return path.startswith(b"/sys/kernel/") and _match(_DEFINING, path)


def _match(pattern: bytes, path: bytes) -> bool:
    compiled = _compiled.get(pattern)
    if compiled is None:
        # Most programs open nothing that needs a closer look, and never import this.
        import re

        compiled = _compiled[pattern] = re.compile(pattern)
    return compiled.match(path) is not None
