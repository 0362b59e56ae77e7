"""Why a process cannot be traced, in words; and what /proc/TID/status says of one."""

from __future__ import annotations

import errno
import os

from bpftrace_sys.record.proc import status


def _status(tid: int) -> dict[str, str]:
    """The fields of /proc/TID/status; none where it is gone."""
    try:
        return status(tid)
    except OSError:
        return {}


def status_number(tid: int, key: str) -> int | None:
    """A field that is a number, or None."""
    value = _status(tid).get(key, "")
    return int(value) if value.isdigit() else None


def _yama() -> int:
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0


def _may_ptrace() -> bool:
    """Whether we have CAP_SYS_PTRACE (19) in effect."""
    try:
        return bool(int(_status(os.getpid()).get("CapEff", "0"), 16) & 1 << 19)
    except ValueError:
        return False


def forbidden(pid: int, error: int) -> str:
    """Why a process may not even trace its own child."""
    text = f"ptrace is not permitted here: {os.strerror(error)}"
    if tracer := status_number(pid, "TracerPid"):
        by = _status(tracer).get("Name") or "a process"
        return (
            f"{text} ({by} ({tracer}) traces bpfstrace and what it starts, and a process has"
            " one tracer only)"
        )
    if _yama() == 3:
        return f"{text} (kernel.yama.ptrace_scope is 3, which forbids it until a reboot)"
    if error in (errno.EPERM, errno.EACCES, errno.ENOSYS):
        return (
            f"{text} (in a container: start it with --cap-add=SYS_PTRACE and a seccomp profile"
            " that allows ptrace)"
        )
    return text


def why_not(pid: int, tid: int, error: int) -> str:
    """Why PTRACE_SEIZE failed, in words."""
    fields = _status(tid)
    if not fields or error == errno.ESRCH:
        return f"no process {pid}"
    if fields.get("State", "").startswith(("Z", "X")):
        return f"process {pid} is a zombie: it has ended, and waits for its parent to notice"
    tracer = status_number(tid, "TracerPid")
    if tracer:
        by = _status(tracer).get("Name") or "another process"
        return f"process {pid} is already traced by {by} ({tracer}); it can have one tracer only"
    if fields.get("Kthread") == "1" or not {"VmSize", "VmPeak"} & fields.keys():
        return f"process {pid} is a kernel thread"
    if error not in (errno.EPERM, errno.EACCES):
        return f"process {pid}: {os.strerror(error)}"
    text = f"not permitted to trace process {pid}"
    scope = _yama()
    if scope and not _may_ptrace():
        return (
            f"{text}: kernel.yama.ptrace_scope is {scope}; run as root, or"
            " `sysctl kernel.yama.ptrace_scope=0`"
        )
    if not _may_ptrace():
        uids = fields.get("Uid", "").split()
        if uids and uids[0] != str(os.getuid()):
            return f"{text}: it belongs to another user (uid {uids[0]}); run as root"
        return f"{text}: it has privileges that we lack; run as root"
    return f"{text} (in a container: it needs --cap-add=SYS_PTRACE and to share the PID namespace)"
