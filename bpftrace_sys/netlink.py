"""Route netlink: which fds are such sockets, all attributes by pyroute2, XDP and tc attached.

pyroute2 is an optional extra (``bpfstrace[netlink]``) and imported when a message
comes; without it only the attributes that concern BPF are shown.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from bpftrace_sys.phrases import printable
from decoders import netlink
from decoders.call import Call, plain
from decoders.values import Array, Bytes, Changed, Fd, Int, Pointer, Struct, Text, Value

if TYPE_CHECKING:
    from bpftrace_sys.attach import Way
    from bpftrace_sys.model import Model, Object

CALLS: Final = ("sendto", "sendmsg", "recvfrom", "recvmsg")
"""What netlink is spoken with."""
SENDING: Final = frozenset({"sendto", "sendmsg"})
NETLINK_ROUTE: Final = "0"
FD_ATTRIBUTES: Final = frozenset(
    {"IFLA_XDP_FD", "IFLA_XDP_EXPECTED_FD", "TCA_BPF_FD", "TCA_ACT_BPF_FD"}
)
DEPTH: Final = 16


class Sockets:
    """Tells route netlink sockets from others, by /proc/TID/net/netlink."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}

    def is_route(self, tid: int, fd: int) -> bool:
        """Whether an fd of a thread is a route netlink socket."""
        try:
            link = os.readlink(f"/proc/{tid}/fd/{fd}")
        except OSError:
            return False
        if not link.startswith("socket:["):
            return False
        known = self._known.get(link)
        if known is None:
            if len(self._known) > 4096:
                self._known.clear()
            known = self._known[link] = link[8:-1] in _route_inodes(tid)
        return known


def _route_inodes(tid: int) -> set[str]:
    """Inodes of the route netlink sockets of a thread's network namespace."""
    try:
        with open(f"/proc/{tid}/net/netlink", encoding="ascii", errors="replace") as file:
            rows = [line.split() for line in file]
    except OSError:
        return set()
    # sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
    return {row[9] for row in rows if len(row) >= 10 and row[1] == NETLINK_ROUTE}


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


def _plain_fields(found: dict[str, Any]) -> bool:
    return any(key not in ("attrs", "header", "value", "event") for key in found)


def buffers(call: Call) -> Iterator[Bytes]:
    """The message buffers of a call."""
    if call.syscall.name in ("sendto", "recvfrom"):
        found = plain(call.attr("buf"))
        if isinstance(found, Bytes):
            yield found
        return
    iov = plain(call.attr("msg", "iov"))
    for each in iov.items if isinstance(iov, Array) else (iov,):
        base = plain(each.get("base")) if isinstance(each, Struct) else None
        if isinstance(base, Bytes):
            yield base


def retype(call: Call) -> None:
    """Puts all attributes that pyroute2 decodes in place of those that concern BPF."""
    args = _change(call.args, call)
    assert isinstance(args, Struct)
    call.args = args


def _change(value: Value, call: Call) -> Value:
    if isinstance(value, Pointer):
        return value._replace(value=_change(value.value, call))
    if isinstance(value, Changed):
        return Changed(_change(value.before, call), _change(value.after, call))
    if isinstance(value, Struct):
        return value._replace(
            fields=tuple((name, _change(each, call)) for name, each in value.fields)
        )
    if isinstance(value, Array):
        return value._replace(items=tuple(_change(each, call) for each in value.items))
    if isinstance(value, Bytes) and isinstance(value.typed, Array):
        found = zip(netlink.messages(value.data), value.typed.items, strict=False)
        items = tuple(_whole(message, each, call) for message, each in found)
        return value._replace(typed=value.typed._replace(items=items))
    return value


def _whole(message: netlink.Message, value: Value, call: Call) -> Value:
    if not isinstance(value, Struct) or not isinstance(value.get("attrs"), Bytes):
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


# ---------------------------------------------------------------- attaching


class Talk:
    """Requests that wait for their answers, by socket and sequence number."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._asked: dict[tuple[str, int], list[tuple[Call, netlink.Request, Object | None]]] = {}

    def take(self, call: Call) -> Iterator[tuple[Way, list[Call]]]:
        """What is known, after a call, to have been attached: and the calls that did it."""
        fact = call.fact("fd")
        socket = "" if fact is None else str(fact.info.get("path", ""))
        for buffer in buffers(call):
            if call.syscall.name in SENDING:
                yield from self._sent(call, socket, buffer.data)
                continue
            for answer in netlink.answers(buffer.data):
                waiting = self._asked.pop((socket, answer.seq), ())
                if not answer.error:
                    for asked, request, prog in waiting:
                        for way in self.ways(asked, request, prog):
                            yield way, [asked, call]

    def _sent(
        self, call: Call, socket: str, data: bytes
    ) -> Iterator[tuple[Way, list[Call]]]:
        for request in netlink.requests(data):
            fd = request.fd
            # Now: when the answer comes, the fd may be closed and in use anew.
            prog = (
                self.model.object(call.fd(fd), call.raw.pid) if fd is not None and fd >= 0 else None
            )
            if request.message.flags & netlink.NLM_F_ACK:
                if len(self._asked) > 1024:
                    self._asked.clear()
                key = (socket, request.message.seq)
                self._asked.setdefault(key, []).append((call, request, prog))
            else:
                for way in self.ways(call, request, prog):
                    yield way, [call]

    def ways(
        self, call: Call, request: netlink.Request, prog: Object | None
    ) -> Iterator[Way]:
        """A request that succeeded, in words."""
        from bpftrace_sys.attach import Way

        if request.what == "xdp":
            yield self._xdp(call, request, prog)
            return
        target = self._tc_target(call, request)
        if request.message.type == netlink.RTM_NEWTFILTER:
            yield Way(prog, target, "netlink")
            return
        # What is deleted need not have to do with BPF: told of where a program is known there.
        places = [target]
        if request.message.type == netlink.RTM_DELQDISC:
            device = self._device(call, request)
            places = [f"tc {hook} on {device}" for hook in ("ingress", "egress")]
        for place in places:
            while (holder := self.model.holder(place)) is not None:
                holder.attached.remove(place)
                yield Way(holder, place, "netlink", "detached")

    def _device(self, call: Call, request: netlink.Request) -> str:
        if request.ifindex > 0:
            from bpftrace_sys.attach import device

            return device(request.ifindex, call, self.model)
        return printable(request.device.decode("utf-8", "backslashreplace")) or "?"

    def _xdp(self, call: Call, request: netlink.Request, prog: Object | None) -> Way:
        from bpftrace_sys.attach import Way, xdp_mode

        start = f"xdp on {self._device(call, request)} ("
        there = [
            (known, target)
            for known in self.model.objects.values()
            for target in known.attached
            if target.startswith(start)
        ]
        mode = xdp_mode(request.flags, call, request.ifindex)
        target = f"{start}{mode})"
        if request.fd is not None and request.fd < 0:
            if mode == "default" and len(there) == 1:
                target = there[0][1]
            return Way(None, target, "netlink", "detached")
        expected = request.expected
        before = None
        if expected is not None and expected >= 0:
            before = self.model.object(call.fd(expected), call.raw.pid)
        replaced = before is not None or any(each == target for _, each in there)
        verb = "replaced" if replaced else "attached"
        return Way(prog, target, "netlink", verb, alone=True, before=before)

    def _tc_target(self, call: Call, request: netlink.Request) -> str:
        hook = netlink.parent_name(request.parent)
        device = self._device(call, request)
        what = "tc action" if request.what == "action" else "tc"
        if hook is not None:
            return f"{what} {hook} on {device}"
        return f"{what} on {device} parent {request.parent >> 16:x}:{request.parent & 0xFFFF:x}"
