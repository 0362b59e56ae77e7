"""What a LINK_CREATE attaches to: a row per attach type.

A row says what is attached to, or nothing: then the hook's name and what target_fd is say it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from bpftrace_sys.story.attach.places import (
    _btf_target,
    _device,
    _file,
    _iterator,
    _multi,
    _netfilter,
    _probes,
    xdp_mode,
)
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import Object
from bpftrace_sys.story.targets import hook_name
from decoders.call import Call

LINK: Final = ("attr", "link_create")
Target = Callable[[Call, "Object | None", Model, str], str]
"""The call, the program, the model, and the attach type as ``trace_fentry``."""


def _xdp(call: Call, prog: Object | None, model: Model, kind: str) -> str:
    mode = xdp_mode(
        call.number(*LINK, "flags") or 0, call, call.number(*LINK, "target_ifindex")
    )
    return f"xdp on {_device(call.attr(*LINK, 'target_ifindex'))} ({mode})"


def _on_device(call: Call, prog: Object | None, model: Model, kind: str) -> str:
    return f"{kind.replace('_', ' ')} on {_device(call.attr(*LINK, 'target_ifindex'))}"


def _lsm_cgroup(call: Call, prog: Object | None, model: Model, kind: str) -> str:
    hook = _btf_target(prog, model) or kind
    return f"{hook} on {_file(call, model, *LINK, 'target_fd')}"


def _function(call: Call, prog: Object | None, model: Model, kind: str) -> str:
    return _btf_target(prog, model) or kind


def _functions(call: Call, prog: Object | None, model: Model, kind: str) -> str:
    return f"{kind.removeprefix('trace_')} {_probes(call, 'tracing_multi', ('ids',))}"


def _hook(call: Call, prog: Object | None, model: Model, kind: str) -> str:
    return ""


def _usual(call: Call, prog: Object | None, model: Model, kind: str) -> str:
    """Of a type without a row: what the program was loaded for, if that was a function."""
    return _btf_target(prog, model)


TARGETS: Final[Mapping[str, Target]] = {
    "BPF_XDP": _xdp,
    "BPF_TCX_INGRESS": _on_device,
    "BPF_TCX_EGRESS": _on_device,
    "BPF_NETKIT_PRIMARY": _on_device,
    "BPF_NETKIT_PEER": _on_device,
    "BPF_NETFILTER": lambda call, prog, model, kind: _netfilter(call),
    "BPF_TRACE_KPROBE_MULTI": lambda call, prog, model, kind: _multi(call, model, kind),
    "BPF_TRACE_KPROBE_SESSION": lambda call, prog, model, kind: _multi(call, model, kind),
    "BPF_TRACE_UPROBE_MULTI": lambda call, prog, model, kind: _multi(call, model, kind),
    "BPF_TRACE_UPROBE_SESSION": lambda call, prog, model, kind: _multi(call, model, kind),
    "BPF_TRACE_FENTRY_MULTI": _functions,
    "BPF_TRACE_FEXIT_MULTI": _functions,
    "BPF_TRACE_FSESSION_MULTI": _functions,
    "BPF_TRACE_ITER": lambda call, prog, model, kind: _iterator(call, prog, model),
    "BPF_TRACE_FENTRY": _function,
    "BPF_TRACE_FEXIT": _function,
    "BPF_MODIFY_RETURN": _function,
    "BPF_LSM_MAC": _function,
    "BPF_LSM_CGROUP": _lsm_cgroup,
    "BPF_TRACE_RAW_TP": _usual,
    "BPF_SK_LOOKUP": _usual,
    "BPF_FLOW_DISSECTOR": _usual,
    "BPF_SK_SKB_STREAM_PARSER": _usual,
    "BPF_SK_SKB_STREAM_VERDICT": _usual,
    "BPF_SK_SKB_VERDICT": _usual,
    "BPF_SK_MSG_VERDICT": _usual,
    "BPF_CGROUP_INET_INGRESS": _hook,
    "BPF_CGROUP_INET_EGRESS": _hook,
    "BPF_CGROUP_INET_SOCK_CREATE": _hook,
    "BPF_CGROUP_INET_SOCK_RELEASE": _hook,
    "BPF_CGROUP_SOCK_OPS": _hook,
    "BPF_CGROUP_DEVICE": _hook,
    "BPF_CGROUP_SYSCTL": _hook,
    "BPF_CGROUP_GETSOCKOPT": _hook,
    "BPF_CGROUP_SETSOCKOPT": _hook,
    **dict.fromkeys(
        (
            f"BPF_CGROUP_{family}_{call}"
            for family, calls in {
                "INET4": "BIND CONNECT POST_BIND GETPEERNAME GETSOCKNAME",
                "INET6": "BIND CONNECT POST_BIND GETPEERNAME GETSOCKNAME",
                "UDP4": "SENDMSG RECVMSG",
                "UDP6": "SENDMSG RECVMSG",
                "UNIX": "CONNECT SENDMSG RECVMSG GETPEERNAME GETSOCKNAME",
            }.items()
            for call in calls.split()
        ),
        _hook,
    ),
}
NO_LINK: Final = {
    "BPF_LIRC_MODE2": "attached by BPF_PROG_ATTACH only",
    "BPF_XDP_DEVMAP": "runs from a devmap",
    "BPF_XDP_CPUMAP": "runs from a cpumap",
    "BPF_SK_REUSEPORT_SELECT": "attached by setsockopt",
    "BPF_SK_REUSEPORT_SELECT_OR_MIGRATE": "attached by setsockopt",
    "BPF_PERF_EVENT": "the link's target is the event (rows.link_create)",
    "BPF_STRUCT_OPS": "the link is of a map (rows.link_create)",
    "BPF_TRACE_FSESSION": "newer than what could be tried: as of any other type",
}
"""Attach types without a row, and why."""


def link_target(call: Call, prog: Object | None, model: Model, name: str) -> str:
    """What a link is on; ``name``: the attach type, empty or a number where no table has it."""
    kind = name.removeprefix("BPF_").lower()
    target = TARGETS.get(name, _hook if "cgroup" in kind else _usual)(call, prog, model, kind)
    return target or f"{hook_name(kind)} on {_file(call, model, *LINK, 'target_fd')}"
