"""EINVAL and E2BIG of BPF_PROG_LOAD before the verifier, and of test runs."""

from __future__ import annotations

from typing import Final

from bpftrace_sys.story.explain.attr import bad_name, unknown_flags, unknown_type
from bpftrace_sys.story.explain.failure import NONE, Failure, kind_of
from bpftrace_sys.story.explain.logs import verifier
from bpftrace_sys.story.objects import Prog
from decoders.call import inner_value
from decoders.values import Insns, Pointer


def prog_too_big(failure: Failure) -> list[str]:
    """No instructions, too many, or too many ways through them."""
    call = failure.call
    count = call.number("attr", "insn_cnt")
    if count == 0:
        return ["insn_cnt is 0"]
    if count is not None and count > 1_000_000:
        return [f"insn_cnt {count} is above 1000000 (BPF_COMPLEXITY_LIMIT_INSNS)"]
    insns = inner_value(call.attr("attr", "insns"))
    if isinstance(insns, Insns) and insns.unread:
        return [f"insn_cnt {count} is too much: {insns.why}"]
    return verifier(failure)


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
    found = unknown_type(
        failure, "prog_type", "bpf_prog_type", "BPF_PROG_TYPE_", PROG_CONFIG
    ) or unknown_flags(failure, "prog_flags")
    if found:
        return found
    kind = kind_of(failure, "prog_type", "BPF_PROG_TYPE_")
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
    return _bad_log(failure) or bad_name(failure, "prog_name") or verifier(failure)


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
    # Until the log could be told in part (Linux 6.4), bpf_verifier_log_attr_valid() asked for more.
    if 0 < size < SHORTEST and failure.fact("member bpf_attr log_true_size") == NONE:
        return [f"log_size {size} is less than {SHORTEST}"]
    return []


SHORTEST: Final = 128
"""Bytes of a log, on kernels before 6.4."""


def test_run_invalid(failure: Failure) -> list[str]:
    """PROG_TEST_RUN with a packet that is too short."""
    prog = failure.model.by_fd(failure.call, "attr", "test", "prog_fd")
    kind = prog.type if isinstance(prog, Prog) else ""
    size = failure.number("test", "data_size_in")
    if kind in ("socket_filter", "sched_cls", "sched_act", "xdp", "cgroup_skb") and size < 14:
        return [f"data_size_in {size} is less than an Ethernet header (14)"]
    return []


def interrupted(failure: Failure) -> list[str]:
    """EAGAIN: a signal came while the verifier was at work."""
    return ["a signal came while the verifier was at work; loaders try again"]
