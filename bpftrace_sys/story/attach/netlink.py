"""Attaching over route netlink: requests, and the answers that settle them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, TypeAlias

from bpftrace_sys.story.netlink_values import buffers
from bpftrace_sys.story.targets import printable
from decoders.formats import netlink

if TYPE_CHECKING:
    from bpftrace_sys.story.attach.ways import Way
    from bpftrace_sys.story.model import Model
    from bpftrace_sys.story.objects import NotedCall, Object


_Asked: TypeAlias = "tuple[NotedCall, netlink.Request, Object | None]"
"""A request: its call, and the program that it names."""
SENDING: Final = frozenset({"sendto", "sendmsg"})


class Talk:
    """Requests that wait for their answers, by socket and sequence number."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._asked: dict[tuple[str, int], list[_Asked]] = {}

    def take(self, call: NotedCall) -> Iterator[tuple[Way, list[NotedCall]]]:
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
        self, call: NotedCall, socket: str, data: bytes
    ) -> Iterator[tuple[Way, list[NotedCall]]]:
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

    def ways(self, call: NotedCall, request: netlink.Request, prog: Object | None) -> Iterator[Way]:
        """A request that succeeded, in words."""
        from bpftrace_sys.story.attach.ways import Way

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
                holder.leave(place)
                yield Way(holder, place, "netlink", "detached")

    def _device(self, call: NotedCall, request: netlink.Request) -> str:
        if request.ifindex > 0:
            from bpftrace_sys.story.attach.places import device

            return device(request.ifindex, call, self.model)
        return printable(request.device.decode("utf-8", "backslashreplace")) or "?"

    def _xdp(self, call: NotedCall, request: netlink.Request, prog: Object | None) -> Way:
        from bpftrace_sys.story.attach.places import xdp_mode
        from bpftrace_sys.story.attach.ways import Way

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

    def _tc_target(self, call: NotedCall, request: netlink.Request) -> str:
        hook = netlink.parent_name(request.parent)
        device = self._device(call, request)
        what = "tc action" if request.what == "action" else "tc"
        if hook is not None:
            return f"{what} {hook} on {device}"
        return f"{what} on {device} parent {request.parent >> 16:x}:{request.parent & 0xFFFF:x}"
