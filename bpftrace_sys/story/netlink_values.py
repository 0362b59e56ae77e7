"""Route netlink: which fds are such sockets, all attributes by pyroute2, XDP and tc attached.

pyroute2 is an optional extra (``bpfstrace[netlink]``) and imported when a message
comes; without it only the attributes that concern BPF are shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from decoders.call import Call, inner_value
from decoders.formats import netlink
from decoders.values import Array, Bytes, Fd, Int, Struct, Text, Value, rewritten

FD_ATTRIBUTES: Final = frozenset(
    {"IFLA_XDP_FD", "IFLA_XDP_EXPECTED_FD", "TCA_BPF_FD", "TCA_ACT_BPF_FD"}
)
DEPTH: Final = 16
WHOLE: Final = 1 << 16
"""Bytes of a message all of whose attributes are told; of a longer one those that concern BPF."""


# ---------------------------------------------------------------- attributes

_marshal: Any = None


def _decoders() -> Any:
    """pyroute2's message classes by type, or an empty table."""
    global _marshal
    if _marshal is None:
        try:
            from pyroute2.netlink.rtnl.marshal import MarshalRtnl

            _marshal = MarshalRtnl().msg_map
        except (ImportError, AttributeError):
            _marshal = {}
    return _marshal


def decoded(message: bytes) -> Struct | None:
    """All attributes of a message, by pyroute2; None where it does not know it."""
    kind = int.from_bytes(message[4:6], "little")
    made = _decoders().get(kind)
    if made is None:
        return None
    try:
        parsed = made(message)
        parsed.decode()
        return _attributes(parsed.get("attrs", ()), 0)
    except Exception:  # what it makes of garbage is not promised
        return None


def _attributes(attrs: Any, depth: int) -> Struct:
    fields = []
    for pair in attrs:
        name, found = str(pair[0]), pair[1]
        fields.append((name, _value(found, depth + 1)))
    return Struct(tuple(fields))


def _value(found: Any, depth: int) -> Value:
    if depth > DEPTH:
        return Text(b"...")
    if isinstance(found, bool | int):
        return Int(int(found))
    if isinstance(found, bytes | bytearray):
        return Bytes(bytes(found), len(found))
    if isinstance(found, dict):
        if "attrs" in found and not _plain_fields(found):
            return _attributes(found["attrs"], depth)
        return Struct(
            tuple(
                (str(key), _attributes(each, depth) if key == "attrs" else _value(each, depth + 1))
                for key, each in found.items()
                if each not in (None, (), [])
            )
        )
    if isinstance(found, list | tuple):
        items = tuple(_value(each, depth + 1) for each in found[:64])
        return Array(items, len(found))
    return Text(str(found).encode("utf-8", "backslashreplace"))


def _plain_fields(found: dict[str, object]) -> bool:
    return any(key not in ("attrs", "header", "value", "event") for key in found)


def buffers(call: Call) -> Iterator[Bytes]:
    """The message buffers of a call."""
    if call.syscall.name in ("sendto", "recvfrom"):
        found = inner_value(call.attr("buf"))
        if isinstance(found, Bytes):
            yield found
        return
    iov = inner_value(call.attr("msg", "iov"))
    for each in iov.items if isinstance(iov, Array) else (iov,):
        base = inner_value(each.get("base")) if isinstance(each, Struct) else None
        if isinstance(base, Bytes):
            yield base


def retype(call: Call) -> None:
    """Puts all attributes that pyroute2 decodes in place of those that concern BPF."""

    def change(value: Value) -> Value | None:
        if not isinstance(value, Bytes) or not isinstance(value.typed, Array):
            return None
        found = zip(netlink.messages(value.data), value.typed.items, strict=False)
        items = tuple(_whole(message, each, call) for message, each in found)
        return value._replace(typed=value.typed._replace(items=items))

    args = rewritten(call.args, change)
    assert isinstance(args, Struct)
    call.args = args


def _whole(message: netlink.Message, value: Value, call: Call) -> Value:
    if not isinstance(value, Struct) or not isinstance(value.get("attrs"), Bytes):
        return value
    if len(message.body) > WHOLE:
        return value
    head = netlink.HEADER.pack(
        netlink.HEADER.size + len(message.body), message.type, message.flags, message.seq,
        message.port,
    )  # fmt: skip
    attrs = decoded(head + message.body)
    if attrs is None or not attrs.fields:
        return value
    named = _with_fds(attrs, call)
    return value._replace(
        fields=tuple(
            (name, each._replace(typed=named) if name == "attrs" and isinstance(each, Bytes)
             else each)
            for name, each in value.fields
        )
    )  # fmt: skip


def _with_fds(value: Value, call: Call) -> Value:
    if not isinstance(value, Struct):
        if isinstance(value, Array):
            return value._replace(items=tuple(_with_fds(each, call) for each in value.items))
        return value
    fields: list[tuple[str, Value]] = []
    for name, each in value.fields:
        if name in FD_ATTRIBUTES and isinstance(each, Int):
            fd = each.value - (1 << 32) if each.value >= 1 << 31 else each.value
            fields.append((name, Fd(fd, call.fd(fd) if fd >= 0 else None)))
        else:
            fields.append((name, _with_fds(each, call)))
    return Struct(tuple(fields))
