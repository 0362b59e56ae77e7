"""How long what a pointer leads to is, and what stands in a union: functions of a scope.

Declarations name them, and so does the table that the first stop uses (walks.py), for
which they stand here: nothing heavy is imported.  A Scope is the raw fields around
(``scope["insn_cnt"]``), and ``scope.env`` the world around the call.
"""

from __future__ import annotations

from decoders.raw import AUDIT_ARCH_I386
from decoders.uapi import const, names, perf, system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final

    from decoders.walk.scope import Scope

LOG_LIMIT: Final = 16 << 20


# ---------------------------------------------------------------- maps

PERCPU_MAPS: Final = frozenset({5, 6, 10, 21})
"""BPF_MAP_TYPE_PERCPU_HASH, PERCPU_ARRAY, LRU_PERCPU_HASH, PERCPU_CGROUP_STORAGE."""
HASH_MAPS: Final = frozenset({1, 5, 9, 10, 13})
"""Maps whose batch cursor is a u32 bucket number (kernel/bpf/hashtab.c)."""


def _map_info(scope: Scope, name: str) -> int | None:
    fact = scope.env.fd(scope["map_fd"])
    value = None if fact is None or fact.kind != "map" else fact.info.get(name)
    return value if isinstance(value, int) else None


def key_size(scope: Scope) -> int | None:
    """Bytes of a key of the map in ``map_fd``; None if the map is unknown."""
    return _map_info(scope, "key_size")


def value_size(scope: Any) -> int | None:
    """Bytes that user space passes for a value: all CPUs' for a per-CPU map.

    As bpf_map_value_size() in kernel/bpf/syscall.c.
    """
    size = _map_info(scope, "value_size")
    if size is None or _map_info(scope, "map_type") not in PERCPU_MAPS:
        return size
    flags: int = scope["elem_flags" if "elem_flags" in scope.layout.index else "flags"]
    if flags & (const.BPF_F_CPU | const.BPF_F_ALL_CPUS):
        return size
    cpus: int = scope.env.cpus
    return ((size + 7) & ~7) * cpus


def is_bloom_filter(scope: Scope) -> bool:
    """A bloom filter has no keys: a lookup asks whether the value is there."""
    return _map_info(scope, "map_type") == const.BPF_MAP_TYPE_BLOOM_FILTER


def cursor_size(scope: Scope) -> int | None:
    """Bytes of a batch's cursor."""
    return 4 if _map_info(scope, "map_type") in HASH_MAPS else key_size(scope)


def keys_size(scope: Scope) -> int | None:
    """Bytes of ``count`` keys."""
    return _times_count(key_size(scope), scope)


def values_size(scope: Scope) -> int | None:
    """Bytes of ``count`` values."""
    return _times_count(value_size(scope), scope)


def _times_count(size: int | None, scope: Scope) -> int | None:
    count: int = scope["count"]
    return None if size is None else size * count


# ---------------------------------------------------------------- programs


MOST_FDS: Final = 512
"""Fds in memory that are looked at, in a stop; a program may have 64 maps (MAX_USED_MAPS)."""


def naming_loads(insns: bytes) -> Iterator[tuple[int, int]]:
    """(slot, src_reg) of each ld_imm64 that has one: what it loads has a name. In a stop, of
    programs of any length: nothing else is decoded."""
    whole = insns[: len(insns) // 8 * 8]
    opcodes, registers = whole[::8], whole[1::8]
    at = opcodes.find(0x18)
    while at >= 0:
        if registers[at] >> 4:
            yield at, registers[at] >> 4
        at = opcodes.find(0x18, at + 2)


def _named(insns: bytes, sources: tuple[int, int]) -> Iterator[bytes]:
    """imm of each naming load with one of these src_regs, as it stands there."""
    for at, source in naming_loads(insns):
        if source in sources:
            yield insns[8 * at + 4 : 8 * at + 8]


def map_fds(insns: bytes) -> list[int]:
    """The fds in BPF_PSEUDO_MAP_FD (1) and BPF_PSEUDO_MAP_VALUE (2) loads, each once."""
    found: dict[bytes, None] = {}
    for imm in _named(insns, (1, 2)):
        found[imm] = None
        if len(found) == MOST_FDS:
            break
    return [int.from_bytes(imm, "little", signed=True) for imm in found]


def fd_array_used(insns: bytes) -> int:
    """How many slots of fd_array the MAP_IDX (5) and MAP_IDX_VALUE (6) loads name."""
    found = set(_named(insns, (5, 6)))
    return max((int.from_bytes(imm, "little", signed=True) + 1 for imm in found), default=0)


BPF_MAXINSNS: Final = 4096
"""include/uapi/linux/bpf_common.h: the most of a caller who may not load larger programs."""
BPF_COMPLEXITY_LIMIT_INSNS: Final = 1_000_000
"""include/linux/bpf.h: the most of anybody."""
LARGE_PROGRAMS: Final = 1 << 21 | 1 << 39
"""CAP_SYS_ADMIN and CAP_BPF: either lets load more than BPF_MAXINSNS."""


def insns_accepted(scope: Scope) -> int:
    """Instructions of a load that the kernel would take of this caller, if all else is right.

    More than that it refuses before it reads any: bpf_prog_load() in kernel/bpf/syscall.c. Who
    calls is looked at only where that decides; who was not seen may be anybody.
    """
    claimed = int(scope["insn_cnt"])
    if claimed <= BPF_MAXINSNS:
        return claimed
    return min(claimed, most_insns(scope))


def most_insns(scope: Scope) -> int:
    """The most instructions that the kernel takes of this caller.

    A BPF token may give what the caller has in a user namespace of his own.
    """
    cred = scope.env.cred()
    if cred is None or cred.eff is None:
        return BPF_COMPLEXITY_LIMIT_INSNS
    first = cred.userns is None or bool(scope["prog_flags"] & const.BPF_F_TOKEN_FD)
    try:
        able = first and bool(int(cred.eff, 16) & LARGE_PROGRAMS)
    except ValueError:  # a trace says anything
        able = True
    return BPF_COMPLEXITY_LIMIT_INSNS if able else BPF_MAXINSNS


def too_many_insns(scope: Scope) -> str:
    """Why the kernel reads none of a load's instructions, where it claims too many."""
    most = "4096 (BPF_MAXINSNS) without CAP_BPF"
    if most_insns(scope) > BPF_MAXINSNS:
        most = "1000000 (BPF_COMPLEXITY_LIMIT_INSNS)"
    return f"the kernel takes at most {most}, and reads none of more"


def fd_array_count(scope: Any) -> int:
    """Entries of fd_array: said by the caller since 6.14, else as many as the insns name."""
    said: int = scope["fd_array_cnt"]
    return said or int(scope.fetched("insns", fd_array_used, 0))


def log_size(scope: Scope) -> int:
    """Bytes of log_buf."""
    return min(int(scope["log_size"]), LOG_LIMIT)


def btf_log_size(scope: Scope) -> int:
    """Bytes of btf_log_buf."""
    return min(int(scope["btf_log_size"]), LOG_LIMIT)


def log_end(scope: Scope) -> int:
    """Bytes that the verifier wrote, where it says so; of a longer log it keeps the end."""
    return min(int(scope["log_true_size"]), int(scope["log_size"]))


def btf_log_end(scope: Scope) -> int:
    """The same of BTF's verifier."""
    return min(int(scope["btf_log_true_size"]), int(scope["btf_log_size"]))


def xlated_count(scope: Scope) -> int:
    """Instructions of xlated_prog_insns."""
    return int(scope["xlated_prog_len"]) // 8


def task_name_size(scope: Scope) -> int:
    """Bytes of the name that TASK_FD_QUERY gives."""
    return min(int(scope["buf_len"]), 4096)


def stream_size(scope: Scope) -> int:
    """Bytes that PROG_STREAM_READ has copied: its result."""
    return min(int(scope["stream_buf_len"]), scope.env.ret or 0)


# ---------------------------------------------------------------- unions of bpf_attr


def command(scope: Scope) -> int:
    """The command of bpf(2)."""
    return int(scope["cmd"]) & ~const.BPF_COMMON_ATTRS


def has_common(scope: Scope) -> bool:
    """Whether bpf(2) has its fourth and fifth argument."""
    return bool(scope["cmd"] & const.BPF_COMMON_ATTRS)


def has_path_fd(scope: Scope) -> bool:
    """Whether a pin's path is relative to an fd."""
    return bool(scope["file_flags"] & const.BPF_F_PATH_FD)


def is_id(scope: Scope) -> bool:
    """Whether the program or link to stand beside is named by its id."""
    return bool(scope["flags"] & const.BPF_F_ID)


def replaces_by_id(scope: Scope) -> bool:
    """The same for PROG_ATTACH and PROG_DETACH."""
    return bool(scope["attach_flags"] & const.BPF_F_ID)


MPROG: Final = frozenset(
    {
        const.BPF_TCX_INGRESS,
        const.BPF_TCX_EGRESS,
        const.BPF_NETKIT_PRIMARY,
        const.BPF_NETKIT_PEER,
    }
)
"""Attach types of kernel/bpf/mprog.c, where several programs stand in an order."""
ATTACH_BY_IFINDEX: Final = frozenset({const.BPF_XDP, *MPROG})
"""Attach types whose target is a network device."""


def by_ifindex(scope: Scope) -> bool:
    """Whether the target of an attach, query or link is a network device."""
    return scope["attach_type"] in ATTACH_BY_IFINDEX


EXT: Final = "BPF_PROG_TYPE_EXT"


def variant(scope: Scope) -> str:
    """Which row of the union a LINK_CREATE uses."""
    fact = scope.env.fd(scope["prog_fd"])
    if fact is not None and fact.info.get("prog_type") == const.BPF_PROG_TYPE_EXT:
        return EXT  # it has no attach type: what stands there is 0, a cgroup's
    name = names.bpf_attach_type.get(scope["attach_type"], "")
    return "cgroup" if "CGROUP" in name else name


def iter_target(scope: Scope) -> str | None:
    """What the iterator walks, by the machine's knowledge of the program; or None."""
    fact = scope.env.fd(scope["prog_fd"])
    known = None if fact is None or fact.id is None else fact.id
    return None if known is None else scope.env.fact("iter_target", known)


def is_path_fd(scope: Scope) -> bool:
    """Whether a uprobe_multi's path is relative to an fd."""
    return bool(scope["flags"] & const.BPF_F_UPROBE_MULTI_PATH_FD)


# ---------------------------------------------------------------- bpf_*_info


def fd_kind(scope: Scope) -> str | None:
    """What the fd of OBJ_GET_INFO_BY_FD is."""
    fact = scope.env.fd(scope["bpf_fd"])
    return None if fact is None else fact.kind


# What fdinfo calls a type of links (bpf_link_type_strs of kernel/bpf/syscall.c) is
# the end of the enum's name, but for this one.
FDINFO_NAMES: Final = {"perf": "PERF_EVENT"}


def link_type(scope: Scope) -> str:
    """The link's type, without BPF_LINK_TYPE_.

    At exit the kernel has written it.  Before, callers that pass buffers in the
    union rarely set it; then the fd itself tells.
    """
    known = names.bpf_link_type.get(scope["type"], "")[14:]
    if known and known != "UNSPEC":
        return known
    fact = scope.env.fd(scope["bpf_fd"])
    said = str(fact.info.get("link_type", "")) if fact is not None else ""
    return FDINFO_NAMES.get(said, said.upper())


def link_iter_target(scope: Scope) -> str | None:
    """What a link's iterator walks; None where nobody knows."""
    found: bytes | None = scope.fetched("target_name", bytes, None)
    if found:
        return found.partition(b"\0")[0].decode("latin-1")
    prog_id = scope["prog_id"]
    return scope.env.fact("iter_target", prog_id) if prog_id else None


def perf_link_type(scope: Scope) -> str:
    """What a perf event link probes: KPROBE, UPROBE, TRACEPOINT, ..."""
    return names.bpf_perf_event_type.get(scope["type"], "")[15:]


# ---------------------------------------------------------------- perf events

PERF_ATTR_SIZE_VER0: Final = 64
FREQ: Final = 1 << 10
WATERMARK: Final = 1 << 14
PERF_PROGS_MAX: Final = 64
"""BPF_TRACE_MAX_PROGS: what QUERY_BPF answers at most (kernel/trace/bpf_trace.c)."""


def attr_size(head: bytes) -> int:
    """The size that a struct claims; 0 means the first published one (perf_copy_attr()).

    At least 8: type and size stand in any case.
    """
    return max(8, int.from_bytes(head[4:8], "little") or PERF_ATTR_SIZE_VER0)


def query_bpf_size(head: bytes) -> int:
    """struct perf_event_query_bpf with room for ids_len ids."""
    return 8 + 4 * min(int.from_bytes(head[:4], "little"), PERF_PROGS_MAX)


def pmu(scope: Scope) -> str:
    """The PMU that ``type`` selects: ``tracepoint``, ``kprobe``, ``software``, ..."""
    number = scope["type"]
    name = perf.perf_type_id.get(number)
    if name is not None:
        return name.removeprefix("PERF_TYPE_").lower()
    return scope.env.fact("pmu", number) or ""


def second(scope: Scope) -> str:
    """Which name config2 goes by: a kprobe without a function is at an address."""
    kind = pmu(scope)
    if kind == "kprobe" and scope["config1"] == bytes(8):
        return "kprobe_addr"
    return kind


def is_freq(scope: Scope) -> bool:
    """Whether sample_period is a frequency."""
    return bool(scope["flags"] & FREQ)


def is_watermark(scope: Scope) -> bool:
    """Whether wakeup_events counts bytes."""
    return bool(scope["flags"] & WATERMARK)


# ---------------------------------------------------------------- other calls

SOL_SOCKET: Final = 1
"""As on all architectures that we trace (include/uapi/asm-generic/socket.h)."""
SO_FD: Final = frozenset({"SO_ATTACH_BPF", "SO_ATTACH_REUSEPORT_EBPF"})
NEEDS_MODE: Final = 0o100 | 0o20000000  # O_CREAT, __O_TMPFILE
IOV_LIMIT: Final = 16
"""Buffers of one message that are looked at; netlink's users pass one."""


def is_cgroup(scope: Scope) -> bool:
    """Whether perf_event_open's pid is the fd of a cgroup."""
    return bool(scope["flags"] & const.PERF_FLAG_PID_CGROUP)


def wants_mode(scope: Scope) -> bool:
    """Whether open(2) looks at ``mode``."""
    return bool(scope["flags"] & NEEDS_MODE)


def socket_option(scope: Scope) -> str:
    """What optval holds: a program's fd, or bytes."""
    name = system.so_filter.get(scope["optname"], "") if scope["level"] == SOL_SOCKET else ""
    return "fd" if name in SO_FD else "bytes"


def option_size(scope: Scope) -> int:
    """Bytes of optval."""
    return min(max(int(scope["optlen"]), 0), 4096)


def written_size(scope: Scope) -> int:
    """Bytes of a write(2) that are looked at."""
    return min(int(scope["count"]), 1 << 16)


def received(scope: Scope) -> int:
    """Bytes of a buffer that a receiving call has filled."""
    return max(0, min(int(scope["len"]), scope.env.ret or 0))


def is_wide(scope: Scope) -> bool:
    """Whether the caller's words are of 64 bits."""
    return scope.env.arch != AUDIT_ARCH_I386


def iov_count(scope: Scope) -> int:
    """Buffers of a message."""
    return min(int(scope["iovlen"]), IOV_LIMIT)


def name_size(scope: Scope) -> int:
    """Bytes of msg_name."""
    return min(int(scope["namelen"]), 128)


def address_size(scope: Scope) -> int:
    """Bytes of sendto's addr."""
    return min(max(int(scope["addrlen"]), 0), 128)
