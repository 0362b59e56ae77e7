"""BTF that loaders load to see which of it the kernel takes."""

from __future__ import annotations

import struct
from typing import Final

from bpftrace_sys.story.model import Model
from bpftrace_sys.story.probes.verdicts import Found
from decoders.call import Call, inner_value
from decoders.values import Bytes

SMALL_BTF: Final = 256
_ELEMENT: Final = {1: 4, 3: 12, 14: 4, 17: 4}
"""Bytes that follow a type of a kind; and below for each of its vlen elements."""
_ELEMENTS: Final = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


def btf_signature(data: bytes) -> tuple[tuple[tuple[int, int], ...], frozenset[bytes]] | None:
    """The kinds with their vlen, and the strings, of a tiny BTF blob; None if it is not one."""
    if len(data) > SMALL_BTF or len(data) < 24 or data[:2] != b"\x9f\xeb":
        return None
    header, type_off, type_len, str_off, str_len = struct.unpack_from("<5I", data, 4)
    types = data[header + type_off : header + type_off + type_len]
    kinds = []
    at = 0
    while at + 12 <= len(types):
        info = struct.unpack_from("<I", types, at + 4)[0]
        kind, count = info >> 24 & 0x7F, info & 0xFFFFFF
        kinds.append((kind, count))
        at += 12 + _ELEMENT.get(kind, 0) + _ELEMENTS.get(kind, 0) * count
    strings = data[header + str_off : header + str_off + str_len].split(b"\0")
    return tuple(sorted(kinds)), frozenset(part for part in strings if part)


def _strings(*words: bytes) -> frozenset[bytes]:
    return frozenset(words)


_INT, _PTR = (1, 0), (2, 0)
_VAR, _FLOAT, _DECL_TAG, _TYPE_TAG = (14, 0), (16, 0), (17, 0), (18, 0)

BTF: Final[dict[tuple[tuple[tuple[int, int], ...], frozenset[bytes]], tuple[str, str]]] = {
    ((_INT,), _strings(b"int")): ("BTF", "libbpf"),
    ((_INT,), _strings()): ("BTF", "cilium/ebpf"),
    ((_INT, (12, 0), (13, 1)), _strings(b"int", b"x", b"a")): ("BTF functions", "libbpf"),
    ((_INT, (12, 1), (13, 1)), _strings(b"int", b"x", b"a")): ("BTF global functions", "libbpf"),
    ((_INT, _VAR, (15, 1)), _strings(b"x", b".data")): ("BTF data sections", "libbpf"),
    ((_INT, _VAR, (15, 1)), _strings(b"x", b"?.data")): ("BTF names like ?.data", "libbpf"),
    ((_FLOAT,), _strings(b"float")): ("BTF floats", "libbpf"),
    ((_INT, _VAR, _DECL_TAG), _strings(b"tag")): ("BTF declaration tags", "libbpf"),
    ((_INT, _PTR, _TYPE_TAG), _strings(b"tag")): ("BTF type tags", "libbpf"),
    (((19, 0),), _strings(b"enum64")): ("64-bit BTF enums", "libbpf"),
    (
        (_INT, _PTR, (12, 1), (12, 1), (13, 1), (13, 1), _DECL_TAG),
        _strings(b"a", b"b", b"arg:ctx"),
    ): ("arg:ctx tags", "libbpf"),
    (
        (_INT, (4, 1), (4, 2)),
        _strings(b"bpf_spin_lock", b"val", b"cnt", b"l"),
    ): ("maps of local storage", "libbpf"),
    ((_PTR, _VAR), _strings(b"a")): ("BTF variables", "cilium/ebpf"),
    (((12, 0), (13, 0)), _strings(b"a")): ("BTF functions", "cilium/ebpf"),
    (((12, 1), (13, 0)), _strings(b"a")): ("BTF global functions", "cilium/ebpf"),
    ((_INT, (8, 0), _DECL_TAG), _strings(b"a")): ("BTF declaration tags", "cilium/ebpf"),
    ((_INT, _TYPE_TAG), _strings(b"a")): ("BTF type tags", "cilium/ebpf"),
    (
        (_INT, _PTR, (4, 0), (12, 1), (13, 1)), _strings(b"a", b"ctx", b"xdp_md"),
    ): ("program type ext", "cilium/ebpf"),
    (((19, 1),), _strings(b"TEST")): ("64-bit BTF enums", "cilium/ebpf"),
}
"""Blobs by what they hold."""


def btf_load(call: Call, model: Model) -> Found | None:
    """A BTF_LOAD, by the kinds and strings in the blob."""
    blob = inner_value(call.attr("attr", "btf"))
    if not isinstance(blob, Bytes) or len(blob.data) != blob.wanted:
        return None
    signature = btf_signature(blob.data)
    known = BTF.get(signature) if signature is not None else None
    return None if known is None else Found(*known)
