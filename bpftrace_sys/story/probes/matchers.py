"""The table of probes: commands, and what looks whether a call has the shape of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bpftrace_sys.story.model import Model
from bpftrace_sys.story.probes import calls, libxdp
from bpftrace_sys.story.probes.btf import btf_load
from bpftrace_sys.story.probes.maps import map_create
from bpftrace_sys.story.probes.programs import prog_load
from bpftrace_sys.story.probes.verdicts import Found
from decoders.call import Call

Matcher = Callable[[Call, Model], "Found | None"]

MATCHERS: Final[dict[str, tuple[Matcher, ...]]] = {
    "BPF_PROG_LOAD": (prog_load, libxdp.prog_load),
    "BPF_PROG_LOAD|BPF_COMMON_ATTRS": (calls.common_attrs,),
    "BPF_MAP_CREATE": (map_create, libxdp.map_create),
    "BPF_MAP_UPDATE_ELEM": (libxdp.map_update,),
    "BPF_MAP_FREEZE": (libxdp.map_freeze,),
    "BPF_BTF_LOAD": (btf_load, libxdp.btf_load),
    "BPF_BTF_GET_FD_BY_ID": (libxdp.btf_by_id,),
    "BPF_LINK_CREATE": (calls.link_create,),
    "BPF_RAW_TRACEPOINT_OPEN": (calls.raw_tracepoint_open, libxdp.raw_tracepoint_open),
    "BPF_PROG_BIND_MAP": (calls.bind_map, libxdp.bind_map),
    "BPF_MAP_LOOKUP_BATCH": (calls.lookup_batch,),
    "BPF_MAP_UPDATE_BATCH": (calls.lookup_batch,),
    "BPF_OBJ_GET_INFO_BY_FD": (calls.info, libxdp.info),
    "BPF_OBJ_PIN": (libxdp.obj_pin,),
    "BPF_PROG_TEST_RUN": (calls.test_run,),
    "BPF_PROG_QUERY": (calls.prog_query,),
    "BPF_PROG_ATTACH": (calls.prog_attach,),
    "BPF_TOKEN_CREATE": (calls.token_create,),
}
"""By command; the first that knows a call's shape has the word."""
