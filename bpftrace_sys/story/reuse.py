"""A pinned map that is used again, and is another one than the caller's object asks for.

The kernel refuses nothing: libbpf compares and gives up, others read and write with wrong sizes.
What is asked for stands in the BTF that the same process loaded, as section ``.maps`` (libbpf's way
of declaring maps: __uint() and __type() of tools/lib/bpf/bpf_helpers.h).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import NAME_LEN, Map, NotedCall
from decoders.formats.btf_types import Kind, Type
from decoders.records import NamedTuple
from decoders.uapi import const, names

if TYPE_CHECKING:
    from decoders.formats.btf import Btf

LOOKED_AT: Final = 8
"""BTFs of a process that are searched, the newest first."""
MAPS: Final = 1024
"""Declared maps that are looked through."""
FITTED: Final = frozenset(
    {
        const.BPF_MAP_TYPE_LRU_PERCPU_HASH,
        const.BPF_MAP_TYPE_CPUMAP,
        const.BPF_MAP_TYPE_PERF_EVENT_ARRAY,
        const.BPF_MAP_TYPE_RINGBUF,
        const.BPF_MAP_TYPE_USER_RINGBUF,
    }
)
"""Types whose max_entries libbpf or the kernel fits to CPUs and pages."""


class Wanted(NamedTuple):
    """A map as an object declares it; None: it does not say."""

    map_type: int | None = None
    key_size: int | None = None
    value_size: int | None = None
    max_entries: int | None = None


def differs(call: NotedCall, model: Model) -> list[str]:
    """In what a map that BPF_OBJ_GET found differs from what the caller's object declares."""
    found = call.notes.made
    if call.raw.failed or not isinstance(found, Map) or not found.name:
        return []
    wanted = _wanted(model, call.raw.pid, found.name)
    if wanted is None:
        return []
    has = Wanted(found.map_type, found.key_size, found.value_size, found.max_entries)
    return [
        f"{name} is {_told(name, got)}, and .maps of the object asks for {_told(name, asked)}"
        for name, got, asked in zip(Wanted._fields, has, wanted, strict=True)
        if got is not None
        and asked is not None
        and got != asked
        and not (name == "max_entries" and found.map_type in FITTED)
    ]


def _told(name: str, number: int) -> str:
    full = names.bpf_map_type.get(number) if name == "map_type" else None
    return str(number) if full is None else full.removeprefix("BPF_MAP_TYPE_").lower()


def _wanted(model: Model, pid: int, name: str) -> Wanted | None:
    """What the newest BTF of a process that declares a map of that name asks for."""
    loaded = [
        number
        for (kind, number), known in model.objects.items()
        if kind == "btf" and known.call is not None and known.call.raw.pid == pid
    ]
    for number in loaded[: -LOOKED_AT - 1 : -1]:
        btf = model.btf(number)
        if btf is None:
            continue
        section = btf.find(".maps", Kind.DATASEC)
        for variable in () if section is None else section.variables[:MAPS]:
            declared = btf.type(variable.type)
            if declared is not None and declared.name[:NAME_LEN] == name[:NAME_LEN]:
                return _definition(btf, btf.resolve(declared.type))
    return None


def _definition(btf: Btf, struct: Type | None) -> Wanted | None:
    if struct is None or struct.kind != Kind.STRUCT:
        return None
    numbers = {}
    for member in struct.members[:64]:
        pointer = btf.resolve(member.type)
        if pointer is None or pointer.kind != Kind.PTR:
            continue
        if member.name in ("key", "value"):
            numbers[f"{member.name}_size"] = btf.size_of(pointer.type)
            continue
        array = btf.resolve(pointer.type)
        if array is not None and array.kind == Kind.ARRAY:
            numbers[member.name] = array.nelems
    get = numbers.get
    return Wanted(get("type"), get("key_size"), get("value_size"), get("max_entries"))
