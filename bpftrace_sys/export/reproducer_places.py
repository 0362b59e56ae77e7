"""What a reproducer looks up, or makes, where it runs: the second part of its runtime.

reproducer_python.py copies this file behind reproducer_runtime.py, without the imports of it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import socket
import struct
import sys
import tempfile

from bpftrace_sys.export.reproducer_runtime import (
    LIBC,
    Buffer,
    Handle,
    NotThereError,
    after,
    beginnings,
    endings,
    number_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# ------------------------------------------------------------------ what has another number here


def text_of(path: str) -> str:
    """A small file, or why it cannot be read."""
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError as error:
        raise NotThereError(f"{path}: {error.strerror}") from None


def pmu(name: str) -> Callable[[], int]:
    """The type of a PMU."""
    return lambda: int(text_of(f"/sys/bus/event_source/devices/{name}/type"))


def tracepoint(name: str) -> Callable[[], int]:
    """The id of a tracepoint."""

    def look() -> int:
        for root in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing"):
            if os.path.isdir(f"{root}/events"):
                return int(text_of(f"{root}/events/{name.replace(':', '/', 1)}/id"))
        raise NotThereError("tracefs is not mounted")

    return look


def symbol(name: str, recorded: int) -> Callable[[], int]:
    """The address of a kernel symbol; the recorded one where addresses are hidden."""

    def look() -> int:
        with open("/proc/kallsyms") as file:
            for line in file:
                words = line.split()
                if words[2] == name and words[0].strip("0"):
                    return int(words[0], 16)
        return recorded

    return look


def ident(handle: Handle) -> Callable[[], int]:
    """The id of the object that a call returned."""

    def look() -> int:
        info = text_of(f"/proc/self/fdinfo/{handle.number()}")
        # A link shows the id of its program, too.
        for key in ("link_id", "map_id", "prog_id", "btf_id"):
            found = re.search(rf"^{key}:\s*(\d+)", info, re.MULTILINE)
            if found:
                return int(found.group(1))
        raise NotThereError(f"what call {handle.seq} returned has no id")

    return look


def mapped(handle: Handle) -> Callable[[], int]:
    """A perf event with a buffer, which others may then write to."""

    def look() -> int:
        if ("mapped", handle) not in fds:
            try:
                buffers.append(mmap.mmap(handle.number(), 2 * mmap.PAGESIZE))
            except OSError as error:
                raise NotThereError(f"a buffer of a perf event: {error.strerror}") from None
            fds["mapped", handle] = handle.number()
        return fds["mapped", handle]

    return look


buffers: list[mmap.mmap] = []


def own_pid() -> int:
    """The process that issues the calls now."""
    return os.getpid()


types: dict[bytes, dict[int, int]] = {}
# How many bytes follow a type's header, and how many more for each of its members.
AFTER_TYPE = {1: (4, 0), 3: (12, 0), 4: (0, 12), 5: (0, 12), 6: (0, 8), 13: (0, 8),
              14: (4, 0), 15: (0, 12), 17: (4, 0), 19: (0, 12)}  # fmt: skip
NAMED_TYPES = (12, 4, 5, 8, 14)  # functions first, then structs, unions, typedefs, variables


def vmlinux_type(name: str, recorded: int) -> Callable[[], int]:
    """A type of the running kernel's BTF, by name."""

    def look() -> int:
        if not types:
            read_types()
        found = types.get(name.encode(), {})
        return next((found[kind] for kind in NAMED_TYPES if kind in found), recorded)

    return look


def read_types() -> None:
    """Reads the names in the kernel's BTF (Documentation/bpf/btf.rst)."""
    try:
        with open("/sys/kernel/btf/vmlinux", "rb") as file:
            data = file.read()
    except OSError as error:
        raise NotThereError(f"the kernel's BTF: {error.strerror}") from None
    size, at, length, strings = struct.unpack_from("<IIII", data, 4)
    at, strings, number = at + size, strings + size, 1
    end = at + length
    while at < end:
        name, info, _ = struct.unpack_from("<III", data, at)
        kind, members = info >> 24 & 31, info & 0xFFFF
        if name and kind in NAMED_TYPES:
            start = strings + name
            found = types.setdefault(data[start : data.index(0, start)], {})
            found.setdefault(kind, number)
        once, each = AFTER_TYPE.get(kind, (0, 0))
        at += 12 + once + each * members
        number += 1


# ------------------------------------------------------------------ places of our own

folders: list[str] = []
mounted: list[str] = []
spaces: set[int] = set()
fds: dict[object, int] = {}
probes: list[tuple[str, str]] = []
CLONE_NEWNS, CLONE_NEWNET = 0x20000, 0x40000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000


def space(flag: int, name: str) -> bool:
    """A namespace of our own, once."""
    if flag not in spaces:
        if LIBC.unshare(flag):
            error = os.strerror(ctypes.get_errno())
            raise NotThereError(f"a {name} namespace of its own: {error}")
        spaces.add(flag)
        return True
    return False


# Flow dissectors and netfilter programs are attached to the network namespace of the caller.
beginnings.append(lambda: space(CLONE_NEWNET, "network"))


class Pin(Buffer):
    """A path in a bpffs that lies over the machine's own, for us only."""

    def __init__(self, path: bytes, parents: bool = True, mounted: bool = False) -> None:
        """parents: the folders on the way were there. mounted: and a bpffs, wherever it is."""
        super().__init__(path + b"\0")
        self.parents = parents
        self.mounted = mounted

    def place(self, held: list[object]) -> int:
        if space(CLONE_NEWNS, "mount"):
            LIBC.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
            if LIBC.mount(b"bpf", b"/sys/fs/bpf", b"bpf", 0, None):
                error = os.strerror(ctypes.get_errno())
                raise NotThereError(f"a bpffs of its own: {error}")
        above = os.fsdecode(os.path.dirname(self.data[:-1]))
        if self.parents and above.startswith("/sys/fs/bpf/"):
            os.makedirs(above, exist_ok=True)
        elif self.mounted and above.startswith("/") and not is_bpffs(above):
            folder(above)
            LIBC.mount(b"bpf", os.fsencode(above), b"bpf", 0, None)
            mounted.append(above)
        return super().place(held)


def is_bpffs(path: str) -> bool:
    """Whether a folder is in a bpffs."""
    buffer = ctypes.create_string_buffer(256)
    return LIBC.statfs(os.fsencode(path), buffer) == 0 and buffer.raw[:4] == b"\x11\x4a\xfe\xca"


def folder(path: str) -> None:
    """Makes a folder, and remembers it, to remove it at the end."""
    if not os.path.isdir(path):
        folder(os.path.dirname(path))
        os.mkdir(path)
        folders.append(path)


def cgroup(path: str) -> Callable[[], int]:
    """A cgroup of our own in the place of one: what is attached there concerns nobody."""

    def look() -> int:
        root = cgroup_root()
        below = re.sub(r"^/sys/fs/cgroup(/unified)?", "", path)
        own = f"{root}/bpfstrace-repro-{os.getpid()}{below}".rstrip("/")
        if own not in fds:
            try:
                folder(own)
                fds[own] = os.open(own, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise NotThereError(f"{own}: {error.strerror}") from None
        return fds[own]

    return look


def remove_folders() -> None:
    """Removes what folder() and cgroup_root() have made."""
    os.closerange(3, 1 << 16)
    for path in reversed(mounted):
        LIBC.umount2(os.fsencode(path), 2)
    for path in reversed(folders):
        try:
            os.rmdir(path)
        except OSError as error:
            print(f"{path} stays: {error.strerror}", file=sys.stderr)


endings.append(remove_folders)


def cgroup_root() -> str:
    """Where the second hierarchy is mounted; mounted by us where it is not."""
    for line in text_of("/proc/self/mountinfo").splitlines():
        place, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            return place.split()[4]
    own = tempfile.mkdtemp(prefix="bpfstrace-repro-")
    if LIBC.mount(b"cgroup2", own.encode(), b"cgroup2", 0, None):
        os.rmdir(own)
        raise NotThereError("there is no cgroup2")
    folders.append(own)
    mounted.append(own)
    return own



def opened(path: str, flags: int = os.O_RDONLY) -> Callable[[], int]:
    """A file of the machine."""

    def look() -> int:
        if (path, flags) not in fds:
            try:
                fds[path, flags] = os.open(path, flags | os.O_CLOEXEC)
            except OSError as error:
                raise NotThereError(f"{path}: {error.strerror}") from None
        return fds[path, flags]

    return look


def appended(path: str) -> Callable[[], int]:
    """A file of the machine, to be written at its end: that is how tracefs defines probes."""
    return opened(path, os.O_WRONLY | os.O_APPEND)


def remember_probes(arguments: list[object]) -> None:
    """What was defined in tracefs is taken away at the end."""
    text = getattr(arguments[1], "data", b"").decode("utf-8", "replace")
    for found in re.finditer(r"^([pr])\d*:(\S+)|^-:(\S+)", text, re.MULTILINE):
        name = found.group(2) or found.group(3)
        if found.group(1):
            path = os.readlink(f"/proc/self/fd/{number_of(arguments[0], [])}")
            probes.append((path, name))
        else:
            probes[:] = [known for known in probes if known[1] != name]


def forget_probes() -> None:
    """Takes away the probes that are left, after their events are closed."""
    os.closerange(3, 1 << 16)
    for path, name in reversed(probes):
        try:
            with open(path, "a") as file:
                file.write(f"-:{name}\n")
        except OSError as error:
            print(f"the probe {name} stays: {error.strerror}", file=sys.stderr)


endings.append(forget_probes)
after["write"] = remember_probes


def netns() -> int:
    """Our network namespace."""
    space(CLONE_NEWNET, "network")
    return opened("/proc/self/ns/net")()


def udp_socket(which: str) -> Callable[[], int]:
    """A socket in the place of one that the trace does not know."""

    def look() -> int:
        if which not in fds:
            fds[which] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach()
        return fds[which]

    return look


def tun(name: str) -> Callable[[], int]:
    """A tun device in a network namespace of our own."""

    def look() -> int:
        if ("tun", name) not in fds:
            import fcntl

            space(CLONE_NEWNET, "network")
            try:
                fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
                # TUNSETIFF with IFF_TUN | IFF_NO_PI
                fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1001))
            except OSError as error:
                raise NotThereError(f"a tun device: {error.strerror}") from None
            fds["tun", name] = fd
        return fds["tun", name]

    return look


def device(name: str, kind: str = "veth") -> Callable[[], int]:
    """The index of an interface of that name, in a network namespace of our own."""

    def look() -> int:
        space(CLONE_NEWNET, "network")
        try:
            return socket.if_nametoindex(name)
        except OSError:
            make_device(name, kind)
        try:
            return socket.if_nametoindex(name)
        except OSError:
            raise NotThereError(f"no interface {name}, and none can be made") from None

    return look


def make_device(name: str, kind: str) -> None:
    """A pair of interfaces by RTM_NEWLINK; the other end has _ before its name's end."""

    def attribute(number: int, data: bytes) -> bytes:
        return struct.pack("<HH", 4 + len(data), number) + data + bytes(-len(data) % 4)

    peer = attribute(3, name[:13].encode() + b"_\0")
    data = attribute(1, bytes(16) + peer)
    if kind == "netkit":
        # IFLA_NETKIT_MODE is NETKIT_L3: an interface without addresses of its own
        data += attribute(3, struct.pack("<I", 0))
    info = attribute(1, kind.encode() + b"\0") + attribute(2, data)
    body = bytes(16) + attribute(3, name.encode() + b"\0") + attribute(18, info)
    header = struct.pack("<IHHII", 16 + len(body), 16, 0x605, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as channel:
        channel.send(header + body)
        channel.recv(4096)
