"""Small traces that claim, repeat or unfold much, made by hand: bpfstrace would not write them.

BOMBS has a function for each file of tests/hostile/bombs; ``python3 -m tests.support.bombs``
writes them all again. A test holds the files to what is made here.
"""

from __future__ import annotations

import base64
import gzip
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

from decoders.raw import AUDIT_ARCH_X86_64
from tests.support.btf import ENUM, FUNC, PROTO, STRUCT, Blob
from tests.support.running import ROOT

FOLDER: Final = ROOT / "tests" / "hostile" / "bombs"
Line: TypeAlias = dict[str, Any]
BPF, SENDTO = 321, 44
"""System calls of x86-64."""
MAP_CREATE, UPDATE, PROG_LOAD, BTF_LOAD, UPDATE_BATCH = 0, 2, 5, 18, 26
"""Commands of bpf(2)."""
AT_ATTR, AT_INSNS, AT_LICENSE, AT_LOG, AT_BTF = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000
AT_KEYS, AT_VALUES, AT_FUNCS, AT_LINES = 1 << 32, 2 << 32, 3 << 32, 4 << 32
HEADER: Final[Line] = {
    "type": "trace", "format": "bpfstrace", "version": 1, "argv": ["x"], "kernel": "6.18",
    "host": "h", "machine": "x86_64", "cpus": 2, "start": 1, "pmu_types": {}, "options": {},
}  # fmt: skip
END: Final[Line] = {"type": "end", "status": {"code": 0}}
EXIT = struct.pack("<BBhi", 0x95, 0, 0, 0)
MOVE = struct.pack("<BBhi", 0xB7, 0, 0, 7)
KFUNC = struct.pack("<BBhi", 0x85, 0x20, 0, 7)
LOAD_MAP = struct.pack("<BBhiQ", 0x18, 0x11, 0, 3, 0)
LONG = "n" * 4096
"""A name as long as a trace takes it."""


def packed(data: bytes) -> Any:
    """A piece of raw."""
    if len(data) < 256:
        return base64.b64encode(data).decode()
    return {"z": base64.b64encode(zlib.compress(data, 9)).decode()}


def call(cmd: int, attr: bytes, *chunks: tuple[int, Any], seq: int, ret: int, **raw: Any) -> Line:
    """A bpf(2) call; chunks are address and piece."""
    return {
        "type": "syscall", "seq": seq, "time": seq * 1000, "duration": 9, "pid": 7, "tid": 7,
        "comm": "x", "ret": max(ret, -1), **({"errno": "?", "errnum": -ret} if ret < 0 else {}),
        "raw": {
            "arch": AUDIT_ARCH_X86_64, "nr": BPF,
            "args": [hex(cmd), hex(AT_ATTR), hex(len(attr)), "0x0", "0x0", "0x0"],
            "entry": [[hex(AT_ATTR), packed(attr)], *([hex(at), piece] for at, piece in chunks)],
            **raw,
        },
    }  # fmt: skip


def load(
    insns: Any, count: int, *, seq: int = 1, ret: int = -22, name: bytes = b"p", log: Any = None,
    funcs: bytes = b"", lines: bytes = b"", **raw: Any,
) -> Line:  # fmt: skip
    """A PROG_LOAD, with the BTF of fd 5."""
    attr = struct.pack(
        "<IIQQIIQII16sIIIIQIIQI", 2, count, AT_INSNS, AT_LICENSE, 1 if log else 0,
        4 << 20 if log else 0, AT_LOG if log else 0, 0, 0, name, 0, 0,
        5, 8, AT_FUNCS, len(funcs) // 8, 16, AT_LINES, len(lines) // 16,
    )  # fmt: skip
    line = call(
        PROG_LOAD, attr, (AT_INSNS, insns), (AT_LICENSE, packed(b"GPL\0")),
        (AT_FUNCS, packed(funcs)), (AT_LINES, packed(lines)), seq=seq, ret=ret, **raw,
    )  # fmt: skip
    line["raw"].setdefault("fds", []).append([5, 0, "btf", {"btf_id": 9}])
    if log:
        line["raw"]["exit"] = [[hex(AT_ATTR), packed(attr)], [hex(AT_LOG), log]]
    return line


def loaded(seq: int) -> dict[str, Any]:
    """What was known of the fd that a load returned."""
    info = {"prog_type": 2, "prog_id": seq, "prog_tag": f"{seq:016x}"}
    return {"ret": 3, "fds": [[3, 1, "prog", info]]}


def btf(blob: Blob) -> Line:
    """A BTF_LOAD, to fd 5."""
    data = blob.data()
    attr = struct.pack("<QQIII", AT_BTF, 0, len(data), 0, 0)
    fds = [[5, 1, "btf", {"btf_id": 9}]]
    return call(BTF_LOAD, attr, (AT_BTF, packed(data)), seq=1, ret=5, fds=fds)


def update(seq: int, **info: Any) -> Line:
    """An update that fails, of a map of which that is known."""
    attr = struct.pack("<IIQQQ", 3, 0, AT_KEYS, AT_VALUES, 0)
    chunks = [(AT_KEYS, packed(bytes(4))), (AT_VALUES, packed(bytes(4)))]
    return call(UPDATE, attr, *chunks, seq=seq, ret=-9, fds=[[3, 0, "map", {"map_id": 55, **info}]])


def text(line: str) -> Line:
    """A line as it is, of a type that nobody knows."""
    return {"": line}


def fact(kind: str, key: int, name: str) -> Line:
    """A fact."""
    return {"type": "fact", "kind": kind, "key": key, "name": name}


# ---------------------------------------------------------------- lines


def brackets() -> Iterator[Line]:
    """As deep as it is long."""
    yield text('{"type":"x","y":' + "[" * 200_000 + "]" * 200_000 + "}")


def nested() -> Iterator[Line]:
    """Deep in what is kept for writing it again."""
    deep: Any = []
    for _ in range(400):
        deep = [deep]
    yield call(MAP_CREATE, bytes(72), seq=1, ret=-22, extra={"x": deep})
    event = {"type": "process", "event": "of a newer version", "time": 1, "pid": 7, "tid": 7}
    yield {**event, "x": deep}


def empty_objects() -> Iterator[Line]:
    yield text('{"type":"x","y":[' + '{"":[]},' * 30_000 + "0]}")


def many_facts() -> Iterator[Line]:
    for key in range(2_000):
        yield fact("tracepoint", key, "x")


def long_names() -> Iterator[Line]:
    """A fact's name, which each call shows."""
    yield fact("map", 55, LONG)
    yield from (update(seq) for seq in range(1, 100))


# ---------------------------------------------------------------- programs


def instructions() -> Iterator[Line]:
    yield load(packed(MOVE * 8_000 + EXIT), 4_000_000_000)


def instructions_again() -> Iterator[Line]:
    """One piece, by its number, in programs of other names."""
    yield load(packed(MOVE * 4_096), 4_096)
    for seq in range(2, 12):
        yield load(0, 4_096, seq=seq, name=str(seq).encode())


def calls() -> Iterator[Line]:
    """More than anybody would read."""
    yield load(packed(struct.pack("<BBhi", 0x85, 0, 0, 14) * 300_000), 300_000)


def kfuncs() -> Iterator[Line]:
    yield fact("btf_vmlinux", 7, LONG)
    yield load(packed(KFUNC * 4_000), 4_000)


def maps_in_instructions() -> Iterator[Line]:
    yield fact("map", 55, LONG)
    yield load(packed(LOAD_MAP * 4_000), 8_000, fds=[[3, 0, "map", {"map_id": 55}]])


def _named(blob: Blob) -> int:
    number = blob.number("int", 4, 1)
    return blob.add(FUNC, "f" * 500, blob.add(PROTO, "", number, *[0, number] * 90, vlen=90))


def subprograms() -> Iterator[Line]:
    blob = Blob()
    func = _named(blob)
    calls = (struct.pack("<BBhi", 0x85, 0x10, 0, -1 - pc) for pc in range(4_000))
    yield btf(blob)
    yield load(packed(b"".join(calls)), 4_000, seq=2, funcs=struct.pack("<II", 0, func))


def prototypes() -> Iterator[Line]:
    """Each instruction begins the same function."""
    blob = Blob()
    func = _named(blob)
    funcs = b"".join(struct.pack("<II", pc, func) for pc in range(4_000))
    yield btf(blob)
    yield load(packed(MOVE * 4_000), 4_000, seq=2, funcs=funcs)


def source_lines() -> Iterator[Line]:
    """Each instruction has one of two long lines."""
    blob = Blob()
    blob.number("int", 4, 1)
    name = blob.string("x" * 100_000)
    lines = b"".join(struct.pack("<4I", pc, name, name + pc % 2, 1024) for pc in range(4_000))
    yield btf(blob)
    yield load(packed(MOVE * 4_000), 4_000, seq=2, lines=lines)


def log_of_nothing() -> Iterator[Line]:
    yield load(packed(EXIT), 1, log=packed(bytes(4 << 20)))


def log_of_states() -> Iterator[Line]:
    said = b"0: R1=ctx() R10=fp0\n; x @ a.c:1\n0: (95) exit\n" * 20_000
    yield load(packed(EXIT), 1, log=packed(said + b"R1 invalid mem access 'scalar'\n"))


def one_name() -> Iterator[Line]:
    for seq in range(1, 200):
        code = struct.pack("<BBhi", 0xB7, 0, 0, seq) + EXIT
        yield load(packed(code), 2, seq=seq, name=b"same" if seq % 2 else b"", **loaded(seq))


# ---------------------------------------------------------------- what the kernel made of them


def _view(**raw: Any) -> Iterator[Line]:
    yield load(packed(EXIT), 1, **loaded(9))
    yield {
        "type": "kernel_view", "seq": 1, "asked": ["xlated", "jited", "map"], "machine": "x86_64",
        "raw": {"call_base": "0xffff", **raw},
    }  # fmt: skip


def view_of_instructions() -> Iterator[Line]:
    native_code = packed(b"\x90" * 20_000)
    arrays = {"xlated_prog_insns": packed(MOVE * 4_000), "jited_prog_insns": native_code}
    symbols = {hex(0xFFFF + number): LONG for number in range(20)}
    images = [[slot, slot % 9] for slot in range(2_000)]
    native = [[slot, 0, 3] for slot in range(2_000)]
    yield from _view(
        info=packed(bytes(232)), arrays=arrays, symbols=symbols,
        mapping={"images": images, "native": native},
    )  # fmt: skip


def view_of_prototypes() -> Iterator[Line]:
    blob = Blob()
    func = _named(blob)
    funcs = b"".join(struct.pack("<II", pc, func) for pc in range(4_000))
    info = bytearray(232)
    for at, number in ((132, 8), (144, 4_000), (128, 9)):  # record size, records, btf_id
        struct.pack_into("<I", info, at, number)
    arrays = {"xlated_prog_insns": packed(MOVE * 4_000), "func_info": packed(funcs)}
    yield from _view(info=packed(bytes(info)), arrays=arrays, btf=packed(blob.data()))


# ---------------------------------------------------------------- values by their types


def _values(element: Callable[[Blob], int], size: int, count: int) -> Iterator[Line]:
    """A batch of values of one type."""
    blob = Blob()
    number = blob.number("int", 4, 1)
    types = (number, element(blob))
    fds = [[5, 0, "btf", {"btf_id": 9}]]
    info = {"map_type": 1, "key_size": 4, "value_size": size, "max_entries": 4096, "map_id": 100}
    attr = struct.pack("<7I16s4I", 1, 4, size, 4096, 0, 0, 0, b"m", 0, 5, *types)
    yield btf(blob)
    yield call(MAP_CREATE, attr, seq=2, ret=4, fds=[*fds, [4, 1, "map", info]])
    attr = struct.pack("<QQQQIIQQ", 0, 0, AT_KEYS, AT_VALUES, count, 4, 0, 0)
    chunks = [(AT_KEYS, packed(bytes(4 * count))), (AT_VALUES, packed(bytes(size * count)))]
    yield call(UPDATE_BATCH, attr, *chunks, seq=3, ret=0, fds=[[4, 0, "map", info]])


def values_of_arrays() -> Iterator[Line]:
    """256 elements of 1,024 values."""
    yield from _values(lambda blob: blob.array(blob.number("short", 2, 1), 1024), 2048, 256)


def values_of_enums() -> Iterator[Line]:
    """Each has a long name."""

    def element(blob: Blob) -> int:
        made = blob.add(ENUM, "e", 4, blob.string("E" * 500), 0, vlen=1)
        return blob.array(made, 256)

    yield from _values(element, 1024, 16)


def values_of_members() -> Iterator[Line]:
    """Thousands of members of one long name, none of which takes room."""

    def element(blob: Blob) -> int:
        tail = [blob.string("m" * 500), blob.add(STRUCT, "s", 0), 0] * 1_000
        return blob.add(STRUCT, "t", 4, *tail, vlen=1_000)

    yield from _values(element, 4, 4)


def values_of_nothing() -> Iterator[Line]:
    """Billions of elements that take no room."""

    def element(blob: Blob) -> int:
        inner = blob.array(blob.add(STRUCT, "s", 0), 0xFFFFFFFF)
        return blob.add(STRUCT, "t", 4, *[0, inner, 0] * 100, vlen=100)

    yield from _values(element, 4, 4096)


# ---------------------------------------------------------------- processes, objects, stacks


def processes() -> Iterator[Line]:
    for number in range(1, 400):
        event = {"type": "process", "time": number * 1000}
        child = {"child": 7 + number, "child_tid": 7 + number}
        yield {**event, "event": "fork", "pid": 7, "tid": 7, **child}
        yield {**event, "event": "exec", "pid": 7 + number, "tid": 7 + number}
        line = call(MAP_CREATE, bytes(72), seq=number, ret=-22)
        yield {**line, "pid": 7 + number, "tid": 7 + number, "comm": f"c{number}"}


def held() -> Iterator[Line]:
    """Objects that a process held: many names each."""
    for number in range(4):
        holders = [{"pid": pid, "comm": "c", "fds": [1, 2, 3]} for pid in range(300)]
        places = [{"way": "cgroup", "info": {"path": "c" * 500}}] * 100
        made = {"kind": "prog", "id": number, "name": "n" * 4000}
        yield {
            "type": "object", "object": made, "info": {"type": 1, "map_ids": list(range(2_000))},
            "attached": places, "pins": ["/pin" * 100] * 100, "holders": holders,
        }  # fmt: skip


def stacks() -> Iterator[Line]:
    """Names that unfold when they are demangled."""
    frame = {"addr": "0x1", "file": "/f", "symbol": "_Z1fI" + "S_IS0_" * 300 + "Ev", "offset": 1}
    for seq in range(1, 6):
        line = call(MAP_CREATE, bytes(72), seq=seq, ret=-22)
        yield {**line, "stack": [frame] * 200}


def netlink() -> Iterator[Line]:
    """Attributes in attributes."""
    data = bytes(4)
    while len(data) < 60_000:
        data = struct.pack("<HH", 4 + len(data), 0x8000 | 43) + data
    data = struct.pack("<IHHII", 32 + len(data), 19, 5, 1, 0) + bytes(16) + data
    for seq in range(1, 6):
        line = call(0, b"", seq=seq, ret=len(data), fds=[[3, 0, "file", {"path": "socket:[1]"}]])
        line["raw"]["nr"] = SENDTO
        line["raw"]["args"] = ["0x3", hex(AT_ATTR), hex(len(data)), "0x0", "0x0", "0x0"]
        line["raw"]["entry"] = [[hex(AT_ATTR), packed(data) if seq == 1 else 0]]
        yield line


BOMBS: Final = (
    brackets, nested, empty_objects, many_facts, long_names, instructions, instructions_again,
    calls, kfuncs, maps_in_instructions, subprograms, prototypes, source_lines, log_of_nothing,
    log_of_states, one_name, view_of_instructions, view_of_prototypes, values_of_arrays,
    values_of_enums, values_of_members, values_of_nothing, processes, held, stacks, netlink,
)  # fmt: skip


def lines(bomb: Callable[[], Iterator[Line]]) -> bytes:
    """A bomb as a trace."""
    said = [line[""] if "" in line else json.dumps(line) for line in (HEADER, *bomb(), END)]
    return "".join(f"{line}\n" for line in said).encode()


def file_of(bomb: Callable[[], Iterator[Line]]) -> Path:
    """Where it stands."""
    return FOLDER / f"{bomb.__name__}.jsonl.gz"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for each in BOMBS:
        file_of(each).write_bytes(gzip.compress(lines(each), 9, mtime=0))
