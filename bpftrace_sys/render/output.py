"""Where the output goes, and what to do when it cannot go there any more.

The tracee must not suffer from a full disk or a closed pipe: what cannot be
written is lost, told once, and the exit code says it.
"""

from __future__ import annotations

import io
import os
import sys
import time

from bpftrace_sys.common.escape import printable
from bpftrace_sys.common.light import suppress
from bpftrace_sys.common.output_files import OutputError as OutputError
from bpftrace_sys.common.output_files import create, readable_by_others

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import IO, Protocol

    class TextOut(Protocol):
        """What renderers write to: an Output, a file, a list of lines."""

        def write(self, text: str, /) -> int: ...
        def flush(self) -> object: ...


class Output:
    """A text stream that survives the loss of its other end.

    ``lost`` says why nothing is written any more.
    """

    def __init__(self, stream: IO[str], name: str) -> None:
        self.stream = stream
        self.name = name
        self.lost: str | None = None
        self.reopen: Callable[[], bool] = self._reopen
        """Begins anew at the same path where that is another file by now, or none."""
        self.closed_pipe = False
        self._passing = ""
        self._packed = name.endswith((".gz", ".zst"))
        self._due = 0.0
        self._written = True
        """Something was written since it was flushed last, for all that is known."""

    def write(self, text: str) -> int:
        """As a stream's; never raises OSError."""
        if _passing:
            take_away()
        if self.lost is None:
            self._written = True
            try:
                return self.stream.write(text)
            except UnicodeEncodeError:
                return self.write(text.encode("ascii", "backslashreplace").decode("ascii"))
            except (OSError, ValueError) as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """As a stream's; never raises OSError."""
        if self.lost is None:
            try:
                self.stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def rest(self) -> None:
        """Nothing is to be written for the moment: what was written can be read from now on.

        A compressed file cannot be flushed that often: once a second at most.
        """
        if not self._written:
            return
        if self._packed:
            now = time.monotonic()
            if now < self._due:
                return
            self._due = now + 1.0
        self._written = False
        self.flush()

    def passing(self, text: str) -> None:
        """Shows a text in a terminal's last line, until something else is written or shown
        there. It must fit into the line, and steer nothing."""
        shown, self._passing = self._passing, ""
        if text == shown:
            self._passing = text
            return
        self.write(f"\r{text}\x1b[K" if text else "\r\x1b[K")
        self.flush()
        self._passing = text
        _passing[:] = [self] if text else []

    def close(self) -> None:
        """Flushes, and closes what is not a standard stream."""
        self.passing("")
        self.flush()
        if self.name not in ("<stderr>", "<stdout>"):
            try:
                self.stream.close()
            except OSError as error:
                self._lose(error)

    @property
    def is_file(self) -> bool:
        """Whether it has a path."""
        return not self.name.startswith("<")

    @property
    def elsewhere(self) -> bool:
        """Whether its path is another file by now, or none: logrotate has been there."""
        if not self.is_file or self.lost is not None:
            return False
        try:
            ours = os.fstat(self.stream.fileno())
            there = os.stat(self.name)
        except (OSError, ValueError):
            return True
        return (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino)

    def _reopen(self) -> bool:
        if not self.elsewhere:
            return False
        try:
            fd = create(self.name, append=True)
        except OSError as error:
            self._lose(error)
            return False
        self.flush()
        with suppress(OSError, ValueError):
            self.stream.close()
        self.stream = _as_text(fd)
        return True

    def _lose(self, error: Exception) -> None:
        self.closed_pipe = isinstance(error, BrokenPipeError)
        self.lost = getattr(error, "strerror", None) or str(error)
        # Python would try to flush the rest at exit, and complain.
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.stream.fileno())
            os.close(null)


def _created(path: str, append: bool = False) -> int:
    """An fd to write a file with; OutputError where it cannot be had, or should not."""
    try:
        fd = create(path, append)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from None
    mode = readable_by_others(fd)
    if mode is not None:
        complain(f"{path} was there before, and others may read it (mode {mode})")
    return fd


def created(path: str, append: bool = False) -> IO[str]:
    """A file to write text to; OutputError where it cannot be had, or should not."""
    return _as_text(_created(path, append))


class Files:
    """The files of -ff: PATH.TID, each closed when its thread has ended.

    To be closed like an Output; ``name`` and ``lost`` tell of the first that was lost.
    """

    def __init__(self, path: str, append: bool = False) -> None:
        self._path = path
        self._append = append
        self._open: dict[int, Output] = {}
        self._ended: set[int] = set()
        self._losses = 0
        self._first = ""
        self.lost: str | None = None
        self.closed_pipe = False

    @property
    def name(self) -> str:
        """What was lost."""
        return f"{self._first} and {self._losses - 1} more" if self._losses > 1 else self._first

    def open(self, tid: int) -> Output:
        """A thread's file; a dead one where it cannot be opened."""
        path = f"{self._path}.{tid}"
        again = tid in self._ended  # the number is in use once more
        try:
            stream: IO[str] = _as_text(create(path, self._append or again))
            why = None
        except OSError as error:
            stream, why = io.StringIO(), error.strerror
        out = self._open[tid] = Output(stream, path)
        out.lost = why
        return out

    def ended(self, tid: int) -> None:
        """A thread writes no more."""
        out = self._open.pop(tid)
        self._ended.add(tid)
        out.close()
        if out.lost is not None:
            self._losses += 1
            if self.lost is None:
                self.lost, self._first = out.lost, out.name

    def rest(self) -> None:
        """As Output.rest."""
        for out in self._open.values():
            out.flush()

    def close(self) -> None:
        """Closes all that are open."""
        for tid in list(self._open):
            self.ended(tid)


def close(outputs: Sequence[Output | Files], *, pipes: bool = True) -> bool:
    """Closes the outputs; False if anything was lost, which is said. ``pipes``: also what was
    lost because a pipe has no reader any more."""
    whole = True
    for output in outputs:
        output.close()
        if output.lost is not None and (pipes or not output.closed_pipe):
            whole = False
            if output.name != "<stderr>":
                complain(f"output to {output.name} was lost: {output.lost}")
    return whole


_passing: list[Output] = []
"""The output that shows what is to go before something else is written to the terminal."""


def take_away() -> None:
    """What passes goes: something else is to be written, perhaps to the same terminal."""
    for output in _passing[:]:
        output.passing("")


def complain(text: str) -> None:
    """A message for the person, on stderr; whatever it quotes cannot steer a terminal."""
    take_away()
    with suppress(OSError, ValueError):  # stderr is closed or full
        print(f"bpfstrace: {printable(text)}", file=sys.stderr)


def _as_text(fd: int) -> IO[str]:
    return os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace")


def ensure_streams() -> None:
    """Where stdin, stdout or stderr is closed, /dev/null stands in its place.

    Else the next file that we open would have its number, and be written to by whoever
    writes to stdout.  Tracees find it closed as before: the stand-in ends with execve.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            if null != number:  # not the lowest that is free: somebody else's race
                os.close(null)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def open_page(path: str) -> Output:
    """The page's file, which only its owner may read; OutputError where it cannot be made."""
    if path == "-":
        return Output(sys.stdout, "<stdout>")
    return Output(_as_text(_created(path)), path)


def open_json(path: str) -> Output:
    """The JSON output: FILE of --json, or stdout."""
    from bpftrace_sys.trace.items import TraceError
    from bpftrace_sys.trace.writer import open_for_writing

    if path == "-" and sys.__stdout__ is None:
        raise OutputError(f"cannot write {path}: stdout is closed")
    try:
        return Output(open_for_writing(path, _created), "<stdout>" if path == "-" else path)
    except TraceError as error:
        raise OutputError(str(error)) from None
