"""What tests/tracees/refused_hooks.py is refused, and why: by case, numbers as N."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tests.support.running import TRACEES

WORKLOAD = str(TRACEES / "refused_hooks.py")

QUERIES = {
    "a file of a task": "fd N of task N is neither a perf event nor a raw tracepoint",
    "an fd that is not open": "fd N of task N is not open",
    "a task that is not there": "there is no task N",
    "an event without a program": "fd N of task N is a perf event that has no program",
    "flags of a question": "flags is 0x1, and there are none",
    "no object": "bpf_fd N is /dev/null, no object of BPF's",
    "no fd": "bpf_fd -N is not open",
    "no cgroup": "target_fd N is /dev/null, not a cgroup",
    "a map for a cgroup": "target_fd N is a map, not a cgroup",
    "no namespace": "target_fd N is /dev/null, not a network namespace",
    "no map": "target_fd N is /dev/null, not a map",
    "no sockmap": "map array id=N is no sockmap or sockhash, which alone have BPF_SK_SKB_VERDICT",
    "a token of a file": "bpffs_fd N is /dev/null, not a bpf file system",
    "a token of a folder": "bpffs_fd N is /sys/fs/bpf/refused_N, not the root of its bpf file "
    "system",
}
ALONE = "alone, without BPF_F_ALLOW_OVERRIDE or BPF_F_ALLOW_MULTI"
CGROUPS = {
    "nothing to detach": "prog first id=N is not attached to {here} for BPF_CGROUP_INET_INGRESS",
    "below one alone": f"{{here}} has prog first id=N, attached {ALONE}: so nothing can be "
    "attached below",
    "a link below one alone": f"{{here}} has prog first id=N, attached {ALONE}: so nothing can be "
    "attached below",
    "a link beside one alone": f"{{here}} has prog first id=N, attached {ALONE}; this is to be "
    "attached with BPF_F_ALLOW_MULTI",
    "several beside one alone": f"{{here}} has prog first id=N, attached {ALONE}; this is to be "
    "attached with BPF_F_ALLOW_MULTI",
    "one alone beside several": "{here} has prog first id=N, attached with BPF_F_ALLOW_MULTI; this "
    f"is to be attached {ALONE}",
    "not the one attached": "prog second id=N is not attached to {here} for "
    "BPF_CGROUP_INET_INGRESS",
    "no one to replace": "prog third id=N is not attached to {here}, so as to be replaced",
    "not the one of the link": "old_prog_fd is prog first id=N, and link cgroup id=N -> "
    "cgroup_skb ingress on {here} has prog third id=N",
    "an old one for nothing": "old_prog_fd is given without BPF_F_REPLACE in flags",
    "another type": "link cgroup id=N -> cgroup_skb ingress on {here} has a cgroup_skb program, "
    "and prog other id=N is an xdp one",
    "version 1": "target_fd N is /sys/fs/cgroup/memory, a cgroup of version N: programs are "
    "attached to those of version N",
    "removed": "target_fd N is {here}/below, which was removed",
    "a link to what is removed": "target_fd N is {here}/below, which was removed",
    "a question of what is removed": "target_fd N is {here}/below, which was removed",
    "one too many": "the cgroup has N programs for BPF_CGROUP_INET_INGRESS: it takes no more",
}
DEVICES = {
    "twice": "prog first id=N is attached to device lo for BPF_TCX_INGRESS already",
    "twice by a link": "prog first id=N is attached to device lo for BPF_TCX_INGRESS already",
    "stale": "expected_revision is N, and device lo for BPF_TCX_INGRESS is at N",
    "a stale link": "expected_revision is N, and device lo for BPF_TCX_INGRESS is at N",
    "before nobody": "prog third id=N, of BPF_F_BEFORE, is not attached to device lo for "
    "BPF_TCX_INGRESS",
    "a link after nobody": "prog third id=N, of BPF_F_AFTER, is not attached to device lo for "
    "BPF_TCX_INGRESS",
    "nobody to replace": "prog third id=N is not attached to device lo for BPF_TCX_INGRESS, so as "
    "to be replaced",
    "nobody to detach": "prog second id=N is not attached to device lo for BPF_TCX_INGRESS",
    "of a link": "a link holds prog second id=N on device lo for BPF_TCX_INGRESS: LINK_UPDATE or "
    "LINK_DETACH is for that",
    "two places": "no one place on device lo for BPF_TCX_INGRESS is what BPF_F_BEFORE and "
    "BPF_F_AFTER ask for",
    "not the one of a tcx link": "old_prog_fd is prog first id=N, and link tcx id=N -> tcx ingress "
    "on lo has prog second id=N",
    "generic again": "refused0 runs prog one id=N in skb mode already",
    "native beside generic": "refused0 runs prog one id=N in skb mode; native and generic XDP "
    "exclude each other",
    "native without a driver": "the driver of lo takes no program in drv mode (native XDP)",
    "for a map": "prog devmap id=N was loaded for BPF_XDP_DEVMAP: it goes into a map, not on a "
    "device",
    "a tc program for XDP": "link xdp id=N -> xdp on refused0 (skb) has an xdp program, and prog "
    "first id=N is a sched_cls one",
    "the same priority": "a BPF program is at priority -N of that hook already: link netfilter "
    "id=N -> netfilter ipv4 local_in priority -N",
    "no update": "links of type netfilter have no BPF_LINK_UPDATE",
    "no end": "links of type raw_tracepoint have no BPF_LINK_DETACH: they end with their last fd "
    "or pin",
    "a second dissector": "the network namespace has a link of a flow_dissector already, and takes "
    "one",
    "one without a link": "the network namespace has a link there: one excludes the other",
    "a link beside one without": "the network namespace has a program without a link there: one "
    "excludes the other",
    "one more than a namespace takes": "the network namespace has N links for BPF_SK_LOOKUP: it "
    "takes no more",
    "offload": "lo takes no program in hw mode (offload)",
    "one more than a hook takes": "device lo for BPF_TCX_INGRESS has N programs: it takes no more",
    "of a device that is gone": "the target of link xdp id=N -> xdp on refused1 (skb) is gone",
}


def of_cgroups(said: Mapping[str, str]) -> dict[str, str]:
    """CGROUPS for the cgroup that a run made, on this machine."""
    (here,) = {found for text in said.values() for found in re.findall(r"/\S+/refused\.\d+", text)}
    expected = {name: text.format(here=here) for name, text in CGROUPS.items()}
    if "version 1" not in said:
        del expected["version 1"]  # this machine has none
    return expected
