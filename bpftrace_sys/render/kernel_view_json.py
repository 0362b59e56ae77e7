"""What the kernel made of a program, as fields of its line in a JSON trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bpftrace_sys.render.json_objects import insns_json, object_json
from bpftrace_sys.story import kernel_map
from bpftrace_sys.story.kernel_view import (
    NativeFunction,
    NoDisassemblerError,
    Seen,
    native,
    reasons,
    translated,
)
from bpftrace_sys.trace.kernel_view import view_line


def kernel_view_json(seen: Seen, packed: Callable[[bytes], Any]) -> dict[str, object]:
    """The line: what was asked for when it was recorded, decoded; and ``raw``."""
    view = seen.view
    line = view_line(view, packed)
    raw = line.pop("raw")
    if seen.prog is not None:
        line["prog"] = object_json(seen.prog)
    remarks = list(reasons(view))
    if "xlated" in view.asked and view.info.xlated:
        line["xlated"] = insns_json(translated(view, seen.known))
    functions: list[NativeFunction] = []
    if "jited" in view.asked and view.info.jited:
        try:
            functions = native(view, seen.known)
            line["jited"] = [function_json(function) for function in functions]
        except NoDisassemblerError as error:
            remarks.append(str(error))
    if "map" in view.asked and view.mapping is not None:
        if view.mapping.problem:
            remarks.append(f"which instruction became which is not known: {view.mapping.problem}")
        else:
            line["map"] = [_fate_json(fate) for fate in kernel_map.fates(seen, functions)]
    if remarks:
        line["remarks"] = remarks
    line["raw"] = raw
    return line


def function_json(function: NativeFunction) -> dict[str, object]:
    """The native code of a function."""
    lines = []
    for row in function.lines:
        line: dict[str, object] = {"offset": row.offset, "text": row.text, "hex": row.code.hex()}
        if row.source is not None:
            line["src"] = row.source
        if row.target is not None:
            line["target"] = hex(row.target)
        lines.append(line)
    return {
        "symbol": function.symbol,
        **({"addr": hex(function.addr)} if function.addr else {}),
        **({"fn": function.prototype} if function.prototype else {}),
        "size": function.size,
        **({"unlisted": function.unlisted} if function.unlisted else {}),
        "insns": lines,
    }


def _fate_json(fate: kernel_map.Fate) -> dict[str, object]:
    line: dict[str, object] = {"what": fate.what}
    if fate.loaded is not None:
        line["pc"] = fate.loaded.pc
    line["xlated"] = [row.pc for row in fate.translated]
    if fate.native:
        line["jited"] = [row.offset for row in fate.native]
    return line
