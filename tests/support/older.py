"""bpfstrace as it was before this kernel: our tables with pieces taken out.

Run it in place of ``python -m bpftrace_sys``.  What is missing here, the
running kernel's BTF knows; so this is what a kernel newer than us looks like.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from decoders.uapi import layouts, names, perf

BITS = 37  # of perf_event_attr: those up to remove_on_exec
GONE_FIELDS: dict[str, Callable[[layouts.Member], bool]] = {
    "bpf_attr": lambda member: member.path.startswith(("enable_stats.", "map_extra")),
    "bpf_prog_info": lambda member: member.offset >= 216,
    "perf_event_attr": lambda member: (
        member.offset >= 120 or (member.offset == 40 and BITS <= (member.bit_offset or 0) < 40)
    ),
}


def forget_names() -> None:
    """To be called before any declaration makes its own of the tables."""
    assert "decoders.declare.fields" not in sys.modules
    names.bpf_map_type.pop(27)  # BPF_MAP_TYPE_RINGBUF
    names.map_flags.pop(0x400)  # BPF_F_MMAPABLE
    names.bpf_cmd.pop(32)  # BPF_ENABLE_STATS
    perf.perf_event_sample_format.pop(1 << 20)  # PERF_SAMPLE_AUX


def forget_fields() -> None:
    """Takes fields out of layouts and declarations, and a command."""
    import construct as cs

    from decoders.declare import bpf_attr, bpf_info, bpf_map_attr, perf_attr
    from decoders.declare.fields import Bits
    from decoders.declare.structs import kernel

    def shorter(name: str, declaration: Any, size: int) -> Any:
        kept: list[Any] = []
        at = 0
        for field in declaration.subcons:
            if at >= size:
                break
            kept.append(field)
            at += field.sizeof()
        return kernel(name, cs.Struct(*kept))

    for struct, gone in GONE_FIELDS.items():
        layouts.LAYOUTS[struct] = tuple(
            member for member in layouts.LAYOUTS[struct] if not gone(member)
        )
    bpf_attr.COMMANDS.pop(32)
    bpf_attr.ATTR.rows.pop(32)  # type: ignore[attr-defined]
    bpf_attr.ATTR.rows[0] = shorter(  # type: ignore[index]
        "bpf_attr.MAP_CREATE", bpf_map_attr.MAP_CREATE, 64
    )
    bpf_info.INFO["prog"] = shorter("bpf_prog_info", bpf_info.PROG_INFO, 216)
    flags = Bits(
        cs.Int64ul,
        *(member for member in perf_attr.FLAGS.members if member[1] < BITS),
        ("__reserved_1", BITS, 64 - BITS, None),
    )
    fields = [
        "flags" / flags if field.name == "flags" else field
        for field in perf_attr.PERF_ATTR.subcons
    ]
    perf_attr.PERF_ATTR_POINTER.item = shorter("perf_event_attr", cs.Struct(*fields), 120)


if __name__ == "__main__":
    forget_names()
    forget_fields()
    from bpftrace_sys.cli.main import main

    raise SystemExit(main())
