"""Opens a trace file for writing: plain, gzip or zstandard."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import IO, Any

from bpftrace_sys.common.output_files import create
from bpftrace_sys.trace.items import TraceError


def open_for_writing(path: str, opener: Callable[[str], int] = create) -> IO[str]:
    """A trace file, readable by its owner only: it holds the tracee's memory.

    ``-`` is stdout; names ending in .gz or .zst are compressed.  ``opener`` gives the fd of a
    path; what it raises is raised, by default OSError as ``create`` does.
    """
    if path == "-":
        return sys.stdout
    # Before there is a file: none is left behind empty.
    zstandard = _zstandard(path) if path.endswith(".zst") else None
    raw = os.fdopen(opener(path), "wb")
    if path.endswith(".gz"):
        import gzip

        return io.TextIOWrapper(gzip.GzipFile("", "wb", 6, raw, 0), encoding="ascii")
    if zstandard is not None:
        return io.TextIOWrapper(
            zstandard.ZstdCompressor().stream_writer(raw, closefd=True), encoding="ascii"
        )
    return io.TextIOWrapper(raw, encoding="ascii", line_buffering=True)


def _zstandard(path: str) -> Any:
    try:
        import zstandard
    except ImportError:
        raise TraceError(
            path, 0, "zstd needs the package zstandard (pip install 'bpfstrace[zstd]')"
        ) from None
    return zstandard
