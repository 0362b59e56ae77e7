"""Programs on network devices and namespaces: XDP, tcx, netkit, tc, flow dissector, sk_lookup.

:func:`look` asks in the network namespace of the calling thread; :func:`each_namespace`
goes from one to the next. Netlink is read without pyroute2: what concerns BPF is little.
Layouts: rtnetlink.h, if_link.h, pkt_cls.h, pkt_sched.h and tc_act/tc_bpf.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Final

from bpftrace_sys.record.files.mounts import mounts
from bpftrace_sys.record.machine.netdev import CLONE_NEWNET, XDP_MODES
from bpftrace_sys.record.machine.prog_query import Query
from bpftrace_sys.trace.inventory import Place
from bpftrace_sys.trace.kernel_fields import Info
from decoders.formats.netlink import (
    ACTIONS,
    NLMSG_DONE,
    NLMSG_ERROR,
    Message,
    attribute,
    attributes,
    messages,
)
from decoders.records import dataclass, field
from decoders.uapi import const

RTM_NEWLINK, RTM_GETLINK = 16, 18
RTM_NEWQDISC, RTM_GETQDISC = 36, 38
RTM_NEWTFILTER, RTM_GETTFILTER = 44, 46
RTM_NEWACTION, RTM_GETACTION = 48, 50
NLM_F_REQUEST, NLM_F_DUMP, NLM_F_DUMP_INTR = 1, 0x300, 0x10
IFLA_IFNAME, IFLA_LINKINFO, IFLA_XDP = 3, 18, 43
IFLA_INFO_KIND: Final = 1
IFLA_XDP_ATTACHED, IFLA_XDP_PROG_ID = 2, 4
XDP_BY_MODE: Final = {5: "drv", 6: "skb", 7: "hw"}
"""IFLA_XDP_DRV_PROG_ID and so on (Linux 5.0), where several run on one device."""
TCA_KIND, TCA_OPTIONS, TCA_CHAIN = 1, 2, 11
TCA_BPF_NAME, TCA_BPF_FLAGS, TCA_BPF_ID = 7, 8, 11
TCA_ACT_BPF_PARMS, TCA_ACT_BPF_NAME, TCA_ACT_BPF_ID = 2, 6, 9
TCA_BPF_FLAG_ACT_DIRECT: Final = 1
TCA_ACT_TAB: Final = 1
TCA_ACT_KIND, TCA_ACT_OPTIONS = 1, 2
INGRESS, EGRESS, ROOT = 0xFFFFFFF2, 0xFFFFFFF3, 0xFFFFFFFF
"""Parents of clsact's filters: TC_H_CLSACT with TC_H_MIN_INGRESS and TC_H_MIN_EGRESS."""
OTHER_ACTIONS: Final = {"fw": 4, "route": 6, "flow": 9, "cgroup": 1}
"""As decoders.netlink.ACTIONS, for classifiers that BPF has not come with so far."""
MESSAGE_LIMIT: Final = 1 << 22
"""Messages of one dump."""

TCX: Final = (const.BPF_TCX_INGRESS, const.BPF_TCX_EGRESS)
NETKIT: Final = (const.BPF_NETKIT_PRIMARY, const.BPF_NETKIT_PEER)
NETNS: Final = (const.BPF_FLOW_DISSECTOR, const.BPF_SK_LOOKUP)


class ChangingError(OSError):
    """A dump was interrupted again and again: the list changed while it was read."""


@dataclass(slots=True)
class Devices:
    """A network namespace as far as BPF is concerned."""

    netns: int
    """Its inode."""
    names: dict[int, str] = field(default_factory=dict)
    """Interfaces by ifindex."""
    progs: list[tuple[int, Place]] = field(default_factory=list)
    """(program's id, where)."""
    unseen: list[tuple[str, int]] = field(default_factory=list)
    """What could not be asked, and the errno."""


class _Route:
    """A route netlink socket in the namespace of this thread."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._socket.settimeout(5)
        self._seq = 0

    def close(self) -> None:
        self._socket.close()

    def dump(self, kind: int, body: bytes) -> list[Message]:
        """All messages that answer a dump; raises OSError."""
        for _ in range(3):
            found, whole = self._once(kind, body)
            if whole:
                return found
        raise ChangingError(errno.EAGAIN, "it changed while it was read")

    def _once(self, kind: int, body: bytes) -> tuple[list[Message], bool]:
        self._seq += 1
        head = struct.pack("<IHHII", 16 + len(body), kind, NLM_F_REQUEST | NLM_F_DUMP, self._seq, 0)
        self._socket.send(head + body)
        found: list[Message] = []
        whole = True
        while True:
            data = self._socket.recv(1 << 18)
            for message in messages(data):
                if message.seq != self._seq:
                    continue
                whole = whole and not message.flags & NLM_F_DUMP_INTR
                if message.type == NLMSG_DONE:
                    return found, whole
                if message.type == NLMSG_ERROR:
                    number = -int.from_bytes(message.body[:4], "little", signed=True)
                    if number:
                        raise OSError(number, os.strerror(number))
                    return found, whole
                found.append(message)
                if len(found) > MESSAGE_LIMIT:
                    raise OSError(errno.E2BIG, "too many")


def look(netns: int = 0) -> Devices:
    """What is attached in the network namespace of this thread, whose inode is ``netns``.

    Never raises: what could not be asked stands in ``unseen``.
    """
    found = Devices(netns or os.stat("/proc/thread-self/ns/net").st_ino)
    query = Query()
    _namespace(found, query)
    try:
        route = _Route()
    except OSError as error:
        found.unseen.append(("network devices", error.errno or 0))
        return found
    try:
        kinds = _links(route, found)
        _hooks(found, kinds, query)
        _filters(route, found)
        _actions(route, found)
    except OSError as error:
        found.unseen.append(("network devices", error.errno or 0))
    finally:
        route.close()
    return found


def _add(found: Devices, prog: int, way: str, **info: int | str) -> None:
    place = Info(
        (name, value) for name, value in info.items() if value or name == "attach_type"
    )
    place["netns"] = found.netns
    found.progs.append((prog, Place(way, place)))


def _namespace(found: Devices, query: Query) -> None:
    """The flow dissector and sk_lookup."""
    try:
        fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        for hook in NETNS:
            try:
                answer = query(fd, hook)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    found.unseen.append(("flow dissector and sk_lookup", error.errno or 0))
                    return
                continue
            for prog in answer.prog_ids:
                _add(found, prog, "netns", attach_type=hook, netns_ino=found.netns)
    finally:
        os.close(fd)


def _links(route: _Route, found: Devices) -> dict[int, str]:
    """Interfaces and their XDP programs; what kind each is."""
    kinds: dict[int, str] = {}
    for message in route.dump(RTM_GETLINK, bytes(16)):
        if message.type != RTM_NEWLINK or len(message.body) < 16:
            continue
        ifindex = int.from_bytes(message.body[4:8], "little", signed=True)
        rest = message.body[16:]
        name = _text(attribute(rest, IFLA_IFNAME))
        found.names[ifindex] = name
        kinds[ifindex] = _text(attribute(attribute(rest, IFLA_LINKINFO) or b"", IFLA_INFO_KIND))
        for mode, prog in xdp_programs(attribute(rest, IFLA_XDP) or b""):
            _add(found, prog, "xdp", ifindex=ifindex, device=name, mode=mode)
    return kinds


def xdp_programs(nested: bytes) -> Iterator[tuple[str, int]]:
    """The mode and the id of each XDP program of a device, from its IFLA_XDP."""
    inner = dict(attributes(nested))
    modes = [(mode, _number(inner.get(kind))) for kind, mode in XDP_BY_MODE.items()]
    several = [(mode, prog) for mode, prog in modes if prog]
    attached = inner.get(IFLA_XDP_ATTACHED, b"\0")
    prog = _number(inner.get(IFLA_XDP_PROG_ID))
    if several:
        yield from several
    elif attached[:1] != b"\0" and prog:
        yield XDP_MODES.get(attached[0], ""), prog


def _hooks(found: Devices, kinds: dict[int, str], query: Query) -> None:
    """tcx and netkit: lists of programs that run one after the other."""
    known = dict.fromkeys((*TCX, *NETKIT), True)
    for ifindex, name in found.names.items():
        for hook in (*TCX, *(NETKIT if kinds[ifindex] == "netkit" else ())):
            if not known[hook]:
                continue
            try:
                answer = query(ifindex, hook, links=True)
            except OSError as error:
                if error.errno == errno.EINVAL and hook in TCX:
                    known[hook] = False  # before Linux 6.6
                elif error.errno not in (errno.ENODEV, errno.EINVAL, errno.EACCES):
                    found.unseen.append(("tcx and netkit", error.errno or 0))
                    return
                continue
            way = "tcx" if hook in TCX else "netkit"
            for prog, link in zip(answer.prog_ids, answer.link_ids, strict=True):
                _add(found, prog, way, ifindex=ifindex, device=name, attach_type=hook, link_id=link)


def _filters(route: _Route, found: Devices) -> None:
    """tc's classifiers, and the actions that they lead to."""
    asked: set[tuple[int, int]] = set()
    for message in route.dump(RTM_GETQDISC, bytes(20)):
        if message.type != RTM_NEWQDISC or len(message.body) < 20:
            continue
        _, ifindex, handle, _, _ = struct.unpack_from("<BxxxiIII", message.body)
        kind = _text(attribute(message.body[20:], TCA_KIND))
        parents = (INGRESS, EGRESS) if kind == "clsact" else (handle,)
        for parent in (INGRESS,) if kind == "ingress" else parents:
            if not handle or (ifindex, parent) in asked:
                continue
            asked.add((ifindex, parent))
            body = struct.pack("<BxxxiIII", 0, ifindex, 0, parent, 0)
            try:
                answers = route.dump(RTM_GETTFILTER, body)
            except ChangingError:
                found.unseen.append((f"tc filters of {found.names.get(ifindex)}", errno.EAGAIN))
                continue
            except OSError as error:
                # EOPNOTSUPP, EINVAL: a qdisc without filters; ENODEV: gone.
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV, errno.ENOENT):
                    found.unseen.append(("tc filters", error.errno or 0))
                continue
            for answer in answers:
                filter_programs(answer, ifindex, parent, found)


def filter_programs(message: Message, ifindex: int, parent: int, found: Devices) -> None:
    """Adds the programs of a classifier (RTM_NEWTFILTER): its own, and those of its actions."""
    if message.type != RTM_NEWTFILTER or len(message.body) < 20:
        return
    _, _, handle, _, info = struct.unpack_from("<BxxxiIII", message.body)
    rest = message.body[20:]
    kind = _text(attribute(rest, TCA_KIND))
    options = attribute(rest, TCA_OPTIONS) or b""
    place: dict[str, int | str] = {
        "ifindex": ifindex,
        "device": found.names.get(ifindex, ""),
        "parent": parent,
        "handle": handle,
        "priority": info >> 16,
        "chain": _number(attribute(rest, TCA_CHAIN)),
    }
    if kind == "bpf":
        prog = _number(attribute(options, TCA_BPF_ID))
        direct = _number(attribute(options, TCA_BPF_FLAGS)) & TCA_BPF_FLAG_ACT_DIRECT
        if prog:
            name = _text(attribute(options, TCA_BPF_NAME))
            _add(found, prog, "tc", **place, direct_action=direct, name=name)
    actions = attribute(options, {**ACTIONS, **OTHER_ACTIONS}.get(kind, -1)) or b""
    for prog, name, _ in _acting(actions):
        _add(found, prog, "action", **place, name=name)


def _acting(table: bytes) -> Iterator[tuple[int, str, int]]:
    """The programs among actions: id, name, the action's index."""
    for _, action in attributes(table):
        if _text(attribute(action, TCA_ACT_KIND)) == "bpf":
            inner = attribute(action, TCA_ACT_OPTIONS) or b""
            prog = _number(attribute(inner, TCA_ACT_BPF_ID))
            if prog:
                # struct tc_act_bpf begins with the action's index (tc_gen).
                index = _number(attribute(inner, TCA_ACT_BPF_PARMS))
                yield prog, _text(attribute(inner, TCA_ACT_BPF_NAME)), index


def _actions(route: _Route, found: Devices) -> None:
    """Actions that no filter of ours has led to yet."""
    kind = struct.pack("<HH", 8, TCA_ACT_KIND) + b"bpf\0"
    nested = struct.pack("<HH", 4 + len(kind), 1) + kind
    body = bytes(4) + struct.pack("<HH", 4 + len(nested), TCA_ACT_TAB) + nested
    told = {prog for prog, place in found.progs if place.way == "action"}
    try:
        answers = route.dump(RTM_GETACTION, body)
    except OSError as error:
        # ENOENT, EINVAL: no kernel module act_bpf, and so no such action.
        if error.errno not in (errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP):
            found.unseen.append(("tc actions", error.errno or 0))
        return
    for message in answers:
        if message.type == RTM_NEWACTION and len(message.body) >= 4:
            for prog, name, index in _acting(attribute(message.body[4:], TCA_ACT_TAB) or b""):
                if prog not in told:
                    _add(found, prog, "action", name=name, index=index)


def _number(data: bytes | None) -> int:
    return int.from_bytes(data[:4], "little") if data is not None and len(data) >= 4 else 0


def _text(data: bytes | None) -> str:
    return (data or b"").partition(b"\0")[0].decode("utf-8", "backslashreplace")


# ------------------------------------------------------------ namespaces


def each_namespace(paths: dict[int, str]) -> Iterator[Devices]:
    """Looks into network namespaces: inode -> a path by which each can be entered.

    One that cannot be entered is in ``unseen``, alone. A namespace is a thread's own, so a
    thread of ours goes there and ends.
    """
    results: list[Devices] = []
    libc = ctypes.CDLL(None, use_errno=True)

    def go() -> None:
        own = os.stat("/proc/thread-self/ns/net").st_ino
        # First where we are: after a setns() that would be one more to enter.
        for inode, path in sorted(paths.items(), key=lambda item: item[0] != own):
            if inode == own:
                results.append(look(inode))
                continue
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ESRCH):
                    results.append(Devices(inode, unseen=[("", error.errno or 0)]))
                continue
            try:
                if os.fstat(fd).st_ino != inode:
                    continue  # gone; the path leads elsewhere now
                if libc.setns(fd, CLONE_NEWNET) == 0:
                    results.append(look(inode))
                else:
                    results.append(Devices(inode, unseen=[("", ctypes.get_errno())]))
            finally:
                os.close(fd)

    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    yield from results


def netns_of(pid: int | str) -> int:
    """The inode of a process's network namespace; 0 where it is gone."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return 0


def named_namespaces() -> dict[int, str]:
    """Network namespaces that are mounted, as ``ip netns`` does: inode -> path."""
    found: dict[int, str] = {}
    with contextlib.suppress(OSError):
        for mount in mounts():
            if mount.kind == "nsfs" and mount.root.startswith("net:["):
                with contextlib.suppress(ValueError):
                    found[int(mount.root[5:-1])] = mount.path
    return found
