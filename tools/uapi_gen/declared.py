"""The structs that decoders/declare/ has declarations of, as decoders.uapi.layouts has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import construct as cs

from decoders.declare import bpf_attr, bpf_fields, bpf_info, perf_attr, perf_ioctl
from decoders.declare.fields import Bits, Padding, Skip
from decoders.declare.structs import Pick, layout_of


class Place(NamedTuple):
    """A declared member, as LAYOUTS has it."""

    path: str
    offset: int
    size: int
    bit_offset: int | None
    bit_size: int | None
    signed: bool | None
    """None: not a number."""


def alternatives(pick: Pick) -> list[Any]:
    """The structs that a Pick chooses from, each once."""
    rows = [row for row in (*pick.rows.values(), pick.default) if row is not None]
    return list({id(row): row for row in rows}.values())


def bare(field: Any) -> Any:
    """The construct part of a field."""
    while isinstance(field, cs.Subconstruct) and not isinstance(field, cs.Struct):
        field = field.subcon
    return field


def places(declaration: Any, prefix: str = "", base: int = 0) -> Iterator[Place]:
    """Every member that a declaration has a name for, in all its alternatives."""
    for slot in layout_of(declaration).slots:
        at = base + slot.offset
        field = slot.field
        if slot.kind == "struct":
            yield from places(field, f"{prefix}{slot.name}.", at)
        elif slot.kind == "pick":
            for row in alternatives(field):
                assert layout_of(row).size <= slot.size, f"{prefix}{slot.name} is too small"
                yield from places(row, prefix, at)
        elif isinstance(field, Bits):
            for name, shift, width, _ in field.members:
                yield Place(prefix + name, at, slot.size, shift, width, False)
        elif not isinstance(field, Skip) and not (
            isinstance(field, Padding) and not slot.name.startswith("__")
        ):
            number = bare(field)
            signed = None
            if isinstance(number, cs.FormatField):
                signed = number.fmtstr[-1].islower()
            for name in [slot.name, *([slot.called.other] if slot.called else [])]:
                yield Place(prefix + name, at, slot.size, None, None, signed)


SHARED: Final = {"bpf_attr.MAP_*_ELEM", "bpf_attr.*_GET_*_ID"}
"""Structs of several commands, of which each has its own members of their unions."""
NOT_DECLARED: Final = {
    "aux_action": "its bits are declared: aux_start_paused, aux_pause, aux_resume",
    "ids": "perf_event_query_bpf's flexible array is the declaration's tail",
}
"""Members that LAYOUTS has and no declaration does, and why."""


def one_of(number: int) -> tuple[str, Any]:
    """The key in LAYOUTS and the declaration of a command's own struct."""
    attr = bpf_attr.COMMANDS[number].attr
    layout = layout_of(attr)
    if layout.ctype == "bpf_attr":
        (slot,) = layout.slots
        return f"bpf_attr.{slot.name}", slot.field
    return layout.ctype, attr


STRUCTS: Final[dict[str, Any]] = {
    "bpf_common_attr": bpf_attr.COMMON_ATTR,
    "bpf_func_info": bpf_fields.FUNC_INFO,
    "bpf_line_info": bpf_fields.LINE_INFO,
    "bpf_core_relo": bpf_fields.CORE_RELO,
    "bpf_prog_info": bpf_info.PROG_INFO,
    "bpf_map_info": bpf_info.MAP_INFO,
    "bpf_btf_info": bpf_info.BTF_INFO,
    "bpf_link_info": bpf_info.LINK_INFO,
    "bpf_token_info": bpf_info.TOKEN_INFO,
    "perf_event_attr": perf_attr.PERF_ATTR,
    "perf_event_query_bpf": perf_ioctl.QUERY_BPF,
    "kcm_attach": perf_ioctl.KCM_ATTACH,
    "kcm_unattach": perf_ioctl.KCM_UNATTACH,
    **dict(one_of(number) for number in bpf_attr.COMMANDS),
}
"""Every struct that is declared, by its key in LAYOUTS (of commands that share one, one)."""
