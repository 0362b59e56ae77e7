"""How programs are told apart where ids differ from run to run."""

from __future__ import annotations

from bpftrace_sys.story.model import Model, full_name
from bpftrace_sys.story.objects import text_of
from decoders.call import Call, inner_value
from decoders.values import Name


def prog_key(call: Call, model: Model) -> tuple[str, str]:
    """Name and type of the program that a PROG_LOAD loads or tries to load."""
    name = text_of(call.attr("attr", "prog_name"))
    full = full_name(call, model)
    if full and full.startswith(name):
        name = full
    kind = inner_value(call.attr("attr", "prog_type"))
    number = kind.value if isinstance(kind, Name) else None
    if isinstance(kind, Name) and kind.name is not None:
        return name, kind.name.removeprefix("BPF_PROG_TYPE_").lower()
    return name, str(number)
