"""Calls that cannot succeed, or that use what a probe has made."""

from __future__ import annotations

import errno
from typing import Final

from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import Object
from bpftrace_sys.story.probes.maps import LIBBPF_MAPS
from bpftrace_sys.story.probes.programs import LINK_TESTS
from bpftrace_sys.story.probes.verdicts import (
    ANY_FD,
    ENOTSUPP,
    NOBODY,
    Found,
    fails_with,
    name_of,
    string_of,
)
from decoders.call import Call, number_of
from decoders.values import Absent, Changed

EXTENSION: Final = "program type ext"


def _probe_of(found: Object | None) -> str | None:
    """The name of the probe that made an object, if one did."""
    if found is None or found.call is None:
        return None
    probe = found.call.notes.probe
    return None if probe is None else probe.name


def link_create(call: Call, model: Model) -> Found | None:
    """A link of fd -1, or of a probe's program."""
    link = ("attr", "link_create")
    kind = name_of(call.attr(*link, "attach_type"))
    prog_fd = call.number(*link, "prog_fd")
    target = call.number(*link, "target_fd")
    prog = model.by_fd(call, *link, "prog_fd")
    if prog_fd == ANY_FD and target == ANY_FD:
        return Found("bpf links", "cilium/ebpf", fails_with(errno.EBADF))
    of_probe = _probe_of(prog)
    if of_probe is None:
        return None
    if kind == "BPF_PERF_EVENT" and target in (ANY_FD, 0):
        return Found("perf links", "libbpf, cilium/ebpf", fails_with(errno.EBADF))
    path = string_of(call.attr(*link, "uprobe_multi", "path"))
    if kind == "BPF_TRACE_UPROBE_MULTI" and path == "/":
        if call.number(*link, "uprobe_multi", "pid") == NOBODY:
            return Found("uprobe_multi links of a process", "libbpf", fails_with(errno.EINVAL))
        return Found(
            "uprobe_multi links", "libbpf, bpftrace, cilium/ebpf", fails_with(errno.EBADF)
        )
    if kind in LINK_TESTS:
        return Found(LINK_TESTS[kind], "bpftrace, cilium/ebpf")
    if call.number(*link, "target_ifindex") == NOBODY:
        name = "tcx links" if kind.startswith("BPF_TCX") else "netkit links"
        return Found(name, "cilium/ebpf", fails_with(errno.ENODEV))
    return None


def raw_tracepoint_open(call: Call, model: Model) -> Found | None:
    """An fentry program of a probe is attached."""
    prog = model.by_fd(call, "attr", "raw_tracepoint", "prog_fd")
    if _probe_of(prog) == "fentry programs":
        return Found("fentry programs", "libbpf-tools")
    return None


def bind_map(call: Call, model: Model) -> Found | None:
    """A map of a probe is bound to a program."""
    bound = model.by_fd(call, "attr", "prog_bind_map", "map_fd")
    name = LIBBPF_MAPS["libbpf_det_bind"]
    return Found(name, "libbpf") if _probe_of(bound) == name else None


def lookup_batch(call: Call, model: Model) -> Found | None:
    """A map of a probe is read or filled in batches."""
    used = model.by_fd(call, "attr", "batch", "map_fd")
    name = "map operations in batches"
    return Found(name, "bpftrace, cilium/ebpf") if _probe_of(used) == name else None


def info(call: Call, model: Model) -> Found | None:
    """The BTF of a probe is asked about, or the maps of one without any."""
    asked = model.by_fd(call, "attr", "info", "bpf_fd")
    kind = "" if asked is None else asked.kind
    of_probe = _probe_of(asked)
    if kind == "btf" and of_probe == "BTF":
        return Found("BTF of modules", "libbpf")
    if kind == "btf" and of_probe == EXTENSION:
        return Found(EXTENSION, "cilium/ebpf")
    ids = call.attr("attr", "info", "info", "nr_map_ids")
    asks = isinstance(ids, Changed) and number_of(ids.before) == 1
    if asks and kind == "prog" and of_probe == "loading a program":
        return Found("ids of a program's maps", "cilium/ebpf")
    return None


def prog_query(call: Call, model: Model) -> Found | None:
    """A query of what is attached to fd -1."""
    query = ("attr", "query")
    if call.number(*query, "target_fd") != ANY_FD:
        return None
    if name_of(call.attr(*query, "attach_type")) != "BPF_CGROUP_INET_INGRESS":
        return None
    return Found("BPF_PROG_QUERY", "cilium/ebpf", fails_with(errno.EBADF))


def prog_attach(call: Call, model: Model) -> Found | None:
    """A program of a probe is attached to fd -1."""
    if call.number("attr", "target_fd") != ANY_FD:
        return None
    prog = model.by_fd(call, "attr", "attach_bpf_fd")
    if _probe_of(prog) is None:
        return None
    return Found("replacing cgroup programs", "cilium/ebpf", fails_with(errno.EBADF))


def common_attrs(call: Call, model: Model) -> Found | None:
    """A PROG_LOAD of nothing, with an address for common attributes that cannot be read."""
    pointer = call.attr("common", "attr_common") or call.attr("attr_common")
    if not isinstance(pointer, Absent) or call.number("attr", "insn_cnt"):
        return None
    return Found("common attributes of bpf()", "libbpf", fails_with(errno.EFAULT))


def test_run(call: Call, model: Model) -> Found | None:
    """A program of a probe is run."""
    used = model.by_fd(call, "attr", "test", "prog_fd")
    probe = _probe_of(used)
    size = call.number("attr", "test", "data_size_in")
    if probe == "program type raw_tracepoint" and not size:
        return Found("test runs of raw tracepoints", "bpftrace")
    load = None if used is None else used.call
    if probe == "loading a program" and size in (14, 15) and load is not None:
        if string_of(load.attr("attr", "license")) != "MIT":
            return None
        return Found("BPF_PROG_TEST_RUN", "cilium/ebpf", fails_with(errno.EINTR, ENOTSUPP))
    return None


def token_create(call: Call, model: Model) -> Found | None:
    """A token of /sys/fs/bpf, which libbpf asks for on the chance at each open, cilium/ebpf at its
    first call."""
    fact = call.fact("attr", "token_create", "bpffs_fd")
    if fact is None or fact.info.get("path") != "/sys/fs/bpf" or not call.raw.failed:
        return None
    if call.number("attr", "token_create", "flags"):
        return None
    return Found("BPF tokens in this user namespace", "libbpf 1.5 and later, cilium/ebpf")
