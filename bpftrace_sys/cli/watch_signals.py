"""Signals to bpfstrace, while the engine made of eBPF watches."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from bpftrace_sys.record.ebpf.engine import Watch


class Signals:
    """Signals to us, as something to wait for."""

    NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

    def __init__(self) -> None:
        self._engine: Watch | None = None
        self._pipe: tuple[int, int] | None = None
        self._before: dict[int, Any] = {}
        self._pidfd = -1
        self._came: list[int] = []

    def open(self, engine: Watch) -> None:
        """From now on signals end ``engine``'s wait."""
        self._engine = engine
        self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        engine.register(self._pipe[0])
        for number in self.NUMBERS:
            self._before[number] = signal.signal(number, self._take)
        signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)

    def _take(self, number: int, frame: Any) -> None:
        self._came.append(number)

    def child(self, pid: int) -> None:
        """Its end ends the wait, too."""
        assert self._engine is not None
        self._pidfd = os.pidfd_open(pid)
        self._engine.register(self._pidfd)

    def child_ended(self) -> None:
        """No longer."""
        assert self._engine is not None
        self._engine.unregister(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1

    def taken(self) -> list[int]:
        """Those that came since."""
        if self._pipe is not None:
            with contextlib.suppress(BlockingIOError):
                os.read(self._pipe[0], 4096)
        came, self._came = self._came, []
        return came

    def close(self) -> None:
        """Signals do again what they did before."""
        if self._pipe is None:
            return
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._pidfd >= 0:
            self.child_ended()
        assert self._engine is not None
        self._engine.unregister(self._pipe[0])
        for fd in self._pipe:
            os.close(fd)
        self._pipe = None
