"""Refusals of commands that ask: TASK_FD_QUERY, PROG_QUERY; and of tokens."""

from __future__ import annotations

import errno
from typing import Final

from bpftrace_sys.story.explain.failure import ENOTSUPP, NONE, Failure
from bpftrace_sys.story.explain.fds import spoken_of
from bpftrace_sys.story.explain.wording import signed, word_set

SOCKMAP_HOOKS: Final = word_set(
    """BPF_SK_SKB_STREAM_PARSER BPF_SK_SKB_STREAM_VERDICT BPF_SK_SKB_VERDICT BPF_SK_MSG_VERDICT"""
)
NETNS_HOOKS: Final = word_set("BPF_FLOW_DISSECTOR BPF_SK_LOOKUP")
DEVICE_HOOKS: Final = word_set(
    "BPF_TCX_INGRESS BPF_TCX_EGRESS BPF_NETKIT_PRIMARY BPF_NETKIT_PEER"
)
BUILT_WITH: Final[dict[str, str]] = {
    "BPF_NETKIT_PRIMARY": "NETKIT",
    "BPF_NETKIT_PEER": "NETKIT",
    "BPF_LIRC_MODE2": "BPF_LIRC_MODE2",
}
"""The option that a hook depends on."""
CGROUP2: Final = "cgroup2"


def of_cgroups(attach_type: str) -> bool:
    """Whether an attach type is one of cgroups."""
    return attach_type.startswith("BPF_CGROUP_") or attach_type == "BPF_LSM_CGROUP"


def task_fd(failure: Failure) -> list[str]:
    """TASK_FD_QUERY: no such task or fd, or one that holds no program.

    Each errno has one reason in bpf_task_fd_query(), but for ENOENT, which has two.
    """
    where = ("task_fd_query",)
    pid, fd = failure.number(*where, "pid"), failure.number(*where, "fd")
    of_task = f"fd {signed(fd)} of task {pid}"
    if failure.errno == ENOTSUPP:
        return [f"{of_task} is neither a perf event nor a raw tracepoint"]
    if failure.errno == errno.EBADF:
        return [f"{of_task} is not open"]
    if failure.errno == errno.EINVAL:
        flags = failure.number(*where, "flags")
        return [f"flags is {flags:#x}, and there are none"] if flags else []
    there = failure.now(f"task {pid}") if pid else NONE
    if there == NONE:
        return [f"there is no task {pid}"]
    return [f"{of_task} is a perf event that has no program"] if there == "yes" else []


def prog_query(failure: Failure) -> list[str]:
    """EINVAL and EOPNOTSUPP of PROG_QUERY: a hook that has no answer, a target of another kind."""
    hook = failure.name("query", "attach_type")
    number = failure.number("query", "attach_type")
    if failure.fact("enumerator bpf_attach_type", number) == NONE:
        return [f"this kernel knows no bpf_attach_type {number}"]
    if not hook:
        return []
    if not (hook in BUILT_WITH or hook in SOCKMAP_HOOKS | NETNS_HOOKS | DEVICE_HOOKS):
        known = of_cgroups(hook)
        return [] if known else [f"BPF_PROG_QUERY has no answer for {hook}"]
    option = BUILT_WITH.get(hook)
    if option is not None and failure.fact(f"config {option}") == "n":
        return [f"this kernel is built without CONFIG_{option}"]
    return wrong_target(failure, hook, "query")


def wrong_target(failure: Failure, hook: str, *where: str) -> list[str]:
    """A target_fd that is not what a hook is on: a sockmap, a network namespace."""
    fact = failure.call.fact("attr", *where, "target_fd")
    if fact is None:
        return []
    said = f"target_fd {fact.fd} is {spoken_of(fact)}"
    if hook in SOCKMAP_HOOKS and fact.kind != "map":
        return [f"{said}, not a map"]
    if hook in SOCKMAP_HOOKS and failure.errno == errno.EOPNOTSUPP:
        known = failure.model.object(fact, failure.call.raw.pid)
        label = said if known is None else known.label
        return [f"{label} is no sockmap or sockhash, which alone have {hook}"]
    path = str(fact.info.get("path", ""))
    if hook in NETNS_HOOKS and not (fact.kind == "file" and path.startswith("net:[")):
        system = failure.now("fd_system")
        if system not in (None, "nsfs"):
            return [f"{said}, not a network namespace"]
    return []


def not_a_cgroup(failure: Failure) -> list[str]:
    """EBADF where a cgroup belongs: a file of another kind, or a cgroup of version 1."""
    where = {"BPF_LINK_CREATE": ("link_create",), "BPF_PROG_QUERY": ("query",)}.get(
        failure.command, ()
    )
    fact = failure.call.fact("attr", *where, "target_fd")
    if fact is None or not of_cgroups(failure.name(*where, "attach_type")):
        return []
    said = f"target_fd {fact.fd} is {spoken_of(fact)}"
    if fact.kind != "file":
        return [f"{said}, not a cgroup"]
    system = failure.now("fd_system")
    if system == "cgroup":
        return [f"{said}, a cgroup of version 1: programs are attached to those of version 2"]
    return [f"{said}, not a cgroup"] if system not in (None, CGROUP2) else []


def token(failure: Failure) -> list[str]:
    """TOKEN_CREATE: a folder that is not a bpf file system's root, and who may have a token."""
    where = ("token_create",)
    cred = failure.call.raw.extra.cred
    if failure.errno == errno.EOPNOTSUPP:
        if cred is None or cred.eff is None or failure.foreign:
            return []
        return [
            "tokens are for callers in a user namespace of their own; in the first one "
            "capabilities decide"
        ]
    fact = failure.call.fact("attr", *where, "bpffs_fd")
    if failure.number(*where, "flags"):
        return [f"flags is {failure.number(*where, 'flags'):#x}, and there are none"]
    if fact is None:
        return []
    said = f"bpffs_fd {fact.fd} is {spoken_of(fact)}"
    system = failure.now("fd_system")
    if system not in (None, "bpf"):
        return [f"{said}, not a bpf file system"]
    if system == "bpf" and failure.now("fd_root") == NONE:
        return [f"{said}, not the root of its bpf file system"]
    return []
