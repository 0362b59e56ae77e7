"""A progress bar for what takes longer than a second, on a terminal."""

from __future__ import annotations

import os
import sys
import time
from typing import IO, Any, Final

EVERY: Final = 256
"""Items between two looks at the clock."""
PATIENCE: Final = 1.0
"""Seconds before a bar appears."""
PAUSE: Final = 0.1


class Progress:
    """How far the reading of a file is.  Nothing is imported or shown before a second."""

    def __init__(self, file: IO[Any] | None, name: str, shown: bool) -> None:
        self._file = file
        self._name = name
        self._items = 0
        self._due = time.monotonic() + PATIENCE
        self._bar: Any = None
        self._task: Any = None
        self._total = 0
        if shown and file is not None:
            try:
                self._total = os.fstat(file.fileno()).st_size
            except (OSError, ValueError):
                self._total = 0

    def tick(self, items: int = 1) -> None:
        """So many items were read."""
        self._items += items
        if self._items >= EVERY:
            self._items = 0
            if self._total and time.monotonic() >= self._due:
                self._show()

    def _show(self) -> None:
        assert self._file is not None
        self._due = time.monotonic() + PAUSE
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
                auto_refresh=False,
            )
            self._task = self._bar.add_task(self._name, total=self._total)
            self._bar.start()
        self._bar.update(self._task, completed=self._file.tell(), refresh=True)

    def done(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self._total = 0


def on_terminal() -> bool:
    """Whether a bar can be seen on stderr."""
    try:
        return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):
        return False


def is_file(stream: IO[Any]) -> bool:
    """Whether output goes to a file, so that a bar on the terminal does not get between."""
    import stat

    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError, AttributeError):
        return False
