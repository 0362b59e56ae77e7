"""Evidence for explanations, asked of the live machine and recorded as facts.

A fact's kind here is ``why``, a question, and its argument: ``why sysctl
kernel/unprivileged_bpf_disabled``, ``why config FPROBE``, ``why path /sys/fs/bpf/x``.
Answers about what may change from call to call (paths, tasks) have the call's
number as key, so that each call keeps its own answer.

:func:`credentials` alone is asked in a stop, and only of a call that was just
refused: afterwards the thread may have others, or be gone.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from bpftrace_sys.record.files.tracee_files import Base, Status, TraceeFiles
from bpftrace_sys.record.files.walk import Place, place_of

FILE_SYSTEMS: Final = {
    0xCAFE4A11: "bpf",
    0x63677270: "cgroup2",
    0x27E0EB: "cgroup",
    0x6E736673: "nsfs",
    0x09041934: "anon_inode",
    0x50495045: "pipe",
    0x534F434B: "socket",
    0x74726163: "tracefs",
    0x64626720: "debugfs",
    0x01021994: "tmpfs",
    0x9FA0: "proc",
    0x62656572: "sysfs",
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x794C7630: "overlayfs",
}
"""statfs's f_type (include/uapi/linux/magic.h)."""
TRACEFS: Final = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
LONGEST: Final = 64 << 20
"""Bytes of a list of functions."""
RECENT: Final = 60
"""Seconds; the trace's clock is not quite ours."""
NONE: Final = "-"
"""The answer that there is no such thing; no answer at all is None."""


def _read(path: str) -> str | None:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 16).decode("utf-8", "replace").strip()
    except OSError:
        return None


def _read_whole(path: str) -> bytes | None:
    """A list that the kernel makes, of some megabytes."""
    try:
        with open(path, "rb") as file:
            return file.read(LONGEST)
    except OSError:
        return None


def system_of(place: Place) -> str | None:
    """The type of the file system of a place; None where that cannot be known."""
    if not place.answers:
        return None if place.mount is None else place.kind
    import ctypes

    buffer = ctypes.create_string_buffer(256)
    if ctypes.CDLL(None).fstatfs(place.fd, buffer) != 0:
        return None
    number = int.from_bytes(buffer.raw[:4], "little")
    return FILE_SYSTEMS.get(number, f"{number:#x}")


def _recent(mark: str) -> bool:
    """Whether an entry of error_log, ``[SECONDS] SYSTEM``, is of about now: it may be an old one of
    the same line."""
    try:
        age = time.monotonic() - float(mark.partition("]")[0].removeprefix("["))
    except ValueError:
        return False
    return abs(age) < RECENT


def _options() -> dict[str, str]:
    """The running kernel's configuration, without CONFIG_; empty if it cannot be had."""
    text = ""
    try:
        import gzip

        with gzip.open("/proc/config.gz", "rt", encoding="ascii", errors="replace") as file:
            text = file.read()
    except (OSError, EOFError):
        text = _read(f"/boot/config-{os.uname().release}") or ""
    options = {}
    for line in text.splitlines():
        if line.startswith("CONFIG_"):
            name, _, value = line[7:].partition("=")
            options[name] = value
    return options


class Asked(Protocol):
    """LiveFacts, as far as evidence is asked of it."""

    pid: int
    world: Any

    @property
    def files(self) -> TraceeFiles: ...

    def fact(self, kind: str, key: int) -> str | None: ...
    def vmlinux(self) -> Any: ...


class Evidence:
    """Answers questions; ``facts`` is the LiveFacts that asks and records."""

    def __init__(self, facts: Asked) -> None:
        self.facts = facts
        self._config: dict[str, str] | None = None
        self._enums: dict[str, dict[int, str]] = {}
        self._functions: frozenset[bytes] | None = None

    def ask(self, question: str, key: int) -> str | None:
        """The live machine's answer, or None where it cannot be had."""
        word, _, argument = question.partition(" ")
        found = QUESTIONS.get(word)
        return None if found is None else found(self, argument, key)

    # ------------------------------------------------------------ the kernel

    def sysctl(self, name: str, key: int) -> str | None:
        """A file below /proc/sys."""
        return _read(f"/proc/sys/{name}")

    def file(self, name: str, key: int) -> str | None:
        """A small file of the kernel's."""
        return _read(name)

    def memory(self, name: str, key: int) -> str | None:
        """Bytes of memory: ``MemTotal``, ``MemAvailable`` of /proc/meminfo."""
        for line in (_read("/proc/meminfo") or "").splitlines():
            words = line.split()
            if words[:1] == [f"{name}:"] and words[2:] == ["kB"] and words[1].isdecimal():
                return str(int(words[1]) * 1024)
        return None

    def config(self, name: str, key: int) -> str | None:
        """A configuration option's value; ``n`` where it is not set."""
        if self._config is None:
            self._config = _options()
        return self._config.get(name, "n") if self._config else None

    def _type(self, name: str) -> Any:
        vmlinux = self.facts.vmlinux()
        if vmlinux is None:
            return None
        from decoders.formats.btf_types import Kind

        return vmlinux.find(name, Kind.STRUCT) or vmlinux.find(name, Kind.UNION)

    def size(self, name: str, key: int) -> str | None:
        """sizeof of a struct or union in the kernel's BTF."""
        found = self._type(name)
        return None if found is None else str(found.size)

    def members(self, name: str, key: int) -> str | None:
        """All members' names of a struct or union, those of unnamed and inner ones too."""
        top = self._type(name)
        if top is None:
            return None
        from decoders.formats.btf_types import COMPOSITES

        vmlinux = self.facts.vmlinux()
        names: dict[str, None] = {}
        waiting = [top]
        for _ in range(1000):
            if not waiting:
                break
            for member in waiting.pop().members:
                if member.name:
                    names[member.name] = None
                inner = vmlinux.resolve(member.type)
                if inner is not None and inner.kind in COMPOSITES and not inner.name:
                    waiting.append(inner)
        return " ".join(names)

    def member(self, names: str, key: int) -> str | None:
        """``yes`` or ``-``: whether a struct or union has a member (``bpf_attr batch.flags``)."""
        struct, _, path = names.partition(" ")
        place = self._type(struct)
        if place is None:
            return None
        for name in path.split("."):
            place = self._inner(place, name)
            if place is None:
                return NONE
        return "yes"

    def _inner(self, place: Any, name: str) -> Any:
        """The type of a member, looked for in unnamed structs and unions, too; or None."""
        from decoders.formats.btf_types import COMPOSITES

        vmlinux = self.facts.vmlinux()
        waiting = [place]
        for _ in range(1000):
            if not waiting:
                break
            for member in waiting.pop().members:
                inner = vmlinux.resolve(member.type)
                if member.name == name:
                    return inner
                if not member.name and inner is not None and inner.kind in COMPOSITES:
                    waiting.append(inner)
        return None

    def enumerator(self, name: str, key: int) -> str | None:
        """The name that an enum's value has in the kernel's BTF."""
        vmlinux = self.facts.vmlinux()
        if vmlinux is None:
            return None
        values = self._enums.get(name)
        if values is None:
            from decoders.formats.btf_types import ENUMS

            values = self._enums[name] = {}
            for type_id in sorted(id for kind in ENUMS for id in vmlinux.find_all(name, kind)):
                for item in vmlinux.type(type_id).enumerators:
                    if "MAX_" not in item.name and not item.name.startswith("__"):
                        values.setdefault(item.value & 0xFFFFFFFF, item.name)
        return values.get(key & 0xFFFFFFFF, NONE) if values else None

    def flag(self, name: str, key: int) -> str | None:
        """``yes`` or ``-``: whether an unnamed enum of the kernel has this enumerator."""
        vmlinux = self.facts.vmlinux()
        if vmlinux is None:
            return None
        from decoders.formats.btf_types import ENUMS

        ids = vmlinux.mentions(name)
        if ids is None:
            ids = (type_id for kind in ENUMS for type_id in vmlinux.ids_of(kind))
        for type_id in ids:
            unnamed = vmlinux.kind(type_id) in ENUMS and not vmlinux.name(type_id)
            if unnamed and any(item.name == name for item in vmlinux.type(type_id).enumerators):
                return "yes"
        return NONE

    def function(self, name: str, key: int) -> str | None:
        """``yes`` or ``-``: whether the kernel or a module has a function of that name."""
        if self._functions is None:
            names = []
            try:
                with open("/proc/kallsyms", "rb") as file:
                    for line in file:
                        words = line.split()
                        if len(words) > 2 and words[1] in b"tTwW":
                            names.append(words[2])
            except OSError:
                pass
            self._functions = frozenset(names)
        if not self._functions:
            return None
        return "yes" if name.encode("utf-8", "replace") in self._functions else NONE

    def kprobe(self, name: str, key: int) -> str | None:
        """What is with a function that one would probe: ``blacklisted``, ``not traceable``, both,
        ``as NAME`` (a part of it, under another name), ``yes``, or ``-``: there is none.
        """
        there = self.function(name, key)
        if there is None or not name:
            return None
        wanted = name.encode("utf-8", "replace")
        if there == NONE:
            parts = sorted(part for part in self._functions or () if part.startswith(wanted + b"."))
            return f"as {parts[0].decode('utf-8', 'replace')}" if parts else NONE
        blacklist = _read_whole("/sys/kernel/debug/kprobes/blacklist")
        words = []
        if blacklist is not None and b"\t" + wanted + b"\n" in blacklist:
            words.append("blacklisted")
        for root in TRACEFS:
            listed = _read_whole(f"{root}/available_filter_functions")
            if listed:
                found = re.search(rb"(?m)^" + re.escape(wanted) + rb"(?: \[.*\])?$", listed)
                words += [] if found else ["not traceable"]
                break
        return ", ".join(words) or "yes"

    def raw_tracepoint(self, name: str, key: int) -> str | None:
        """``yes`` or ``-``: whether there is a tracepoint of that name.

        The kernel's own have a typedef btf_trace_NAME; those of modules are looked
        for in tracefs.
        """
        vmlinux = self.facts.vmlinux()
        if vmlinux is None:
            return None
        if vmlinux.find(f"btf_trace_{name}") is not None:
            return "yes"
        import glob

        for root in TRACEFS:
            if os.path.isdir(f"{root}/events"):
                found = "/" not in name and glob.glob(f"{root}/events/*/{glob.escape(name)}")
                return "yes" if found else NONE
        return None

    def error_log(self, line: str, key: int) -> str | None:
        """What tracefs's error_log last said of a line: the error, and the column of its caret.

        An entry has three lines (Documentation/trace/ftrace.rst): ``[TIME] SYSTEM: error: TEXT``,
        ``  Command: LINE``, and a caret below the place.
        """
        log = next(filter(None, (_read(f"{root}/error_log") for root in TRACEFS)), "")
        found = None
        entry = log.splitlines()
        for at, text in enumerate(entry):
            mark, _, error = text.partition(": error: ")
            if not (_recent(mark) and error and at + 1 < len(entry)):
                continue
            head, _, command = entry[at + 1].partition("Command: ")
            if command.strip() == line:
                caret = entry[at + 2].find("^") if at + 2 < len(entry) else -1
                column = caret - len(head) - len("Command: ")
                found = f"{error}\n{column}" if column >= 0 else error
        return found

    def tracepoint_id(self, _: str, key: int) -> str | None:
        """A tracepoint's name by its id in tracefs."""
        found = self.facts.fact("tracepoint", key)
        if found is not None:
            return str(found)
        return NONE if os.path.isdir("/sys/kernel/tracing/events") else None

    # ------------------------------------------------------------ the tracee's world

    def _base(self) -> Base:
        """Where the caller's paths begin: as they were held, or as they are."""
        world = self.facts.world
        now = Base.of(self.facts.pid if world is None else world.mounts_of or self.facts.pid)
        if world is None:
            return now
        return Base(now.pid, world.folder("root") or now.root, world.folder("cwd") or now.cwd)

    def path(self, path: str, key: int) -> str | None:
        """``directory``, ``file``, ``device`` or ``-``: what stands at a path of the tracee's."""
        try:
            mode = self._status(path).mode
        except (FileNotFoundError, NotADirectoryError):
            return NONE if self._has_root(path) else None
        except (OSError, ValueError):
            return None
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            return "device"
        return "directory" if stat.S_ISDIR(mode) else "file"

    def _status(self, path: str) -> Status:
        return self.facts.files.status(self._base(), path)

    def _has_root(self, path: str) -> bool:
        """Whether where a path begins is there: of a caller that is gone, none is found."""
        base = self._base()
        return os.path.lexists(base.root if path.startswith("/") else base.cwd)

    def file_size(self, path: str, key: int) -> str | None:
        """The bytes of a regular file of the tracee's."""
        try:
            found = self._status(path)
        except (OSError, ValueError):
            return None
        return str(found.size) if stat.S_ISREG(found.mode) else None

    def file_system(self, path: str, key: int) -> str | None:
        """The type of the file system that holds a path of the tracee's."""
        try:
            with self.facts.files.place(self._base(), path) as place:
                return None if place.rest else system_of(place)
        except (OSError, ValueError):
            return None

    def unlooked(self, path: str, key: int) -> str | None:
        """Why a path of the tracee's was not looked at: ``it is on fuse, which did not ...``."""
        found = self.facts.files.unlooked(path)
        return None if found is None else str(found)

    def _held(self, *name: str) -> Place | None:
        """The file of an fd of the call, or what stands beside it; raises OSError."""
        world = self.facts.world
        link = None if world is None else world.folder("file")
        if link is None:
            return None
        return place_of(self.facts.pid, os.open("/".join((link, *name)), os.O_PATH | os.O_CLOEXEC))

    def fd_system(self, _: str, key: int) -> str | None:
        """The type of the file system that an fd of the call is on, as of the exit stop."""
        world = self.facts.world
        if world is not None and world.system is not None:
            return str(world.system)
        try:
            held = self._held()
        except OSError:
            return None
        return None if held is None else system_of(held)

    def fd_root(self, _: str, key: int) -> str | None:
        """``yes`` or ``-``: whether an fd of the call is the root of a mount."""
        world = self.facts.world
        if world is not None and world.top is not None:
            return "yes" if world.top else NONE
        try:
            held = self._held()
            above = None if held is None or not held.answers else self._held("..")
        except OSError:
            return None
        if held is None or above is None:
            return None
        if held.mount is None or above.mount is None:
            return None
        apart = held.mount.device != above.mount.device
        return "yes" if apart or os.path.sameopenfile(held.fd, above.fd) else NONE

    def filtered(self, _: str, key: int) -> str | None:
        """``yes``: a seccomp filter of the caller's own gave the answer."""
        world = self.facts.world
        return "yes" if world is not None and world.filtered else None

    def hook(self, _: str, key: int) -> str | None:
        """What was attached where the call wanted to attach, as of its exit stop."""
        world = self.facts.world
        return None if world is None or world.hook is None else str(world.hook)

    def task(self, number: str, key: int) -> str | None:
        """``yes`` or ``-``: whether a task of that number lives in our pid namespace."""
        try:
            ours = os.stat("/proc/self/ns/pid").st_ino
            known = self.facts.world and self.facts.world.pid_namespace
            theirs = known or os.stat(f"/proc/{self.facts.pid}/ns/pid").st_ino
        except OSError:
            return None
        if ours != theirs:
            return None
        seen = self.facts.world and self.facts.world.tasks.get(int(number))
        if seen is not None:
            return "yes" if seen else NONE
        # That it is gone now says nothing of when the call was made.
        return "yes" if os.path.exists(f"/proc/{number}") else None

    def device(self, number: str, key: int) -> str | None:
        """``-``: the caller's namespace had no network device of that number. Later it may have."""
        world = self.facts.world
        missing = world is not None and number.isdecimal() and int(number) in world.missing
        return NONE if missing else None


QUESTIONS: Final[dict[str, Callable[[Evidence, str, int], str | None]]] = {
    "sysctl": Evidence.sysctl,
    "file": Evidence.file,
    "memory": Evidence.memory,
    "config": Evidence.config,
    "size": Evidence.size,
    "members": Evidence.members,
    "member": Evidence.member,
    "enumerator": Evidence.enumerator,
    "flag": Evidence.flag,
    "function": Evidence.function,
    "kprobe": Evidence.kprobe,
    "raw_tracepoint": Evidence.raw_tracepoint,
    "error_log": Evidence.error_log,
    "tracepoint_id": Evidence.tracepoint_id,
    "path": Evidence.path,
    "file_size": Evidence.file_size,
    "file_system": Evidence.file_system,
    "unlooked": Evidence.unlooked,
    "task": Evidence.task,
    "filtered": Evidence.filtered,
    "hook": Evidence.hook,
    "fd_system": Evidence.fd_system,
    "fd_root": Evidence.fd_root,
    "device": Evidence.device,
}
"""By the word that follows ``why``."""
