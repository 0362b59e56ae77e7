"""What kind of thing each bpf(2) command and each ioctl does, as a row each.

What follows from a command's kind (what diff counts, what is explained how, which calls change
nothing) asks here, by trait and not by name. A command or request that has no row has no trait.
"""

from __future__ import annotations

from typing import Final

from decoders.records import NamedTuple


class Traits(NamedTuple):
    """A command's kind."""

    collects: bool = False
    """It collects what programs wrote (deleting is part of that): how many there are, and what
    they find, depends on what happened on the machine."""
    walks: bool = False
    """It looks at objects; of those from before the trace it finds what the machine has."""
    element: bool = False
    """It is about one element of a map: attr.map_fd, attr.key."""
    keyed: bool = False
    """The kernel reads a key of the map's key_size."""
    batch: bool = False
    """It is about many elements: attr.batch."""
    looks: bool = False
    """Afterwards all is as before, but for what it makes."""
    repeats: bool = False
    """How often it is called says nothing: it does the same again."""


_WALK: Final = Traits(walks=True)

TRAITS: Final[dict[str, Traits]] = {
    "BPF_MAP_CREATE": Traits(looks=True),
    "BPF_MAP_LOOKUP_ELEM": Traits(collects=True, element=True, keyed=True, looks=True),
    "BPF_MAP_UPDATE_ELEM": Traits(element=True, keyed=True, repeats=True),
    "BPF_MAP_DELETE_ELEM": Traits(collects=True, element=True, keyed=True),
    "BPF_MAP_GET_NEXT_KEY": Traits(collects=True, element=True, looks=True),
    "BPF_PROG_LOAD": Traits(looks=True),
    "BPF_OBJ_PIN": Traits(),
    "BPF_OBJ_GET": Traits(looks=True, repeats=True),
    "BPF_PROG_ATTACH": Traits(),
    "BPF_PROG_DETACH": Traits(),
    "BPF_PROG_TEST_RUN": Traits(looks=True, repeats=True),
    "BPF_PROG_GET_NEXT_ID": _WALK,
    "BPF_MAP_GET_NEXT_ID": _WALK,
    "BPF_PROG_GET_FD_BY_ID": _WALK,
    "BPF_MAP_GET_FD_BY_ID": _WALK,
    "BPF_OBJ_GET_INFO_BY_FD": Traits(walks=True, looks=True),
    "BPF_PROG_QUERY": Traits(looks=True, repeats=True),
    "BPF_RAW_TRACEPOINT_OPEN": Traits(),
    "BPF_BTF_LOAD": Traits(),
    "BPF_BTF_GET_FD_BY_ID": _WALK,
    "BPF_TASK_FD_QUERY": Traits(walks=True, looks=True),
    "BPF_MAP_LOOKUP_AND_DELETE_ELEM": Traits(collects=True, element=True),
    "BPF_MAP_FREEZE": Traits(),
    "BPF_BTF_GET_NEXT_ID": _WALK,
    "BPF_MAP_LOOKUP_BATCH": Traits(collects=True, batch=True, looks=True),
    "BPF_MAP_LOOKUP_AND_DELETE_BATCH": Traits(collects=True, batch=True),
    "BPF_MAP_UPDATE_BATCH": Traits(batch=True, repeats=True),
    "BPF_MAP_DELETE_BATCH": Traits(collects=True, batch=True),
    "BPF_LINK_CREATE": Traits(),
    "BPF_LINK_UPDATE": Traits(),
    "BPF_LINK_GET_FD_BY_ID": _WALK,
    "BPF_LINK_GET_NEXT_ID": _WALK,
    "BPF_ENABLE_STATS": Traits(),
    "BPF_ITER_CREATE": Traits(looks=True),
    "BPF_LINK_DETACH": Traits(),
    "BPF_PROG_BIND_MAP": Traits(),
    "BPF_TOKEN_CREATE": Traits(),
    "BPF_PROG_STREAM_READ_BY_FD": Traits(collects=True, looks=True),
    "BPF_PROG_ASSOC_STRUCT_OPS": Traits(),
}

IOCTLS: Final[dict[str, Traits]] = {
    "PERF_EVENT_IOC_ENABLE": Traits(),
    "PERF_EVENT_IOC_DISABLE": Traits(),
    "PERF_EVENT_IOC_REFRESH": Traits(),
    "PERF_EVENT_IOC_RESET": Traits(repeats=True),
    "PERF_EVENT_IOC_PERIOD": Traits(),
    "PERF_EVENT_IOC_SET_OUTPUT": Traits(),
    "PERF_EVENT_IOC_SET_FILTER": Traits(),
    "PERF_EVENT_IOC_ID": Traits(looks=True, repeats=True),
    "PERF_EVENT_IOC_SET_BPF": Traits(),
    "PERF_EVENT_IOC_PAUSE_OUTPUT": Traits(),
    "PERF_EVENT_IOC_QUERY_BPF": Traits(looks=True, repeats=True),
    "PERF_EVENT_IOC_MODIFY_ATTRIBUTES": Traits(),
    "TUNSETSTEERINGEBPF": Traits(),
    "TUNSETFILTEREBPF": Traits(),
    "SIOCKCMATTACH": Traits(),
    "SIOCKCMUNATTACH": Traits(),
    "SIOCKCMCLONE": Traits(),
}

COLLECTS: Final = frozenset(name for name, traits in TRAITS.items() if traits.collects)
WALKS: Final = frozenset(name for name, traits in TRAITS.items() if traits.walks)
ELEMENT: Final = frozenset(name for name, traits in TRAITS.items() if traits.element)
KEYED: Final = frozenset(name for name, traits in TRAITS.items() if traits.keyed)
BATCH: Final = frozenset(name for name, traits in TRAITS.items() if traits.batch)
LOOKS: Final = frozenset(name for name, traits in TRAITS.items() if traits.looks)
REPEATS: Final = frozenset(name for name, traits in TRAITS.items() if traits.repeats)
IOCTLS_LOOK: Final = frozenset(name for name, traits in IOCTLS.items() if traits.looks)
IOCTLS_REPEAT: Final = frozenset(name for name, traits in IOCTLS.items() if traits.repeats)
READERS: Final = frozenset(
    name for name in LOOKS if TRAITS[name].element or TRAITS[name].batch
)
"""Commands that read elements and change none."""
