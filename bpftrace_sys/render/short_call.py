"""A call in a few words, as a step of an attachment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bpftrace_sys.common.escape import printable as printable
from bpftrace_sys.story.targets import _text
from decoders.arch import NETLINK_CALLS
from decoders.values import Fd, Struct

if TYPE_CHECKING:
    from bpftrace_sys.story.objects import NotedCall


def short_call(call: NotedCall) -> str:
    """A call in a few words: ``bpf(BPF_PROG_LOAD) = 5``."""
    from decoders.values import Int as Number

    result = ""
    if call.raw.ret is not None and isinstance(call.ret, Fd | Number):
        result = f" = {call.raw.ret}"
    name = call.syscall.name
    if name == "openat":
        return f'openat("{_text(call.attr("pathname"))}"){result}'
    if name == "perf_event_open":
        made = call.notes.made
        return f"perf_event_open({made.name if made else ''}){result}"
    if name == "ioctl":
        fd = call.number("fd")
        argument = call.attr("arg")
        words = [str(fd), call.command]
        if isinstance(argument, Fd):
            words.append(str(argument.value))
        return f"ioctl({', '.join(words)})"
    if name == "write":
        fact = call.fact("fd")
        path = printable(str(fact.info.get("path", ""))) if fact is not None else "?"
        return f'write({path}, "{_text(call.attr("buf")).removesuffix(chr(92) + "n")}")'
    if name in NETLINK_CALLS:
        from bpftrace_sys.story.netlink_values import buffers

        types = [
            str(getattr(message.get("nlmsg_type"), "name", None) or "?")
            for buffer in buffers(call)
            for message in getattr(buffer.typed, "items", ())
            if isinstance(message, Struct)
        ]
        return f"{name}({', '.join(types[:4])}){result}"
    if name == "bpf":
        return f"bpf({call.command})" + (result if isinstance(call.ret, Fd) else "")
    return f"{name}(){result}"
