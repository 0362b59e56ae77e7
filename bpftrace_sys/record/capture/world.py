"""A refused caller's world, kept until its call is told: loaders mostly exit at once.

Why a path or a task was not found is asked after the stop, when the process may be gone, and its
root and working directory with it. So they are held open from the exit stop of such a call on, and
so is the file that an fd of the call is; whether a task is there is asked in the stop. A call that
succeeded pays nothing.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from decoders.raw import RawCall
from decoders.uapi import const

if TYPE_CHECKING:

    from bpftrace_sys.trace.items import Take, Taken

HELD: Final = 64
"""Worlds that are open at once; of further calls the reason may be lost."""
ERRORS: Final = frozenset(
    {
        errno.EPERM, errno.ENOENT, errno.EEXIST, errno.EACCES, errno.ESRCH, errno.EBADF,
        errno.EINVAL, errno.EBUSY, errno.ESTALE, errno.EIO, errno.ENODEV,
    }
)  # fmt: skip
"""Errors whose reason may stand in the caller's world."""
FILES: Final[dict[int, int]] = {
    const.BPF_PROG_ATTACH: 0,
    const.BPF_PROG_DETACH: 0,
    const.BPF_PROG_QUERY: 0,
    const.BPF_LINK_CREATE: 4,
    const.BPF_TOKEN_CREATE: 4,
}
"""Where in its attr a command has the fd of a file or folder."""
FILTERED: Final = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS})
"""What seccomp filters mostly answer."""
ATTACH_TYPE: Final = 8
"""Where the commands have it that attach and detach."""
OCCUPIED: Final = frozenset({errno.EPERM, errno.EBUSY, errno.EEXIST, errno.ESTALE})
"""Errors of attaching that come of what is attached there."""
TASKS: Final[dict[int, int]] = {const.BPF_TASK_FD_QUERY: 0, const.BPF_LINK_CREATE: 56}
"""Where it has a task: struct bpf_attr's task_fd_query.pid, link_create.uprobe_multi.pid."""
DEVICES: Final = frozenset(
    {
        const.BPF_XDP, const.BPF_TCX_INGRESS, const.BPF_TCX_EGRESS, const.BPF_NETKIT_PRIMARY,
        const.BPF_NETKIT_PEER,
    }
)  # fmt: skip
"""Attach types of network devices."""
ABSENT: Final = frozenset({errno.ENODEV, errno.EINVAL})
"""Errors of attaching to a device that is not there."""
ATTACHING: Final = frozenset(FILES) - {const.BPF_PROG_QUERY, const.BPF_TOKEN_CREATE}
COMMANDS: Final = frozenset({const.BPF_OBJ_PIN, const.BPF_OBJ_GET, *FILES, *TASKS})
"""bpf(2) commands that name paths, files or tasks."""


class World:
    """Handles on the root and the working directory of a process, and what else a call names."""

    __slots__ = (
        "_fds", "filtered", "hook", "missing", "mounts_of", "pid_namespace", "system", "tasks",
        "tid", "top",
    )  # fmt: skip

    open = 0
    """Worlds that are open."""

    def __init__(self, tid: int) -> None:
        self.tid = tid
        self.mounts_of = 0
        """A process with the caller's mounts, where the caller itself may be gone; else 0."""
        self._fds: dict[str, int] = {}
        self.pid_namespace = 0
        self.tasks: dict[int, bool] = {}
        """Whether a task was there; numbers count in our pid namespace."""
        self.filtered = False
        """A seccomp filter of the caller's own gave the answer, and not the kernel."""
        self.hook: str | None = None
        """What was attached where the call wanted to attach (machine/hook_state.py)."""
        self.system: str | None = None
        """The file system that the file of the call's fd is on; where the call itself told it."""
        self.top: bool | None = None
        """Whether that file is the root of its file system; likewise."""
        self.missing: frozenset[int] = frozenset()
        """Numbers of network devices that the call itself did not find."""
        try:
            for name in ("root", "cwd"):
                self.hold(name, f"/proc/{tid}/{name}")
            self.pid_namespace = os.stat(f"/proc/{tid}/ns/pid").st_ino
        except OSError:
            pass  # killed, or nobody may look: what is known is what was opened
        World.open += 1

    def hold(self, name: str, path: str) -> None:
        """Opens what a link of /proc leads to; raises OSError."""
        self._fds[name] = os.open(path, os.O_PATH | os.O_CLOEXEC)

    def look(self, raw: RawCall) -> None:
        """What the attr of a bpf(2) call names: the file of an fd, a task."""
        data = next((chunk.data for chunk in raw.chunks if chunk.addr == raw.args[1]), b"")

        def number(offset: int) -> int:
            return int.from_bytes(data[offset : offset + 4], "little")

        command = raw.args[0]
        if command in TASKS:
            self.asked_of(number(TASKS[command]))
        if command in FILES:
            target = number(FILES[command])
            self.hold_file(target)
            hook = number(4 if command == const.BPF_PROG_QUERY else ATTACH_TYPE)
            if hook in DEVICES and -(raw.ret or 0) in ABSENT and target not in raw.extra.devices:
                self.look_for_device(target)
        if command in ATTACHING and -(raw.ret or 0) in OCCUPIED:
            self.look_at_hook(number(ATTACH_TYPE), number(FILES[command]))

    def hold_file(self, fd: int) -> None:
        """The file that an fd of the call is."""
        with suppress(OSError):  # it is not open
            self.hold("file", f"/proc/{self.tid}/fd/{fd}")

    def look_for_device(self, ifindex: int) -> None:
        """Of a network device that had no name at the entry: it may be there since."""
        from bpftrace_sys.record.machine.netdev import ifname, in_netns

        if in_netns(self.tid, lambda: ifname(ifindex) or "") == "":
            self.missing = frozenset({ifindex})

    def look_at_hook(self, attach_type: int, target: int) -> None:
        """What is attached where the call wanted to attach: to an interface, or what an fd is."""
        from bpftrace_sys.record.machine.hook_state import state

        self.hook = state(self.tid, attach_type, target, self._fds.get("file"))

    def asked_of(self, pid: int) -> None:
        """Whether a task is there, now."""
        if 0 < pid < 1 << 31:
            self.tasks[pid] = os.path.exists(f"/proc/{pid}")

    def folder(self, name: str) -> str | None:
        """A path to its ``root`` or ``cwd``, or the ``file`` of the call's fd; None: not held."""
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
    number = -(raw.ret or 0)
    asked = name == "perf_event_open" or (name == "bpf" and raw.args[0] in COMMANDS)
    filtered = number in FILTERED and _filtered(raw, number)
    if (filtered or (asked and number in ERRORS)) and World.open < HELD:
        world = World(raw.tid)
        world.filtered = filtered
        if name == "bpf":
            world.look(raw)
        else:
            world.asked_of(raw.args[1])
        raw.carried += (world,)


def _filtered(raw: RawCall, number: int) -> bool:
    from bpftrace_sys.record.machine.own_filters import answered

    return answered(raw.tid, raw.nr, raw.arch, raw.args) == number


def before(take: Take, facts: Any) -> Take:
    """What takes items; while a call with its world is told, ``facts`` asks in that."""

    def taking(item: Taken) -> None:
        carried = item.carried if isinstance(item, RawCall) else ()
        world = next((part for part in carried if isinstance(part, World)), None)
        if world is None or not isinstance(item, RawCall):
            take(item)
            return
        item.carried = tuple(part for part in item.carried if part is not world)
        facts.world = world
        try:
            take(item)
        finally:
            facts.world = None
            world.close()

    return taking
