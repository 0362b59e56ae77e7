"""union bpf_attr of the commands on maps: making them, their elements, singly and in batches."""

from __future__ import annotations

import errno
from typing import Any, Final

from decoders.constructs import cs
from decoders.declare.bpf_fields import (
    FD,
    IFINDEX,
    OPT_FD,
    OUT_U32,
)
from decoders.declare.fields import (
    U32,
    X64,
    Chars,
    FactField,
    FlagSet,
    MustBeZero,
    Named,
    Padding,
    this,
)
from decoders.declare.map_value import ValueIn, ValueOut
from decoders.declare.structs import Blob, In, Out
from decoders.uapi import const, names
from decoders.values import Flags, Value
from decoders.walk.measures import (
    cursor_size,
    is_bloom_filter,
    key_size,
    keys_size,
    value_size,
    values_size,
)
from decoders.walk.scope import Scope

MAP_CREATE = cs.Struct(
    "map_type" / Named(cs.Int32ul, names.bpf_map_type, "bpf_map_type"),
    "key_size" / U32,
    "value_size" / U32,
    "max_entries" / U32,
    "map_flags" / FlagSet(cs.Int32ul, names.map_flags, "BPF_F"),
    "inner_map_fd" / OPT_FD,
    "numa_node" / U32,
    "map_name" / Chars(16),
    "map_ifindex" / IFINDEX,
    "btf_fd" / OPT_FD,
    "btf_key_type_id" / U32,
    "btf_value_type_id" / U32,
    "btf_vmlinux_value_type_id" / FactField(cs.Int32ul, "btf_vmlinux"),
    "map_extra" / X64,
    "value_type_btf_obj_fd" / OPT_FD,
    "map_token_fd" / OPT_FD,
    "excl_prog_hash" / In(Blob(this.excl_prog_hash_size)),
    "excl_prog_hash_size" / U32,
    "_" / Padding(4),
)


class ElemFlags(FlagSet):
    """Flags of an element; with BPF_F_CPU the upper half is a CPU number."""

    def value(self, raw: Any, scope: Scope) -> Value:
        if not raw & const.BPF_F_CPU:
            return super().value(raw, scope)
        found = super().value(raw & 0xFFFFFFFF, scope)
        assert isinstance(found, Flags)
        return found._replace(value=raw, names=(*found.names, f"{raw >> 32}<<32"))


ELEM_FLAGS = ElemFlags(cs.Int64ul, names.map_elem_flags, "BPF")


def _elem(**pointers: Any) -> Any:
    """The anonymous struct of the MAP_*_ELEM commands; ``value`` or ``next_key`` last."""
    (key, key_way), (value, value_way) = pointers.items()
    return cs.Struct(
        "map_fd" / FD,
        "_" / Padding(4),
        key / key_way,
        value / value_way,
        "flags" / ELEM_FLAGS,
    )


KEY_IN = In(Blob(key_size))
MAP_LOOKUP_ELEM = _elem(
    key=KEY_IN, value=Out(ValueOut(value_size), reads_if=is_bloom_filter)
)
MAP_UPDATE_ELEM = _elem(key=KEY_IN, value=In(ValueIn(value_size)))
MAP_DELETE_ELEM = cs.Struct(
    "map_fd" / FD,
    "_" / Padding(4),
    "key" / KEY_IN,
    "value" / MustBeZero(X64),
    "flags" / MustBeZero(ELEM_FLAGS),
)
MAP_GET_NEXT_KEY = cs.Struct(
    "map_fd" / FD,
    "_" / Padding(4),
    "key" / KEY_IN,
    "next_key" / Out(Blob(key_size)),
    "flags" / MustBeZero(ELEM_FLAGS),
)
# A hash map's key of LOOKUP_AND_DELETE is read; a queue's or stack's is NULL.
MAP_LOOKUP_AND_DELETE_ELEM = MAP_LOOKUP_ELEM
MAP_FREEZE = cs.Struct(
    "map_fd" / FD,
    "_" / Padding(4),
    "key" / MustBeZero(X64),
    "value" / MustBeZero(X64),
    "flags" / MustBeZero(ELEM_FLAGS),
)


# With these a lookup has copied ``count`` elements, and the cursor behind them.
PARTLY: Final = frozenset({errno.ENOENT, errno.ENOSPC, errno.EINTR, errno.EAGAIN})


def _batch(way: Any) -> Any:
    """struct batch; what is In for updates and deletes is Out for lookups."""
    always = {"always": PARTLY} if way is Out else {}
    return cs.Struct(
        "batch"
        / cs.Struct(
            "in_batch" / In(Blob(cursor_size)),
            "out_batch" / Out(Blob(cursor_size), always=PARTLY),
            "keys" / way(Blob(keys_size), **always),
            "values" / way(Blob(values_size), **always),
            "count" / OUT_U32,
            "map_fd" / FD,
            "elem_flags" / ELEM_FLAGS,
            "flags" / X64,
        )
    )


BATCH_OUT = _batch(Out)
BATCH_IN = _batch(In)
