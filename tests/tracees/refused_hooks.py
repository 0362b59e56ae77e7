"""A program that is refused where it asks, attaches, detaches. Like refusals.py, with its frame.

    python3 tests/tracees/refused_hooks.py GROUP
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
import struct
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
    LO,
    PERF_EVENT_IOC_SET_BPF,
    PROG,
    Kit,
    buffer,
    call,
    checked,
    libc,
    own_cgroup,
    own_net,
    perf_event,
    pmu,
    returning,
    rtnetlink,
    tracefs,
    u64s,
    unshare,
    veth,
)

NOBODY = 0xFFFFFFFF
MULTI, REPLACE, BEFORE, AFTER = 1 << 1, 1 << 2, 1 << 3, 1 << 4
SKB, DRV, HW = 1 << 1, 1 << 2, 1 << 3
MOST = 64
"""Programs that a cgroup takes of a kind."""


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


def _load(kind: str, name: str, attach: str = "UNSPEC", result: int = 0) -> int:
    return int(load(
        prog_type=PROG[kind], prog_name=name.encode(), insns=returning(result),
        expected_attach_type=ATTACH.get(attach, 0),
    ).ret)  # fmt: skip


def cgroups() -> None:
    """What cgroups have attached, here and above."""
    kit = Kit()
    with kit.at_end:
        up, folder = own_cgroup(kit, "refused")
        (folder / "below").mkdir()
        down = os.open(folder / "below", os.O_RDONLY)
        hook = ATTACH["CGROUP_INET_INGRESS"]
        first, second, third = (
            _load("CGROUP_SKB", name, result=1) for name in ("first", "second", "third")
        )

        def attach(cgroup: int, prog: int, flags: int = 0, **more: int) -> Any:
            return call("PROG_ATTACH", target_fd=cgroup, attach_bpf_fd=prog, attach_type=hook,
                        attach_flags=flags, **more)  # fmt: skip

        def detach(cgroup: int, prog: int) -> Any:
            return call("PROG_DETACH", target_fd=cgroup, attach_bpf_fd=prog, attach_type=hook)

        def link(cgroup: int, prog: int) -> Any:
            return call("LINK_CREATE", prog_fd=prog, target_fd=cgroup, attach_type=hook)

        attempt("nothing to detach", lambda: detach(up, first))
        attach(up, first)
        attempt("below one alone", lambda: attach(down, second))
        attempt("a link below one alone", lambda: link(down, second))
        attempt("a link beside one alone", lambda: link(up, second))
        attempt("several beside one alone", lambda: attach(up, second, MULTI))
        detach(up, first)
        attach(up, first, MULTI)
        attempt("one alone beside several", lambda: attach(up, second))
        attempt("not the one attached", lambda: detach(up, second))
        attempt("no one to replace", lambda: attach(
            up, second, MULTI | REPLACE, replace_bpf_fd=third))  # fmt: skip
        held = link(up, third).ret
        attempt("not the one of the link", lambda: call(
            "LINK_UPDATE", link_fd=held, new_prog_fd=second, old_prog_fd=first,
            flags=REPLACE))  # fmt: skip
        attempt("an old one for nothing", lambda: call(
            "LINK_UPDATE", link_fd=held, new_prog_fd=second, old_prog_fd=third))  # fmt: skip
        xdp = _load("XDP", "other")
        attempt("another type", lambda: call("LINK_UPDATE", link_fd=held, new_prog_fd=xdp))
        for name in ("memory", "unified"):  # of both versions, or of one
            path = Path("/sys/fs/cgroup") / name / "cgroup.procs"
            if name == "memory" and path.exists():
                old = os.open(path.parent, os.O_RDONLY)
                attempt("version 1", lambda old=old: attach(old, second, MULTI))
        (folder / "below").rmdir()
        attempt("removed", lambda: attach(down, second, MULTI))
        attempt("a link to what is removed", lambda: link(down, second))
        attempt("a question of what is removed", lambda: call(
            "PROG_QUERY", target_fd=down, attach_type=hook))  # fmt: skip
        for number in range(MOST):
            one = _load("CGROUP_SKB", f"one{number}", result=1)
            if number < MOST - 2:
                attach(up, one, MULTI)
        attempt("one too many", lambda: attach(up, one, MULTI))


def devices() -> None:
    """What devices and namespaces have attached."""
    own_net()
    veth("refused0", "refused1")
    ingress = ATTACH["TCX_INGRESS"]
    first, second, third = (_load("SCHED_CLS", name) for name in ("first", "second", "third"))

    def tcx(prog: int, flags: int = 0, **more: int) -> Any:
        return call("PROG_ATTACH", target_fd=LO, attach_bpf_fd=prog, attach_type=ingress,
                    attach_flags=flags, **more)  # fmt: skip

    def tcx_link(prog: int, flags: int = 0, **more: int) -> Any:
        return call("LINK_CREATE", "relative", prog_fd=prog, target_fd=LO, attach_type=ingress,
                    flags=flags, **more)  # fmt: skip

    tcx(first)
    attempt("twice", lambda: tcx(first))
    attempt("twice by a link", lambda: tcx_link(first))
    attempt("stale", lambda: tcx(second, expected_revision=77))
    attempt("a stale link", lambda: tcx_link(second, expected_revision=77))
    attempt("before nobody", lambda: tcx(second, BEFORE, relative_fd=third))
    attempt("a link after nobody", lambda: tcx_link(second, AFTER, relative_fd=third))
    attempt("nobody to replace", lambda: tcx(second, REPLACE, replace_bpf_fd=third))
    attempt("nobody to detach", lambda: call(
        "PROG_DETACH", target_fd=LO, attach_bpf_fd=second, attach_type=ingress))  # fmt: skip
    held = tcx_link(second).ret
    attempt("of a link", lambda: call(
        "PROG_DETACH", target_fd=LO, attach_bpf_fd=second, attach_type=ingress))  # fmt: skip
    attempt("two places", lambda: tcx(third, BEFORE | AFTER, relative_fd=first))
    attempt("not the one of a tcx link", lambda: call(
        "LINK_UPDATE", link_fd=held, new_prog_fd=third, old_prog_fd=first,
        flags=REPLACE))  # fmt: skip
    index = socket.if_nametoindex("refused0")
    one, two = _load("XDP", "one", result=2), _load("XDP", "two", result=2)

    def xdp(prog: int, mode: int, device: int = index) -> Any:
        return call("LINK_CREATE", prog_fd=prog, target_fd=device, attach_type=ATTACH["XDP"],
                    flags=mode)  # fmt: skip

    link = xdp(one, SKB).ret
    attempt("generic again", lambda: xdp(two, SKB))
    attempt("native beside generic", lambda: xdp(two, DRV))
    attempt("native without a driver", lambda: xdp(two, DRV, LO))
    attempt("for a map", lambda: xdp(_load("XDP", "devmap", "XDP_DEVMAP", 2), SKB, LO))
    attempt("a tc program for XDP", lambda: call(
        "LINK_UPDATE", link_fd=link, new_prog_fd=first))  # fmt: skip
    hook = {"pf": 2, "hooknum": 1, "priority": -10}
    accept = _load("NETFILTER", "accept", "NETFILTER", 1)

    def filtered() -> Any:
        return call("LINK_CREATE", "netfilter", prog_fd=accept, attach_type=ATTACH["NETFILTER"],
                    **hook)  # fmt: skip

    kept = filtered().ret
    attempt("the same priority", filtered)
    attempt("no update", lambda: call("LINK_UPDATE", link_fd=kept, new_prog_fd=accept))
    raw = _load("RAW_TRACEPOINT", "raw")
    traced = call("RAW_TRACEPOINT_OPEN", name=b"sys_enter\0", prog_fd=raw).ret
    attempt("no end", lambda: call("LINK_DETACH", link_fd=traced))
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
    dissector = _load("FLOW_DISSECTOR", "dissector")

    def dissect() -> Any:
        return call("LINK_CREATE", prog_fd=dissector, target_fd=namespace,
                    attach_type=ATTACH["FLOW_DISSECTOR"])  # fmt: skip

    only = dissect().ret
    attempt("a second dissector", dissect)
    attempt("one without a link", lambda: call(
        "PROG_ATTACH", attach_bpf_fd=dissector, attach_type=ATTACH["FLOW_DISSECTOR"]))  # fmt: skip
    os.close(only)
    call("PROG_ATTACH", attach_bpf_fd=dissector, attach_type=ATTACH["FLOW_DISSECTOR"])
    attempt("a link beside one without", dissect)
    looks = _load("SK_LOOKUP", "looks", "SK_LOOKUP", 1)

    def look() -> Any:
        return call("LINK_CREATE", prog_fd=looks, target_fd=namespace,
                    attach_type=ATTACH["SK_LOOKUP"])  # fmt: skip

    for _ in range(MOST):
        look()
    attempt("one more than a namespace takes", look)
    attempt("offload", lambda: xdp(two, HW, LO))
    for _ in range(MOST - 3):  # beside first and second: a hook takes one less
        tcx(_load("SCHED_CLS", "more"))
    attempt("one more than a hook takes", lambda: tcx(third))
    dead = xdp(_load("XDP", "gone", result=2), SKB, socket.if_nametoindex("refused1")).ret
    rtnetlink(17, 5, struct.pack("<BxHiII", 0, 0, index, 0, 0))  # RTM_DELLINK, with its peer
    attempt("of a device that is gone", lambda: call(
        "LINK_UPDATE", link_fd=dead, new_prog_fd=two))  # fmt: skip


def uprobes() -> None:
    """Places of a file that cannot be probed; and one that can, and never is reached."""
    path = os.fsencode(sys.executable)
    end = os.path.getsize(path)
    kind = ATTACH["TRACE_UPROBE_MULTI"]
    prog = load(prog_type=PROG["KPROBE"], expected_attach_type=kind, prog_name=b"multi").ret

    def event(path: bytes, offset: int, counter: int = 0) -> int:
        return perf_event(pmu("uprobe"), counter << 32, text=path, config2=offset, pid=0)

    def link(path: bytes, *offsets: int, **more: Any) -> Any:
        fields = {"cnt": len(offsets), "path": path + b"\0", "offsets": u64s(*offsets), **more}
        return call("LINK_CREATE", "uprobe_multi", prog_fd=prog, attach_type=kind, **fields)

    attempt("past the end", lambda: event(path, end + 1))
    attempt("a folder", lambda: event(b"/usr", 0x40))
    attempt("a device", lambda: event(b"/dev/null", 0x40))
    attempt("no pages", lambda: event(b"/proc/version", 0))
    attempt("an odd counter", lambda: event(path, 0x1000, 0x201))
    one = event(path, 0x1000, 0x100)
    attempt("another counter", lambda: event(path, 0x1000, 0x200))
    attempt("another counter of a link", lambda: link(
        path, 0x1000, ref_ctr_offsets=u64s(0x300)))  # fmt: skip
    os.close(one)
    attempt("a link past the end", lambda: link(path, 0x1000, end + 1))
    attempt("a link to a folder", lambda: link(b"/usr", 0x40))
    attempt("a link to no place", lambda: link(path, 0x1000, cnt=0))
    attempt("a link to a million places", lambda: link(path, 0x1000, cnt=(1 << 20) + 1))
    attempt("a negative place", lambda: link(path, 1 << 63))
    attempt("flags of a link", lambda: link(path, 0x1000, multi_flags=8))
    found = link(path, 0x10)
    plain = load(prog_type=PROG["KPROBE"], prog_name=b"plain").ret
    header = event(path, 0x10)
    fcntl.ioctl(header, PERF_EVENT_IOC_SET_BPF, plain)
    os.close(found.ret)


def filtered() -> None:
    """A seccomp filter of our own, as containers have: no bpf(2), but for making maps."""
    numbers = {"x86_64": (321, 0xC000003E), "aarch64": (280, 0xC00000B7)}
    number, arch = numbers[os.uname().machine]
    rows = [
        (0x20, 0, 0, 4),  # ld [4]: arch
        (0x15, 0, 9, arch),
        (0x20, 0, 0, 0),  # ld [0]: nr
        (0x15, 0, 7, number),
        (0x20, 0, 0, 16),  # ld [16]: the first argument
        (0x15, 5, 0, 0),  # BPF_MAP_CREATE
        (0x15, 2, 0, 11),  # BPF_PROG_GET_NEXT_ID
        (0x15, 2, 0, 12),  # BPF_MAP_GET_NEXT_ID
        (0x06, 0, 0, 0x00050000 | 1),  # SECCOMP_RET_ERRNO, EPERM
        (0x06, 0, 0, 0x00050000 | 13),  # EACCES
        (0x06, 0, 0, 0x00050000 | 38),  # ENOSYS
        (0x06, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
    ]
    program = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *row) for row in rows))
    header = struct.pack("<HxxxxxxQ", len(rows), ctypes.addressof(program))
    checked("no_new_privs", libc.prctl(38, 1, 0, 0, 0))
    checked("seccomp", libc.prctl(22, 2, ctypes.c_char_p(header), 0, 0))
    attempt("load", load)
    attempt("map", lambda: make("ARRAY", 4, 8, 2))
    attempt("kernel", lambda: call("MAP_UPDATE_ELEM", map_fd=NOBODY, key=1, value=1))
    attempt("no access", lambda: call("PROG_GET_NEXT_ID"))
    attempt("no such call", lambda: call("MAP_GET_NEXT_ID"))


def probe_files() -> None:
    """Lines that tracefs does not take."""
    file = os.open(tracefs() / "uprobe_events", os.O_WRONLY | os.O_APPEND)
    mine = f"refused{os.getpid()}"

    def write(text: str) -> Callable[[], int]:
        return lambda: os.write(file, text.encode()) and 0

    attempt("a long name", write(f"p:uprobes/{'x' * 70} /bin/true:0x2000\n"))
    attempt("no such file", write(f"p:uprobes/{mine} /no/such/file:0x2000\n"))
    attempt("a folder in a line", write(f"p:uprobes/{mine} /usr:0x2000\n"))
    attempt("no such register", write(f"p:uprobes/{mine} /bin/true:0x2000 a=%zz\n"))
    attempt("a function for an offset", write(f"p:uprobes/{mine} /bin/true:main\n"))
    attempt("no such event", write("-:uprobes/no_such_event\n"))
    attempt("the second line", write(f"p:uprobes/{mine} /bin/true:0x2000\np:bad /bin/true\n"))
    os.write(file, f"-:uprobes/{mine}\n".encode())


GROUPS: dict[str, Callable[[], None]] = {
    "queries": queries,
    "tokens": tokens,
    "admin": admin,
    "cgroups": cgroups,
    "devices": devices,
    "uprobes": uprobes,
    "filtered": filtered,
    "probe_files": probe_files,
}


if __name__ == "__main__":
    GROUPS[sys.argv[1]]()
    print(json.dumps(results))
