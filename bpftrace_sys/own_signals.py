"""Signals to the tracer itself: blocked while it traces, and taken when it has time.

They are waited for together with SIGCHLD, which every stop of a tracee sends, so
nothing is lost between "no stop is waiting" and going to sleep.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

_OURS: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGTSTP,
)


class OwnSignals:
    """``handle`` is told number and si_code of each signal but SIGCHLD."""

    def __init__(self, handle: Callable[[int, int], None]) -> None:
        self._handle = handle
        self._taken: set[Any] = set()
        self._child_handler: Any = signal.SIG_DFL
        self.mask: set[Any] | None = None
        """The mask before :meth:`block`, which is also a new program's; None: not blocked."""

    @property
    def ignored(self) -> list[int]:
        """Signals that a new program is to ignore, though we no longer do."""
        return [signal.SIGCHLD] if self._child_handler == signal.SIG_IGN else []

    def block(self) -> None:
        """From now on signals wait for :meth:`poll` and :meth:`wait`."""
        if self.mask is not None:
            return
        self._child_handler = signal.getsignal(signal.SIGCHLD)
        if self._child_handler == signal.SIG_IGN:
            # Ignored, our children would leave no status behind.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._taken = {signal.SIGCHLD} | {
            number for number in _OURS if signal.getsignal(number) != signal.SIG_IGN
        }
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._taken)

    def unblock(self) -> None:
        """As it was before."""
        if self.mask is None:
            return
        # What came with the tracees' end was meant for them: a Ctrl-C, say.
        while signal.sigtimedwait(self._taken, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
        self.mask = None
        if self._child_handler == signal.SIG_IGN:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    def poll(self) -> None:
        """Handle what has come."""
        while True:
            info = signal.sigtimedwait(self._taken, 0)
            if info is None:
                return
            if info.si_signo != signal.SIGCHLD:
                self._handle(info.si_signo, info.si_code)

    def wait(self, seconds: float | None = None) -> None:
        """Sleep until a tracee or a signal of our own wants something, or for so long."""
        if seconds is None:
            info: signal.struct_siginfo | None = signal.sigwaitinfo(self._taken)
        else:
            info = signal.sigtimedwait(self._taken, seconds)
        if info is not None and info.si_signo != signal.SIGCHLD:
            self._handle(info.si_signo, info.si_code)


def stop_ourselves() -> None:
    """Stop as SIGTSTP does by default, until somebody continues us."""
    os.kill(os.getpid(), signal.SIGTSTP)
    # Out of the mask, the default action stops us right here.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})
