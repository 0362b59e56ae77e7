"""EPERM: the capabilities that a program type, a map type or a command needs."""

from __future__ import annotations

from typing import Final

from bpftrace_sys.story.explain.failure import Failure, kind_of
from bpftrace_sys.story.explain.wording import and_words, article, decimal, word_set
from decoders.uapi import const

CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF = 12, 21, 38, 39
CAPS: Final = {
    CAP_NET_ADMIN: "CAP_NET_ADMIN",
    CAP_SYS_ADMIN: "CAP_SYS_ADMIN",
    CAP_PERFMON: "CAP_PERFMON",
    CAP_BPF: "CAP_BPF",
}
NET_ADMIN_PROGS: Final = word_set(
    """SCHED_CLS SCHED_ACT XDP LWT_IN LWT_OUT LWT_XMIT LWT_SEG6LOCAL SK_SKB SK_MSG FLOW_DISSECTOR
    CGROUP_DEVICE CGROUP_SOCK CGROUP_SOCK_ADDR CGROUP_SOCKOPT CGROUP_SYSCTL SOCK_OPS EXT
    NETFILTER"""
)
"""is_net_admin_prog_type()"""
PERFMON_PROGS: Final = word_set(
    """KPROBE TRACEPOINT PERF_EVENT RAW_TRACEPOINT RAW_TRACEPOINT_WRITABLE TRACING LSM STRUCT_OPS
    EXT"""
)
"""is_perfmon_prog_type()"""
UNPRIVILEGED_PROGS: Final = frozenset({"SOCKET_FILTER", "CGROUP_SKB"})
UNPRIVILEGED_MAPS: Final = word_set(
    """ARRAY PERCPU_ARRAY PROG_ARRAY PERF_EVENT_ARRAY CGROUP_ARRAY ARRAY_OF_MAPS HASH PERCPU_HASH
    HASH_OF_MAPS RINGBUF USER_RINGBUF CGROUP_STORAGE PERCPU_CGROUP_STORAGE"""
)
"""Map types that map_create() lets everybody make."""
NET_ADMIN_MAPS: Final = word_set("SOCKMAP SOCKHASH DEVMAP DEVMAP_HASH XSKMAP")

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

TOKENS: Final[dict[str, str]] = {
    "BPF_PROG_LOAD": "prog_token_fd",
    "BPF_MAP_CREATE": "map_token_fd",
    "BPF_BTF_LOAD": "btf_token_fd",
    "BPF_BTF_GET_FD_BY_ID": "fd_by_id_token_fd",
}
"""Commands that look at a token, and where: the only ones that bpf_token_get_from_fd() is for."""

UNPRIVILEGED_BPF: Final = "kernel/unprivileged_bpf_disabled"


def _needs(failure: Failure, what: str, needed: list[int]) -> list[str]:
    """Which of the needed capabilities the caller lacks, if that is so."""
    if failure.number("prog_flags") & const.BPF_F_TOKEN_FD or failure.number(
        "map_flags"
    ) & const.BPF_F_TOKEN_FD:
        return []
    last = decimal(failure.fact("sysctl kernel/cap_last_cap"))
    if last is not None and last < CAP_BPF:
        needed = [CAP_SYS_ADMIN]  # before Linux 5.8
    if failure.foreign:
        needs = f"{what} needs {and_words([CAPS[cap] for cap in needed])}"
        token = " (or a BPF token)" if _takes_token(failure) else ""
        return [f"{needs} in the first user namespace{token}; the caller is in another"]
    lacking = [cap for cap in needed if failure.lacks(cap)]
    admin = failure.lacks(CAP_SYS_ADMIN)
    if not lacking or admin is not True:
        return []
    line = f"{what} needs {and_words([CAPS[cap] for cap in needed])}"
    if needed != [CAP_SYS_ADMIN]:
        line += " (or CAP_SYS_ADMIN)"
    if len(needed) == 1:
        return [f"{line}, which the caller lacks"]
    if len(lacking) == len(needed):
        return [f"{line}; the caller has {'neither' if len(needed) == 2 else 'none of them'}"]
    return [f"{line}; the caller lacks {and_words([CAPS[cap] for cap in lacking])}"]


def _takes_token(failure: Failure) -> bool:
    """Whether the command has a field for a token, and this kernel knows it."""
    field = TOKENS.get(failure.command)
    return field is not None and failure.fact(f"member bpf_attr {field}") == "yes"


def _closed(failure: Failure) -> bool:
    """Whether kernel.unprivileged_bpf_disabled keeps those out who lack CAP_BPF."""
    return bool(failure.sysctl(UNPRIVILEGED_BPF))


def _with_sysctl(lines: list[str]) -> list[str]:
    return [f"{lines[0]}; kernel.unprivileged_bpf_disabled is set", *lines[1:]] if lines else []


def prog_load_eperm(failure: Failure) -> list[str]:
    """Capabilities by program type."""
    kind = kind_of(failure, "prog_type", "BPF_PROG_TYPE_")
    if not kind:
        return []
    what = f"{article(kind.lower())} program"
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
    kind = kind_of(failure, "map_type", "BPF_MAP_TYPE_")
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


def filtered(failure: Failure) -> list[str]:
    """A seccomp filter of the caller's own that says no in the kernel's stead."""
    # Where the verifier said something, the kernel was asked; so nobody need look at this moment.
    if failure.text("log_buf") or failure.now("filtered") != "yes":
        return []
    return ["a seccomp filter of the caller's own gave that answer; the kernel was not asked"]


def net_admin_eperm(failure: Failure) -> list[str]:
    """BPF_PROG_QUERY."""
    return _needs(failure, failure.command, [CAP_NET_ADMIN])
