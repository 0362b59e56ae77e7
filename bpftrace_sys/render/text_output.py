"""What -o says: a file, stdout, a command."""

from __future__ import annotations

import sys

from bpftrace_sys.render.output import Output, OutputError, created

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def open_text(path: str | None, stderr: Any, append: bool = False, split: bool = False) -> Output:
    """The text output: stderr, or what -o says: FILE, begun anew unless ``append`` (``split``: when
    something is written); ``-`` for stdout; ``|COMMAND`` or ``!COMMAND``. Raises OutputError."""
    if path is None:
        return Output(stderr, "<stderr>")
    if path == "-":
        if sys.__stdout__ is None:
            raise OutputError(f"cannot write {path}: stdout is closed")
        return Output(sys.stdout, "<stdout>")
    if path[:1] in ("|", "!"):
        from bpftrace_sys.render.piped import Piped

        return Piped(path[1:])
    if split:
        from bpftrace_sys.render.later import Later

        return Later(path, append)
    return Output(created(path, append), path)
