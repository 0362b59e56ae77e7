"""Refusals of attaching: a program, a device, a function that does not fit or is not there."""

from __future__ import annotations

import errno
from typing import Final

from bpftrace_sys.story.explain.elements import label_of, map_fact, map_kind
from bpftrace_sys.story.explain.failure import NONE, Failure
from bpftrace_sys.story.explain.wording import article, signed, word_set
from bpftrace_sys.story.objects import Prog, text_of
from decoders.call import inner_value
from decoders.values import Array, Flags, Int, Text

CHOOSY: Final = word_set(
    "SOCKMAP SOCKHASH REUSEPORT_SOCKARRAY XSKMAP PERF_EVENT_ARRAY DEVMAP DEVMAP_HASH CPUMAP"
)
"""Map types whose update answers EOPNOTSUPP to what is put in, by its state or type."""


def no_operation(failure: Failure) -> list[str]:
    """ENOTSUPP and EOPNOTSUPP: what a kind of object cannot do."""
    fact = map_fact(failure)
    if fact is not None:
        if map_kind(fact) in CHOOSY and failure.command == "BPF_MAP_UPDATE_ELEM":
            return []  # it has updates, and refuses this socket or event
        return [f"maps of type {map_kind(fact).lower()} have no {failure.command}"]
    if failure.command == "BPF_PROG_TEST_RUN":
        prog = failure.model.by_fd(failure.call, "attr", "test", "prog_fd")
        kind = prog.type if isinstance(prog, Prog) else ""
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


def attach_invalid(failure: Failure) -> list[str]:
    """A program that was loaded for another hook."""
    link = ("link_create",) if failure.command == "BPF_LINK_CREATE" else ()
    number = failure.number(*link, "attach_type")
    if failure.fact("enumerator bpf_attach_type", number) == NONE:
        return [f"this kernel knows no bpf_attach_type {number}"]
    fields = (*link, "prog_fd") if link else ("attach_bpf_fd",)
    prog = failure.model.by_fd(failure.call, "attr", *fields)
    if not isinstance(prog, Prog) or prog.call is None:
        return []
    kind = prog.type
    asked = failure.name(*link, "attach_type")
    wanted = ATTACH_PROGS.get(asked)
    # An extension goes where the program goes that it replaces, and its attach type is none.
    if wanted is not None and kind not in ("", "ext", *wanted):
        return [f"{asked} takes {article(' or '.join(wanted))} program, not {article(kind)} one"]
    expected = getattr(prog.call.attr("attr", "expected_attach_type"), "name", None)
    if kind in EXPECTING and expected and asked and expected != asked:
        return [f"{prog.label} was loaded for {expected}, and is to be attached as {asked}"]
    for field in ("flags", "attach_flags"):
        value = failure.call.attr("attr", *link, field)
        if isinstance(value, Flags) and value.rest:
            return [f"{field} has unknown bits: {value.rest:#x}"]
    return []


EXPECTING: Final = word_set(
    """cgroup_sock cgroup_sock_addr cgroup_sockopt sk_lookup kprobe sk_reuseport
    netfilter tracing lsm"""
)
"""Program types that can be attached as what they were loaded for, and nothing else."""
_SOCK: Final = ("cgroup_sock",)
_ADDR: Final = ("cgroup_sock_addr",)
_TRACING: Final = ("tracing",)
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
    "BPF_CGROUP_INET4_GETPEERNAME": _ADDR,
    "BPF_CGROUP_INET6_GETPEERNAME": _ADDR,
    "BPF_CGROUP_INET4_GETSOCKNAME": _ADDR,
    "BPF_CGROUP_INET6_GETSOCKNAME": _ADDR,
    "BPF_CGROUP_UNIX_CONNECT": _ADDR,
    "BPF_CGROUP_UNIX_SENDMSG": _ADDR,
    "BPF_CGROUP_UNIX_RECVMSG": _ADDR,
    "BPF_CGROUP_UNIX_GETPEERNAME": _ADDR,
    "BPF_CGROUP_UNIX_GETSOCKNAME": _ADDR,
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
    "BPF_TRACE_UPROBE_SESSION": ("kprobe",),
    "BPF_PERF_EVENT": ("kprobe", "tracepoint", "perf_event"),
    "BPF_TRACE_RAW_TP": _TRACING,
    "BPF_TRACE_FENTRY": _TRACING,
    "BPF_TRACE_FEXIT": _TRACING,
    "BPF_MODIFY_RETURN": _TRACING,
    "BPF_TRACE_ITER": _TRACING,
    "BPF_LSM_MAC": ("lsm",),
    "BPF_LSM_CGROUP": ("lsm",),
}
"""attach_type_to_prog_type(), and link_create() where that leaves it open."""
NO_PROGS: Final[dict[str, str]] = {
    "BPF_XDP_DEVMAP": "what a program was loaded for: it is put into a devmap",
    "BPF_XDP_CPUMAP": "what a program was loaded for: it is put into a cpumap",
    "BPF_SK_REUSEPORT_SELECT": "attached by setsockopt",
    "BPF_SK_REUSEPORT_SELECT_OR_MIGRATE": "attached by setsockopt",
    "BPF_STRUCT_OPS": "the link is of a map",
    "BPF_TRACE_FSESSION": "newer than what could be tried",
    "BPF_TRACE_FENTRY_MULTI": "newer than what could be tried",
    "BPF_TRACE_FEXIT_MULTI": "newer than what could be tried",
    "BPF_TRACE_FSESSION_MULTI": "newer than what could be tried",
}
"""Attach types of which no type of program is said, and why."""


def no_device(failure: Failure) -> list[str]:
    """An ifindex that no device has."""
    for path in (("link_create",), ("query",), ()):
        value = failure.call.attr("attr", *path, "target_ifindex")
        if isinstance(value, Int):
            index = value.value
            if index in failure.call.raw.extra.devices:
                return []  # it was there when the call was made
            if index and failure.now(f"device {index}") == NONE:
                return [f"there is no network device of index {signed(index)}"]
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
    syms = inner_value(failure.call.attr("attr", *link, "kprobe_multi", "syms"))
    found = _functions(failure, syms) if isinstance(syms, Array) else []
    if found:
        return found
    path = failure.text(*link, "uprobe_multi", "path")
    if path and failure.errno == errno.ENOENT and failure.now(f"path {path}") == NONE:
        return [f"there is no file {path}"]
    pid = failure.number(*link, "uprobe_multi", "pid")
    if failure.errno == errno.ESRCH and pid and failure.now(f"task {pid}") == NONE:
        return [f"there is no task {pid}"]
    return []


def _functions(failure: Failure, syms: Array) -> list[str]:
    """What is wrong with the functions of a kprobe_multi link."""
    from bpftrace_sys.story.explain.kprobes import because

    asked = []
    for item in syms.items[:100]:
        inner = inner_value(item)
        name = text_of(inner) if isinstance(inner, Text) else ""
        if name:
            asked.append(name)
    missing = [name for name in asked if failure.fact(f"function {name}") == NONE]
    whole = [name for name in missing if failure.fact(f"kprobe {name}") in (None, NONE)]
    if whole:
        more = f" and {len(whole) - 3} more" if len(whole) > 3 else ""
        return [f"the kernel has no function {', '.join(whole[:3])}{more}"]
    for name in asked:
        said = because(failure, name, ftrace=True)
        if said:
            return [said]
    twice = next((name for name in asked if asked.count(name) > 1), None)
    return [] if twice is None else [f"{twice} is named twice"]


def being_written(failure: Failure) -> list[str]:
    """EBUSY of MAP_FREEZE: bpf_map_write_active(). Of a map that is frozen already it is EPERM."""
    fact = map_fact(failure)
    if fact is None or fact.info.get("frozen") == 1:
        return []
    label = label_of(failure, fact)
    return [f"{label} is mapped for writing, or is being written to: it cannot be frozen now"]
