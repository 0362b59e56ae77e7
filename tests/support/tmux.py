"""A terminal that can be looked at: tmux, with a server of its own."""

from __future__ import annotations

import itertools
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.support.running import environment

PATIENCE = 60.0
"""Seconds until a screen is given up, by a busy machine's clock."""
_NUMBERS = itertools.count()


class Tmux:
    """A shell in a terminal of a size."""

    def __init__(self, columns: int, lines: int, folder: Path) -> None:
        self._socket = folder / f"tmux{next(_NUMBERS)}"
        env = environment(TERM="tmux-256color", PS1="$ ", TMPDIR=str(folder))
        del env["NO_COLOR"]
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(lines),
                   "sh", env=env)  # fmt: skip

    def _tmux(self, *words: str, env: dict[str, str] | None = None) -> str:
        ran = subprocess.run(
            ["tmux", "-S", str(self._socket), *words],
            capture_output=True, text=True, env=env or dict(os.environ), check=True,
        )  # fmt: skip
        return ran.stdout

    def __enter__(self) -> Tmux:
        return self

    def __exit__(self, *_: object) -> None:
        self._tmux("kill-server")

    def run(self, *words: str, before: str = "") -> None:
        """Starts bpfstrace; its exit code stands on the screen afterwards."""
        command = shlex.join([sys.executable, "-m", "bpftrace_sys", *words])
        self.shell(f"clear; {before} {command}; echo code $?")

    def shell(self, text: str) -> None:
        """Gives the shell a line."""
        self._tmux("send-keys", "-l", text)
        self._tmux("send-keys", "Enter")

    def kill(self, name: str) -> None:
        """Kills what the shell runs, whose command line holds this."""
        shell = self._tmux("display-message", "-p", "#{pane_pid}").strip()
        children = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
        [pid] = [pid for pid in children if name in Path(f"/proc/{pid}/cmdline").read_text()]
        os.kill(int(pid), signal.SIGKILL)

    def keys(self, *keys: str) -> None:
        """Presses keys, in tmux's words."""
        for key in keys:
            self._tmux("send-keys", key)

    def size(self, columns: int, lines: int) -> None:
        """Makes the window larger or smaller."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def screen(self) -> list[str]:
        """What stands on it."""
        return self._tmux("capture-pane", "-p").split("\n")

    def until(self, *texts: str) -> list[str]:
        """Waits for texts to stand there, all of them."""
        end = time.monotonic() + PATIENCE
        while True:
            screen = self.screen()
            if all(text in "\n".join(screen) for text in texts):
                return screen
            assert time.monotonic() < end, "\n".join([f"no {texts} on:", *screen])
            time.sleep(0.02)  # tmux tells nobody when something was drawn
