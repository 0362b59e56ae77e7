"""What libxdp tries before it attaches: it loads its dispatcher's object, xdp-dispatcher.o.

That object is loaded for its program ``xdp_pass``, with a flag, or to be replaced by an extension
(kernel_has_bpf_flag(), libxdp_check_kern_compat() in lib/libxdp/libxdp.c of xdp-tools); with it
come its BTF, ``.rodata`` and the dispatcher itself. All is closed again. A dispatcher that is to
stay is the same object, but for ``.rodata``: what it is configured to do begins with a byte that
is not zero (xdp-dispatcher.h), and a test's is left empty. So BTF and map are parts of what
filling the map decides.
"""

from __future__ import annotations

from typing import Final

from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import Object
from bpftrace_sys.story.probes.verdicts import Found, string_of
from decoders.call import Call, inner_value
from decoders.uapi import const
from decoders.values import Bytes

BY: Final = "libxdp"
_DISPATCHER: Final = "XDP dispatchers"
_EXTENSION: Final = "extensions of XDP dispatchers"
_FLAGS: Final = {
    const.BPF_F_XDP_HAS_FRAGS: "XDP programs for packets in fragments",
    const.BPF_F_XDP_DEV_BOUND_ONLY: "XDP programs bound to a device",
}
_NAMES: Final = frozenset({_DISPATCHER, _EXTENSION, *_FLAGS.values()})
_OBJECT: Final = 16_384
"""Bytes of BTF that are looked through; the object has 1.5 to 3 KB."""
_PART: Final = Found(_DISPATCHER, BY, weak=True, part=True)


def _of_test(found: Object | None) -> str:
    """The name of the probe that made an object, if that is one of these, or may be."""
    probe = None if found is None or found.call is None else found.call.notes.probe
    return "" if probe is None or probe.name not in _NAMES else probe.name


def btf_load(call: Call, model: Model) -> Found | None:
    """The object's BTF has its functions."""
    blob = inner_value(call.attr("attr", "btf"))
    if not isinstance(blob, Bytes) or len(blob.data) > _OBJECT:
        return None
    names = (b"\0xdp_dispatcher\0", b"\0xdp_pass\0")
    return _PART if all(name in blob.data for name in names) else None


def map_create(call: Call, model: Model) -> Found | None:
    """Its .rodata."""
    return _PART if _of_test(model.by_fd(call, "attr", "btf_fd")) else None


def map_update(call: Call, model: Model) -> Found | None:
    """What a test fills it with."""
    if not _of_test(model.by_fd(call, "attr", "map_fd")):
        return None
    value = inner_value(call.attr("attr", "value"))
    empty = isinstance(value, Bytes) and value.data[:1] == b"\0"
    return Found(_DISPATCHER, BY) if empty else None


def map_freeze(call: Call, model: Model) -> Found | None:
    """As libbpf does with it."""
    return Found(_DISPATCHER, BY) if _of_test(model.by_fd(call, "attr", "map_fd")) else None


def bind_map(call: Call, model: Model) -> Found | None:
    """Likewise."""
    name = _of_test(model.by_fd(call, "attr", "prog_bind_map", "prog_fd"))
    return Found(name, BY) if name else None


def prog_load(call: Call, model: Model) -> Found | None:
    """The dispatcher, and what it is loaded for."""
    name = string_of(call.attr("attr", "prog_name"))
    if name not in ("xdp_dispatcher", "xdp_pass"):
        return None
    if not _of_test(model.by_fd(call, "attr", "prog_btf_fd")):
        return None
    if name == "xdp_dispatcher":
        return Found(_DISPATCHER, BY)
    return Found(_FLAGS.get(call.number("attr", "prog_flags") or 0, _EXTENSION), BY)


def raw_tracepoint_open(call: Call, model: Model) -> Found | None:
    """The extension is attached."""
    name = _of_test(model.by_fd(call, "attr", "raw_tracepoint", "prog_fd"))
    return Found(name, BY) if name else None


def obj_pin(call: Call, model: Model) -> Found | None:
    """Its link is pinned, to see whether it can be."""
    name = _of_test(model.by_fd(call, "attr", "bpf_fd"))
    return Found(name, BY) if name else None


def info(call: Call, model: Model) -> Found | None:
    """What was made is asked about."""
    name = _of_test(model.by_fd(call, "attr", "info", "bpf_fd"))
    return Found(name, BY) if name else None


def btf_by_id(call: Call, model: Model) -> Found | None:
    """Its BTF is opened again."""
    name = _of_test(model.objects.get(("btf", call.number("attr", "btf_id") or 0)))
    return Found(name, BY) if name else None
