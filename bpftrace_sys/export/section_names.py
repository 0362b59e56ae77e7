"""Names of ELF sections by which libbpf, and who follows it, tell a program's type.

libbpf's section_defs (libbpf.c, 1.7): one row per program type and attach type.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

# By program type: attach type -> section; "" for any other attach type.
SECTIONS: Final[dict[str, dict[str, str]]] = {
    "socket_filter": {"": "socket"},
    "kprobe": {
        "": "kprobe",
        "trace_kprobe_multi": "kprobe.multi",
        "trace_kprobe_session": "kprobe.session",
        "trace_uprobe_multi": "uprobe.multi",
        "trace_uprobe_session": "uprobe.session",
    },
    "sched_cls": {
        "": "tc",
        "tcx_ingress": "tcx/ingress",
        "tcx_egress": "tcx/egress",
        "netkit_primary": "netkit/primary",
        "netkit_peer": "netkit/peer",
    },
    "sched_act": {"": "action"},
    "tracepoint": {"": "tracepoint"},
    "xdp": {"": "xdp", "xdp_devmap": "xdp/devmap", "xdp_cpumap": "xdp/cpumap"},
    "perf_event": {"": "perf_event"},
    "cgroup_skb": {
        "": "cgroup/skb",
        "cgroup_inet_ingress": "cgroup_skb/ingress",
        "cgroup_inet_egress": "cgroup_skb/egress",
    },
    "cgroup_sock": {
        "": "cgroup/sock",
        "cgroup_inet_sock_release": "cgroup/sock_release",
        "cgroup_inet4_post_bind": "cgroup/post_bind4",
        "cgroup_inet6_post_bind": "cgroup/post_bind6",
    },
    "lwt_in": {"": "lwt_in"},
    "lwt_out": {"": "lwt_out"},
    "lwt_xmit": {"": "lwt_xmit"},
    "lwt_seg6local": {"": "lwt_seg6local"},
    "sock_ops": {"": "sockops"},
    "sk_skb": {
        "": "sk_skb",
        "sk_skb_stream_parser": "sk_skb/stream_parser",
        "sk_skb_stream_verdict": "sk_skb/stream_verdict",
        "sk_skb_verdict": "sk_skb/verdict",
    },
    "cgroup_device": {"": "cgroup/dev"},
    "sk_msg": {"": "sk_msg"},
    "raw_tracepoint": {"": "raw_tracepoint"},
    "raw_tracepoint_writable": {"": "raw_tracepoint.w"},
    "cgroup_sock_addr": {
        "": "cgroup/bind4",
        "cgroup_inet4_bind": "cgroup/bind4",
        "cgroup_inet6_bind": "cgroup/bind6",
        "cgroup_inet4_connect": "cgroup/connect4",
        "cgroup_inet6_connect": "cgroup/connect6",
        "cgroup_unix_connect": "cgroup/connect_unix",
        "cgroup_udp4_sendmsg": "cgroup/sendmsg4",
        "cgroup_udp6_sendmsg": "cgroup/sendmsg6",
        "cgroup_unix_sendmsg": "cgroup/sendmsg_unix",
        "cgroup_udp4_recvmsg": "cgroup/recvmsg4",
        "cgroup_udp6_recvmsg": "cgroup/recvmsg6",
        "cgroup_unix_recvmsg": "cgroup/recvmsg_unix",
        "cgroup_inet4_getpeername": "cgroup/getpeername4",
        "cgroup_inet6_getpeername": "cgroup/getpeername6",
        "cgroup_unix_getpeername": "cgroup/getpeername_unix",
        "cgroup_inet4_getsockname": "cgroup/getsockname4",
        "cgroup_inet6_getsockname": "cgroup/getsockname6",
        "cgroup_unix_getsockname": "cgroup/getsockname_unix",
    },
    "lirc_mode2": {"": "lirc_mode2"},
    "sk_reuseport": {
        "": "sk_reuseport",
        "sk_reuseport_select_or_migrate": "sk_reuseport/migrate",
    },
    "flow_dissector": {"": "flow_dissector"},
    "cgroup_sysctl": {"": "cgroup/sysctl"},
    "cgroup_sockopt": {
        "": "cgroup/getsockopt",
        "cgroup_setsockopt": "cgroup/setsockopt",
    },
    "tracing": {
        "": "tracing",
        "trace_raw_tp": "tp_btf",
        "trace_fentry": "fentry",
        "trace_fexit": "fexit",
        "trace_fsession": "fsession",
        "modify_return": "fmod_ret",
        "trace_iter": "iter",
    },
    "struct_ops": {"": "struct_ops"},
    "ext": {"": "freplace"},
    "lsm": {"": "lsm", "lsm_cgroup": "lsm_cgroup"},
    "sk_lookup": {"": "sk_lookup"},
    "syscall": {"": "syscall"},
    "netfilter": {"": "netfilter"},
}

USUAL: Final = frozenset({
    "cgroup_device", "cgroup_getsockopt", "cgroup_inet_sock_create", "cgroup_sock_ops",
    "cgroup_sysctl", "flow_dissector", "lirc_mode2", "lsm_mac", "sk_lookup", "sk_msg_verdict",
    "sk_reuseport_select", "xdp",
})  # fmt: skip
"""Attach types for which the section stands that their program type has under ""."""
NO_SECTION: Final = {
    "perf_event": "what a link says, and no program",
    "struct_ops": "a struct_ops program is told by its type",
    "netfilter": "a netfilter program is told by its type",
    "trace_fentry_multi": "newer than what could be tried",
    "trace_fexit_multi": "newer than what could be tried",
    "trace_fsession_multi": "newer than what could be tried",
}
"""Attach types that no section stands for, and why."""

BY_BTF: Final = frozenset({"tracing", "lsm", "ext", "struct_ops"})
"""Types whose section names what the program belongs to, a type of the kernel's BTF."""
_BTF_PREFIXES: Final = ("btf_trace_", "bpf_lsm_", "bpf_iter_")

# Targets in attachments' own words that a section name can say.
_TARGETS: Final = (
    (re.compile(r"(kprobe|kretprobe) ([\w.$]+(?:\+0x[0-9a-f]+)?)"), r"\1/\2"),
    (re.compile(r"(uprobe|uretprobe) (/[^\s:]+):([\w.$]+)"), r"\1/\2:\3"),
    (re.compile(r"tracepoint (\w+):(\w+)"), r"tracepoint/\1/\2"),
    (re.compile(r"raw tracepoint (\w+)"), r"raw_tracepoint/\1"),
)


def section_name(
    kind: str, attach: str, target: str, attached: Sequence[str], sleepable: bool, frags: bool
) -> str:
    """The section of a program.

    ``kind`` and ``attach``: program type and expected attach type, in lower case
    without prefix; ``target``: the kernel's name of ``attach_btf_id``;
    ``attached``: where the trace saw it attached.
    """
    rows = SECTIONS.get(kind, {"": re.sub(r"\W", "_", kind) or "prog"})
    name = rows.get(attach, rows[""])
    if kind in BY_BTF:
        name += ".s" if sleepable else ""
        for prefix in _BTF_PREFIXES:
            target = target.removeprefix(prefix)
        return f"{name}/{target}" if re.fullmatch(r"[\w.$]+", target) else name
    if kind == "xdp" and frags:
        return name.replace("xdp", "xdp.frags", 1)
    for words in attached:
        for pattern, to in _TARGETS:
            found = pattern.fullmatch(words)
            if found is not None:
                whole = found.expand(to)
                prefix = whole.partition("/")[0]
                if kind == prefix or (kind == "kprobe" and "probe" in prefix and name == "kprobe"):
                    return whole
    return name
