"""Where the output goes, and what to do when it cannot go there any more.

The tracee must not suffer from a full disk or a closed pipe: what cannot be
written is lost, told once, and the exit code says it.
"""

from __future__ import annotations

import contextlib
import os
from typing import IO, Any


class OutputError(Exception):
    """An output that cannot be opened; says which and why."""


class Output:
    """A text stream that survives the loss of its other end.

    ``lost`` says why nothing is written any more.
    """

    def __init__(self, stream: IO[str], name: str) -> None:
        self.stream = stream
        self.name = name
        self.lost: str | None = None
        self.closed_pipe = False

    def write(self, text: str) -> int:
        """As a stream's; never raises OSError."""
        if self.lost is None:
            try:
                return self.stream.write(text)
            except (OSError, ValueError) as error:
                self._lose(error)
            except UnicodeEncodeError:
                return self.write(text.encode("ascii", "backslashreplace").decode("ascii"))
        return len(text)

    def flush(self) -> None:
        """As a stream's; never raises OSError."""
        if self.lost is None:
            try:
                self.stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def close(self) -> None:
        """Flushes, and closes what is not a standard stream."""
        self.flush()
        if self.name not in ("<stderr>", "<stdout>"):
            try:
                self.stream.close()
            except OSError as error:
                self._lose(error)

    def _lose(self, error: Exception) -> None:
        self.closed_pipe = isinstance(error, BrokenPipeError)
        self.lost = getattr(error, "strerror", None) or str(error)
        # Python would try to flush the rest at exit, and complain.
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.stream.fileno())
            os.close(null)


def open_text(path: str | None, stderr: Any) -> Output:
    """The text output: FILE of -o, or stderr."""
    if path is None:
        return Output(stderr, "<stderr>")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from None
    return Output(os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace"), path)


def open_json(path: str) -> Output:
    """The JSON output: FILE of --json, or stdout."""
    from bpftrace_sys.trace_file import TraceError, open_for_writing

    try:
        return Output(open_for_writing(path), "<stdout>" if path == "-" else path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from None
    except TraceError as error:
        raise OutputError(str(error)) from None
