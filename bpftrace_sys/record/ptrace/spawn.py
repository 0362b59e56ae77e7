"""Starting a tracee: fork, seccomp filter, user, exec; and saying what went wrong.

The child waits after fork until the tracer has seized it, then changes itself
and executes the program, through PATH as execvp(3) does. What fails comes back
through a pipe that a successful execve closes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from bpftrace_sys.common import BpfstraceError
from bpftrace_sys.common.light import signal, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Final, NoReturn

# include/uapi/linux/prctl.h, seccomp.h
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_PTRACER: Final = 0x59616D61
_SECCOMP_SET_MODE_FILTER: Final = 1
_SECCOMP_FILTER_FLAG_SPEC_ALLOW: Final = 1 << 2  # Linux 4.17
_SECCOMP_NR: Final = {"x86_64": 317, "aarch64": 277}

# CPython sets these to "ignore" when it starts (Python/pylifecycle.c). What they
# were before cannot be found out any more; a program nearly always gets the default.
_PYTHON_IGNORES: Final = (signal.SIGPIPE, signal.SIGXFSZ)

STAGES: Final = ("exec", "seccomp", "user", "fork")
_NOBODY: Final = 0xFFFFFFFF  # (uid_t) -1, which no id is
_REPORT: Final = struct.Struct("=BBi")  # stage, whether a file was met, errno; path follows


class SpawnError(BpfstraceError):
    """The tracee could not be started.

    ``errno``: why. ``stage``: one of STAGES, what failed. ``path``: for "exec" the
    file that execve refused, or the name as given where PATH held no such file.
    ``script``: the file is there and may be executed, but is neither a known
    format nor has a ``#!`` line (errno is ENOEXEC then).
    """

    def __init__(self, error: int, stage: str, path: str) -> None:
        super().__init__(f"{path}: {os.strerror(error)}" if path else os.strerror(error))
        self.errno = error
        self.stage = stage
        self.path = path

    @property
    def script(self) -> bool:
        return self.stage == "exec" and self.errno == errno.ENOEXEC

    @property
    def exit_code(self) -> int:
        """As env(1) says it: 127 not found, 126 found but not executable, else 125."""
        if self.stage != "exec":
            return 125
        return 127 if self.errno in (errno.ENOENT, errno.ENOTDIR) else 126


class Starting:
    """A forked child that waits for :meth:`go`."""

    __slots__ = ("_go", "_report", "pid")

    def __init__(self, pid: int, go: int, report: int) -> None:
        self.pid = pid
        self._go = go
        self._report = report

    def go(self) -> None:
        """Let the child execute its program; a second time does nothing."""
        if self._go < 0:
            return
        with suppress(OSError):  # it was killed
            os.write(self._go, b"g")
        os.close(self._go)
        self._go = -1

    def error(self) -> SpawnError | None:
        """After the child's end: what it reported. None: nothing (killed)."""
        try:
            report = os.read(self._report, 65536)
        except OSError:
            return None
        if len(report) < _REPORT.size:
            return None
        stage, _, error = _REPORT.unpack_from(report)
        path = os.fsdecode(report[_REPORT.size :])
        return SpawnError(error, STAGES[stage], path)

    def close(self) -> None:
        """Close both pipes; a child that was not let go then ends by itself."""
        for name in ("_go", "_report"):
            file = getattr(self, name)
            if file >= 0:
                os.close(file)
                setattr(self, name, -1)


def own_environment() -> dict[bytes, bytes]:
    """The environment that we were started with: os.environb without LC_CTYPE
    where only Python's locale coercion (PEP 538) put it there."""
    environment = dict(os.environb)
    if environment.get(b"LC_CTYPE") in (b"C.UTF-8", b"C.utf8", b"UTF-8"):
        try:
            with open("/proc/self/environ", "rb") as file:
                initial = file.read()
        except OSError:
            return environment
        if not (b"\0" + initial).count(b"\0LC_CTYPE="):
            del environment[b"LC_CTYPE"]
    return environment


def start(
    argv: Sequence[str],
    *,
    bpf_filter: bytes | None,
    mask: set[signal.Signals] | set[int],
    ignored: Sequence[int] = (),
    env: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
    argv0: str | None = None,
    user: str | None = None,
    background: int = 0,
) -> Starting:
    """Fork a child that will execute ``argv``.

    ``bpf_filter``: an array of struct sock_filter, or None. ``mask``: the signal
    mask of the program. ``ignored``: signals that the program is to ignore
    though we do not. ``user``: a user's name or number, or UID:GID. ``background``: it
    is this process that executes, and a grandchild that returns (see
    Engine.spawn). Raises SpawnError (stage "user" for one that is unknown, "fork"
    where there can be no more processes), OSError where no fd is left.
    """
    who = None if user is None else _user(user)
    environment: Mapping[Any, Any] = own_environment() if env is None else env
    candidates = _candidates(argv[0])
    arguments = [argv[0] if argv0 is None else argv0, *argv[1:]]
    go_read, go_write = os.pipe()
    try:
        report_read, report_write = os.pipe()
    except OSError:
        os.close(go_read)
        os.close(go_write)
        raise
    program = os.getpid() if background else None
    try:
        pid = os.fork()
    except OSError as error:
        for file in (go_read, go_write, report_read, report_write):
            os.close(file)
        raise SpawnError(error.errno or errno.EAGAIN, "fork", "fork") from None
    if program is not None:
        pid = _swap(pid, program, background)
    if pid == 0:
        try:
            os.close(go_write)
            os.close(report_read)
            if os.read(go_read, 1) == b"g":
                _child(report_write, candidates, arguments, environment, bpf_filter, mask,
                       ignored, who)  # fmt: skip
        finally:
            os._exit(127)
    os.close(go_read)
    os.close(report_write)
    return Starting(pid, go_write, report_read)


def _swap(pid: int, program: int, background: int) -> int:
    """After a fork: the parent is to be the program (returns 0 there), and a
    grandchild the tracer (returns the program's pid there)."""
    if pid:
        os.waitpid(pid, 0)
        # Where Yama lets only ancestors trace, a descendant has to be allowed to.
        everybody = ctypes.c_ulong(2**64 - 1)
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, everybody, *[ctypes.c_ulong(0)] * 3)
        return 0
    if os.fork():
        os._exit(0)
    if background == 2:
        os.setpgrp()
    elif background > 2:
        os.setsid()
    return program


def _candidates(name: str) -> list[str]:
    """The files that execvp(3) would try, in its order."""
    if "/" in name or not name:
        return [name]
    path = os.environ.get("PATH")
    folders = (os.confstr("CS_PATH") or "/bin:/usr/bin") if path is None else path
    return [os.path.join(folder or ".", name) for folder in folders.split(":")]


def _user(user: str) -> tuple[int, int, list[int]]:
    import pwd

    uid, colon, gid = user.partition(":")
    if colon and uid.isdecimal() and gid.isdecimal():  # as strace: whom no name need belong to
        if max(int(uid), int(gid)) >= _NOBODY:
            raise SpawnError(errno.EINVAL, "user", f"no such ids: {user}")
        return int(uid), int(gid), []
    try:
        entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except KeyError:
        raise SpawnError(errno.EINVAL, "user", f"no such user: {user}") from None
    return entry.pw_uid, entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)


def _child(
    report: int,
    candidates: Sequence[str],
    argv: Sequence[str],
    env: Mapping[Any, Any],
    bpf_filter: bytes | None,
    mask: set[signal.Signals] | set[int],
    ignored: Sequence[int],
    who: tuple[int, int, list[int]] | None,
) -> NoReturn:
    """In the child: become the program. After the filter, no call but execve."""
    stage, path = 1, ""
    try:
        for number in _PYTHON_IGNORES:
            signal.signal(number, signal.SIG_DFL)
        for ignore in ignored:
            signal.signal(ignore, signal.SIG_IGN)
        if bpf_filter is not None:
            _install(bpf_filter)
        if who is not None:
            stage = 2
            os.setgroups(who[2])
            os.setresgid(who[1], who[1], who[1])
            os.setresuid(who[0], who[0], who[0])
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        stage = 0
        refused: OSError | None = None
        for path in candidates:
            try:
                _execve(path, list(argv), env)
            except OSError as error:
                refused = refused or (error if error.errno == errno.EACCES else None)
                # As glibc: a PATH entry that is not there or not ours is passed over.
                if error.errno not in (
                    errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ESTALE,
                    errno.ENODEV, errno.ETIMEDOUT,
                ):  # fmt: skip
                    raise
                if refused is error:
                    refused_path = path
        if refused is not None:
            path = refused_path
            raise refused
        if len(candidates) > 1:
            path = candidates[0].rpartition("/")[2]
        raise OSError(errno.ENOENT, "")
    except OSError as error:
        os.write(report, _REPORT.pack(stage, 0, error.errno or 0) + os.fsencode(path))
    except (ValueError, TypeError):  # a NUL in an argument or the environment
        os.write(report, _REPORT.pack(stage, 0, errno.EINVAL) + os.fsencode(path))
    os._exit(127)


def _execve(path: str, argv: list[str], env: Mapping[Any, Any]) -> None:
    """os.execve, which takes no empty first argument, though the kernel does (--argv0=)."""
    if argv[0]:
        os.execve(path, argv, env)
    words = [os.fsencode(word) for word in argv]
    settings = [os.fsencode(name) + b"=" + os.fsencode(value) for name, value in env.items()]
    if any(b"\0" in text for text in (*words, *settings)):
        raise ValueError("embedded null byte")
    pointers = [(ctypes.c_char_p * (len(texts) + 1))(*texts) for texts in (words, settings)]
    ctypes.CDLL(None, use_errno=True).execve(os.fsencode(path), *pointers)
    raise OSError(ctypes.get_errno(), "")


class _FilterProgram(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _install(bpf_filter: bytes) -> None:
    """seccomp(SECCOMP_SET_MODE_FILTER). Raises OSError.

    SPEC_ALLOW, since before Linux 5.16 a filter otherwise also turns on costly
    defences against speculative execution, which the tracee has no use for.
    no_new_privs, which changes what setuid programs do, only where the kernel
    insists on it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    number = _SECCOMP_NR.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, "")
    program = _FilterProgram(
        len(bpf_filter) // 8, ctypes.cast(ctypes.c_char_p(bpf_filter), ctypes.c_void_p)
    )

    def attempt(flags: int) -> int:
        result = libc.syscall(
            ctypes.c_long(number),
            ctypes.c_ulong(_SECCOMP_SET_MODE_FILTER),
            ctypes.c_ulong(flags),
            ctypes.byref(program),
        )
        return 0 if result == 0 else ctypes.get_errno()

    flags = _SECCOMP_FILTER_FLAG_SPEC_ALLOW
    error = attempt(flags)
    if error == errno.EINVAL:
        flags = 0
        error = attempt(flags)
    if error == errno.EACCES:
        libc.prctl(_PR_SET_NO_NEW_PRIVS, *(ctypes.c_ulong(n) for n in (1, 0, 0, 0)))
        error = attempt(flags)
    if error:
        raise OSError(error, "")
