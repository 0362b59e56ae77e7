"""A refused caller's world, kept until its call is told: loaders mostly exit at once.

Why a path or a task was not found is asked after the stop, when the process may be gone, and its
root and working directory with it. So they are held open from the exit stop of such a call on; a
call that succeeded pays nothing.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, Final

from decoders.raw import RawCall
from decoders.uapi import const

if TYPE_CHECKING:
    from collections.abc import Callable

HELD: Final = 64
"""Worlds that are open at once; of further calls the reason may be lost."""
ERRORS: Final = frozenset({errno.EPERM, errno.ENOENT, errno.EEXIST, errno.EACCES, errno.ESRCH})
"""Errors whose reason may stand in the caller's world."""
COMMANDS: Final = frozenset({const.BPF_OBJ_PIN, const.BPF_OBJ_GET, const.BPF_LINK_CREATE})
"""bpf(2) commands that name paths, or tasks."""


class World:
    """Handles on the root and the working directory of a process, and its pid namespace."""

    __slots__ = ("_fds", "pid_namespace")

    open = 0
    """Worlds that are open."""

    def __init__(self, tid: int) -> None:
        self._fds: dict[str, int] = {}
        self.pid_namespace = 0
        try:
            for name in ("root", "cwd"):
                self._fds[name] = os.open(f"/proc/{tid}/{name}", os.O_PATH | os.O_CLOEXEC)
            self.pid_namespace = os.stat(f"/proc/{tid}/ns/pid").st_ino
        except OSError:
            pass  # killed, or nobody may look: what is known is what was opened
        World.open += 1

    def folder(self, name: str) -> str | None:
        """A path to its ``root`` or ``cwd``; None where that is not held."""
        fd = self._fds.get(name)
        return None if fd is None else f"/proc/self/fd/{fd}"

    def close(self) -> None:
        """Lets go."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        World.open -= 1


def keep(raw: RawCall, name: str) -> None:
    """In the exit stop of a failed call: keeps the caller's world, if the reason may be there."""
    asked = name == "perf_event_open" or (name == "bpf" and raw.args[0] in COMMANDS)
    if asked and -(raw.ret or 0) in ERRORS and World.open < HELD:
        raw.carried += (World(raw.tid),)


def before(take: Callable[[Any], None], facts: Any) -> Callable[[Any], None]:
    """What takes items; while a call with its world is told, ``facts`` asks in that."""

    def taking(item: Any) -> None:
        carried = getattr(item, "carried", ())
        kept = [part for part in carried if isinstance(part, World)] if carried else carried
        if not kept:
            take(item)
            return
        (world,) = kept
        item.carried = tuple(part for part in item.carried if part is not world)
        facts.world = world
        try:
            take(item)
        finally:
            facts.world = None
            world.close()

    return taking
