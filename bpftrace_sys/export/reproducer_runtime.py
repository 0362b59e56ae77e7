"""What every reproducer written in Python has besides its calls.

reproducer_python.py copies this file, from its first import on, into each reproducer, which
so needs nothing but Python 3.8. Nothing else of ours is imported here.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import ctypes
import errno
import mmap
import os
import struct
import sys
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

# ------------------------------------------------------------------ memory

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
NUMBERS = {
    "x86_64": {"bpf": 321, "perf_event_open": 298, "ioctl": 16, "setsockopt": 54, "write": 1},
    "aarch64": {"bpf": 280, "perf_event_open": 241, "ioctl": 29, "setsockopt": 208, "write": 64},
    "riscv64": {"bpf": 280, "perf_event_open": 241, "ioctl": 29, "setsockopt": 208, "write": 64},
}.get(os.uname().machine, {})
FD = "fd"
PAGE = mmap.PAGESIZE
LARGE = 1 << 20


class NotThereError(Exception):
    """What a call needs is not there; says what. loose: as may be."""

    def __init__(self, what: str, loose: str = "") -> None:
        super().__init__(what)
        self.loose = loose


class Handle:
    """What a call returned: an fd, or nothing where it failed."""

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.fd: int | None = None
        self.loose = ""

    def number(self) -> int:
        """The fd; NotThereError where there is none."""
        if self.fd is None:
            raise NotThereError(f"it needs what call {self.seq} returns", self.loose)
        return self.fd


class Buffer:
    """Memory: these bytes, zeros up to size, and parts (offset, size, value) over them.

    torn: behind the bytes stands a page that cannot be read.
    """

    def __init__(
        self,
        data: bytes = b"",
        size: int | None = None,
        parts: Sequence[tuple[int, int, Any]] = (),
        torn: bool = False,
    ) -> None:
        self.data = bytes(data)
        self.size = len(self.data) if size is None else size
        self.parts = parts
        self.torn = torn
        self.memory: Any = None

    def place(self, held: list[Any]) -> int:
        """Makes it, and what it leads to; returns its address."""
        if self.torn:
            address = torn(self.data, held)
        elif self.size >= LARGE:
            try:
                self.memory = mmap.mmap(-1, self.size)
            except (OSError, ValueError) as error:
                raise NotThereError(f"{self.size} bytes of memory: {error}") from None
            self.memory[: len(self.data)] = self.data
            address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        else:
            self.memory = ctypes.create_string_buffer(self.data, max(self.size, 1))
            address = ctypes.addressof(self.memory)
        held.append(self.memory)
        for offset, size, value in self.parts:
            if isinstance(value, bytes):
                ctypes.memmove(address + offset, value, len(value))
            else:
                number = number_of(value, held) & (1 << 8 * size) - 1
                ctypes.memmove(address + offset, number.to_bytes(size, "little"), size)
        return address


def torn(data: bytes, held: list[Any]) -> int:
    """The address of bytes that end where memory does."""
    pages = (len(data) + PAGE - 1) // PAGE
    memory = mmap.mmap(-1, (pages + 1) * PAGE)
    held.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    LIBC.mprotect(ctypes.c_void_p(start + pages * PAGE), ctypes.c_size_t(PAGE), 0)
    ctypes.memmove(start + pages * PAGE - len(data), data, len(data))
    return start + pages * PAGE - len(data)


class Nowhere:
    """An address where nothing can be read or written."""

    def place(self, held: list[Any]) -> int:
        return torn(b"", held)


NOWHERE = Nowhere()


def insns(listing: str, **slots: Any) -> Buffer:
    """Instructions: in each line the hex of one, then how it reads; s7=x sets imm of slot 7."""
    data = bytearray()
    for line in listing.strip().splitlines():
        data += bytes.fromhex(line.partition("|")[0])
    return Buffer(bytes(data), parts=[(int(s[1:]) * 8 + 4, 4, value) for s, value in slots.items()])


def unpacked(text: str, size: int) -> bytes:
    """A blob as it was: base 85, compressed."""
    unpacker = zlib.decompressobj()
    return unpacker.decompress(base64.b85decode("".join(text.split())), size)


def number_of(value: Any, held: list[Any]) -> int:
    """What a value is as a number here and now."""
    if isinstance(value, int):
        return value
    if isinstance(value, Handle):
        return value.number()
    if callable(value):
        found: int = value()
        return found
    address: int = value.place(held)
    return address


# ------------------------------------------------------------------ calls

rows: list[str] = []
hints: set[str] = set()
reasons: dict[str, int] = {}
"""Why results may differ, and how many do."""
options = argparse.Namespace(as_recorded=False, wait=False, verbose=False)
after: dict[str, Callable[[list[Any]], None]] = {}
"""What is noted of a call that succeeded."""
beginnings: list[Callable[[], object]] = []
"""What is done before the first call."""
endings: list[Callable[[], None]] = []
"""What is taken away again."""
TITLE = ""


def call(
    seq: int,
    what: str,
    name: str,
    arguments: list[Any],
    expected: str | int,
    loose: str = "",
    returns: str = "",
    user: int | None = None,
    capabilities: int = 0,
) -> Handle:
    """Issues a call; says what it returned, beside what is recorded.

    loose: why its result may be another one. returns: FD where it is one if it succeeds.
    user, capabilities: of who was refused.
    """
    handle = Handle(seq)
    held: list[Any] = []
    try:
        registers = [ctypes.c_long(number_of(value, held)) for value in arguments]
    except NotThereError as missing:
        handle.loose = missing.loose
        rows.append("may differ" if handle.loose else "not issued")
        say(seq, what, expected, "not issued", "may differ" if handle.loose else str(missing))
        return handle
    with Dropped(user, capabilities):
        ctypes.set_errno(0)
        ret = LIBC.syscall(NUMBERS[name], *registers)
        number = ctypes.get_errno()
    is_fd = FD in (expected, returns)
    got: str | int = error_name(number) if ret < 0 else FD if is_fd else ret
    verdict = "may differ" if loose else "DIFFERS"
    if got == expected:
        verdict = "same"
    elif loose:
        reasons[loose] = reasons.get(loose, 0) + 1
        handle.loose = loose
    if is_fd and ret >= 0:
        handle.fd = ret
        if expected != FD:
            close(handle)
    rows.append(verdict)
    if verdict == "DIFFERS" and user is not None and not options.as_recorded:
        hints.add("who was refused had fewer privileges: try --as-recorded")
    say(seq, what, expected, got, "" if verdict == "same" else verdict)
    if verdict == "DIFFERS" and ret < 0:
        why(name, arguments, registers)
    if ret >= 0 and name in after:
        after[name](arguments)
    return handle


def error_name(number: int) -> str:
    """An errno by the kernel's name."""
    known = {95: "EOPNOTSUPP", 35: "EDEADLK", 133: "EHWPOISON", 512: "ERESTARTSYS", 524: "ENOTSUPP"}
    return known.get(number) or errno.errorcode.get(number) or str(number)


def say(seq: int | str, what: str, expected: str | int, got: str | int, verdict: str) -> None:
    """One line of the report."""
    line = f"{seq:>6}  {what[:40]:40} {expected!s:<10} {got!s:<10} {verdict}"
    print(line.rstrip(), flush=True)


def why(name: str, arguments: list[Any], registers: list[Any]) -> None:
    """What the verifier says of a load that was not refused before."""
    if name != "bpf" or registers[0].value != 5 or not isinstance(arguments[1], Buffer):
        return
    log = Buffer(size=LARGE)
    held: list[Any] = []
    attr = arguments[1]
    # log_level, log_size and log_buf of union bpf_attr
    parts = [part for part in attr.parts if part[0] not in (24, 28, 32)]
    parts += [(24, 4, 1), (28, 4, LARGE), (32, 8, log)]
    again = Buffer(attr.data, attr.size, parts)
    ret = LIBC.syscall(NUMBERS["bpf"], 5, ctypes.c_long(again.place(held)), registers[2])
    if ret >= 0:
        os.close(ret)
    text = log.memory[:LARGE].partition(b"\0")[0].decode("utf-8", "backslashreplace")
    for line in text.splitlines()[-12:]:
        print("          " + "".join(c if c.isprintable() else "?" for c in line[:200]))


def close(handle: Handle) -> None:
    """Closes what a call returned."""
    if handle.fd is not None:
        os.close(handle.fd)
        handle.fd = None


class Dropped:
    """With --as-recorded: the user id and the capabilities of who made a call."""

    def __init__(self, user: int | None, effective: int) -> None:
        self.user = user if options.as_recorded else None
        self.effective = effective

    def __enter__(self) -> None:
        if self.user is not None:
            os.seteuid(self.user)
            self.capabilities(self.effective)

    def __exit__(self, *_: object) -> None:
        if self.user is not None:
            os.seteuid(0)
            self.capabilities((1 << 64) - 1)

    @staticmethod
    def capabilities(effective: int) -> None:
        """Sets the effective capabilities to those of these that we may have."""
        header = ctypes.create_string_buffer(struct.pack("<II", 0x20080522, 0))
        data = ctypes.create_string_buffer(24)
        LIBC.capget(header, data)
        words = list(struct.unpack("<6I", data.raw[:24]))
        words[0] = effective & 0xFFFFFFFF & words[1]
        words[3] = effective >> 32 & words[4]
        LIBC.capset(header, struct.pack("<6I", *words))


# ------------------------------------------------------------------ the whole


def start() -> None:
    """Reads the command line, and prints the head of the report."""
    parser = argparse.ArgumentParser(
        # argparse fills in what %( begins
        description=f"Issues recorded system calls again. {TITLE.replace('%(', '% (')}",
        epilog="Exit code: 0 as recorded, 1 something differs or was not issued, 2 trouble.",
    )
    parser.add_argument(
        "--as-recorded", action="store_true",
        help="calls that were refused with the user id and capabilities that they had",
    )  # fmt: skip
    parser.add_argument(
        "--wait", action="store_true", help="wait at the end, with all still open, for Enter"
    )
    parser.parse_args(namespace=options)
    if not NUMBERS or sys.byteorder != "little":
        sys.exit(f"{sys.argv[0]}: no system call numbers for {os.uname().machine}")
    if options.as_recorded and os.geteuid() != 0:
        print("not root: --as-recorded has no effect", file=sys.stderr)
        options.as_recorded = False
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        # Before Linux 5.11 programs and maps counted as locked memory.
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
    for beginning in beginnings:
        # Without privileges there is none; what then needs it says so.
        with contextlib.suppress(NotThereError):
            beginning()
    say("call", "", "recorded", "now", "")


def finish() -> NoReturn:
    """Tidies up, sums up, and ends."""
    if options.wait:
        try:
            input(f"all is open in process {os.getpid()}; Enter ends it ")
        except (EOFError, KeyboardInterrupt):
            print()
    for ending in reversed(endings):
        ending()
    counted = [
        f"{rows.count(verdict)} {said}"
        for verdict, said in (
            ("same", "as recorded"),
            ("DIFFERS", "DIFFER" if rows.count("DIFFERS") != 1 else "DIFFERS"),
            ("may differ", "that may differ"),
            ("not issued", "not issued"),
        )
        if rows.count(verdict)
    ]
    print(f"{len(rows)} calls: {', '.join(counted) or 'none'}", flush=True)
    for hint in hints:
        print(f"        {hint}")
    for reason, count in reasons.items():
        print(f"{count:>6}  may differ: {reason}")
    sys.stdout.flush()
    os._exit(1 if "DIFFERS" in rows or "not issued" in rows else 0)

