"""Why a call was refused: one row per command and errno, evidence only.

A row looks at the decoded call, at what the model knows, and at facts of the
machine of the trace (evidence.py); it says why only where that proves it.  What
the kernel checks is from kernel/bpf/syscall.c, kernel/bpf/verifier.c, the map
types' map_alloc_check() and kernel/events/core.c of Linux 6.18; docs/refusals.md
lists the rows.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bpftrace_sys.facts import Facts
from bpftrace_sys.model import Model, Object, text_of
from bpftrace_sys.phrases import errno_name
from decoders.call import Call, plain
from decoders.raw import ENTRY, FdFact
from decoders.uapi import const, layouts, names
from decoders.values import (
    UNREADABLE,
    Absent,
    Array,
    Bytes,
    Changed,
    Fd,
    Flags,
    Insns,
    Int,
    Name,
    Pointer,
    Struct,
    Text,
    Value,
)

if TYPE_CHECKING:
    from bpftrace_sys.listing import Listing

ENOTSUPP: Final = 524
PAGE: Final = 4096
NONE: Final = "-"
ANY: Final = "*"
CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF = 12, 21, 38, 39
CAPS: Final = {
    CAP_NET_ADMIN: "CAP_NET_ADMIN",
    CAP_SYS_ADMIN: "CAP_SYS_ADMIN",
    CAP_PERFMON: "CAP_PERFMON",
    CAP_BPF: "CAP_BPF",
}


class Failure:
    """A failed call with what may explain it; what a row gets."""

    def __init__(self, call: Call, model: Model, facts: Facts) -> None:
        self.call = call
        self.model = model
        self.facts = facts
        self.errno = -(call.raw.ret or 0)
        self.command = call.command.removesuffix("|BPF_COMMON_ATTRS")

    def number(self, *path: str) -> int:
        """A field below attr, 0 where it is not there."""
        return self.call.number("attr", *path) or 0

    def text(self, *path: str) -> str:
        """A string below attr."""
        return text_of(self.call.attr("attr", *path))

    def name(self, *path: str) -> str:
        """The name of an enum's value below attr; empty where no table has it."""
        return getattr(plain(self.call.attr("attr", *path)), "name", None) or ""

    def fact(self, question: str, key: int = 0) -> str | None:
        """What the machine of the trace answers; ``key`` is 0 for what does not change."""
        return self.facts.fact(f"why {question}", key)

    def now(self, question: str) -> str | None:
        """The same for what may change from call to call."""
        return self.fact(question, self.call.raw.seq)

    def sysctl(self, name: str) -> int | None:
        """A number below /proc/sys, as it was when the call had failed."""
        answer = self.now(f"sysctl {name}") or ""
        number = _decimal(answer.removeprefix("-"))
        return -number if number is not None and answer.startswith("-") else number

    def lacks(self, capability: int) -> bool | None:
        """Whether the caller had a capability not; None if that was not seen."""
        seen = self.call.raw.extra.get("cred")
        if not isinstance(seen, dict) or not isinstance(seen.get("eff"), str):
            return None
        try:
            return not int(seen["eff"], 16) >> capability & 1
        except ValueError:
            return None

    @property
    def foreign(self) -> bool:
        """Whether the caller was in a user namespace of its own."""
        seen = self.call.raw.extra.get("cred")
        return isinstance(seen, dict) and "userns" in seen

    @property
    def attr(self) -> bytes:
        """The bytes of the attr, as passed."""
        index = 0 if self.call.syscall.name == "perf_event_open" else 1
        addr = self.call.raw.args[index]
        pieces = [
            chunk.data
            for chunk in self.call.raw.chunks
            if chunk.stage == ENTRY and chunk.addr == addr
        ]
        return max(pieces, key=len, default=b"")


Row = Callable[[Failure], "list[str]"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _decimal(text: str | None) -> int | None:
    """A number in a fact; a trace file may hold anything."""
    return int(text) if text is not None and len(text) < 20 and text.isdecimal() else None


def _and(words: Sequence[str]) -> str:
    return " and ".join(words) if len(words) < 3 else f"{', '.join(words[:-1])} and {words[-1]}"


# ---------------------------------------------------------------- EPERM

NET_ADMIN_PROGS: Final = _words(
    """SCHED_CLS SCHED_ACT XDP LWT_IN LWT_OUT LWT_XMIT LWT_SEG6LOCAL SK_SKB SK_MSG FLOW_DISSECTOR
    CGROUP_DEVICE CGROUP_SOCK CGROUP_SOCK_ADDR CGROUP_SOCKOPT CGROUP_SYSCTL SOCK_OPS EXT
    NETFILTER"""
)
"""is_net_admin_prog_type()"""
PERFMON_PROGS: Final = _words(
    """KPROBE TRACEPOINT PERF_EVENT RAW_TRACEPOINT RAW_TRACEPOINT_WRITABLE TRACING LSM STRUCT_OPS
    EXT"""
)
"""is_perfmon_prog_type()"""
UNPRIVILEGED_PROGS: Final = frozenset({"SOCKET_FILTER", "CGROUP_SKB"})
UNPRIVILEGED_MAPS: Final = _words(
    """ARRAY PERCPU_ARRAY PROG_ARRAY PERF_EVENT_ARRAY CGROUP_ARRAY ARRAY_OF_MAPS HASH PERCPU_HASH
    HASH_OF_MAPS RINGBUF USER_RINGBUF CGROUP_STORAGE PERCPU_CGROUP_STORAGE"""
)
"""Map types that map_create() lets everybody make."""
NET_ADMIN_MAPS: Final = _words("SOCKMAP SOCKHASH DEVMAP DEVMAP_HASH XSKMAP")

ADMIN_COMMANDS: Final = frozenset(
    {
        "BPF_PROG_GET_NEXT_ID",
        "BPF_MAP_GET_NEXT_ID",
        "BPF_BTF_GET_NEXT_ID",
        "BPF_LINK_GET_NEXT_ID",
        "BPF_PROG_GET_FD_BY_ID",
        "BPF_MAP_GET_FD_BY_ID",
        "BPF_BTF_GET_FD_BY_ID",
        "BPF_LINK_GET_FD_BY_ID",
        "BPF_TASK_FD_QUERY",
        "BPF_ENABLE_STATS",
    }
)
"""Commands that ask for CAP_SYS_ADMIN and nothing less."""

UNPRIVILEGED_BPF: Final = "kernel/unprivileged_bpf_disabled"


def _kind(failure: Failure, field: str, prefix: str) -> str:
    return failure.name(field).removeprefix(prefix)


def _needs(failure: Failure, what: str, needed: list[int], always: bool = True) -> list[str]:
    """Which of the needed capabilities the caller lacks, if that is so."""
    if failure.number("prog_flags") & const.BPF_F_TOKEN_FD or failure.number(
        "map_flags"
    ) & const.BPF_F_TOKEN_FD:
        return []
    last = _decimal(failure.fact("sysctl kernel/cap_last_cap"))
    if last is not None and last < CAP_BPF:
        needed = [CAP_SYS_ADMIN]  # before Linux 5.8
    if failure.foreign:
        return [
            f"{what} needs {_and([CAPS[cap] for cap in needed])} in the first user namespace "
            "(or a BPF token); the caller is in another"
        ]
    lacking = [cap for cap in needed if failure.lacks(cap)]
    admin = failure.lacks(CAP_SYS_ADMIN)
    if not lacking or admin is not True:
        return []
    line = f"{what} needs {_and([CAPS[cap] for cap in needed])}"
    if needed != [CAP_SYS_ADMIN]:
        line += " (or CAP_SYS_ADMIN)"
    if len(needed) == 1:
        return [f"{line}, which the caller lacks"]
    if len(lacking) == len(needed):
        return [f"{line}; the caller has {'neither' if len(needed) == 2 else 'none of them'}"]
    return [f"{line}; the caller lacks {_and([CAPS[cap] for cap in lacking])}"]


def _closed(failure: Failure) -> bool:
    """Whether kernel.unprivileged_bpf_disabled keeps those out who lack CAP_BPF."""
    return bool(failure.sysctl(UNPRIVILEGED_BPF))


def _with_sysctl(lines: list[str]) -> list[str]:
    return [f"{lines[0]}; kernel.unprivileged_bpf_disabled is set", *lines[1:]] if lines else []


def prog_load_eperm(failure: Failure) -> list[str]:
    """Capabilities by program type."""
    kind = _kind(failure, "prog_type", "BPF_PROG_TYPE_")
    if not kind:
        return []
    what = f"{_a(kind.lower())} program"
    needed = []
    if kind not in UNPRIVILEGED_PROGS:
        needed.append(CAP_BPF)
    if kind in NET_ADMIN_PROGS:
        needed.append(CAP_NET_ADMIN)
    if kind in PERFMON_PROGS:
        needed.append(CAP_PERFMON)
    if needed:
        return _needs(failure, what, needed)
    return _with_sysctl(_needs(failure, what, [CAP_BPF])) if _closed(failure) else []


def map_create_eperm(failure: Failure) -> list[str]:
    """Capabilities by map type."""
    kind = _kind(failure, "map_type", "BPF_MAP_TYPE_")
    if not kind:
        return []
    closed = _closed(failure)
    what = f"a map of type {kind.lower()}"
    if kind in UNPRIVILEGED_MAPS:
        return _with_sysctl(_needs(failure, what, [CAP_BPF])) if closed else []
    if kind in NET_ADMIN_MAPS:
        return _needs(failure, what, [CAP_BPF, CAP_NET_ADMIN] if closed else [CAP_NET_ADMIN])
    return _needs(failure, what, [CAP_BPF])


def btf_load_eperm(failure: Failure) -> list[str]:
    """BPF_BTF_LOAD."""
    return _needs(failure, "BPF_BTF_LOAD", [CAP_BPF])


def admin_eperm(failure: Failure) -> list[str]:
    """Commands for CAP_SYS_ADMIN only."""
    if failure.command not in ADMIN_COMMANDS:
        return []
    return _needs(failure, failure.command, [CAP_SYS_ADMIN])


def net_admin_eperm(failure: Failure) -> list[str]:
    """Queries and attachments of cgroups and network devices."""
    return _needs(failure, failure.command, [CAP_NET_ADMIN])


def map_access(failure: Failure) -> list[str]:
    """A frozen map, or one whose fd is for reading or writing only."""
    fact = _map_fact(failure)
    if fact is None:
        return []
    writes = failure.command not in READERS
    if writes and fact.info.get("frozen") == 1:
        return [f"{_said(failure, fact)} is frozen: it can be read only, by system calls"]
    flags = fact.info.get("map_flags")
    if isinstance(flags, int):
        if writes and flags & const.BPF_F_RDONLY:
            return [f"{_said(failure, fact)} was made with BPF_F_RDONLY"]
        if not writes and flags & const.BPF_F_WRONLY:
            return [f"{_said(failure, fact)} was made with BPF_F_WRONLY"]
    found = failure.model.object(fact, failure.call.raw.pid)
    asked = 0
    if found is not None and found.call is not None:
        asked = found.call.number("attr", "map_flags") or 0
    if writes and asked & const.BPF_F_RDONLY:
        return [f"the fd of {_said(failure, fact)} is for reading only: BPF_F_RDONLY"]
    if not writes and asked & const.BPF_F_WRONLY:
        return [f"the fd of {_said(failure, fact)} is for writing only: BPF_F_WRONLY"]
    return []


READERS: Final = frozenset(
    {"BPF_MAP_LOOKUP_ELEM", "BPF_MAP_GET_NEXT_KEY", "BPF_MAP_LOOKUP_BATCH"}
)


def pin_path(failure: Failure) -> list[str]:
    """A pin outside of bpffs, over something, or nowhere."""
    path = failure.text("pathname")
    if not path or failure.number("file_flags") & const.BPF_F_PATH_FD:
        return []
    folder = path.rpartition("/")[0] or "/"
    stands = failure.now(f"path {folder}")
    if failure.errno == errno.ENOENT:
        return [f"there is no directory {folder}"] if stands == NONE else []
    if failure.errno == errno.EEXIST:
        return [f"{path} exists already"] if _there(failure, path) else []
    kind = failure.now(f"file_system {folder}")
    if failure.errno == errno.EPERM and kind not in (None, "bpf"):
        return [f"{folder} is on {kind}; pins live on a bpf file system (mount -t bpf)"]
    return []


def _there(failure: Failure, path: str) -> bool:
    return failure.now(f"path {path}") not in (None, NONE)


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
    if failure.errno == errno.EACCES and stands == "file":
        kind = failure.now(f"file_system {path}")
        if kind not in (None, "bpf"):
            return [f"{path} is on {kind}, not on a bpf file system: it is no pin"]
    return []


# ---------------------------------------------------------------- perf events

PARANOID: Final = "kernel/perf_event_paranoid"


def perf_access(failure: Failure) -> list[str]:
    """kernel.perf_event_paranoid, and what needs CAP_PERFMON whatever it is."""
    lacking = failure.lacks(CAP_PERFMON) and failure.lacks(CAP_SYS_ADMIN)
    if not (lacking or failure.foreign):
        return []
    has_not = "the caller has no CAP_PERFMON (or CAP_SYS_ADMIN)"
    if failure.foreign:
        has_not = "the caller's capabilities are of another user namespace"
    kind = _pmu(failure)
    if failure.errno == errno.EACCES and kind in ("kprobe", "uprobe"):
        return [f"{kind}s need CAP_PERFMON; {has_not}"]
    level = failure.sysctl(PARANOID)
    if level is None:
        return []
    said = f"kernel.perf_event_paranoid is {level} and {has_not}"
    if failure.errno == errno.EPERM and kind == "tracepoint" and level > -1:
        return [f"{said}: no tracepoints of the kernel's"]
    if failure.errno != errno.EACCES:
        return []
    if level > 2:
        return [f"{said}: no perf events at all"]
    call = failure.call
    pid, cpu = call.number("pid"), call.number("cpu")
    if level > 1 and not _bit(failure, "exclude_kernel"):
        return [f"{said}: events must exclude the kernel (exclude_kernel)"]
    if level > 0 and pid == -1 and cpu is not None and cpu >= 0:
        return [f"{said}: no events of a whole CPU"]
    return []


def _bit(failure: Failure, name: str) -> int:
    return failure.number("flags", name) or failure.number(name)


def _pmu(failure: Failure) -> str:
    kind = failure.call.attr("attr", "type")
    if isinstance(kind, Name):
        return (kind.name or "").removeprefix("PERF_TYPE_").lower()
    return (kind.note or "") if isinstance(kind, Int) else ""


def perf_missing(failure: Failure) -> list[str]:
    """ENOENT: no such PMU, function, file or event."""
    kind = _pmu(failure)
    number = failure.number("type")
    if not kind:
        return [f"no PMU of this machine has type {number}"]
    if kind == "kprobe":
        name = failure.text("kprobe_func")
        if name and failure.fact(f"function {name}") == NONE:
            return [f"the kernel has no function {name}"]
        return []
    if kind == "uprobe":
        path = failure.text("uprobe_path")
        if path and failure.now(f"path {path}") == NONE:
            return [f"there is no file {path}"]
        return []
    if kind in ("hardware", "hw_cache", "raw") and "cpu" not in _pmus(failure):
        return ["this machine has no hardware counters: there is no PMU cpu"]
    return []


def _pmus(failure: Failure) -> set[str]:
    return set(getattr(failure.facts, "pmus", {}).values())


def perf_invalid(failure: Failure) -> list[str]:
    """EINVAL from perf_event_open."""
    call = failure.call
    kind = _pmu(failure)
    flags = call.attr("flags")
    if isinstance(flags, Flags) and flags.rest:
        return [f"flags has unknown bits: {flags.rest:#x}"]
    pid, cpu = call.number("pid"), call.number("cpu")
    cgroup = (call.number("flags") or 0) & const.PERF_FLAG_PID_CGROUP
    if pid == -1 and cpu == -1:
        return ["pid and cpu are both -1: an event needs a task or a CPU"]
    if cgroup and cpu == -1:
        return ["an event of a cgroup needs a CPU; cpu is -1"]
    if cpu is not None and cpu >= 0:
        possible = failure.fact("file /sys/devices/system/cpu/possible")
        if possible is not None and cpu not in _cpus(possible):
            return [f"there is no CPU {cpu}: {possible} are possible"]
    if kind == "tracepoint":
        config = failure.number("config")
        if failure.fact("tracepoint_id", config) == NONE:
            return [f"no tracepoint has id {config}"]
    for field in ("sample_type", "read_format", "branch_sample_type"):
        value = call.attr("attr", field)
        if isinstance(value, Flags) and value.rest:
            return [f"{field} has unknown bits: {value.rest:#x}"]
    frequency = failure.number("sample_freq")
    limit = failure.sysctl("kernel/perf_event_max_sample_rate")
    if frequency and limit is not None and frequency > limit:
        return [f"sample_freq {frequency} is above kernel.perf_event_max_sample_rate {limit}"]
    return []


def _cpus(text: str) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        start = _decimal(first)
        end = _decimal(last) if dash else start
        if start is not None and end is not None:
            found.update(range(start, min(end, start + 65535) + 1))
    return found


def perf_nobody(failure: Failure) -> list[str]:
    """ESRCH: no such task; ENODEV: a CPU that is offline."""
    call = failure.call
    if failure.errno == errno.ENODEV:
        cpu = call.number("cpu")
        online = failure.now("file /sys/devices/system/cpu/online")
        if cpu is not None and cpu >= 0 and online is not None and cpu not in _cpus(online):
            return [f"CPU {cpu} is offline: {online} are online"]
        return []
    pid = call.number("pid")
    if pid is not None and pid > 0 and failure.now(f"task {pid}") == NONE:
        return [f"there is no task {pid}"]
    return []


def perf_too_big(failure: Failure) -> list[str]:
    """E2BIG: bytes beyond what the kernel knows of perf_event_attr."""
    data = failure.attr
    size = int.from_bytes(data[4:8], "little") if len(data) >= 8 else 0
    if size and size < 64:
        return [f"attr.size {size} is less than PERF_ATTR_SIZE_VER0 (64)"]
    if size > PAGE:
        return [f"attr.size {size} is more than a page"]
    return _beyond(failure, data, "perf_event_attr", "perf_event_attr")


def set_bpf(failure: Failure) -> list[str]:
    """ioctl PERF_EVENT_IOC_SET_BPF: an event with a program, or one of another kind."""
    call = failure.call
    event = failure.model.object(call.fact("fd"), call.raw.pid)
    prog = failure.model.by_fd(call, "arg")
    fact = call.fact("arg")
    if failure.errno == errno.EINVAL and fact is not None and fact.kind != "prog":
        return [f"arg {fact.fd} is {_what(fact)}, not a program"]
    if event is None or prog is None or prog.kind != "prog":
        return []
    kind = prog.info.get("type")
    if failure.errno == errno.EEXIST:
        known = event.info.get("prog")
        return [f"the event {event.name} has a program already"] if known else []
    if event.call is None or not kind:
        return []
    pmu = _pmu(Failure(event.call, failure.model, failure.facts))
    wanted = {"kprobe": "kprobe", "uprobe": "kprobe", "tracepoint": "tracepoint"}.get(
        pmu, "perf_event"
    )
    if failure.errno == errno.EINVAL and kind != wanted:
        return [f"a {kind} program does not fit the event {event.name}: that takes a {wanted} one"]
    return []


# ---------------------------------------------------------------- E2BIG

LAYOUT_OF: Final = {
    "BPF_MAP_CREATE": "MAP_CREATE",
    "BPF_PROG_LOAD": "PROG_LOAD",
    "BPF_BTF_LOAD": "BTF_LOAD",
    "BPF_OBJ_PIN": "OBJ_*",
    "BPF_OBJ_GET": "OBJ_*",
    "BPF_LINK_CREATE": "link_create",
    "BPF_PROG_TEST_RUN": "test",
    "BPF_PROG_QUERY": "query",
}
"""Commands whose attr has grown, or may."""


def too_big(failure: Failure) -> list[str]:
    """Non-zero bytes beyond the kernel's union bpf_attr, or an attr of more than a page."""
    size = failure.call.number("size") or 0
    if size > PAGE:
        return [f"attr is {size} bytes, more than a page"]
    return _beyond(failure, failure.attr[:size], "bpf_attr", LAYOUT_OF.get(failure.command, ""))


def _beyond(failure: Failure, data: bytes, struct: str, layout: str) -> list[str]:
    known = _decimal(failure.fact(f"size {struct}"))
    if known is None or len(data) <= known or not data[known:].strip(b"\0"):
        return []
    name = layout if layout == struct else f"{struct}.{layout}"
    words: dict[str, None] = {}
    for offset in range(known, len(data)):
        if not data[offset]:
            continue
        for member in layouts.LAYOUTS.get(name, ()):
            if member.offset <= offset < member.offset + member.size:
                words[f"{member.path} (offset {member.offset})"] = None
                break
        else:
            words[f"byte {offset}"] = None
    found = list(words)
    shown = ", ".join(found[:6]) + (f" and {len(found) - 6} more" if len(found) > 6 else "")
    return [f"this kernel's {struct} ends at {known}; not zero beyond it: {shown}"]


def prog_too_big(failure: Failure) -> list[str]:
    """No instructions, too many, or too many ways through them."""
    call = failure.call
    count = call.number("attr", "insn_cnt")
    if count == 0:
        return ["insn_cnt is 0"]
    if count is not None and count > 1_000_000:
        return [f"insn_cnt {count} is above 1000000 (BPF_COMPLEXITY_LIMIT_INSNS)"]
    return verifier(failure)


HASHES: Final = _words("HASH PERCPU_HASH LRU_HASH LRU_PERCPU_HASH HASH_OF_MAPS")
ARRAYS: Final = _words(
    """ARRAY PERCPU_ARRAY PROG_ARRAY PERF_EVENT_ARRAY CGROUP_ARRAY ARRAY_OF_MAPS SOCKMAP DEVMAP
    CPUMAP XSKMAP REUSEPORT_SOCKARRAY"""
)
KMALLOC_MAX: Final = 4 << 20


def _map_fact(failure: Failure) -> FdFact | None:
    fact = failure.call.fact("attr", "map_fd") or failure.call.fact("attr", "batch", "map_fd")
    return fact if fact is not None and fact.kind == "map" else None


def _map_kind(fact: FdFact) -> str:
    number = fact.info.get("map_type")
    name = names.bpf_map_type.get(number, "") if isinstance(number, int) else ""
    return name.removeprefix("BPF_MAP_TYPE_")


def _said(failure: Failure, fact: FdFact) -> str:
    found = failure.model.object(fact, failure.call.raw.pid)
    return found.label if found is not None else f"{fact.kind} id={fact.id}"


def _key(failure: Failure) -> bytes:
    key = plain(failure.call.attr("attr", "key"))
    return key.data if isinstance(key, Bytes) else b""


def element_too_big(failure: Failure) -> list[str]:
    """An index past the end, or a full map."""
    fact = _map_fact(failure)
    if fact is None:
        return []
    kind, limit = _map_kind(fact), fact.info.get("max_entries")
    if not isinstance(limit, int):
        return []
    if kind in ARRAYS:
        index = int.from_bytes(_key(failure), "little")
        if len(_key(failure)) == 4 and index >= limit:
            return [f"index {index} is past the end: {_said(failure, fact)} has {limit} entries"]
        return []
    if kind in HASHES or kind in ("QUEUE", "STACK"):
        return [f"{_said(failure, fact)} is full: max_entries is {limit}"]
    return []


def map_too_big(failure: Failure) -> list[str]:
    """Elements larger than the kernel allocates."""
    kind = _kind(failure, "map_type", "BPF_MAP_TYPE_")
    key, value = failure.number("key_size"), failure.number("value_size")
    if kind in HASHES and key + value >= KMALLOC_MAX - 128:
        return [f"key_size + value_size = {key + value} is more than the kernel allocates for one"
                " element (4 MiB)"]
    if kind in ("ARRAY", "PERCPU_ARRAY") and value > 0x7FFFFFFF:
        return [f"value_size {value} is above INT_MAX"]
    return []


# ---------------------------------------------------------------- EFAULT and EBADF


def unreadable(failure: Failure) -> list[str]:
    """Pointers that led nowhere."""
    call = failure.call
    attr = call.args.get("attr")
    if isinstance(attr, Pointer) and isinstance(attr.value, Absent):
        if attr.value.reason == UNREADABLE:
            return [f"the attr itself, at {attr.addr:#x}, cannot be read"]
        return []
    found = [
        f"{name} points to {pointer.addr:#x}, which cannot be read"
        for name, pointer in _pointers(call.args, "")
        if _leads_nowhere(pointer)
    ]
    if not found and failure.command in KEYED:
        for name in ("key", "value"):
            value = call.attr("attr", name)
            if isinstance(value, Absent) and value.reason == "null":
                return [f"{name} is NULL"]
    if not found and failure.command == "BPF_PROG_LOAD":
        found = [
            f"{name} is NULL"
            for name in ("insns", "license")
            if isinstance(call.attr("attr", name), Absent)
        ]
    return found


KEYED: Final = frozenset({"BPF_MAP_LOOKUP_ELEM", "BPF_MAP_UPDATE_ELEM", "BPF_MAP_DELETE_ELEM"})


def _leads_nowhere(pointer: Pointer) -> bool:
    value = pointer.value
    if isinstance(value, Absent):
        return value.reason == UNREADABLE
    if isinstance(value, Bytes):
        return len(value.data) < value.wanted
    if isinstance(value, Insns):
        return len(value.data) < value.total * 8
    return isinstance(value, Text) and not value.data and not value.whole


def _pointers(value: Value, name: str) -> Iterator[tuple[str, Pointer]]:
    if isinstance(value, Pointer):
        yield name, value
        yield from _pointers(value.value, name)
    elif isinstance(value, Changed):
        yield from _pointers(value.before, name)
    elif isinstance(value, Struct):
        for key, member in value.fields:
            yield from _pointers(member, key)
    elif isinstance(value, Array):
        for index, item in enumerate(value.items[:1000]):
            yield from _pointers(item, f"{name}[{index}]")


FD_KINDS: Final[dict[str, str]] = {
    "map_fd": "map",
    "prog_fd": "prog",
    "link_fd": "link",
    "btf_fd": "btf",
    "prog_btf_fd": "btf",
    "inner_map_fd": "map",
    "attach_bpf_fd": "prog",
    "replace_bpf_fd": "prog",
    "old_prog_fd": "prog",
    "prog_token_fd": "token",
    "map_token_fd": "token",
    "btf_token_fd": "token",
}
"""What the fd in a field has to be, where there is only one answer."""
SPOKEN: Final = {"prog": "a program", "map": "a map", "link": "a link", "btf": "BTF",
                 "token": "a BPF token"}  # fmt: skip


def wrong_fd(failure: Failure) -> list[str]:
    """An fd that is not open, or is something else."""
    call = failure.call
    found: list[str] = []
    for name, value in _fds(call.args, ""):
        number = value.value
        wanted = FD_KINDS.get(name)
        if value.fact is None:
            if failure.errno == errno.EBADF and _looked_up(name, number):
                found.append(f"{name} {_signed(number)} is not open")
        elif wanted is not None and value.fact.kind != wanted:
            if failure.command == "BPF_LINK_CREATE" and value.fact.kind == "map":
                continue  # struct_ops
            found.append(f"{name} {number} is {_what(value.fact)}, not {SPOKEN[wanted]}")
    if failure.errno == errno.EBADF and failure.command == "BPF_PROG_LOAD":
        found += _map_fds(failure)
    return found[:3]


def _looked_up(name: str, number: int) -> bool:
    # Optional fds are 0 where there is none, and -1 is often meant to be nothing.
    return number != 0 or name in ("map_fd", "prog_fd", "link_fd", "bpf_fd", "fd")


def _signed(number: int) -> int:
    return number - (1 << 32) if number >= 1 << 31 else number


def _what(fact: FdFact) -> str:
    if fact.kind == "file":
        return str(fact.info.get("path", "a file"))
    return SPOKEN.get(fact.kind, "a perf event" if fact.kind == "perf_event" else fact.kind)


def _fds(value: Value, name: str) -> Iterator[tuple[str, Fd]]:
    if isinstance(value, Fd):
        yield name, value
    elif isinstance(value, Pointer):
        yield from _fds(value.value, name)
    elif isinstance(value, Struct):
        for key, member in value.fields:
            yield from _fds(member, key)
    elif isinstance(value, Array):
        for index, item in enumerate(value.items[:256]):
            yield from _fds(item, f"{name}[{index}]")


def _map_fds(failure: Failure) -> list[str]:
    """ld_imm64 with an fd that is no map's."""
    insns = plain(failure.call.attr("attr", "insns"))
    if not isinstance(insns, Insns):
        return []
    found: list[str] = []
    data = insns.data
    at = 0
    while at + 16 <= len(data) and len(found) < 3:
        if data[at] != 0x18:
            at += 8
            continue
        if data[at + 1] >> 4 in (1, 2):
            fd = int.from_bytes(data[at + 4 : at + 8], "little", signed=True)
            fact = failure.call.fd(fd)
            if fact is None:
                found.append(f"instruction {at // 8} names map fd {fd}, which is not open")
            elif fact.kind != "map":
                found.append(f"instruction {at // 8} names fd {fd} as a map; it is {_what(fact)}")
        at += 16
    return found


# ---------------------------------------------------------------- EINVAL

PROG_CONFIG: Final[dict[str, str]] = {
    "KPROBE": "BPF_EVENTS",
    "TRACEPOINT": "BPF_EVENTS",
    "PERF_EVENT": "BPF_EVENTS",
    "RAW_TRACEPOINT": "BPF_EVENTS",
    "RAW_TRACEPOINT_WRITABLE": "BPF_EVENTS",
    "TRACING": "BPF_EVENTS",
    "CGROUP_DEVICE": "CGROUP_BPF",
    "CGROUP_SYSCTL": "CGROUP_BPF",
    "CGROUP_SOCKOPT": "CGROUP_BPF",
    "LIRC_MODE2": "BPF_LIRC_MODE2",
    "SK_REUSEPORT": "INET",
    "STRUCT_OPS": "BPF_JIT",
    "EXT": "BPF_JIT",
    "LSM": "BPF_LSM",
    "NETFILTER": "NETFILTER_BPF_LINK",
    "SOCKET_FILTER": "NET",
    "XDP": "NET",
    "SCHED_CLS": "NET",
}
"""include/linux/bpf_types.h: the option that a program type depends on."""
MAP_CONFIG: Final[dict[str, str]] = {
    "CGROUP_ARRAY": "CGROUPS",
    "CGROUP_STORAGE": "CGROUP_BPF",
    "PERCPU_CGROUP_STORAGE": "CGROUP_BPF",
    "CGRP_STORAGE": "CGROUPS",
    "STACK_TRACE": "PERF_EVENTS",
    "INODE_STORAGE": "BPF_LSM",
    "DEVMAP": "NET",
    "DEVMAP_HASH": "NET",
    "SOCKMAP": "NET",
    "SOCKHASH": "NET",
    "XSKMAP": "XDP_SOCKETS",
    "REUSEPORT_SOCKARRAY": "INET",
    "STRUCT_OPS": "BPF_JIT",
}
"""include/linux/bpf_types.h: the option that a map type depends on."""


def unknown_command(failure: Failure) -> list[str]:
    """A command that this kernel has not."""
    number = failure.call.number("cmd") or 0
    if failure.fact("enumerator bpf_cmd", number & 0xFFFF) == NONE:
        name = failure.call.command
        known = f" ({name})" if name.startswith("BPF_") else ""
        return [f"this kernel knows no bpf command {number & 0xFFFF}{known}"]
    return []


BPF_ATTR_SIZE: Final = 168
LAST_FIELDS: Final[dict[str, int]] = {
    "BPF_MAP_CREATE": 92,
    "BPF_MAP_LOOKUP_ELEM": 32,
    "BPF_MAP_UPDATE_ELEM": 32,
    "BPF_MAP_DELETE_ELEM": 16,
    "BPF_MAP_GET_NEXT_KEY": 24,
    "BPF_MAP_LOOKUP_AND_DELETE_ELEM": 32,
    "BPF_MAP_FREEZE": 4,
    "BPF_OBJ_PIN": 20,
    "BPF_OBJ_GET": 20,
    "BPF_PROG_ATTACH": 32,
    "BPF_PROG_DETACH": 32,
    "BPF_PROG_TEST_RUN": 76,
    "BPF_PROG_GET_NEXT_ID": 8,
    "BPF_MAP_GET_NEXT_ID": 8,
    "BPF_BTF_GET_NEXT_ID": 8,
    "BPF_LINK_GET_NEXT_ID": 8,
    "BPF_PROG_GET_FD_BY_ID": 4,
    "BPF_MAP_GET_FD_BY_ID": 12,
    "BPF_BTF_GET_FD_BY_ID": 16,
    "BPF_LINK_GET_FD_BY_ID": 4,
    "BPF_OBJ_GET_INFO_BY_FD": 16,
    "BPF_PROG_QUERY": 64,
    "BPF_RAW_TRACEPOINT_OPEN": 24,
    "BPF_BTF_LOAD": 40,
    "BPF_TASK_FD_QUERY": 48,
    "BPF_LINK_CREATE": 60,
    "BPF_LINK_UPDATE": 16,
    "BPF_LINK_DETACH": 4,
    "BPF_ENABLE_STATS": 4,
    "BPF_ITER_CREATE": 8,
    "BPF_PROG_BIND_MAP": 12,
    "BPF_TOKEN_CREATE": 8,
}
"""Where a command's last field ends: BPF_*_LAST_FIELD of Linux 6.18."""


def leftovers(failure: Failure) -> list[str]:
    """Non-zero bytes after the last field that the command has (CHECK_ATTR)."""
    attr = plain(failure.call.args.get("attr"))
    if not isinstance(attr, Struct):
        return []
    end = LAST_FIELDS.get(failure.command)
    data = failure.attr[: failure.call.number("size") or 0]
    size = _decimal(failure.fact("size bpf_attr"))
    # A kernel that knows more of bpf_attr than we may know more of a command too.
    if end is not None and size is not None and size <= BPF_ATTR_SIZE:
        extra = data[end:size]
        if extra.strip(b"\0"):
            offset = end + next(index for index, byte in enumerate(extra) if byte)
            return [f"byte {offset} of attr is not zero, after the last field of {failure.command}"]
    members = failure.fact("members bpf_attr")
    if members is None:
        return []
    known = set(members.split())
    newer = [
        name
        for name, value in attr.fields
        if name and name not in known and _set(value) and name in _layout_names(failure)
    ]
    if newer:
        return [f"this kernel has no field {_and(newer)} for {failure.command}, which is not zero"]
    return []


def _layout_names(failure: Failure) -> set[str]:
    layout = layouts.LAYOUTS.get(f"bpf_attr.{LAYOUT_OF.get(failure.command, '')}", ())
    return {member.path for member in layout}


def _set(value: Value) -> bool:
    number = getattr(value, "value", None)
    if isinstance(value, Pointer):
        return value.addr != 0
    return isinstance(number, int) and number != 0


_NAME_BYTES: Final = frozenset(
    b"0123456789_.abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)
"""bpf_obj_name_cpy()"""


def _bad_name(failure: Failure, field: str) -> list[str]:
    value = plain(failure.call.attr("attr", field))
    if not isinstance(value, Text) or not value.data:
        return []
    bad = [byte for byte in value.data if byte not in _NAME_BYTES]
    if bad:
        word = repr(chr(bad[0])) if 32 <= bad[0] < 127 else f"byte {bad[0]:#04x}"
        return [f"{field} holds {word}: only letters, digits, _ and . may be in a name"]
    if not value.whole or len(value.data) >= 16:
        return [f"{field} has no NUL within its 16 bytes"]
    return []


def _unknown_flags(failure: Failure, field: str) -> list[str]:
    value = failure.call.attr("attr", field)
    if not isinstance(value, Flags):
        return []
    if value.rest:
        return [f"{field} has unknown bits: {value.rest:#x}"]
    # Only flags that are enumerators are in BTF; where the oldest is not, none is.
    if field != "map_flags" or failure.fact("flag BPF_F_NO_PREALLOC") != "yes":
        return []
    new = [name for name in value.names if failure.fact(f"flag {name}") == NONE]
    return [f"this kernel does not know {_and(new)} in {field}"] if new else []


def _unknown_type(
    failure: Failure, field: str, enum: str, prefix: str, config: dict[str, str]
) -> list[str]:
    number = failure.number(field)
    answer = failure.fact(f"enumerator {enum}", number)
    if answer == NONE:
        return [f"this kernel knows no {enum} {number}"]
    option = config.get((answer or "").removeprefix(prefix))
    if option is not None and failure.fact(f"config {option}") == "n":
        assert answer is not None
        return [f"this kernel has no {answer}: it is built without CONFIG_{option}"]
    return []


NEEDS_ATTACH_TYPE: Final[dict[str, tuple[str, ...]]] = {
    "CGROUP_SOCK": (
        "CGROUP_INET_SOCK_CREATE",
        "CGROUP_INET_SOCK_RELEASE",
        "CGROUP_INET4_POST_BIND",
        "CGROUP_INET6_POST_BIND",
    ),
    "CGROUP_SOCKOPT": ("CGROUP_SETSOCKOPT", "CGROUP_GETSOCKOPT"),
    "SK_LOOKUP": ("SK_LOOKUP",),
    "SK_REUSEPORT": ("SK_REUSEPORT_SELECT", "SK_REUSEPORT_SELECT_OR_MIGRATE"),
    "NETFILTER": ("NETFILTER",),
    "CGROUP_SKB": ("CGROUP_INET_INGRESS", "CGROUP_INET_EGRESS"),
}
"""bpf_prog_load_check_attach(): the expected attach types that a program type takes."""
NO_ATTACH_TYPE: Final = frozenset({"SYSCALL", "EXT"})
BTF_TARGETS: Final = frozenset({"TRACING", "LSM", "STRUCT_OPS", "EXT"})


def prog_load_invalid(failure: Failure) -> list[str]:
    """What bpf_prog_load() checks before the verifier."""
    found = _unknown_type(
        failure, "prog_type", "bpf_prog_type", "BPF_PROG_TYPE_", PROG_CONFIG
    ) or _unknown_flags(failure, "prog_flags")
    if found:
        return found
    kind = _kind(failure, "prog_type", "BPF_PROG_TYPE_")
    attach = failure.number("expected_attach_type")
    said = failure.name("expected_attach_type").removeprefix("BPF_")
    takes = NEEDS_ATTACH_TYPE.get(kind)
    # For cgroup_sock the kernel takes 0 for INET_SOCK_CREATE, as old loaders mean it.
    if takes is not None and said not in takes and not (kind == "CGROUP_SOCK" and not attach):
        return [
            f"a {kind.lower()} program is for expected_attach_type "
            f"{' or '.join(f'BPF_{name}' for name in takes)}, not {_attach(said, attach)}"
        ]
    if kind == "CGROUP_SOCK_ADDR" and not said.startswith(_ADDR_HOOKS):
        return [f"a cgroup_sock_addr program is not for expected_attach_type "
                f"{_attach(said, attach)}"]  # fmt: skip
    if kind in NO_ATTACH_TYPE and attach:
        return [f"a {kind.lower()} program takes no expected_attach_type, and has {attach}"]
    if failure.number("attach_btf_id") and kind not in BTF_TARGETS:
        return [f"a {kind.lower()} program takes no attach_btf_id"]
    return _bad_log(failure) or _bad_name(failure, "prog_name") or verifier(failure)


def _attach(name: str, number: int) -> str:
    return f"BPF_{name}" if name else str(number)


_ADDR_HOOKS: Final = ("CGROUP_INET4_", "CGROUP_INET6_", "CGROUP_UDP", "CGROUP_UNIX_")


def _bad_log(failure: Failure) -> list[str]:
    level, size = failure.number("log_level"), failure.number("log_size")
    pointer = failure.call.attr("attr", "log_buf")
    buffer = isinstance(pointer, Pointer)
    if level & ~15:
        return [f"log_level {level} has unknown bits: {level & ~15:#x}"]
    if buffer and not size:
        return ["log_buf is given with a log_size of 0"]
    if size and not buffer:
        return [f"log_size is {size}, but log_buf is NULL"]
    if level & 3 and not buffer:
        return []
    if size > 0xFFFFFFFF >> 2:
        return [f"log_size {size} is above {0xFFFFFFFF >> 2}"]
    return []


# ---------------------------------------------------------------- maps


@dataclass(frozen=True, slots=True)
class MapRule:
    """What a map type asks of MAP_CREATE's numbers; None: nothing."""

    key: tuple[int, ...] | None = None
    """The key sizes that it takes."""
    value: tuple[int, ...] | None = None
    entries: str = "some"
    """``some``: not 0; ``none``: 0; ``pages``: a power of 2 and of pages; ``any``."""
    must: int = 0
    """Flags that must be set."""
    may: int | None = None
    """Flags that may be."""
    key_min: int = 0
    value_min: int = 0


_ACCESS: Final = (
    const.BPF_F_RDONLY | const.BPF_F_WRONLY | const.BPF_F_RDONLY_PROG | const.BPF_F_WRONLY_PROG
)
_NUMA: Final = const.BPF_F_NUMA_NODE
_ANYWHERE: Final = const.BPF_F_TOKEN_FD | 1 << 15  # BPF_F_VTYPE_BTF_OBJ_FD
_PREALLOC: Final = const.BPF_F_NO_PREALLOC
_FD_ACCESS: Final = const.BPF_F_RDONLY | const.BPF_F_WRONLY
_ARRAY_FLAGS: Final = _NUMA | const.BPF_F_MMAPABLE | _ACCESS | const.BPF_F_INNER_MAP
_HASH_FLAGS: Final = (
    _PREALLOC | const.BPF_F_NO_COMMON_LRU | _NUMA | _ACCESS | const.BPF_F_ZERO_SEED
)
_STORAGE: Final = MapRule(
    key=(4,), entries="none", must=_PREALLOC, may=_PREALLOC | const.BPF_F_CLONE, value_min=1
)
_HASH: Final = MapRule(may=_HASH_FLAGS, key_min=1, value_min=1)
_FDS: Final = MapRule(key=(4,), value=(4,), may=_NUMA | _FD_ACCESS)
_DEVICES: Final = MapRule(key=(4,), value=(4, 8), may=_NUMA | _FD_ACCESS)
_QUEUE: Final = MapRule(key=(0,), value_min=1, may=_NUMA | _ACCESS)
_RING: Final = MapRule(
    key=(0,), value=(0,), entries="pages", may=_NUMA | const.BPF_F_RB_OVERWRITE
)
_CGROUP: Final = MapRule(key=(8, 16), value_min=1, entries="none", may=_NUMA | _ACCESS)

MAP_RULES: Final[dict[str, MapRule]] = {
    "HASH": _HASH,
    "PERCPU_HASH": _HASH,
    "LRU_HASH": _HASH,
    "LRU_PERCPU_HASH": _HASH,
    "HASH_OF_MAPS": MapRule(value=(4,), may=_HASH_FLAGS, key_min=1),
    "ARRAY": MapRule(key=(4,), value_min=1, may=_ARRAY_FLAGS),
    "PERCPU_ARRAY": MapRule(key=(4,), value_min=1, may=_ACCESS),
    "PROG_ARRAY": _FDS,
    "PERF_EVENT_ARRAY": MapRule(
        key=(4,), value=(4,), may=_NUMA | _FD_ACCESS | const.BPF_F_PRESERVE_ELEMS
    ),
    "CGROUP_ARRAY": _FDS,
    "ARRAY_OF_MAPS": _FDS,
    "STACK_TRACE": MapRule(
        key=(4,), value_min=8, may=_NUMA | _FD_ACCESS | const.BPF_F_STACK_BUILD_ID
    ),
    "LPM_TRIE": MapRule(must=_PREALLOC, may=_PREALLOC | _NUMA | _ACCESS, key_min=5, value_min=1),
    "QUEUE": _QUEUE,
    "STACK": _QUEUE,
    "RINGBUF": _RING,
    "USER_RINGBUF": _RING,
    "SK_STORAGE": _STORAGE,
    "INODE_STORAGE": _STORAGE,
    "TASK_STORAGE": _STORAGE,
    "CGRP_STORAGE": _STORAGE,
    "BLOOM_FILTER": MapRule(
        key=(0,), value_min=1, may=_NUMA | _ACCESS | const.BPF_F_ZERO_SEED
    ),
    "CGROUP_STORAGE": _CGROUP,
    "PERCPU_CGROUP_STORAGE": _CGROUP,
    "DEVMAP": _DEVICES,
    "DEVMAP_HASH": _DEVICES,
    "CPUMAP": MapRule(key=(4,), value=(4, 8), may=_NUMA),
    "XSKMAP": MapRule(key=(4,), value=(4,), may=_NUMA | _FD_ACCESS),
    "SOCKMAP": _DEVICES,
    "SOCKHASH": MapRule(value=(4, 8), key_min=1, may=_NUMA | _FD_ACCESS),
    "REUSEPORT_SOCKARRAY": MapRule(key=(4,), value=(4, 8), may=_NUMA | _ACCESS),
    "ARENA": MapRule(
        key=(0,),
        value=(0,),
        must=const.BPF_F_MMAPABLE,
        may=const.BPF_F_MMAPABLE | const.BPF_F_SEGV_ON_FAULT | const.BPF_F_NO_USER_CONV,
    ),
}
"""Each type's map_alloc_check()."""


def _or(numbers: Sequence[int]) -> str:
    return " or ".join(str(number) for number in numbers)


def _flag_names(bits: int) -> str:
    return _and([name for bit, name in names.map_flags.items() if bits & bit] or [hex(bits)])


def map_create_invalid(failure: Failure) -> list[str]:
    """What map_create() and the map type check."""
    found = _unknown_type(failure, "map_type", "bpf_map_type", "BPF_MAP_TYPE_", MAP_CONFIG)
    if found:
        return found
    flags = failure.number("map_flags")
    if flags & const.BPF_F_RDONLY and flags & const.BPF_F_WRONLY:
        return ["BPF_F_RDONLY and BPF_F_WRONLY exclude each other"]
    kind = _kind(failure, "map_type", "BPF_MAP_TYPE_")
    rule = MAP_RULES.get(kind)
    name = kind.lower()
    lines = _unknown_flags(failure, "map_flags")
    if rule is None:
        return lines or _bad_name(failure, "map_name")
    key, value = failure.number("key_size"), failure.number("value_size")
    entries = failure.number("max_entries")
    if rule.key is not None and key not in rule.key:
        lines.append(f"key_size of {_a(name)} must be {_or(rule.key)}, not {key}")
    elif key < rule.key_min:
        lines.append(f"key_size of {_a(name)} must be at least {rule.key_min}, not {key}")
    if rule.value is not None and value not in rule.value:
        lines.append(f"value_size of {_a(name)} must be {_or(rule.value)}, not {value}")
    elif value < rule.value_min:
        lines.append(f"value_size of {_a(name)} must be at least {rule.value_min}, not {value}")
    elif kind == "STACK_TRACE" and value % 8:
        lines.append(f"value_size of a stack_trace must be a multiple of 8, not {value}")
    if rule.entries == "some" and not entries:
        lines.append("max_entries is 0")
    elif rule.entries == "none" and entries:
        lines.append(f"max_entries of {_a(name)} must be 0, not {entries}")
    elif rule.entries == "pages" and (not entries or entries & (entries - 1) or entries % PAGE):
        lines.append(
            f"max_entries of {_a(name)} must be a power of 2 and a multiple of the page size, "
            f"not {entries}"
        )
    if rule.must & ~flags:
        lines.append(f"{_a(name)} must be made with {_flag_names(rule.must & ~flags)}")
    if rule.may is not None and not lines and flags & ~(rule.may | _ANYWHERE):
        wrong = flags & ~(rule.may | _ANYWHERE)
        lines.append(f"{_a(name)} cannot have {_flag_names(wrong)}")
    if kind in ("SK_STORAGE", "INODE_STORAGE", "TASK_STORAGE", "CGRP_STORAGE") and not (
        failure.number("btf_key_type_id") and failure.number("btf_value_type_id")
    ):
        lines.append(f"{_a(name)} needs BTF of its key and value")
    return lines or _bad_name(failure, "map_name")


def _a(name: str) -> str:
    return f"{'an' if name[:1] in 'aeiox' else 'a'} {name}"


def element_invalid(failure: Failure) -> list[str]:
    """Flags of an element, and what a map type cannot do."""
    fact = _map_fact(failure)
    if fact is None:
        return []
    flags = failure.call.attr("attr", "flags")
    kind = _map_kind(fact)
    if isinstance(flags, Flags) and flags.rest:
        return [f"flags has unknown bits: {flags.rest:#x}"]
    value = flags.value if isinstance(flags, Flags) else 0
    if value & 3 == 3:
        return ["BPF_NOEXIST and BPF_EXIST exclude each other"]
    if failure.command == "BPF_MAP_LOOKUP_ELEM" and value & 3:
        return [f"a lookup cannot have {_elem_names(value & 3)}"]
    if failure.command == "BPF_MAP_DELETE_ELEM" and kind in ("ARRAY", "PERCPU_ARRAY"):
        return [f"elements of {_a(kind.lower())} cannot be deleted"]
    if value & const.BPF_F_LOCK:
        return [f"{_said(failure, fact)} has no bpf_spin_lock in its values, as BPF_F_LOCK needs"]
    return []


def _elem_names(bits: int) -> str:
    return _and([name for bit, name in names.map_elem_flags.items() if bit and bits & bit])


def element_there(failure: Failure) -> list[str]:
    """ENOENT and EEXIST: keys that are not there, or are."""
    fact = _map_fact(failure)
    if fact is None:
        return []
    kind, limit = _map_kind(fact), fact.info.get("max_entries")
    said = _said(failure, fact)
    flags = failure.number("flags")
    if failure.errno == errno.EEXIST:
        if kind in ARRAYS and flags & const.BPF_NOEXIST:
            return [f"every element of {_a(kind.lower())} exists, and BPF_NOEXIST asks for none"]
        if flags & const.BPF_NOEXIST:
            return [f"the key is in {said} already, and BPF_NOEXIST asks for a new one"]
        return []
    key = _key(failure)
    if failure.command == "BPF_MAP_GET_NEXT_KEY":
        last = isinstance(failure.call.attr("attr", "key"), Pointer)
        return ["that was the last key"] if last else [f"{said} is empty"]
    if kind in ARRAYS and isinstance(limit, int) and len(key) == 4:
        index = int.from_bytes(key, "little")
        if index >= limit:
            return [f"index {index} is past the end: {said} has {limit} entries"]
        if kind in ("ARRAY", "PERCPU_ARRAY"):
            return []
        return [f"nothing is at index {index} of {said}"]
    if kind in ("QUEUE", "STACK"):
        return [f"{said} is empty"]
    if failure.command == "BPF_MAP_UPDATE_ELEM":
        if flags & const.BPF_EXIST:
            return [f"the key is not in {said}, and BPF_EXIST asks for one that is"]
        return []
    return [f"the key is not in {said}"] if kind in HASHES or kind == "LPM_TRIE" else []


def no_operation(failure: Failure) -> list[str]:
    """ENOTSUPP and EOPNOTSUPP: what a kind of object cannot do."""
    fact = _map_fact(failure)
    if fact is not None:
        return [f"maps of type {_map_kind(fact).lower()} have no {failure.command}"]
    if failure.command == "BPF_PROG_TEST_RUN":
        prog = failure.model.by_fd(failure.call, "attr", "test", "prog_fd")
        kind = None if prog is None else prog.info.get("type")
        return [f"{kind} programs cannot be test run"] if kind else []
    if failure.command == "BPF_LINK_CREATE":
        kind = failure.name("link_create", "attach_type")
        option = {
            "BPF_TRACE_KPROBE_MULTI": "FPROBE",
            "BPF_TRACE_KPROBE_SESSION": "FPROBE",
            "BPF_TRACE_UPROBE_MULTI": "UPROBES",
            "BPF_NETFILTER": "NETFILTER_BPF_LINK",
        }.get(kind)
        if option is not None and failure.fact(f"config {option}") == "n":
            return [f"this kernel is built without CONFIG_{option}"]
    return []


# ---------------------------------------------------------------- attaching


def attach_invalid(failure: Failure) -> list[str]:
    """A program that was loaded for another hook."""
    link = ("link_create",) if failure.command == "BPF_LINK_CREATE" else ()
    number = failure.number(*link, "attach_type")
    if failure.fact("enumerator bpf_attach_type", number) == NONE:
        return [f"this kernel knows no bpf_attach_type {number}"]
    fields = (*link, "prog_fd") if link else ("attach_bpf_fd",)
    prog = failure.model.by_fd(failure.call, "attr", *fields)
    if prog is None or prog.call is None or prog.kind != "prog":
        return []
    kind = str(prog.info.get("type", ""))
    asked = failure.name(*link, "attach_type")
    wanted = ATTACH_PROGS.get(asked)
    if wanted is not None and kind and kind not in wanted:
        return [f"{asked} takes {_a(' or '.join(wanted))} program, not {_a(kind)} one"]
    expected = getattr(prog.call.attr("attr", "expected_attach_type"), "name", None)
    if kind in EXPECTING and expected and asked and expected != asked:
        return [f"{prog.label} was loaded for {expected}, and is to be attached as {asked}"]
    for field in ("flags", "attach_flags"):
        value = failure.call.attr("attr", *link, field)
        if isinstance(value, Flags) and value.rest:
            return [f"{field} has unknown bits: {value.rest:#x}"]
    return []


EXPECTING: Final = _words(
    """cgroup_sock cgroup_sock_addr cgroup_sockopt sk_lookup kprobe sk_reuseport
    netfilter tracing lsm"""
)
"""Program types that can be attached as what they were loaded for, and nothing else."""
_SOCK: Final = ("cgroup_sock",)
_ADDR: Final = ("cgroup_sock_addr",)
ATTACH_PROGS: Final[dict[str, tuple[str, ...]]] = {
    "BPF_CGROUP_INET_INGRESS": ("cgroup_skb",),
    "BPF_CGROUP_INET_EGRESS": ("cgroup_skb",),
    "BPF_CGROUP_INET_SOCK_CREATE": _SOCK,
    "BPF_CGROUP_INET_SOCK_RELEASE": _SOCK,
    "BPF_CGROUP_INET4_POST_BIND": _SOCK,
    "BPF_CGROUP_INET6_POST_BIND": _SOCK,
    "BPF_CGROUP_INET4_BIND": _ADDR,
    "BPF_CGROUP_INET6_BIND": _ADDR,
    "BPF_CGROUP_INET4_CONNECT": _ADDR,
    "BPF_CGROUP_INET6_CONNECT": _ADDR,
    "BPF_CGROUP_UDP4_SENDMSG": _ADDR,
    "BPF_CGROUP_UDP6_SENDMSG": _ADDR,
    "BPF_CGROUP_UDP4_RECVMSG": _ADDR,
    "BPF_CGROUP_UDP6_RECVMSG": _ADDR,
    "BPF_CGROUP_SOCK_OPS": ("sock_ops",),
    "BPF_CGROUP_DEVICE": ("cgroup_device",),
    "BPF_CGROUP_SYSCTL": ("cgroup_sysctl",),
    "BPF_CGROUP_GETSOCKOPT": ("cgroup_sockopt",),
    "BPF_CGROUP_SETSOCKOPT": ("cgroup_sockopt",),
    "BPF_SK_SKB_STREAM_PARSER": ("sk_skb",),
    "BPF_SK_SKB_STREAM_VERDICT": ("sk_skb",),
    "BPF_SK_SKB_VERDICT": ("sk_skb",),
    "BPF_SK_MSG_VERDICT": ("sk_msg",),
    "BPF_FLOW_DISSECTOR": ("flow_dissector",),
    "BPF_LIRC_MODE2": ("lirc_mode2",),
    "BPF_SK_LOOKUP": ("sk_lookup",),
    "BPF_XDP": ("xdp",),
    "BPF_TCX_INGRESS": ("sched_cls",),
    "BPF_TCX_EGRESS": ("sched_cls",),
    "BPF_NETKIT_PRIMARY": ("sched_cls",),
    "BPF_NETKIT_PEER": ("sched_cls",),
    "BPF_NETFILTER": ("netfilter",),
    "BPF_TRACE_KPROBE_MULTI": ("kprobe",),
    "BPF_TRACE_KPROBE_SESSION": ("kprobe",),
    "BPF_TRACE_UPROBE_MULTI": ("kprobe",),
    "BPF_PERF_EVENT": ("kprobe", "tracepoint", "perf_event"),
}
"""attach_type_to_prog_type(), where it has one answer."""


def no_device(failure: Failure) -> list[str]:
    """An ifindex that no device has."""
    for path in (("link_create",), ("query",), ()):
        value = failure.call.attr("attr", *path, "target_ifindex")
        if isinstance(value, Int):
            index = value.value
            if index and failure.now(f"device {index}") == NONE:
                return [f"there is no network device of index {_signed(index)}"]
    return []


def no_raw_tracepoint(failure: Failure) -> list[str]:
    """RAW_TRACEPOINT_OPEN by a name that no tracepoint has."""
    name = failure.text("raw_tracepoint", "name")
    if name and failure.fact(f"raw_tracepoint {name}") == NONE:
        return [f"there is no tracepoint {name}"]
    return []


def no_symbol(failure: Failure) -> list[str]:
    """kprobe_multi with functions that the kernel has not; uprobe_multi in no file."""
    link = ("link_create",)
    syms = plain(failure.call.attr("attr", *link, "kprobe_multi", "syms"))
    found = []
    for item in syms.items[:100] if isinstance(syms, Array) else ():
        inner = plain(item)
        name = text_of(inner) if isinstance(inner, Text) else ""
        if name and failure.fact(f"function {name}") == NONE:
            found.append(name)
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        return [f"the kernel has no function {', '.join(found[:3])}{more}"]
    path = failure.text(*link, "uprobe_multi", "path")
    if path and failure.errno == errno.ENOENT and failure.now(f"path {path}") == NONE:
        return [f"there is no file {path}"]
    pid = failure.number(*link, "uprobe_multi", "pid")
    if failure.errno == errno.ESRCH and pid and failure.now(f"task {pid}") == NONE:
        return [f"there is no task {pid}"]
    return []


def busy(failure: Failure) -> list[str]:
    """A map that is frozen; a device or netns that has its program."""
    if failure.command == "BPF_MAP_FREEZE":
        fact = _map_fact(failure)
        if fact is not None and fact.info.get("frozen") == 1:
            return [f"{_said(failure, fact)} is frozen already"]
        return []
    if failure.command != "BPF_LINK_CREATE":
        return []
    prog = failure.model.by_fd(failure.call, "attr", "link_create", "prog_fd")
    holder = _same_target(failure)
    if prog is not None and holder is not None:
        return [f"{holder.label} is attached there already"]
    return []


def _same_target(failure: Failure) -> Object | None:
    """A link of this trace on the same device for the same hook."""
    call = failure.call
    asked = call.number("attr", "link_create", "attach_type")
    index = call.number("attr", "link_create", "target_ifindex")
    if not index:
        return None
    for found in failure.model.objects.values():
        made = found.call
        if found.kind != "link" or made is None or made is call:
            continue
        if (
            made.number("attr", "link_create", "attach_type") == asked
            and made.number("attr", "link_create", "target_ifindex") == index
        ):
            return found
    return None


def no_more_ids(failure: Failure) -> list[str]:
    """The end of an iteration over ids; an id that nobody has."""
    command = failure.command
    if command.endswith("_GET_NEXT_ID"):
        return ["that was the last id"]
    if command.endswith("_GET_FD_BY_ID"):
        kind = command.removeprefix("BPF_").removesuffix("_GET_FD_BY_ID").lower()
        number = failure.number(f"{kind}_id") or failure.number("start_id")
        spoken = {"prog": "program", "btf": "BTF"}.get(kind, kind)
        return [f"no {spoken} has id {number} any more, or yet"] if number else []
    return []


def test_run_invalid(failure: Failure) -> list[str]:
    """PROG_TEST_RUN with a packet that is too short."""
    prog = failure.model.by_fd(failure.call, "attr", "test", "prog_fd")
    kind = None if prog is None else prog.info.get("type")
    size = failure.number("test", "data_size_in")
    if kind in ("socket_filter", "sched_cls", "sched_act", "xdp", "cgroup_skb") and size < 14:
        return [f"data_size_in {size} is less than an Ethernet header (14)"]
    return []


# ---------------------------------------------------------------- verifier


LOG_READ: Final = 128 << 10
"""Bytes at the end of a log that are read: the reason stands at the end."""


def verifier(failure: Failure) -> list[str]:
    """The verifier's last words, at the instruction that they are about."""
    from bpftrace_sys.verifier_log import verdict

    log = plain(failure.call.attr("attr", "log_buf"))
    if not isinstance(log, Text) or not log.data:
        return []
    found = verdict(log.data[-LOG_READ:].decode("utf-8", "backslashreplace"))
    if found is None:
        return []
    lines = [f"verifier: {found.message}"]
    if found.pc is not None:
        lines += _place(failure, found.pc, found.insn)
    if found.state is not None:
        lines.append(f"with {found.state}")
    return lines


def _place(failure: Failure, pc: int, said: str | None) -> list[str]:
    from bpftrace_sys.listing import listing_of

    listing: Listing | None = listing_of(failure.call, failure.model)
    row = None
    source = where = function = None
    for line in listing.lines if listing is not None else ():
        if line.pc > pc:
            break
        row = line
        if line.source is not None:
            source, where = line.source, line.where
        if line.function is not None:
            function = line.function
    if row is None or row.pc != pc:
        return [f"at {pc}: {said}"] if said else []
    text = f"at {pc}: {row.text}"
    if row.comment is not None:
        text += f"   /* {row.comment} */"
    lines = [text]
    if source:
        lines.append(f"of {where}: {source}" if where else f"of {source}")
    elif function:
        lines.append(f"in {function}")
    return lines


def load_enospc(failure: Failure) -> list[str]:
    """A log that did not fit, though the program may well be right."""
    prefix = "btf_" if failure.command == "BPF_BTF_LOAD" else ""
    size = failure.number(f"{prefix}log_size")
    true = failure.number(f"{prefix}log_true_size")
    if size and true > size:
        return [f"the log needs {true} bytes, log_size is {size}"]
    log = plain(failure.call.attr("attr", f"{prefix}log_buf"))
    if size and isinstance(log, Text) and len(log.data) >= size - 1:
        return [f"the log did not fit: log_size is {size}"]
    return []


def btf_invalid(failure: Failure) -> list[str]:
    """The last line of the BTF verifier's log."""
    log = text_of(failure.call.attr("attr", "btf_log_buf"))
    said = [line for line in log.splitlines() if line.strip()]
    if said:
        return [f"BTF verifier: {said[-1].strip()}"]
    blob = plain(failure.call.attr("attr", "btf"))
    if isinstance(blob, Bytes) and len(blob.data) >= 2 and blob.data[:2] != b"\x9f\xeb":
        return [f"the blob does not begin with BTF's magic number: {blob.data[:2].hex(' ')}"]
    if isinstance(blob, Bytes) and len(blob.data) < 24 == blob.wanted:
        return ["the blob is shorter than BTF's header"]
    return []


def interrupted(failure: Failure) -> list[str]:
    """EAGAIN: a signal came while the verifier was at work."""
    return ["a signal came while the verifier was at work; loaders try again"]


def no_fds(failure: Failure) -> list[str]:
    """EMFILE."""
    return ["the process has as many fds open as RLIMIT_NOFILE lets it"]


# ---------------------------------------------------------------- the table

_ELEMENT: Final = (
    "BPF_MAP_LOOKUP_ELEM",
    "BPF_MAP_UPDATE_ELEM",
    "BPF_MAP_DELETE_ELEM",
    "BPF_MAP_GET_NEXT_KEY",
    "BPF_MAP_LOOKUP_AND_DELETE_ELEM",
)
_BATCH: Final = (
    "BPF_MAP_LOOKUP_BATCH",
    "BPF_MAP_LOOKUP_AND_DELETE_BATCH",
    "BPF_MAP_UPDATE_BATCH",
    "BPF_MAP_DELETE_BATCH",
)
_BY_ID: Final = tuple(sorted(ADMIN_COMMANDS))
_ATTACH: Final = ("BPF_LINK_CREATE", "BPF_PROG_ATTACH")

ROWS: Final[tuple[tuple[tuple[str, ...], int, Row], ...]] = (
    (("BPF_PROG_LOAD",), errno.EPERM, prog_load_eperm),
    (("BPF_PROG_LOAD",), errno.EPERM, verifier),
    (("BPF_MAP_CREATE",), errno.EPERM, map_create_eperm),
    (("BPF_BTF_LOAD",), errno.EPERM, btf_load_eperm),
    (_BY_ID, errno.EPERM, admin_eperm),
    (("BPF_PROG_QUERY", "BPF_PROG_ATTACH", "BPF_PROG_DETACH"), errno.EPERM, net_admin_eperm),
    ((*_ELEMENT, *_BATCH, "BPF_MAP_FREEZE"), errno.EPERM, map_access),
    (("BPF_OBJ_PIN",), errno.EPERM, pin_path),
    (("BPF_OBJ_PIN",), errno.ENOENT, pin_path),
    (("BPF_OBJ_PIN",), errno.EEXIST, pin_path),
    (("BPF_OBJ_GET",), errno.ENOENT, get_path),
    (("BPF_OBJ_GET",), errno.EACCES, get_path),
    (("perf_event_open",), errno.EPERM, perf_access),
    (("perf_event_open",), errno.EACCES, perf_access),
    (("perf_event_open",), errno.ENOENT, perf_missing),
    (("perf_event_open",), errno.EINVAL, perf_invalid),
    (("perf_event_open",), errno.E2BIG, perf_too_big),
    (("perf_event_open",), errno.ESRCH, perf_nobody),
    (("perf_event_open",), errno.ENODEV, perf_nobody),
    (("PERF_EVENT_IOC_SET_BPF",), errno.EINVAL, wrong_fd),
    (("PERF_EVENT_IOC_SET_BPF",), errno.EINVAL, set_bpf),
    (("PERF_EVENT_IOC_SET_BPF",), errno.EEXIST, set_bpf),
    (("bpf",), errno.E2BIG, too_big),
    (("BPF_PROG_LOAD",), errno.E2BIG, prog_too_big),
    (("BPF_MAP_CREATE",), errno.E2BIG, map_too_big),
    (_ELEMENT, errno.E2BIG, element_too_big),
    ((ANY,), errno.EFAULT, unreadable),
    ((ANY,), errno.EBADF, wrong_fd),
    (("bpf",), errno.EINVAL, wrong_fd),
    (("bpf",), errno.EINVAL, unknown_command),
    (("bpf",), errno.EINVAL, leftovers),
    (("BPF_PROG_LOAD",), errno.EINVAL, prog_load_invalid),
    (("BPF_MAP_CREATE",), errno.EINVAL, map_create_invalid),
    (("BPF_BTF_LOAD",), errno.EINVAL, btf_invalid),
    (_ELEMENT, errno.EINVAL, element_invalid),
    (_ATTACH, errno.EINVAL, attach_invalid),
    (("BPF_LINK_CREATE",), errno.EINVAL, no_device),  # what XDP's says for ENODEV
    (("BPF_PROG_TEST_RUN",), errno.EINVAL, test_run_invalid),
    (_ELEMENT, errno.ENOENT, element_there),
    (_ELEMENT, errno.EEXIST, element_there),
    ((*_ELEMENT, *_BATCH, "BPF_PROG_TEST_RUN", *_ATTACH), ENOTSUPP, no_operation),
    ((*_ELEMENT, *_BATCH, *_ATTACH), errno.EOPNOTSUPP, no_operation),
    (("BPF_LINK_CREATE", "BPF_PROG_ATTACH", "BPF_PROG_QUERY"), errno.ENODEV, no_device),
    (("BPF_RAW_TRACEPOINT_OPEN",), errno.ENOENT, no_raw_tracepoint),
    (("BPF_LINK_CREATE",), errno.ENOENT, no_symbol),
    (("BPF_LINK_CREATE",), errno.ESRCH, no_symbol),
    (("BPF_MAP_FREEZE", "BPF_LINK_CREATE"), errno.EBUSY, busy),
    (_BY_ID, errno.ENOENT, no_more_ids),
    (("BPF_PROG_LOAD",), errno.EACCES, verifier),
    (("BPF_PROG_LOAD",), ENOTSUPP, verifier),
    (("BPF_PROG_LOAD",), errno.EOPNOTSUPP, verifier),
    (("BPF_PROG_LOAD",), errno.ENOENT, verifier),
    (("BPF_PROG_LOAD", "BPF_BTF_LOAD"), errno.ENOSPC, load_enospc),
    (("BPF_PROG_LOAD",), errno.EAGAIN, interrupted),
    ((ANY,), errno.EMFILE, no_fds),
)
"""(commands or system calls, errno, what looks for the reason), in the order of looking."""

_TABLE: Final[dict[tuple[str, int], list[Row]]] = {}
for _commands, _number, _row in ROWS:
    for _command in _commands:
        _TABLE.setdefault((_command, _number), []).append(_row)


def explain(call: Call, model: Model, facts: Facts) -> list[str]:
    """Why a call failed, in lines; empty where nothing proves it."""
    if not call.raw.failed or call.raw.ret is None:
        return []
    failure = Failure(call, model, facts)
    for name in dict.fromkeys((call.syscall.name, failure.command, ANY)):
        for row in _TABLE.get((name, failure.errno), ()):
            lines = row(failure)
            if lines:
                return lines
    return []


# ---------------------------------------------------------------- retries

TOLD: Final = {
    "BPF_PROG_LOAD": (
        "log_level",
        "log_size",
        "prog_name",
        "prog_btf_fd",
        "func_info_cnt",
        "line_info_cnt",
        "kern_version",
        "prog_flags",
        "expected_attach_type",
        "attach_btf_id",
        "attach_prog_fd",
        "license",
    ),
    "BPF_BTF_LOAD": ("btf_log_level", "btf_log_size"),
    "BPF_MAP_CREATE": (
        "map_name",
        "btf_fd",
        "btf_key_type_id",
        "btf_value_type_id",
        "map_flags",
        "max_entries",
    ),
}
"""Commands that loaders try again, and the fields in which an attempt may differ."""


@dataclass(slots=True)
class _Attempt:
    identity: Any
    first: Call
    last: Call
    count: int = 1


class Retries:
    """Recognises the attempts at one load: the same again, right after it failed.

    Puts ``retry`` into ``call.notes``: ``attempt`` (2, 3, ...), ``first`` and ``after``
    (the numbers of the first call and of the one before), ``errno`` of that one, and
    ``changed``, field by field, with what stood there and what stands there now.
    """

    def __init__(self) -> None:
        self._failed: dict[tuple[int, str], _Attempt] = {}

    def watch(self, call: Call) -> None:
        """A call, in order."""
        fields = TOLD.get(call.command)
        if fields is None or call.raw.ret is None:
            return
        key = (call.raw.pid, call.command)
        attempt = self._failed.pop(key, None)
        identity = _identity(call)
        if identity is None:
            return
        if attempt is not None and attempt.identity == identity and _same_name(attempt.last, call):
            attempt.count += 1
            last = attempt.last
            call.notes["retry"] = {
                "attempt": attempt.count,
                "first": attempt.first.raw.seq,
                "after": last.raw.seq,
                "errno": errno_name(-(last.raw.ret or 0)),
                "changed": _changed(last, call, fields),
            }
        else:
            attempt = _Attempt(identity, call, call)
        attempt.last = call
        if call.raw.failed:
            self._failed[key] = attempt


def _same_name(before: Call, call: Call) -> bool:
    """The same name, or none any more, as for a kernel that knows no names."""
    for field in ("prog_name", "map_name"):
        name = text_of(call.attr("attr", field))
        if name and name != text_of(before.attr("attr", field)):
            return False
    return True


def _identity(call: Call) -> Any:
    """What makes two loads attempts at one: what is loaded, not how."""
    if call.command == "BPF_PROG_LOAD":
        insns = plain(call.attr("attr", "insns"))
        if not isinstance(insns, Insns) or not insns.data:
            return None
        return ("prog", call.number("attr", "prog_type"), insns.data)
    if call.command == "BPF_BTF_LOAD":
        blob = plain(call.attr("attr", "btf"))
        return ("btf", blob.data) if isinstance(blob, Bytes) and blob.data else None
    return tuple(call.number("attr", name) for name in ("map_type", "key_size", "value_size"))


def _short(call: Call, field: str) -> str:
    value = call.attr("attr", field)
    if isinstance(value, Changed):
        value = value.before
    inner = plain(value)
    if inner is None or isinstance(inner, Absent):
        return "none"
    if isinstance(inner, Text):
        return f'"{text_of(inner)}"'
    if isinstance(inner, Name):
        return inner.name or str(inner.value)
    if isinstance(inner, Flags):
        words = [*inner.names, *([hex(inner.rest)] if inner.rest else [])]
        return "|".join(words) or "0"
    number = getattr(inner, "value", None)
    if field.endswith("log_size") and isinstance(number, int):
        return _bytes(number)
    if isinstance(inner, Int) and inner.note and inner.note.startswith("KERNEL_VERSION"):
        return inner.note
    return str(number)


def _bytes(number: int) -> str:
    for shift, unit in ((20, "MiB"), (10, "KiB")):
        if number and not number & ((1 << shift) - 1):
            return f"{number >> shift} {unit}"
    return str(number)


def _changed(before: Call, call: Call, fields: Sequence[str]) -> dict[str, list[str]]:
    changed = {}
    for field in fields:
        old, new = _short(before, field), _short(call, field)
        if old != new and {old, new} != {"none", "0"} and {old, new} != {"none", '""'}:
            changed[field] = [old, new]
    return changed


# ---------------------------------------------------------------- what is printed


def remarks(call: Call) -> list[str]:
    """The lines below a call: which attempt it was, which probe, why it failed."""
    if not call.notes:
        return []
    lines = []
    retry = call.notes.get("retry")
    if retry is not None:
        changed = retry["changed"].items()
        changes = ", ".join(f"{name} {old} -> {new}" for name, (old, new) in changed)
        lines.append(
            f"  again: attempt {retry['attempt']} of this, after {retry['errno']}: "
            f"{changes or 'nothing changed'}"
        )
    if "probe" in call.notes:
        from bpftrace_sys.probes import remark

        said = remark(call)
        if said is not None:
            lines.append(f"  {said}")
    lines += [f"  not as it was read: {line}" for line in call.notes.get("mismatch", ())]
    why = call.notes.get("explanation")
    for index, line in enumerate(why or ()):
        lines.append(f"  {'why: ' if not index else '     '}{line}")
    return lines
