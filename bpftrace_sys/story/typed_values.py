"""Keys, values and BTF blobs by their meaning.

A map that was made with BTF says what its keys and values are; their bytes
stay, and get the typed value beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bpftrace_sys.story.objects import Map
from decoders.call import Call
from decoders.uapi import const
from decoders.values import Bytes, Int, Struct, Value, rewritten_at

if TYPE_CHECKING:
    from bpftrace_sys.story.model import Model
    from decoders.formats.btf import Btf

ELEMENTS: Final = 4096
"""Elements of a batch, or CPUs, that are told by their type."""
SUMMARY_LIMIT: Final = 1 << 20
"""Bytes of BTF beyond which no summary is made (vmlinux's own is 5 MB)."""

HOLDERS: Final = frozenset(
    {
        const.BPF_MAP_TYPE_PROG_ARRAY,
        const.BPF_MAP_TYPE_ARRAY_OF_MAPS,
        const.BPF_MAP_TYPE_HASH_OF_MAPS,
    }
)
"""Maps where a lookup gives an id (decoders.declare.map_value.ID_NAMES)."""
Change = Callable[[Bytes], Bytes]


def _change(call: Call, path: tuple[str, ...], change: Change) -> None:
    """Puts what ``change`` makes of the Bytes at a path of a call's arguments in their place."""
    args = rewritten_at(
        call.args, path, lambda value: change(value) if isinstance(value, Bytes) else value
    )
    assert isinstance(args, Struct)
    call.args = args


def _one(btf: Btf, type_id: int, data: bytes) -> Value:
    from decoders.formats.btf_values import value

    return value(btf, type_id, data)


def _many(btf: Btf, type_id: int, step: int) -> Change:
    """Bytes of one element or, where they are longer, of several."""

    def change(found: Bytes) -> Bytes:
        # An fd or id says more than the __u32 that the map's BTF has for it.
        if found.typed is not None or not found.data or len(found.data) < found.wanted:
            return found
        if len(found.data) <= step:
            return found._replace(typed=_one(btf, type_id, found.data))
        from decoders.formats.btf_values import values

        several = values(btf, type_id, found.data, step)
        return found._replace(typed=several._replace(items=several.items[:ELEMENTS]))

    return change


def retype(call: Call, model: Model) -> None:
    """Adds types to the keys and values of a map call, a summary to BTF that is loaded or read."""
    command = call.command
    if command == "BPF_BTF_LOAD":
        _summarise(call, ("attr", "btf"))
    elif command == "BPF_OBJ_GET_INFO_BY_FD":
        _summarise(call, ("attr", "info", "info", "btf"))
    elif command.startswith("BPF_MAP_") and command != "BPF_MAP_CREATE":
        batch = "BATCH" in command
        where = ("attr", "batch") if batch else ("attr",)
        used = model.by_fd(call, *where, "map_fd")
        if isinstance(used, Map) and used.btf_id:
            _retype(call, model, used, where, batch)
        if isinstance(used, Map) and used.map_type in HOLDERS:
            _change(call, (*where, "value"), _naming(model))


def _naming(model: Model) -> Change:
    """A lookup in a map of programs or maps gives an id: with the name of what it is."""

    def change(found: Bytes) -> Bytes:
        if not isinstance(found.typed, Struct):
            return found
        fields = []
        for name, value in found.typed.fields:
            if isinstance(value, Int):
                known = model.objects.get((name.removesuffix("_id"), value.value))
                value = value._replace(note=known.name or None) if known is not None else value
            fields.append((name, value))
        return found._replace(typed=Struct(tuple(fields)))

    return change


def _retype(call: Call, model: Model, used: Map, where: tuple[str, ...], batch: bool) -> None:
    btf = None if used.btf_id is None else model.btf(used.btf_id)
    if btf is None:
        return
    from decoders.walk.measures import PERCPU_MAPS

    size = used.value_size or 0
    if used.map_type in PERCPU_MAPS:
        size = (size + 7) & ~7
    key, value = (used.key_type, used.key_size), (used.value_type, size)
    types = (
        {"keys": key, "values": value}
        if batch
        else {"key": key, "next_key": key, "value": value}
    )
    for name, (type_id, step) in types.items():
        if type_id and step:
            _change(call, (*where, name), _many(btf, type_id, step))


def _summarise(call: Call, path: tuple[str, ...]) -> None:
    from decoders.formats import btf, btf_c

    def change(found: Bytes) -> Bytes:
        if len(found.data) < found.wanted or len(found.data) > SUMMARY_LIMIT:
            return found
        try:
            return found._replace(note=btf_c.summary(btf.parse(found.data)))
        except btf.BtfError as error:
            return found._replace(note=str(error))

    _change(call, path, change)
