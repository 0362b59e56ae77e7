"""Elements of maps: frozen maps, keys that are there or not, full maps, flags."""

from __future__ import annotations

import errno
from typing import Final

from bpftrace_sys.story.explain.failure import Failure
from bpftrace_sys.story.explain.wording import and_words, article, word_set
from bpftrace_sys.story.objects import Map
from decoders.call import inner_value
from decoders.commands import READERS
from decoders.raw import FdFact
from decoders.uapi import const, names
from decoders.values import Bytes, Flags, Pointer


def map_access(failure: Failure) -> list[str]:
    """A frozen map, or one whose fd is for reading or writing only."""
    fact = map_fact(failure)
    if fact is None:
        return []
    writes = failure.command not in READERS
    if writes and fact.info.get("frozen") == 1:
        return [f"{label_of(failure, fact)} is frozen: it can be read only, by system calls"]
    found = failure.model.object(fact, failure.call.raw.pid)
    asked = 0
    if found is not None and found.call is not None:
        asked = found.call.number("attr", "map_flags") or 0
    if writes and asked & const.BPF_F_RDONLY:
        return [f"the fd of {label_of(failure, fact)} is for reading only: BPF_F_RDONLY"]
    if not writes and asked & const.BPF_F_WRONLY:
        return [f"the fd of {label_of(failure, fact)} is for writing only: BPF_F_WRONLY"]
    return []


HASHES: Final = word_set("HASH PERCPU_HASH LRU_HASH LRU_PERCPU_HASH HASH_OF_MAPS")
ARRAYS: Final = word_set(
    """ARRAY PERCPU_ARRAY PROG_ARRAY PERF_EVENT_ARRAY CGROUP_ARRAY ARRAY_OF_MAPS SOCKMAP DEVMAP
    CPUMAP XSKMAP REUSEPORT_SOCKARRAY"""
)


def map_fact(failure: Failure) -> FdFact | None:
    """The map that a call is about, if its fd is one's."""
    fact = failure.call.fact("attr", "map_fd") or failure.call.fact("attr", "batch", "map_fd")
    return fact if fact is not None and fact.kind == "map" else None


def map_kind(fact: FdFact) -> str:
    """The name of a map's type, without its prefix."""
    number = fact.info.get("map_type")
    name = names.bpf_map_type.get(number, "") if isinstance(number, int) else ""
    return name.removeprefix("BPF_MAP_TYPE_")


def label_of(failure: Failure, fact: FdFact) -> str:
    """What an object is called in the trace."""
    found = failure.model.object(fact, failure.call.raw.pid)
    return found.label if found is not None else f"{fact.kind} id={fact.id}"


def key_of(failure: Failure) -> bytes:
    """The bytes of an element's key."""
    key = inner_value(failure.call.attr("attr", "key"))
    return key.data if isinstance(key, Bytes) else b""


SAME_FOR_ALL: Final = frozenset({errno.ENOENT, errno.EEXIST, errno.E2BIG})
"""Errors of an element whose reason is the map's and the flags' alone, but in an array."""


def same_for_all_keys(fact: FdFact, number: int) -> bool:
    """Whether :func:`element_there` and :func:`element_too_big` say the same of every key."""
    return number in SAME_FOR_ALL and map_kind(fact) not in ARRAYS


def element_too_big(failure: Failure) -> list[str]:
    """An index past the end, or a full map."""
    fact = map_fact(failure)
    if fact is None:
        return []
    kind, limit = map_kind(fact), fact.info.get("max_entries")
    if not isinstance(limit, int):
        return []
    if kind in ARRAYS:
        index = int.from_bytes(key_of(failure), "little")
        if len(key_of(failure)) == 4 and index >= limit:
            return [f"index {index} is past the end: {label_of(failure, fact)} has {limit} entries"]
        return []
    if kind in HASHES or kind in ("QUEUE", "STACK"):
        return [f"{label_of(failure, fact)} is full: max_entries is {limit}"]
    return []


def element_invalid(failure: Failure) -> list[str]:
    """Flags of an element, and what a map type cannot do."""
    fact = map_fact(failure)
    if fact is None:
        return []
    flags = failure.call.attr("attr", "flags")
    kind = map_kind(fact)
    if isinstance(flags, Flags) and flags.rest:
        return [f"flags has unknown bits: {flags.rest:#x}"]
    value = flags.value if isinstance(flags, Flags) else 0
    if value & 3 == 3:
        return ["BPF_NOEXIST and BPF_EXIST exclude each other"]
    if failure.command == "BPF_MAP_LOOKUP_ELEM" and value & 3:
        return [f"a lookup cannot have {_elem_names(value & 3)}"]
    if failure.command == "BPF_MAP_DELETE_ELEM" and kind in ("ARRAY", "PERCPU_ARRAY"):
        return [f"elements of {article(kind.lower())} cannot be deleted"]
    if value & const.BPF_F_LOCK and _has_lock(failure, fact) is False:
        said = label_of(failure, fact)
        return [f"{said} has no bpf_spin_lock in its values, as BPF_F_LOCK needs"]
    return []


def _has_lock(failure: Failure, fact: FdFact) -> bool | None:
    """Whether BTF says that the values of a map have a spin lock; None where it was not seen."""
    made = failure.model.object(fact, failure.call.raw.pid)
    if not isinstance(made, Map) or made.call is None:
        return None
    if not made.value_type:
        return False  # without BTF the kernel knows of none
    types = None if made.btf_id is None else failure.model.btf(made.btf_id)
    value = None if types is None else types.resolve(made.value_type)
    if types is None or value is None:
        return None
    inside = [types.resolve(member.type) for member in value.members]
    return any(each is not None and each.name == "bpf_spin_lock" for each in inside)


def _elem_names(bits: int) -> str:
    return and_words([name for bit, name in names.map_elem_flags.items() if bit and bits & bit])


def element_there(failure: Failure) -> list[str]:
    """ENOENT and EEXIST: keys that are not there, or are."""
    fact = map_fact(failure)
    if fact is None:
        return []
    kind, limit = map_kind(fact), fact.info.get("max_entries")
    said = label_of(failure, fact)
    flags = failure.number("flags")
    if failure.errno == errno.EEXIST:
        if kind in ARRAYS and flags & const.BPF_NOEXIST:
            name = article(kind.lower())
            return [f"every element of {name} exists, and BPF_NOEXIST asks for none"]
        if flags & const.BPF_NOEXIST:
            return [f"the key is in {said} already, and BPF_NOEXIST asks for a new one"]
        return []
    key = key_of(failure)
    if failure.command == "BPF_MAP_GET_NEXT_KEY":
        last = isinstance(failure.call.attr("attr", "key"), Pointer)
        return ["that was the last key"] if last else [f"{said} is empty"]
    if kind in ARRAYS and isinstance(limit, int) and len(key) == 4:
        index = int.from_bytes(key, "little")
        if index >= limit:
            return [f"index {index} is past the end: {said} has {limit} entries"]
        if kind in ("ARRAY", "PERCPU_ARRAY"):
            return []
        return [f"nothing is at index {index} of {said}"]
    if kind in ("QUEUE", "STACK"):
        return [f"{said} is empty"]
    if failure.command == "BPF_MAP_UPDATE_ELEM":
        if flags & const.BPF_EXIST:
            return [f"the key is not in {said}, and BPF_EXIST asks for one that is"]
        return []
    return [f"the key is not in {said}"] if kind in HASHES or kind == "LPM_TRIE" else []
