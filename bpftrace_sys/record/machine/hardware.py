"""What capture has to know of the machine, read when the first call asks."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

PMU_DEVICES: Final = "/sys/bus/event_source/devices"


def pmu_types() -> dict[int, str]:
    """The PMUs of this machine by their type number."""
    found: dict[int, str] = {}
    try:
        names = os.listdir(PMU_DEVICES)
    except OSError:
        return found
    for name in names:
        text = _read(f"{PMU_DEVICES}/{name}/type").strip()
        if text.isdigit():
            found[int(text)] = name
    return found


def possible_cpus() -> int:
    """How many CPUs per-CPU maps have room for."""
    text = _read("/sys/devices/system/cpu/possible") or "0"
    try:
        return max(int(part.split("-")[-1]) for part in text.strip().split(",")) + 1
    except ValueError:
        return os.cpu_count() or 1


def _read(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(256).decode("ascii", "replace")
    except OSError:
        return ""


class Machine:
    """The same, each asked once."""

    def __init__(self) -> None:
        self._pmus: dict[int, str] | None = None
        self._cpus = 0

    @property
    def pmus(self) -> dict[int, str]:
        if self._pmus is None:
            self._pmus = pmu_types()
        return self._pmus

    @property
    def cpus(self) -> int:
        if not self._cpus:
            self._cpus = possible_cpus()
        return self._cpus
