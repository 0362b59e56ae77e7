"""A uprobe as older tools make it: a line in tracefs' uprobe_events, its id, a perf event."""

import os
from fcntl import ioctl

from _common import (
    PERF_EVENT_IOC_ENABLE,
    PERF_EVENT_IOC_SET_BPF,
    Kit,
    count,
    counting,
    libc,
    libc_function,
    perf_event,
    run,
    tracefs,
)

PERF_TYPE_TRACEPOINT = 2


def work(kit: Kit) -> None:
    calls = kit.map("ARRAY", 4, 8, 1, "calls")
    prog = kit.prog("KPROBE", counting(calls), "on_getppid")
    path, offset = libc_function("getppid")
    root, event = tracefs(), f"bpfstrace_{os.getpid()}/on_getppid"

    def command(line: str) -> None:
        file = os.open(root / "uprobe_events", os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, line.encode() + b"\n")
        finally:
            os.close(file)

    command(f"p:{event} {path}:{offset:#x}")
    kit.at_end.callback(command, f"-:{event}")
    number = int((root / "events" / event / "id").read_text())
    fd = perf_event(PERF_TYPE_TRACEPOINT, number)
    kit.at_end.callback(os.close, fd)
    ioctl(fd, PERF_EVENT_IOC_SET_BPF, prog)
    ioctl(fd, PERF_EVENT_IOC_ENABLE, 0)
    libc.getppid()
    kit.say(event=event, number=number, path=path, offset=offset, events=[{"fd": fd}])
    kit.say(hits=count(calls))


run(work)
