"""Hello, World! in eBPF, with nothing but Python: ``python3 -m bpftrace_sys.hello``.

No BCC, no libbpf, no compiler: thirteen instructions written out by hand, and
the four requests that bring them to life::

    bpf(BPF_BTF_LOAD)             what the program's functions and lines are called
    bpf(BPF_PROG_LOAD)            the program itself, which the kernel's verifier checks
    perf_event_open()             an event: a kprobe, a tracepoint or a uprobe
    ioctl(SET_BPF), ioctl(ENABLE) run the program whenever the event happens

It attaches to the first of these that the kernel has, tells which, makes the
event happen once and shows what the program printed to the trace pipe:

* a kprobe on do_sys_openat2, the kernel's function behind every open();
* the tracepoint syscalls:sys_enter_openat, where tracefs is mounted;
* a uprobe on the C library's getppid(), in this process only.

It is there to be traced: ``bpfstrace python3 -m bpftrace_sys.hello``.  Exit
status: 0, or 1 if the kernel refused something, which is then told on stderr.
Layouts are those of linux/bpf.h, linux/btf.h and linux/perf_event.h.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import os
import struct
import sys
import time
from collections.abc import Callable
from fcntl import ioctl
from typing import Final, NamedTuple

MESSAGE: Final = b"Hello, World!"

# --- the program ----------------------------------------------------------

# (opcode, destination and source register, offset, immediate) of struct bpf_insn
R0, R1, R2, R10 = 0x0, 0x1, 0x2, 0xA  # R10 points just beyond the stack frame
TO_R1_FROM_R10, TO_R10_FROM_R1 = R10 << 4 | R1, R1 << 4 | R10
TRACE_PRINTK: Final = 6  # the number of the helper bpf_trace_printk(fmt, size)

INSNS: Final = (
    (0xB7, R1, 0, 33),  #                        r1 = 33, which is "!" and the final 0
    (0x6B, TO_R10_FROM_R1, -4, 0),  #            *(u16 *)(r10 - 4) = r1
    (0xB7, R1, 0, 0x646C726F),  #                r1 = "orld"
    (0x63, TO_R10_FROM_R1, -8, 0),  #            *(u32 *)(r10 - 8) = r1
    (0x18, R1, 0, 0x6C6C6548),  #                r1 = "Hello, W", an instruction of two slots
    (0x00, 0, 0, 0x57202C6F),
    (0x7B, TO_R10_FROM_R1, -16, 0),  #           *(u64 *)(r10 - 16) = r1
    (0xBF, TO_R1_FROM_R10, 0, 0),  #             r1 = r10
    (0x07, R1, 0, -16),  #                       r1 += -16: the first argument, the text
    (0xB7, R2, 0, len(MESSAGE) + 1),  #          r2 = 14:   the second, its size
    (0x85, 0, 0, TRACE_PRINTK),  #               call bpf_trace_printk
    (0xB7, R0, 0, 0),  #                         r0 = 0
    (0x95, 0, 0, 0),  #                          exit
)

# Its source: (slot of the first instruction, line, column, text).
LINES: Final = (
    (0, 1, 0, "int hello_world(void *ctx)"),
    (1, 3, 5, 'bpf_trace_printk("Hello, World!");'),
    (11, 4, 5, "return 0;"),
)


class DebugInfo(NamedTuple):
    """What makes the program readable: types, and where functions and lines begin."""

    btf: bytes
    func_info: bytes  # struct bpf_func_info[]
    line_info: bytes  # struct bpf_line_info[]


def debug_info() -> DebugInfo:
    """BTF for ``int hello_world(void *ctx)`` and its source lines."""
    strings = bytearray(b"\0")

    def string(text: str) -> int:
        offset = len(strings)
        strings.extend(text.encode() + b"\0")
        return offset

    kind_int, kind_ptr, kind_func, kind_func_proto = (kind << 24 for kind in (1, 2, 12, 13))
    signed = 1 << 24
    types = b"".join(
        (
            struct.pack("<4I", string("int"), kind_int, 4, signed | 32),  # type 1: int
            struct.pack("<3I", 0, kind_ptr, 0),  # type 2: void *
            struct.pack("<5I", 0, kind_func_proto | 1, 1, string("ctx"), 2),  # 3: int (void *ctx)
            struct.pack("<3I", string("hello_world"), kind_func, 3),  # 4: hello_world
        )
    )
    func_info = struct.pack("<2I", 0, 4)
    file_name = string("hello.c")
    line_info = b"".join(
        struct.pack("<4I", slot, file_name, string(text), line << 10 | column)
        for slot, line, column, text in LINES
    )
    header = struct.pack("<HBB5I", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    return DebugInfo(header + types + strings, func_info, line_info)


# --- system calls that Python has no function for -------------------------

_NUMBERS: Final = {  # machine: (bpf, perf_event_open); all little-endian
    "x86_64": (321, 298), "i386": (357, 336), "aarch64": (280, 241), "arm": (386, 364),
    "riscv64": (280, 241), "loongarch64": (280, 241), "ppc64le": (361, 319),
}  # fmt: skip
BPF_PROG_LOAD, BPF_BTF_LOAD = 5, 18
PROG_TYPE_KPROBE, PROG_TYPE_TRACEPOINT = 2, 5
PERF_TYPE_TRACEPOINT, PERF_FLAG_FD_CLOEXEC = 2, 8
PERF_EVENT_IOC_ENABLE, PERF_EVENT_IOC_SET_BPF = 0x2400, 0x40042408

_libc = ctypes.CDLL(None, use_errno=True)


class RefusedError(Exception):
    """A call that the kernel refused; ``args`` are what was asked, and the errno."""


def syscall(index: int, what: str, *args: int | bytes) -> int:
    """bpf (0) or perf_event_open (1); returns the new fd.

    Raises RefusedError, which names ``what``.
    """
    machine = os.uname().machine
    if ctypes.sizeof(ctypes.c_void_p) == 4:  # 32 bits, maybe on a 64-bit kernel
        machine = "arm" if machine.startswith(("arm", "aarch")) else "i386"
    if machine not in _NUMBERS:
        raise RefusedError(f"{what} on {machine}", errno.ENOSYS)
    words = [arg if isinstance(arg, bytes) else ctypes.c_long(arg) for arg in args]
    result = int(_libc.syscall(ctypes.c_long(_NUMBERS[machine][index]), *words))
    if result < 0:
        raise RefusedError(what, ctypes.get_errno())
    return result


def address(buffer: ctypes.Array[ctypes.c_char] | None) -> int:
    """Where ``buffer`` lies in memory; the caller keeps it alive."""
    return ctypes.addressof(buffer) if buffer is not None else 0


def load_btf(blob: bytes) -> int | None:
    """BPF_BTF_LOAD: the fd, or None where the kernel does not want it."""
    data = ctypes.create_string_buffer(blob, len(blob))
    attr = struct.pack("<QQIIII", address(data), 0, len(blob), 0, 0, 0)
    try:
        return syscall(0, "bpf(BPF_BTF_LOAD)", BPF_BTF_LOAD, attr, len(attr))
    except RefusedError:
        return None


def load_program(prog_type: int) -> int:
    """BPF_PROG_LOAD, with BTF where the kernel takes it; returns the program's fd.

    Raises RefusedError.
    """
    insns = b"".join(struct.pack("<BBhi", *insn) for insn in INSNS)
    code = ctypes.create_string_buffer(insns, len(insns))
    gpl = ctypes.create_string_buffer(b"GPL")  # bpf_trace_printk is for GPL programs only
    info = debug_info()
    funcs = ctypes.create_string_buffer(info.func_info, len(info.func_info))
    lines = ctypes.create_string_buffer(info.line_info, len(info.line_info))

    def load(btf_fd: int | None) -> int:
        records = (0, 0, 0, 0, 0, 0, 0)
        if btf_fd is not None:
            records = (btf_fd, 8, address(funcs), 1, 16, address(lines), len(LINES))
        attr = struct.pack(
            "<IIQQ IIQ II16sII IIQI IQI",
            prog_type, len(INSNS), address(code), address(gpl),
            0, 0, 0,  # no verifier log
            0, 0, b"hello_world", 0, 0,
            *records,
        ).ljust(128, b"\0")  # fmt: skip
        return syscall(0, "bpf(BPF_PROG_LOAD)", BPF_PROG_LOAD, attr, len(attr))

    btf_fd = load_btf(info.btf)
    try:
        return load(btf_fd)
    except RefusedError:
        if btf_fd is None:
            raise
        return load(None)
    finally:
        if btf_fd is not None:
            os.close(btf_fd)  # the program holds on to its BTF


def open_event(kind: int, config: int = 0, config1: int = 0, config2: int = 0,
               pid: int = -1, cpu: int = 0) -> int:  # fmt: skip
    """perf_event_open() of an event of which each occurrence counts; returns its fd.

    A program on the event of one CPU runs on all of them: that is how perf
    events of kprobes, tracepoints and uprobes treat BPF.  Raises RefusedError.
    """
    attr = struct.pack(
        "<IIQ QQQQ II QQ",
        kind, 72, config,  # 72 bytes: the oldest size that has config2
        1, 0, 0, 0,  # sample_period, sample_type, read_format, flags
        1, 0,  # wakeup_events, bp_type
        config1, config2,
    )  # fmt: skip
    return syscall(1, "perf_event_open()", attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC)


# --- what to attach to ----------------------------------------------------

PMU_TYPE: Final = "/sys/bus/event_source/devices/{}/type"
TRACEFS: Final = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
TRACEPOINT: Final = "syscalls/sys_enter_openat"
KERNEL_FUNCTION: Final = b"do_sys_openat2"
USER_FUNCTION: Final = "getppid"


def tracefs() -> str | None:
    """Where tracefs is mounted, as far as we may see."""
    return next((path for path in TRACEFS if os.path.exists(f"{path}/events")), None)


def read_number(path: str) -> int:
    """The number in a file of sysfs or tracefs; raises RefusedError."""
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except OSError as err:
        raise RefusedError(f"open({path})", err.errno) from err


def user_function() -> tuple[str, int]:
    """The file that has our C library's getppid(), and the offset of its code there."""
    target = ctypes.cast(_libc[USER_FUNCTION], ctypes.c_void_p).value or 0
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            extent, _, offset, _, _, *path = line.rstrip("\n").split(maxsplit=5)
            start, end = (int(word, 16) for word in extent.split("-"))
            if start <= target < end and path:
                return path[0], target - start + int(offset, 16)
    raise RefusedError(f"finding {USER_FUNCTION}() in /proc/self/maps", errno.ENOENT)


def kprobe() -> int:
    """An event at the start of a kernel function, through the kprobe PMU."""
    name = ctypes.create_string_buffer(KERNEL_FUNCTION)
    return open_event(read_number(PMU_TYPE.format("kprobe")), config1=address(name))


def tracepoint() -> int:
    """An event at a tracepoint, by the number that tracefs gives it."""
    number = read_number(f"{tracefs() or TRACEFS[0]}/events/{TRACEPOINT}/id")
    return open_event(PERF_TYPE_TRACEPOINT, number)


def uprobe() -> int:
    """An event at the start of a function in a file, through the uprobe PMU.

    Only in this process (pid 0, any CPU), not in all that map the C library.
    """
    pmu = read_number(PMU_TYPE.format("uprobe"))
    path, offset = user_function()
    name = ctypes.create_string_buffer(os.fsencode(path))
    return open_event(pmu, config1=address(name), config2=offset, pid=0, cpu=-1)


def open_something() -> None:
    """openat(): what the kprobe and the tracepoint wait for."""
    os.close(os.open(os.devnull, os.O_RDONLY))


def call_function() -> None:
    """getppid(): what the uprobe waits for."""
    _libc.getppid()


class Probe(NamedTuple):
    """One way of attaching; in PROBES the better one stands first."""

    name: str
    target: str
    prog_type: int
    missing: Callable[[], str | None]  # why this kernel has no such thing
    open: Callable[[], int]  # the perf event's fd; raises RefusedError
    trigger: Callable[[], None]


def no_pmu(name: str) -> Callable[[], str | None]:
    """Whether the kernel lets perf_event_open() make probes of this kind."""
    path = PMU_TYPE.format(name)
    return lambda: None if os.path.exists(path) else f"this kernel has no {name} PMU"


def no_tracepoint() -> str | None:
    """Whether the tracepoint's id can be had."""
    root = tracefs()
    if root is None:
        return "tracefs is not mounted, or not for us"
    present = os.path.exists(f"{root}/events/{TRACEPOINT}/id")
    return None if present else f"no tracepoint {TRACEPOINT} in {root}"


PROBES: Final = (
    Probe("kprobe", KERNEL_FUNCTION.decode(), PROG_TYPE_KPROBE,
          no_pmu("kprobe"), kprobe, open_something),
    Probe("tracepoint", TRACEPOINT.replace("/", ":"), PROG_TYPE_TRACEPOINT,
          no_tracepoint, tracepoint, open_something),
    Probe("uprobe", USER_FUNCTION, PROG_TYPE_KPROBE,
          no_pmu("uprobe"), uprobe, call_function),
)  # fmt: skip


def choose(wanted: str | None) -> tuple[Probe, str]:
    """The probe to use, and why that one; raises RefusedError where none is left."""
    reasons: list[str] = []
    for probe in PROBES:
        if wanted in (None, probe.name):
            reason = probe.missing()
            if reason is None:
                why = "as asked" if wanted else "; ".join(reasons) or "the first choice"
                return probe, why
            reasons.append(reason)
    raise RefusedError("; ".join(reasons), errno.ENOENT)


# --- what the program printed ---------------------------------------------


class TracePipe:
    """The kernel's trace pipe, which everything that is read from it leaves."""

    def __init__(self) -> None:
        """Raises OSError: no tracefs, or somebody else reads the pipe."""
        root = tracefs()
        if root is None:
            raise OSError(errno.ENOENT, "tracefs is not mounted, or not for us")
        self._fd = os.open(f"{root}/trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
        self._rest = b""
        while self._read():  # lines from before
            pass

    def _read(self) -> bytes:
        try:
            return os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return b""

    def lines(self, seconds: float) -> list[str]:
        """The lines with our message that can be had at once, or within ``seconds``."""
        deadline = time.monotonic() + seconds
        while True:
            *whole, self._rest = (self._rest + self._read()).split(b"\n")
            found = [line.decode("utf-8", "replace") for line in whole if MESSAGE in line]
            if found or time.monotonic() >= deadline:
                return found
            time.sleep(0.02)


def open_pipe() -> TracePipe | str:
    """The trace pipe, or why it cannot be read."""
    try:
        return TracePipe()
    except OSError as err:
        return str(err.strerror)


def show(pipe: TracePipe, seconds: float | None) -> None:
    """Print the first line with our message, or all that come within ``seconds``."""
    if seconds is None:
        print(*(pipe.lines(2) or ["(nothing in trace_pipe within 2 seconds)"])[:1], sep="\n")
        return
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        for line in pipe.lines(left):
            print(line, flush=True)


# --- all together ---------------------------------------------------------


def hello(wanted: str | None = None, seconds: float | None = None) -> None:
    """Load, attach, trigger, show.  Raises RefusedError."""
    probe, why = choose(wanted)
    print(f"hello_world -> {probe.name} {probe.target} ({why})", flush=True)
    pipe = open_pipe()

    prog_fd = load_program(probe.prog_type)
    event_fd = probe.open()
    for name, request, value in (
        ("PERF_EVENT_IOC_SET_BPF", PERF_EVENT_IOC_SET_BPF, prog_fd),
        ("PERF_EVENT_IOC_ENABLE", PERF_EVENT_IOC_ENABLE, 0),
    ):
        try:
            ioctl(event_fd, request, value)
        except OSError as err:
            raise RefusedError(f"ioctl({name})", err.errno) from err
    probe.trigger()

    if isinstance(pipe, TracePipe):
        show(pipe, seconds)
    else:
        print(f"attached and triggered; its line cannot be read: {pipe}", flush=True)
        time.sleep(seconds or 0)
    # The fds go with the process, and with them the probe and the program.


_NEEDS_PRIVILEGE: Final = "loading and attaching needs root, or CAP_BPF and CAP_PERFMON"
HINTS: Final = {
    errno.EPERM: _NEEDS_PRIVILEGE,
    errno.EACCES: _NEEDS_PRIVILEGE,
    errno.ENOSYS: "this kernel has no such system call, or a sandbox hides it",
    errno.ENOENT: "try another --probe",
    errno.EINVAL: "this kernel may lack what the program needs",
}


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python3 -m bpftrace_sys.hello", description="Hello, World! in eBPF, in pure Python."
    )
    parser.add_argument(
        "--probe",
        choices=[probe.name for probe in PROBES],
        help="what to attach to (default: the first of these that the kernel has)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="N",
        help="stay attached and print lines for N seconds (default: one line)",
    )
    args = parser.parse_args(argv)
    try:
        hello(args.probe, args.seconds)
    except RefusedError as err:
        what, number = err.args
        hint = HINTS.get(number, "see the kernel's log")
        name = errno.errorcode.get(number, str(number))
        print(f"hello: {what}: {name} ({os.strerror(number)}); {hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
