"""Refused calls get their world before they are told; of others nothing is imported for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from decoders.raw import RawCall

if TYPE_CHECKING:
    from bpftrace_sys.record.ebpf.engine import Watch
    from bpftrace_sys.trace.items import Take, Taken


def keeping(take: Take, watch: Watch) -> Take:
    """What takes items, and hands refused calls on with their world (late_world.py)."""

    def taking(item: Taken) -> None:
        if isinstance(item, RawCall) and item.failed:
            from bpftrace_sys.record.ebpf.late_world import keep

            keep(item, watch)
        take(item)

    return taking
