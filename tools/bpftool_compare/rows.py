# SPDX-License-Identifier: GPL-2.0-only
"""The tools that are run: all of a package that is installed, with what they want as arguments."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

REPO: Final = Path(__file__).resolve().parents[2]
LOADERS: Final = REPO / "tests" / "tracees" / "loaders"


@dataclass(frozen=True)
class Row:
    """One program to trace."""

    name: str
    command: tuple[str, ...]
    options: tuple[str, ...] = ()
    """Of bpfstrace."""


PINS: Final = "mount -t bpf bpf /sys/fs/bpf"
DEVICES: Final = (
    "ip link set lo up; ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up"
)


def shell(*lines: str) -> tuple[str, ...]:
    """Commands in namespaces of their own: lo, a pair of devices, a bpf file system."""
    return ("unshare", "--net", "--mount", "sh", "-c", "; ".join((PINS, DEVICES, *lines)))


def of_package(package: str) -> list[str]:
    """Programs that a Debian package brings."""
    done = subprocess.run(["dpkg", "-L", package], capture_output=True, text=True, check=False)
    return sorted(
        path
        for path in done.stdout.splitlines()
        if "bin/" in path and os.path.isfile(path) and os.access(path, os.X_OK)
    )


MINE: Final = str(os.getpid())
ARGUMENTS: Final[dict[str, tuple[str, ...]]] = {
    # libbpf-tools
    "bashreadline": ("-s", "/bin/bash"),
    "fsdist": ("-t", "ext4"),
    "fsslower": ("-t", "ext4"),
    "funclatency": ("c:malloc",),
    "javagc": (MINE,),
    "ksnoop": ("trace", "ip_send_skb"),
    # BCC
    "argdist-bpfcc": ("-C", "t:syscalls:sys_enter_openat():int:args->flags"),
    "cobjnew-bpfcc": (MINE,),
    "dbslower-bpfcc": ("mysql",),
    "dbstat-bpfcc": ("mysql",),
    "deadlock-bpfcc": (MINE,),
    "funccount-bpfcc": ("c:mall*",),
    "funcinterval-bpfcc": ("c:malloc",),
    "funclatency-bpfcc": ("c:malloc",),
    "funcslower-bpfcc": ("c:malloc",),
    "inject-bpfcc": ("kmalloc", "mount()"),
    "memleak-bpfcc": ("-p", MINE),
    "netqtop-bpfcc": ("-n", "lo"),
    "nodegc-bpfcc": (MINE,),
    "mysqld_qslower-bpfcc": (MINE,),
    "profile-bpfcc": ("-F", "49", "30"),
    "stackcount-bpfcc": ("c:malloc",),
    "tplist-bpfcc": ("-l", "c"),
    "trace-bpfcc": ("c:malloc \"%d\", arg1", "t:syscalls:sys_enter_openat"),
    "ttysnoop-bpfcc": ("/dev/null",),
    "threadsnoop-bpfcc": (),
    "uthreads": (MINE,), "ucalls": ("-l", "python", MINE), "uflow": ("-l", "python", MINE),
    "ugc": ("-l", "python", MINE), "uobjnew": ("-l", "c", MINE), "ustat": ("-l", "python"),
    **{
        f"{language}{what}-bpfcc": (MINE,)
        for language in ("java", "perl", "php", "python", "ruby", "tcl", "node")
        for what in ("calls", "flow", "gc", "objnew", "stat", "threads")
    },
    # bpftrace
    "bashreadline.bt": (),
}  # fmt: skip
LEFT_OUT: Final = {
    "reset-trace-bpfcc": "undoes what others traced",
}
ONE_LINERS: Final = {
    "tracepoint": "tracepoint:syscalls:sys_enter_openat { @[comm] = count(); }",
    "tracepoints": "tracepoint:sched:sched_* { @[probe] = count(); }",
    "rawtracepoint": "rawtracepoint:sched_switch { @ = count(); }",
    "profile": "profile:hz:99 { @[kstack] = count(); }",
    "interval": "interval:s:1 { printf(\"x\\n\"); }",
    "uprobe": "uprobe:/lib/x86_64-linux-gnu/libc.so.6:malloc { @ = hist(arg0); }",
    "uretprobe": "uretprobe:/lib/x86_64-linux-gnu/libc.so.6:malloc { @ = count(); }",
    "software": "software:page-faults:100 { @[comm] = count(); }",
    "hardware": "hardware:cache-misses:1000000 { @[comm] = count(); }",
    "watchpoint": "watchpoint:0x10000000:8:rw { @ = count(); }",
    "begin": "BEGIN { printf(\"hello\\n\"); } END { printf(\"bye\\n\"); }",
    "kprobe": "kprobe:do_nanosleep { @ = count(); }",
    "kfunc": "kfunc:vfs_read { @ = count(); }",
    "iter": "iter:task { printf(\"%d\\n\", ctx->task->pid); }",
    "usdt": "usdt:/usr/bin/python3.11:* { @ = count(); }",
    "stack": "tracepoint:syscalls:sys_enter_nanosleep { @[ustack] = count(); }",
    "system": "interval:s:1 { system(\"true\"); }",
    "signal": "tracepoint:syscalls:sys_enter_chroot { signal(9); }",
}
OBJECT: Final = f"/usr/lib/{os.uname().machine}-linux-gnu/bpf/xdpfilt_alw_all.o"
NETLINK: Final = ("-e", "trace=bpf,perf_event_open,ioctl,setsockopt,netlink")
HOLD: Final = "sleep 4"
XDP: Final = {
    "loader": (f"xdp-loader load v0 {OBJECT}", "xdp-loader status", HOLD),
    "loader-skb": (f"xdp-loader load -m skb v0 {OBJECT}", HOLD, "xdp-loader unload v0 --all"),
    "loader-lo": (f"xdp-loader load lo {OBJECT}", HOLD),
    "filter": ("xdp-filter load -m skb v0", "xdp-filter status", HOLD, "xdp-filter unload v0"),
    "dump": ("xdp-filter load -m skb v0", "timeout 6 xdpdump -i v0"),
    "bench": ("timeout -s INT 5 xdp-bench drop v0 -m skb",),
    "monitor": ("timeout -s INT 5 xdp-monitor",),
    "ip": (f"ip link set dev v0 xdp obj {OBJECT} sec xdp", HOLD),
    "ip-generic": (f"ip link set dev lo xdpgeneric obj {OBJECT} sec xdp", HOLD,
                   "ip link set dev lo xdpgeneric off"),
    "ip-twice": (f"ip link set dev lo xdpgeneric obj {OBJECT} sec xdp",
                 f"ip link set dev lo xdpgeneric obj {OBJECT} sec xdp", HOLD),
    "ip-drv-on-lo": (f"ip link set dev lo xdpdrv obj {OBJECT} sec xdp", HOLD),
}  # fmt: skip
BPFTOOL: Final = {
    "prog": "prog show", "map": "map show", "link": "link show", "btf": "btf show",
    "perf": "perf show", "net": "net show", "cgroup": "cgroup tree",
    "struct_ops": "struct_ops show", "feature": "feature probe kernel",
    "prog-load": f"prog load {OBJECT} /sys/fs/bpf/p",
    "prog-loadall": f"prog loadall {OBJECT} /sys/fs/bpf/all pinmaps /sys/fs/bpf/maps",
    "prog-tag": "prog show tag 0000000000000000",
    "map-create": "map create /sys/fs/bpf/m type hash key 4 value 8 entries 16 name made",
}  # fmt: skip

GO_SOURCE: Final = REPO / "fixtures" / "cilium-features" / "main.go"
GOPATH: Final = "/usr/share/gocode"
BUILT_GO: Final = (
    f"cd $(mktemp -d) && GO111MODULE=off GOPATH={GOPATH} GOCACHE=$PWD/cache CGO_ENABLED=0 "
    '"$1" build -o probe "$2" && exec ./probe wait'
)
PERF: Final = {
    "record": "perf record -o /dev/null -e cpu-clock -a sleep 4",
    "trace": "perf trace -o /dev/null sleep 4",
    "stat": "perf stat -a -e page-faults sleep 4",
    "top": "timeout 5 perf top --stdio -e cpu-clock",
}


def rows() -> Iterator[Row]:
    """All that are installed here."""
    for path in of_package("libbpf-tools"):
        name = os.path.basename(path)
        yield Row(f"libbpf/{name}", (path, *ARGUMENTS.get(name, ())))
    for path in of_package("bpfcc-tools"):
        name = os.path.basename(path)
        if name not in LEFT_OUT:
            yield Row(f"bcc/{name}", (path, *ARGUMENTS.get(name, ())))
    if shutil.which("bpftrace"):
        for path in sorted(glob.glob("/usr/sbin/*.bt")):
            yield Row(f"bpftrace/{os.path.basename(path)}", ("bpftrace", path))
        for name, text in ONE_LINERS.items():
            yield Row(f"one-liner/{name}", ("bpftrace", "-e", text))
    if shutil.which("xdp-loader"):
        for name, lines in XDP.items():
            yield Row(f"xdp/{name}", shell(*lines))
            yield Row(f"xdp-netlink/{name}", shell(*lines), NETLINK)
    if shutil.which("bpftool"):
        for name, words in BPFTOOL.items():
            yield Row(f"bpftool/{name}", shell(f"bpftool {words}", HOLD))
        attach = shell(
            f"bpftool prog load {OBJECT} /sys/fs/bpf/x",
            "bpftool net attach xdpgeneric pinned /sys/fs/bpf/x dev v0", HOLD,
            "bpftool net detach xdpgeneric dev v0",
        )  # fmt: skip
        yield Row("bpftool/net-attach", attach)
        yield Row("bpftool-netlink/net-attach", attach, NETLINK)
    if shutil.which("perf"):
        for name, words in PERF.items():
            yield Row(f"perf/{name}", tuple(words.split()))
    go = next(iter(glob.glob("/usr/lib/go-*/bin/go")), None) or shutil.which("go")
    if go and os.path.isdir(f"{GOPATH}/src/github.com/cilium/ebpf"):
        yield Row("go/cilium", ("sh", "-c", BUILT_GO, "sh", go, str(GO_SOURCE)))
    for loader in sorted(LOADERS.glob("[a-z]*.py")):
        command = (sys.executable, str(loader), "--wait", "/no/such/file")
        yield Row(f"loaders/{loader.stem}", command)
