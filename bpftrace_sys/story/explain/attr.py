"""The shape of an attr: bytes beyond its end, unknown commands, types, flags and names."""

from __future__ import annotations

from typing import Final

from bpftrace_sys.story.explain.failure import NONE, PAGE, Failure
from bpftrace_sys.story.explain.last_fields import end_of, layout_of
from bpftrace_sys.story.explain.wording import and_words, decimal
from decoders.call import inner_value
from decoders.uapi import layouts
from decoders.values import Flags, Pointer, Struct, Text, Value


def too_big(failure: Failure) -> list[str]:
    """Non-zero bytes beyond the kernel's union bpf_attr, or an attr of more than a page."""
    size = failure.call.number("size") or 0
    if size > PAGE:
        return [f"attr is {size} bytes, more than a page"]
    return beyond(failure, failure.attr[:size], "bpf_attr", layout_of(failure.command))


def beyond(failure: Failure, data: bytes, struct: str, layout: str) -> list[str]:
    """Which non-zero bytes lie beyond the kernel's struct, by the field that we know there."""
    known = decimal(failure.fact(f"size {struct}"))
    if known is None or len(data) <= known or not data[known:].strip(b"\0"):
        return []
    name = layout if layout == struct else f"{struct}.{layout}"
    words: dict[str, None] = {}
    for offset in range(known, len(data)):
        if not data[offset]:
            continue
        for member in layouts.LAYOUTS.get(name, ()):
            if member.offset <= offset < member.offset + member.size:
                words[f"{member.path} (offset {member.offset})"] = None
                break
        else:
            words[f"byte {offset}"] = None
    found = list(words)
    shown = ", ".join(found[:6]) + (f" and {len(found) - 6} more" if len(found) > 6 else "")
    return [f"this kernel's {struct} ends at {known}; not zero beyond it: {shown}"]


def unknown_command(failure: Failure) -> list[str]:
    """A command that this kernel has not."""
    number = failure.call.number("cmd") or 0
    if failure.fact("enumerator bpf_cmd", number & 0xFFFF) == NONE:
        name = failure.call.command
        known = f" ({name})" if name.startswith("BPF_") else ""
        return [f"this kernel knows no bpf command {number & 0xFFFF}{known}"]
    return []


def leftovers(failure: Failure) -> list[str]:
    """Non-zero bytes after the last field that the command has (CHECK_ATTR)."""
    attr = inner_value(failure.call.args.get("attr"))
    if not isinstance(attr, Struct):
        return []
    members = (failure.fact("members bpf_attr") or "").split()
    ours = _layout_names(failure) if members else frozenset[str]()
    newer = [
        name
        for name, value in attr.fields
        if name and name in ours and name not in members and _set(value)
    ]
    if newer:
        words = and_words(newer)
        return [f"this kernel has no field {words} for {failure.command}, which is not zero"]
    size = decimal(failure.fact("size bpf_attr"))
    data = failure.attr[: failure.call.number("size") or 0][:size]
    end = end_of(failure)
    if end is not None and data[end:].strip(b"\0"):
        offset = next(at for at in range(end, len(data)) if data[at])
        return [f"byte {offset} of attr is not zero, after the last field of {failure.command}"]
    return []


def _layout_names(failure: Failure) -> frozenset[str]:
    layout = layouts.LAYOUTS.get(f"bpf_attr.{layout_of(failure.command)}", ())
    return frozenset(member.path for member in layout)


def _set(value: Value) -> bool:
    number = getattr(value, "value", None)
    if isinstance(value, Pointer):
        return value.addr != 0
    return isinstance(number, int) and number != 0


_NAME_BYTES: Final = frozenset(
    b"0123456789_.abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)
"""bpf_obj_name_cpy()"""


def bad_name(failure: Failure, field: str) -> list[str]:
    """bpf_obj_name_cpy(): a character that no name may have, or no NUL."""
    value = inner_value(failure.call.attr("attr", field))
    if not isinstance(value, Text) or not value.data:
        return []
    bad = [byte for byte in value.data if byte not in _NAME_BYTES]
    if bad:
        word = repr(chr(bad[0])) if 32 <= bad[0] < 127 else f"byte {bad[0]:#04x}"
        return [f"{field} holds {word}: only letters, digits, _ and . may be in a name"]
    if not value.whole or len(value.data) >= 16:
        return [f"{field} has no NUL within its 16 bytes"]
    return []


def unknown_flags(failure: Failure, field: str) -> list[str]:
    """Bits that nobody knows, or that this kernel does not."""
    value = failure.call.attr("attr", field)
    if not isinstance(value, Flags):
        return []
    if value.rest:
        return [f"{field} has unknown bits: {value.rest:#x}"]
    # Only flags that are enumerators are in BTF; where the oldest is not, none is.
    if field != "map_flags" or failure.fact("flag BPF_F_NO_PREALLOC") != "yes":
        return []
    new = [name for name in value.names if failure.fact(f"flag {name}") == NONE]
    return [f"this kernel does not know {and_words(new)} in {field}"] if new else []


def unknown_type(
    failure: Failure, field: str, enum: str, prefix: str, config: dict[str, str]
) -> list[str]:
    """A type that this kernel lacks, or was built without."""
    number = failure.number(field)
    answer = failure.fact(f"enumerator {enum}", number)
    if answer == NONE:
        known = failure.name(field)
        return [f"this kernel knows no {enum} {number}" + (f" ({known})" if known else "")]
    option = config.get((answer or "").removeprefix(prefix))
    if option is not None and failure.fact(f"config {option}") == "n":
        assert answer is not None
        return [f"this kernel has no {answer}: it is built without CONFIG_{option}"]
    return []
