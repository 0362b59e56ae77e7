"""What this machine allows: each thing looked at for real, nothing left behind.

Every look is a row of ROWS, a function that returns what it found. Where the kernel would have to
be changed to find out (a sysctl, a mount), nothing is tried, and what stands there is read.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import struct
from collections.abc import Callable
from typing import Final

from bpftrace_sys.record.ebpf.refusals import LOCKDOWN, VMLINUX
from bpftrace_sys.record.machine.bpf import bpf
from bpftrace_sys.record.proc import status
from decoders.records import NamedTuple
from decoders.uapi import const

GOOD: Final = "yes"
BAD: Final = "no"
PARTLY: Final = "partly"
UNSEEN: Final = "unseen"
"""It could not be looked at."""
TRACING: Final = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
CAPABILITIES: Final = {
    "CAP_SYS_PTRACE": 19, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39,
    "CAP_NET_ADMIN": 12,
}  # fmt: skip
"""include/uapi/linux/capability.h"""
EXTRAS: Final = (
    ("capstone", "jit", "native code is not disassembled"),
    ("pyroute2", "netlink", "what stands on interfaces is not named"),
    ("textual", "tui", "bpfstrace tui shows nothing"),
    ("zstandard", "zstd", "traces that end in .zst cannot be read or written"),
)
"""Module, extra, and what is missing without it."""


class Ability(NamedTuple):
    """What was found of one thing."""

    name: str
    state: str
    """GOOD, BAD, PARTLY or UNSEEN."""
    found: str
    advice: str = ""
    """What to do; empty where nothing needs doing."""
    needed: bool = False
    """Nothing can be traced by ptrace without it."""


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(4096).strip()
    except OSError:
        return None


def _number(path: str) -> int | None:
    text = _read(path) or ""
    return int(text) if text.removeprefix("-").isdigit() else None


def _capable(name: str) -> bool:
    return bool(int(status("self").get("CapEff", "0"), 16) >> CAPABILITIES[name] & 1)


def _ptrace() -> Ability:
    """Traces a child of ours that stops at once, and ends it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    ready, end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(end)
        os.read(ready, 1)
        os._exit(0)
    os.close(ready)
    try:
        seized = libc.ptrace(0x4206, pid, None, None) == 0  # PTRACE_SEIZE
        error = ctypes.get_errno()
    finally:
        os.close(end)
        os.waitpid(pid, 0)
    if seized:
        return Ability("ptrace", GOOD, "a child of ours can be traced", needed=True)
    tracer = status("self").get("TracerPid", "0")
    if tracer != "0":
        advice = f"process {tracer} traces bpfstrace itself; run it without"
    else:
        advice = "in a container: --cap-add=SYS_PTRACE, and a seccomp profile that allows ptrace"
    return Ability("ptrace", BAD, os.strerror(error), advice, needed=True)


def _yama() -> Ability:
    scope = _number("/proc/sys/kernel/yama/ptrace_scope")
    if scope is None:
        return Ability("attach (-p)", GOOD, "Yama is not there: own processes can be attached to")
    if scope == 0 or (scope < 3 and _capable("CAP_SYS_PTRACE")):
        return Ability("attach (-p)", GOOD, f"kernel.yama.ptrace_scope is {scope}")
    if scope == 3:
        advice = "it stays so until a reboot; --engine bpf does without ptrace"
    else:
        advice = "run as root, or `sysctl kernel.yama.ptrace_scope=0`"
    return Ability("attach (-p)", BAD, f"kernel.yama.ptrace_scope is {scope}", advice)


def _capabilities() -> Ability:
    missing = [name for name in CAPABILITIES if not _capable(name)]
    held = [name for name in CAPABILITIES if name not in missing]
    if not missing:
        return Ability("capabilities", GOOD, ", ".join(held))
    state = PARTLY if held else BAD
    return Ability(
        "capabilities", state, f"without {', '.join(missing)}",
        "run as root for programs that need them; replay needs none",
    )  # fmt: skip


def _bpf() -> Ability:
    """Makes an array of one element, and closes it."""
    attr = ctypes.create_string_buffer(struct.pack("=4I", 2, 4, 4, 1), 72)
    try:
        os.close(bpf(const.BPF_MAP_CREATE, attr))
    except OSError as error:
        disabled = _number("/proc/sys/kernel/unprivileged_bpf_disabled")
        said = "" if disabled is None else f"; kernel.unprivileged_bpf_disabled is {disabled}"
        return Ability(
            "bpf(2)", BAD, f"a map cannot be made: {error.strerror}{said}",
            "run as root, or with CAP_BPF; what is refused can be traced all the same",
        )  # fmt: skip
    return Ability("bpf(2)", GOOD, "a map can be made")


def _unprivileged() -> Ability:
    disabled = _number("/proc/sys/kernel/unprivileged_bpf_disabled")
    if disabled is None:
        return Ability("bpf for users", UNSEEN, "no kernel.unprivileged_bpf_disabled here")
    words = {0: "allowed", 1: "off until a reboot", 2: "off"}.get(disabled, "unknown")
    return Ability(
        "bpf for users", GOOD if disabled == 0 else PARTLY,
        f"kernel.unprivileged_bpf_disabled is {disabled}: {words}",
    )  # fmt: skip


def _tracefs() -> Ability:
    seen = [path for path in TRACING if os.path.isdir(f"{path}/events")]
    if seen:
        return Ability("tracefs", GOOD, seen[0])
    if _read(f"{TRACING[0]}/README") is None and os.path.isdir(TRACING[0]) and os.getuid():
        return Ability(
            "tracefs", UNSEEN, f"{TRACING[0]} is not ours to read",
            "run as root for names of tracepoints",
        )  # fmt: skip
    return Ability("tracefs", BAD, "not mounted", f"mount -t tracefs tracefs {TRACING[0]}")


def _bpffs() -> Ability:
    places = [path for kind, path in _read_mounts() if kind == "bpf"]
    if places:
        return Ability("bpf file system", GOOD, places[0])
    return Ability(
        "bpf file system", PARTLY, "not mounted", "mount -t bpf bpf /sys/fs/bpf, for pins"
    )


def _read_mounts() -> list[tuple[str, str]]:
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
            rows = [line.split() for line in file]
    except OSError:
        return []
    return [(row[2], row[1]) for row in rows if len(row) > 2]


def _btf() -> Ability:
    try:
        with open(VMLINUX, "rb") as file:
            if file.read(2) in (b"\x9f\xeb", b"\xeb\x9f"):
                return Ability("kernel's BTF", GOOD, VMLINUX)
            return Ability("kernel's BTF", BAD, f"{VMLINUX} is no BTF")
    except FileNotFoundError:
        return Ability(
            "kernel's BTF", BAD, f"no {VMLINUX}",
            "a kernel with CONFIG_DEBUG_INFO_BTF names kernel functions and types",
        )  # fmt: skip
    except OSError as error:
        return Ability("kernel's BTF", UNSEEN, f"{VMLINUX}: {error.strerror}")


def _pmu(name: str, option: str) -> Callable[[], Ability]:
    def look() -> Ability:
        path = f"/sys/bus/event_source/devices/{name}/type"
        number = _number(path)
        if number is not None:
            return Ability(f"{name}s", GOOD, f"perf type {number}")
        if not os.path.isdir("/sys/bus/event_source"):
            return Ability(f"{name}s", UNSEEN, "/sys is not mounted")
        return Ability(f"{name}s", BAD, f"no {path}", f"a kernel with CONFIG_{option} has them")

    return look


def _sysctl(name: str, path: str, fine: Callable[[int], bool], words: str, advice: str,
            excused: str = "") -> Callable[[], Ability]:  # fmt: skip
    def look() -> Ability:
        number = _number(path)
        key = path.removeprefix("/proc/sys/").replace("/", ".")
        if number is None:
            return Ability(name, UNSEEN, f"{key} cannot be read")
        if fine(number):
            return Ability(name, GOOD, f"{key} is {number}")
        if excused and _capable(excused):
            return Ability(name, GOOD, f"{key} is {number}, and we have {excused}")
        return Ability(name, PARTLY, f"{key} is {number}: {words}", advice)

    return look


def _addresses() -> Ability:
    """Whether /proc/kallsyms shows us addresses; kptr_restrict is one of what decides that."""
    restrict = _number("/proc/sys/kernel/kptr_restrict")
    said = "" if restrict is None else f" (kernel.kptr_restrict is {restrict})"
    line = (_read("/proc/kallsyms") or "").split(" ")[0]
    if not line:
        return Ability("kernel's addresses", UNSEEN, "/proc/kallsyms cannot be read")
    if int(line, 16):
        return Ability("kernel's addresses", GOOD, f"/proc/kallsyms shows them{said}")
    return Ability(
        "kernel's addresses", PARTLY, f"/proc/kallsyms hides them{said}",
        "run as root for names of kernel functions",
    )  # fmt: skip


def _lockdown() -> Ability:
    text = _read(LOCKDOWN)
    if text is None:
        return Ability("lockdown", UNSEEN, f"{LOCKDOWN} cannot be read")
    mode = text.partition("[")[2].partition("]")[0]
    if mode == "confidentiality":
        return Ability(
            "lockdown", BAD, "confidentiality: BPF programs may not read the kernel's memory",
            "--engine ptrace needs none of it",
        )  # fmt: skip
    return Ability("lockdown", GOOD, mode or text)


def _engine() -> Ability:
    """Loads and attaches the programs of the eBPF engine, and lets go of them at once."""
    from bpftrace_sys.record.ebpf.engine import Wanted, Watch
    from bpftrace_sys.record.ptrace.errors import EngineError

    watch = Watch(Wanted(calls=("bpf",), ring=1 << 16))
    try:
        watch.open()
    except EngineError as error:
        return Ability("--engine bpf", BAD, str(error).removeprefix("cannot watch by eBPF: "))
    watch.close()
    return Ability("--engine bpf, -a", GOOD, "its programs load and attach")


def _extra(module: str, extra: str, missing: str) -> Callable[[], Ability]:
    def look() -> Ability:
        if importlib.util.find_spec(module) is not None:
            return Ability(module, GOOD, "installed")
        return Ability(module, PARTLY, f"not installed: {missing}",
                       f"pip install 'bpfstrace[{extra}]'")  # fmt: skip

    return look


ROWS: Final[tuple[Callable[[], Ability], ...]] = (
    _ptrace,
    _yama,
    _capabilities,
    _bpf,
    _unprivileged,
    _engine,
    _btf,
    _tracefs,
    _bpffs,
    _pmu("kprobe", "KPROBE_EVENTS"),
    _pmu("uprobe", "UPROBE_EVENTS"),
    _sysctl("perf events", "/proc/sys/kernel/perf_event_paranoid", lambda n: n < 2,
            "users may not watch the kernel", "run as root, or with CAP_PERFMON", "CAP_PERFMON"),
    _addresses,
    _sysctl("JIT", "/proc/sys/net/core/bpf_jit_enable", lambda n: n > 0,
            "programs are interpreted", "sysctl net.core.bpf_jit_enable=1 for native code"),
    _sysctl("JIT's constants", "/proc/sys/net/core/bpf_jit_harden", lambda n: n == 0,
            "constants in native code are blinded, and it is hidden from users", ""),
    _lockdown,
    *(_extra(*row) for row in EXTRAS),
)  # fmt: skip
"""In the order in which they are told."""


def abilities() -> list[Ability]:
    """All that is looked at."""
    return [look() for look in ROWS]
