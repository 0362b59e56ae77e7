"""Facts about fds, and reading live memory: on this kernel, with real objects."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from bpftrace_sys.record.machine.fds import FdLookup, parse_fdinfo
from bpftrace_sys.record.machine.holders import fact_once
from bpftrace_sys.record.ptrace import memory as live_memory
from bpftrace_sys.record.ptrace.memory import PAGE, LiveMemory, Ranges
from decoders.raw import ENTRY, EXIT

NR = {"x86_64": (321, 298), "aarch64": (280, 241)}.get(platform.machine(), (-1, -1))
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def bpf(command: int, attr: bytes) -> int:
    """bpf(2); the skip says why where the machine refuses."""
    buffer = ctypes.create_string_buffer(attr, max(len(attr), 128))
    fd: int = libc.syscall(NR[0], command, buffer, 128)
    if fd < 0:
        error = os.strerror(ctypes.get_errno())
        pytest.skip(f"bpf({command}) is refused here: {error}")
    return fd


def new_map(max_entries: int = 7) -> int:
    return bpf(0, struct.pack("=IIIII", 2, 4, 8, max_entries, 0))


def new_prog() -> int:
    insns = ctypes.create_string_buffer(bytes.fromhex("b700000000000000 9500000000000000"), 16)
    licence = ctypes.create_string_buffer(b"GPL")
    return bpf(5, struct.pack("=IIQQ", 1, 2, ctypes.addressof(insns), ctypes.addressof(licence)))


@pytest.fixture
def lookup() -> Iterator[FdLookup]:
    it = FdLookup()
    yield it
    it.close()


def test_map(lookup: FdLookup) -> None:
    fd = new_map()
    fact = lookup.fact(os.getpid(), fd, EXIT)
    os.close(fd)
    assert fact is not None
    assert (fact.fd, fact.stage, fact.kind) == (fd, EXIT, "map")
    assert fact.id == fact.info["map_id"] > 0
    wanted = {"map_type": 2, "key_size": 4, "value_size": 8, "max_entries": 7, "map_flags": 0}
    assert {key: fact.info[key] for key in wanted} == wanted
    assert not {"pos", "flags", "mnt_id", "ino"} & fact.info.keys()


def test_prog(lookup: FdLookup) -> None:
    fd = new_prog()
    fact = lookup.fact(os.getpid(), fd, EXIT)
    os.close(fd)
    assert fact is not None
    assert fact.kind == "prog"
    # SHA-1 before Linux 6.18, SHA-256 since
    assert fact.info["prog_tag"] in ("a04f5eef06a7f555", "59f4a931744dcdc6")
    assert fact.id == fact.info["prog_id"]
    assert fact.info["prog_type"] == 1


def test_btf(lookup: FdLookup) -> None:
    blob = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, 16, 16, 5)
    blob += struct.pack("=IIII", 1, 1 << 24, 4, 0x01000020) + b"\0int\0"
    data = ctypes.create_string_buffer(blob, len(blob))
    fd = bpf(18, struct.pack("=QQII", ctypes.addressof(data), 0, len(blob), 0))
    fact = lookup.fact(os.getpid(), fd, EXIT)
    os.close(fd)
    assert fact is not None
    assert fact.kind == "btf"
    assert isinstance(fact.id, int)


def test_perf_event_and_its_likes(lookup: FdLookup) -> None:
    """All anonymous inodes have the same number; only the link tells them apart."""
    attr = ctypes.create_string_buffer(struct.pack("=IIQ", 1, 64, 9), 64)  # dummy software event
    fd = libc.syscall(NR[1], attr, 0, -1, -1, 8)
    if fd < 0:
        pytest.skip("perf_event_open is refused here")
    fact = lookup.fact(os.getpid(), fd, EXIT)
    assert fact is not None
    assert (fact.kind, fact.info["path"]) == ("perf_event", "anon_inode:[perf_event]")
    os.close(fd)
    other = os.pidfd_open(os.getpid())
    assert other == fd
    fact = lookup.fact(os.getpid(), fd, EXIT)
    assert fact is not None
    assert fact.kind == "file"
    os.close(fd)


def test_link_before_prog(lookup: FdLookup) -> None:
    """A link's fdinfo has its program's id too, and is a link all the same."""
    prog = bpf(
        5,
        struct.pack(
            "=IIQQ", 17, 2,
            ctypes.addressof(insns := ctypes.create_string_buffer(
                bytes.fromhex("b700000000000000 9500000000000000"), 16)),
            ctypes.addressof(licence := ctypes.create_string_buffer(b"GPL")),
        ),
    )  # fmt: skip
    assert insns
    assert licence
    name = ctypes.create_string_buffer(b"sys_enter")
    fd = bpf(17, struct.pack("=QI", ctypes.addressof(name), prog))
    fact = lookup.fact(os.getpid(), fd, EXIT)
    os.close(fd)
    os.close(prog)
    assert fact is not None
    assert fact.kind == "link"
    assert fact.info["link_type"] == "raw_tracepoint"
    assert fact.info["prog_id"] != fact.id == fact.info["link_id"]
    assert fact.info["tp_name"] == "sys_enter"


def test_kept_file_follows_close_and_reuse(lookup: FdLookup) -> None:
    """What the cache stands on: an open fdinfo file looks the number up anew."""
    me = os.getpid()
    fd = new_map(3)
    kept = os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY)
    first = lookup.fact(me, fd, EXIT)
    assert lookup.fact(me, fd, EXIT) is first
    assert b"max_entries:\t3" in os.pread(kept, 4096, 0)
    os.close(fd)
    with pytest.raises(OSError, match="No such file"):
        os.pread(kept, 4096, 0)
    assert lookup.fact(me, fd, EXIT) is None
    again = new_map(4)
    assert again == fd
    assert b"max_entries:\t4" in os.pread(kept, 4096, 0)
    second = lookup.fact(me, fd, EXIT)
    assert first is not None
    assert second is not None
    assert (second.info["max_entries"], first.info["max_entries"]) == (4, 3)
    assert second.id != first.id
    # And straight from one object to another, with no look at the gap.
    os.close(fd)
    assert os.open("/dev/null", os.O_RDONLY) == fd
    third = lookup.fact(me, fd, EXIT)
    assert third is not None
    assert (third.kind, third.info) == ("file", {"path": "/dev/null"})
    os.close(fd)
    os.close(kept)


def test_keeps_nothing_alive(lookup: FdLookup) -> None:
    """With our cache on it, a map is gone when its last fd is closed."""
    fd = new_map()
    fact = lookup.fact(os.getpid(), fd, EXIT)
    assert fact is not None
    os.close(fd)
    # BPF_MAP_GET_FD_BY_ID
    buffer = ctypes.create_string_buffer(struct.pack("=I", fact.id), 128)
    for _ in range(200):  # freed after a grace period
        again = libc.syscall(NR[0], 14, buffer, 128)
        if again < 0:
            break
        os.close(again)
        subprocess.run(["sleep", "0.02"], check=True)
    assert again < 0
    assert ctypes.get_errno() == 2


def test_same_object_for_same_reading(lookup: FdLookup) -> None:
    me = os.getpid()
    with open("/dev/null") as file:
        entry = lookup.fact(me, file.fileno(), ENTRY)
        leave = lookup.fact(me, file.fileno(), EXIT)
        assert entry is not None
        assert leave is not None
        assert (entry.stage, leave.stage) == (ENTRY, EXIT)
        assert lookup.fact(me, file.fileno(), ENTRY) is entry
        assert lookup.fact(me, file.fileno(), EXIT) is leave


def test_bounded_and_forgets() -> None:
    lookup = FdLookup(max_open=8)
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(30)]
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        for fd in fds:
            fact = lookup.fact(os.getpid(), fd, ENTRY)
            assert fact is not None
            assert fact.fd == fd
        assert len(lookup) == 8
    assert len(os.listdir("/proc/self/fd")) == before + 8
    lookup.forget(os.getpid() + 1)
    assert len(lookup) == 8
    lookup.forget(os.getpid())
    assert len(lookup) == 0
    assert len(os.listdir("/proc/self/fd")) == before
    for fd in fds:
        os.close(fd)


def test_out_of_fds() -> None:
    """With no fd left it makes do with what it has, and says nothing wrong."""
    code = (
        "import os, resource\n"
        "from bpftrace_sys.record.machine.fds import FdLookup\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))\n"
        "lookup = FdLookup()\n"
        "fds = [os.open('/dev/null', 0) for _ in range(15)]\n"
        "for n in range(3):\n"
        "    for fd in fds:\n"
        "        assert lookup.fact(os.getpid(), fd, 0).info == {'path': '/dev/null'}\n"
        "print(len(lookup) < 15)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize("fd", [-1, -100, 2**31 - 1, 2**31, 2**40, 987654])
def test_no_such_fd(lookup: FdLookup, fd: int) -> None:
    assert lookup.fact(os.getpid(), fd, ENTRY) is None
    assert fact_once(os.getpid(), fd, ENTRY) is None


def test_gone_process(lookup: FdLookup) -> None:
    process = subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL)
    fact = lookup.fact(process.pid, 0, ENTRY)
    assert fact is not None
    assert fact.info == {"path": "/dev/null"}
    process.kill()
    process.wait()
    assert lookup.fact(process.pid, 0, ENTRY) is None
    assert len(lookup) == 0


def test_parse() -> None:
    info = parse_fdinfo(
        "pos:\t0\nprog_tag:\t0000000000000012\nprog_id:\t12\nmap_flags:\t0x80\nmap_extra:\t0x1f\n"
        "frozen:\t0\nrun_time_ns:\t123456789012345\nname:\ta:b: c\nno colon\nprog_id:\t99\n"
        "offset:\t-5\nhuge:\t999999999999999999999999\narabic:\t\u0663\n:\tx\nempty:\t\n"
    )
    assert info == {
        "pos": 0,
        "prog_tag": "0000000000000012",
        "prog_id": 12,
        "map_flags": 0x80,
        "map_extra": 0x1F,
        "frozen": 0,
        "run_time_ns": 123456789012345,
        "name": "a:b: c",
        "offset": -5,
        "huge": "999999999999999999999999",
        "arabic": "\u0663",
        "empty": "",
    }


# -- memory -------------------------------------------------------------------------


class Pages:
    """Three mapped pages between unmapped ones, in this process."""

    def __init__(self) -> None:
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        self.base: int = libc.mmap(None, 5 * PAGE, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        self.start = self.base + PAGE
        self.end = self.base + 4 * PAGE
        libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        assert libc.mprotect(self.start, 3 * PAGE, mmap.PROT_READ | mmap.PROT_WRITE) == 0
        # Not merely protected: /proc/PID/mem reads that.
        libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        assert libc.munmap(self.base, PAGE) == libc.munmap(self.end, PAGE) == 0
        self.data = bytes(1 + index % 251 for index in range(3 * PAGE))
        ctypes.memmove(self.start, self.data, 3 * PAGE)

    def close(self) -> None:
        libc.munmap(self.start, 3 * PAGE)


@pytest.fixture
def pages() -> Iterator[Pages]:
    it = Pages()
    yield it
    it.close()


def direct() -> LiveMemory:
    return LiveMemory(os.getpid())


def by_file() -> LiveMemory:
    memory = LiveMemory(os.getpid())
    memory._slow = True
    return memory


@pytest.fixture(params=[direct, by_file])
def memory(request: pytest.FixtureRequest) -> Iterator[LiveMemory]:
    make: Callable[[], LiveMemory] = request.param
    it = make()
    yield it
    it.close()


@pytest.mark.parametrize("size", [0, 1, 7, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE, 3 * PAGE + 1, 10**9])
@pytest.mark.parametrize("offset", [0, 1, PAGE - 3, 2 * PAGE + 5, 3 * PAGE - 1])
def test_leading_readable_bytes(memory: LiveMemory, pages: Pages, size: int, offset: int) -> None:
    assert memory.read(pages.start + offset, size) == pages.data[offset : offset + size]


def test_unreadable(memory: LiveMemory, pages: Pages) -> None:
    for addr in (0, 1, pages.start - 1, pages.end, 1 << 62, 1 << 63, (1 << 63) - 1, (1 << 64) - 1,
                 0xFFFFFFFFFF600000):  # fmt: skip
        assert memory.read(addr, 16) == b""
        assert memory.cstr(addr, 16) == b""
        assert memory.read(addr, 1 << 62) == b""
    assert memory.read(pages.start, -1) == b""
    assert memory.cstr(pages.start, -1) == b""
    assert memory.cstr(pages.start, 0) == b""


def test_strings(memory: LiveMemory, pages: Pages) -> None:
    def put(offset: int, text: bytes) -> int:
        ctypes.memmove(pages.start + offset, text, len(text))
        return pages.start + offset

    addr = put(10, b"hello\0")
    assert memory.cstr(addr, 100) == b"hello"
    assert memory.cstr(addr, 5) == b"hello"
    assert memory.cstr(addr, 3) == b"hel"
    assert memory.cstr(put(PAGE - 3, b"across\0"), 100) == b"across"
    # Up to the last mapped byte, with the NUL there and without.
    assert memory.cstr(put(3 * PAGE - 4, b"end\0"), 100) == b"end"
    assert memory.cstr(put(3 * PAGE - 4, b"more"), 100) == b"more"
    assert memory.cstr(put(0, b"x" * (3 * PAGE - 1) + b"\0"), 10**6) == b"x" * (3 * PAGE - 1)
    assert memory.cstr(pages.start, 5000) == b"x" * 5000
    # Each length around the sizes of single reads.
    for length in (*range(250, 262), *range(PAGE - 3, PAGE + 3)):
        put(17, b"y" * length + b"\0")
        assert memory.cstr(pages.start + 17, 10**6) == b"y" * length
        assert memory.cstr(pages.start + 17, length) == b"y" * length
        assert memory.cstr(pages.start + 17, length - 1) == b"y" * (length - 1)


def test_several_ranges(pages: Pages) -> None:
    memory = direct()
    ranges = Ranges([(pages.start, 4), (pages.start + PAGE - 2, 4), (pages.end - 2, 2)])
    pieces = (pages.data[:4], pages.data[PAGE - 2 : PAGE + 2], pages.data[-2:])
    assert memory.gather(ranges) == b"".join(pieces)
    # All or nothing.
    assert memory.gather(Ranges([(pages.start, 4), (pages.end - 2, 4)])) is None
    assert memory.gather(Ranges([(0, 4), (pages.start, 4)])) is None
    # Without process_vm_readv(2) each is read by itself.
    assert by_file().gather(ranges) is None


def test_large_reads_are_bounded(memory: LiveMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 3 << 20
    block = mmap.mmap(-1, size)
    block.write(os.urandom(1 << 16) * 48)
    addr = ctypes.addressof(ctypes.c_char.from_buffer(block))
    assert memory.read(addr, size) == block[:]
    monkeypatch.setattr(live_memory, "MAX_READ", 1 << 20)
    assert memory.read(addr, size) == block[: 1 << 20]


def test_gone_process_has_no_memory() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    memory = LiveMemory(process.pid)
    assert memory.read(0x1000, 100) == b""
    assert memory.cstr(0x1000, 100) == b""
    assert memory.gather(Ranges([(0x1000, 1)])) is None
