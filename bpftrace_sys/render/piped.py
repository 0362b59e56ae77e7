"""-o '|COMMAND': text to a command's stdin.

The command is no child of ours (common/nobodys_child.py).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal

from bpftrace_sys.common.nobodys_child import start
from bpftrace_sys.render.output import Output, OutputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

SHELL: Final = "/bin/sh"


class Piped(Output):
    """The stdin of a command. ``close`` waits for the command's end, as strace does."""

    def __init__(self, command: str) -> None:
        """OutputError where the command cannot be started."""
        try:
            read, write = os.pipe()
        except OSError as error:
            raise OutputError(f"cannot run {command}: {error.strerror}") from None

        def run() -> None:
            os.dup2(read, 0)
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
                signal.signal(number, signal.SIG_DFL)
            os.execv(SHELL, ["sh", "-c", command])

        try:
            self._pidfd = start(run)
        except OSError as error:
            os.close(write)
            raise OutputError(f"cannot run {command}: {error.strerror}") from None
        finally:
            os.close(read)
        stream = os.fdopen(write, "w", encoding="utf-8", errors="backslashreplace")
        super().__init__(stream, f"|{command}")
        self._packed = False  # what the command makes of it, it makes itself

    @property
    def is_file(self) -> bool:
        return False

    def close(self) -> None:
        """Closes the pipe, and waits until the command has ended."""
        super().close()
        waiting = select.poll()
        waiting.register(self._pidfd, select.POLLIN)
        with contextlib.suppress(KeyboardInterrupt):  # which the command gets, too
            waiting.poll()
        os.close(self._pidfd)
