"""EINVAL and ENOTSUPP of BPF_MAP_CREATE: BTF that does not say what the map holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpftrace_sys.story.explain.elements import HASHES
from bpftrace_sys.story.explain.failure import Failure, kind_of
from bpftrace_sys.story.explain.wording import article, word_set

if TYPE_CHECKING:
    from decoders.formats.btf import Btf

NO_BTF: Final = word_set(
    """PERF_EVENT_ARRAY CGROUP_ARRAY STACK_TRACE ARRAY_OF_MAPS HASH_OF_MAPS DEVMAP DEVMAP_HASH
    CPUMAP XSKMAP SOCKMAP SOCKHASH"""
)
"""Types whose map_check_btf() is map_check_no_btf()."""


def btf_fields(failure: Failure) -> list[str]:
    """EINVAL: types of a key and a value that are not what the sizes say (map_check_btf())."""
    kind = kind_of(failure, "map_type", "BPF_MAP_TYPE_")
    key, value = failure.number("btf_key_type_id"), failure.number("btf_value_type_id")
    whole = failure.number("btf_vmlinux_value_type_id")
    if whole and kind != "STRUCT_OPS":
        return [f"btf_vmlinux_value_type_id is for struct_ops maps; here it is {whole}"]
    if key and not value:
        return [f"btf_key_type_id is {key} and btf_value_type_id 0: a key's BTF needs a value's"]
    if not value:
        return []
    btf = failure.model.btf_of(failure.call.fact("attr", "btf_fd"))
    if btf is None:
        return []
    if not key:
        return _without_key(failure, kind, btf, value)
    return _size(failure, btf, "key", key) or _size(failure, btf, "value", value)


def _size(failure: Failure, btf: Btf, what: str, type_id: int) -> list[str]:
    wanted = failure.number(f"{what}_size")
    found = btf.size_of(type_id) if btf.type(type_id) is not None else None
    said = f"btf_{what}_type_id {type_id}"
    if found is None:
        return [f"{said} is no type of that BTF that has a size"]
    if found != wanted:
        name = btf.name(type_id)
        said += f" ({name})" if name else ""
        return [f"{said} has {found} bytes, and {what}_size is {wanted}"]
    return []


def _without_key(failure: Failure, kind: str, btf: Btf, value: int) -> list[str]:
    lines = _size(failure, btf, "value", value)
    if lines or kind not in ("ARRAY", *HASHES):
        return lines
    if kind == "ARRAY" and failure.number("max_entries") == 1:
        return [f"btf_value_type_id {value} stands without a key's: it must be a DATASEC, as .data"]
    return [f"btf_key_type_id is 0: {article(kind.lower())} has BTF of both, key and value"]


def no_btf(failure: Failure) -> list[str]:
    """ENOTSUPP: a type whose keys and values are the kernel's own matter."""
    kind = kind_of(failure, "map_type", "BPF_MAP_TYPE_")
    if kind in NO_BTF and failure.number("btf_value_type_id"):
        return [f"{article(kind.lower())} takes no BTF of keys and values"]
    return []
