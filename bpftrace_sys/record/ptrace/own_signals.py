"""Signals to the tracer itself: blocked while it traces, and taken when it has time.

To sleep until a stop comes, waitpid(2) is best: the kernel then wakes us on the CPU of
the tracee, which has just become free. But no signal that is blocked ends it. So where it
is used a thread of ours looks whether any is pending, without taking it, and interrupts
the call, again and again until the signal has been taken: nothing is lost between "no
signal is waiting" and going to sleep.
"""

from __future__ import annotations

import _thread
import ctypes
import errno
import os
import select
import time

from bpftrace_sys.common.light import signal
from bpftrace_sys.record.ptrace.requests import WALL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

OURS: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGTSTP,
)


class OwnSignals:
    """``handle`` is told number, si_code and sender of each signal but SIGCHLD."""

    def __init__(self, handle: Callable[[int, int, int], None]) -> None:
        self._handle = handle
        self._taken: set[Any] = set()
        self._child_handler: Any = signal.SIG_DFL
        self._waits = 0
        self._watch: _Watch | None = None
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
            number for number in OURS if signal.getsignal(number) != signal.SIG_IGN
        }
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._taken)

    def unblock(self) -> None:
        """As it was before."""
        if self.mask is None:
            return
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
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
                self._handle(info.si_signo, info.si_code, info.si_pid)

    def wait(self, seconds: float | None = None) -> None:
        """Sleep until a tracee or a signal of our own wants something, or for so long."""
        if seconds is None:
            info: signal.struct_siginfo | None = signal.sigwaitinfo(self._taken)
        else:
            info = signal.sigtimedwait(self._taken, seconds)
        if info is not None and info.si_signo != signal.SIGCHLD:
            self._handle(info.si_signo, info.si_code, info.si_pid)


    def wait_child(self) -> tuple[int, int]:
        """Sleep until a child stops or ends: its id and status. (0, 0) if a signal of our own
        came instead, which was handled. Raises ChildProcessError."""
        if self._watch is None:
            self._waits += 1
            if self._waits != FEW:
                # Few waits are not worth a thread: every stop sends SIGCHLD, too.
                self.wait()
                return 0, 0
            try:
                self._watch = _Watch(self._taken - {signal.SIGCHLD})
            except (OSError, RuntimeError):
                return 0, 0  # no signalfd(2) here, no fd is left, no thread: so it stays
        tid = _waitpid(-1, _status_at, WALL)
        if tid < 0:
            if ctypes.get_errno() == errno.ECHILD:
                raise ChildProcessError(errno.ECHILD, os.strerror(errno.ECHILD))
            self.poll()
            return 0, 0
        return tid, _status.value


FEW: Final = 16
_status = ctypes.c_int()
_status_at = ctypes.byref(_status)
# os.waitpid() goes on when it is interrupted; this one returns.
_waitpid: Any = ctypes.CDLL(None, use_errno=True)["waitpid"]
_NUDGE: Final = signal.SIGURG
_SIGSET_SIZE: Final = 128  # bytes of glibc's sigset_t
_SFD_CLOEXEC: Final = os.O_CLOEXEC


class _Watch:
    """The thread that interrupts waitpid(2) in the thread that made this."""

    def __init__(self, signals: set[Any]) -> None:
        """Raises OSError where the kernel does not let us, RuntimeError where there can be no
        thread."""
        self._whom = _thread.get_ident()
        words = sum(1 << (number - 1) for number in signals)
        libc = ctypes.CDLL(None, use_errno=True)
        self._pending = libc.signalfd(
            -1, words.to_bytes(_SIGSET_SIZE, "little"), ctypes.c_int(_SFD_CLOEXEC)
        )
        if self._pending < 0:
            raise OSError(ctypes.get_errno(), "signalfd")
        self._over = self._end = -1
        # Only a signal with a handler interrupts anything.
        self._handler: Any = signal.signal(_NUDGE, _nothing)
        self._done = _thread.allocate_lock()
        try:
            self._over, self._end = os.pipe()
            self._done.acquire()
            _thread.start_new_thread(self._run, ())
        except (OSError, RuntimeError):
            self._close()
            raise

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._pending, select.POLLIN)
        poll.register(self._over, select.POLLIN)
        try:
            while True:
                ready = [fd for fd, _ in poll.poll()]
                if self._over in ready:
                    return
                # It is readable as long as nobody took the signal.
                signal.pthread_kill(self._whom, _NUDGE)
                time.sleep(0.002)
        finally:
            self._done.release()

    def stop(self) -> None:
        """Ends the thread."""
        os.close(self._end)
        self._end = -1
        self._done.acquire()
        self._close()

    def _close(self) -> None:
        for fd in (self._end, self._over, self._pending):
            if fd >= 0:
                os.close(fd)
        signal.signal(_NUDGE, self._handler)


def _nothing(*_: object) -> None:
    """To be interrupted is enough."""


def stop_ourselves() -> None:
    """Stop as SIGTSTP does by default, until somebody continues us."""
    os.kill(os.getpid(), signal.SIGTSTP)
    # Out of the mask, the default action stops us right here.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})
