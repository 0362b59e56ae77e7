"""A tracepoint as a perf event, its number from tracefs: perf_event_open, SET_BPF, ENABLE."""

import os
from fcntl import ioctl

from _common import (
    PERF_EVENT_IOC_ENABLE,
    PERF_EVENT_IOC_SET_BPF,
    Kit,
    count,
    counting,
    perf_event,
    run,
    tracefs,
)

PERF_TYPE_TRACEPOINT = 2


def work(kit: Kit) -> None:
    calls = kit.map("ARRAY", 4, 8, 1, "calls")
    prog = kit.prog("TRACEPOINT", counting(calls), "on_getpgid")
    number = int((tracefs() / "events/syscalls/sys_enter_getpgid/id").read_text())
    event = perf_event(PERF_TYPE_TRACEPOINT, number, pid=-1, cpu=0)
    ioctl(event, PERF_EVENT_IOC_SET_BPF, prog)
    ioctl(event, PERF_EVENT_IOC_ENABLE, 0)
    os.getpgid(0)
    kit.say(tracepoint="syscalls:sys_enter_getpgid", number=number, events=[{"fd": event}])
    kit.say(ran=count(calls) > 0)  # how often depends on everybody else


run(work)
