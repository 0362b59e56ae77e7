"""What the kernel made of a program, as a trace holds it: its own line, behind the load's.

``raw`` is what was recorded: the bytes of bpf_prog_info and its arrays, and the names of the
addresses in them.  All else in the line is made of that again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from decoders.formats.native_targets import ARCHITECTURES
from decoders.formats.prog_info import ARRAYS, ROOM, ProgInfo
from decoders.records import dataclass, field

WORDS: Final = ("xlated", "jited", "map")
"""What can be asked for."""
SYMBOLS: Final = 1 << 20
"""Names that a reader takes; a program has some dozens."""
_NAMES: Final = frozenset(row.name for row in ARRAYS)


@dataclass(slots=True)
class Mapping:
    """Which instruction became which: learned from a copy of the program.

    ``problem`` says why nothing was learned; the rest is then empty.
    """

    problem: str = ""
    images: dict[int, int] = field(default_factory=dict)
    """Slot as it was loaded -> slot after the verifier.  What is not there was removed."""
    native: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Slot as it was loaded -> function, and bytes from that function's beginning; empty where
    the copy's native code differs."""
    nanoseconds: int = 0
    """How long loading the copy took."""


@dataclass(slots=True)
class KernelView:
    """What became of a program that was loaded."""

    seq: int
    """Of the call that loaded it; 0 where it was not seen."""
    info: ProgInfo
    machine: str
    """As uname has it: whose native code this is."""
    asked: tuple[str, ...] = ()
    """Of WORDS: what the person asked for when it was recorded."""
    problem: str = ""
    """Why the kernel's view is missing; empty where it is not."""
    call_base: int = 0
    """The address of __bpf_call_base; 0: the kernel hides its addresses."""
    symbols: dict[int, str] = field(default_factory=dict)
    """Names of the addresses that occur."""
    mapping: Mapping | None = None
    btf: bytes = b""
    """The program's BTF, where the trace did not see it being loaded."""


def view_line(view: KernelView, packed: Callable[[bytes], Any]) -> dict[str, object]:
    """The fields of its line that are read back."""
    raw: dict[str, object] = {}
    if not view.problem:
        # Most of the struct's room is zero, or the kernel's of tomorrow.
        raw["info"] = packed(view.info.head.rstrip(b"\0"))
        raw["arrays"] = {name: packed(data) for name, data in view.info.arrays.items()}
    if view.call_base:
        raw["call_base"] = f"{view.call_base:#x}"
    if view.symbols:
        raw["symbols"] = {f"{addr:#x}": name for addr, name in sorted(view.symbols.items())}
    if view.btf:
        raw["btf"] = packed(view.btf)
    if view.mapping is not None:
        raw["mapping"] = _mapping_line(view.mapping)
    return {
        "type": "kernel_view",
        "seq": view.seq,
        "asked": list(view.asked),
        "machine": view.machine,
        **({"problem": view.problem} if view.problem else {}),
        "raw": raw,
    }


def _mapping_line(mapping: Mapping) -> dict[str, object]:
    if mapping.problem:
        return {"problem": mapping.problem}
    line: dict[str, object] = {
        "duration": mapping.nanoseconds,
        "images": [list(pair) for pair in sorted(mapping.images.items())],
    }
    if mapping.native:
        line["native"] = [[pc, *place] for pc, place in sorted(mapping.native.items())]
    return line


def view_of(line: dict[str, object], unpacked: Callable[[Any], bytes]) -> KernelView:
    """The KernelView of a line; ValueError if it is not well formed."""
    from bpftrace_sys.trace.pieces import CALL_LIMIT

    raw = line.get("raw")
    if not isinstance(raw, dict):
        raise ValueError("a kernel_view without raw")
    arrays = raw.get("arrays", {})
    if not isinstance(arrays, dict):
        raise ValueError("the arrays of a kernel_view are no object")
    head = unpacked(raw["info"]) if "info" in raw else b""
    if len(head) > ROOM:
        raise ValueError(f"the info of a kernel_view has more than {ROOM} bytes")
    pieces = {}
    size = 0
    for name, value in arrays.items():
        data = unpacked(value)  # even where unknown: pieces are counted
        size += len(data)
        if size > CALL_LIMIT:
            raise ValueError(f"the raw of a kernel_view unpacks to more than {CALL_LIMIT} bytes")
        if name in _NAMES:
            pieces[name] = data
    btf = unpacked(raw["btf"]) if "btf" in raw else b""
    info = ProgInfo(head, pieces)
    problem, machine = line.get("problem", ""), line.get("machine", "")
    if not isinstance(problem, str) or not isinstance(machine, str):
        raise ValueError("the problem or machine of a kernel_view is not text")
    asked = line.get("asked", [])
    if not isinstance(asked, list):
        raise ValueError("what was asked of a kernel_view is not a list")
    mapping = raw.get("mapping")
    return KernelView(
        seq=_int(line.get("seq")),
        info=info,
        machine=machine if machine in ARCHITECTURES else "",
        asked=tuple(word for word in WORDS if word in asked),
        problem=problem or ("" if head else "it was not recorded"),
        call_base=_hex(raw.get("call_base", "0x0")),
        symbols=_symbols(raw.get("symbols", {})),
        mapping=None if mapping is None else _mapping(mapping),
        btf=btf,
    )


def _symbols(value: object) -> dict[int, str]:
    if not isinstance(value, dict) or len(value) > SYMBOLS:
        raise ValueError("the symbols of a kernel_view are no object of names")
    if not all(isinstance(name, str) for name in value.values()):
        raise ValueError("a symbol of a kernel_view has no name")
    return {_hex(addr): name for addr, name in value.items()}


def _mapping(value: object) -> Mapping:
    if not isinstance(value, dict):
        raise ValueError("the mapping of a kernel_view is no object")
    problem = value.get("problem", "")
    if not isinstance(problem, str):
        raise ValueError("the problem of a mapping is not text")
    images, native = value.get("images", []), value.get("native", [])
    if not isinstance(images, list) or not isinstance(native, list):
        raise ValueError("a mapping is not lists of numbers")
    return Mapping(
        problem,
        {pair[0]: pair[1] for pair in (_ints(pair, 2) for pair in images)},
        {row[0]: (row[1], row[2]) for row in (_ints(row, 3) for row in native)},
        _int(value.get("duration", 0)),
    )


def _ints(value: object, count: int) -> list[int]:
    if not isinstance(value, list) or len(value) != count:
        raise ValueError("a mapping is not lists of numbers")
    return [_int(number) for number in value]


def _int(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("a number of a kernel_view is none")
    return value


def _hex(value: object) -> int:
    if not isinstance(value, str) or len(value) > 18:
        raise ValueError("an address of a kernel_view is not in hex")
    return int(value, 16)
