"""Loads the programs of watch.image: neither clang nor libbpf is needed for it.

The image was linked by tools/build_watch.py. Here maps are created, their fds written into the
instructions, and each program loaded with its func_info, line_info and core_relos: since Linux
5.17 the kernel itself puts in the offsets of its structs (kernel/bpf/btf.c, bpf_core_apply()).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bpftrace_sys.common import BpfstraceError
from bpftrace_sys.record.machine.bpf import bpf
from decoders.uapi import const

IMAGE: Final = Path(__file__).with_name("watch.image")
NAMED: Final = "bpfstrace"
"""What the names of our programs and maps begin with, so that ``bpftool`` says whose they are."""
PROG_TYPES: Final = {
    "tp": const.BPF_PROG_TYPE_TRACEPOINT,
    "raw_tp": const.BPF_PROG_TYPE_RAW_TRACEPOINT,
    "fentry": const.BPF_PROG_TYPE_TRACING,
    "fexit": const.BPF_PROG_TYPE_TRACING,
    "syscall": const.BPF_PROG_TYPE_SYSCALL,
}
"""By what stands before the slash in a section's name."""
ATTACH_TYPES: Final = {"fentry": const.BPF_TRACE_FENTRY, "fexit": const.BPF_TRACE_FEXIT}
SLEEPABLE: Final = 1 << 4
"""BPF_F_SLEEPABLE, which programs of the type syscall have to say."""
INFO_SIZE: Final = 256
RECURSION_MISSES: Final = 208
"""Where struct bpf_prog_info has it."""
LOG_SIZE: Final = 1 << 20


class LoadError(BpfstraceError):
    """The kernel refused; ``errno`` and the call say what, ``log`` the verifier's last lines."""

    def __init__(self, what: str, error: OSError, log: str = "") -> None:
        super().__init__(f"{what}: {error.strerror}")
        self.what = what
        self.errno = error.errno or 0
        self.log = log


class Memory:
    """Bytes at an address of ours, for an attr to point at."""

    def __init__(self, data: bytes | int) -> None:
        size = data if isinstance(data, int) else len(data)
        self.buffer = ctypes.create_string_buffer(data, max(1, size))
        self.addr = ctypes.addressof(self.buffer)
        self.size = size


def call(command: int, attr: bytes) -> int:
    """bpf(2) with a packed attr; raises OSError."""
    return bpf(command, ctypes.create_string_buffer(attr, len(attr)))


def _image(path: Path | None) -> bytes:
    """The image; ours may stand in a zip (docs/install.md), where it is no file."""
    file = path or IMAGE
    if path is None and not file.exists():
        from importlib import resources

        return resources.files("bpftrace_sys.record.ebpf").joinpath(IMAGE.name).read_bytes()
    return file.read_bytes()


class Programs:
    """Maps and programs of the image, in the kernel from :meth:`create` to :meth:`close`."""

    def __init__(self, path: Path | None = None) -> None:
        line, _, rest = _image(path).partition(b"\n")
        head = json.loads(line)
        self._blobs = zlib.decompress(rest)
        self._btf_place: list[int] = head["btf"]
        self._record_sizes: list[int] = head["record_sizes"]
        self._maps: list[dict[str, Any]] = head["maps"]
        self._programs: dict[str, dict[str, Any]] = {one["name"]: one for one in head["programs"]}
        self._variables: dict[str, list[Any]] = head["variables"]
        self._values = {
            one["name"]: bytearray(self._blob(one["data"]))
            for one in self._maps
            if one["data"] is not None
        }
        self.maps: dict[str, int] = {}
        """Name -> fd."""
        self.btf = -1
        """The fd of the programs' BTF."""
        self._open: list[int] = []

    def _blob(self, place: list[int]) -> bytes:
        return self._blobs[place[0] : place[0] + place[1]]

    def set(self, name: str, data: bytes, offset: int = 0) -> None:
        """A global variable, or a part of it; before :meth:`create`."""
        section, at, size = self._variables[name]
        if offset + len(data) > size:
            raise ValueError(f"{name} has room for {size} bytes, not for {offset + len(data)}")
        self._values[section][at + offset : at + offset + len(data)] = data

    # ------------------------------------------------------------ maps

    def create(self, entries: Mapping[str, int] | None = None) -> None:
        """Loads the BTF and creates the maps; ``entries``: other sizes for some of them."""
        self.btf = self._load_btf()
        for one in self._maps:
            wanted = (entries or {}).get(one["name"], one["max_entries"])
            fd = self.maps[one["name"]] = self._create(one, wanted)
            data = self._values.get(one["name"])
            if data is not None:
                self.update(fd, bytes(4), bytes(data))
                if one["flags"] & const.BPF_F_RDONLY_PROG:
                    call(const.BPF_MAP_FREEZE, struct.pack("<I", fd))

    def _load_btf(self) -> int:
        blob = Memory(self._blob(self._btf_place))
        try:
            return call(
                const.BPF_BTF_LOAD, struct.pack("<QQIII", blob.addr, 0, blob.size, 0, 0)
            )
        except OSError as error:
            raise LoadError("BPF_BTF_LOAD", error) from None

    def _create(self, one: dict[str, Any], entries: int) -> int:
        ring = one["type"] == const.BPF_MAP_TYPE_RINGBUF
        key, value = (0, 0) if ring else (one["key_type"], one["value_type"])
        try:
            return call(
                const.BPF_MAP_CREATE,
                struct.pack(
                    "<7I16sI3I",
                    one["type"], one["key_size"], one["value_size"], entries, one["flags"], 0, 0,
                    _name(one["name"]), 0, self.btf if value else 0, key, value,
                ),
            )  # fmt: skip
        except OSError as error:
            raise LoadError(f"the map {one['name']}", error) from None

    @staticmethod
    def update(fd: int, key: bytes, value: bytes) -> None:
        """BPF_MAP_UPDATE_ELEM; raises OSError."""
        at, data = Memory(key), Memory(value)
        call(const.BPF_MAP_UPDATE_ELEM, struct.pack("<IIQQQ", fd, 0, at.addr, data.addr, 0))

    @staticmethod
    def delete(fd: int, key: bytes) -> None:
        """BPF_MAP_DELETE_ELEM; raises OSError."""
        at = Memory(key)
        call(const.BPF_MAP_DELETE_ELEM, struct.pack("<IIQQQ", fd, 0, at.addr, 0, 0))

    def variable(self, name: str) -> memoryview:
        """A global variable that the programs write, as it is at each look."""
        section, at, size = self._variables[name]
        length = len(self._values[section])
        room = -(-length // mmap.PAGESIZE) * mmap.PAGESIZE
        view = memoryview(mmap.mmap(self.maps[section], room))
        return view[at : at + size]

    # ------------------------------------------------------------ programs

    def load(self, name: str, attach_btf_id: int = 0, log_level: int = 0) -> int:
        """Loads a program, whose name in the image and the kernel is bpfstrace_NAME; its fd.

        With a ``log_level`` the verifier's log is kept in ``log``.
        """
        one = self._programs[f"{NAMED}_{name}"]
        kind = one["section"].partition("/")[0]
        code = bytearray(self._blob(one["insns"]))
        for at, name_of_map, offset in one["maps"]:
            struct.pack_into("<i", code, at * 8 + 4, self.maps[name_of_map])
            if offset >= 0:
                struct.pack_into("<i", code, at * 8 + 12, offset)
        parts = [
            Memory(bytes(code)),
            *(Memory(self._blob(one[part])) for part in ("func_info", "line_info", "core_relos")),
            Memory(b"GPL\0"),
        ]

        def attr(level: int, log: Memory | None) -> bytes:
            insns, funcs, lines, relos, license = parts
            sizes = self._record_sizes
            return struct.pack(
                "<IIQQIIQII16sIIIIQIIQIIIIQQI",
                PROG_TYPES[kind], insns.size // 8, insns.addr, license.addr,
                level, log.size if log else 0, log.addr if log else 0,
                0, SLEEPABLE if kind == "syscall" else 0, _name(one["name"]), 0,
                ATTACH_TYPES.get(kind, 0), self.btf,
                sizes[0], funcs.addr, funcs.size // sizes[0],
                sizes[1], lines.addr, lines.size // sizes[1],
                attach_btf_id, 0, relos.size // sizes[2], 0, relos.addr, sizes[2],
            )  # fmt: skip

        try:
            if log_level:
                log = Memory(LOG_SIZE << 4)
                try:
                    fd = call(const.BPF_PROG_LOAD, attr(log_level, log))
                finally:
                    self.log = log.buffer.value.decode("utf-8", "replace")
            else:
                fd = call(const.BPF_PROG_LOAD, attr(0, None))
        except OSError as error:
            raise LoadError(f"the program {name}", error, self._why(attr)) from None
        self._open.append(fd)
        return fd

    @staticmethod
    def _why(attr: Any) -> str:
        """What the verifier says to a program that was refused."""
        log = Memory(LOG_SIZE)
        with contextlib.suppress(OSError):
            os.close(call(const.BPF_PROG_LOAD, attr(1, log)))
        return log.buffer.value.decode("utf-8", "replace")

    def run(self, fd: int, context: bytes) -> bytes:
        """Runs a program on a context, in the kernel and at once; returns the context after it."""
        room = Memory(context)
        # test.prog_fd ... ctx_size_in, ctx_size_out, ctx_in, ctx_out, flags, cpu, batch_size.
        attr = struct.pack(
            "<4I2Q4I2Q3I", fd, 0, 0, 0, 0, 0, 0, 0, len(context), 0, room.addr, 0, 0, 0, 0
        )
        call(const.BPF_PROG_TEST_RUN, attr)
        return room.buffer.raw[: len(context)]

    def skipped(self) -> int:
        """How often the kernel did not run the programs: one ran already on that CPU."""
        total = 0
        for fd in self._open:
            room = Memory(INFO_SIZE)
            with contextlib.suppress(OSError):
                call(const.BPF_OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", fd, INFO_SIZE, room.addr))
                total += struct.unpack_from("<Q", room.buffer, RECURSION_MISSES)[0]
        return total

    def close(self) -> None:
        """Closes all fds; programs that are attached stay as long as their hooks."""
        for fd in (*self._open, *self.maps.values(), self.btf):
            if fd >= 0:
                os.close(fd)
        self._open.clear()
        self.maps.clear()
        self.btf = -1


def _name(text: str) -> bytes:
    """A name as the kernel takes it: 15 bytes, of letters, digits, _ and dots."""
    if text.startswith("."):  # of sections, as libbpf names them
        text = NAMED[: 15 - len(text)] + text
    elif not text.startswith(NAMED):
        text = f"{NAMED}_{text}"
    return text[:15].encode("ascii")

